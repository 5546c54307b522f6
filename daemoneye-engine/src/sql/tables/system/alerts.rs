//! `alerts`: only those that the filters can mean, newest first, and no more of each than the columns need. What the index by status
//! and time tells costs no look at the alert, whose JSON is a hundred times as much.

use super::super::made::{self, Batches};
use super::super::prune::TimeRange;
use super::chunks::{chunks, failed};
use super::rows;
use crate::store::{AlertFilter, AlertRow, StateView};
use daemoneye_lib::model::AlertStatus;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;
use uuid::Uuid;

/// What the index has.
const INDEXED: [&str; 3] = ["id", "time", "status"];

/// A scan of these columns of the alerts that the filters leave.
pub(super) fn scan(
    state: Arc<StateView>,
    schema: &SchemaRef,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = match projection {
        Some(wanted) => Arc::new(schema.project(wanted)?),
        None => Arc::clone(schema),
    };
    // As the session reads `DESC`; no time is NULL.
    let newest_first = SortOptions { descending: true, nulls_first: false };
    let order = col("time", &schema).ok().map(|time| PhysicalSortExpr::new(time, newest_first));
    let order = order.and_then(|by| LexOrdering::new([by]));
    let (filter, columns) = (asked(filters), Arc::clone(&schema));
    let make = move || batches(&state, &filter, &columns);
    made::scan_in_order(schema, make, order, limit)
}

fn batches(state: &StateView, filter: &AlertFilter, schema: &SchemaRef) -> Batches {
    let whole = schema.fields().iter().any(|field| !INDEXED.contains(&field.name().as_str()));
    let columns = Arc::clone(schema);
    match state.alerts(filter, whole) {
        Ok(rows) => chunks(
            rows,
            Arc::clone(schema),
            |row: &AlertRow| row.bytes,
            move |read| columns.fields().iter().map(|field| rows::alert_column(field.name(), read)).collect(),
        ),
        Err(error) => Box::new(std::iter::once(Err(failed(error)))),
    }
}

/// What the filters leave. What is not understood narrows nothing, so it is never too few.
fn asked(filters: &[Expr]) -> AlertFilter {
    let range = TimeRange::of(filters);
    let mut filter = AlertFilter { from_us: Some(range.from_us), to_us: Some(range.to_us), ..AlertFilter::default() };
    for term in filters.iter().flat_map(split_conjunction) {
        filter.statuses.retain(|status| holds(term, *status) != Some(false));
        filter.id = filter.id.or_else(|| one_id(term));
    }
    filter
}

/// Whether each alert that is read fulfils the condition.
pub(super) fn decides(condition: &Expr) -> bool {
    AlertFilter::default().statuses.iter().all(|status| holds(condition, *status).is_some())
}

/// Whether the condition holds for alerts of this status; `None`: it depends on something else.
fn holds(condition: &Expr, status: AlertStatus) -> Option<bool> {
    match condition {
        Expr::Not(inner) => holds(inner, status).map(|holds| !holds),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            match (holds(left, status), holds(right, status)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            match (holds(left, status), holds(right, status)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            }
        }
        Expr::BinaryExpr(comparison) => {
            let equal = compared(comparison, "status")? == status.as_str();
            match comparison.op {
                Operator::Eq => Some(equal),
                Operator::NotEq => Some(!equal),
                _ => None,
            }
        }
        Expr::InList(list) if is_column(&list.expr, "status") => {
            let words: Option<Vec<&str>> = list.list.iter().map(text).collect();
            Some(words?.contains(&status.as_str()) != list.negated)
        }
        _ => None,
    }
}

/// The only alert that the condition can mean. An id that is written otherwise than here is none.
fn one_id(condition: &Expr) -> Option<Uuid> {
    let Expr::BinaryExpr(comparison) = condition else { return None };
    let id = (comparison.op == Operator::Eq).then(|| compared(comparison, "id")).flatten()?;
    Uuid::parse_str(id).ok()
}

/// The text that a column is compared with.
fn compared<'a>(comparison: &'a BinaryExpr, column: &str) -> Option<&'a str> {
    let BinaryExpr { left, right, .. } = comparison;
    if is_column(left, column) {
        text(right)
    } else if is_column(right, column) {
        text(left)
    } else {
        None
    }
}

fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    #[test]
    fn conditions_leave_the_statuses_and_the_id_that_they_can_mean() {
        let statuses = |condition: Expr| asked(&[condition]).statuses;
        let all = AlertFilter::default().statuses;
        assert_eq!(statuses(col("status").eq(lit("open"))), [AlertStatus::Open]);
        assert_eq!(statuses(lit("open").eq(col("status")).and(col("pid").gt(lit(1)))), [AlertStatus::Open]);
        assert_eq!(statuses(col("status").not_eq(lit("suppressed"))).len(), all.len() - 1);
        let either = col("status").eq(lit("open")).or(col("status").eq(lit("closed")));
        assert_eq!(statuses(either.clone()), [AlertStatus::Closed, AlertStatus::Open]);
        assert_eq!(statuses(Expr::Not(Box::new(either))).len(), all.len() - 2);
        assert_eq!(statuses(col("status").in_list(vec![lit("open"), lit("none")], false)), [AlertStatus::Open]);
        assert_eq!(statuses(col("status").in_list(vec![lit("open")], true)).len(), all.len() - 1);
        assert_eq!(statuses(col("status").eq(lit("Open"))), []);
        for unknown in [
            col("status").eq(lit("open")).or(col("pid").eq(lit(1))),
            col("status").eq(col("title")),
            col("status").gt(lit("open")),
            col("title").eq(lit("open")),
        ] {
            assert_eq!(statuses(unknown.clone()), all, "{unknown}");
        }
        let id = Uuid::from_u128(7);
        assert_eq!(asked(&[col("id").eq(lit(id.to_string()))]).id, Some(id));
        assert_eq!(asked(&[col("id").not_eq(lit(id.to_string()))]).id, None);
        assert_eq!(asked(&[col("rule_id").eq(lit(id.to_string()))]).id, None);
    }
}
