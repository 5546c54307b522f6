//! The condition of a join, with a look at the clock before it is evaluated.

use super::super::allowance::Allowance;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::joins::utils::JoinFilter;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The filter of a join behind the gate. A join without one gets one that is always true: an EXISTS over a million equal keys
/// compares them all and has nothing to hand on meanwhile.
///
/// `merging`: it stands in a merged join.
pub(super) fn gated(filter: Option<&JoinFilter>, allowance: &Arc<Allowance>, merging: bool) -> JoinFilter {
    let behind = |inner| Arc::new(Gate { inner, allowance: Arc::clone(allowance), merging });
    match filter {
        Some(filter) => JoinFilter::new(
            behind(Arc::clone(filter.expression())),
            filter.column_indices().to_vec(),
            Arc::clone(filter.schema()),
        ),
        None => JoinFilter::new(behind(lit(true)), Vec::new(), Arc::new(Schema::empty())),
    }
}

#[derive(Debug)]
struct Gate {
    inner: Arc<dyn PhysicalExpr>,
    allowance: Arc<Allowance>,
    merging: bool,
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Gate {}

impl Hash for Gate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Gate {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.allowance.time()?;
        // A merged join keeps what it has read back from the disk until its key is done, and asks nobody.
        if self.merging {
            self.allowance.within_memory()?;
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let (allowance, merging) = (Arc::clone(&self.allowance), self.merging);
        Ok(children.pop().map_or(self as Arc<dyn PhysicalExpr>, |inner| Arc::new(Self { inner, allowance, merging })))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
