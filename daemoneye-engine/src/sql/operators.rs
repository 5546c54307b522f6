//! What we add to a physical plan so that its limits hold: joins that yield and count what they gather, and windows whose
//! rows are counted.

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, replace_children_if_necessary,
};
use futures::StreamExt;
use std::sync::Arc;

/// Bytes that a gathered batch takes beside its columns: its header, its place in a list that doubles as it grows, and the
/// copy made while it does.
const BATCH_BYTES: usize = 256;

/// The plan with our operators in it.
///
/// A join can make a million rows of one batch without ever polling a leaf, which is where DataFusion yields: it would hold
/// the thread past every deadline. A window keeps its rows without asking the memory pool: over a join it would take all
/// the memory there is before the deadline. A join asks for the columns of the side it gathers and for nothing else: over
/// joins whose columns nobody reads that is nothing at all, however many batches there are.
pub(crate) fn limited(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if node.children().len() > 1 {
            let node = if gathers(&node) { over_counted_build_side(node)? } else { node };
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
        }
        if node.downcast_ref::<WindowAggExec>().is_none() && node.downcast_ref::<BoundedWindowAggExec>().is_none() {
            return Ok(Transformed::no(node));
        }
        let inputs = node.children().into_iter().map(|input| Metered::over(Arc::clone(input), Charge::Rows)).collect();
        Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?))
    })
    .data()
}

/// Whether the node is a join that holds all of its first input.
fn gathers(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<CrossJoinExec>().is_some()
        || node.downcast_ref::<NestedLoopJoinExec>().is_some()
        || node.downcast_ref::<HashJoinExec>().is_some()
}

fn over_counted_build_side(join: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut inputs: Vec<_> = join.children().into_iter().map(Arc::clone).collect();
    if let Some(build) = inputs.first_mut() {
        *build = Metered::over(Arc::clone(build), Charge::Batches);
    }
    replace_children_if_necessary(join, inputs)
}

/// What is asked of the memory pool for a batch that passes.
#[derive(Debug, Clone, Copy)]
enum Charge {
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
struct Metered {
    input: Arc<dyn ExecutionPlan>,
    charge: Charge,
}

impl Metered {
    fn over(input: Arc<dyn ExecutionPlan>, charge: Charge) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input, charge })
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
        let charge = self.charge;
        Ok(children.pop().map_or(self as Arc<dyn ExecutionPlan>, |input| Self::over(input, charge)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new("gathered batches").register(context.memory_pool());
        let stream = self.input.execute(partition, context)?;
        let schema = stream.schema();
        let charge = self.charge;
        let counted = stream.map(move |batch: Result<RecordBatch>| {
            let batch = batch?;
            held.try_grow(charge.of(&batch))?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}
