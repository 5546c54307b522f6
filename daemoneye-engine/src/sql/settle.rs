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
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan};
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
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let settled = expr.transform_up(|expr| settled(expr, &columns, &self.allowance))?;
                Ok(settled.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
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
