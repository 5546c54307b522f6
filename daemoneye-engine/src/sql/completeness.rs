//! What is missing from an answer, collected from wherever it is noticed: the tables, the stream of rows, the clock.

use daemoneye_lib::model::{Completeness, Degraded};
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

/// The reason that an error stands for when the rows so far are still right; `None`: the query failed.
pub(crate) fn degradation(error: &DataFusionError) -> Option<Degraded> {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => Some(Degraded::Capped),
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => {
            Some(Degraded::DataUnreadable)
        }
        _ => None,
    }
}
