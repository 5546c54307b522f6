//! The broker of the agent: admits peers, takes collectors' streams, routes messages to subscribers, carries requests.
//!
//! A stream record goes to its owner through a channel that credit bounds, and to whoever subscribed to its topic; the broker
//! keeps no copy. A subscriber has a bounded queue and a writer task of its own, so one that stops reading delays nobody.

mod core;
mod publish;
mod queue;
mod session;
mod trie;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemoneye_lib::proto::{
    CollectorRequest, CollectorResponse, Correlation, Fault, Heartbeat, Hello, QoS, Record, Register, Registered,
    Role, Sequence, request,
};
use daemoneye_lib::topic::{Pattern, Topic};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::info;

use self::core::Core;
use self::queue::Queue;
use crate::door::{Door, HALF_FRAME, PING, bus_limits};
use crate::transport::Listener;
use crate::{BusError, CallPages, Peer, RpcError};

/// Decides for the broker who may do what; implemented by the agent. Called on the broker's tasks: answer without blocking.
pub trait Authority: Send + Sync + 'static {
    /// Decides who a peer is; compare tokens with [`crate::auth::same_token`]. The protocol version is checked already.
    ///
    /// # Errors
    /// The fault that the peer is told before it is closed.
    fn admit(&self, peer: &Peer, hello: &Hello) -> Result<Role, Fault>;
    /// Last committed sequence of a collector: goes into `Welcome`.
    fn committed(&self, collector: &str) -> Option<Sequence>;
    /// A collector registers; its id is the one that was admitted.
    ///
    /// # Errors
    /// The fault that the collector gets as its answer.
    fn register(&self, register: &Register) -> Result<Registered, Fault>;
    /// A collector leaves in order.
    fn deregister(&self, collector: &str);
}

/// How a broker is set up.
#[derive(Clone)]
pub struct BrokerOptions {
    /// The socket file.
    pub socket: PathBuf,
    /// Who may do what.
    pub authority: Arc<dyn Authority>,
    /// Admitted connections at a time.
    pub max_connections: usize,
    /// Records of one collector's stream that may be on their way before further credit.
    pub credit_records: u32,
    /// How often a connection is asked whether it lives; three unanswered intervals close it.
    pub ping_interval: Duration,
    /// How long a frame, once begun, may take to arrive; also the time for `Hello`.
    pub half_frame_timeout: Duration,
}

impl BrokerOptions {
    /// The defaults: 100 connections, 8,192 records in flight, ping every 30 s, 30 s for a half-sent frame.
    #[must_use]
    pub fn new(socket: PathBuf, authority: Arc<dyn Authority>) -> Self {
        Self {
            socket,
            authority,
            max_connections: 100,
            credit_records: 8_192,
            ping_interval: PING,
            half_frame_timeout: HALF_FRAME,
        }
    }
}

/// What the broker hands to its owner.
#[derive(Debug)]
pub struct BrokerStreams {
    /// Collectors' streams, in order per collector, bounded by credit and by 16 MiB per collector.
    pub runs: mpsc::Receiver<Run>,
    /// What happened on the bus.
    pub notices: mpsc::Receiver<Notice>,
}

/// Consecutive records of one collector's stream.
#[derive(Debug)]
pub struct Run {
    /// Whose stream.
    pub collector: Arc<str>,
    /// In order, each with its sequence.
    pub records: Vec<Record>,
    /// Room in the collector's byte budget, given back when the run is dropped.
    _held: Option<OwnedSemaphorePermit>,
}

impl Run {
    /// A run that did not come over a socket (tests, replays of a file).
    #[must_use]
    pub const fn new(collector: Arc<str>, records: Vec<Record>) -> Self {
        Self { collector, records, _held: None }
    }
}

/// What happened on the bus.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A peer was admitted.
    Connected {
        /// Its id.
        id: Arc<str>,
        /// Its role.
        role: Role,
        /// Its credentials.
        peer: Peer,
        /// Its build.
        build: String,
    },
    /// A collector registered (again).
    Registered(Box<Register>),
    /// A collector's heartbeat.
    Heartbeat(Box<Heartbeat>),
    /// An admitted peer is gone.
    Disconnected {
        /// Its id.
        collector: Arc<str>,
        /// Why, for a person.
        reason: String,
    },
    /// A peer was turned away, or closed for what it sent.
    Refused {
        /// Its credentials.
        peer: Peer,
        /// What it was told.
        fault: Fault,
    },
    /// Messages that were dropped because a subscriber's queue was full; at most one per topic and second.
    Shed {
        /// The topic.
        topic: String,
        /// How many.
        count: u64,
    },
}

/// One message as a subscriber gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Who published it.
    pub publisher: Arc<str>,
    /// The message; stream records carry their sequence.
    pub record: Record,
    /// What it belongs to.
    pub correlation: Option<Correlation>,
    /// The publisher's number of an at-least-once message, 0 without one.
    pub message_id: u64,
}

/// Counters since the start, for `health`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusStats {
    /// Admitted connections now.
    pub connections: u64,
    /// Subscriptions now, retained ones included.
    pub subscriptions: u64,
    /// Peers admitted.
    pub admitted: u64,
    /// Peers refused at `Hello` or closed for a fault.
    pub refused: u64,
    /// Stream records taken.
    pub records: u64,
    /// Messages published by peers and the agent.
    pub messages: u64,
    /// Deliveries put into subscribers' queues.
    pub delivered: u64,
    /// Messages that a full queue shed.
    pub shed: u64,
    /// Duplicates dropped or merged.
    pub duplicates: u64,
    /// Requests sent to collectors.
    pub requests: u64,
    /// Notices that the owner did not fetch in time.
    pub notices_lost: u64,
}

/// A subscription inside this process; dropping it ends it.
pub struct Subscription {
    core: Arc<Core>,
    pattern: Pattern,
    id: u64,
    queue: Arc<Queue>,
}

impl Subscription {
    /// The next message; `None` after the broker's shutdown.
    pub async fn next(&mut self) -> Option<Arc<Delivery>> {
        self.queue.receive().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.core.remove_local(&self.pattern, self.id);
    }
}

/// The running broker; clones share it.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
}

impl Broker {
    /// Opens the socket and begins to accept.
    ///
    /// # Errors
    /// [`BusError`] when the socket cannot be opened.
    pub async fn start(options: BrokerOptions) -> Result<(Self, BrokerStreams), BusError> {
        let listener = Listener::open(&options.socket).await?;
        let socket = options.socket.clone();
        let limits = bus_limits(options.ping_interval, options.half_frame_timeout);
        let (core, streams) = Core::new(options);
        let door = Door::new(limits, core.options.max_connections, core.shutdown.clone());
        core.tasks.spawn(Arc::clone(&core).tell_shed());
        let accepting = {
            let (core, door, tasks) = (Arc::clone(&core), Arc::clone(&door), core.tasks.clone());
            async move {
                let serve =
                    |stream, peer, place| session::serve(Arc::clone(&core), Arc::clone(&door), stream, peer, place);
                Arc::clone(&door).keep(listener, &socket, tasks, serve).await;
            }
        };
        core.tasks.spawn(accepting);
        info!(socket = %core.options.socket.display(), "bus open");
        Ok((Self { core }, streams))
    }

    /// Lets `collector` send `records` more; call it after the rows entered the open segment.
    pub fn credit(&self, collector: &str, records: u32) {
        if let Some(peer) = self.core.collector(collector) {
            peer.give_credit(records);
        }
    }

    /// Tells `collector` that everything up to `committed` is durable.
    pub fn commit(&self, collector: &str, committed: Sequence) {
        if let Some(peer) = self.core.collector(collector) {
            peer.outbox.commit(committed);
        }
    }

    /// One request, one answer. The deadline is held between 1 s and 300 s.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn call(
        &self,
        collector: &str,
        request: CollectorRequest,
        deadline: Duration,
    ) -> Result<CollectorResponse, RpcError> {
        self.call_stream(collector, request, deadline).await?.only().await
    }

    /// One request, many answers. Dropping the pages cancels the request. Fetch them without waiting for anything that itself
    /// waits for this collector: its connection's reader stands still while 16 pages lie unfetched.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn call_stream(
        &self,
        collector: &str,
        request: CollectorRequest,
        deadline: Duration,
    ) -> Result<CallPages<CollectorResponse>, RpcError> {
        let peer = self.core.collector(collector).ok_or_else(|| RpcError::Unavailable(collector.to_owned()))?;
        self.core.counters.requests.add(1);
        peer.calls.begin(request::Body::Collector(request), Some(deadline)).await
    }

    /// Publishes a message of the agent itself. What a subscriber has no room for is shed, counted and told.
    pub fn publish(&self, topic: &Topic, payload: Bytes, qos: QoS) {
        self.core.publish_own(topic.to_string(), payload, qos);
    }

    /// Subscribes inside this process.
    #[must_use]
    pub fn subscribe(&self, pattern: &Pattern, qos: QoS) -> Subscription {
        let (id, queue) = self.core.add_local(pattern, qos);
        Subscription { core: Arc::clone(&self.core), pattern: pattern.clone(), id, queue }
    }

    /// Ids of the collectors that are connected.
    #[must_use]
    pub fn connected(&self) -> Vec<String> {
        self.core.connected()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> BusStats {
        self.core.stats()
    }

    /// Closes every connection after what is queued has been sent (2 s at most), and removes the socket.
    pub async fn shutdown(self) {
        self.core.shutdown.cancel();
        self.core.close_local();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}
