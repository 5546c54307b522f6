//! What waits to be written on one connection. Messages are encoded as they are queued; credit and commits are added up
//! instead of queued; subscribers' queues are asked only when there is room, so a peer that does not read fills its own
//! queues and nobody else's. The writer is woken without the lock: it takes it first of all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use daemoneye_lib::frame::{self, FrameError};
use daemoneye_lib::proto::{Ack, Credit, Envelope, Ping, Sequence, envelope::Body};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::locked;
use crate::transport::Stream;

/// Bytes that senders who can wait may queue: two of the largest frames keep the writer busy.
const SOFT_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of messages that cannot wait (faults, acknowledgements, pongs) on top; a peer that lets them pile up is closed.
const HARD_BYTES: usize = 8 * 1024 * 1024;
/// Bytes taken from subscribers' queues for one write: large enough to amortise the system call.
const FEED_BYTES: usize = 256 * 1024;

/// A write buffer larger than this is given back: one burst must not cost an idle connection its memory for ever.
const KEPT_BYTES: usize = 512 * 1024;

/// Something that has messages when asked: a subscriber's queue.
pub(crate) trait Feed: Send + Sync {
    /// The next message that may be sent now.
    fn next(&self) -> Option<Body>;
}

/// Why a message was not queued.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The connection is closing or closed.
    Closed,
    /// The message does not fit into a frame.
    TooLarge { length: usize, limit: usize },
}

pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
    limit: usize,
    ended: CancellationToken,
}

#[derive(Default)]
struct State {
    pending: BytesMut,
    credit: u32,
    committed: Option<Sequence>,
    feeds: Vec<Arc<dyn Feed>>,
    turn: usize,
    closing: bool,
}

impl Outbox {
    pub(super) fn new(limit: usize, ended: CancellationToken) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), room: Notify::new(), limit, ended }
    }

    /// Queues a message that cannot wait.
    pub(crate) fn send(&self, body: Body) -> Result<(), Unsent> {
        let mut state = locked(&self.state);
        if state.closing {
            return Err(Unsent::Closed);
        }
        if state.pending.len() > HARD_BYTES {
            state.closing = true;
            drop(state);
            self.ended.cancel();
            return Err(Unsent::Closed);
        }
        encode(body, self.limit, &mut state.pending)?;
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a message once there is room.
    pub(crate) async fn send_waiting(&self, body: Body) -> Result<(), Unsent> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look at the state, or a write in between would go unnoticed.
            room.as_mut().enable();
            {
                let mut state = locked(&self.state);
                if state.closing {
                    return Err(Unsent::Closed);
                }
                if state.pending.len() < SOFT_BYTES {
                    encode(body, self.limit, &mut state.pending)?;
                    drop(state);
                    self.wake.notify_one();
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Adds to the credit that the next write carries.
    pub(crate) fn add_credit(&self, records: u32) {
        {
            let mut state = locked(&self.state);
            state.credit = state.credit.saturating_add(records);
        }
        self.wake.notify_one();
    }

    /// Raises the committed sequence that the next write carries.
    pub(crate) fn commit(&self, committed: Sequence) {
        {
            let mut state = locked(&self.state);
            state.committed = state.committed.max(Some(committed));
        }
        self.wake.notify_one();
    }

    /// Asks `feed` too from now on.
    pub(crate) fn attach(&self, feed: Arc<dyn Feed>) {
        locked(&self.state).feeds.push(feed);
        self.wake.notify_one();
    }

    /// Asks `feed` no more.
    pub(crate) fn detach(&self, feed: &Arc<dyn Feed>) {
        locked(&self.state).feeds.retain(|other| !Arc::ptr_eq(other, feed));
    }

    /// A feed has something.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Writes what is queued, then ends.
    pub(crate) fn close(&self) {
        let mut state = locked(&self.state);
        state.closing = true;
        state.feeds.clear();
        self.wake.notify_one();
        self.room.notify_waiters();
    }

    /// Puts everything that can be written now into `out`; false when there is nothing and nothing will come.
    fn fill(&self, out: &mut BytesMut) -> Result<bool, Unsent> {
        let mut state = locked(&self.state);
        if !state.pending.is_empty() {
            std::mem::swap(&mut state.pending, out);
            self.room.notify_waiters();
        }
        if let Some(committed) = state.committed.take() {
            encode(Body::Ack(Ack { committed: Some(committed), ..Ack::default() }), self.limit, out)?;
        }
        let records = std::mem::take(&mut state.credit);
        if records > 0 {
            encode(Body::Credit(Credit { subscription_id: 0, records }), self.limit, out)?;
        }
        state.feed(self.limit, out)?;
        Ok(!(state.closing && out.is_empty()))
    }
}

impl State {
    /// Takes turns, so that one full queue does not starve the others of its connection.
    fn feed(&mut self, limit: usize, out: &mut BytesMut) -> Result<(), Unsent> {
        let mut empty = 0;
        while empty < self.feeds.len() && out.len() < FEED_BYTES {
            self.turn = (self.turn + 1) % self.feeds.len();
            match self.feeds.get(self.turn).and_then(|feed| feed.next()) {
                Some(body) => {
                    empty = 0;
                    encode(body, limit, out)?;
                }
                None => empty += 1,
            }
        }
        Ok(())
    }
}

fn encode(body: Body, limit: usize, out: &mut BytesMut) -> Result<(), Unsent> {
    frame::encode(&Envelope { body: Some(body) }, limit, out).map_err(|error| match error {
        FrameError::LimitLength { length, limit } => Unsent::TooLarge { length, limit },
        // An envelope with a body is never empty; the other errors belong to decoding.
        _ => Unsent::TooLarge { length: 0, limit },
    })
}

/// The writer task. Whatever ends it also ends the connection.
pub(super) async fn write(stream: Arc<Stream>, outbox: Arc<Outbox>, ping: Duration, ended: CancellationToken) {
    let _end = ended.drop_guard();
    let mut out = BytesMut::new();
    let mut ticks = interval_at(tokio::time::Instant::now() + ping, ping);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        out.clear();
        if out.capacity() > KEPT_BYTES {
            out = BytesMut::new();
        }
        match outbox.fill(&mut out) {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
        if out.is_empty() {
            tokio::select! {
                () = outbox.wake.notified() => {}
                _ = ticks.tick() => {
                    // Fails only on a connection that is closing.
                    drop(outbox.send(Body::Ping(Ping { nonce: 0 })));
                }
            }
        } else if (&*stream).write_all(&out).await.is_err() {
            outbox.close();
            return;
        }
    }
}
