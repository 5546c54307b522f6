//! Columns of `alerts`, one at a time: a statement reads some of them, and the two that are JSON cost as much as the rest.

use super::{integer, json, text, texts, time};
use crate::store::AlertRow;
use daemoneye_lib::model::{Alert, EventPointer};
use datafusion::arrow::array::ArrayRef;
use serde_json::Value;

/// The column of that name. What was not read, as the index has none of it, is NULL.
pub(in super::super) fn alert_column(name: &str, rows: &[AlertRow]) -> ArrayRef {
    let words = |of: fn(&Alert) -> String| texts(rows, move |row| row.alert.as_ref().map(of));
    let maybe = |of: fn(&Alert) -> Option<String>| texts(rows, move |row| row.alert.as_ref().and_then(of));
    let number = |of: fn(&Alert) -> Option<i64>| integer(rows, move |row| row.alert.as_ref().and_then(of));
    let at = |of: fn(&Alert) -> i64| time(rows, move |row| row.alert.as_ref().map(of));
    let of_process = || {
        let of = |alert: &Alert| alert.process.get(name).and_then(Value::as_str).map(str::to_owned);
        texts(rows, move |row| row.alert.as_ref().and_then(of))
    };
    let cause = |of: fn(&EventPointer) -> u64| {
        let cause = |row: &AlertRow| row.alert.as_ref().and_then(|alert| alert.events.first()).map(of);
        integer(rows, move |row| cause(row).and_then(|number| i64::try_from(number).ok()))
    };
    match name {
        "id" => text(rows, |row| row.id.to_string()),
        "time" => time(rows, |row| Some(row.time_us)),
        "status" => text(rows, |row| row.status.as_str().to_owned()),
        "severity" => words(|alert| alert.severity.as_str().to_owned()),
        "title" => words(|alert| alert.title.clone()),
        "description" => words(|alert| alert.description.clone()),
        "rule_id" => words(|alert| alert.rule_id.to_string()),
        "rule_version" => number(|alert| Some(i64::from(alert.rule_version))),
        "rule_hash" => words(|alert| alert.rule_hash.clone()),
        "pack" => words(|alert| alert.pack.clone()),
        "tags" => words(|alert| alert.tags.join(",")),
        "entity_id" | "name" | "executable_path" | "command_line" => of_process(),
        "pid" => number(|alert| alert.process.get("pid").and_then(Value::as_i64)),
        "process" => maybe(|alert| json(&alert.process)),
        "row" => maybe(|alert| json(&alert.row)),
        "dedup_key" => words(|alert| alert.dedup_key.clone()),
        "count" => number(|alert| i64::try_from(alert.count).ok()),
        "first_seen" => at(|alert| alert.first_seen_us),
        "last_seen" => at(|alert| alert.last_seen_us),
        "completeness" => words(|alert| alert.completeness.describe()),
        "collector" => maybe(|alert| alert.events.first().map(|event| event.collector.clone())),
        "epoch" => cause(|event| event.epoch),
        "seq" => cause(|event| event.number),
        "engine" => words(|alert| alert.engine.clone()),
        "host" => words(|alert| alert.host.clone()),
        "suppressed_by" => maybe(|alert| alert.suppressed_by.map(|exception| exception.to_string())),
        _ => texts(rows, |_| None),
    }
}
