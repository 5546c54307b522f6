//! The live processes of one instant, as rows that are made a few at a time while somebody reads them.
//!
//! A busy host has a hundred thousand. Making all their columns at once would take hundreds of MB, and ingest would wait for
//! it behind the store's lock; noting which they are takes that lock for milliseconds, since the records are shared.

use std::sync::Arc;

use daemoneye_lib::proto::{ProcessRecord, Sequence};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;

use super::lifetimes::{self, Ended, Seen};
use super::{Store, StoreError};
use crate::ingest::{LifetimeRow, lifetimes_batch, processes_batch};

/// Rows made at once: some 1 MiB of columns, and 64 MiB where every command line is as long as it may be.
const ROWS: usize = 1_024;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct LivingRow {
    pub(super) collector: Arc<str>,
    pub(super) at: Sequence,
    pub(super) time_us: i64,
    pub(super) record: Arc<ProcessRecord>,
    pub(super) seen: Seen,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Living(pub(super) Arc<[LivingRow]>);

impl Living {
    /// How many there are.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.0.len()
    }

    /// Bytes of the list itself; the records are the store's.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len().saturating_mul(size_of::<LivingRow>())
    }

    /// Rows with the schema of `processes`, a bounded number in each batch.
    pub fn processes(self) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static {
        self.batches(|rows| {
            processes_batch(rows.iter().map(|row| (&*row.collector, row.at, row.time_us, &*row.record)))
        })
    }

    /// The lifetimes so far, with the schema of `process_lifetimes`.
    fn lifetimes(self) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static {
        self.batches(|rows| {
            lifetimes_batch(rows.iter().map(|row| LifetimeRow {
                collector: &row.collector,
                at: row.at,
                time_us: row.time_us,
                process: &row.record,
                start_us: row.record.start_time_us.or(row.seen.first_us),
                end: None,
                max_cpu_usage: row.seen.max_cpu_usage,
                max_memory_usage: row.seen.max_memory_usage,
            }))
        })
    }

    fn batches(
        self,
        make: impl Fn(&[LivingRow]) -> Result<RecordBatch, ArrowError> + Send + 'static,
    ) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static {
        let starts = (0..self.0.len()).step_by(ROWS);
        starts.map(move |from| {
            let to = from.saturating_add(ROWS).min(self.0.len());
            make(self.0.get(from..to).unwrap_or_default())
        })
    }
}

/// Lifetimes that no file holds: of processes that have ended since the last seal, and of those that live.
#[derive(Debug, Clone, Default)]
pub struct OpenLifetimes {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) ended: Vec<Ended>,
    pub(super) living: Living,
}

impl OpenLifetimes {
    /// Bytes of what they are made of and that is this snapshot's own.
    pub(crate) fn bytes(&self) -> usize {
        self.living.bytes().saturating_add(self.ended.len().saturating_mul(size_of::<Ended>()))
    }

    /// The processes that lived at that instant.
    pub(crate) fn living(&self) -> Living {
        self.living.clone()
    }

    /// Rows with the schema of `process_lifetimes`, a bounded number in each batch.
    pub fn rows(self) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static {
        let Self { batches, ended, living } = self;
        let chunks = (0..ended.len()).step_by(ROWS);
        let ended = chunks.map(move |from| {
            let to = from.saturating_add(ROWS).min(ended.len());
            lifetimes::batch(ended.get(from..to).unwrap_or_default())
        });
        batches.into_iter().map(Ok).chain(ended).chain(living.lifetimes())
    }
}

impl Store {
    /// The processes that live now.
    ///
    /// # Errors
    /// [`StoreError::LockPoisoned`] when the store failed before.
    pub fn live(&self) -> Result<Living, StoreError> {
        Ok(self.held.read().map_err(|_| StoreError::LockPoisoned)?.live.living())
    }
}
