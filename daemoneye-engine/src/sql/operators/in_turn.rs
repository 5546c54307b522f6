//! Several readers of one scan, at work at the same time and heard one after the other: rows leave in the order of the files.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PhysicalExpr,
    PlanProperties,
};
use futures::StreamExt as _;
use std::fmt;
use std::sync::Arc;

/// Batches that a reader is ahead of its turn.
const AHEAD: usize = 2;

/// The partitions of `input` as one.
pub(super) fn in_turn(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let properties = input.properties().as_ref().clone().with_partitioning(Partitioning::UnknownPartitioning(1));
    Arc::new(InTurn { input: Arc::clone(input), properties: Arc::new(properties) })
}

#[derive(Debug)]
struct InTurn {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for InTurn {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InTurn")
    }
}

impl ExecutionPlan for InTurn {
    fn name(&self) -> &'static str {
        "InTurn"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
        Ok(children.pop().map_or(self as Arc<dyn ExecutionPlan>, |input| in_turn(&input)))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let readers = self.input.output_partitioning().partition_count();
        let started =
            (0..readers).map(|reader| Ok(spawn_buffered(self.input.execute(reader, Arc::clone(&context))?, AHEAD)));
        let started = started.collect::<Result<Vec<_>>>()?;
        let rows = futures::stream::iter(started).flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
