//! Sugar into what the planner knows: `REGEXP` into `~`, `datetime(…)` into timestamp arithmetic, and long flat chains of AND
//! or OR into balanced trees, which mean the same and are shallow for everything that recurses later.

use super::{SqlRefusal, instant, names, times};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, Interval, ObjectName, ObjectNamePart, OrderBy, OrderByKind, Query, Select, SelectItem,
    SetExpr, Spanned as _, TableFactor, TimezoneInfo, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// Chains up to this long stay as they were written.
const SHALLOW: usize = 24;

/// Lowers a query that the walk accepted.
pub(crate) fn query(query: &mut Query) -> Result<(), SqlRefusal> {
    match query.visit(&mut Lower) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

struct Lower;

impl VisitorMut for Lower {
    type Break = SqlRefusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlRefusal> {
        order_by_names(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlRefusal> {
        name_columns(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<SqlRefusal> {
        match instant::lower(table) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlRefusal> {
        balance(expr);
        match take(expr) {
            Expr::RLike { negated, expr: text, pattern, regexp: _ } => {
                let op = if negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
                *expr = Expr::BinaryOp { left: text, op, right: pattern };
            }
            Expr::Function(function) if is_datetime(&function) => {
                match moment(arguments(&function), names::DATETIME, function.span(), DATETIME_HINT) {
                    Ok(lowered) => *expr = lowered,
                    Err(refusal) => return ControlFlow::Break(refusal),
                }
            }
            Expr::Function(function) if names::is_user_column(&function) => *expr = column(&function),
            kept => *expr = kept,
        }
        ControlFlow::Continue(())
    }
}

/// What is calculated is called by its text, as it was written and not as it is planned. What is selected twice gets a number the
/// second time: columns of one SELECT must differ in their names.
fn name_columns(items: &mut [SelectItem]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in items {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let text = match &*expr {
            Expr::CompoundIdentifier(parts) => parts.last().map(ToString::to_string).unwrap_or_default(),
            other => other.to_string(),
        };
        let times = seen.entry(expr.to_string()).or_default();
        *times = times.saturating_add(1);
        let name = match *times {
            1 if is_column(expr) => continue,
            1 => text,
            times => format!("{text}_{times}"),
        };
        *item = SelectItem::ExprWithAlias { expr: take(expr), alias: Ident::with_quote('"', name) };
    }
}

/// After DISTINCT the planner knows what is calculated by its name only, which [`name_columns`] is about to give it.
fn order_by_names(query: &mut Query) {
    let (SetExpr::Select(select), Some(OrderBy { kind: OrderByKind::Expressions(keys), .. })) =
        (query.body.as_ref(), &mut query.order_by)
    else {
        return;
    };
    if select.distinct != Some(Distinct::Distinct) {
        return;
    }
    let calculated = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) if !is_column(expr) => Some(expr.to_string()),
        _ => None,
    };
    let names: HashSet<String> = select.projection.iter().filter_map(calculated).collect();
    for key in keys {
        let text = key.expr.to_string();
        // A number is the place of a column.
        if !matches!(key.expr, Expr::Value(_)) && names.contains(&text) {
            key.expr = Expr::Identifier(Ident::with_quote('"', text));
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Function(function) => names::is_user_column(function),
        _ => false,
    }
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, literal(Value::Null))
}

fn literal(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

fn balance(expr: &mut Expr) {
    let Expr::BinaryOp { op, .. } = &*expr else { return };
    if !matches!(op, BinaryOperator::And | BinaryOperator::Or) {
        return;
    }
    let op = op.clone();
    if spine(expr, &op) <= SHALLOW {
        return;
    }
    let mut operands = Vec::new();
    let mut open = vec![take(expr)];
    while let Some(next) = open.pop() {
        match next {
            Expr::BinaryOp { left, op: of, right } if of == op => {
                open.push(*right);
                open.push(*left);
            }
            operand => operands.push(operand),
        }
    }
    // Pairs of neighbours, then pairs of pairs: the order of evaluation from left to right is kept.
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut rest = operands.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        operands = pairs;
    }
    if let Some(root) = operands.pop() {
        *expr = root;
    }
}

/// How many operators of one kind hang to the left.
fn spine(expr: &Expr, op: &BinaryOperator) -> usize {
    let mut levels = 0;
    let mut at = expr;
    while let Expr::BinaryOp { left, op: of, right: _ } = at {
        if of != op {
            break;
        }
        levels += 1;
        at = left;
    }
    levels
}

fn column(function: &Function) -> Expr {
    let mut parts: Vec<Ident> = function.name.0.iter().filter_map(ObjectNamePart::as_ident).cloned().collect();
    match parts.pop() {
        Some(only) if parts.is_empty() => Expr::Identifier(only),
        last => Expr::CompoundIdentifier(parts.into_iter().chain(last).collect()),
    }
}

fn is_datetime(function: &Function) -> bool {
    matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| names::normal(ident) == names::DATETIME))
}

/// How it is written.
const DATETIME_HINT: &str = "write datetime('now', '-30 minutes') or datetime('2026-01-31T12:00Z')";

fn arguments(function: &Function) -> &[FunctionArg] {
    match &function.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    }
}

/// `(time, modifier…)`, as SQLite writes it: the time, then each modifier applied to it in order.
pub(crate) fn moment(args: &[FunctionArg], name: &str, at: Span, hint: &str) -> Result<Expr, SqlRefusal> {
    let mut texts = Vec::new();
    for arg in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan { value, span }))) = arg else {
            continue;
        };
        let Value::SingleQuotedString(text) = value else {
            return Err(SqlRefusal::span(*span, format!("{name} takes strings"), hint));
        };
        texts.push((text.trim().to_ascii_lowercase(), text.clone(), *span));
    }
    let Some(((word, time, span), modifiers)) = texts.split_first() else {
        return Err(SqlRefusal::span(at, format!("{name} without a time"), hint));
    };
    let written = || ValueWithSpan { value: Value::SingleQuotedString(time.clone()), span: *span };
    let base = if word == "now" { call("now", Vec::new()) } else { Expr::Value(written()) };
    let mut lowered = timestamp(base);
    for (modifier, _, span) in modifiers {
        lowered = modified(lowered, modifier)
            .ok_or_else(|| SqlRefusal::span(*span, format!("{name} does not know the modifier {modifier}"), hint))?;
    }
    Ok(lowered)
}

fn modified(time: Expr, modifier: &str) -> Option<Expr> {
    if let Some(unit) = modifier.strip_prefix("start of ") {
        let unit = ["year", "month", "day", "hour"].into_iter().find(|known| *known == unit)?;
        return Some(timestamp(call("date_trunc", vec![literal(Value::SingleQuotedString(unit.to_owned())), time])));
    }
    let (number, unit) = modifier.split_once(' ')?;
    let number: i64 = number.strip_prefix('+').unwrap_or(number).parse().ok()?;
    let unit = unit.trim().trim_end_matches('s');
    let unit =
        ["second", "minute", "hour", "day", "week", "month", "year"].into_iter().find(|known| *known == unit)?;
    let length = format!("{number} {unit}");
    if !times::is_interval(&length) {
        return None;
    }
    let interval = Expr::Interval(Interval {
        value: Box::new(literal(Value::SingleQuotedString(length))),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    });
    Some(Expr::Nested(Box::new(Expr::BinaryOp {
        left: Box::new(time),
        op: BinaryOperator::Plus,
        right: Box::new(interval),
    })))
}

/// In the type of our time columns, so that comparing needs no cast of the column.
pub(crate) fn timestamp(expr: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type: DataType::Timestamp(Some(6), TimezoneInfo::WithTimeZone),
        array: false,
        format: None,
    }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
