//! A disk that can be full or refuse to sync, and small shortcuts.

pub(crate) mod power;

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use collector_core::wal::{Wal, WalOptions};
use collector_core::{Disk, DiskDir, DiskFile, RealDisk, SourceEvent};
use daemoneye_lib::proto::{CoverageGap, Record};
use prost::Message as _;

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) full: AtomicBool,
    /// Files that are there can be written, new ones cannot be made.
    pub(crate) no_new: AtomicBool,
    pub(crate) no_sync: AtomicBool,
    held: Mutex<bool>,
    writes_held: Mutex<bool>,
    let_go: Condvar,
    waiting: AtomicU64,
    writes_waiting: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// Cannot be read any more from the next new file on.
    pub(crate) unreadable: Mutex<Option<PathBuf>>,
}

pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

/// The third says whether it holds records.
struct FaultyFile(Arc<dyn DiskFile>, Arc<Faults>, bool);

impl Faults {
    /// While held, syncs wait.
    pub(crate) fn hold_syncs(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.let_go.notify_all();
    }

    /// While held, writes to segments wait.
    pub(crate) fn hold_writes(&self, held: bool) {
        *self.writes_held.lock().unwrap() = held;
        self.let_go.notify_all();
    }

    /// Syncs and writes that wait now.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst) + self.writes_waiting.load(Ordering::SeqCst)
    }

    /// Lets everything go after so long that a test that waits for it fails instead of hanging; says whether it had to.
    pub(crate) fn watchdog(self: &Arc<Self>) -> Arc<AtomicBool> {
        let (faults, barked) = (Arc::downgrade(self), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&barked);
        std::thread::spawn(move || {
            let began = std::time::Instant::now();
            while began.elapsed() < std::time::Duration::from_secs(30) && faults.strong_count() > 0 {
                std::thread::park_timeout(std::time::Duration::from_millis(100));
            }
            if let Some(faults) = faults.upgrade().filter(|faults| faults.waiting() > 0) {
                told.store(true, Ordering::SeqCst);
                faults.hold_syncs(false);
                faults.hold_writes(false);
            }
        });
        barked
    }

    /// Returns when one does.
    pub(crate) fn until_a_sync_waits(&self) {
        let began = std::time::Instant::now();
        while self.waiting.load(Ordering::SeqCst) == 0 {
            assert!(began.elapsed() < std::time::Duration::from_secs(30), "nobody syncs");
            std::thread::yield_now();
        }
    }

    fn take_away(&self) {
        if let Some(path) = self.unreadable.lock().unwrap().take() {
            make_unreadable(&path);
        }
    }

    fn room(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(Error::from(ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        if let Err(error) = self.1.room() {
            // Half of it gets through, as a real disk may do.
            self.0.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        if self.2 {
            self.1.writes_waiting.fetch_add(1, Ordering::SeqCst);
            drop(self.1.let_go.wait_while(self.1.writes_held.lock().unwrap(), |held| *held).unwrap());
            self.1.writes_waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.1.writes.fetch_add(u64::from(self.2), Ordering::SeqCst);
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.1.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.1.let_go.wait_while(self.1.held.lock().unwrap(), |held| *held).unwrap());
        self.1.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.1.no_sync.load(Ordering::SeqCst) { Err(Error::other("the disk is gone")) } else { self.0.sync() }
    }
    fn truncate(&self, length: u64) -> std::io::Result<()> {
        self.0.truncate(length)
    }
}

/// Opening a link to itself fails, as opening anything does for want of descriptors. [`make_readable`] puts the file back.
pub(crate) fn make_unreadable(path: &Path) {
    std::fs::rename(path, path.with_extension("aside")).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
}

pub(crate) fn make_readable(path: &Path) {
    std::fs::rename(path.with_extension("aside"), path).unwrap();
}

fn holds_records(path: &Path) -> bool {
    path.extension().is_none_or(|extension| extension != "durable")
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, mode: u32) -> std::io::Result<Arc<dyn DiskFile>> {
        self.0.room()?;
        if self.0.no_new.load(Ordering::SeqCst) {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        self.0.take_away();
        Ok(Arc::new(FaultyFile(RealDisk.create(path, mode)?, Arc::clone(&self.0), holds_records(path))))
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(RealDisk.open(path)?, Arc::clone(&self.0), holds_records(path))))
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove(path)
    }
    fn open_dir(&self, dir: &Path) -> std::io::Result<Arc<dyn DiskDir>> {
        RealDisk.open_dir(dir)
    }
}

pub(crate) fn small(dir: &Path) -> WalOptions {
    let mut options = WalOptions::new(dir, "test");
    options.segment_bytes = 4096;
    options.max_bytes = 1024 * 1024;
    options
}

pub(crate) fn event(n: u64) -> SourceEvent {
    SourceEvent::new("events.process.start", 1_000 + i64::try_from(n).unwrap(), format!("payload {n}").into_bytes())
}

pub(crate) fn events(range: std::ops::Range<u64>) -> Vec<SourceEvent> {
    range.map(event).collect()
}

pub(crate) fn all(wal: &Wal) -> Vec<Record> {
    wal.replay_from(None).unwrap().map(Result::unwrap).collect()
}

pub(crate) fn payloads(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .filter(|r| r.topic == "events.process.start")
        .map(|r| String::from_utf8(r.payload.to_vec()).unwrap())
        .collect()
}

pub(crate) fn gaps(records: &[Record]) -> Vec<CoverageGap> {
    let gaps = records.iter().filter(|r| r.topic == "events.collector.test");
    gaps.map(|r| CoverageGap::decode(r.payload.clone()).unwrap()).collect()
}

/// Waits for a condition; only a test that fails waits for a minute.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
