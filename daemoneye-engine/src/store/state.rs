//! The tables of `state.redb`, and the only door to its transactions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use daemoneye_lib::model::{DetectionRule, ScanMetadata, SystemInfo};
use daemoneye_lib::proto::Sequence;
use redb::{
    Builder, CompactionError, Database, DatabaseError, Durability, Key, ReadTransaction, StorageError,
    TableDefinition, Value, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::alert::StoredAlert;
use super::audit::AuditRow;
use super::copied::Copied;
use super::coverage::StoredGap;
use super::disk::Disk;
use super::leaving::LeavingRow;
use super::ledgers::LedgerRow;
use super::live::Lifetime;
use super::outbox::DeliveryRow;
use super::owed::Owed;
use super::segment::SegmentRow;
use super::value::{Record, Stored};
use super::versions::{KeptList, RuleText};
use super::{FORMAT_VERSION, StoreError, crowd, damage, migrate};

/// redb's page cache. Its default of 1 GiB is the whole memory budget of the agent ten times over.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// How long `compact` waits for those who read: they take milliseconds.
const COMPACT_WAIT: Duration = Duration::from_secs(2);
const COMPACT_POLL: Duration = Duration::from_millis(10);
pub(super) const FORMAT_KEY: &str = "format_version";

// Ids are big-endian u128, so that their order is the order of their bytes.
pub(super) const META: TableDefinition<'_, &str, Stored<u64>> = TableDefinition::new("meta");
pub(super) const SEGMENTS: TableDefinition<'_, (&str, i64, u64), Stored<SegmentRow>> =
    TableDefinition::new("segments");
/// Number of a segment that is not listed any more and whose file may still lie on the disk.
pub(super) const LEAVING: TableDefinition<'_, u64, Stored<LeavingRow>> = TableDefinition::new("segments_leaving");
pub(super) const WATERMARKS: TableDefinition<'_, &str, Stored<Position>> = TableDefinition::new("watermarks");
pub(super) const LIFETIMES: TableDefinition<'_, u128, Stored<Lifetime>> =
    TableDefinition::new("process_lifetimes_open");
pub(super) const RULES: TableDefinition<'_, u128, Stored<DetectionRule>> = TableDefinition::new("detection_rules");
/// (rule, version)
pub(super) const RULE_VERSIONS: TableDefinition<'_, (u128, u32), Stored<RuleText>> =
    TableDefinition::new("rule_versions");
pub(super) const RULE_LISTS: TableDefinition<'_, &str, Stored<KeptList>> = TableDefinition::new("rule_lists");
pub(super) const ALERTS: TableDefinition<'_, u128, Stored<StoredAlert>> = TableDefinition::new("alerts");
/// (status, time, id)
pub(super) const ALERTS_BY_STATUS: TableDefinition<'_, (u8, i64, u128), ()> = TableDefinition::new("alerts_by_status");
/// (hash of the deduplication key, first seen) → id
pub(super) const ALERTS_BY_KEY: TableDefinition<'_, (u128, i64), u128> = TableDefinition::new("alerts_by_key");
/// (rule, or 0 for all; minute of event time) → new alerts
pub(super) const RATES: TableDefinition<'_, (u128, i64), Stored<u64>> = TableDefinition::new("alert_rates");
pub(super) const DELIVERIES: TableDefinition<'_, (&str, u128), Stored<DeliveryRow>> =
    TableDefinition::new("alert_deliveries");
/// (sink, state as [`super::counts`] numbers it) → deliveries
pub(super) const DELIVERY_COUNTS: TableDefinition<'_, (&str, u8), Stored<u64>> =
    TableDefinition::new("alert_delivery_counts");
/// (sink, next try in µs, order) → alert id
pub(super) const DUE: TableDefinition<'_, (&str, i64, u64), u128> = TableDefinition::new("alert_deliveries_due");
pub(super) const AUDIT: TableDefinition<'_, u64, Stored<AuditRow>> = TableDefinition::new("audit_outbox");
/// collector → how far its ledger had come
pub(super) const LEDGERS: TableDefinition<'_, &str, Stored<LedgerRow>> = TableDefinition::new("ledgers");
/// Alerts that have grown since the ledger was told of them.
pub(super) const GROWN: TableDefinition<'_, u128, ()> = TableDefinition::new("alerts_grown");
/// cause of a removal → what the outbox had no room for
pub(super) const OWED: TableDefinition<'_, &str, Stored<Owed>> = TableDefinition::new("audit_owed");
pub(super) const SYSTEM: TableDefinition<'_, u64, Stored<SystemInfo>> = TableDefinition::new("system_info");
pub(super) const SCANS: TableDefinition<'_, u64, Stored<ScanMetadata>> = TableDefinition::new("scan_metadata");
pub(super) const COVERAGE: TableDefinition<'_, (i64, u64), Stored<StoredGap>> = TableDefinition::new("coverage");
/// (collector, reason) → key of the newest gap of that kind, which the next one may extend.
pub(super) const COVERAGE_NEWEST: TableDefinition<'_, (&str, &str), (i64, u64)> =
    TableDefinition::new("coverage_newest");

/// (collector, epoch, number) of an event that retention took → its leaf, as long as other events of its range are there
pub(super) const RANGE_LEAVES: TableDefinition<'_, (&str, u64, u64), [u8; 32]> = TableDefinition::new("range_leaves");

/// Calls a function with every table, so that none is forgotten by what must see all of them; the arguments come first.
macro_rules! every_table {
    ($each:path, $($argument:expr),+) => {{
        use $crate::store::state;
        every_table!(
            $each, ($($argument),+),
            META SEGMENTS LEAVING WATERMARKS LIFETIMES RULES RULE_VERSIONS RULE_LISTS ALERTS ALERTS_BY_STATUS ALERTS_BY_KEY RATES DELIVERIES DELIVERY_COUNTS DUE
            AUDIT LEDGERS OWED GROWN SYSTEM SCANS COVERAGE COVERAGE_NEWEST RANGE_LEAVES
        );
    }};
    ($each:path, $arguments:tt, $($table:ident)+) => { $( every_table!(@ $each, $arguments, state::$table); )+ };
    (@ $each:path, ($($argument:expr),+), $table:path) => { $each($($argument),+, $table)?; };
}
pub(super) use every_table;

/// A stream position as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    epoch: u64,
    number: u64,
}

impl From<Sequence> for Position {
    fn from(at: Sequence) -> Self {
        Self { epoch: at.epoch, number: at.number }
    }
}

impl From<Position> for Sequence {
    fn from(at: Position) -> Self {
        Self::new(at.epoch, at.number)
    }
}

impl Record for u64 {
    const NAME: &'static str = "counter";
}
impl Record for Position {
    const NAME: &'static str = "watermarks";
}
impl Record for DetectionRule {
    const NAME: &'static str = "detection_rules";
}
impl Record for SystemInfo {
    const NAME: &'static str = "system_info";
}
impl Record for ScanMetadata {
    const NAME: &'static str = "scan_metadata";
}

/// The open database. Offline it lies in memory and takes no changes.
#[derive(Debug)]
pub(super) struct State {
    copied: Copied,
    /// `None` after it was closed because of an error and could not be opened again yet.
    db: RwLock<Option<Database>>,
    offline: bool,
    in_doubt: AtomicBool,
    /// It is an overlay of a file that could not be opened for want of room.
    aside: AtomicBool,
}

/// How every database is opened.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl State {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        Self::of(disk.database(path), path)
    }

    pub(super) fn create(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        Self::of(disk.new_database(path), path)
    }

    /// A database over another backend than a file; `path` is what errors name.
    pub(super) fn over(backend: impl redb::StorageBackend, path: &Path) -> Result<Self, StoreError> {
        Self::of(builder().create_with_backend(backend), path)
    }

    /// What is stored, to be read until [`State::reopen`] finds room for the file itself; nothing can be written.
    pub(super) fn aside(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        let state = Self::over(disk.overlay(path).map_err(StoreError::unreadable(path))?, path)?;
        Ok(Self { in_doubt: AtomicBool::new(true), aside: AtomicBool::new(true), ..state })
    }

    /// Every way to a database, also the one back to it after a failure, leads through the check of all its pages: a commit
    /// over damaged lists of free pages ends the process, and after a failed write damage is likelier than ever. Half a GiB,
    /// which is 100,000 alerts and 50,000 open lifetimes, takes half a second of CPU and two seconds from a slow disk; a
    /// usual state of some MiB takes a tenth of that.
    fn of(opened: Result<Database, DatabaseError>, path: &Path) -> Result<Self, StoreError> {
        let mut db = opened.map_err(|error| refused(path, error))?;
        if !db.check_integrity().map_err(|error| StoreError::IoState(Box::new(error.into())))? {
            tracing::warn!("state.redb was left in the middle of a change; its last whole state is read");
        }
        let (in_doubt, aside) = (AtomicBool::new(false), AtomicBool::new(false));
        let state = Self { copied: Copied::default(), db: RwLock::new(Some(db)), offline: false, in_doubt, aside };
        state.prepare(path)?;
        Ok(state)
    }

    /// The lock for writing, without waiting in its queue, where those who read twice would wait behind this.
    fn alone(&self) -> Result<RwLockWriteGuard<'_, Option<Database>>, StoreError> {
        let deadline = Instant::now() + COMPACT_WAIT;
        loop {
            match self.db.try_write() {
                Ok(db) => return Ok(db),
                Err(TryLockError::Poisoned(_)) => return Err(StoreError::LockPoisoned),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(closed()),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(COMPACT_POLL),
            }
        }
    }

    /// Closes the file and opens it again, which is what ends a latched error; whoever reads meanwhile gets an error. When it does
    /// not open, `aside` answers what is stored until it does. It stays in doubt until [`State::trust`].
    pub(super) fn reopen(
        &self,
        open: impl FnOnce() -> Result<Self, StoreError>,
        aside: impl FnOnce() -> Result<Self, StoreError>,
    ) -> Result<(), StoreError> {
        let mut db = self.alone()?;
        self.copied.let_go();
        // An overlay goes on answering until the file is open; a file has to be closed first.
        if !self.aside.load(Ordering::SeqCst) {
            drop(db.take());
        }
        match open() {
            Ok(opened) => {
                *db = opened.db.into_inner().map_err(|_| StoreError::LockPoisoned)?;
                self.aside.store(false, Ordering::SeqCst);
            }
            Err(error) => {
                if db.is_none()
                    && let Ok(overlay) = aside()
                {
                    *db = overlay.db.into_inner().map_err(|_| StoreError::LockPoisoned)?;
                    self.aside.store(true, Ordering::SeqCst);
                }
                return Err(error);
            }
        }
        drop(db);
        self.walk()
    }

    /// The same, taking no changes any more.
    pub(super) fn offline(self) -> Self {
        Self { offline: true, ..self }
    }

    /// Follows every table from end to end, so that a file which is damaged inside is known before anybody relies on it.
    pub(super) fn walk(&self) -> Result<(), StoreError> {
        let transaction = self.read()?;
        every_table!(walk, &transaction);
        Ok(())
    }

    fn database(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, StoreError> {
        self.db.read().map_err(|_| StoreError::LockPoisoned)
    }

    /// Makes the file as small as it can be. False when it stayed because it was being read for all of [`COMPACT_WAIT`].
    pub(super) fn compact(&self) -> Result<bool, StoreError> {
        self.check()?;
        let deadline = Instant::now() + COMPACT_WAIT;
        loop {
            // Without waiting in the lock's queue, where those who read twice would wait behind it.
            let compacted = self.db.try_write().ok().and_then(|mut db| {
                self.copied.let_go();
                db.as_mut().map(Database::compact)
            });
            match compacted {
                Some(Ok(_)) => return Ok(true),
                Some(Err(CompactionError::Storage(error))) => {
                    let error = StoreError::from(error);
                    self.doubt(&error);
                    return Err(error);
                }
                _ if Instant::now() >= deadline => return Ok(false),
                _ => std::thread::park_timeout(COMPACT_POLL),
            }
        }
    }

    pub(super) const fn is_offline(&self) -> bool {
        self.offline
    }

    /// Whether it failed, so that only opening it again can tell what is on disk.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// Takes note of a failure.
    pub(super) fn doubt(&self, error: &StoreError) {
        if matches!(error, StoreError::IoState(_)) {
            self.in_doubt.store(true, Ordering::SeqCst);
        }
    }

    /// Nothing is written until it was opened again.
    pub(super) fn doubt_all(&self) {
        self.in_doubt.store(true, Ordering::SeqCst);
    }

    /// What was in doubt is settled.
    pub(super) fn trust(&self) {
        self.in_doubt.store(false, Ordering::SeqCst);
    }

    pub(super) fn read(&self) -> Result<ReadTransaction, StoreError> {
        use redb::ReadableDatabase as _;
        Ok(self.database()?.as_ref().ok_or_else(closed)?.begin_read()?)
    }

    /// Refuses once it has failed: whether the last change happened is not known, so nothing may be built on either answer.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_in_doubt() { Err(closed()) } else { Ok(()) }
    }

    /// Runs `change` in one transaction that is on disk when this returns; nothing of it happens when it fails.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.offline {
            return Err(StoreError::MisuseOffline);
        }
        self.check()?;
        let written = self.written(change);
        written.inspect_err(|error| self.doubt(error))
    }

    fn written<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        use redb::ReadableDatabase as _;
        let db = self.database()?;
        let db = db.as_ref().ok_or_else(closed)?;
        if !self.offline {
            self.copied.keep(|| Ok(db.begin_read()?))?;
        }
        let mut transaction = db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // Without it, opening the file after a kill walks all of it.
        transaction.set_quick_repair(true);
        match change(&transaction) {
            Ok(result) => {
                transaction.commit()?;
                Ok(result)
            }
            Err(error) => {
                transaction.abort()?;
                Err(error)
            }
        }
    }

    /// Refuses what a newer build wrote, before anything is changed; then makes sure that every table exists and holds what
    /// this version expects in it.
    fn prepare(&self, path: &Path) -> Result<(), StoreError> {
        self.write(|transaction| {
            let found = check_version(transaction, path)?;
            every_table!(make, transaction);
            migrate::from(transaction, found)?;
            crowd::settle(transaction)
        })
    }

    /// The watermark of every collector.
    pub(super) fn watermarks(&self) -> Result<BTreeMap<String, Sequence>, StoreError> {
        watermarks(&self.read()?)
    }
}

/// The same, as one transaction sees them.
pub(super) fn watermarks(transaction: &ReadTransaction) -> Result<BTreeMap<String, Sequence>, StoreError> {
    use redb::ReadableTable as _;
    let mut watermarks = BTreeMap::new();
    for entry in transaction.open_table(WATERMARKS)?.iter()? {
        let (collector, at) = entry?;
        watermarks.insert(collector.value().to_owned(), at.value().decode()?.into());
    }
    Ok(watermarks)
}

fn make<K: Key + 'static, V: Value + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    transaction.open_table(table)?;
    Ok(())
}

fn walk<K: Key + 'static, V: Value + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    use redb::ReadableTable as _;
    for entry in transaction.open_table(table)?.iter()? {
        let (key, value) = entry?;
        std::hint::black_box((key.value(), value.value()));
    }
    Ok(())
}

/// What redb itself says after an error.
fn closed() -> StoreError {
    StoreError::IoState(Box::new(redb::Error::PreviousIo))
}

/// The next value of a counter that never goes back, also after the rows it numbered are gone.
pub(super) fn next(transaction: &WriteTransaction, counter: &str) -> Result<u64, StoreError> {
    use redb::ReadableTable as _;
    let mut meta = transaction.open_table(META)?;
    let last = match meta.get(counter)? {
        Some(value) => value.value().decode()?,
        None => 0,
    };
    let next = last.saturating_add(1);
    meta.insert(counter, next.encode()?)?;
    Ok(next)
}

/// An id as a table's key.
pub(super) fn key(id: Uuid) -> u128 {
    id.as_u128()
}

/// The version of what is there; a new file gets ours.
fn check_version(transaction: &WriteTransaction, path: &Path) -> Result<u64, StoreError> {
    use redb::ReadableTable as _;
    let mut meta = transaction.open_table(META)?;
    let found = match meta.get(FORMAT_KEY)? {
        Some(value) => Some(value.value().decode()?),
        None => None,
    };
    match found {
        None => {
            meta.insert(FORMAT_KEY, u64::from(FORMAT_VERSION).encode()?)?;
            Ok(u64::from(FORMAT_VERSION))
        }
        Some(version) if (1..=u64::from(FORMAT_VERSION)).contains(&version) => Ok(version),
        Some(0) => {
            let what = "format version 0 was never written".to_owned();
            Err(StoreError::CorruptState { table: "meta".to_owned(), what })
        }
        Some(version) => Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: FORMAT_VERSION,
        }),
    }
}

fn refused(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            let dir = path.parent().unwrap_or(path).to_owned();
            StoreError::InUse { dir, holder: "another process".to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(source)) if !damage::is_damage(&source) => {
            StoreError::Unreadable { path: path.to_owned(), source }
        }
        other => StoreError::IoState(Box::new(other.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;

    /// A disk that can be made to fail.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        fails: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.memory.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.memory.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.memory.write(offset, data)
        }
    }

    #[test]
    fn a_failed_write_is_told_and_stays_told_until_the_file_is_opened_again() {
        let fails = Arc::new(AtomicBool::new(false));
        let disk = Disk { memory: InMemoryBackend::new(), fails: Arc::clone(&fails) };
        let state = State::over(disk, Path::new("state.redb")).unwrap();
        let count = |state: &State| state.write(|transaction| next(transaction, "counter"));
        assert_eq!(count(&state).unwrap(), 1);
        fails.store(true, Ordering::SeqCst);
        let failed = count(&state).unwrap_err();
        assert!(matches!(failed, StoreError::IoState(_)), "{failed}");
        fails.store(false, Ordering::SeqCst);
        let latched = count(&state).unwrap_err();
        assert!(matches!(latched, StoreError::IoState(_)), "{latched}");
        assert_eq!(latched.exit(), daemoneye_lib::exit::Exit::SyncFailed);
    }

    #[test]
    fn a_change_that_fails_leaves_nothing_behind() {
        let state = State::over(InMemoryBackend::new(), Path::new("state.redb")).unwrap();
        let failed = state.write(|transaction| {
            next(transaction, "counter")?;
            Err::<(), _>(StoreError::MisuseOffline)
        });
        assert!(failed.is_err());
        assert_eq!(state.write(|transaction| next(transaction, "counter")).unwrap(), 1);
    }
}
