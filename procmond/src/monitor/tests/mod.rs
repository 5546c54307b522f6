//! The monitor over a process table and a kernel that do what each test says.

mod announcements;
mod checkpoint;
mod ends;
mod scans;

use collector_core::source::{EventSink, Settings};
use collector_core::wal::{SyncMode, Wal, WalOptions};
use collector_core::{CollectorError, Runtime, SourceEvent, Stopped};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{CoverageGap, ProcessEvent, ProcessRecord, Record, StartKind};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::collector::{Image, ProcessCollectionError, ProcessCollectorCapabilities, Sighting};
use crate::kernel::{KernelSourceError, Notice, What};

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);

/// Far more than anything here takes, so that only a real fault meets it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process table whose looks come out as told; it shows as many processes as each of them says.
struct Table(Box<dyn FnMut() -> CollectionStats + Send>);

impl Table {
    fn of(processes: u32) -> Self {
        Self::that(move || Self::shows(processes))
    }

    fn that(look: impl FnMut() -> CollectionStats + Send + 'static) -> Self {
        Self(Box::new(look))
    }

    fn shows(processes: u32) -> CollectionStats {
        CollectionStats { processes: processes.into(), ..CollectionStats::default() }
    }

    /// Of which one more is seen at each look, from three on.
    fn growing() -> Self {
        let mut looks = 3..;
        Self::that(move || Self::shows(looks.next().unwrap()))
    }
}

impl ProcessCollector for Table {
    fn name(&self) -> &'static str {
        "table"
    }
    fn boot_id(&self) -> &str {
        "boot"
    }
    fn capabilities(&self) -> ProcessCollectorCapabilities {
        ProcessCollectorCapabilities { exact_identity: true, notes: Vec::new(), missing_columns: &[] }
    }
    fn collect_processes(
        &mut self,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<CollectionStats, ProcessCollectionError> {
        let stats = (self.0)();
        for pid in 1..=stats.processes {
            let record = self.collect_process(pid.try_into().unwrap())?;
            each(Sighting::Read(Box::new(record), Image::UNSEEN));
        }
        Ok(stats)
    }
    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
        let executable_path = Some("/usr/bin/p".to_owned());
        Ok(ProcessRecord { entity_id, pid, name: "p".into(), executable_path, ..ProcessRecord::default() })
    }
    fn forget(&mut self, _pids: &[u32]) {}
    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        Ok(())
    }
}

/// What a scripted source of the kernel does next.
enum Step {
    Announce(Notice),
    Lose(u64),
    Die,
    Panic,
}

/// A source of the kernel that does as told, and how many announcements it has lost.
struct Script<F>(F, u64);

/// One that is told by the test.
fn script() -> (std::sync::mpsc::Sender<Step>, Box<dyn KernelSource>) {
    let (sender, steps) = std::sync::mpsc::channel();
    (sender, Box::new(Script(move |wait| steps.recv_timeout(wait).ok(), 0)))
}

impl<F: FnMut(Duration) -> Option<Step> + Send> KernelSource for Script<F> {
    fn name(&self) -> &'static str {
        "script"
    }
    fn notes(&self) -> Vec<String> {
        vec!["script: whatever the test says".to_owned()]
    }
    fn is_raced(&self) -> bool {
        false
    }
    fn receive(&mut self, wait: Duration, each: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError> {
        match (self.0)(wait) {
            Some(Step::Announce(notice)) => each(notice),
            Some(Step::Lose(count)) => self.1 += count,
            Some(Step::Die) => {
                return Err(KernelSourceError::Died { source_name: "script", reason: "the test says so".into() });
            }
            Some(Step::Panic) => panic!("the test says so"),
            None => {}
        }
        Ok(())
    }
    fn lost(&self) -> u64 {
        self.1
    }
}

fn fork(pid: u32) -> Step {
    let what = What::Fork { parent: 1, parent_ticks: None, credentials: None };
    Step::Announce(Notice { time_us: now_us(), pid, start_ticks: Some(1), what })
}

fn chosen(table: Table, kernel: Option<Box<dyn KernelSource>>) -> Chosen {
    let collector = Box::new(table);
    Chosen { collector, kernel, reason: String::new(), passed_over: Vec::new(), next: Vec::new() }
}

fn event_in(record: &Record) -> Option<ProcessEvent> {
    is_process_topic(&record.topic).then(|| ProcessEvent::decode(record.payload.as_ref()).unwrap())
}

fn gap_in(record: &Record) -> Option<CoverageGap> {
    (record.topic == "events.collector.procmond").then(|| CoverageGap::decode(record.payload.as_ref()).unwrap())
}

fn pid_of(event: &ProcessEvent) -> u32 {
    event.process.as_ref().unwrap().pid
}

/// Waits until it is so.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let so = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, so).await.unwrap();
}

/// A monitor that runs under the SDK, and what it writes.
struct Running {
    monitor: Arc<ProcessMonitor>,
    written: mpsc::UnboundedReceiver<Record>,
    stop: CancellationToken,
    runtime: JoinHandle<Result<Stopped, CollectorError>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(chosen: Chosen, interval: Duration) -> Self {
        Self::behind(Door::default(), chosen, interval)
    }

    /// With another door than the one that lets everything through.
    fn behind(door: Door, chosen: Chosen, interval: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let monitor =
            Arc::new(ProcessMonitor::new(chosen, Pace::every(interval), "procmond", &dir.path().join("wal")));
        lock(&monitor.watch).door = Arc::new(door);
        let (sender, written) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let builder = Runtime::builder("procmond", "process", dir.path())
            .interval(monitor.interval())
            .source(Arc::clone(&monitor) as Arc<dyn EventSource>)
            .follow(Arc::new(move |record| sender.send(record.clone()).unwrap_or_default()));
        let runtime = tokio::spawn(builder.run(stop.clone()));
        Self { monitor, written, stop, runtime, _dir: dir }
    }

    /// The next record that holds what is wanted.
    async fn next<T>(&mut self, wanted: impl Fn(&Record) -> Option<T>) -> T {
        loop {
            let record = tokio::time::timeout(DEADLINE, self.written.recv()).await.unwrap().unwrap();
            if let Some(found) = wanted(&record) {
                return found;
            }
        }
    }

    async fn event(&mut self, pid: u32) -> ProcessEvent {
        self.next(|record| event_in(record).filter(|event| pid_of(event) == pid)).await
    }

    async fn gap(&mut self, reason: &str) -> CoverageGap {
        self.next(|record| gap_in(record).filter(|gap| gap.reason == reason)).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.runtime.await.unwrap().unwrap();
    }
}

/// A monitor without the SDK: its log, its settings and its end are the test's.
struct Alone {
    monitor: Arc<ProcessMonitor>,
    wal: Arc<Wal>,
    settings: watch::Sender<Settings>,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Alone {
    fn new(chosen: Chosen) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { interval: HOUR, original_interval: HOUR, max_events_in_flight: 1, paused: false };
        Self {
            monitor: Arc::new(ProcessMonitor::new(chosen, Pace::every(HOUR), "procmond", dir.path())),
            wal: Arc::new(Wal::open(WalOptions::new(dir.path(), "procmond")).unwrap().0),
            settings: watch::Sender::new(settings),
            shutdown: CancellationToken::new(),
            _dir: dir,
        }
    }

    fn run(&self) -> JoinHandle<Result<(), SourceError>> {
        let context = SourceContext {
            events: EventSink::new(Arc::clone(&self.wal), self.settings.subscribe(), self.shutdown.clone()),
            settings: self.settings.subscribe(),
            shutdown: self.shutdown.clone(),
            wal: self.wal.reader(),
        };
        let monitor = Arc::clone(&self.monitor);
        tokio::spawn(async move { monitor.start(context).await })
    }

    /// Waits until so many records are in the log.
    async fn has_written(&self, count: u64) {
        let mut progress = self.wal.progress();
        let enough = progress.wait_for(|progress| progress.written.is_some_and(|last| last.number >= count));
        tokio::time::timeout(DEADLINE, enough).await.unwrap().unwrap();
    }

    /// Everything in the log, by what `wanted` makes of it.
    fn log<T>(&self, wanted: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        self.wal.replay_from(None).unwrap().filter_map(|record| wanted(&record.unwrap())).collect()
    }
}
