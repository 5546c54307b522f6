//! The client of collectors and subscribers: one connection that comes back by itself.
//!
//! On every connection it says hello, registers, subscribes again and tells its owner the committed sequence, from which the
//! owner replays. Nothing it waits for is unbounded, and no waiting future keeps the connection's reader from reading.

mod backoff;
mod connect;
mod serve;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use daemoneye_lib::proto::{
    Ack, CollectorRequest, CollectorResponse, Correlation, Credit, DeliveryGuarantee, Fault, Publish, QoS, Record,
    Register, Registered, Role, Sequence, Subscribe, Unsubscribe, Welcome, envelope::Body, request,
};
use daemoneye_lib::topic::{Pattern, Topic};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::session::Session;
use crate::door::PING;
use crate::link::locked;
use crate::{BusError, RpcError, SendError, transport};

pub use self::serve::{IncomingCall, Responder};
pub use self::session::RunStream;

/// How long an at-least-once message waits for its acknowledgement.
const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// Events that wait for the owner: four subscriptions at full credit. An owner that lets more pile up loses its connection.
const WAITING_EVENTS: usize = 4_096;
/// Most messages on their way to one subscription: what the broker's queue holds.
const MAX_CREDIT: u32 = 1_000;

/// How a client is set up.
#[derive(Clone)]
pub struct ClientOptions {
    /// The broker's socket.
    pub socket: PathBuf,
    /// Who this is; collectors: the collector id.
    pub id: String,
    /// As what it connects.
    pub role: Role,
    /// The token from the token file; empty when the role needs none.
    pub token: Vec<u8>,
    /// Collectors: builds the registration anew for every connection.
    pub register: Option<Arc<dyn Fn() -> Register + Send + Sync>>,
    /// As in [`crate::BrokerOptions::ping_interval`].
    pub ping_interval: Duration,
}

impl ClientOptions {
    /// A client without registration, ping every 30 s.
    #[must_use]
    pub fn new(socket: PathBuf, id: impl Into<String>, role: Role, token: Vec<u8>) -> Self {
        Self { socket, id: id.into(), role, token, register: None, ping_interval: PING }
    }
}

/// What the client tells its owner. The channel holds 4,096; an owner that lets it fill loses the connection.
pub enum ClientEvent {
    /// Connected, registered and subscribed (again): replay everything after `welcome.committed` through `stream`.
    Connected(Connected),
    /// The connection is gone; the client is trying again. Streams of it fail with `Disconnected`.
    Disconnected {
        /// Why, for a person.
        reason: String,
    },
    /// The broker refused this client; it will try again after its backoff.
    Refused(Fault),
    /// Everything up to here is durable on the other side.
    Committed(Sequence),
    /// The agent asks something.
    Call(Box<IncomingCall>),
    /// A message of a subscription.
    Deliver(Delivered),
}

/// A connection that stands.
pub struct Connected {
    /// The broker's answer: last committed sequence, credit, role.
    pub welcome: Welcome,
    /// The answer to the registration, when there was one.
    pub registered: Option<Registered>,
    /// The way to send runs over this connection and no other.
    pub stream: RunStream,
}

/// Messages of a subscription; give it to [`Client::done`] when it has been worked off.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// As returned by [`Client::subscribe`].
    pub subscription: u64,
    /// Who published.
    pub publisher: String,
    /// One or more, in order.
    pub records: Vec<Record>,
    /// What they belong to.
    pub correlation: Option<Correlation>,
    delivery_id: u64,
    session: u64,
}

/// The client; clones share the connection. It ends with [`Client::shutdown`], or when the receiver of its events is dropped.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What the clones and the connecting task share.
struct Shared {
    options: ClientOptions,
    current: watch::Sender<Option<Arc<Session>>>,
    /// Held while a subscription is sent or all are sent again: none is sent twice or forgotten at a reconnect.
    subscriptions: Mutex<BTreeMap<u64, Subscribe>>,
    next_subscription: AtomicU64,
    next_message: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Client {
    /// Begins to connect; returns at once. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BusError::LimitPath`] when the socket path cannot be used at all.
    pub fn start(options: ClientOptions) -> Result<(Self, mpsc::Receiver<ClientEvent>), BusError> {
        transport::check_path(&options.socket)?;
        let (events, events_out) = mpsc::channel(WAITING_EVENTS);
        let shared = Arc::new(Shared {
            options,
            current: watch::Sender::new(None),
            subscriptions: Mutex::default(),
            next_subscription: AtomicU64::new(1),
            // Not from 1: a restarted publisher must not repeat the numbers that subscribers remember.
            next_message: AtomicU64::new(getrandom::u64().unwrap_or_default() >> 1),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(connect::keep_connected(Arc::clone(&shared), events));
        Ok((Self { shared }, events_out))
    }

    /// Publishes one message. At most once: handed to the connection that stands. At least once: waits for the broker's
    /// acknowledgement, 10 s at most, over a reconnect if need be; `PeerRefused` means that a subscriber has no room yet.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn publish(&self, topic: &Topic, payload: Bytes, qos: QoS) -> Result<(), SendError> {
        let record = Record { sequence: None, topic: topic.to_string(), time_us: 0, payload };
        let mut publish = Publish { records: vec![record], qos: Some(qos), correlation: None, message_id: 0 };
        let deadline = Instant::now() + ACK_PATIENCE;
        if matches!(qos.guarantee(), DeliveryGuarantee::AtMostOnce | DeliveryGuarantee::Unspecified) {
            let session = self.shared.session().ok_or(SendError::Disconnected)?;
            return session.send(publish, deadline).await;
        }
        publish.message_id = self.shared.next_message.fetch_add(1, Ordering::Relaxed).max(1);
        let mut current = self.shared.current.subscribe();
        loop {
            // The watch's guard ends here: a future that held it could not move between threads.
            let standing = match timeout_at(deadline, current.wait_for(Option::is_some)).await {
                Ok(Ok(session)) => session.clone(),
                _ => None,
            };
            let session = standing.ok_or(SendError::Disconnected)?;
            match session.send_acknowledged(publish.clone(), deadline).await {
                // The next connection carries it again under the same number.
                Err(SendError::Disconnected) if !self.shared.stop.is_cancelled() => session.ended.cancelled().await,
                outcome => return outcome,
            }
        }
    }

    /// Subscribes, now and after every reconnect; at most `credit` messages (1 to 1,000) are on their way before
    /// [`Self::done`]. The numbers are given in the order of the calls: a restarted program that subscribes in the same order
    /// gets the messages that an at-least-once subscription has kept for it.
    #[must_use]
    pub fn subscribe(&self, pattern: &Pattern, qos: QoS, credit: u32) -> u64 {
        let subscription_id = self.shared.next_subscription.fetch_add(1, Ordering::Relaxed);
        let (pattern, credit) = (pattern.as_str().to_owned(), credit.clamp(1, MAX_CREDIT));
        let subscribe = Subscribe { subscription_id, pattern, qos: Some(qos), credit };
        let mut subscriptions = locked(&self.shared.subscriptions);
        subscriptions.insert(subscription_id, subscribe.clone());
        self.shared.tell(Body::Subscribe(subscribe));
        subscription_id
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, subscription: u64) {
        let mut subscriptions = locked(&self.shared.subscriptions);
        subscriptions.remove(&subscription);
        self.shared.tell(Body::Unsubscribe(Unsubscribe { subscription_id: subscription }));
    }

    /// The messages have been worked off: acknowledges them and gives their credit back. Messages of an earlier connection are
    /// not acknowledged: they come again.
    pub fn done(&self, delivered: &Delivered) {
        let Some(session) = self.shared.session().filter(|session| session.number == delivered.session) else {
            return;
        };
        if delivered.delivery_id != 0 {
            session.tell(Body::Ack(Ack { id: delivered.delivery_id, ..Ack::default() }));
        }
        let records = u32::try_from(delivered.records.len()).unwrap_or(u32::MAX);
        session.tell(Body::Credit(Credit { subscription_id: delivered.subscription, records }));
    }

    /// Asks the agent (`Register`, `Deregister`). The deadline is held between 1 s and 300 s.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn call(&self, request: CollectorRequest, deadline: Duration) -> Result<CollectorResponse, RpcError> {
        let session = self.shared.session().ok_or_else(|| RpcError::Unavailable("the broker".to_owned()))?;
        session.calls.begin(request::Body::Collector(request), Some(deadline)).await?.only().await
    }

    /// Whether a connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.session().is_some()
    }

    /// Sends what is queued (2 s at most), closes and stops reconnecting.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn session(&self) -> Option<Arc<Session>> {
        self.current.borrow().clone()
    }

    fn tell(&self, body: Body) {
        if let Some(session) = self.session() {
            session.tell(body);
        }
    }
}
