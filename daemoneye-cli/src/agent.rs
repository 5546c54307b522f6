//! One connection to an agent: the running one, or one that is started for a copied store.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use daemoneye_eventbus::{BusError, OperatorAnswers, OperatorClient, RpcError};
use daemoneye_lib::proto::{OperatorRequest, OperatorResponse, operator_request::Verb, operator_response::Answer};
use tokio::time::Instant;

use crate::error::CliError;
use crate::jail;
use crate::offline::OfflineAgent;
use crate::owner;
use crate::settings::Settings;

/// How long a connection and its hello may take at most: an agent that is up answers at once.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What is left of the deadline, at most, when the agent must have ended its work: its own word that time is up, with the rows
/// that there are, should arrive before this side gives up.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection; an agent that was started for it ends with it.
pub(crate) struct Session {
    client: OperatorClient,
    deadline: Duration,
    /// The end of the deadline; it covers the connection too.
    until: Instant,
    offline: Option<OfflineAgent>,
}

impl Session {
    /// Connects to the running agent, or serves `--store`.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, CliError> {
        Self::open_beside(settings, None).await
    }

    /// The same; of a copied store the ledger lies in `ledger`, which need not be in the copy.
    pub(crate) async fn open_beside(settings: &Settings, ledger: Option<&Path>) -> Result<Self, CliError> {
        match &settings.store {
            Some(store) => Self::open_store(settings, Some(store), ledger).await,
            None => Self::open_running(settings).await,
        }
    }

    /// The same, but where no agent runs one is started on an empty store: rules can be checked anywhere.
    pub(crate) async fn open_anywhere(settings: &Settings) -> Result<Self, CliError> {
        match Self::open(settings).await {
            Err(CliError::Config(_)) if settings.is_missing("runtime_dir") => {
                Self::open_store(settings, None, None).await
            }
            Err(error) if error.is_away() => Self::open_store(settings, None, None).await,
            other => other,
        }
    }

    async fn open_running(settings: &Settings) -> Result<Self, CliError> {
        let until = Instant::now() + settings.deadline;
        let client = connect(&settings.socket()?, settings.deadline.min(CONNECT_DEADLINE)).await?;
        jail::close(&settings.sandbox_required)?;
        Ok(Self { client, deadline: settings.deadline, until, offline: None })
    }

    async fn open_store(settings: &Settings, store: Option<&Path>, ledger: Option<&Path>) -> Result<Self, CliError> {
        let (agent, client) = OfflineAgent::start(store, ledger).await?;
        jail::close(&settings.sandbox_required)?;
        let until = Instant::now() + settings.deadline;
        Ok(Self { client, deadline: settings.deadline, until, offline: Some(agent) })
    }

    /// Asks; the answers come one by one.
    pub(crate) async fn ask(&self, verb: Verb) -> Result<Answers, CliError> {
        let until = (!is_endless(&verb)).then_some(self.until);
        let asked = self.client.request(OperatorRequest { verb: Some(verb) }, Some(self.deadline));
        Ok(Answers { answers: before(until, asked).await?, until })
    }

    /// Whether the agent was started for this session, so that it knows of nothing that is in force.
    pub(crate) const fn is_started(&self) -> bool {
        self.offline.is_some()
    }

    /// The deadline begins again: for a connection that is used for one question after another.
    pub(crate) fn renew(&mut self) {
        self.until = Instant::now() + self.deadline;
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

/// What takes as long as there are events or bytes; it is interrupted, not timed.
const fn is_endless(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::EventsFollow(_)
            | Verb::DataBackup(_)
            | Verb::DataExport(_)
            | Verb::DataFsck(_)
            | Verb::AuditCompare(_)
            | Verb::DataVacuum(_)
            | Verb::RulesBacktest(_)
            | Verb::RulesExport(_)
    )
}

/// The answers to one request, until the deadline.
pub(crate) struct Answers {
    answers: OperatorAnswers,
    until: Option<Instant>,
}

impl Answers {
    /// The next one; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<OperatorResponse>, CliError> {
        before(self.until, self.answers.next()).await
    }
}

async fn before<T>(until: Option<Instant>, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, CliError> {
    let done = match until {
        Some(until) => tokio::time::timeout_at(until, work).await.unwrap_or(Err(RpcError::Timeout)),
        None => work.await,
    };
    Ok(done?)
}

/// How long the agent may work when this side waits for `deadline`.
fn works(deadline: Duration) -> Duration {
    deadline.saturating_sub(PATIENCE.min(deadline / 4))
}

/// Connects and says hello, within a bound.
pub(crate) async fn connect(socket: &Path, patience: Duration) -> Result<OperatorClient, CliError> {
    let hung = || CliError::AgentHung { socket: socket.to_owned(), waited: patience };
    let hello = OperatorClient::connect(socket, "daemoneye-cli");
    let connected = tokio::time::timeout(patience, hello).await.map_err(|_| hung())?;
    connected.map_err(|error| match error {
        BusError::PeerSilent(_) => hung(),
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
    fn the_agents_word_that_time_is_up_has_time_to_arrive() {
        for (deadline_ms, works_ms) in
            [(1_000, 750), (2_000, 1_500), (12_000, 9_000), (30_000, 27_000), (300_000, 297_000)]
        {
            assert_eq!(works(Duration::from_millis(deadline_ms)), Duration::from_millis(works_ms), "{deadline_ms}");
        }
    }
}
