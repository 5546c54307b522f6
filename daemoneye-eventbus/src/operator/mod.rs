//! The operator socket: server in the agent, client in the CLI.
//!
//! Requests are at most 1 MiB; answers stream in pages, and a page is produced only when there is room for it on the
//! connection. A hang-up cancels what the operator asked for.

mod client;
mod server;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use daemoneye_lib::frame::{BUS_LIMIT_BYTES, OPERATOR_LIMIT_BYTES};
use daemoneye_lib::proto::{Fault, Hello, OperatorRequest, OperatorResponse, Role, operator_request};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::door::{Door, HALF_FRAME, PING};
use crate::link::Limits;
use crate::transport::Listener;
use crate::{BusError, Peer};

pub use self::client::{OperatorAnswers, OperatorClient};

/// Operators' connections at a time: people and their scripts, not machines.
const MAX_CONNECTIONS: usize = 32;

/// A future that a service returns.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Credentials from the socket.
    pub peer: Peer,
    /// What [`OperatorService::admit`] granted.
    pub role: Role,
    /// What it calls itself.
    pub id: String,
}

/// What the agent does for operators.
pub trait OperatorService: Send + Sync + 'static {
    /// Decides who a peer is (`Operator` or `Viewer`). The protocol version is checked already.
    ///
    /// # Errors
    /// The fault that the peer is told before it is closed.
    fn admit(&self, peer: &Peer, hello: &Hello) -> Result<Role, Fault>;

    /// Works on one request that the caller's role allows; it has a verb, and never `Cancel`. Answers may be many (pages):
    /// `answers` is bounded, so send with `.await`. `cancel` fires on Cancel, deadline or hang-up, and the future is dropped a
    /// second later. `Ok` ends the answers, `Err` ends them with a fault.
    fn handle(
        self: Arc<Self>,
        caller: Caller,
        request: OperatorRequest,
        answers: mpsc::Sender<OperatorResponse>,
        cancel: CancellationToken,
    ) -> BoxFuture<Result<(), Fault>>;
}

/// Opens the operator socket and serves until `shutdown`; the handle ends after the last connection was closed.
///
/// # Errors
/// [`BusError`] when the socket cannot be opened.
pub async fn serve_operators(
    socket: PathBuf,
    service: Arc<dyn OperatorService>,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, BusError> {
    let listener = Listener::open(&socket).await?;
    info!(socket = %socket.display(), "operator socket open");
    let limits = limits(OPERATOR_LIMIT_BYTES, BUS_LIMIT_BYTES);
    let door = Door::new(limits, MAX_CONNECTIONS, shutdown);
    Ok(tokio::spawn(async move {
        let tasks = TaskTracker::new();
        let serve = |stream, peer, place| server::serve(Arc::clone(&service), Arc::clone(&door), stream, peer, place);
        Arc::clone(&door).keep(listener, &socket, tasks.clone(), serve).await;
        tasks.close();
        tasks.wait().await;
    }))
}

/// Whether a request runs until it is done or somebody cancels it: what takes as long as there are events or bytes.
const fn is_endless(request: &OperatorRequest) -> bool {
    use operator_request::Verb;
    matches!(
        request.verb,
        Some(
            Verb::EventsFollow(_)
                | Verb::DataBackup(_)
                | Verb::DataExport(_)
                | Verb::DataFsck(_)
                | Verb::AuditCompare(_)
                | Verb::DataVacuum(_)
                | Verb::RulesBacktest(_)
                | Verb::RulesExport(_)
        )
    )
}

/// A silent peer is not taken for dead: a console that waits behind a pager cannot ping. A dead one hangs up.
const fn limits(read_bytes: usize, write_bytes: usize) -> Limits {
    Limits { read_bytes, write_bytes, half_frame: HALF_FRAME, ping: PING, silence: None }
}
