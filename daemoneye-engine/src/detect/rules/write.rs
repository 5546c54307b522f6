//! Rules, their exceptions and value lists as files again, with every field as it is in force: what an export holds and another host can load.

use std::fmt::Write as _;

use daemoneye_lib::model::RuleState;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::exceptions::Exception;
use super::LoadedRule;
use super::except::{MAX_EXCEPTIONS, NEVER};
use super::lists::{Lists, json as values};

/// Bytes of values in one file of a list: half of what a file may have, which leaves room for the rest of it.
const PART_BYTES: usize = 128 * 1024;

/// The rule as YAML that is read as the same rule where its lists are, too.
#[must_use]
pub fn to_yaml(loaded: &LoadedRule) -> String {
    let (rule, mut yaml) = (&loaded.rule, String::new());
    field(&mut yaml, "id", &json!(rule.id));
    field(&mut yaml, "name", &json!(rule.name));
    field(&mut yaml, "description", &json!(rule.description));
    field(&mut yaml, "author", &json!(rule.author));
    field(&mut yaml, "references", &json!(rule.references));
    field(&mut yaml, "severity", &json!(rule.severity));
    field(&mut yaml, "category", &json!(rule.category));
    field(&mut yaml, "tags", &json!(rule.tags));
    field(&mut yaml, "status", &json!(rule.status));
    field(&mut yaml, "false_positives", &json!(rule.false_positives));
    sql(&mut yaml, &loaded.rule.sql);
    field(&mut yaml, "dedup", &json!(rule.dedup));
    field(&mut yaml, "window", &json!(rule.dedup_window_s));
    match rule.state {
        RuleState::Disabled => field(&mut yaml, "enabled", &json!(false)),
        RuleState::Draft => field(&mut yaml, "state", &json!("draft")),
        RuleState::Active | RuleState::Archived => {}
    }
    let tests = loaded
        .tests
        .iter()
        .map(|test| match test.then.as_slice() {
            [] => json!({ "name": test.name, "match": test.expect, "event": test.event }),
            then => {
                let events: Vec<_> = std::iter::once(&test.event).chain(then).collect();
                json!({ "name": test.name, "match": test.expect, "events": events })
            }
        })
        .map(|test| test.to_string());
    list(&mut yaml, "tests", &tests.collect::<Vec<_>>());
    yaml
}

/// The rule's exceptions as files that override it, each with its name: what else overrides it stands in the rule as it is exported.
#[must_use]
pub fn exceptions_to_yaml(loaded: &LoadedRule) -> Vec<(String, String)> {
    let mut parts: Vec<(usize, String)> = Vec::new();
    for exception in &loaded.exceptions {
        let expires = match exception.expires_us.map(Timestamp::from_microsecond) {
            Some(Ok(time)) => time.to_string(),
            // No file can say a time that the calendar does not have.
            Some(Err(_)) | None => NEVER.to_owned(),
        };
        let Exception { condition, owner, reason, .. } = &**exception;
        let line = json!({ "where": condition, "owner": owner, "reason": reason, "expires": expires });
        let line = format!("  - {line}\n");
        match parts.last_mut() {
            Some((count, part)) if *count < MAX_EXCEPTIONS && part.len().saturating_add(line.len()) <= PART_BYTES => {
                *count = count.saturating_add(1);
                part.push_str(&line);
            }
            _ => parts.push((1, line)),
        }
    }
    let id = loaded.rule.id;
    let file = |(at, (_, part)): (usize, (usize, String))| {
        let mut yaml = String::new();
        field(&mut yaml, "override", &json!(id));
        field(&mut yaml, "description", &json!(format!("exceptions of {}", loaded.rule.name)));
        yaml.push_str("exceptions:\n");
        yaml.push_str(&part);
        // Behind the first in the order of names, in which files are read: of several exceptions the first that holds is told.
        let part = if at > 0 { format!("_{at:03}") } else { String::new() };
        (format!("exceptions-{id}{part}.yaml"), yaml)
    };
    parts.into_iter().enumerate().map(file).collect()
}

/// The lists as files, each with its name: one for a list, and more that extend it where it would be larger than a file may be.
#[must_use]
pub fn lists_to_yaml(lists: &Lists) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for list in lists.iter() {
        let mut parts = vec![String::new()];
        for value in values(&list.items).as_array().into_iter().flatten() {
            let line = format!("  - {value}\n");
            match parts.last_mut() {
                Some(part) if part.len().saturating_add(line.len()) <= PART_BYTES => part.push_str(&line),
                _ => parts.push(line),
            }
        }
        files.extend(
            parts.into_iter().enumerate().map(|(at, part)| list_file(&list.name, &list.description, at, &part)),
        );
    }
    files
}

/// No name of a list has a plus sign, so that no part is taken for another list.
fn list_file(name: &str, description: &str, at: usize, values: &str) -> (String, String) {
    let mut yaml = String::new();
    field(&mut yaml, "list", &json!(name));
    field(&mut yaml, "description", &json!(description));
    if at > 0 {
        field(&mut yaml, "extends", &json!(true));
    }
    yaml.push_str(if values.is_empty() { "values: []\n" } else { "values:\n" });
    yaml.push_str(values);
    let part = if at > 0 { format!("+{at:03}") } else { String::new() };
    (format!("list-{name}{part}.yaml"), yaml)
}

/// JSON is YAML, and quotes what would mean something else. A field that says nothing is left out, as authors leave it out.
fn field(yaml: &mut String, key: &str, value: &Value) {
    match value {
        Value::Array(items) => list(yaml, key, &items.iter().map(Value::to_string).collect::<Vec<_>>()),
        Value::String(text) if text.is_empty() => {}
        // Writing to a String cannot fail.
        _ => writeln!(yaml, "{key}: {value}").unwrap_or_default(),
    }
}

fn list(yaml: &mut String, key: &str, items: &[String]) {
    if !items.is_empty() {
        writeln!(yaml, "{key}:").unwrap_or_default();
        items.iter().for_each(|item| writeln!(yaml, "  - {item}").unwrap_or_default());
    }
}

/// As a block, so that a person can read it; quoted where a block would change it.
fn sql(yaml: &mut String, text: &str) {
    let fits = |line: &str| !line.contains(|c: char| c.is_control() || c == '\u{feff}');
    if text.starts_with(char::is_whitespace) || !text.split('\n').all(fits) {
        return field(yaml, "sql", &json!(text));
    }
    writeln!(yaml, "sql: |-").unwrap_or_default();
    for line in text.split('\n') {
        let indented = if line.is_empty() { String::new() } else { format!("  {line}") };
        writeln!(yaml, "{indented}").unwrap_or_default();
    }
}
