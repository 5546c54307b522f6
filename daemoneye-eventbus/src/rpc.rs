//! Requests in flight on one connection, in both directions: [`Calls`] for those that this side sent, [`Serving`] for those
//! that the peer sent. Each has a deadline, at most ten run at a time, and each can be cancelled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemoneye_lib::proto::{
    Cancel, Fault, FaultKind, Request, Response, RpcStatus, envelope::Body, request, response,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::link::{Outbox, Unsent, locked};
use crate::{DEFAULT_DEADLINE, MAX_DEADLINE, MAX_RUNNING_REQUESTS, MIN_DEADLINE, RpcError};

/// Pages that wait for their consumer; then the connection's reader waits, and with it the producer.
const WAITING_PAGES: usize = 16;

/// Requests that this side sent.
pub(crate) struct Calls {
    peer: String,
    outbox: Arc<Outbox>,
    table: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
}

#[derive(Clone)]
struct Waiting {
    answers: mpsc::Sender<Response>,
    deadline: Option<Instant>,
}

/// What the callee's own clock adds before the caller gives up: the answer `Timeout` should arrive first.
const GRACE: Duration = Duration::from_millis(500);

impl Calls {
    pub(crate) fn new(peer: &str, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { peer: peer.to_owned(), outbox, table: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// Sends a request. Without a deadline it runs until it is cancelled.
    pub(crate) async fn begin<T: Answer>(
        self: &Arc<Self>,
        body: request::Body,
        deadline: Option<Duration>,
    ) -> Result<CallPages<T>, RpcError> {
        let deadline = deadline.map(|deadline| deadline.clamp(MIN_DEADLINE, MAX_DEADLINE));
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answers, pages) = mpsc::channel(WAITING_PAGES);
        let until = deadline.map(|deadline| Instant::now() + deadline + GRACE);
        {
            let mut table = locked(&self.table);
            if table.len() >= MAX_RUNNING_REQUESTS {
                return Err(RpcError::LimitRunning);
            }
            table.insert(id, Waiting { answers, deadline: until });
        }
        // From here on dropping `call` takes the request back.
        let call = CallPages {
            id,
            pages,
            deadline: until,
            calls: Arc::clone(self),
            ended: false,
            _answer: std::marker::PhantomData,
        };
        let deadline_ms = deadline.map_or(0, |deadline| u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX));
        let request = Request { id, deadline_ms, correlation: None, body: Some(body) };
        let sending = self.outbox.send_waiting(Body::Request(request));
        let sent = match until {
            Some(until) => timeout_at(until, sending).await.map_err(|_| RpcError::Timeout)?,
            None => sending.await,
        };
        sent.map_err(|unsent| self.unsent(&unsent))?;
        Ok(call)
    }

    fn unsent(&self, unsent: &Unsent) -> RpcError {
        match *unsent {
            Unsent::Closed => RpcError::Unavailable(self.peer.clone()),
            Unsent::TooLarge { length, limit } => RpcError::LimitSize { length, limit },
        }
    }

    /// Hands an answer to whoever waits for it; an answer that nobody waits for any more is dropped.
    pub(crate) async fn answer(&self, response: Response) {
        let id = response.id;
        let last = response.status() != RpcStatus::InProgress;
        let waiting = if last { locked(&self.table).remove(&id) } else { locked(&self.table).get(&id).cloned() };
        let Some(Waiting { answers, deadline }) = waiting else { return };
        let sent = answers.send(response);
        // Either way the answer has found its end: taken, or its consumer gave up.
        match deadline {
            Some(deadline) => drop(timeout_at(deadline, sent).await),
            None => drop(sent.await),
        }
    }

    /// The connection is gone: nobody waits any longer.
    pub(crate) fn end(&self) {
        locked(&self.table).clear();
    }
}

/// What an answer carries.
pub(crate) trait Answer: Sized {
    fn from_body(body: response::Body) -> Option<Self>;
}

impl Answer for daemoneye_lib::proto::CollectorResponse {
    fn from_body(body: response::Body) -> Option<Self> {
        match body {
            response::Body::Collector(answer) => Some(answer),
            response::Body::Operator(_) => None,
        }
    }
}

impl Answer for daemoneye_lib::proto::OperatorResponse {
    fn from_body(body: response::Body) -> Option<Self> {
        match body {
            response::Body::Operator(answer) => Some(answer),
            response::Body::Collector(_) => None,
        }
    }
}

/// The answers to one request; dropping it cancels the request at the callee.
pub struct CallPages<T> {
    id: u64,
    pages: mpsc::Receiver<Response>,
    deadline: Option<Instant>,
    calls: Arc<Calls>,
    ended: bool,
    _answer: std::marker::PhantomData<fn() -> T>,
}

#[expect(private_bounds, reason = "the two answer types are the protocol's; nobody outside can add one")]
impl<T: Answer> CallPages<T> {
    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// [`RpcError`], after which there are no further pages.
    pub async fn next(&mut self) -> Result<Option<T>, RpcError> {
        if self.ended {
            return Ok(None);
        }
        let received = match self.deadline {
            Some(deadline) => timeout_at(deadline, self.pages.recv()).await.map_err(|_| RpcError::Timeout)?,
            None => self.pages.recv().await,
        };
        let Some(response) = received else {
            self.ended = true;
            return Err(RpcError::Unavailable(self.calls.peer.clone()));
        };
        self.ended = response.status() != RpcStatus::InProgress;
        outcome(response, &self.calls.peer)
    }

    /// The only answer of a request that has one.
    pub(crate) async fn only(mut self) -> Result<T, RpcError> {
        let answer = self.next().await?;
        answer.ok_or_else(|| RpcError::PeerFault(Fault::new(FaultKind::BadMessage, "the answer has no content")))
    }

    /// The request's id on its connection.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }
}

fn outcome<T: Answer>(response: Response, peer: &str) -> Result<Option<T>, RpcError> {
    match response.status() {
        RpcStatus::Success | RpcStatus::InProgress => Ok(response.body.and_then(T::from_body)),
        RpcStatus::Timeout => Err(RpcError::Timeout),
        RpcStatus::Cancelled => Err(RpcError::Cancelled),
        RpcStatus::Unavailable => Err(RpcError::Unavailable(peer.to_owned())),
        RpcStatus::Error | RpcStatus::Unspecified => Err(RpcError::PeerFault(
            response.fault.unwrap_or_else(|| Fault::new(FaultKind::Internal, "the request failed without a reason")),
        )),
    }
}

impl<T> Drop for CallPages<T> {
    fn drop(&mut self) {
        if !self.ended && locked(&self.calls.table).remove(&self.id).is_some() {
            // Nothing to cancel on a connection that is closed.
            drop(self.calls.outbox.send(Body::Cancel(Cancel { request_id: self.id })));
        }
    }
}

/// Requests that the peer sent.
pub(crate) struct Serving {
    outbox: Arc<Outbox>,
    running: Mutex<HashMap<u64, Arc<Ticket>>>,
    hang_up: CancellationToken,
}

impl Serving {
    /// `hang_up` cancels every request.
    pub(crate) fn new(outbox: Arc<Outbox>, hang_up: CancellationToken) -> Arc<Self> {
        Arc::new(Self { outbox, running: Mutex::default(), hang_up })
    }

    /// Takes a request in; its slot is free again when the returned guard is dropped. `deadline` none: until cancelled.
    pub(crate) fn begin(self: &Arc<Self>, id: u64, deadline: Option<Duration>) -> Result<Running, Fault> {
        let cancel = self.hang_up.child_token();
        let ticket = Arc::new(Ticket {
            id,
            outbox: Arc::clone(&self.outbox),
            cancel: cancel.clone(),
            ended: AtomicBool::new(false),
        });
        {
            let mut running = locked(&self.running);
            if running.contains_key(&id) {
                return Err(Fault::new(FaultKind::InvalidRequest, format!("request {id} is running already")));
            }
            if running.len() >= MAX_RUNNING_REQUESTS {
                let text =
                    format!("{MAX_RUNNING_REQUESTS} requests are running on this connection: wait for one to end");
                return Err(Fault::new(FaultKind::ResourceExhausted, text));
            }
            running.insert(id, Arc::clone(&ticket));
        }
        let done = CancellationToken::new();
        if let Some(deadline) = deadline {
            tokio::spawn(watch(Arc::clone(&ticket), Instant::now() + deadline, done.clone()));
        }
        Ok(Running { ticket, serving: Arc::clone(self), done })
    }

    /// Cancels a running request; false when there is none of that id.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let ticket = locked(&self.running).get(&id).cloned();
        if let Some(ticket) = &ticket {
            ticket.end(RpcStatus::Cancelled, None, None);
            ticket.cancel.cancel();
        }
        ticket.is_some()
    }
}

/// The deadline is kept here and not by the callee: one that hangs gets its caller an answer all the same.
async fn watch(ticket: Arc<Ticket>, deadline: Instant, done: CancellationToken) {
    tokio::select! {
        () = done.cancelled() => {}
        () = sleep_until(deadline) => {
            ticket.end(RpcStatus::Timeout, None, None);
            ticket.cancel.cancel();
        }
    }
}

/// The deadline that a request asks for, held between the bounds.
pub(crate) fn deadline_of(request: &Request) -> Duration {
    match request.deadline_ms {
        0 => DEFAULT_DEADLINE,
        ms => Duration::from_millis(ms.into()).clamp(MIN_DEADLINE, MAX_DEADLINE),
    }
}

struct Ticket {
    id: u64,
    outbox: Arc<Outbox>,
    cancel: CancellationToken,
    /// Whether the last answer was sent: there is exactly one.
    ended: AtomicBool,
}

impl Ticket {
    fn response(&self, status: RpcStatus, body: Option<response::Body>, fault: Option<Fault>) -> Body {
        Body::Response(Response { id: self.id, status: status.into(), fault, body })
    }

    /// Sends the last answer unless it was sent already.
    fn end(&self, status: RpcStatus, body: Option<response::Body>, fault: Option<Fault>) -> bool {
        if self.ended.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Err(Unsent::TooLarge { length, limit }) = self.outbox.send(self.response(status, body, fault)) {
            let text = format!("the answer has {length} bytes, at most {limit} fit into a frame");
            let fault = Some(Fault::new(FaultKind::TooLarge, text));
            // A closed connection has nobody left to answer.
            drop(self.outbox.send(self.response(RpcStatus::Error, None, fault)));
        }
        true
    }
}

/// One request of the peer, being worked on.
pub(crate) struct Running {
    ticket: Arc<Ticket>,
    serving: Arc<Serving>,
    done: CancellationToken,
}

impl Running {
    /// Fires on cancel, deadline and hang-up.
    pub(crate) fn cancelled(&self) -> &CancellationToken {
        &self.ticket.cancel
    }

    /// One page of several; waits for room on the connection.
    pub(crate) async fn page(&self, body: response::Body) -> Result<(), RpcError> {
        if self.ticket.ended.load(Ordering::Acquire) {
            return Err(RpcError::Cancelled);
        }
        let page = self.ticket.response(RpcStatus::InProgress, Some(body), None);
        tokio::select! {
            biased;
            () = self.ticket.cancel.cancelled() => Err(RpcError::Cancelled),
            sent = self.ticket.outbox.send_waiting(page) => sent.map_err(|unsent| match unsent {
                Unsent::Closed => RpcError::Cancelled,
                Unsent::TooLarge { length, limit } => RpcError::LimitSize { length, limit },
            }),
        }
    }

    /// The last answer.
    pub(crate) fn succeed(&self, body: Option<response::Body>) -> Result<(), RpcError> {
        if self.ticket.end(RpcStatus::Success, body, None) { Ok(()) } else { Err(RpcError::Cancelled) }
    }

    /// The last answer: no.
    pub(crate) fn fail(&self, fault: Fault) {
        self.ticket.end(RpcStatus::Error, None, Some(fault));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.fail(Fault::new(FaultKind::Internal, "the request ended without an answer"));
        self.done.cancel();
        locked(&self.serving.running).remove(&self.ticket.id);
    }
}
