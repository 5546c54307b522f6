//! `processes_at('2026-01-31T12:00Z')`: what lived at an instant, as a query over the lifetimes.
//!
//! The instant is a literal, spelt as `datetime(…)` takes it, or one bound parameter. So it is known before anything runs,
//! and a wrong one is refused where it stands instead of giving an empty answer.

use super::{SqlRefusal, lower, names, times};
use daemoneye_lib::functions::PROCESSES_AT;
use daemoneye_lib::proto::{self, value::Kind};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Ident, Query, SetExpr, Spanned as _, Statement, TableAlias,
    TableFactor, TableFunctionArgs, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use jiff::Timestamp;

/// The table that it reads.
pub(crate) const TABLE: &str = "process_lifetimes";
/// How it is written.
pub(crate) const HINT: &str =
    "write processes_at('2026-01-31T12:00Z'), processes_at('now', '-30 minutes') or processes_at($1)";

/// The parameter that stands for the instant, if one does.
pub(crate) fn parameter(args: &[FunctionArg]) -> Option<(usize, Location)> {
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan { value, span })))] = args else {
        return None;
    };
    let Value::Placeholder(name) = value else { return None };
    Some((name.strip_prefix('$')?.parse().ok()?, span.start))
}

/// Puts the query over lifetimes in the place of the call.
pub(crate) fn lower(table: &mut TableFactor) -> Result<(), SqlRefusal> {
    let TableFactor::Table { name, alias, args: Some(TableFunctionArgs { args, .. }), .. } = table else {
        return Ok(());
    };
    if !names::is_instant(name) {
        return Ok(());
    }
    let instant = match parameter(args) {
        Some((number, at)) => {
            let span = Span::new(at, at);
            let value = Value::Placeholder(format!("${number}"));
            lower::timestamp(Expr::Value(ValueWithSpan { value, span }))
        }
        None => {
            literal(args)?;
            lower::moment(args, PROCESSES_AT, name.span(), HINT)?
        }
    };
    let alias = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::new(PROCESSES_AT),
        columns: Vec::new(),
        at: None,
    });
    let subquery = Box::new(lived(&instant)?);
    *table = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
    Ok(())
}

/// Refuses a time that is none, or that lies in the future with all that is added to it. What follows the time is checked
/// where it is applied.
fn literal(args: &[FunctionArg]) -> Result<(), SqlRefusal> {
    let text = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text),
            span,
        }))) => Some((text.clone(), *span)),
        _ => None,
    };
    let mut texts = args.iter().map_while(text);
    let Some((time, span)) = texts.next() else {
        return Err(SqlRefusal::whole("processes_at takes a time as text", HINT));
    };
    let now = Timestamp::now().as_microsecond();
    let base = if is_now(&time) { Some(now) } else { times::microseconds(&time) };
    let Some(base) = base else { return Err(SqlRefusal::span(span, format!("'{time}' is no time"), HINT)) };
    let moved = texts.try_fold(base, |us, (modifier, _)| times::moved(us, &modifier));
    if moved.is_some_and(|us| us > now) {
        let written: Vec<String> = args.iter().map(ToString::to_string).collect();
        return Err(SqlRefusal::span(span, format!("{} lies in the future", written.join(", ")), HINT));
    }
    Ok(())
}

/// Refuses what is bound to an instant and is none.
pub(crate) fn bound(number: usize, at: Location, value: Option<&proto::Value>) -> Result<(), SqlRefusal> {
    let checked = match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::Text(text)) if is_now(text) => Ok(()),
        Some(Kind::Text(text)) => past(text),
        Some(Kind::TimestampUs(us)) if *us <= Timestamp::now().as_microsecond() => Ok(()),
        Some(Kind::TimestampUs(_)) => Err("the time lies in the future".to_owned()),
        _ => Err("processes_at takes a time".to_owned()),
    };
    checked.map_err(|why| SqlRefusal::at(at, format!("${number}: {why}"), HINT))
}

/// Whether this stands for the time at which it is asked.
pub(crate) fn is_now(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("now")
}

fn past(text: &str) -> Result<(), String> {
    match times::microseconds(text) {
        None => Err(format!("'{text}' is no time")),
        // Nobody knows yet what will live; `processes` says what lives now.
        Some(us) if us > Timestamp::now().as_microsecond() => Err(format!("'{text}' lies in the future")),
        Some(_) => Ok(()),
    }
}

/// `SELECT * FROM process_lifetimes WHERE start_time <= instant AND (stop_time > instant OR stop_time IS NULL)`
fn lived(instant: &Expr) -> Result<Query, SqlRefusal> {
    let column = |name: &str| Box::new(Expr::Identifier(Ident::new(name)));
    let binary = |left, op, right| Expr::BinaryOp { left, op, right };
    let instant = || Box::new(instant.clone());
    let started = binary(column("start_time"), BinaryOperator::LtEq, instant());
    let stopped_later = binary(column("stop_time"), BinaryOperator::Gt, instant());
    let lives = Expr::IsNull(column("stop_time"));
    let not_over = Expr::Nested(Box::new(binary(Box::new(stopped_later), BinaryOperator::Or, Box::new(lives))));
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &format!("SELECT * FROM {TABLE}"));
    let Ok([Statement::Query(query)]) = parsed.as_deref() else {
        return Err(SqlRefusal::whole("processes_at cannot be planned", "query process_lifetimes"));
    };
    let mut query = Query::clone(query);
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.selection = Some(binary(Box::new(started), BinaryOperator::And, Box::new(not_over)));
    }
    Ok(query)
}
