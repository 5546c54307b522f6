//! One connection to an agent: the running one, or one that is started for a copied store.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use daemoneye_eventbus::{BusError, MAX_DEADLINE, OperatorAnswers, OperatorClient};
use daemoneye_lib::proto::{OperatorRequest, operator_request::Verb, operator_response::Answer};

use crate::error::CliError;
use crate::jail;
use crate::offline::OfflineAgent;
use crate::owner;
use crate::settings::Settings;

/// How long a connection and its hello may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How much longer than the agent may work this side waits: the agent's own word that time is up, with the rows that there
/// are, should arrive first.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection; an agent that was started for it ends with it.
pub(crate) struct Session {
    client: OperatorClient,
    deadline: Duration,
    offline: Option<OfflineAgent>,
}

impl Session {
    /// Connects to the running agent, or serves `--store`.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, CliError> {
        match &settings.store {
            Some(store) => Self::open_store(settings, Some(store)).await,
            None => Self::open_running(settings).await,
        }
    }

    /// The same, but where no agent runs one is started on an empty store: rules can be checked anywhere.
    pub(crate) async fn open_anywhere(settings: &Settings) -> Result<Self, CliError> {
        match Self::open(settings).await {
            Err(CliError::AgentUnreachable { .. } | CliError::AgentForbidden { .. }) => {
                Self::open_store(settings, None).await
            }
            other => other,
        }
    }

    async fn open_running(settings: &Settings) -> Result<Self, CliError> {
        let socket = settings.socket();
        let client = connect(&socket).await?;
        jail::close(&settings.sandbox_required)?;
        Ok(Self { client, deadline: settings.deadline, offline: None })
    }

    async fn open_store(settings: &Settings, store: Option<&Path>) -> Result<Self, CliError> {
        let (agent, client) = OfflineAgent::start(store).await?;
        jail::close(&settings.sandbox_required)?;
        Ok(Self { client, deadline: settings.deadline, offline: Some(agent) })
    }

    /// Asks; the answers come one by one.
    pub(crate) async fn ask(&self, verb: Verb) -> Result<OperatorAnswers, CliError> {
        Ok(self.client.request(OperatorRequest { verb: Some(verb) }, Some(waits(self.deadline))).await?)
    }

    /// How long the agent may work on a request.
    pub(crate) fn deadline(&self) -> Duration {
        works(self.deadline)
    }

    /// Asks for one answer.
    pub(crate) async fn ask_once(&self, verb: Verb) -> Result<Answer, CliError> {
        let mut answers = self.ask(verb).await?;
        let first = answers.next().await?.and_then(|response| response.answer);
        first.ok_or(CliError::AgentAnswer("an answer"))
    }

    /// Ends an agent that was started for this session.
    pub(crate) async fn close(self) {
        drop(self.client);
        if let Some(offline) = self.offline {
            offline.stop().await;
        }
    }
}

/// How long the agent may work when this side was given `deadline`.
fn works(deadline: Duration) -> Duration {
    deadline.min(MAX_DEADLINE.saturating_sub(PATIENCE))
}

/// How long this side waits for it.
fn waits(deadline: Duration) -> Duration {
    deadline.saturating_add(PATIENCE).min(MAX_DEADLINE)
}

/// Connects and says hello, within a bound.
pub(crate) async fn connect(socket: &Path) -> Result<OperatorClient, CliError> {
    let hello = OperatorClient::connect(socket, "daemoneye-cli");
    let connected = match tokio::time::timeout(CONNECT_DEADLINE, hello).await {
        Ok(connected) => connected,
        Err(_) => Err(BusError::PeerSilent("no answer to hello")),
    };
    connected.map_err(|error| match error {
        BusError::PeerFault(fault) => CliError::PeerFault { fault, statement: None },
        limit @ BusError::LimitPath { .. } => CliError::SocketPath(limit),
        BusError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            CliError::AgentForbidden { socket: socket.to_owned(), owner: owner::of(socket) }
        }
        source => CliError::AgentUnreachable { socket: socket.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_side_waits_long_enough_for_the_agents_word_that_time_is_up() {
        for seconds in [1, 30, 298, 300, 100_000] {
            let deadline = Duration::from_secs(seconds);
            assert!(waits(deadline) >= works(deadline) + PATIENCE, "{seconds}");
            assert!(waits(deadline) <= MAX_DEADLINE, "{seconds}");
        }
    }
}
