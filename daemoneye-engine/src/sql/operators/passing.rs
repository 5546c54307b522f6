//! A node that hands the batches of its only input on: partitions, order and columns are the input's unless it says otherwise.
//! Between batches its thread steps aside for those that ingest.

use super::super::allowance::within;
use super::super::niceness::step_aside;
use datafusion::arrow::array::{ArrayRef, AsArray as _};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use std::fmt;
use std::sync::Arc;

/// What is done on the way.
pub(super) trait Passage: Clone + fmt::Debug + Send + Sync + 'static {
    /// The node's name in plans.
    const NAME: &'static str;
    /// Whether batches leave in the order in which those of their partition came.
    const KEEPS_ORDER: bool = true;

    /// What is known of the batches as they leave.
    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::clone(input.properties())
    }

    /// What comes in for one partition that leaves.
    fn open(
        &self,
        input: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        input.execute(partition, Arc::clone(context))
    }

    /// The batches of one partition as they leave.
    fn pass(&self, input: SendableRecordBatchStream, context: &TaskContext)
    -> BoxStream<'static, Result<RecordBatch>>;
}

/// `input` with `passage` above it.
pub(super) fn through<P: Passage>(input: &Arc<dyn ExecutionPlan>, passage: P) -> Arc<dyn ExecutionPlan> {
    let properties = passage.properties(input);
    Arc::new(Passing { input: Arc::clone(input), passage, properties })
}

#[derive(Debug)]
struct Passing<P> {
    input: Arc<dyn ExecutionPlan>,
    passage: P,
    properties: Arc<PlanProperties>,
}

impl<P: Passage> DisplayAs for Passing<P> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::NAME)
    }
}

impl<P: Passage> ExecutionPlan for Passing<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![P::KEEPS_ORDER]
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
        let passage = self.passage.clone();
        Ok(children.pop().map_or(self as Arc<dyn ExecutionPlan>, |input| through(&input, passage)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.passage.open(&self.input, partition, &context)?;
        let input = RecordBatchStreamAdapter::new(input.schema(), input.inspect(|_| step_aside()));
        let schema = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, self.passage.pass(Box::pin(input), &context))))
    }
}

/// Batches as they come: between those that an operator gathers or counts, others have their turn.
#[derive(Debug, Clone)]
pub(super) struct Between;

impl Passage for Between {
    const NAME: &'static str = "Between";

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        input
    }
}

/// Batches whose texts are their own. Those of a merge of spilled files refer to everything that was read of each file, and a join
/// that keeps one keeps, and pays for, all of that, once for each column.
#[derive(Debug, Clone)]
pub(super) struct Compact;

impl Passage for Compact {
    const NAME: &'static str = "Compact";

    /// Not before it is asked for rows, which is when the other input has been gathered: whoever is registered with the memory pool
    /// has a share of it, at work or not.
    fn open(
        &self,
        input: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (schema, input, context) = (input.schema(), Arc::clone(input), Arc::clone(context));
        let opened = futures::stream::once(async move { input.execute(partition, context) }).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, opened)))
    }

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let compact = |batch: RecordBatch| {
            let columns = batch.columns().iter().map(|column| match column.as_string_view_opt() {
                Some(texts) => Arc::new(texts.gc()) as ArrayRef,
                None => Arc::clone(column),
            });
            Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
        };
        input.map(move |batch| batch.and_then(compact)).boxed()
    }
}

/// Batches as they come, while no more memory is held than there is: a merged join takes back what it spilled without asking.
#[derive(Debug, Clone)]
pub(super) struct Within;

impl Passage for Within {
    const NAME: &'static str = "Within";

    fn pass(
        &self,
        input: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let pool = Arc::clone(context.memory_pool());
        input.map(move |batch| within(&pool).and(batch)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::StringViewArray;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    #[tokio::test]
    async fn compact_batches_keep_none_of_the_texts_beside_their_own() {
        let text = |row: usize| format!("a command line of some length, of row {row}");
        let all: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..10_000).map(text)));
        let one = RecordBatch::try_from_iter([("command_line", all)]).unwrap().slice(4_711, 1);
        assert!(one.get_array_memory_size() > 100_000, "it refers to all of them");
        let input = RecordBatchStreamAdapter::new(one.schema(), futures::stream::iter([Ok(one.clone())]));
        let passed: Vec<_> = Compact.pass(Box::pin(input), &TaskContext::default()).collect().await;
        let [Ok(passed)] = passed.as_slice() else { panic!("{passed:?}") };
        assert_eq!(*passed, one);
        assert!(passed.get_array_memory_size() < 1_000, "{}", passed.get_array_memory_size());
    }
}
