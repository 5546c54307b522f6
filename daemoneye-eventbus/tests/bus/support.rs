//! A broker with a simple authority, clients, and a raw peer that can send anything.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use daemoneye_eventbus::auth::same_token;
use daemoneye_eventbus::{
    Authority, Broker, BrokerOptions, BrokerStreams, Client, ClientEvent, ClientOptions, Connected, Peer, RpcError,
};
use daemoneye_lib::PROTOCOL_VERSION;
use daemoneye_lib::frame::{self, BUS_LIMIT_BYTES};
use daemoneye_lib::proto::{
    DeliveryGuarantee, Envelope, Fault, FaultKind, Hello, QoS, Record, Register, Registered, Role, Sequence,
    envelope::Body,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

pub(crate) const TOKEN: [u8; 32] = [7; 32];
/// Far beyond what any step here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct House {
    pub(crate) committed: Mutex<Option<Sequence>>,
    pub(crate) registrations: AtomicUsize,
    pub(crate) left: AtomicUsize,
}

impl Authority for House {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        match hello.role() {
            Role::Collector if same_token(&TOKEN, &hello.token) => Ok(Role::Collector),
            Role::Subscriber => Ok(Role::Subscriber),
            _ => Err(Fault::new(FaultKind::Unauthenticated, "unknown peer")),
        }
    }
    fn committed(&self, _collector: &str) -> Option<Sequence> {
        *self.committed.lock().unwrap()
    }
    fn register(&self, register: &Register) -> Result<Registered, Fault> {
        if register.version == "banned" {
            return Err(Fault::new(FaultKind::Refused, "this build is banned"));
        }
        self.registrations.fetch_add(1, Ordering::SeqCst);
        Ok(Registered { heartbeat_interval_ms: 30_000, committed: self.committed("") })
    }
    fn deregister(&self, _collector: &str) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) struct Bus {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) house: Arc<House>,
    pub(crate) broker: Broker,
    pub(crate) streams: BrokerStreams,
}

impl Bus {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub(crate) async fn open_with(change: impl FnOnce(&mut BrokerOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let house = Arc::new(House::default());
        let (broker, streams) = start(directory.path().join("bus.sock"), &house, change).await;
        Self { directory, house, broker, streams }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("bus.sock")
    }

    pub(crate) fn options(&self, id: &str) -> ClientOptions {
        options(self.socket(), id)
    }

    /// A registered collector.
    pub(crate) async fn collector(&self, id: &str) -> (Client, mpsc::Receiver<ClientEvent>, Connected) {
        let (client, mut events) = Client::start(self.options(id)).unwrap();
        let connected = connected(&mut events).await;
        (client, events, connected)
    }

    pub(crate) async fn subscriber(&self, id: &str) -> (Client, mpsc::Receiver<ClientEvent>) {
        let options = ClientOptions::new(self.socket(), id, Role::Subscriber, Vec::new());
        let (client, mut events) = Client::start(options).unwrap();
        connected(&mut events).await;
        (client, events)
    }
}

pub(crate) async fn start(
    socket: PathBuf,
    house: &Arc<House>,
    change: impl FnOnce(&mut BrokerOptions),
) -> (Broker, BrokerStreams) {
    let mut options = BrokerOptions::new(socket, Arc::clone(house) as Arc<dyn Authority>);
    change(&mut options);
    Broker::start(options).await.unwrap()
}

pub(crate) fn options(socket: PathBuf, id: &str) -> ClientOptions {
    let mut options = ClientOptions::new(socket, id, Role::Collector, TOKEN.to_vec());
    let id = id.to_owned();
    options.register = Some(Arc::new(move || Register { collector_id: id.clone(), ..Register::default() }));
    options
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it took longer than {PATIENCE:?}"))
}

pub(crate) async fn next(events: &mut mpsc::Receiver<ClientEvent>) -> ClientEvent {
    within(events.recv()).await.unwrap()
}

/// The next `Connected`; what comes before it is of no interest.
pub(crate) async fn connected(events: &mut mpsc::Receiver<ClientEvent>) -> Connected {
    loop {
        if let ClientEvent::Connected(connected) = next(events).await {
            return connected;
        }
    }
}

pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let wall = std::time::Instant::now();
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            biased;
            () = &mut waiting => return,
            () = tokio::task::yield_now() => assert!(wall.elapsed() < PATIENCE, "{what}"),
        }
    }
}

pub(crate) fn qos(guarantee: DeliveryGuarantee) -> QoS {
    QoS { guarantee: guarantee.into(), duplicates: 0 }
}

pub(crate) fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    let record = |number| Record {
        sequence: Some(Sequence::new(1, number)),
        topic: "events.process.start".to_owned(),
        time_us: 0,
        payload: number.to_le_bytes().to_vec().into(),
    };
    numbers.map(record).collect()
}

pub(crate) fn fault_kind(error: &RpcError) -> Option<FaultKind> {
    match error {
        RpcError::PeerFault(fault) => Some(fault.kind()),
        _ => None,
    }
}

pub(crate) fn frame_of(body: Body) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode(&Envelope { body: Some(body) }, 2 * BUS_LIMIT_BYTES, &mut out).unwrap();
    out
}

pub(crate) fn hello(id: &str, role: Role) -> Hello {
    let token = if role == Role::Collector { TOKEN.to_vec() } else { Vec::new() };
    Hello { protocol: PROTOCOL_VERSION, build: "test".to_owned(), role: role.into(), id: id.to_owned(), token }
}

/// A peer that sends what it likes.
pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    buffer: BytesMut,
}

impl Raw {
    pub(crate) async fn connect(socket: PathBuf) -> Self {
        Self { stream: UnixStream::connect(socket).await.unwrap(), buffer: BytesMut::new() }
    }

    /// Connected and admitted.
    pub(crate) async fn admitted(socket: PathBuf, id: &str, role: Role) -> Self {
        let mut raw = Self::connect(socket).await;
        raw.send(Body::Hello(hello(id, role))).await;
        assert!(matches!(raw.receive().await, Some(Body::Welcome(_))));
        raw
    }

    pub(crate) async fn send(&mut self, body: Body) {
        self.send_bytes(&frame_of(body)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message that is no ping; `None` when the connection is closed.
    pub(crate) async fn receive(&mut self) -> Option<Body> {
        loop {
            match frame::decode(&mut self.buffer, BUS_LIMIT_BYTES).unwrap() {
                Some(Envelope { body: Some(Body::Ping(_) | Body::Pong(_)) }) => {}
                Some(envelope) => return envelope.body,
                None => match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                },
            }
        }
    }

    /// The fault that the peer gets, after which it must be closed.
    pub(crate) async fn fault(&mut self) -> Fault {
        loop {
            match within(self.receive()).await {
                Some(Body::Fault(fault)) => {
                    assert!(within(self.receive()).await.is_none(), "closed after the fault");
                    return fault;
                }
                Some(_) => {}
                None => panic!("closed without a fault"),
            }
        }
    }
}
