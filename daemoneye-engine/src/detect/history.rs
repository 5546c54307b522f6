//! A rule as a query over history: whole rows of the events that it would have matched, in the order of time.

use daemoneye_lib::model::RuleKind;

use super::rules::Lists;
use super::{LoadedRule, compile};
use crate::sql;

/// The rows of `process_events` from `$1` on and before `$2` that the rule has to see so that it decides as it would have:
/// of a rule that one event decides those that match, of another one all. A condition that cannot be asked back in SQL is
/// left to the matcher.
#[must_use]
pub fn history_sql(rule: &LoadedRule) -> String {
    let narrowed = if rule.rule.kind == RuleKind::Stream { narrowed(rule) } else { None };
    narrowed.filter(|sql| sql::check(sql).is_ok()).unwrap_or_else(|| rows("process_events", ""))
}

fn narrowed(rule: &LoadedRule) -> Option<String> {
    let checked = sql::check_rule(rule.plain_sql(), compile::functions::instead, &Lists::default()).ok()?;
    let (table, condition) = compile::table_and_condition(checked.query()).ok()?;
    // In parentheses: the parser takes all that follows DISTINCT FROM as its right side.
    let forks = if rule.compiled.sees_forks { "" } else { " AND (start_kind IS DISTINCT FROM 'fork')" };
    let condition = condition.map(|condition| format!(" AND ({condition})")).unwrap_or_default();
    Some(rows(&table, &format!("{forks}{condition}")))
}

fn rows(table: &str, further: &str) -> String {
    let from = if table == "process_events" { table.to_owned() } else { format!("process_events AS {table}") };
    format!("SELECT * FROM {from} WHERE time >= $1 AND time < $2{further} ORDER BY time, collector, epoch, seq")
}
