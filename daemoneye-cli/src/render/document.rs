//! A JSON document (health, an alert) for a person or a machine.

use std::fmt::Write as _;

use serde_json::Value;

use super::table::Table;
use super::{Format, line};
use crate::value;
use daemoneye_lib::proto::Row;

/// Deeper nesting is shown as JSON.
const MAX_DEPTH: usize = 6;
/// An object with more fields is easier to read one below the other.
const MAX_COLUMNS: usize = 8;
/// An array of words that is longer is shown as a list.
const MAX_LINE_BYTES: usize = 80;

/// A document as indented text or `key = value` for a person, as JSON for a machine. CSV has [`leaves`] in its place.
pub(super) fn text(format: Format, document: &Value) -> String {
    match format {
        Format::Json => format!("{document:#}\n"),
        Format::JsonLines => format!("{document}\n"),
        Format::Line => {
            let mut leaves = Vec::new();
            flatten("", &dated(document), &mut leaves);
            let (keys, values): (Vec<String>, Vec<String>) = leaves.into_iter().unzip();
            line::page(&keys, &[Row { values: values.into_iter().map(value::of_text).collect() }])
        }
        Format::Csv | Format::Table => {
            let mut text = String::new();
            describe(&dated(document), 0, &mut text);
            text.trim_start_matches('\n').to_owned()
        }
    }
}

/// Key and value of everything in a document that has no parts.
pub(super) fn leaves(document: &Value) -> Vec<Row> {
    let mut leaves = Vec::new();
    flatten("", document, &mut leaves);
    let cells = |(key, text): (String, String)| Row { values: vec![value::of_text(key), value::of_text(text)] };
    leaves.into_iter().map(cells).collect()
}

fn flatten(prefix: &str, document: &Value, leaves: &mut Vec<(String, String)>) {
    let key = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match document {
        Value::Object(fields) => fields.iter().for_each(|(name, inner)| flatten(&key(name), inner, leaves)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, inner)| flatten(&key(&at.to_string()), inner, leaves));
        }
        leaf => leaves.push((prefix.to_owned(), scalar(leaf))),
    }
}

fn scalar(leaf: &Value) -> String {
    match leaf {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Scalars first, aligned; then each group under its name.
fn describe(document: &Value, depth: usize, text: &mut String) {
    let Value::Object(fields) = document else {
        return indented(text, depth, &scalar(document));
    };
    let is_group = |inner: &Value| depth < MAX_DEPTH && !is_empty(inner) && (inner.is_object() || is_list(inner));
    let (mut groups, leaves): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, inner)| is_group(inner));
    // What is wrong comes first.
    groups.sort_by_key(|(name, _)| *name != "findings");
    let mut leaves: Vec<_> = leaves.into_iter().filter(|(_, leaf)| !is_empty(leaf)).collect();
    leaves.sort_by_key(|(name, _)| rank(name));
    let width = leaves.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, leaf) in leaves {
        indented(text, depth, &format!("{name:width$}  {}", shown(leaf)));
    }
    for (name, inner) in groups {
        text.push_str(if depth == 0 { "\n" } else { "" });
        indented(text, depth, name);
        match inner {
            Value::Array(items) if !items.iter().any(Value::is_object) => {
                items.iter().for_each(|item| indented(text, depth + 1, &scalar(item)));
            }
            Value::Array(items) if items.iter().all(is_short) => grid(items, depth + 1, text),
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    text.push_str(if at > 0 { "\n" } else { "" });
                    describe(item, depth + 1, text);
                }
            }
            other => describe(other, depth + 1, text),
        }
    }
}

/// Whether an object fits on one line of a table.
fn is_short(item: &Value) -> bool {
    item.as_object()
        .is_some_and(|fields| fields.len() <= MAX_COLUMNS && fields.values().all(|inner| !inner.is_object()))
}

/// Like objects as a table; columns that are empty everywhere are left out.
fn grid(items: &[Value], depth: usize, text: &mut String) {
    let mut columns: Vec<String> = Vec::new();
    for (name, inner) in items.iter().filter_map(Value::as_object).flatten() {
        if !is_empty(inner) && !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    columns.sort_by_key(|name| rank(name));
    let cell = |item: &Value, name: &String| value::of_text(item.get(name).map(shown).unwrap_or_default());
    let cells = |item: &Value| Row { values: columns.iter().map(|name| cell(item, name)).collect() };
    let rows: Vec<Row> = items.iter().map(cells).collect();
    for row in Table::new(false).page(&columns, &rows).lines() {
        // The cells were made harmless by the table.
        writeln!(text, "{}{row}", "  ".repeat(depth)).unwrap_or_default();
    }
}

/// Whether an array reads better one item below the other.
fn is_list(array: &Value) -> bool {
    let items = array.as_array().map(Vec::as_slice).unwrap_or_default();
    let length: usize = items.iter().map(|item| scalar(item).len()).sum();
    items.iter().any(Value::is_object) || (items.len() > 1 && length > MAX_LINE_BYTES)
}

/// Nothing that a person would want to read.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn shown(leaf: &Value) -> String {
    match leaf {
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        other => scalar(other),
    }
}

/// Times are kept as numbers in documents; a person reads dates, under the names that the SQL tables have for them.
fn dated(document: &Value) -> Value {
    match document {
        Value::Object(fields) => Value::Object(fields.iter().map(|(name, inner)| dated_field(name, inner)).collect()),
        Value::Array(items) => Value::Array(items.iter().map(dated).collect()),
        leaf => leaf.clone(),
    }
}

fn dated_field(name: &str, inner: &Value) -> (String, Value) {
    let number = inner.as_i64();
    let us = |stem| Some((stem, number.filter(|us| *us > EARLIEST_TIME_US)?));
    let ms = |stem| Some((stem, number?.checked_mul(1_000).filter(|us| *us > EARLIEST_TIME_US)?));
    match name.strip_suffix("_us").and_then(us).or_else(|| name.strip_suffix("_ms").and_then(ms)) {
        Some((stem @ ("from" | "last_exit" | "to"), us)) => (format!("{stem}_time"), value::timestamp(us).into()),
        Some((stem, us)) => (stem.to_owned(), value::timestamp(us).into()),
        None => (name.to_owned(), dated(inner)),
    }
}

/// Objects come with their fields by name. Which thing it is stands first, then what `alerts list` and the SQL tables begin with.
fn rank(name: &str) -> usize {
    LEADING.iter().position(|leading| *leading == name).unwrap_or(LEADING.len())
}

const LEADING: &[&str] = &[
    "id",
    "name",
    "table",
    "column",
    "level",
    "segment",
    "layer",
    "call",
    "collector",
    "time",
    "severity",
    "title",
    "state",
    "reason",
    "from_time",
    "to_time",
];

/// The year 2001: below it a number with such a name is a duration.
const EARLIEST_TIME_US: i64 = 1_000_000_000_000_000;

fn indented(text: &mut String, depth: usize, content: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{}{}", "  ".repeat(depth), value::harmless(content)).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_reads_as_aligned_lines_under_headings() {
        let document = json!({
            "state": "running",
            "pid": 7,
            "nothing": null,
            "started_us": 1_769_860_800_000_000_i64,
            "sinks": [{"name": "file", "enabled": true}, {"name": "stdout"}],
            "store": {"rows": 3, "notes": ["a", "b"]},
        });
        let mut text = String::new();
        describe(&dated(&document), 0, &mut text);
        for expected in
            ["state    running", "2026-01-31T12:00:00.000000Z", "\nsinks\n", "  notes  a, b\n", "  rows   3\n"]
        {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains("nothing"), "{text}");
    }

    #[test]
    fn a_person_reads_what_it_is_first_and_times_under_the_names_of_the_tables() {
        let us = 1_769_860_800_000_000_i64;
        let document = json!({
            "collectors": [{"buffer_bytes": 1, "id": "procmond", "last_heartbeat_us": us, "state": "running"}],
            "coverage": {"latest": [{"collector": "bus", "count": 2, "from_us": us, "reason": "x", "to_us": us}]},
            "components": [{"last_exit": "exit code 1", "last_exit_ms": us / 1_000, "name": "worker"}],
            "probes": [{"allowed": false, "answer": "done", "call": "execve"}],
            "sinks": [{"dead": 0, "delivered": 5, "name": "file"}],
            "uptime_ms": 4758, "elapsed_us": 3, "time_us": us,
        });
        let mut text = String::new();
        describe(&dated(&document), 0, &mut text);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        for expected in [
            "id state buffer_bytes last_heartbeat",
            "collector reason from_time to_time count",
            "name last_exit last_exit_time",
            "call allowed answer",
            "name dead delivered",
            "time 2026-01-31T12:00:00.000000Z",
            "uptime_ms 4758",
            "elapsed_us 3",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_document_flattens_to_keys_and_values() {
        let mut leaves = Vec::new();
        flatten("", &json!({"a": {"b": [1, "x"]}}), &mut leaves);
        assert_eq!(leaves, [("a.b.0".to_owned(), "1".to_owned()), ("a.b.1".to_owned(), "x".to_owned())]);
    }
}
