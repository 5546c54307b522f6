//! What the checkpoint says, whatever the disk does meanwhile.

use std::io;
use std::sync::{Condvar, MutexGuard};

use collector_core::{Disk, DiskDir, DiskFile, RealDisk};

use super::*;
use crate::checkpoint::{self, Checkpoint};
use crate::tracker::{Input, Limits, STARTS, Tracker};

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
    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn DiskDir>> {
        RealDisk.open_dir(dir)
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
        let monitor = ProcessMonitor::new(chosen(Table::of(processes), None), Pace::DEFAULT, "procmond", dir.path());
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
                watch.see(sighting, None);
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

#[tokio::test]
async fn a_trim_before_the_restore_leaves_the_checkpoint_of_earlier_runs_alone() {
    let house = House::new(SyncMode::Group, 3);
    let path = house.dir.path().join("tracker.checkpoint");
    let earlier = Some(Sequence::new(1, 9));
    checkpoint::write(&path, earlier, b"a state of earlier runs").unwrap();
    let before = house.checkpoint();
    lock(&house.monitor.watch).log = Some(house.wal.reader());
    let last = house.wal.append(&[SourceEvent::new("events.collector.procmond", 1, vec![1])]).unwrap();
    house.wal.synced().await.unwrap();
    let held = house.monitor.checkpoint(last).await.unwrap();
    assert_eq!(held, None, "nothing may be trimmed");
    assert_eq!(house.checkpoint(), before);
}

#[tokio::test]
async fn half_a_tail_is_no_past_to_start_from() {
    let house = House::new(SyncMode::Never, 9).restored();
    // Everybody is told in the second segment.
    let filling = SourceEvent::new("events.collector.procmond", 1, vec![1; 128 * 1024]);
    house.wal.append(&[filling.clone(), filling]).unwrap();
    house.look();
    let settings = Settings { interval: HOUR, original_interval: HOUR, max_events_in_flight: 1, paused: false };
    let (settings, shutdown) = (watch::Sender::new(settings), CancellationToken::new());
    let (other, _) = Wal::open(WalOptions::new(house.dir.path().join("other"), "procmond")).unwrap();
    let events = EventSink::new(Arc::new(other), settings.subscribe(), shutdown.clone());
    let context = SourceContext { events, settings: settings.subscribe(), shutdown, wal: house.wal.reader() };
    let restore =
        || lock(&house.monitor.watch).restore(&house.dir.path().join("tracker.checkpoint"), &context).map(drop);

    let second = house.dir.path().join("procmond-00002.wal");
    let aside = second.with_extension("aside");
    std::fs::rename(&second, &aside).unwrap();
    // Opening a link to itself fails, as opening anything does for want of descriptors.
    std::os::unix::fs::symlink(&second, &second).unwrap();
    lock(&house.monitor.watch).restored = false;
    let error = restore().unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    assert_eq!(house.monitor.checkpoint(None).await.unwrap(), None, "nothing is written down of it");
    std::fs::rename(&aside, &second).unwrap();
    restore().unwrap();
    assert_eq!(house.look(), [0], "everybody is known again");
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
    let processes = u32::try_from(2 * STARTS + 9).unwrap();
    let house = House::new(SyncMode::Never, processes).restored();
    house.begin();
    assert_eq!(house.piece(), (STARTS, true));
    house.monitor.checkpoint(house.written()).await.unwrap();
    assert_eq!((house.piece(), house.piece()), ((STARTS, true), (9, false)));
    assert_eq!(house.look(), [0]);

    let mut after = Tracker::new("table", "boot", Limits::default());
    after.import(&house.checkpoint().unwrap().state).unwrap();
    assert_eq!(after.len(), STARTS);
    let mut kinds = Vec::new();
    let mut emit = |event: ProcessEvent| kinds.push(event.start_kind());
    after.apply(Input::Begin { time_us: 7 }, &mut emit);
    Table::of(processes).collect_processes(&mut |sighting| after.apply(Input::Seen(sighting), &mut emit)).unwrap();
    after.apply(Input::End { complete: true }, &mut emit);
    while after.proceed(&mut emit) {}
    assert_eq!(kinds, [StartKind::Baseline; STARTS + 9]);
}
