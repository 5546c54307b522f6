//! Batches that somebody gathers, paid for as they pass.

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::StreamExt;
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
}

impl Charge {
    fn of(self, batch: &RecordBatch) -> usize {
        let columns = match self {
            Self::Rows => batch.get_array_memory_size(),
            Self::Batches => 0,
        };
        columns.saturating_add(BATCH_BYTES)
    }
}

/// Passes batches on and holds their charge in the memory pool until the query ends.
#[derive(Debug)]
pub(super) struct Metered {
    input: Arc<dyn ExecutionPlan>,
    charge: Charge,
    /// Rows that have passed.
    rows: Arc<AtomicUsize>,
}

impl Metered {
    pub(super) fn over(input: &Arc<dyn ExecutionPlan>, charge: Charge) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::counting(input, charge))
    }

    pub(super) fn counting(input: &Arc<dyn ExecutionPlan>, charge: Charge) -> Self {
        Self { input: Arc::clone(input), charge, rows: Arc::default() }
    }

    /// The count of the rows that have passed.
    pub(super) fn rows(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.rows)
    }
}

impl DisplayAs for Metered {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metered")
    }
}

impl ExecutionPlan for Metered {
    fn name(&self) -> &'static str {
        "Metered"
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
        let (charge, rows) = (self.charge, Arc::clone(&self.rows));
        Ok(children.pop().map_or(self as Arc<dyn ExecutionPlan>, |input| Arc::new(Self { input, charge, rows })))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new("gathered batches").register(context.memory_pool());
        let stream = self.input.execute(partition, context)?;
        let schema = stream.schema();
        let (charge, rows) = (self.charge, Arc::clone(&self.rows));
        let counted = stream.map(move |batch: Result<RecordBatch>| {
            let batch = batch?;
            held.try_grow(charge.of(&batch))?;
            rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}
