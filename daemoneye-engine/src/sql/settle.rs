//! What is settled on the plan once types are known and before anything is simplified: patterns are matched, and windows
//! filled, by functions that look at the clock, times may leave out their seconds, and whole numbers overflow with an error.

use super::allowance::Allowance;
use super::members::has_column;
use super::{arithmetic, matches, strict, times, units, windows};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Union, lit};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// Has to be the last of the analyzer's rules.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) allowance: Arc<Allowance>,
}

impl AnalyzerRule for Settle {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let columns = merge_schema(&node.inputs());
            let asks = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let settled = expr.transform_up(|expr| settled(expr, &columns, &self.allowance))?;
                let settled =
                    if asks { settled } else { settled.transform_data(|expr| expr.transform_up(as_it_runs))? };
                Ok(settled.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)?
            .map_data(with_nulls_of_inputs)
        })
        .map(|settled| settled.data)
    }

    fn name(&self) -> &'static str {
        "settle"
    }
}

/// `1 < x` as `x > 1`: of two bounds of one column the optimizer drops the stricter, and of two equalities makes a contradiction, where one
/// of them is written this way around.
fn turned(expr: Expr) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Transformed::no(expr) };
    match op.swap().filter(|op| op.supports_propagation() && !has_column(&left) && has_column(&right)) {
        Some(op) => Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: right, op, right: left })),
        None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    }
}

/// A UNION keeps what it knew of its inputs.
fn with_nulls_of_inputs(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Union(Union { inputs, schema }) = plan else { return Ok(plan) };
    let fields = schema.iter().enumerate().map(|(at, (qualifier, field))| {
        let may_be = inputs.iter().any(|input| input.schema().fields().get(at).is_some_and(|of| of.is_nullable()));
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(may_be)))
    });
    let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?);
    Ok(LogicalPlan::Union(Union { inputs, schema }))
}

/// `x IS TRUE` as a value: what runs is this, which may be NULL by its type, and groups of what may not be are refused then.
fn as_it_runs(expr: Expr) -> Result<Transformed<Expr>> {
    let (inner, op, with) = match expr {
        Expr::IsTrue(inner) => (inner, Operator::IsNotDistinctFrom, true),
        Expr::IsNotTrue(inner) => (inner, Operator::IsDistinctFrom, true),
        Expr::IsFalse(inner) => (inner, Operator::IsNotDistinctFrom, false),
        Expr::IsNotFalse(inner) => (inner, Operator::IsDistinctFrom, false),
        Expr::IsUnknown(inner) => return Ok(Transformed::yes(Expr::IsNull(inner))),
        Expr::IsNotUnknown(inner) => return Ok(Transformed::yes(Expr::IsNotNull(inner))),
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: inner, op, right: Box::new(lit(with)) })))
}

fn settled(expr: Expr, columns: &DFSchema, allowance: &Arc<Allowance>) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(_) | Expr::TryCast(_) => Ok(times::with_seconds(expr)),
        Expr::Negative(_) => arithmetic::checked(expr, columns),
        Expr::BinaryExpr(_) => {
            let expr = matches::settled(expr, allowance)?.transform_data(|expr| arithmetic::checked(expr, columns))?;
            expr.transform_data(|expr| times::far(expr, columns))?.transform_data(|expr| Ok(turned(expr)))
        }
        Expr::Between(_) => times::far(expr, columns),
        Expr::ScalarFunction(call) if call.name().starts_with("date_") => {
            units::checked(&call)?;
            if call.name() == "date_part" {
                times::seconds_of(call, columns)
            } else {
                Ok(Transformed::no(Expr::ScalarFunction(call)))
            }
        }
        Expr::ScalarFunction(call) if strict::is_strict(call.name()) => strict::settled(call, allowance),
        Expr::WindowFunction(call) => Ok(Transformed::yes(Expr::WindowFunction(windows::watched(call, allowance)))),
        other => matches::settled(other, allowance),
    }
}
