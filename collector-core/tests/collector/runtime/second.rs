//! The proof that the SDK knows nothing of processes: a thermometer with a table, a topic, a message and a task of its own.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::runtime::BusOptions;
use collector_core::source::Monitored;
use collector_core::wal::DirReader;
use collector_core::{
    CollectorError, MonitorCollector, Runtime, SourceCaps, SourceContext, SourceError, SourceEvent, SourceHealth,
    Stopped, Tasks,
};
use daemoneye_eventbus::{Notice, RpcError};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::{
    CollectionCapabilities, DetectionResult, DetectionTask, FaultKind, MonitoringDomain, Record, Register, TaskType,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::house::{House, ask_of, begin};
use crate::support::until;

const ID: &str = "thermal";
const TOPIC: &str = "events.performance.temperature";

/// Its message: the zone, a blank, the thousandths of a degree.
fn message(zone: &str, reading: i64) -> Vec<u8> {
    format!("{zone} {reading}").into_bytes()
}

fn read(payload: &[u8]) -> Option<(String, i64)> {
    let (zone, reading) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((zone.to_owned(), reading.parse().ok()?))
}

#[derive(Default)]
struct Thermometer {
    /// One reading of all zones per look; a look without one fails.
    script: Mutex<VecDeque<Vec<(&'static str, i64)>>>,
    /// Its table.
    zones: Mutex<BTreeMap<String, i64>>,
}

impl Thermometer {
    fn zones(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.zones.lock().unwrap()
    }

    fn will_read(&self, readings: &[(&'static str, i64)]) {
        self.script.lock().unwrap().push_back(readings.to_vec());
    }
}

#[async_trait]
impl MonitorCollector for Thermometer {
    fn name(&self) -> &str {
        "script"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let mut capabilities = SourceCaps::PERFORMANCE.describe("script", "the only thermometer");
        capabilities.tasks = vec![TaskType::MonitorPerformance.into()];
        capabilities
    }

    async fn prepare(&self, context: &SourceContext) -> Result<(), SourceError> {
        let known: Result<Vec<_>, _> = context.replay_from(None)?.collect();
        let known = known?.into_iter().filter(|record| record.topic == TOPIC);
        *self.zones() = known.filter_map(|record| read(&record.payload)).collect();
        Ok(())
    }

    async fn cycle(&self) -> Result<Vec<SourceEvent>, SourceError> {
        let Some(readings) = self.script.lock().unwrap().pop_front() else { return Ok(Vec::new()) };
        let mut zones = self.zones();
        let changed = readings.into_iter().filter(|(zone, now)| zones.insert((*zone).to_owned(), *now) != Some(*now));
        Ok(changed.map(|(zone, now)| SourceEvent::new(TOPIC, now, message(zone, now))).collect())
    }

    async fn health(&self) -> SourceHealth {
        SourceHealth { entities: self.zones().len() as u64, ..SourceHealth::default() }
    }
}

#[async_trait]
impl Tasks for Thermometer {
    async fn execute(
        &self,
        task: DetectionTask,
        pages: mpsc::Sender<DetectionResult>,
        _cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        let records = self.zones().iter().map(|(zone, reading)| message(zone, *reading)).collect();
        let page = DetectionResult { task_id: task.task_id, success: true, records, ..DetectionResult::default() };
        pages.send(page).await.map_err(|_| SourceError::Stopped)
    }
}

type Running = JoinHandle<Result<Stopped, CollectorError>>;

fn run(house: &House, thermometer: &Arc<Thermometer>) -> (Running, CancellationToken) {
    let stop = CancellationToken::new();
    let bus = BusOptions { socket: house.socket(), token: b"right".to_vec() };
    let runtime = Runtime::builder(ID, "performance", house.data())
        .source(Arc::new(Monitored::new(Arc::clone(thermometer))))
        .tasks(Arc::clone(thermometer) as Arc<dyn Tasks>)
        .interval(Duration::from_millis(10))
        .bus(bus);
    (tokio::spawn(runtime.run(stop.clone())), stop)
}

fn readings<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<(String, i64)> {
    records.into_iter().filter(|record| record.topic == TOPIC).filter_map(|record| read(&record.payload)).collect()
}

fn stored(data: &Path) -> Vec<Record> {
    DirReader::open(&data.join("wal"), ID, None).unwrap().map(Result::unwrap).collect()
}

fn words(readings: &[(&str, i64)]) -> Vec<(String, i64)> {
    readings.iter().map(|(zone, reading)| ((*zone).to_owned(), *reading)).collect()
}

async fn received(house: &House, expected: &[(&str, i64)]) {
    until("received", async || readings(&*house.received.lock().unwrap()) == words(expected)).await;
}

fn registrations(house: &House) -> Vec<Register> {
    let notices = house.notices.lock().unwrap();
    let registered = |notice: &Notice| match notice {
        Notice::Registered(register) => Some((**register).clone()),
        _ => None,
    };
    notices.iter().filter_map(registered).collect()
}

#[tokio::test]
async fn it_registers_streams_and_answers_tasks_with_what_is_its_own() {
    let house = House::new();
    let broker = house.broker().await;
    let thermometer = Arc::new(Thermometer::default());
    let (running, stop) = run(&house, &thermometer);
    house.registered(1).await;
    let register = registrations(&house).remove(0);
    let capabilities = register.capabilities.unwrap();
    assert_eq!((register.collector_id.as_str(), register.collector_type.as_str()), (ID, "performance"));
    assert_eq!(capabilities.bits, SourceCaps::PERFORMANCE.bits());
    assert_eq!(capabilities.domains, [i32::from(MonitoringDomain::Performance)]);

    thermometer.will_read(&[("cpu", 41_000), ("disk", 30_500)]);
    thermometer.will_read(&[("cpu", 41_000), ("disk", 31_000)]);
    begin(&broker);
    received(&house, &[("cpu", 41_000), ("disk", 30_500), ("disk", 31_000)]).await;

    let task =
        |kind: TaskType| Verb::ExecuteTask(DetectionTask { task_type: kind.into(), ..DetectionTask::default() });
    let Answer::Task(told) = ask_of(&broker, ID, task(TaskType::MonitorPerformance)).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(told.records, [message("cpu", 41_000), message("disk", 31_000)]);
    let refused = ask_of(&broker, ID, task(TaskType::EnumerateProcesses)).await;
    let Err(RpcError::PeerFault(fault)) = refused else { panic!("a thermometer listed processes") };
    assert_eq!(fault.kind(), FaultKind::Refused);
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_lost_agent_and_a_restart_cost_it_nothing() {
    let house = House::new();
    let broker = house.broker().await;
    let thermometer = Arc::new(Thermometer::default());
    let (running, stop) = run(&house, &thermometer);
    house.registered(1).await;
    thermometer.will_read(&[("cpu", 1), ("disk", 2)]);
    begin(&broker);
    received(&house, &[("cpu", 1), ("disk", 2)]).await;
    *house.agent.committed.lock().unwrap() = house.received.lock().unwrap()[0].sequence;
    broker.shutdown().await;
    thermometer.will_read(&[("cpu", 3), ("disk", 2)]);
    until("logged", async || readings(&stored(&house.data())).len() == 3).await;
    stop.cancel();
    running.await.unwrap().unwrap();

    let thermometer = Arc::new(Thermometer::default());
    thermometer.will_read(&[("cpu", 3), ("disk", 4)]);
    let (running, stop) = run(&house, &thermometer);
    house.received.lock().unwrap().clear();
    let broker = house.broker().await;
    house.registered(2).await;
    received(&house, &[("disk", 2), ("cpu", 3)]).await;
    begin(&broker);
    received(&house, &[("disk", 2), ("cpu", 3), ("disk", 4)]).await;
    assert_eq!(*thermometer.zones(), BTreeMap::from([("cpu".to_owned(), 3), ("disk".to_owned(), 4)]));
    stop.cancel();
    running.await.unwrap().unwrap();
    broker.shutdown().await;
}

/// The words of the wire's process domain; a comparison of source text, because no type could tell.
#[test]
fn no_source_file_of_the_sdk_names_a_process() {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for word in [
                "ProcessEvent",
                "ProcessRecord",
                "ProcessFilter",
                "EnumerateProcesses",
                "Topic::Process",
                "events.process",
                "procmond",
            ] {
                assert!(!text.contains(word), "{} says {word}", path.display());
            }
        }
    }
    assert!(files > 10, "the sources were found");
}
