//! Requests of the agent, as the client's owner gets and answers them.

use daemoneye_lib::proto::{CollectorRequest, CollectorResponse, Correlation, Fault, response};
use tokio_util::sync::CancellationToken;

use crate::RpcError;
use crate::rpc::Running;

/// A request of the agent.
pub struct IncomingCall {
    /// What is asked; it has a verb.
    pub request: CollectorRequest,
    /// What it belongs to.
    pub correlation: Option<Correlation>,
    /// Fires on cancel, deadline or hang-up: stop working on it.
    pub cancel: CancellationToken,
    /// The way to answer.
    pub responder: Responder,
}

/// Answers one request; dropped without an answer, it answers `Error`.
pub struct Responder {
    running: Running,
}

impl Responder {
    pub(super) const fn new(running: Running) -> Self {
        Self { running }
    }

    /// One page of several; waits for room on the connection.
    ///
    /// # Errors
    /// [`RpcError::Cancelled`] when nobody wants further pages, [`RpcError::LimitSize`] when the page does not fit into a frame.
    pub async fn page(&mut self, answer: CollectorResponse) -> Result<(), RpcError> {
        self.running.page(response::Body::Collector(answer)).await
    }

    /// The only or last answer.
    ///
    /// # Errors
    /// [`RpcError::Cancelled`] when nobody wants it any more.
    pub async fn done(self, answer: CollectorResponse) -> Result<(), RpcError> {
        self.running.succeed(Some(response::Body::Collector(answer)))
    }

    /// Refused or failed.
    pub async fn fail(self, fault: Fault) {
        self.running.fail(fault);
    }
}
