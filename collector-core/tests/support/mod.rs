//! A disk that can be full or refuse to sync, and small shortcuts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "test support; each test file uses its own part"
)]

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use collector_core::wal::{Wal, WalOptions};
use collector_core::{Disk, DiskFile, RealDisk, SourceEvent};
use daemoneye_lib::proto::{CoverageGap, Record};
use prost::Message as _;

#[derive(Default)]
pub struct Faults {
    pub full: AtomicBool,
    pub no_sync: AtomicBool,
    held: Mutex<bool>,
    let_go: Condvar,
    pub writes: AtomicU64,
}

pub struct FaultyDisk(pub Arc<Faults>);

struct FaultyFile(Arc<dyn DiskFile>, Arc<Faults>);

impl Faults {
    /// While held, syncs wait.
    pub fn hold_syncs(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.let_go.notify_all();
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
        self.1.writes.fetch_add(1, Ordering::SeqCst);
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> std::io::Result<()> {
        drop(self.1.let_go.wait_while(self.1.held.lock().unwrap(), |held| *held).unwrap());
        if self.1.no_sync.load(Ordering::SeqCst) { Err(Error::other("the disk is gone")) } else { self.0.sync() }
    }
    fn truncate(&self, length: u64) -> std::io::Result<()> {
        self.0.truncate(length)
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, mode: u32) -> std::io::Result<Arc<dyn DiskFile>> {
        self.0.room()?;
        Ok(Arc::new(FaultyFile(RealDisk.create(path, mode)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(RealDisk.open(path)?, Arc::clone(&self.0))))
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

pub fn small(dir: &Path) -> WalOptions {
    let mut options = WalOptions::new(dir, "test");
    options.segment_bytes = 4096;
    options.max_bytes = 1024 * 1024;
    options
}

pub fn event(n: u64) -> SourceEvent {
    SourceEvent::new("events.process.start", 1_000 + i64::try_from(n).unwrap(), format!("payload {n}").into_bytes())
}

pub fn events(range: std::ops::Range<u64>) -> Vec<SourceEvent> {
    range.map(event).collect()
}

pub fn all(wal: &Wal) -> Vec<Record> {
    wal.replay_from(None).unwrap().map(Result::unwrap).collect()
}

pub fn payloads(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .filter(|r| r.topic == "events.process.start")
        .map(|r| String::from_utf8(r.payload.to_vec()).unwrap())
        .collect()
}

pub fn gaps(records: &[Record]) -> Vec<CoverageGap> {
    let gaps = records.iter().filter(|r| r.topic == "events.collector.test");
    gaps.map(|r| CoverageGap::decode(r.payload.clone()).unwrap()).collect()
}

/// Waits for a condition, at most ten seconds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
