//! A collector with a scripted source, and the agent's side of a real broker.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::runtime::{BusOptions, RuntimeBuilder};
use collector_core::testing::FakeSource;
use collector_core::wal::{DirReader, SyncMode};
use collector_core::{CollectorError, Runtime, Stopped};
use daemoneye_eventbus::{Authority, Broker, BrokerOptions, BrokerStreams, Notice, Peer, RpcError};
use daemoneye_lib::ledger::LedgerReader;
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::lifecycle::Phase;
use daemoneye_lib::proto::{
    CollectorHealth, CollectorRequest, DeliveryGuarantee, Empty, Fault, FaultKind, Hello, Lifecycle, QoS, Record,
    Register, Registered, Role, Sequence,
};
use daemoneye_lib::topic::Topic;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{payloads, until};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn builder(dir: &Path, source: &Arc<FakeSource>) -> RuntimeBuilder {
    Runtime::builder("test", "fake", dir)
        .triggerable(Arc::clone(source))
        .wal(16 * 1024, 1024 * 1024, SyncMode::Group)
        .ledger_segment_bytes(16 * 1024)
        .heartbeat_interval(Duration::from_millis(200))
}

pub(crate) fn stored(dir: &Path) -> Vec<Record> {
    DirReader::open(&dir.join("wal"), "test", None).unwrap().map(Result::unwrap).collect()
}

pub(crate) fn actions(dir: &Path) -> Vec<(String, serde_json::Value)> {
    let reader = LedgerReader::open(&dir.join("audit")).unwrap();
    let entries = reader.map(|r| r.unwrap());
    entries.map(|r| (r.entry.action, serde_json::from_slice(&r.payload).unwrap())).collect()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    actions(dir).into_iter().map(|(name, _)| name).collect()
}

/// The agent's side: admits everybody, commits when the test says so.
pub(crate) struct Agent {
    pub(crate) committed: Mutex<Option<Sequence>>,
    pub(crate) deregistered: Mutex<u32>,
    /// Says BeginMonitoring before it has even answered the registration.
    pub(crate) hasty: Mutex<Option<Broker>>,
}

impl Authority for Agent {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        if hello.token == b"right" {
            Ok(hello.role())
        } else {
            Err(Fault::new(FaultKind::Unauthenticated, "wrong token"))
        }
    }
    fn committed(&self, _collector: &str) -> Option<Sequence> {
        *self.committed.lock().unwrap()
    }
    fn register(&self, _register: &Register) -> Result<Registered, Fault> {
        self.hasty.lock().unwrap().iter().for_each(begin);
        Ok(Registered { heartbeat_interval_ms: 100, committed: *self.committed.lock().unwrap() })
    }
    fn deregister(&self, _collector: &str) {
        *self.deregistered.lock().unwrap() += 1;
    }
}

pub(crate) struct House {
    dir: tempfile::TempDir,
    pub(crate) agent: Arc<Agent>,
    pub(crate) source: Arc<FakeSource>,
    pub(crate) received: Arc<Mutex<Vec<Record>>>,
    pub(crate) notices: Arc<Mutex<Vec<Notice>>>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            agent: Arc::new(Agent {
                committed: Mutex::default(),
                deregistered: Mutex::default(),
                hasty: Mutex::default(),
            }),
            source: FakeSource::new(),
            received: Arc::default(),
            notices: Arc::default(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run").join("bus.sock")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) async fn broker(&self) -> Broker {
        let options = BrokerOptions::new(self.socket(), Arc::clone(&self.agent) as Arc<dyn Authority>);
        let (broker, BrokerStreams { mut runs, mut notices }) = Broker::start(options).await.unwrap();
        let (received, giving, noted) = (Arc::clone(&self.received), broker.clone(), Arc::clone(&self.notices));
        tokio::spawn(async move {
            while let Some(run) = runs.recv().await {
                let count = u32::try_from(run.records.len()).unwrap();
                received.lock().unwrap().extend(run.records.iter().cloned());
                giving.credit(&run.collector, count);
            }
        });
        tokio::spawn(async move {
            while let Some(notice) = notices.recv().await {
                noted.lock().unwrap().push(notice);
            }
        });
        broker
    }

    pub(crate) fn collector(&self) -> RuntimeBuilder {
        let bus = BusOptions { socket: self.socket(), token: b"right".to_vec() };
        builder(&self.data(), &self.source).bus(bus)
    }

    pub(crate) async fn begun(&self) -> (Broker, JoinHandle<Result<Stopped, CollectorError>>, CancellationToken) {
        let broker = self.broker().await;
        let stop = CancellationToken::new();
        let running = tokio::spawn(self.collector().run(stop.clone()));
        self.registered(1).await;
        begin(&broker);
        until("source started", async || self.source.starts() == 1).await;
        (broker, running, stop)
    }

    pub(crate) async fn registered(&self, times: usize) {
        until("registered", async || {
            let notices = self.notices.lock().unwrap();
            notices.iter().filter(|n| matches!(n, Notice::Registered(_))).count() >= times
        })
        .await;
    }

    pub(crate) async fn has_received(&self, count: usize) {
        until("received", async || payloads(&self.received.lock().unwrap()).len() >= count).await;
    }
}

pub(crate) fn begin(broker: &Broker) {
    let lifecycle = Lifecycle { phase: Phase::BeginMonitoring.into(), time_us: 1 };
    let qos = QoS { guarantee: DeliveryGuarantee::AtLeastOnce.into(), ..QoS::default() };
    broker.publish(&Topic::Lifecycle, lifecycle.encode_to_vec().into(), qos);
}

pub(crate) async fn ask(broker: &Broker, verb: Verb) -> Result<Answer, RpcError> {
    ask_of(broker, "test", verb).await
}

pub(crate) async fn ask_of(broker: &Broker, collector: &str, verb: Verb) -> Result<Answer, RpcError> {
    let request = CollectorRequest { verb: Some(verb) };
    broker.call(collector, request, DEADLINE).await.map(|response| response.answer.unwrap())
}

pub(crate) async fn health(broker: &Broker) -> CollectorHealth {
    match ask(broker, Verb::HealthCheck(Empty {})).await.unwrap() {
        Answer::Health(health) => health,
        other => panic!("{other:?}"),
    }
}
