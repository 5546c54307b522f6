//! The write-ahead log of a collector.
//!
//! A record is in the WAL before anybody sees it, and it stays there until the agent has committed it and a ledger entry covers
//! it. Appends are one write per batch; a thread of its own syncs what has gathered, at most
//! [`GROUP_SYNC`] after the first of it, at once for whoever waits. A failed sync is final. The format stands in [`daemoneye_lib::segment`].
//!
//! Nothing waits for room: what does not fit on the disk, or falls to the total bound, is counted and told by a record on
//! `events.collector.{id}` that holds a [`CoverageGap`].

mod append;
mod cursor;
mod losses;
mod recent;
mod recovery;
mod sync;
mod trim;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use cursor::{Cursor, Replay};
use daemoneye_lib::ledger::{EventRange, RangeBuilder};
use daemoneye_lib::proto::{CoverageGap, Sequence};
pub use daemoneye_lib::segment::DirReader;
use daemoneye_lib::segment::{Kind, SegmentName};
pub(crate) use losses::Losses;
use recent::Recent;
use tokio::sync::watch;

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::error::CollectorError;
use crate::lock::DirLock;
use crate::platform;
use crate::writer::{LogOptions, SegmentLog, SyncNote};

/// Longest time between an append and its sync: what a power failure may cost.
pub const GROUP_SYNC: Duration = Duration::from_millis(10);

/// Rounds of telling at the end of a run.
const LAST_WORDS: usize = 8;

/// Reasons of the coverage gaps that a WAL tells; part of the closed list in docs/formats.md.
pub mod reason {
    /// The total bound was reached before the agent committed.
    pub const BOUND: &str = "wal_bound";
    /// A synced record could not be read back.
    pub const CORRUPT: &str = "wal_corrupt";
    /// There was no room on the disk, or it refused the write.
    pub const DISK: &str = "wal_disk";
    /// An event was larger than a record may be.
    pub const OVERSIZE: &str = "wal_oversize";
}

/// When a record is durable and when it may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Published only when synced.
    Always,
    /// Published at once, synced within [`GROUP_SYNC`].
    #[default]
    Group,
    /// Never synced; the operating system decides.
    Never,
}

impl std::str::FromStr for SyncMode {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        match text {
            "always" => Ok(Self::Always),
            "group" => Ok(Self::Group),
            "never" => Ok(Self::Never),
            other => Err(CollectorError::MisuseOptions(format!("sync mode {other:?} is not always, group or never"))),
        }
    }
}

/// How a WAL is set up.
#[derive(Clone)]
pub struct WalOptions {
    /// Created 0700 when it does not exist.
    pub dir: PathBuf,
    /// Collector id; also the prefix of the files.
    pub prefix: String,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of all segments together.
    pub max_bytes: u64,
    /// When to sync.
    pub sync: SyncMode,
    /// The disk; [`RealDisk`] outside tests.
    pub disk: Arc<dyn Disk>,
}

impl WalOptions {
    /// The defaults: 16 MiB segments, 1 GiB in all, group sync.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, prefix: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            prefix: prefix.into(),
            segment_bytes: 16 * 1024 * 1024,
            max_bytes: 1024 * 1024 * 1024,
            sync: SyncMode::Group,
            disk: Arc::new(RealDisk),
        }
    }

    fn log(&self) -> Result<LogOptions, CollectorError> {
        let directory = self.disk.open_dir(&self.dir).map_err(|e| CollectorError::io("open", &self.dir, e))?;
        Ok(LogOptions {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            directory,
            name: SegmentName::wal(&self.prefix),
            kind: Kind::Wal,
            mode: 0o600,
            segment_bytes: self.segment_bytes,
        })
    }

    fn remove(&self, path: &Path) -> Result<(), CollectorError> {
        self.disk.remove(path).map_err(|e| CollectorError::io("remove", path, e))
    }
}

/// What was found when the WAL was opened.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The epoch of this run.
    pub epoch: u64,
    /// Last record of earlier runs.
    pub last: Option<Sequence>,
    /// When that was, in µs since the Unix epoch.
    pub last_us: Option<i64>,
    /// Records of earlier runs that can be replayed.
    pub records: u64,
    /// What earlier runs wrote and can no longer be read; each one is also a record of this run.
    pub gaps: Vec<CoverageGap>,
    /// Bytes of a torn tail that were cut; nothing in them was promised.
    pub torn_bytes: u64,
    /// Damaged segments that were kept aside.
    pub corrupt: Vec<PathBuf>,
}

/// Where the WAL stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Last record written.
    pub written: Option<Sequence>,
    /// Last record that is synced.
    pub durable: Option<Sequence>,
    /// Last record that may be published.
    pub visible: Option<Sequence>,
    /// Why the WAL takes nothing more: a sync failed.
    pub failed: Option<String>,
}

/// Counters for health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes on disk, spare excluded.
    pub bytes: u64,
    /// Segment files, spare excluded.
    pub segments: u64,
    /// Records appended in this run.
    pub appended: u64,
    /// The last one of them, or else the last one that a start found.
    pub written: Option<Sequence>,
    /// Events that could not be written or fell to the bound.
    pub lost: u64,
    /// Times the next segment was not ready.
    pub unprepared: u64,
    /// First record that is still there minus one: everything up to it is gone.
    pub trimmed: Option<Sequence>,
}

/// One segment that holds records.
#[derive(Debug, Clone)]
struct Segment {
    number: u64,
    path: PathBuf,
    first: Option<Sequence>,
    last: Option<Sequence>,
    /// Time of the first and last record, µs since the Unix epoch.
    time_us: (i64, i64),
    records: u64,
    /// Bytes on disk.
    bytes: u64,
    /// Record bytes in all segments before this one, so that a position in the stream is one number.
    base: u64,
}

impl Segment {
    /// One that holds nothing yet.
    fn begun(log: &SegmentLog, bytes: u64, base: u64) -> Self {
        let (number, path) = (log.number(), log.path());
        Self { number, path, first: None, last: None, time_us: (0, 0), records: 0, bytes, base }
    }
}

struct Loss {
    reason: &'static str,
    count: u64,
    from_us: i64,
    to_us: i64,
}

struct Inner {
    log: SegmentLog,
    epoch: u64,
    next: u64,
    /// Oldest first; the last one is the one that is written.
    segments: VecDeque<Segment>,
    /// Closed but not yet synced.
    unsynced: Vec<Arc<dyn DiskFile>>,
    ranges: RangeBuilder,
    /// For whoever has read everything else.
    recent: Recent,
    losses: Vec<Loss>,
    /// Dropped segments whose gap has not been written yet.
    gaps: Vec<CoverageGap>,
    /// Files of dropped segments that are still there.
    condemned: Vec<trim::Condemned>,
    appended: u64,
    written: Option<Sequence>,
    lost: u64,
    /// What of it, and of what reading found, is still to be told to the ledger.
    untold: Losses,
    /// When it was last said that the disk takes nothing.
    complained: Option<Instant>,
    /// Records up to this number that could not be read back are told.
    missed_upto: u64,
    trimmed: Option<Sequence>,
}

/// What is asked and told while somebody appends: `Inner` is held while the disk writes, which may take for ever. It is taken for a
/// few loads and stores alone, by whoever holds `Inner` too.
#[derive(Default)]
struct Shown {
    stats: WalStats,
    /// Where the next record will be written, as a byte position in the whole stream.
    end: u64,
    /// What the agent has.
    committed: Option<Sequence>,
}

struct Shared {
    options: WalOptions,
    topic: String,
    inner: Mutex<Inner>,
    shown: Mutex<Shown>,
    progress: watch::Sender<Progress>,
    wishes: sync::Wishes,
    note: Option<SyncNote>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committed(&self) -> Option<Sequence> {
        self.shown().committed
    }

    /// After whatever changes it.
    fn show(&self, inner: &Inner) {
        let (stats, end) = (inner.stats(), inner.end());
        let mut shown = self.shown();
        (shown.stats, shown.end) = (stats, end);
    }
}

impl Inner {
    fn stats(&self) -> WalStats {
        WalStats {
            bytes: self.segments.iter().map(|s| s.bytes).sum(),
            segments: self.segments.len() as u64,
            appended: self.appended,
            written: self.written,
            lost: self.lost,
            unprepared: self.log.unprepared,
            trimmed: self.trimmed,
        }
    }
}

/// An open WAL. Every call is a short system call or two; from async code it belongs on a blocking thread.
pub struct Wal {
    shared: Arc<Shared>,
    syncer: Option<sync::Syncer>,
    /// Shared with the syncing thread, which may outlive this when the disk hangs.
    lock: Arc<DirLock>,
}

/// Reads a WAL while it is written; clones share nothing but the log.
#[derive(Clone)]
pub struct WalReader {
    shared: Arc<Shared>,
}

impl Wal {
    /// Opens or creates the WAL, repairs its tail and begins a new epoch.
    ///
    /// # Errors
    /// [`CollectorError`]: the directory is in use, of a newer version, or cannot be written.
    pub fn open(options: WalOptions) -> Result<(Self, Recovered), CollectorError> {
        let dir = options.dir.clone();
        platform::create_dir(&dir, 0o700).map_err(|e| CollectorError::io("create", &dir, e))?;
        let lock = DirLock::take(&dir, 0o600)?;
        let log = options.log()?;
        let note = SyncNote::open(&log);
        let (inner, recovered, repaired) = recovery::recover(&options, log)?;
        let progress =
            Progress { written: recovered.last, durable: recovered.last, visible: recovered.last, failed: None };
        let topic = daemoneye_lib::topic::Topic::CollectorEvents(options.prefix.clone()).to_string();
        let sync = options.sync;
        let progress = watch::Sender::new(progress);
        let shared = Arc::new(Shared {
            options,
            topic,
            shown: Mutex::default(),
            inner: Mutex::new(inner),
            progress,
            wishes: sync::Wishes::default(),
            note,
        });
        shared.show(&shared.lock());
        let mut wal = Self { shared, syncer: None, lock: Arc::new(lock) };
        wal.settle_recovery(&recovered, repaired)?;
        if sync != SyncMode::Never {
            wal.syncer = Some(sync::Syncer::start(Arc::clone(&wal.shared), Arc::clone(&wal.lock))?);
        }
        Ok((wal, recovered))
    }

    /// What fell to the bound is told, and then its files go: the next start would take them for records that nobody has.
    fn say_the_last_word(&self) {
        // The word may itself need a new segment, for which another one falls. More than this falls only on a disk that takes nothing.
        for _ in 0..LAST_WORDS {
            let said = |inner: MutexGuard<'_, Inner>| {
                inner.condemned.is_empty() && inner.gaps.is_empty() && inner.losses.is_empty()
            };
            if self.shared.inner.try_lock().is_ok_and(said) {
                return;
            }
            Inner::tell_again(&self.shared);
            if self.append(&[]).is_err() {
                return;
            }
            if self.shared.options.sync != SyncMode::Never && !sync::sync_once(&self.shared) {
                return;
            }
        }
    }

    /// What is missing is told on disk before the traces of the damage go, so that no crash in between hides it.
    fn settle_recovery(&self, recovered: &Recovered, repaired: Vec<recovery::Repaired>) -> Result<(), CollectorError> {
        if !recovered.gaps.is_empty() {
            self.append(&[])?;
            sync::sync_once(&self.shared);
            self.check()?;
        }
        let (told, settled, directory) = {
            let inner = self.shared.lock();
            (inner.gaps.is_empty(), inner.next - 1, inner.log.directory())
        };
        // On a full disk the damage stays as it is for the next start.
        if told {
            recovery::replace(&self.shared.options, directory.as_ref(), repaired)?;
            if let Some(note) = &self.shared.note {
                note.write(recovered.epoch, settled);
            }
        }
        Ok(())
    }

    /// A reader of this WAL.
    #[must_use]
    pub fn reader(&self) -> WalReader {
        WalReader { shared: Arc::clone(&self.shared) }
    }

    /// Changes of [`Progress`].
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Counters. Never waits for an append.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        self.shared.shown().stats
    }

    /// What has been appended since the last call, for `event-range` entries of the ledger. Waits for an append.
    #[must_use]
    pub fn take_ranges(&self) -> Vec<EventRange> {
        self.shared.lock().ranges.take()
    }

    /// What was lost since the last call, for the ledger. Waits for an append.
    pub(crate) fn take_losses(&self) -> Losses {
        std::mem::take(&mut self.shared.lock().untold)
    }

    /// The failure that ended this WAL, if there is one.
    ///
    /// # Errors
    /// [`CollectorError::SyncFailed`].
    pub fn check(&self) -> Result<(), CollectorError> {
        match &self.shared.progress.borrow().failed {
            Some(message) => {
                Err(CollectorError::SyncFailed { path: self.shared.options.dir.clone(), message: message.clone() })
            }
            None => Ok(()),
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Its thread syncs once more before it ends. One that does not end has a disk that hangs: the next start finds what is there.
        if self.syncer.take().is_none_or(sync::Syncer::end) {
            self.say_the_last_word();
        }
    }
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
