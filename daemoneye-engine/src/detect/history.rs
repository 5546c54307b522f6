//! A rule as a query over history: whole rows of the events that it would have matched, in the order of time.

use daemoneye_lib::model::RuleKind;

use super::{LoadedRule, compile};
use crate::sql;

/// The rows of `process_events` from `$1` on and before `$2` that these rules have to see so that each decides as it would have:
/// of a rule that one event decides those that match, of another one all. A condition that cannot be asked back in SQL is
/// left to the matcher, and so are conditions that call the table by different names.
#[must_use]
pub fn history_sql(rules: &[&LoadedRule]) -> String {
    let narrowed: Option<Vec<(String, String)>> = rules.iter().map(|rule| narrowed(rule)).collect();
    let sql = narrowed.and_then(|narrowed| {
        let (table, _) = narrowed.first()?;
        let alike = narrowed.iter().all(|(other, _)| other == table);
        let conditions: Vec<&str> = narrowed.iter().map(|(_, condition)| condition.as_str()).collect();
        alike.then(|| rows(table, &format!(" AND ({})", conditions.join(" OR "))))
    });
    sql.filter(|sql| sql::check(sql).is_ok()).unwrap_or_else(|| rows("process_events", ""))
}

/// The name of the table in the rule's condition, and the condition of the rows that match.
fn narrowed(rule: &LoadedRule) -> Option<(String, String)> {
    if rule.rule.kind != RuleKind::Stream {
        return None;
    }
    let checked = rule.checked().ok()?;
    let (table, condition) = compile::table_and_condition(checked.query()).ok()?;
    let forks = (!rule.compiled.sees_forks).then(|| "start_kind IS DISTINCT FROM 'fork'".to_owned());
    let condition = condition.map(|condition| format!("({condition})"));
    let parts: Vec<String> = forks.into_iter().chain(condition).collect();
    Some((table, if parts.is_empty() { "TRUE".to_owned() } else { format!("({})", parts.join(" AND ")) }))
}

fn rows(table: &str, further: &str) -> String {
    let from = if table == "process_events" { table.to_owned() } else { format!("process_events AS {table}") };
    format!("SELECT * FROM {from} WHERE time >= $1 AND time < $2{further} ORDER BY time, collector, epoch, seq")
}
