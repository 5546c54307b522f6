//! Values that decide what a function does, looked at before it runs: on the rows a wrong one would end a query that was accepted.

use super::matches;
use datafusion::arrow::compute::kernels::cast_utils::IntervalUnit;
use datafusion::common::tree_node::TreeNode as _;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;
use std::str::FromStr as _;

/// What a time can be cut to.
const UNITS: [&str; 10] =
    ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"];
/// Parts of a time that are no unit of a length.
const PARTS: [&str; 7] = ["doy", "dow", "isodow", "isoyear", "epoch", "qtr", "quarter"];

/// How the refusals say it: the hints go by these words.
pub(super) const NO_UNIT: &str = "is no unit of time";
pub(super) const NO_PART: &str = "is no part of a time";
pub(super) const NO_WIDTH: &str = "a width of time";

/// Refuses a unit that does not exist and a width that is none.
pub(crate) fn checked(call: &ScalarFunction) -> Result<()> {
    let (name, Some(value)) = (call.name(), call.args.first()) else { return Ok(()) };
    match name {
        "date_bin" => width(value),
        "date_part" => word(name, value, NO_PART, is_part),
        "date_trunc" => word(name, value, NO_UNIT, |word| UNITS.contains(&word)),
        _ => Ok(()),
    }
}

fn word(name: &str, value: &Expr, what: &str, known: impl Fn(&str) -> bool) -> Result<()> {
    if open(value) {
        return Ok(());
    }
    match matches::literal(value) {
        Some(text) if known(&text.to_ascii_lowercase()) => Ok(()),
        Some(text) => plan_err!("{name}: '{text}' {what}"),
        None => plan_err!("{name}: what stands first is a word in single quotes; anything else {what}"),
    }
}

fn is_part(word: &str) -> bool {
    let calendar = |unit| !matches!(unit, IntervalUnit::Century | IntervalUnit::Decade);
    PARTS.contains(&word) || IntervalUnit::from_str(word).is_ok_and(calendar)
}

fn width(value: &Expr) -> Result<()> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(width)), _) = value else { return Ok(()) };
    if width.months != 0 && (width.days != 0 || width.nanoseconds != 0) {
        return plan_err!("date_bin: {NO_WIDTH} has months, or days and hours, and not both");
    }
    if width.months < 0 || width.days < 0 || width.nanoseconds < 0 || *width == Default::default() {
        return plan_err!("date_bin: {NO_WIDTH} is longer than nothing");
    }
    Ok(())
}

/// A parameter, which is bound later, or the NULL that stands for one to find out which does not fit.
fn open(value: &Expr) -> bool {
    let open = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.is_null(),
        other => matches!(other, Expr::Placeholder(_)),
    };
    value.exists(|expr| Ok(open(expr))).unwrap_or(true)
}
