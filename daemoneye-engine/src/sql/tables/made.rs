//! Rows that are made while a query reads them, a batch at a time, and paid for in its memory pool: what they are made of for as
//! long as they are read, each batch until the next one is asked for.

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use std::sync::Arc;

/// The batches of a table, from its first row.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

struct Made<F> {
    schema: SchemaRef,
    make: F,
}

impl<F> std::fmt::Debug for Made<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// A scan over what `make` gives, which is made of so many bytes; each run of the plan calls it once.
pub(crate) fn scan(
    schema: SchemaRef,
    bytes: usize,
    make: impl Fn() -> Batches + Send + Sync + 'static,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    scan_weighed(schema, move || (make(), bytes), projection)
}

/// The same where `make` tells of how many bytes they are made, because it reads them.
pub(super) fn scan_weighed(
    schema: SchemaRef,
    make: impl Fn() -> (Batches, usize) + Send + Sync + 'static,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let made = Arc::new(Made { schema: Arc::clone(&schema), make });
    Ok(Arc::new(StreamingTableExec::try_new(schema, vec![made], projection, [], false, None)?))
}

/// The same for rows that come in this order, if in any, and of which at most `limit` are read.
pub(super) fn scan_in_order(
    schema: SchemaRef,
    make: impl Fn() -> Batches + Send + Sync + 'static,
    order: Option<LexOrdering>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let made = Arc::new(Made { schema: Arc::clone(&schema), make: move || (make(), 0) });
    Ok(Arc::new(StreamingTableExec::try_new(schema, vec![made], None, order, false, limit)?))
}

impl<F: Fn() -> (Batches, usize) + Send + Sync> PartitionStream for Made<F> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let held = MemoryConsumer::new("rows that are made").register(context.memory_pool());
        let (batches, bytes) = (self.make)();
        let batches = paid(batches, bytes, held);
        // A batch takes milliseconds and none of them waits for anything: between two, whoever looks at the clock and at those
        // who have left has the thread.
        let turns = stream::unfold((batches, false), |(mut batches, begun)| async move {
            if begun {
                tokio::task::yield_now().await;
            }
            Some((batches.next()?, (batches, true)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), turns))
    }
}

fn paid(mut batches: Batches, bytes: usize, held: MemoryReservation) -> impl Iterator<Item = Result<RecordBatch>> {
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            held.free();
            return None;
        }
        let next = batches.next()?;
        let paid = next.map_err(|error| DataFusionError::ArrowError(Box::new(error), None)).and_then(|batch| {
            held.try_resize(bytes.saturating_add(batch.get_array_memory_size()))?;
            Ok(batch)
        });
        over = paid.is_err();
        Some(paid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;
    use futures::{FutureExt as _, StreamExt as _};

    #[test]
    fn between_two_batches_others_have_the_thread() {
        let batch = || {
            let numbers: datafusion::arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![1]));
            RecordBatch::try_from_iter([("number", numbers)])
        };
        let schema = batch().unwrap().schema();
        let make = move || -> Batches { Box::new((0..2).map(move |_| batch())) };
        let plan = scan(schema, 0, make, None).unwrap();
        let mut stream = plan.execute(0, Arc::new(TaskContext::default())).unwrap();
        assert!(stream.next().now_or_never().flatten().is_some_and(|batch| batch.is_ok()));
        assert!(stream.next().now_or_never().is_none(), "it does not go on at once");
        assert!(stream.next().now_or_never().flatten().is_some_and(|batch| batch.is_ok()));
    }
}
