//! The second input of a nested loop, in pieces: the loop compares a whole batch with every row that it has gathered before it
//! comes back, so the pieces are as small as those rows are many, and between pieces other queries have their turn.

use super::passing::Passage;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pairs of rows that are compared in one turn: some 10 ms of plain comparisons.
const PAIRS: usize = 1_000_000;

#[derive(Debug, Clone)]
pub(super) struct Sliced {
    /// Rows that the loop has gathered.
    gathered: Arc<AtomicUsize>,
}

impl Sliced {
    pub(super) const fn by(gathered: Arc<AtomicUsize>) -> Self {
        Self { gathered }
    }
}

/// What is left of the batch under way, and the pairs of this turn.
struct Turn {
    input: SendableRecordBatchStream,
    rest: Option<RecordBatch>,
    pairs: usize,
}

impl Turn {
    async fn next(mut self, gathered: usize) -> Option<(Result<RecordBatch>, Self)> {
        if self.pairs >= PAIRS {
            self.pairs = 0;
            tokio::task::yield_now().await;
        }
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.input.next().await? {
                Ok(batch) => batch,
                Err(error) => return Some((Err(error), self)),
            },
        };
        let rows = PAIRS.checked_div(gathered).unwrap_or(usize::MAX).clamp(1, batch.num_rows().max(1));
        let rows = rows.min(batch.num_rows());
        self.pairs = self.pairs.saturating_add(rows.saturating_mul(gathered));
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows().saturating_sub(rows)));
        }
        Some((Ok(batch.slice(0, rows)), self))
    }
}

impl Passage for Sliced {
    const NAME: &'static str = "Sliced";

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let gathered = Arc::clone(&self.gathered);
        let turns = stream::unfold(Turn { input, rest: None, pairs: 0 }, move |turn| {
            let gathered = gathered.load(Ordering::Relaxed);
            turn.next(gathered)
        });
        turns.boxed()
    }
}
