//! Several readers of one scan, at work at the same time and heard one after the other: rows leave in the order of the files.

use super::passing::{Passage, through};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PlanProperties};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::sync::Arc;

/// Batches that a reader is ahead of its turn.
const AHEAD: usize = 2;

/// The partitions of `input` as one.
pub(super) fn in_turn(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    through(input, InTurn)
}

#[derive(Debug, Clone)]
struct InTurn;

impl Passage for InTurn {
    const NAME: &'static str = "InTurn";
    const KEEPS_ORDER: bool = false;

    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        let one = Partitioning::UnknownPartitioning(1);
        Arc::new(input.properties().as_ref().clone().with_partitioning(one))
    }

    fn open(
        &self,
        input: &Arc<dyn ExecutionPlan>,
        _: usize,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let readers = input.output_partitioning().partition_count();
        // The one that is started last begins on this thread, the others once another has woken up: the first is waited for.
        let mut started = (0..readers)
            .rev()
            .map(|reader| Ok(spawn_buffered(input.execute(reader, Arc::clone(context))?, AHEAD)))
            .collect::<Result<Vec<_>>>()?;
        started.reverse();
        let rows = futures::stream::iter(started).flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(input.schema(), rows)))
    }

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        input
    }
}
