//! What survives: `state.redb` (small and transactional: what is true) and `segments/*.parquet` (history).
//!
//! One writer, guarded by `agent.lock`. An event is in exactly one place at any instant: in the open segment in memory, in
//! the segment that is being sealed, or in a registered file. A file counts only once a transaction has registered it, and
//! that transaction moves the collector's watermark too, so a crash at any point leaves each event stored once or still in
//! the collector's write-ahead log. Alerts have ids derived from their cause, so finding the same match again changes
//! nothing. Calls block on the disk: do not make them from an async task.

mod alert;
mod audit;
mod backup;
mod clock;
mod commit;
mod compact;
mod copied;
mod counts;
mod coverage;
mod crowd;
mod damage;
mod dated;
mod disk;
mod encode;
mod error;
#[cfg(test)]
mod faults;
mod figures;
pub(crate) mod file;
mod folded;
mod forget;
mod fsck;
mod growth;
mod hash;
mod held;
mod history;
mod leaving;
mod ledgers;
mod lifetimes;
mod live;
mod living;
mod matches;
mod migrate;
mod offline;
mod open;
mod outbox;
mod overlay;
mod owed;
mod past;
mod proven;
pub(crate) mod reason;
mod recover;
mod retention;
mod rules;
mod seal;
mod segment;
mod state;
mod state_view;
mod stats;
mod strays;
mod system;
mod tail;
mod unreceived;
mod value;
mod verify;
mod versions;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use alert::AlertFilter;
pub use backup::{Backup, BackupFile};
pub use commit::HiddenCount;
pub use compact::{Compacted, CompactionState, LevelState, RunningMerge, Vacuumed};
pub use coverage::CoverageRow;
pub use dated::Dated;
pub(crate) use encode::has_order;
pub use error::StoreError;
pub use figures::{ColumnFigures, LevelFigures, Outlook, StoreFigures};
pub use folded::Folded;
pub use forget::TakenAlerts;
pub use fsck::{Fsck, OnProgress, Problem};
pub use held::Appended;
pub use history::HistoryTable;
pub use ledgers::{LedgerFall, LedgerMark};
pub use living::{Living, OpenLifetimes};
pub use matches::{Answer, HiddenMatch, RuleMatch};
pub use outbox::{Delivery, DeliveryState, Due, OutboxStats};
pub use past::PastRead;
pub use proven::{Missing, OlderRow, Proven, Removal, Restored, Uncovered, Why};
pub use retention::Expired;
pub use segment::{DamagedSegment, SegmentFile, SequenceRange, Snapshot};
pub use state_view::{AlertRow, Rows, StateView, Thinned};
pub use stats::StoreStats;
pub(crate) use tail::{WAL_DIR, collectors};
pub use verify::Verification;
pub use versions::{KeptList, RuleText};

/// Version of everything in `state.redb`; a newer one is refused, an older one migrated.
pub const FORMAT_VERSION: u32 = 4;

/// Where a collector that shares the data directory writes the ledger.
const LEDGER_DIR: &str = "audit";

/// Entries that wait for the ledger while procmond is away: some 50 MB, and days of a quiet host.
const AUDIT_ENTRIES: u64 = 100_000;

/// A month of a quiet host, some three days of one with 200 events a second.
const RETENTION_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Some 90,000 alerts: as many as the rate limit lets through in a quarter of an hour, three times as long as repeats are folded.
const ALERT_BYTES: u64 = 256 * 1024 * 1024;

/// An hour with 200 events a second is merged in some five seconds; a tenth of what a slow disk can do.
const COMPACTION_BYTES_PER_S: u64 = 16 * 1024 * 1024;

/// Where the store lies and how much it may hold.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The data directory.
    pub dir: PathBuf,
    /// Where the ledger lies; [`Store::ledger_lies_in`] tells better later.
    pub ledger: PathBuf,
    /// Rows after which the open segment is due.
    pub seal_rows: usize,
    /// Bytes in memory after which the open segment is due.
    pub seal_bytes: usize,
    /// Age after which the open segment is due.
    pub seal_after: Duration,
    /// Age at which whole segments are removed.
    pub retention: Duration,
    /// Bytes of all segments above which the oldest are removed.
    pub retention_bytes: u64,
    /// Bytes of all alerts above which the oldest are removed.
    pub alert_bytes: u64,
    /// Bytes that compaction may read and write in a second; 0: as many as it can.
    pub compaction_bytes_per_s: u64,
    /// Sinks that get an outbox row per alert.
    pub sinks: Vec<String>,
    /// Host name, for alerts.
    pub host: String,
    /// Seconds during which repeats raise the count of an alert, for rules that name none (0).
    pub dedup_window_s: u32,
    /// New alerts per rule and minute of event time; the excess is folded.
    pub rate_per_rule: u32,
    /// New alerts of all rules per minute of event time; the excess is folded.
    pub rate_total: u32,
    /// How long a sink may fail before an alert becomes a dead letter for it.
    pub dead_after: Duration,
    /// Entries that may wait for the ledger; further ones are counted and not kept.
    pub audit_entries: u64,
}

impl StoreOptions {
    /// The defaults of the agent, for the data directory `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            ledger: dir.join(LEDGER_DIR),
            dir,
            seal_rows: 16_384,
            seal_bytes: 8 * 1024 * 1024,
            seal_after: Duration::from_secs(60),
            retention: Duration::from_secs(30 * 86_400),
            retention_bytes: RETENTION_BYTES,
            alert_bytes: ALERT_BYTES,
            compaction_bytes_per_s: COMPACTION_BYTES_PER_S,
            sinks: Vec::new(),
            host: String::new(),
            dedup_window_s: 300,
            rate_per_rule: 600,
            rate_total: 6_000,
            dead_after: Duration::from_secs(86_400),
            audit_entries: AUDIT_ENTRIES,
        }
    }
}

/// The store of one data directory. Shared behind an `Arc`; every call takes `&self`.
#[derive(Debug)]
pub struct Store {
    options: StoreOptions,
    /// Read here, never written: what retention cuts and what a comparison is made with.
    ledger: Mutex<PathBuf>,
    state: state::State,
    disk: Arc<dyn disk::Disk>,
    held: RwLock<held::Held>,
    /// One change of the list of segments at a time; held across the file work so that `held` need not be.
    sealing: Mutex<()>,
    compaction: compact::Compaction,
    clock: clock::Clock,
    /// What the limits of alerts held back since it was opened.
    folded: Mutex<folded::Counts>,
    /// It was opened on a disk without room: what a start has to do is still to be done.
    unsettled: AtomicBool,
    /// There was no database when it was opened.
    begins: bool,
    /// Of an offline store: the last instant of which it knows something, µs since the Unix epoch.
    ends_us: Option<i64>,
    /// The lock on `agent.lock`; `None` for an offline store, which writes no file.
    _lock: Option<File>,
}

impl Store {
    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Where the ledger's files lie.
    #[must_use]
    pub fn ledger_dir(&self) -> PathBuf {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on: its writer says so.
    pub fn ledger_lies_in(&self, dir: PathBuf) {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner) = dir;
    }
}
