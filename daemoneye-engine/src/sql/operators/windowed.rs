//! Windows that let go of rows as they hand them on: those rows are paid for while the window has them, not until the query ends.
//!
//! A window keeps the last row of what it has handed on, and text that is a view keeps with one row all pages of all rows before
//! it. So text goes through such a window as text, of which a row keeps its own.

use super::dictionaries;
use super::passing::{Passage, through};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, StandardWindowExpr, WindowExpr};
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The window with its rows counted in and out; `None` where it looks back at rows that it has handed on, or at text.
pub(super) fn windowed(node: &Arc<dyn ExecutionPlan>) -> Option<Result<Arc<dyn ExecutionPlan>>> {
    let window = node.downcast_ref::<BoundedWindowAggExec>()?;
    let columns = window.input().schema();
    let has_text = columns.fields().iter().any(|field| is_text(field));
    let lets_go = |call: &Arc<dyn WindowExpr>| {
        call.partition_by().is_empty() && (numbers_rows(call, &columns) || (!has_text && sums_up(call)))
    };
    if !window.window_expr().iter().all(lets_go) {
        return None;
    }
    let properties = window.input().properties();
    let as_text = has_text.then(|| {
        let known = EquivalenceProperties::new(Arc::new(with_text(&columns)));
        Arc::new(properties.as_ref().clone().with_eq_properties(known))
    });
    let rows = Rows::default();
    let input = through(window.input(), Coming { rows: rows.clone(), as_text });
    let (calls, order) = (window.window_expr().to_vec(), window.input_order_mode.clone());
    let window = BoundedWindowAggExec::try_new(calls, input, order, false);
    let leaving = Leaving { rows, properties: Arc::clone(node.properties()), has_text };
    Some(window.map(|window| through(&(Arc::new(window) as Arc<dyn ExecutionPlan>), leaving)))
}

fn is_text(field: &Field) -> bool {
    *field.data_type() == DataType::Utf8View
}

fn with_text(columns: &Schema) -> Schema {
    let field = |field: &Arc<Field>| match is_text(field) {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        false => Arc::clone(field),
    };
    Schema::new_with_metadata(columns.fields().iter().map(field).collect::<Vec<_>>(), columns.metadata().clone())
}

/// The number or the rank of a row: asks for the order and for nothing else.
fn numbers_rows(call: &Arc<dyn WindowExpr>, columns: &Schema) -> bool {
    let is_plain = |column: &Column| columns.fields().get(column.index()).is_some_and(|field| !is_text(field));
    call.as_any().is::<StandardWindowExpr>()
        && call.expressions().is_empty()
        && call
            .order_by()
            .iter()
            .all(|by| by.expr.downcast_ref::<Column>().is_some() || collect_columns(&by.expr).iter().all(is_plain))
}

/// Over all rows so far.
fn sums_up(call: &Arc<dyn WindowExpr>) -> bool {
    call.as_any().is::<PlainAggregateWindowExpr>() && call.get_window_frame().is_ever_expanding()
}

/// The rows that have come and not left.
#[derive(Debug, Clone, Default)]
struct Rows(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    held: Option<MemoryReservation>,
    /// Rows of a batch and what is held for it, in the order in which they came.
    batches: VecDeque<(usize, usize)>,
}

impl Rows {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self, batch: &RecordBatch) -> Result<()> {
        let mut inside = self.inside();
        let bytes = batch.get_array_memory_size();
        if let Some(held) = &inside.held {
            held.try_grow(bytes)?;
        }
        inside.batches.push_back((batch.num_rows(), bytes));
        Ok(())
    }

    fn leave(&self, mut rows: usize) {
        let mut inside = self.inside();
        while let Some((left, bytes)) = inside.batches.pop_front() {
            if left > rows {
                inside.batches.push_front((left.saturating_sub(rows), bytes));
                return;
            }
            rows = rows.saturating_sub(left);
            inside.held.iter().for_each(|held| held.shrink(bytes));
        }
    }
}

#[derive(Debug, Clone)]
struct Coming {
    rows: Rows,
    as_text: Option<Arc<PlanProperties>>,
}

impl Passage for Coming {
    const NAME: &'static str = "Coming";

    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::clone(self.as_text.as_ref().unwrap_or(input.properties()))
    }

    fn pass(
        &self,
        input: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let held = MemoryConsumer::new("rows of a window").register(context.memory_pool());
        *self.rows.inside() = Inside { held: Some(held), batches: VecDeque::new() };
        let rows = self.rows.clone();
        let columns = self.as_text.as_ref().map(|text| Arc::clone(text.eq_properties.schema()));
        let counted = input.map(move |batch| {
            let batch = match &columns {
                Some(columns) => dictionaries::text(&batch?, columns)?,
                None => batch?,
            };
            rows.come(&batch)?;
            Ok(batch)
        });
        counted.boxed()
    }
}

#[derive(Debug, Clone)]
struct Leaving {
    rows: Rows,
    /// Of the window that it was.
    properties: Arc<PlanProperties>,
    has_text: bool,
}

impl Passage for Leaving {
    const NAME: &'static str = "Leaving";

    fn properties(&self, _: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::clone(&self.properties)
    }

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let (rows, has_text) = (self.rows.clone(), self.has_text);
        let columns = Arc::clone(self.properties.eq_properties.schema());
        let counted = input.map(move |batch| {
            let batch = batch?;
            rows.leave(batch.num_rows());
            if has_text { dictionaries::text(&batch, &columns) } else { Ok(batch) }
        });
        counted.boxed()
    }
}
