//! What is missing from an answer, collected from wherever it is noticed: the tables, the stream of rows, the clock.

use crate::store::reason;
use daemoneye_lib::model::{Completeness, Degraded};
use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by everything that works on one query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Missing(Arc<Mutex<Completeness>>);

impl Missing {
    pub(crate) fn add(&self, reason: Degraded) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).degrade(reason);
    }

    pub(crate) fn so_far(&self) -> Completeness {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a coverage gap of this reason means for an answer about events of its time; `None`: they are all there, or, for
/// retention, it depends on what was asked.
pub(crate) fn of_gap(gap: &str) -> Option<Degraded> {
    match gap {
        reason::AUDIT_FULL
        | reason::NO_TABLE
        | reason::PROCESSES_FULL
        | reason::RETENTION
        // The files that cannot be used now are known; one that was put back is whole.
        | reason::SEGMENT_DAMAGED
        | reason::STORE_PAUSED
        | reason::SUBSCRIBER_SLOW => None,
        reason::COLLECTOR_UNAVAILABLE => Some(Degraded::CollectorUnavailable),
        reason::SEGMENTS_UNREGISTERED | reason::WAL_UNREADABLE => Some(Degraded::DataUnreadable),
        reason::WAL_BEYOND_BOUND => Some(Degraded::Capped),
        // undecodable, shed, wal_bound, wal_corrupt, wal_disk, wal_oversize, and what a newer collector may tell: events that
        // were there once and are not here.
        _ => Some(Degraded::EventsShed),
    }
}

/// The reason that an error stands for when the rows so far are still right; `None`: the query failed.
pub(crate) fn degradation(error: &DataFusionError) -> Option<Degraded> {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => Some(Degraded::Capped),
        DataFusionError::ArrowError(error, _)
            if matches!(error.as_ref(), ArrowError::IoError(..) | ArrowError::ParquetError(_)) =>
        {
            Some(Degraded::DataUnreadable)
        }
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => {
            Some(Degraded::DataUnreadable)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_says_what_was_lost_and_what_was_only_not_told() {
        assert_eq!(of_gap("collector_unavailable"), Some(Degraded::CollectorUnavailable));
        for unread in ["segments_unregistered", "wal_unreadable"] {
            assert_eq!(of_gap(unread), Some(Degraded::DataUnreadable), "{unread}");
        }
        assert_eq!(of_gap("wal_beyond_bound"), Some(Degraded::Capped));
        for lost in ["undecodable", "shed", "wal_bound", "wal_corrupt", "wal_disk", "wal_oversize", "not known yet"] {
            assert_eq!(of_gap(lost), Some(Degraded::EventsShed), "{lost}");
        }
        for kept in [
            "retention",
            "subscriber_slow",
            "no_table",
            "audit_outbox_full",
            "processes_full",
            "segment_damaged",
            "store_paused",
        ] {
            assert_eq!(of_gap(kept), None, "{kept}");
        }
    }
}
