//! What we add to a physical plan so that its limits hold: joins that yield, and windows whose rows are counted.

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, replace_children_if_necessary,
};
use futures::StreamExt;
use std::sync::Arc;

/// The plan with our operators in it.
///
/// A join can make a million rows of one batch without ever polling a leaf, which is where DataFusion yields: it would hold
/// the thread past every deadline. A window keeps its rows without asking the memory pool: over a join it would take all
/// the memory there is before the deadline.
pub(crate) fn limited(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if node.children().len() > 1 {
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
        }
        if node.downcast_ref::<WindowAggExec>().is_none() && node.downcast_ref::<BoundedWindowAggExec>().is_none() {
            return Ok(Transformed::no(node));
        }
        let inputs = node.children().into_iter().map(|input| Metered::over(Arc::clone(input))).collect();
        Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?))
    })
    .data()
}

/// Passes batches on and holds their size in the memory pool until the query ends.
#[derive(Debug)]
struct Metered {
    input: Arc<dyn ExecutionPlan>,
}

impl Metered {
    fn over(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input })
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
        Ok(children.pop().map_or(self as Arc<dyn ExecutionPlan>, Self::over))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new("window rows").register(context.memory_pool());
        let stream = self.input.execute(partition, context)?;
        let schema = stream.schema();
        let counted = stream.map(move |batch: Result<RecordBatch>| {
            let batch = batch?;
            held.try_grow(batch.get_array_memory_size())?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}
