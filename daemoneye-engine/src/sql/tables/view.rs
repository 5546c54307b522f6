//! What one query sees: one snapshot of the store, taken when the first table is read, and what that snapshot lacks.

use super::super::completeness::{Missing, of_gap};
use super::prune::TimeRange;
use super::system::SystemTable;
use super::{CollectorRow, ProcessEvents, SystemTables};
use crate::store::{SegmentFile, Snapshot, Store, StoreError, reason};
use daemoneye_lib::model::Degraded;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Shared by all tables of one query.
pub(crate) struct QueryView {
    pub(super) store: Arc<Store>,
    pub(super) extra: Arc<dyn SystemTables>,
    missing: Missing,
    snapshot: OnceLock<Arc<Snapshot>>,
    /// The files that its scans open, by id.
    opened: Mutex<BTreeMap<u64, Arc<SegmentFile>>>,
}

impl std::fmt::Debug for QueryView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryView").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl QueryView {
    pub(crate) fn new(store: Arc<Store>, extra: Arc<dyn SystemTables>, missing: Missing) -> Arc<Self> {
        Arc::new(Self { store, extra, missing, snapshot: OnceLock::new(), opened: Mutex::default() })
    }

    /// Providers for the tables that a statement reads.
    pub(crate) fn tables(
        self: &Arc<Self>,
        names: impl Iterator<Item = &'static str>,
    ) -> Vec<(&'static str, Arc<dyn TableProvider>)> {
        names
            .map(|name| {
                let table: Arc<dyn TableProvider> = if name == "process_events" {
                    Arc::new(ProcessEvents::new(Arc::clone(self)))
                } else {
                    Arc::new(SystemTable::new(name, Arc::clone(self)))
                };
                (name, table)
            })
            .collect()
    }

    /// The same snapshot for every scan of the query.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.get_or_init(|| Arc::new(self.store.snapshot())))
    }

    pub(super) fn note(&self, reason: Degraded) {
        self.missing.add(reason);
    }

    /// Remembers that a scan opens this file.
    pub(super) fn opens(&self, file: &Arc<SegmentFile>) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(file.id, Arc::clone(file));
    }

    /// The files that the query's scans open.
    pub(crate) fn opened(&self) -> Vec<Arc<SegmentFile>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Says what the store knows to be missing from this range of time.
    pub(super) fn note_coverage(&self, range: TimeRange) -> Result<(), DataFusionError> {
        let gaps = self.store.coverage().map_err(store_error)?;
        let touched = gaps.iter().filter(|row| range.overlaps(row.gap.from_us, row.gap.to_us));
        touched.filter_map(|row| of_gap(&row.gap.reason)).for_each(|reason| self.note(reason));
        // Events since then wait in the logs of their collectors.
        if self.store.paused().is_some_and(|(since_us, _)| range.to_us >= since_us) {
            self.note(Degraded::CollectorUnavailable);
        }
        let removed = gaps.iter().filter(|row| row.gap.reason == reason::RETENTION);
        if removed.map(|row| row.gap.to_us).max().is_some_and(|last_us| range.asks_back_to(last_us)) {
            self.note(Degraded::Capped);
        }
        Ok(())
    }

    /// Says so when the table of live processes had no room for all of them.
    pub(super) fn note_processes(&self) {
        if self.store.lacks_processes() {
            self.note(Degraded::Capped);
        }
    }

    /// Says so when a file that holds events of this range had to be set aside.
    pub(super) fn note_damage(&self, range: TimeRange) {
        if self.snapshot().damaged.iter().any(|file| range.overlaps(file.first_us, file.last_us)) {
            self.note(Degraded::DataUnreadable);
        }
    }

    /// Says so when a collector is away and the range reaches the present, or a time whose events are still to come.
    pub(super) fn note_collectors(&self, range: TimeRange) {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let lacks = |collector: &CollectorRow| {
            (!collector.connected && range.to_us >= now_us)
                || collector.behind_since_us.is_some_and(|since_us| range.to_us >= since_us)
        };
        if self.extra.collectors().iter().any(lacks) {
            self.note(Degraded::CollectorUnavailable);
        }
    }
}

/// A store that cannot be read is not an empty one.
pub(super) fn store_error(error: StoreError) -> DataFusionError {
    DataFusionError::IoError(std::io::Error::other(error))
}
