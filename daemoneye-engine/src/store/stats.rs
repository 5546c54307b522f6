//! Counters for health.

use redb::ReadableTableMetadata as _;
use serde::Serialize;

use super::state::{ALERTS, AUDIT, META};
use super::{HistoryTable, Store, StoreError, audit, open};

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Sealed files of events.
    pub segments: u64,
    /// Events in them.
    pub segment_rows: u64,
    /// Bytes of them.
    pub segment_bytes: u64,
    /// Sealed files of lifetimes.
    pub lifetime_segments: u64,
    /// Lifetimes in them.
    pub lifetime_rows: u64,
    /// Bytes of them.
    pub lifetime_bytes: u64,
    /// Registered files that cannot be used.
    pub damaged_segments: u64,
    /// Rows in memory only.
    pub open_rows: u64,
    /// Bytes they take.
    pub open_bytes: u64,
    /// Live processes.
    pub live_processes: u64,
    /// Processes that found no room in the table of live ones.
    pub live_shed: u64,
    /// Alerts.
    pub alerts: u64,
    /// Entries that wait for the ledger.
    pub audit_pending: u64,
    /// Entries for the ledger that found no room, ever.
    pub audit_lost: u64,
    /// Length of `state.redb`.
    pub state_bytes: u64,
}

impl Store {
    /// How much the store holds now.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let transaction = self.state.read()?;
        let alerts = transaction.open_table(ALERTS)?.len()?;
        let audit_pending = transaction.open_table(AUDIT)?.len()?;
        let audit_lost = match transaction.open_table(META)?.get(audit::LOST_COUNTER)? {
            Some(lost) => lost.value().decode()?,
            None => 0,
        };
        let path = self.options.dir.join(open::STATE_FILE);
        let state_bytes = path.metadata().map_err(StoreError::io("look at", &path))?.len();
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        let unsealed = || held.sealing.as_deref().into_iter().chain([&held.open]);
        let of = |table| held.segments.iter().filter(move |file| file.table == table);
        let (events, lifetimes) = (|| of(HistoryTable::ProcessEvents), || of(HistoryTable::ProcessLifetimes));
        Ok(StoreStats {
            segments: events().count() as u64,
            segment_rows: events().map(|file| file.rows).sum(),
            segment_bytes: events().map(|file| file.bytes).sum(),
            lifetime_segments: lifetimes().count() as u64,
            lifetime_rows: lifetimes().map(|file| file.rows).sum(),
            lifetime_bytes: lifetimes().map(|file| file.bytes).sum(),
            damaged_segments: held.damaged.len() as u64,
            open_rows: unsealed().map(|open| open.rows as u64).sum(),
            open_bytes: unsealed().map(|open| open.bytes() as u64).sum(),
            live_processes: held.live.len() as u64,
            live_shed: held.live.shed(),
            alerts,
            audit_pending,
            audit_lost,
            state_bytes,
        })
    }
}
