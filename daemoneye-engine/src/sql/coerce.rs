//! What the planner may not do unasked: make a number, a time or a truth value of a column that is text. The first row whose text
//! is none would end the query, so the statement is refused instead. A CAST that is written stays.

use super::wording::Sort;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Diagnostic, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, Expr, ExprSchemable as _, LogicalPlan, TryCast, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use std::collections::HashSet;

/// How the refusal says it: the hint goes by these words.
pub(super) const IS_TEXT: &str = "is text and no";

/// Of a frame whose distance does not fit what its rows are ordered by.
pub(super) const RANGE_OVER: &str = "RANGE over ";
/// Of a value that is none of the window.
pub(super) const FROM_ONE: &str = "nth_value: it counts from 1";

/// Stands where the planner's own coercion stands.
#[derive(Debug)]
pub(crate) struct Coerce(TypeCoercion);

impl Coerce {
    pub(crate) fn new() -> Self {
        Self(TypeCoercion::new())
    }
}

impl AnalyzerRule for Coerce {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        windows(&plan)?;
        let mut written = HashSet::new();
        each_cast(&plan, |_, inner, to| {
            written.insert((bare(inner), to.clone()));
            Ok(())
        })?;
        let coerced = self.0.analyze(plan, config)?;
        let stored = stored_texts(&coerced)?;
        each_cast(&coerced, |columns, inner, to| {
            let Some(column) = column_of(inner).filter(|column| stored.contains(&column.name)) else { return Ok(()) };
            let of_text = columns().is_ok_and(|columns| inner.get_type(&columns).is_ok_and(|of| is_text(&of)));
            if is_text(to) || !of_text || written.contains(&(bare(inner), to.clone())) {
                return Ok(());
            }
            let whole = if matches!(inner, Expr::Column(_) | Expr::OuterReferenceColumn(..)) {
                ""
            } else {
                "what is made of "
            };
            let message = format!("{whole}{} {IS_TEXT} {}", column.name, noun(to));
            let diagnostic = Diagnostic::new_error(message.clone(), column.spans.first());
            Err(DataFusionError::Plan(message).with_diagnostic(diagnostic))
        })?;
        Ok(coerced)
    }

    fn name(&self) -> &'static str {
        "type_coercion"
    }
}

/// A number over times would be seconds, over texts and truth values all of the rows, and a zeroth value that of no row.
fn windows(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let columns = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::WindowFunction(call) => window(call, &columns).map(|()| TreeNodeRecursion::Continue),
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })
    .map(|_| ())
}

fn window(call: &WindowFunction, columns: &DFSchema) -> Result<()> {
    let params = &call.params;
    if let (WindowFunctionDefinition::WindowUDF(function), [_, Expr::Literal(ScalarValue::Int64(Some(nth)), _)]) =
        (&call.fun, params.args.as_slice())
        && function.name() == "nth_value"
        && *nth < 1
    {
        return plan_err!("{FROM_ONE}, and this is {nth}");
    }
    let frame = &params.window_frame;
    let (WindowFrameUnits::Range, [key, ..]) = (frame.units, params.order_by.as_slice()) else { return Ok(()) };
    let of = Sort::of(&key.expr.get_type(columns)?);
    for bound in [&frame.start_bound, &frame.end_bound] {
        let (WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance)) = bound else { continue };
        // As it was written, a number or the text of an interval.
        let is_number = match distance.try_as_str() {
            _ if distance.is_null() => continue,
            Some(text) => text.is_some_and(|text| text.parse::<f64>().is_ok()),
            None => true,
        };
        match of {
            Sort::Number => {}
            Sort::Time if !is_number => {}
            Sort::Time => return plan_err!("{RANGE_OVER}a time takes no plain number"),
            other => return plan_err!("{RANGE_OVER}{} has no distances", other.words()),
        }
    }
    Ok(())
}

/// The columns of text that tables have. Those that a statement makes of literals hold what it says.
fn stored_texts(plan: &LogicalPlan) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let texts = scan.projected_schema.fields().iter().filter(|field| is_text(field.data_type()));
            found.extend(texts.map(|field| field.name().clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Every CAST of a plan, with the columns that it may name.
fn each_cast(
    plan: &LogicalPlan,
    mut see: impl FnMut(&dyn Fn() -> Result<DFSchema>, &Expr, &DataType) -> Result<()>,
) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let columns = || Ok(merge_schema(&node.inputs()));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) = expr {
                    see(&columns, expr, field.data_type())?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

/// The expression without its casts: coercion puts some into those that are written as well.
fn bare(expr: &Expr) -> Expr {
    let bared = expr.clone().transform_up(|expr| match expr {
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => Ok(Transformed::yes(*expr)),
        other => Ok(Transformed::no(other)),
    });
    bared.map_or_else(|_| expr.clone(), |bared| bared.data)
}

/// The first column that the value comes from; what is made of literals alone is calculated while planning.
fn column_of(expr: &Expr) -> Option<datafusion::common::Column> {
    let mut found = None;
    let walked = expr.apply(|expr| match expr {
        // What decides which value it is, is not made a number of.
        Expr::Case(_) => Ok(TreeNodeRecursion::Jump),
        Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => {
            found = Some(column.clone());
            Ok(TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    });
    walked.ok().and(found)
}

fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, values) => is_text(values),
        of => matches!(of, DataType::LargeUtf8 | DataType::Utf8 | DataType::Utf8View),
    }
}

fn noun(to: &DataType) -> &'static str {
    match to {
        DataType::Boolean => "truth value",
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => "time",
        DataType::Interval(_) | DataType::Duration(_) => "length of time",
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "bytes",
        _ => "number",
    }
}
