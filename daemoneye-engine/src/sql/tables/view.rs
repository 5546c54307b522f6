//! What one query sees: one snapshot of the store, taken when the first table is read, and what that snapshot lacks.

use super::super::completeness::Missing;
use super::prune::TimeRange;
use super::system::SystemTable;
use super::{ProcessEvents, SystemTables};
use crate::store::{Snapshot, Store, StoreError};
use daemoneye_lib::model::Degraded;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use std::sync::{Arc, OnceLock};

/// Gaps of this reason are what was meant to go, not what was lost.
const RETENTION: &str = "retention";

/// Shared by all tables of one query.
pub(crate) struct QueryView {
    pub(super) store: Arc<Store>,
    pub(super) extra: Arc<dyn SystemTables>,
    missing: Missing,
    snapshot: OnceLock<Arc<Snapshot>>,
}

impl std::fmt::Debug for QueryView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryView").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl QueryView {
    pub(crate) fn new(store: Arc<Store>, extra: Arc<dyn SystemTables>, missing: Missing) -> Arc<Self> {
        Arc::new(Self { store, extra, missing, snapshot: OnceLock::new() })
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

    /// Says what the store knows to be missing from this range of time.
    pub(super) fn note_coverage(&self, range: TimeRange) -> Result<(), DataFusionError> {
        let gaps = self.store.coverage().map_err(store_error)?;
        if gaps.iter().any(|row| row.gap.reason != RETENTION && range.overlaps(row.gap.from_us, row.gap.to_us)) {
            self.note(Degraded::EventsShed);
        }
        Ok(())
    }

    /// Says so when a collector is away and the range reaches the present.
    pub(super) fn note_collectors(&self, range: TimeRange) {
        let now_us = jiff::Timestamp::now().as_microsecond();
        if range.to_us >= now_us && self.extra.collectors().iter().any(|collector| !collector.connected) {
            self.note(Degraded::CollectorUnavailable);
        }
    }
}

/// A store that cannot be read is not an empty one.
pub(super) fn store_error(error: StoreError) -> DataFusionError {
    DataFusionError::IoError(std::io::Error::other(error))
}
