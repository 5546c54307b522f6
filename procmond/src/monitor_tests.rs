use super::*;
use crate::checkpoint::Checkpoint;
use crate::collector::{Image, ProcessCollectorCapabilities, Sighting};
use collector_core::wal::{SyncMode, Wal, WalOptions};
use collector_core::{Disk, DiskFile, RealDisk};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
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
        let chosen = Chosen { collector: Box::new(Table(processes)), reason: String::new() };
        let monitor = ProcessMonitor::new(chosen, Duration::from_secs(5), dir.path());
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

    /// One look, written to the log; returns the number of events of each of its cycles.
    async fn look(&self) -> (Vec<usize>, Option<Sequence>) {
        let mut counts = Vec::new();
        loop {
            let events = self.monitor.cycle().await.unwrap();
            counts.push(events.len());
            let last = self.wal.append(&events).unwrap();
            self.monitor.written(last).await;
            if !self.monitor.unfinished().await {
                return (counts, last);
            }
        }
    }
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
    house.look().await;
    house.wal.synced().await.unwrap();
    let durable = house.monitor.checkpoint(None).await.unwrap();
    assert_eq!((durable, house.checkpoint().unwrap().last), (house.wal.progress().borrow().durable, durable));

    house.gate.hold(true);
    let last = house.wal.append(&[SourceEvent::new("events.collector.procmond", 1, vec![1])]).unwrap();
    assert!(last > durable);
    assert_eq!(house.monitor.checkpoint(last).await.unwrap(), durable, "the trim goes no further than before");
    lock(&house.monitor.watch).written = last;
    lock(&house.monitor.watch).checkpointed_at = None;
    // The way before a scan does not wait at all.
    lock(&house.monitor.watch).keep_up(&house.dir.path().join("tracker.checkpoint"));
    assert_eq!(house.checkpoint().unwrap().last, durable);

    house.gate.hold(false);
    assert_eq!(house.monitor.checkpoint(last).await.unwrap(), last);
    assert_eq!(house.checkpoint().unwrap().last, last);
}

#[tokio::test]
async fn without_syncs_the_checkpoint_follows_what_is_written() {
    let house = House::new(SyncMode::Never, 3).restored();
    let (_, last) = house.look().await;
    assert_eq!(house.monitor.checkpoint(last).await.unwrap(), last);
}

#[tokio::test]
async fn a_large_baseline_comes_in_pieces_and_a_checkpoint_between_two_of_them_loses_nobody() {
    let house = House::new(SyncMode::Never, 1200).restored();
    let first = house.monitor.cycle().await.unwrap();
    let last = house.wal.append(&first).unwrap();
    house.monitor.written(last).await;
    assert!(house.monitor.unfinished().await);
    house.monitor.checkpoint(last).await.unwrap();
    let (counts, _) = house.look().await;
    assert_eq!((first.len(), counts), (512, vec![512, 176]));
    assert_eq!(house.look().await.0, [0]);

    let mut after = Tracker::new("table", "boot", Limits::default());
    after.import(&house.checkpoint().unwrap().state).unwrap();
    assert_eq!(after.len(), 512);
    let mut watch = Watch::new(Box::new(Table(1200)), after);
    let mut kinds = Vec::new();
    while kinds.is_empty() || watch.tracker.is_starting() {
        let (events, _) = watch.next_events(7, Path::new("/nonexistent")).unwrap();
        kinds.extend(events.iter().map(|event| ProcessEvent::decode(event.payload.as_slice()).unwrap().start_kind()));
    }
    assert_eq!(kinds, [daemoneye_lib::proto::StartKind::Baseline; 688]);
}
