//! The second input of a nested loop, in pieces: the loop compares a whole batch with every row that it has gathered before it
//! comes back, so the pieces are as small as those rows are many, and between pieces other queries have their turn.

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{StreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pairs of rows that are compared in one turn: some 10 ms of plain comparisons.
const PAIRS: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Sliced {
    input: Arc<dyn ExecutionPlan>,
    /// Rows that the loop has gathered.
    gathered: Arc<AtomicUsize>,
}

impl Sliced {
    pub(super) fn over(input: &Arc<dyn ExecutionPlan>, gathered: Arc<AtomicUsize>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input: Arc::clone(input), gathered })
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

impl DisplayAs for Sliced {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sliced")
    }
}

impl ExecutionPlan for Sliced {
    fn name(&self) -> &'static str {
        "Sliced"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let gathered = Arc::clone(&self.gathered);
        Ok(children.pop().map_or(self as Arc<dyn ExecutionPlan>, |input| Arc::new(Self { input, gathered })))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        let gathered = Arc::clone(&self.gathered);
        let turns = stream::unfold(Turn { input, rest: None, pairs: 0 }, move |turn| {
            let gathered = gathered.load(Ordering::Relaxed);
            turn.next(gathered)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, turns)))
    }
}
