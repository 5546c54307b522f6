//! The real program working for an agent: a broker in the test stands for it.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use daemoneye_eventbus::{Authority, Broker, BrokerOptions, BrokerStreams, Notice, Peer, RpcError};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::lifecycle::Phase;
use daemoneye_lib::proto::{
    CollectorRequest, DeliveryGuarantee, DetectionTask, Empty, EventType, Fault, FaultKind, Hello, Lifecycle,
    ProcessEvent, ProcessFilter, QoS, Record, Register, Registered, Role, Sequence, TaskType,
};
use daemoneye_lib::topic::Topic;
use prost::Message;
use tokio::time::timeout;

use crate::support::{DEADLINE, assert_told_once, program};

const TOKEN: [u8; 32] = [42; 32];

struct Agent {
    committed: Mutex<Option<Sequence>>,
}

impl Authority for Agent {
    fn admit(&self, _peer: &Peer, hello: &Hello) -> Result<Role, Fault> {
        if hello.token == TOKEN {
            Ok(Role::Collector)
        } else {
            Err(Fault::new(FaultKind::Unauthenticated, "wrong token"))
        }
    }

    fn committed(&self, _collector: &str) -> Option<Sequence> {
        *self.committed.lock().unwrap()
    }

    fn register(&self, _register: &Register) -> Result<Registered, Fault> {
        Ok(Registered { heartbeat_interval_ms: 1000, committed: *self.committed.lock().unwrap() })
    }

    fn deregister(&self, _collector: &str) {}
}

/// procmond becomes another user of the same group where root starts it, and the agent leaves what it needs open to that.
fn open_to_group(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

struct House {
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        open_to_group(dir.path(), 0o750);
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn agent(&self, committed: Option<Sequence>) -> (Broker, BrokerStreams) {
        let agent = Arc::new(Agent { committed: Mutex::new(committed) });
        let started = Broker::start(BrokerOptions::new(self.path("bus.sock"), agent)).await.unwrap();
        open_to_group(&self.path("bus.sock"), 0o660);
        started
    }

    fn procmond(&self) -> Procmond {
        let child = program()
            .args(["--snapshot-interval-ms", "100", "--log-level", "warn", "--data-dir"])
            .arg(self.path("data"))
            .env("DAEMONEYE_BROKER_SOCKET", self.path("bus.sock"))
            .env("DAEMONEYE_BROKER_TOKEN_FILE", self.path("token"))
            .env("PROCMOND_SOURCE", "procfs")
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Procmond(child)
    }
}

/// A program that does not outlive its test.
struct Procmond(Child);

impl Procmond {
    async fn exit_code(mut self) -> Option<i32> {
        let wait = tokio::task::spawn_blocking(move || self.0.wait().unwrap().code());
        timeout(DEADLINE, wait).await.unwrap().unwrap()
    }
}

impl Drop for Procmond {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn registered(streams: &mut BrokerStreams) -> Register {
    loop {
        match timeout(DEADLINE, streams.notices.recv()).await.unwrap().unwrap() {
            Notice::Registered(register) => return *register,
            Notice::Refused { fault, .. } => panic!("refused: {}", fault.message),
            _ => {}
        }
    }
}

/// Says BeginMonitoring until the collector heeds it: the word may come before its subscription stands.
async fn begin(broker: &Broker) {
    let payload = Lifecycle { phase: Phase::BeginMonitoring.into(), time_us: 0 }.encode_to_vec();
    let qos = QoS { guarantee: DeliveryGuarantee::AtLeastOnce.into(), ..QoS::default() };
    let running = async {
        loop {
            broker.publish(&Topic::Lifecycle, payload.clone().into(), qos);
            let answers = ask(broker, Verb::HealthCheck(Empty {})).await.unwrap();
            if matches!(&answers[..], [Answer::Health(health)] if health.state == "running") {
                return;
            }
        }
    };
    timeout(DEADLINE, running).await.unwrap();
}

/// Records until one of them is what is waited for.
async fn records_until(
    broker: &Broker,
    streams: &mut BrokerStreams,
    wanted: impl Fn(&ProcessEvent) -> bool,
) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let run = timeout(DEADLINE, streams.runs.recv()).await.unwrap().unwrap();
        broker.credit(&run.collector, u32::try_from(run.records.len()).unwrap());
        let found = run.records.iter().filter_map(event).any(|event| wanted(&event));
        all.extend(run.records);
        if found {
            return all;
        }
    }
}

fn event(record: &Record) -> Option<ProcessEvent> {
    record.topic.starts_with("events.process.").then(|| ProcessEvent::decode(record.payload.clone()).unwrap())
}

fn of(kind: EventType, pid: u32) -> impl Fn(&ProcessEvent) -> bool {
    move |event| event.event_type() == kind && event.process.as_ref().is_some_and(|process| process.pid == pid)
}

async fn ask(broker: &Broker, verb: Verb) -> Result<Vec<Answer>, RpcError> {
    let mut pages = broker.call_stream("procmond", CollectorRequest { verb: Some(verb) }, DEADLINE).await?;
    let mut answers = Vec::new();
    while let Some(page) = pages.next().await? {
        answers.extend(page.answer);
    }
    Ok(answers)
}

fn task(kind: TaskType, pids: &[u32]) -> Verb {
    let process_filter = Some(ProcessFilter { pids: pids.to_vec(), ..ProcessFilter::default() });
    Verb::ExecuteTask(DetectionTask {
        task_id: "t".into(),
        task_type: kind.into(),
        process_filter,
        ..DetectionTask::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_begins_on_word_streams_answers_and_ends_when_asked() {
    let house = House::new();
    let (broker, mut streams) = house.agent(None).await;
    let procmond = house.procmond();
    let own = procmond.0.id();
    let register = registered(&mut streams).await;
    let capabilities = register.capabilities.unwrap();
    assert_eq!((register.collector_id.as_str(), capabilities.source.as_str()), ("procmond", "procfs"));
    assert_eq!(capabilities.tasks, [i32::from(TaskType::EnumerateProcesses)]);

    begin(&broker).await;
    let seen = records_until(&broker, &mut streams, of(EventType::Start, own)).await;
    let numbers: Vec<u64> = seen.iter().map(|record| record.sequence.unwrap().number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order, without gaps: {numbers:?}");

    // An event is on the bus before the monitor has heard that it is written; until then there is no position to name.
    let positioned = |answer: &Answer| matches!(answer, Answer::Task(page) if page.as_of.is_some());
    let answers = tokio::time::timeout(DEADLINE, async {
        loop {
            let answers = ask(&broker, task(TaskType::EnumerateProcesses, &[])).await.unwrap();
            if answers.iter().all(positioned) {
                break answers;
            }
        }
    })
    .await
    .unwrap();
    let mut pids = HashSet::new();
    for answer in &answers {
        let Answer::Task(page) = answer else { panic!("{answer:?}") };
        assert!(page.success && page.encoded_len() < 1024 * 1024);
        pids.extend(page.processes.iter().map(|process| process.pid));
    }
    assert!(pids.contains(&own) && pids.contains(&std::process::id()));
    let one = ask(&broker, task(TaskType::EnumerateProcesses, &[own])).await.unwrap();
    assert!(matches!(&one[..], [Answer::Task(page)] if page.processes.len() == 1 && !page.more), "{one:?}");

    let refused = ask(&broker, task(TaskType::CheckProcessHash, &[])).await.unwrap_err();
    assert!(refused.to_string().contains("not among those that this collector announces"), "{refused}");

    let health = ask(&broker, Verb::HealthCheck(Empty {})).await.unwrap();
    let [Answer::Health(health)] = &health[..] else { panic!("{health:?}") };
    assert!(health.processes > 0 && health.notes.iter().any(|note| note.starts_with("snapshot only")), "{health:?}");

    ask(&broker, Verb::GracefulShutdown(Empty {})).await.unwrap();
    assert_eq!(procmond.exit_code().await, Some(0));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_of_both_it_sends_what_was_not_committed_and_announces_nobody_twice() {
    let house = House::new();
    let (broker, mut streams) = house.agent(None).await;
    let first = house.procmond();
    let first_pid = first.0.id();
    registered(&mut streams).await;
    begin(&broker).await;
    let before = records_until(&broker, &mut streams, of(EventType::Start, first_pid)).await;
    let committed = before.get(before.len() / 2).unwrap().sequence.unwrap();
    broker.shutdown().await;
    drop(first);

    let (broker, mut streams) = house.agent(Some(committed)).await;
    let second = house.procmond();
    let second_pid = second.0.id();
    registered(&mut streams).await;
    begin(&broker).await;
    let after = records_until(&broker, &mut streams, of(EventType::Start, second_pid)).await;
    assert!(after.iter().all(|record| record.sequence.unwrap() > committed));
    let replayed: Vec<&Record> = before.iter().filter(|record| record.sequence.unwrap() > committed).collect();
    let again: Vec<&Record> = after.iter().take(replayed.len()).collect();
    assert_eq!(again, replayed, "a replay is byte-identical");

    let stored = before.iter().filter(|record| record.sequence.unwrap() <= committed).chain(&after);
    assert_told_once(&stored.filter_map(event).collect::<Vec<_>>());
    broker.shutdown().await;
}
