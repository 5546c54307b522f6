//! One connection as the client's users see it: what can be sent over it, and what waits for its answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemoneye_lib::proto::{Ack, Fault, Publish, Record, envelope::Body};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::SendError;
use crate::link::{Outbox, Unsent, locked};
use crate::rpc::Calls;

/// How long a run waits for credit: longer than any seal takes.
const CREDIT_PATIENCE: Duration = Duration::from_secs(30);

/// A connection that stands, or stood.
pub(super) struct Session {
    /// Grows with each connection.
    pub(super) number: u64,
    pub(super) outbox: Arc<Outbox>,
    pub(super) calls: Arc<Calls>,
    pub(super) credit: Semaphore,
    pub(super) full_credit: u32,
    pub(super) ended: CancellationToken,
    /// At-least-once messages that the broker has not acknowledged; bounded by the callers that wait for them.
    acks: Mutex<HashMap<u64, oneshot::Sender<Option<Fault>>>>,
}

impl Session {
    pub(super) fn new(number: u64, outbox: Arc<Outbox>, full_credit: u32, ended: CancellationToken) -> Self {
        let calls = Calls::new("the broker", Arc::clone(&outbox));
        let credit = Semaphore::new(usize::try_from(full_credit).unwrap_or(0));
        Self { number, outbox, calls, credit, full_credit, ended, acks: Mutex::default() }
    }

    /// Queues what cannot wait; a connection that is closing takes nothing, and its successor is told anew.
    pub(super) fn tell(&self, body: Body) {
        drop(self.outbox.send(body));
    }

    pub(super) async fn send(&self, publish: Publish, deadline: Instant) -> Result<(), SendError> {
        let sent = timeout_at(deadline, self.outbox.send_waiting(Body::Publish(publish))).await;
        sent.map_err(|_| SendError::Timeout("room"))?.map_err(unsent)
    }

    pub(super) async fn send_acknowledged(&self, publish: Publish, deadline: Instant) -> Result<(), SendError> {
        let (acked, ack) = oneshot::channel();
        let waiting = Waiting { session: self, id: publish.message_id };
        locked(&self.acks).insert(waiting.id, acked);
        if self.ended.is_cancelled() {
            return Err(SendError::Disconnected);
        }
        self.send(publish, deadline).await?;
        match timeout_at(deadline, ack).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(fault))) => Err(SendError::PeerRefused(fault)),
            Ok(Err(_)) => Err(SendError::Disconnected),
            Err(_) => Err(SendError::Timeout("acknowledgement")),
        }
    }

    /// The broker acknowledged, or refused, a message.
    pub(super) fn acknowledged(&self, ack: Ack) {
        if let Some(waiting) = locked(&self.acks).remove(&ack.id) {
            // Nobody may be waiting any more.
            drop(waiting.send(ack.refused));
        }
    }

    /// The connection is gone: wakes everybody who waits for something of it.
    pub(super) fn end(&self) {
        self.ended.cancel();
        self.outbox.close();
        self.credit.close();
        self.calls.end();
        locked(&self.acks).clear();
    }
}

/// Takes the entry of a publisher away when it stops waiting, however that happens.
struct Waiting<'a> {
    session: &'a Session,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        locked(&self.session.acks).remove(&self.id);
    }
}

fn unsent(unsent: Unsent) -> SendError {
    match unsent {
        Unsent::Closed => SendError::Disconnected,
        Unsent::TooLarge { length, limit } => SendError::LimitSize { length, limit },
    }
}

/// Sends runs of WAL records over one connection. When that connection ends, every send fails with
/// [`SendError::Disconnected`], so that nothing can overtake the replay on the next one.
#[derive(Clone)]
pub struct RunStream {
    session: Arc<Session>,
}

impl RunStream {
    pub(super) const fn new(session: Arc<Session>) -> Self {
        Self { session }
    }

    /// Sends consecutive records, in order, after waiting (30 s at most) for credit for all of them. 256 records and 512 KiB
    /// make a good run. Calls from two tasks at once would mix up the order of the stream.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent then.
    pub async fn send_run(&self, records: Vec<Record>) -> Result<(), SendError> {
        let wanted = records.len();
        let Some(wanted) = u32::try_from(wanted).ok().filter(|wanted| *wanted <= self.session.full_credit) else {
            return Err(SendError::MisuseRun { records: wanted, credit: self.session.full_credit });
        };
        if wanted == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + CREDIT_PATIENCE;
        let credit = timeout_at(deadline, self.session.credit.acquire_many(wanted)).await;
        let credit = credit.map_err(|_| SendError::Timeout("credit"))?.map_err(|_| SendError::Disconnected)?;
        self.session.send(Publish { records, ..Publish::default() }, deadline).await?;
        // Spent; the broker gives it back. A send that failed or was dropped has not spent it.
        credit.forget();
        Ok(())
    }

    /// Records that may be sent at once.
    #[must_use]
    pub fn credit(&self) -> usize {
        self.session.credit.available_permits()
    }

    /// Resolves when the connection has ended.
    pub async fn ended(&self) {
        self.session.ended.cancelled().await;
    }
}
