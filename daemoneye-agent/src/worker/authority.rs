//! Who may connect to the bus: the collector that holds the token of this agent and runs as the expected user.

use std::path::PathBuf;
use std::sync::Arc;

use daemoneye_engine::store::Store;
use daemoneye_eventbus::auth::same_token;
use daemoneye_eventbus::{Authority, Peer};
use daemoneye_lib::proto::{Fault, FaultKind, Hello, Register, Registered, Role, Sequence};

use crate::parent::token::TOKEN_BYTES;
use crate::platform;
use crate::settings::Settings;

/// The gate of the bus.
pub(crate) struct BusGate {
    store: Arc<Store>,
    token_file: PathBuf,
    uid: Option<u32>,
    spawn: bool,
    heartbeat_interval_ms: u32,
}

impl BusGate {
    pub(crate) fn new(settings: &Settings, store: Arc<Store>) -> Self {
        Self {
            store,
            token_file: settings.token_file(),
            uid: settings.procmond.uid,
            spawn: settings.procmond.spawn,
            heartbeat_interval_ms: u32::try_from(settings.procmond.heartbeat_interval_ms).unwrap_or(u32::MAX),
        }
    }
}

fn unauthenticated(message: &str) -> Fault {
    Fault::new(FaultKind::Unauthenticated, message)
}

impl Authority for BusGate {
    fn admit(&self, peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        let expected_user = self.uid.map_or(peer.uid == 0 || peer.uid == platform::own_uid(), |uid| uid == peer.uid);
        if !expected_user {
            return Err(unauthenticated(
                "this user is not the collector's: set procmond.uid in the agent's configuration",
            ));
        }
        // Read anew each time: the parent makes a new token for each procmond that it starts.
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
