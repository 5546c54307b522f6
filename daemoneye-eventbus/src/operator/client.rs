//! The operator socket from the CLI's side.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::frame::{BUS_LIMIT_BYTES, OPERATOR_LIMIT_BYTES};
use daemoneye_lib::proto::{
    Cancel, Hello, OperatorRequest, OperatorResponse, Pong, Role, Welcome, envelope::Body, operator_request, request,
};
use daemoneye_lib::{BUILD, PROTOCOL_VERSION};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{is_endless, limits};
use crate::door::enter;
use crate::link::Link;
use crate::rpc::{CallPages, Calls};
use crate::{BusError, DEFAULT_DEADLINE, RpcError, transport};

/// How long connecting and `Welcome` may take: an agent that is up answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the operator socket; clones share it, and the last one closes it.
#[derive(Clone)]
pub struct OperatorClient {
    calls: Arc<Calls>,
    welcome: Arc<Welcome>,
    _open: Arc<DropGuard>,
}

impl OperatorClient {
    /// Connects and says hello as `Operator`; the agent may grant less (see [`Self::welcome`]).
    ///
    /// # Errors
    /// [`BusError`]: nobody answers (`Io`), or the agent refuses (`PeerFault`).
    pub async fn connect(socket: &Path, id: &str) -> Result<Self, BusError> {
        let stream = tokio::time::timeout(PATIENCE, transport::connect(socket)).await;
        let stream = stream.map_err(|_| BusError::PeerSilent("it does not accept"))??;
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            build: BUILD.to_owned(),
            role: Role::Operator.into(),
            id: id.to_owned(),
            token: Vec::new(),
        };
        let limits = limits(BUS_LIMIT_BYTES, OPERATOR_LIMIT_BYTES);
        let ended = CancellationToken::new();
        let (link, welcome) = enter(stream, limits, hello, PATIENCE, ended.clone()).await?;
        let calls = Calls::new("the agent", Arc::clone(&link.outbox));
        drop(tokio::spawn(read(link, Arc::clone(&calls), ended.clone())));
        Ok(Self { calls, welcome: Arc::new(welcome), _open: Arc::new(ended.drop_guard()) })
    }

    /// The agent's answer to hello: build and granted role.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Sends a request. `deadline` is held between 1 s and 300 s, `None` means 30 s; what has no bound of its own runs until it is
    /// cancelled.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn request(
        &self,
        request: OperatorRequest,
        deadline: Option<Duration>,
    ) -> Result<OperatorAnswers, RpcError> {
        let deadline = if is_endless(&request) { None } else { Some(deadline.unwrap_or(DEFAULT_DEADLINE)) };
        let pages = self.calls.begin(request::Body::Operator(request), deadline).await?;
        Ok(OperatorAnswers { pages, _client: self.clone() })
    }

    /// Cancels a running request by [`OperatorAnswers::id`]; its answers then end with [`RpcError::Cancelled`].
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn cancel(&self, id: u64) -> Result<(), RpcError> {
        let verb = operator_request::Verb::Cancel(Cancel { request_id: id });
        let mut answers = self.request(OperatorRequest { verb: Some(verb) }, None).await?;
        answers.next().await.map(drop)
    }
}

/// Reads until either side ends the connection.
async fn read(mut link: Link, calls: Arc<Calls>, ended: CancellationToken) {
    loop {
        let next = tokio::select! {
            biased;
            () = ended.cancelled() => break,
            next = link.reader.next() => next,
        };
        match next {
            Ok(Body::Response(response)) => tokio::select! {
                biased;
                () = ended.cancelled() => break,
                () = calls.answer(response) => {}
            },
            // Fails only on a connection that is closing.
            Ok(Body::Ping(ping)) => drop(link.outbox.send(Body::Pong(Pong { nonce: ping.nonce }))),
            Ok(Body::Pong(_)) => {}
            // A fault, a frame that is none, or the end: whoever waits is told that the agent is gone.
            Ok(_) | Err(_) => break,
        }
    }
    link.close(None).await;
    calls.end();
}

/// The answers to one request; dropping it cancels the request.
pub struct OperatorAnswers {
    pages: CallPages<OperatorResponse>,
    _client: OperatorClient,
}

impl OperatorAnswers {
    /// The request's id, for [`OperatorClient::cancel`].
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.pages.id()
    }

    /// The next answer; `None` after the last one.
    ///
    /// # Errors
    /// [`RpcError`], after which there are no further answers.
    pub async fn next(&mut self) -> Result<Option<OperatorResponse>, RpcError> {
        self.pages.next().await
    }
}
