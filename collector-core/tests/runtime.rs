//! A collector as a whole: standalone, and against a real broker.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::runtime::{BusOptions, RuntimeBuilder};
use collector_core::testing::FakeSource;
use collector_core::wal::{DirReader, SyncMode};
use collector_core::{CollectorError, Runtime, Stopped};
use daemoneye_eventbus::{Authority, Broker, BrokerOptions, BrokerStreams, Notice, Peer, RpcError};
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::{LedgerReader, verify_dir};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::lifecycle::Phase;
use daemoneye_lib::proto::{
    AppendAudit, AuditAppend, CapabilityRequest, CollectorHealth, CollectorRequest, ConfigUpdate, DeliveryGuarantee,
    DetectionTask, Empty, Fault, FaultKind, Hello, Lifecycle, QoS, Record, Register, Registered, Role, Sequence,
    TaskType,
};
use daemoneye_lib::topic::Topic;
use prost::Message as _;
use support::{Faults, FaultyDisk, event, events, payloads, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(5);

fn builder(dir: &Path, source: &Arc<FakeSource>) -> RuntimeBuilder {
    Runtime::builder("test", "fake", dir)
        .triggerable(Arc::clone(source))
        .wal(16 * 1024, 1024 * 1024, SyncMode::Group)
        .ledger_segment_bytes(16 * 1024)
        .heartbeat_interval(Duration::from_millis(200))
}

fn stored(dir: &Path) -> Vec<Record> {
    DirReader::open(&dir.join("wal"), "test", None).unwrap().map(Result::unwrap).collect()
}

fn actions(dir: &Path) -> Vec<(String, serde_json::Value)> {
    let reader = LedgerReader::open(&dir.join("audit")).unwrap();
    let entries = reader.map(|r| r.unwrap());
    entries.map(|r| (r.entry.action, serde_json::from_slice(&r.payload).unwrap())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    actions(dir).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn standalone_every_event_is_logged_followed_and_covered_by_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let source = FakeSource::new();
    let followed = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&followed);
    let stop = CancellationToken::new();
    let run = builder(dir.path(), &source)
        .config_note(serde_json::json!({ "snapshot_interval_ms": 5000 }))
        .follow(Arc::new(move |record: &Record| sink.lock().unwrap().push(record.clone())));
    let running = tokio::spawn(run.run(stop.clone()));
    source.feed(events(0..10)).await;
    source.feed(events(10..500)).await;
    until("followed", async || followed.lock().unwrap().len() == 500).await;
    stop.cancel();
    let stopped = running.await.unwrap().unwrap();
    assert_eq!(stopped.reason, "signal");
    let records = stored(dir.path());
    assert_eq!(*followed.lock().unwrap(), records, "the follower saw the very records");
    assert_eq!(source.stops(), 1);
    verify_dir(&dir.path().join("audit"), |_| {}).unwrap();
    let actions = actions(dir.path());
    assert_eq!(actions[0].0, "start");
    assert_eq!(actions[1].0, "config");
    assert_eq!(actions.last().unwrap().0, "stop");
    let mut next = 1;
    for (_, range) in actions.iter().filter(|(name, _)| name == "event-range") {
        assert_eq!(range["first"], next);
        let (first, last) = (range["first"].as_u64().unwrap(), range["last"].as_u64().unwrap());
        assert_eq!(range["count"].as_u64().unwrap(), last - first + 1);
        let mut hasher = blake3::Hasher::new();
        for record in records.iter().filter(|r| (first..=last).contains(&r.sequence.unwrap().number)) {
            hasher.update(blake3::hash(&record.payload).as_bytes());
        }
        assert_eq!(range["root"], hasher.finalize().to_hex().to_string());
        next = last + 1;
    }
    assert_eq!(next, 501, "every record is covered");
}

#[tokio::test]
async fn what_a_crash_left_uncovered_is_covered_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = collector_core::wal::WalOptions::new(dir.path().join("wal"), "test");
    options.segment_bytes = 16 * 1024;
    let (wal, _) = collector_core::wal::Wal::open(options).unwrap();
    wal.append(&events(0..20)).unwrap();
    drop(wal);
    let source = FakeSource::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(builder(dir.path(), &source).run(stop.clone()));
    until("started", async || source.starts() == 1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let ranges: Vec<_> = actions(dir.path()).into_iter().filter(|(name, _)| name == "event-range").collect();
    assert_eq!((ranges.len(), ranges[0].1["first"].as_u64(), ranges[0].1["last"].as_u64()), (1, Some(1), Some(20)));
}

#[tokio::test]
async fn a_second_collector_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (FakeSource::new(), FakeSource::new());
    let stop = CancellationToken::new();
    let running = tokio::spawn(builder(dir.path(), &one).run(stop.clone()));
    until("started", async || one.starts() == 1).await;
    let error = builder(dir.path(), &two).run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::InUse);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failed_sync_ends_the_collector_with_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let source = FakeSource::new();
    let run = builder(dir.path(), &source).disk(Arc::new(FaultyDisk(Arc::clone(&faults))));
    let running = tokio::spawn(run.run(CancellationToken::new()));
    until("started", async || source.starts() == 1).await;
    faults.no_sync.store(true, Ordering::SeqCst);
    source.feed(events(0..3)).await;
    let error = tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, CollectorError::SyncFailed { .. }), "{error}");
    assert_eq!(error.exit(), Exit::SyncFailed);
}

/// The agent's side: admits everybody, commits when the test says so.
struct Agent {
    committed: Mutex<Option<Sequence>>,
    deregistered: Mutex<u32>,
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
        Ok(Registered { heartbeat_interval_ms: 100, committed: *self.committed.lock().unwrap() })
    }
    fn deregister(&self, _collector: &str) {
        *self.deregistered.lock().unwrap() += 1;
    }
}

struct House {
    dir: tempfile::TempDir,
    agent: Arc<Agent>,
    source: Arc<FakeSource>,
    received: Arc<Mutex<Vec<Record>>>,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl House {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            agent: Arc::new(Agent { committed: Mutex::new(None), deregistered: Mutex::new(0) }),
            source: FakeSource::new(),
            received: Arc::default(),
            notices: Arc::default(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run").join("bus.sock")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn broker(&self, credit: bool) -> Broker {
        let options = BrokerOptions::new(self.socket(), Arc::clone(&self.agent) as Arc<dyn Authority>);
        let (broker, BrokerStreams { mut runs, mut notices }) = Broker::start(options).await.unwrap();
        let (received, giving, noted) = (Arc::clone(&self.received), broker.clone(), Arc::clone(&self.notices));
        tokio::spawn(async move {
            while let Some(run) = runs.recv().await {
                let count = u32::try_from(run.records.len()).unwrap();
                received.lock().unwrap().extend(run.records.iter().cloned());
                if credit {
                    giving.credit(&run.collector, count);
                }
            }
        });
        tokio::spawn(async move {
            while let Some(notice) = notices.recv().await {
                noted.lock().unwrap().push(notice);
            }
        });
        broker
    }

    fn collector(&self) -> RuntimeBuilder {
        let bus = BusOptions { socket: self.socket(), token: b"right".to_vec() };
        builder(&self.data(), &self.source).bus(bus)
    }

    async fn begun(&self) -> (Broker, JoinHandle<Result<Stopped, CollectorError>>, CancellationToken) {
        let broker = self.broker(true).await;
        let stop = CancellationToken::new();
        let running = tokio::spawn(self.collector().run(stop.clone()));
        self.registered(1).await;
        begin(&broker);
        until("source started", async || self.source.starts() == 1).await;
        (broker, running, stop)
    }

    async fn registered(&self, times: usize) {
        until("registered", async || {
            let notices = self.notices.lock().unwrap();
            notices.iter().filter(|n| matches!(n, Notice::Registered(_))).count() >= times
        })
        .await;
    }

    async fn has_received(&self, count: usize) {
        until("received", async || payloads(&self.received.lock().unwrap()).len() >= count).await;
    }
}

fn begin(broker: &Broker) {
    let lifecycle = Lifecycle { phase: Phase::BeginMonitoring.into(), time_us: 1 };
    let qos = QoS { guarantee: DeliveryGuarantee::AtLeastOnce.into(), ..QoS::default() };
    broker.publish(&Topic::Lifecycle, lifecycle.encode_to_vec().into(), qos);
}

async fn ask(broker: &Broker, verb: Verb) -> Result<Answer, RpcError> {
    let request = CollectorRequest { verb: Some(verb) };
    broker.call("test", request, DEADLINE).await.map(|response| response.answer.unwrap())
}

async fn health(broker: &Broker) -> CollectorHealth {
    match ask(broker, Verb::HealthCheck(Empty {})).await.unwrap() {
        Answer::Health(health) => health,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_waits_for_the_agents_word_and_then_streams_in_order() {
    let house = House::new();
    let broker = house.broker(true).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.collector().run(stop.clone()));
    house.registered(1).await;
    assert_eq!(health(&broker).await.state, "waiting_for_agent");
    assert_eq!(house.source.starts(), 0, "nothing is collected before the word");
    // What has no meaning on the lifecycle topic begins nothing.
    let nothing = Lifecycle { phase: Phase::ShuttingDown.into(), time_us: 1 };
    broker.publish(&Topic::Lifecycle, nothing.encode_to_vec().into(), QoS::default());
    assert_eq!(health(&broker).await.state, "waiting_for_agent");
    begin(&broker);
    house.source.feed(events(0..700)).await;
    house.has_received(700).await;
    let expected: Vec<String> = (0..700).map(|n| format!("payload {n}")).collect();
    assert_eq!(payloads(&house.received.lock().unwrap()), expected);
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap().reason, "signal");
    assert_eq!(*house.received.lock().unwrap(), stored(&house.data()), "bus and log hold the same bytes");
    until("goodbye", async || *house.agent.deregistered.lock().unwrap() == 1).await;
    let names = names(&house.data());
    assert!(
        ["start", "registration", "begin-monitoring", "event-range", "stop"]
            .iter()
            .all(|n| names.iter().any(|m| m == n))
    );
    broker.shutdown().await;
}

#[tokio::test]
async fn without_the_agents_word_it_begins_by_itself_and_says_so() {
    let house = House::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.collector().begin_timeout(Duration::from_millis(50)).run(stop.clone()));
    house.source.feed(events(0..5)).await;
    until("logged", async || house.data().join("wal").exists() && stored(&house.data()).len() == 5).await;
    let broker = house.broker(true).await;
    house.has_received(5).await;
    let health = health(&broker).await;
    assert_eq!(health.state, "running");
    assert!(health.notes.iter().any(|n| n.contains("without the agent")), "{:?}", health.notes);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_lost_agent_stops_nothing_and_gets_everything_it_had_not_committed() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    house.source.feed(events(0..50)).await;
    house.has_received(50).await;
    let committed = house.received.lock().unwrap()[29].sequence.unwrap();
    broker.shutdown().await;
    house.source.feed(events(50..80)).await;
    until("logged", async || stored(&house.data()).len() == 80).await;
    *house.agent.committed.lock().unwrap() = Some(committed);
    house.received.lock().unwrap().clear();
    let broker = house.broker(true).await;
    house.has_received(50).await;
    let expected: Vec<String> = (30..80).map(|n| format!("payload {n}")).collect();
    assert_eq!(payloads(&house.received.lock().unwrap()), expected);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn pause_resume_stop_start_and_restart_reach_the_source() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    ask(&broker, Verb::Pause(Empty {})).await.unwrap();
    assert_eq!(health(&broker).await.state, "paused");
    house.source.feed(events(0..5)).await;
    assert_eq!(health(&broker).await.events, 0, "nothing is written during a pause");
    ask(&broker, Verb::Resume(Empty {})).await.unwrap();
    house.has_received(5).await;
    assert_eq!(health(&broker).await.state, "running");
    ask(&broker, Verb::Stop(Empty {})).await.unwrap();
    assert_eq!(house.source.stops(), 1);
    assert_eq!(health(&broker).await.sub_status, "source stopped");
    ask(&broker, Verb::Start(Empty {})).await.unwrap();
    until("started", async || house.source.starts() == 2).await;
    ask(&broker, Verb::Restart(Empty {})).await.unwrap();
    until("started again", async || house.source.starts() == 3).await;
    assert_eq!(house.source.stops(), 2);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_partial_update_changes_only_what_it_names_and_nonsense_is_refused() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let update = |interval, in_flight| {
        Verb::UpdateConfig(ConfigUpdate { snapshot_interval_ms: interval, max_events_in_flight: in_flight })
    };
    ask(&broker, update(Some(750), None)).await.unwrap();
    ask(&broker, update(None, Some(3))).await.unwrap();
    let now = health(&broker).await;
    assert_eq!((now.snapshot_interval_ms, now.original_interval_ms), (750, 750));
    for nonsense in [update(Some(1), None), update(Some(4_000_000), None), update(None, Some(0))] {
        let Err(RpcError::PeerFault(fault)) = ask(&broker, nonsense).await else { panic!("taken") };
        assert_eq!(fault.kind(), FaultKind::InvalidRequest);
    }
    house.source.feed(events(0..100)).await;
    house.has_received(100).await;
    let configs: Vec<_> = actions(&house.data()).into_iter().filter(|(name, _)| name == "config").collect();
    assert_eq!(configs[1].1["max_events_in_flight"], 3);
    assert_eq!(configs[1].1["snapshot_interval_ms"], 750);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn health_capabilities_tasks_and_registration_answer_truthfully() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    house.source.feed(events(0..40)).await;
    house.has_received(40).await;
    until("covered", async || names(&house.data()).iter().any(|n| n == "event-range")).await;
    until("durable", async || health(&broker).await.durable.map(|s| s.number) == Some(40)).await;
    let now = health(&broker).await;
    assert_eq!((now.source.as_str(), now.source_reason.as_str()), ("fake", "a test asked for it"));
    assert_eq!((now.events, now.cycles, now.last.unwrap().number, now.lost), (40, 1, 40, 0));
    assert!(now.bus_connected && now.wal_bytes > 0 && now.wal_segments == 1 && now.ledger_entries > 2);
    assert_eq!(now.ledger_head.len(), 64);
    assert_eq!(now.ledger_dir, house.data().join("audit").display().to_string());

    let Answer::Capabilities(found) = ask(&broker, Verb::GetCapabilities(CapabilityRequest {})).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(found.capabilities.unwrap().bits, 17);

    let task = |kind: TaskType| {
        Verb::ExecuteTask(DetectionTask { task_id: "t".into(), task_type: kind.into(), ..DetectionTask::default() })
    };
    let request = CollectorRequest { verb: Some(task(TaskType::EnumerateProcesses)) };
    let mut pages = broker.call_stream("test", request, DEADLINE).await.unwrap();
    let mut more = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        let Some(Answer::Task(result)) = page.answer else { panic!("another answer") };
        more.push(result.more);
    }
    assert_eq!(more, [true, false]);
    let Err(RpcError::PeerFault(fault)) = ask(&broker, task(TaskType::MonitorNetwork)).await else { panic!("taken") };
    assert_eq!(fault.kind(), FaultKind::Refused);

    house.registered(1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn the_agents_entries_are_chained_once() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    let append = |ids: &[u64]| {
        let entries = ids.iter().map(|id| AuditAppend {
            outbox_id: *id,
            actor: "agent".into(),
            action: "alert".into(),
            timestamp_ms: 7,
            payload: b"{}".to_vec(),
        });
        Verb::AppendAudit(AppendAudit { entries: entries.collect() })
    };
    for ids in [&[1, 2][..], &[1, 2, 3]] {
        let Answer::Audit(appended) = ask(&broker, append(ids)).await.unwrap() else { panic!("another answer") };
        assert_eq!(Some(&appended.last_outbox_id), ids.last());
    }
    assert_eq!(names(&house.data()).iter().filter(|n| *n == "alert").count(), 3);
    stop.cancel();
    running.await.unwrap().unwrap();
    verify_dir(&house.data().join("audit"), |_| {}).unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn graceful_and_forced_shutdown_end_it() {
    for (verb, reason) in
        [(Verb::GracefulShutdown(Empty {}), "graceful shutdown"), (Verb::ForceShutdown(Empty {}), "force shutdown")]
    {
        let house = House::new();
        let (broker, running, _stop) = house.begun().await;
        ask(&broker, verb).await.unwrap();
        assert_eq!(running.await.unwrap().unwrap().reason, reason);
        assert_eq!(names(&house.data()).last().unwrap(), "stop");
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_commit_trims_the_log_and_heartbeats_carry_health() {
    let house = House::new();
    let (broker, running, stop) = house.begun().await;
    for n in 0..10 {
        house.source.feed(events(n * 200..n * 200 + 200)).await;
    }
    house.has_received(2000).await;
    assert!(health(&broker).await.wal_segments > 3);
    let last = house.received.lock().unwrap().last().unwrap().sequence.unwrap();
    broker.commit("test", last);
    until("trimmed", async || health(&broker).await.wal_segments == 1).await;
    until("a heartbeat after the trim", async || {
        house.notices.lock().unwrap().iter().any(|n| match n {
            Notice::Heartbeat(beat) => beat.state == "running" && beat.health.as_ref().unwrap().trimmed.is_some(),
            _ => false,
        })
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_gives_no_credit_stretches_the_interval_and_one_that_does_restores_it() {
    let house = House::new();
    let broker = {
        let mut options = BrokerOptions::new(house.socket(), Arc::clone(&house.agent) as Arc<dyn Authority>);
        options.credit_records = 8;
        let (broker, streams) = Broker::start(options).await.unwrap();
        tokio::spawn(async move {
            let mut streams = streams;
            while streams.runs.recv().await.is_some() {}
        });
        broker
    };
    let stop = CancellationToken::new();
    let run = house.collector().buffer_bytes(2_000).interval(Duration::from_secs(10)).begin_timeout(Duration::ZERO);
    let running = tokio::spawn(run.run(stop.clone()));
    house.source.feed(events(0..100)).await;
    until("connected", async || broker.connected().contains(&"test".to_owned())).await;
    until("stretched", async || health(&broker).await.snapshot_interval_ms == 15_000).await;
    let under = health(&broker).await;
    assert_eq!((under.backpressure_count, under.original_interval_ms), (1, 10_000));
    assert!(under.buffer_percent >= 70.0);
    assert_eq!(under.lost, 0, "nothing is shed");
    until("restored", async || {
        broker.credit("test", 8);
        health(&broker).await.snapshot_interval_ms == 10_000
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_source_that_fails_is_told_and_tried_again() {
    struct Failing;
    #[async_trait::async_trait]
    impl collector_core::EventSource for Failing {
        fn name(&self) -> &str {
            "failing"
        }
        fn capabilities(&self) -> daemoneye_lib::proto::CollectionCapabilities {
            collector_core::SourceCaps::PROCESS.describe("failing", "")
        }
        async fn start(&self, context: collector_core::SourceContext) -> Result<(), collector_core::SourceError> {
            context.events.emit(vec![event(1)]).await?;
            Err(collector_core::SourceError::Failed("no such device".into()))
        }
        async fn health(&self) -> collector_core::SourceHealth {
            collector_core::SourceHealth::default()
        }
    }
    let house = House::new();
    let broker = house.broker(true).await;
    let stop = CancellationToken::new();
    let bus = BusOptions { socket: house.socket(), token: b"right".to_vec() };
    let run = Runtime::builder("test", "fake", house.data())
        .source(Arc::new(Failing))
        .bus(bus)
        .begin_timeout(Duration::ZERO);
    let running = tokio::spawn(run.run(stop.clone()));
    house.has_received(1).await;
    until("told", async || health(&broker).await.sub_status == "source failed: no such device").await;
    let Err(RpcError::PeerFault(fault)) = ask(&broker, Verb::ExecuteTask(DetectionTask::default())).await else {
        panic!("a collector without tasks took one")
    };
    assert_eq!(fault.kind(), FaultKind::Refused);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}
