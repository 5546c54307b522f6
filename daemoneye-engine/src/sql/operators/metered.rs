//! Batches that somebody gathers, made dense and paid for as they pass.

use super::dense::dense;
use super::passing::Passage;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a gathered batch takes beside its columns: its header, its place in a list that doubles as it grows, and the
/// copy made while it does.
const BATCH_BYTES: usize = 256;

/// What is asked of the memory pool for a batch that passes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charge {
    /// Its columns and itself.
    Rows,
    /// Itself: whoever gathers it asks for the columns.
    Batches,
    /// Nothing: whoever gathers it asks for all of it.
    Nothing,
}

impl Charge {
    fn of(self, batch: &RecordBatch) -> usize {
        let columns = match self {
            Self::Rows => batch.get_array_memory_size(),
            Self::Batches => 0,
            Self::Nothing => return 0,
        };
        columns.saturating_add(BATCH_BYTES)
    }
}

/// Holds the charge of what passes in the memory pool until the query ends.
#[derive(Debug, Clone)]
pub(super) struct Metered {
    charge: Charge,
    /// Rows that have passed.
    rows: Arc<AtomicUsize>,
}

impl Metered {
    pub(super) fn at(charge: Charge) -> Self {
        Self { charge, rows: Arc::default() }
    }

    /// The count of the rows that have passed.
    pub(super) fn rows(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.rows)
    }
}

impl Passage for Metered {
    const NAME: &'static str = "Metered";

    fn pass(
        &self,
        input: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let held = MemoryConsumer::new("gathered batches").register(context.memory_pool());
        let (charge, rows) = (self.charge, self.rows());
        let counted = input.map(move |batch| {
            let batch = dense(batch?)?;
            held.try_grow(charge.of(&batch))?;
            rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
            Ok(batch)
        });
        counted.boxed()
    }
}
