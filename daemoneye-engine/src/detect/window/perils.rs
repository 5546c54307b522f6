//! What would fail for one event of the window, and then for every run as long as that event is in it: whoever chooses the name of
//! a process could blind the rule. A rule over single events is refused for the same.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan, Operator};

/// A place that may fail, and what to write instead.
#[derive(Debug)]
pub(super) struct Peril {
    pub(super) what: String,
    pub(super) hint: &'static str,
}

/// The first of them, if there is one.
pub(super) fn peril(plan: &LogicalPlan) -> Result<Option<Peril>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        let mut columns = node.inputs().first().map_or_else(|| node.schema().as_ref().clone(), |_| DFSchema::empty());
        node.inputs().iter().for_each(|input| columns.merge(input.schema()));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = of(expr, &columns)?;
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

fn of(expr: &Expr, columns: &DFSchema) -> Result<Option<Peril>> {
    let peril = |what: String, hint| Some(Peril { what, hint });
    Ok(match expr {
        Expr::Cast(cast) => {
            let is_open = !matches!(*cast.expr, Expr::Literal(..)) && is_text(&cast.expr.get_type(columns)?);
            if is_open && !is_text(cast.field.data_type()) {
                peril(
                    format!("{expr} fails for text that is none, and the rule with it"),
                    "write TRY_CAST(… AS BIGINT), which is NULL then",
                )
            } else {
                None
            }
        }
        Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Divide | Operator::Modulo) => {
            if never_zero(&binary.right) || binary.right.get_type(columns)?.is_floating() {
                None
            } else {
                peril(
                    format!("{expr} fails where {} is 0, and the rule with it", binary.right),
                    "write … / nullif(…, 0), which is NULL then",
                )
            }
        }
        Expr::ScalarSubquery(subquery) if !is_one_row(&subquery.subquery) => peril(
            "a subquery in place of a value fails where it has more than one row, and the rule with it".to_owned(),
            "take one value of it: max(pid), min(time) or LIMIT 1",
        ),
        _ => None,
    })
}

const fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn never_zero(divisor: &Expr) -> bool {
    match divisor {
        Expr::Literal(value, _) => !value.to_string().chars().all(|char| matches!(char, '0' | '.' | '-')),
        Expr::ScalarFunction(function) => function.name() == "nullif",
        Expr::Alias(alias) => never_zero(&alias.expr),
        Expr::Cast(cast) => never_zero(&cast.expr),
        _ => false,
    }
}

fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(limit) => matches!(
            limit.get_fetch_type(),
            Ok(datafusion::logical_expr::FetchType::Literal(Some(fetch))) if fetch <= 1
        ),
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Distinct(_) => plan.inputs().first().is_some_and(|input| is_one_row(input)),
        LogicalPlan::EmptyRelation(_) => true,
        _ => false,
    }
}
