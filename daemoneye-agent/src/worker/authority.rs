//! Who may connect to the bus: the collector that holds the token of this agent and runs as the expected user.

use std::path::PathBuf;
use std::sync::Arc;

use daemoneye_engine::store::Store;
use daemoneye_eventbus::auth::same_token;
use daemoneye_eventbus::{Authority, Peer};
use daemoneye_lib::jail::Account;
use daemoneye_lib::proto::{Fault, FaultKind, Hello, Register, Registered, Role, Sequence};

use crate::operator::VIEWERS_GROUP;
use crate::parent::token::TOKEN_BYTES;
use crate::platform;
use crate::settings::Settings;

/// The user that procmond becomes when root starts it and that user exists.
const COLLECTOR: &str = "daemoneye-procmond";

/// The gate of the bus.
pub(crate) struct BusGate {
    store: Arc<Store>,
    token_file: PathBuf,
    uids: Vec<u32>,
    spawn: bool,
    heartbeat_interval_ms: u32,
}

impl BusGate {
    pub(crate) fn new(settings: &Settings, store: Arc<Store>) -> Self {
        Self {
            store,
            token_file: settings.token_file(),
            uids: settings.procmond.uid.map_or_else(|| collectors_of(platform::own_uid()), |uid| vec![uid]),
            spawn: settings.procmond.spawn,
            heartbeat_interval_ms: u32::try_from(settings.procmond.heartbeat_interval_ms).unwrap_or(u32::MAX),
        }
    }
}

/// The users that a collector may be where no setting names one: root, our own, and who a collector of root becomes.
fn collectors_of(own: u32) -> Vec<u32> {
    let lesser = || Account::find(COLLECTOR, VIEWERS_GROUP).or_else(Account::stand_in).map(|account| account.uid);
    [0, own].into_iter().chain((own == 0).then(lesser).flatten()).collect()
}

fn unauthenticated(message: &str) -> Fault {
    Fault::new(FaultKind::Unauthenticated, message)
}

impl Authority for BusGate {
    fn admit(&self, peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        if !self.uids.contains(&peer.uid) {
            return Err(unauthenticated(
                "this user is not the collector's: set procmond.uid in the agent's configuration",
            ));
        }
        // Read anew each time: the parent makes the token when it starts procmond, and an external one's may be exchanged.
        let expected = std::fs::read(&self.token_file).map_err(|_| {
            let message = if self.spawn {
                "the agent has no token to compare with: start procmond through it"
            } else {
                "the agent has no token to compare with: put one into the file that procmond.token_file names"
            };
            Fault::new(FaultKind::Unavailable, message)
        })?;
        if expected.len() != TOKEN_BYTES {
            let message = format!(
                "the agent's token file has {} bytes: put exactly {TOKEN_BYTES} random ones into it",
                expected.len()
            );
            return Err(Fault::new(FaultKind::Unavailable, message));
        }
        if !same_token(&expected, &hello.token) {
            return Err(unauthenticated(if self.spawn {
                "the token is not the one that this agent gave out: restart procmond through the agent"
            } else {
                "the token is not that of procmond.token_file: give the agent and procmond the same token file"
            }));
        }
        match hello.role() {
            role @ (Role::Collector | Role::Subscriber) => Ok(role),
            Role::Operator | Role::Viewer | Role::Unspecified => {
                Err(Fault::new(FaultKind::Forbidden, "the bus is for collectors: operators connect to cli.sock"))
            }
        }
    }

    fn committed(&self, collector: &str) -> Option<Sequence> {
        self.store.committed(collector)
    }

    fn register(&self, register: &Register) -> Result<Registered, Fault> {
        Ok(Registered {
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            committed: self.store.committed(&register.collector_id),
        })
    }

    fn deregister(&self, collector: &str) {
        tracing::info!(collector, "left in order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_root_knows_whom_its_collector_becomes_and_any_other_only_itself_and_root() {
        assert_eq!(collectors_of(1000), [0, 1000]);
        let lesser = Account::find(COLLECTOR, VIEWERS_GROUP).or_else(Account::stand_in).map(|account| account.uid);
        assert_eq!(collectors_of(0), [Some(0), Some(0), lesser].into_iter().flatten().collect::<Vec<_>>());
        assert_ne!(lesser, Some(0));
    }
}
