use super::*;
use crate::checkpoint;
use crate::checkpoint::Checkpoint;
use crate::collector::ProcessCollectionError;
use crate::collector::{Image, ProcessCollectorCapabilities, Sighting};
use crate::kernel::{KernelSourceError, Notice, What};
use crate::tracker::{Input, Limits, Tracker};
use collector_core::source::{EventSink, Settings};
use collector_core::wal::{SyncMode, Wal, WalOptions};
use collector_core::{Disk, DiskFile, RealDisk, SourceEvent};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{CoverageGap, ProcessEvent, ProcessRecord, Record, StartKind};
use prost::Message;
use std::io;
use std::sync::{Condvar, MutexGuard};

/// A process table with this many processes.
struct Table(u32);

impl ProcessCollector for Table {
    fn name(&self) -> &'static str {
        "table"
    }
    fn boot_id(&self) -> &str {
        "boot"
    }
    fn capabilities(&self) -> ProcessCollectorCapabilities {
        ProcessCollectorCapabilities { exact_identity: true, notes: Vec::new() }
    }
    fn collect_processes(
        &mut self,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<CollectionStats, ProcessCollectionError> {
        for pid in 1..=self.0 {
            let record = self.collect_process(pid)?;
            each(Sighting::Read(Box::new(record), Image::UNSEEN));
        }
        Ok(CollectionStats { processes: self.0.into(), ..CollectionStats::default() })
    }
    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
        Ok(ProcessRecord { entity_id, pid, name: "p".into(), ..ProcessRecord::default() })
    }
    fn forget(&mut self, _pids: &[u32]) {}
    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        Ok(())
    }
}

/// A disk on which syncs wait until they are let through.
#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn hold(&self, held: bool) {
        *lock(&self.held) = held;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let held: MutexGuard<'_, bool> = lock(&self.held);
        drop(self.changed.wait_while(held, |held| *held).unwrap());
    }
}

struct SlowDisk(Arc<Gate>);
struct SlowFile(Arc<dyn DiskFile>, Arc<Gate>);

impl DiskFile for SlowFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(RealDisk.create(path, mode)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(RealDisk.open(path)?, Arc::clone(&self.0))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Closing the log waits for its last sync.
        self.gate.hold(false);
    }
}

struct House {
    dir: tempfile::TempDir,
    gate: Arc<Gate>,
    wal: Wal,
    monitor: ProcessMonitor,
}

impl House {
    fn new(sync: SyncMode, processes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::default());
        let mut options = WalOptions::new(dir.path(), "procmond");
        options.segment_bytes = 256 * 1024;
        options.sync = sync;
        options.disk = Arc::new(SlowDisk(Arc::clone(&gate)));
        let (wal, _) = Wal::open(options).unwrap();
        let monitor = ProcessMonitor::new(chosen(Table(processes), None), Pace::DEFAULT, "procmond", dir.path());
        Self { dir, gate, wal, monitor }
    }

    /// As after a start with nothing to take over.
    fn restored(self) -> Self {
        let mut watch = lock(&self.monitor.watch);
        watch.restored = true;
        watch.log = Some(self.wal.reader());
        drop(watch);
        self
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        checkpoint::read(&self.dir.path().join("tracker.checkpoint")).unwrap()
    }

    fn begin(&self) {
        let mut watch = lock(&self.monitor.watch);
        watch.apply(Input::Begin { time_us: 7 });
        lock(&self.monitor.table)
            .collect_processes(&mut |sighting| {
                watch.see(sighting);
            })
            .unwrap();
        watch.apply(Input::End { complete: true });
    }

    /// One piece of what the last look found, written to the log; returns the number of events and whether there is more.
    fn piece(&self) -> (usize, bool) {
        let mut watch = lock(&self.monitor.watch);
        let more = watch.proceed();
        let events = watch.take_events();
        watch.wrote(self.wal.append(&events).unwrap());
        (events.len(), more)
    }

    /// A whole look.
    fn look(&self) -> Vec<usize> {
        self.begin();
        let mut counts = Vec::new();
        loop {
            let (count, more) = self.piece();
            counts.push(count);
            if !more {
                return counts;
            }
        }
    }

    fn written(&self) -> Option<Sequence> {
        lock(&self.monitor.watch).written
    }
}

fn chosen(table: impl ProcessCollector + 'static, kernel: Option<Box<dyn KernelSource>>) -> Chosen {
    let collector = Box::new(table);
    Chosen { collector, kernel, reason: String::new(), passed_over: Vec::new(), next: Vec::new() }
}

#[tokio::test]
async fn a_trim_before_the_restore_leaves_the_checkpoint_of_earlier_runs_alone() {
    let house = House::new(SyncMode::Group, 3);
    let path = house.dir.path().join("tracker.checkpoint");
    let earlier = Some(Sequence::new(1, 9));
    checkpoint::write(&path, earlier, |out| out.write_all(b"a state of earlier runs")).unwrap();
    let before = house.checkpoint();
    lock(&house.monitor.watch).log = Some(house.wal.reader());
    let last = house.wal.append(&[SourceEvent::new("events.collector.procmond", 1, vec![1])]).unwrap();
    house.wal.synced().await.unwrap();
    let held = house.monitor.checkpoint(last).await.unwrap();
    assert_eq!(held, None, "nothing may be trimmed");
    assert_eq!(house.checkpoint(), before);
}

#[tokio::test]
async fn a_checkpoint_never_reflects_a_record_that_a_power_failure_would_take() {
    let house = House::new(SyncMode::Group, 3).restored();
    house.look();
    house.wal.synced().await.unwrap();
    let durable = house.monitor.checkpoint(None).await.unwrap();
    assert_eq!((durable, house.checkpoint().unwrap().last), (house.wal.progress().borrow().durable, durable));

    house.gate.hold(true);
    let last = house.wal.append(&[SourceEvent::new("events.collector.procmond", 1, vec![1])]).unwrap();
    assert!(last > durable);
    assert_eq!(house.monitor.checkpoint(last).await.unwrap(), durable, "the trim goes no further than before");
    lock(&house.monitor.watch).written = last;
    lock(&house.monitor.watch).checkpointed_at = None;
    assert!(lock(&house.monitor.watch).is_behind());

    house.gate.hold(false);
    assert_eq!(house.monitor.checkpoint(last).await.unwrap(), last);
    assert_eq!(house.checkpoint().unwrap().last, last);
}

#[tokio::test]
async fn without_syncs_the_checkpoint_follows_what_is_written() {
    let house = House::new(SyncMode::Never, 3).restored();
    house.look();
    let last = house.written();
    assert_eq!(house.monitor.checkpoint(last).await.unwrap(), last);
}

#[tokio::test]
async fn a_large_baseline_comes_in_pieces_and_a_checkpoint_between_two_of_them_loses_nobody() {
    let house = House::new(SyncMode::Never, 1200).restored();
    house.begin();
    assert_eq!(house.piece(), (512, true));
    house.monitor.checkpoint(house.written()).await.unwrap();
    assert_eq!((house.piece(), house.piece()), ((512, true), (176, false)));
    assert_eq!(house.look(), [0]);

    let mut after = Tracker::new("table", "boot", Limits::default());
    after.import(&house.checkpoint().unwrap().state).unwrap();
    assert_eq!(after.len(), 512);
    let mut kinds = Vec::new();
    let mut emit = |event: ProcessEvent| kinds.push(event.start_kind());
    after.apply(Input::Begin { time_us: 7 }, &mut emit);
    Table(1200).collect_processes(&mut |sighting| after.apply(Input::Seen(sighting), &mut emit)).unwrap();
    after.apply(Input::End { complete: true }, &mut emit);
    while after.proceed(&mut emit) {}
    assert_eq!(kinds, [daemoneye_lib::proto::StartKind::Baseline; 688]);
}

/// What a scripted source of the kernel does next.
enum Step {
    Announce(Notice),
    Lose(u64),
    Die,
    Panic,
}

struct Script(std::sync::mpsc::Receiver<Step>, u64);

fn script() -> (std::sync::mpsc::Sender<Step>, Box<dyn KernelSource>) {
    let (sender, steps) = std::sync::mpsc::channel();
    (sender, Box::new(Script(steps, 0)))
}

impl KernelSource for Script {
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
        match self.0.recv_timeout(wait) {
            Ok(Step::Announce(notice)) => each(notice),
            Ok(Step::Lose(count)) => self.1 += count,
            Ok(Step::Die) => {
                return Err(KernelSourceError::Died { source_name: "script", reason: "the test says so".into() });
            }
            Ok(Step::Panic) => panic!("the test says so"),
            Err(_) => {}
        }
        Ok(())
    }
    fn lost(&self) -> u64 {
        self.1
    }
}

fn fork(pid: u32) -> Step {
    let time_us = super::watch::now_us();
    Step::Announce(Notice {
        time_us,
        pid,
        start_ticks: Some(1),
        what: What::Fork { parent: 1, parent_ticks: None, credentials: None },
    })
}

/// A monitor that runs under the SDK, and what it writes.
struct Running {
    monitor: Arc<ProcessMonitor>,
    written: tokio::sync::mpsc::UnboundedReceiver<Record>,
    stop: tokio_util::sync::CancellationToken,
    runtime: tokio::task::JoinHandle<Result<collector_core::Stopped, collector_core::CollectorError>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(chosen: Chosen, interval: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let monitor =
            Arc::new(ProcessMonitor::new(chosen, Pace::every(interval), "procmond", &dir.path().join("wal")));
        let (sender, written) = tokio::sync::mpsc::unbounded_channel();
        let stop = tokio_util::sync::CancellationToken::new();
        let builder = collector_core::Runtime::builder("procmond", "process", dir.path())
            .interval(monitor.interval())
            .source(Arc::clone(&monitor) as Arc<dyn EventSource>)
            .follow(Arc::new(move |record| sender.send(record.clone()).unwrap_or_default()));
        let runtime = tokio::spawn(builder.run(stop.clone()));
        Self { monitor, written, stop, runtime, _dir: dir }
    }

    async fn next(&mut self) -> Record {
        tokio::time::timeout(Duration::from_secs(60), self.written.recv()).await.unwrap().unwrap()
    }

    async fn event(&mut self, pid: u32) -> ProcessEvent {
        loop {
            let record = self.next().await;
            if is_process_topic(&record.topic) {
                let event = ProcessEvent::decode(record.payload).unwrap();
                if event.process.as_ref().unwrap().pid == pid {
                    return event;
                }
            }
        }
    }

    async fn gap(&mut self, reason: &str) -> CoverageGap {
        loop {
            let record = self.next().await;
            if record.topic == "events.collector.procmond" {
                let gap = CoverageGap::decode(record.payload).unwrap();
                if gap.reason == reason {
                    return gap;
                }
            }
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.runtime.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn announcements_become_events_at_once_and_losses_are_told_with_their_exact_number() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Table(3), Some(kernel)), Duration::from_secs(3600));
    assert_eq!(running.event(3).await.source, "table");
    steps.send(fork(7)).unwrap();
    let event = running.event(7).await;
    assert_eq!((event.source.as_str(), event.start_kind()), ("script", StartKind::Fork));
    steps.send(Step::Lose(40)).unwrap();
    let gap = running.gap("kernel_lost").await;
    assert_eq!((gap.count, gap.from_us), (Some(40), event.time_us), "nothing is known to be lost before");
    let health = running.monitor.health().await;
    assert_eq!((health.kernel_lost, health.recall_percent), (40, Some(100.0)));
    assert!(health.notes.iter().any(|note| note.starts_with("40 announcements")), "{:?}", health.notes);
    let caps = running.monitor.capabilities();
    assert_eq!((caps.bits & 48, caps.source.as_str()), (48, "script"));
    running.end().await;
}

/// A process table of which more is seen at every look.
struct Growing(u32);

impl ProcessCollector for Growing {
    fn name(&self) -> &'static str {
        "table"
    }
    fn boot_id(&self) -> &str {
        "boot"
    }
    fn capabilities(&self) -> ProcessCollectorCapabilities {
        Table(0).capabilities()
    }
    fn collect_processes(
        &mut self,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<CollectionStats, ProcessCollectionError> {
        self.0 += 1;
        Table(self.0).collect_processes(each)
    }
    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        Table(self.0).collect_process(pid)
    }
    fn forget(&mut self, _pids: &[u32]) {}
    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_only_a_snapshot_found_is_told_and_lowers_the_recall() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Growing(2), Some(kernel)), Duration::from_millis(100));
    let gap = running.gap("announcements_missed").await;
    assert_eq!(gap.count, Some(1), "{gap:?}");
    assert!(gap.detail.contains("recall 0.00 percent"), "{gap:?}");
    assert_eq!(running.monitor.health().await.recall_percent, Some(0.0));
    drop(steps);
    running.end().await;
}

#[tokio::test]
async fn a_source_that_dies_is_followed_by_the_next_best_and_then_by_snapshots() {
    let ((first, kernel), (second, next)) = (script(), script());
    let next = Mutex::new(Some(next));
    let open: Open = Box::new(move |boot_id| {
        assert_eq!(boot_id, "boot");
        lock(&next).take().ok_or(KernelSourceError::Unavailable { source_name: "script", reason: "used up".into() })
    });
    let chosen = Chosen { next: vec![open], ..chosen(Table(3), Some(kernel)) };
    let mut running = Running::start(chosen, Duration::from_secs(3600));
    running.event(3).await;
    first.send(Step::Die).unwrap();
    assert!(running.gap("source_fallback").await.detail.contains("the test says so"));
    second.send(fork(7)).unwrap();
    assert_eq!(running.event(7).await.source, "script");
    second.send(Step::Die).unwrap();
    running.gap("source_fallback").await;
    let caps = running.monitor.capabilities();
    assert_eq!((caps.bits & 48, caps.source.as_str()), (0, "table"));
    assert!(caps.notes.iter().any(|note| note.contains("the test says so")), "{:?}", caps.notes);
    // The snapshot that follows knows nothing of the announced process.
    assert_eq!(running.event(7).await.event_type(), EventType::Stop);
    running.end().await;
}

#[tokio::test]
async fn what_is_announced_during_a_pause_is_dropped_and_told_with_its_number() {
    let ((steps, kernel), hour) = (script(), Duration::from_secs(3600));
    let dir = tempfile::tempdir().unwrap();
    let wal = Arc::new(Wal::open(WalOptions::new(dir.path(), "procmond")).unwrap().0);
    let (mut progress, reader) = (wal.progress(), wal.reader());
    let settings = tokio::sync::watch::Sender::new(Settings {
        interval: hour,
        original_interval: hour,
        max_events_in_flight: 1,
        paused: false,
    });
    let shutdown = tokio_util::sync::CancellationToken::new();
    let events = EventSink::new(wal, settings.subscribe(), shutdown.clone());
    let context =
        SourceContext { events, settings: settings.subscribe(), shutdown: shutdown.clone(), wal: reader.clone() };
    let monitor =
        Arc::new(ProcessMonitor::new(chosen(Growing(2), Some(kernel)), Pace::every(hour), "procmond", dir.path()));
    let theirs = Arc::clone(&monitor);
    let run = tokio::spawn(async move { theirs.start(context).await });
    progress.wait_for(|progress| progress.written.is_some_and(|last| last.number >= 3)).await.unwrap();

    settings.send_modify(|settings| settings.paused = true);
    steps.send(fork(7)).unwrap();
    let dropped = "1 announcements came during pauses and were dropped";
    let told = async {
        while !monitor.health().await.notes.iter().any(|note| note == dropped) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    settings.send_modify(|settings| settings.paused = false);
    // Three of the baseline, the gap, and the one that has come during the pause.
    progress.wait_for(|progress| progress.written.is_some_and(|last| last.number >= 5)).await.unwrap();
    shutdown.cancel();
    run.await.unwrap().unwrap();

    let records: Vec<Record> = reader.replay_from(None).unwrap().map(Result::unwrap).collect();
    let gap = records.iter().find(|record| !is_process_topic(&record.topic)).unwrap();
    let gap = CoverageGap::decode(gap.payload.as_ref()).unwrap();
    assert_eq!((gap.reason.as_str(), gap.count), ("paused", Some(1)));
    let events = records.iter().filter(|record| is_process_topic(&record.topic));
    let mut pids: Vec<u32> =
        events.map(|record| ProcessEvent::decode(record.payload.as_ref()).unwrap().process.unwrap().pid).collect();
    pids.sort_unstable();
    assert_eq!(pids, [1, 2, 3, 4]);
    let health = monitor.health().await;
    assert_eq!((health.missed, health.recall_percent), (0, Some(100.0)));
}

#[tokio::test]
async fn a_reader_that_ends_without_a_word_is_followed_by_snapshots() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Table(3), Some(kernel)), Duration::from_secs(3600));
    running.event(3).await;
    steps.send(Step::Panic).unwrap();
    assert!(running.gap("source_fallback").await.detail.contains("without a word"));
    assert_eq!(running.monitor.capabilities().source, "table");
    running.end().await;
}

/// Loses one announcement at each call.
struct Leaky(Arc<std::sync::atomic::AtomicU64>);

impl KernelSource for Leaky {
    fn name(&self) -> &'static str {
        "leaky"
    }
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    fn is_raced(&self) -> bool {
        false
    }
    fn receive(&mut self, wait: Duration, _: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError> {
        std::thread::park_timeout(wait);
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    fn lost(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn what_is_lost_while_a_run_ends_is_told() {
    let lost = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let kernel = Box::new(Leaky(Arc::clone(&lost)));
    let mut running = Running::start(chosen(Table(3), Some(kernel)), Duration::from_secs(3600));
    running.event(3).await;
    let monitor = Arc::clone(&running.monitor);
    running.end().await;
    assert_eq!(monitor.health().await.kernel_lost, lost.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test]
async fn a_run_that_was_cut_off_leaves_its_source_to_the_next() {
    let ((steps, kernel), hour) = (script(), Duration::from_secs(3600));
    let dir = tempfile::tempdir().unwrap();
    let wal = Arc::new(Wal::open(WalOptions::new(dir.path(), "procmond")).unwrap().0);
    let (mut progress, reader) = (wal.progress(), wal.reader());
    let settings = tokio::sync::watch::Sender::new(Settings {
        interval: hour,
        original_interval: hour,
        max_events_in_flight: 1,
        paused: false,
    });
    let shutdown = tokio_util::sync::CancellationToken::new();
    let context = || SourceContext {
        events: EventSink::new(Arc::clone(&wal), settings.subscribe(), shutdown.clone()),
        settings: settings.subscribe(),
        shutdown: shutdown.clone(),
        wal: reader.clone(),
    };
    let monitor =
        Arc::new(ProcessMonitor::new(chosen(Table(3), Some(kernel)), Pace::every(hour), "procmond", dir.path()));
    let run = |monitor: Arc<ProcessMonitor>| {
        let context = context();
        tokio::spawn(async move { monitor.start(context).await })
    };
    let first = run(Arc::clone(&monitor));
    progress.wait_for(|progress| progress.written.is_some_and(|last| last.number >= 3)).await.unwrap();
    first.abort();
    first.await.unwrap_err();
    let second = run(Arc::clone(&monitor));
    // The gap says that the source is back: until then its former thread may take what comes, and nobody hears it.
    progress.wait_for(|progress| progress.written.is_some_and(|last| last.number >= 4)).await.unwrap();
    steps.send(fork(7)).unwrap();
    progress.wait_for(|progress| progress.written.is_some_and(|last| last.number >= 5)).await.unwrap();
    shutdown.cancel();
    second.await.unwrap().unwrap();
    assert_eq!(monitor.capabilities().source, "script");
    let records: Vec<Record> = reader.replay_from(None).unwrap().map(Result::unwrap).collect();
    let sources = records.iter().filter(|record| is_process_topic(&record.topic));
    let sources: Vec<String> =
        sources.map(|record| ProcessEvent::decode(record.payload.as_ref()).unwrap().source).collect();
    assert_eq!(sources, ["table", "table", "table", "script"]);
}

/// Shows three processes, then two and says that it hides some.
struct Hiding(bool);

impl ProcessCollector for Hiding {
    fn name(&self) -> &'static str {
        "table"
    }
    fn boot_id(&self) -> &str {
        "boot"
    }
    fn capabilities(&self) -> ProcessCollectorCapabilities {
        Table(0).capabilities()
    }
    fn collect_processes(
        &mut self,
        each: &mut dyn FnMut(Sighting),
    ) -> Result<CollectionStats, ProcessCollectionError> {
        let hiding = std::mem::replace(&mut self.0, true);
        let stats = Table(if hiding { 2 } else { 3 }).collect_processes(each)?;
        Ok(CollectionStats { hiding, ..stats })
    }
    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        Table(0).collect_process(pid)
    }
    fn forget(&mut self, _pids: &[u32]) {}
    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_table_that_hides_processes_ends_nobody() {
    let (steps, kernel) = script();
    let mut running = Running::start(chosen(Hiding(false), Some(kernel)), Duration::from_millis(50));
    running.event(3).await;
    while running.monitor.health().await.cycles < 3 {
        tokio::task::yield_now().await;
    }
    steps.send(fork(9)).unwrap();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&(9, EventType::Start)) {
        let record = running.next().await;
        if is_process_topic(&record.topic) {
            let event = ProcessEvent::decode(record.payload).unwrap();
            kinds.push((event.process.as_ref().unwrap().pid, event.event_type()));
        }
    }
    assert_eq!(kinds, [(9, EventType::Start)]);
    let notes = running.monitor.health().await.notes;
    assert!(notes.iter().any(|note| note.contains("hidepid")), "{notes:?}");
    running.end().await;
}

/// A table that does not answer until it is let go.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl ProcessCollector for Stuck {
    fn name(&self) -> &'static str {
        "table"
    }
    fn boot_id(&self) -> &str {
        "boot"
    }
    fn capabilities(&self) -> ProcessCollectorCapabilities {
        Table(0).capabilities()
    }
    fn collect_processes(&mut self, _: &mut dyn FnMut(Sighting)) -> Result<CollectionStats, ProcessCollectionError> {
        self.0.recv().ok();
        Ok(CollectionStats::default())
    }
    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError> {
        Table(0).collect_process(pid)
    }
    fn forget(&mut self, _pids: &[u32]) {}
    fn health_check(&mut self) -> Result<(), ProcessCollectionError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_scan_that_hangs_is_shown_and_announcements_go_on() {
    let ((steps, kernel), (let_go, held)) = (script(), std::sync::mpsc::channel());
    let mut running = Running::start(chosen(Stuck(held), Some(kernel)), Duration::from_secs(3600));
    while lock(&running.monitor.seen).scanning.is_none() {
        tokio::task::yield_now().await;
    }
    steps.send(fork(7)).unwrap();
    assert_eq!(running.event(7).await.start_kind(), StartKind::Fork);
    tokio::time::pause();
    tokio::time::advance(HANGING + Duration::from_secs(1)).await;
    let health = running.monitor.health().await;
    assert!(health.unhealthy && health.notes.iter().any(|note| note.contains("hanging")), "{:?}", health.notes);
    tokio::time::resume();
    drop(let_go);
    running.end().await;
}
