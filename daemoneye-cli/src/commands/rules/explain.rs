//! `rules explain RULE EVENT`: the condition of a rule as a tree, each part with its outcome in that event.

use std::io::Read as _;
use std::path::Path;

use daemoneye_lib::exit::Exit;
use daemoneye_lib::frame::OPERATOR_LIMIT_BYTES;
use daemoneye_lib::proto::{RuleText, RulesExplain, operator_request::Verb, operator_response::Answer};
use serde_json::Value as Json;

use crate::agent::Session;
use crate::args::RulesExplain as Arguments;
use crate::error::CliError;
use crate::render::{self, Format, Output};
use crate::settings::Settings;
use crate::value::harmless;

/// Characters of a predicate's text or value that a person is shown.
const SHOWN: usize = 160;

pub(super) async fn run(settings: &Settings, arguments: &Arguments) -> Result<Exit, CliError> {
    let file = rule_file(&arguments.rule)?;
    let event_json = event_file(&arguments.event)?;
    // A file over an event that is given needs no store, so any agent will do.
    let session = if file.is_some() && !event_json.is_empty() {
        Session::open_anywhere(settings).await?
    } else {
        Session::open(settings).await?
    };
    let event = if event_json.is_empty() { arguments.event.clone() } else { String::new() };
    let asked = RulesExplain { file, rule: arguments.rule.clone(), event_json, event };
    let answer = session.ask_once(Verb::RulesExplain(asked)).await?;
    session.close().await;
    let Answer::Data(shown) = answer else { return Err(CliError::AgentAnswer("an explanation")) };
    let document: Json = serde_json::from_str(&shown.json).map_err(|_| CliError::AgentAnswer("an explanation"))?;
    if matches!(settings.format, Format::Table | Format::Line) {
        Output::stdout().print(&text(&document))?;
    } else {
        render::document(settings.format, &document)?;
    }
    Ok(Exit::Ok)
}

/// The rule's text where RULE is a file; otherwise it is what a loaded rule is called.
fn rule_file(rule: &str) -> Result<Option<RuleText>, CliError> {
    let path = Path::new(rule);
    if !path.is_file() {
        return Ok(None);
    }
    super::text_of(path).map(Some).map_err(|source| CliError::Io { what: format!("read {rule}"), source })
}

/// The event's JSON where EVENT is a file or `-`; empty where it names a stored one.
fn event_file(event: &str) -> Result<String, CliError> {
    let io = |source| CliError::Io { what: format!("read the event from {event}"), source };
    let limit = OPERATOR_LIMIT_BYTES as u64;
    let mut text = String::new();
    if event == "-" {
        std::io::stdin().take(limit + 1).read_to_string(&mut text).map_err(io)?;
    } else if Path::new(event).is_file() {
        std::fs::File::open(event).and_then(|file| file.take(limit + 1).read_to_string(&mut text)).map_err(io)?;
    } else {
        return Ok(text);
    }
    // What other systems put before text; JSON has none.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    if text.trim().is_empty() {
        return Err(CliError::Usage(format!("{event} holds no event: one JSON object of columns is needed")));
    }
    if text.len() as u64 > limit {
        return Err(CliError::Usage(format!("the event has more than {limit} bytes")));
    }
    Ok(text)
}

fn text(document: &Json) -> String {
    let mut out = format!("rule    {} ({})\n", word(document, "rule"), word(document, "rule_id"));
    if let Some(kept) = document.get("kept_rows").and_then(Json::as_u64) {
        out.push_str(&format!("keeps   {kept} events now\n"));
    }
    for pushed in document.get("pushdown").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        out.push_str(&format!("pushed  {pushed}\n"));
    }
    for event in document.get("events").and_then(Json::as_array).into_iter().flatten() {
        let named = event.get("event").and_then(Json::as_object).map(|columns| {
            columns.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect::<Vec<_>>().join(" ")
        });
        out.push_str(&format!("\nevent   {}\n", named.unwrap_or_default()));
        let result = match event.get("matches").and_then(Json::as_bool) {
            Some(true) => "MATCHES",
            Some(false) => "does not match",
            None => "more than one event decides this rule; what each of its tables says to this one:",
        };
        out.push_str(&format!("result  {result}\n"));
        if let Some(why) = event.get("unseen").and_then(Json::as_str) {
            out.push_str(&format!("unseen  {why}\n"));
        }
        let missing: Vec<&str> = event
            .get("missing_columns")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        if !missing.is_empty() {
            out.push_str(&format!("no value in this event: {}\n", missing.join(", ")));
        }
        for hidden in event.get("exceptions").and_then(Json::as_array).into_iter().flatten() {
            let hides = hidden.get("hides").and_then(Json::as_bool).unwrap_or_default();
            let verb = if hides { "HIDES it" } else { "does not hide it" };
            let (condition, owner, reason) =
                (word(hidden, "condition"), word(hidden, "owner"), word(hidden, "reason"));
            out.push_str(&format!("exception {verb}: {condition} ({owner}: {reason})\n"));
        }
        let scans = event.get("scans").and_then(Json::as_array);
        scans.into_iter().flatten().for_each(|of| scan(of, &mut out));
        match event.get("condition").filter(|condition| condition.is_object()) {
            _ if scans.is_some() => {}
            Some(condition) => part(condition, 0, &mut out),
            None => out.push_str("the rule has no condition: it matches every event that it sees\n"),
        }
    }
    out
}

/// A table of a window rule.
fn scan(of: &Json, out: &mut String) {
    let is = |name: &str| of.get(name).and_then(Json::as_bool).unwrap_or_default();
    let number = |name: &str| of.get(name).and_then(Json::as_i64).unwrap_or_default();
    let role = if is("may_be_absent") { "what may be absent" } else { "what is there" };
    let takes = if is("takes") { "TAKES it" } else { "does not take it" };
    let (table, back, waits) = (word(of, "table"), number("looks_back_s"), number("waits_s"));
    let waits = if waits > 0 { format!(", its events wait {waits} s") } else { String::new() };
    out.push_str(&format!("\ntable {table}: {role}; {takes}; looks back {back} s{waits}\n"));
    for condition in of.get("conditions").and_then(Json::as_array).into_iter().flatten() {
        part(condition, 0, out);
    }
    for condition in of.get("left_to_the_plan").and_then(Json::as_array).into_iter().flatten() {
        out.push_str(&format!("later  {}\n", cut(&harmless(condition.as_str().unwrap_or_default()))));
    }
}

fn part(part_of: &Json, depth: usize, out: &mut String) {
    let outcome = match part_of.get("outcome").and_then(Json::as_bool) {
        Some(true) => "TRUE ",
        Some(false) => "FALSE",
        None => "NULL ",
    };
    let indent = "  ".repeat(depth);
    let kind = word(part_of, "kind");
    let parts = part_of.get("parts").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if parts.is_empty() {
        out.push_str(&format!("{outcome}  {indent}{}\n", cut(&harmless(&word(part_of, "sql")))));
        for (column, value) in part_of.get("values").and_then(Json::as_object).into_iter().flatten() {
            out.push_str(&format!("       {indent}  {column} = {}\n", shown(value)));
        }
        return;
    }
    out.push_str(&format!("{outcome}  {indent}{}\n", kind.to_ascii_uppercase()));
    parts.iter().for_each(|inner| part(inner, depth + 1, out));
}

fn word(document: &Json, name: &str) -> String {
    harmless(document.get(name).and_then(Json::as_str).unwrap_or_default())
}

/// Text in quotes, so that a blank is seen; nothing that a process wrote reaches the terminal as it is.
fn shown(value: &Json) -> String {
    match value {
        Json::Null => "NULL".to_owned(),
        Json::String(text) => cut(&format!("'{}'", harmless(text))),
        other => cut(&harmless(&other.to_string())),
    }
}

fn cut(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if one_line.chars().count() <= SHOWN {
        return one_line;
    }
    let mut beginning: String = one_line.chars().take(SHOWN).collect();
    beginning.push('…');
    beginning
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_may_have_a_mark_before_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}{\"name\": \"x\"}\r\n").unwrap();
        assert_eq!(event_file(file.path().to_str().unwrap()).unwrap().trim(), "{\"name\": \"x\"}");
    }

    #[test]
    fn a_window_rule_shows_what_each_of_its_tables_says() {
        let condition =
            json!({ "kind": "predicate", "sql": "a.name = 'x'", "outcome": true, "values": { "name": "x" } });
        let scan = json!({ "table": "a", "may_be_absent": false, "takes": true, "looks_back_s": 37, "waits_s": 35,
            "conditions": [condition], "left_to_the_plan": ["md5(a.name) = 'y'"] });
        let event = json!({ "event": { "pid": 7 }, "matches": null, "missing_columns": [], "condition": null, "scans": [scan] });
        let text = text(&json!({ "rule": "r", "rule_id": "i", "kept_rows": 3, "events": [event] }));
        for line in [
            "keeps   3 events now",
            "table a: what is there; TAKES it; looks back 37 s, its events wait 35 s",
            "TRUE   a.name = 'x'",
            "later  md5(a.name) = 'y'",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line:?} in\n{text}");
        }
        assert!(!text.contains("no condition"), "{text}");
    }

    #[test]
    fn a_tree_shows_outcome_text_and_values_of_every_part() {
        let leaf = |sql: &str, outcome: Option<bool>| json!({ "kind": "predicate", "sql": sql, "outcome": outcome, "values": { "name": "x\u{1b}[2J" } });
        let condition = json!({
            "kind": "and", "sql": "…", "outcome": false,
            "parts": [leaf("name = 'nc'", Some(false)), leaf("parent_name = 'sh'", None)],
        });
        let event = json!({ "event": { "pid": 7 }, "matches": false, "missing_columns": ["parent_name"], "condition": condition });
        let text = text(&json!({ "rule": "r", "rule_id": "i", "events": [event] }));
        for line in [
            "event   pid=7",
            "result  does not match",
            "no value in this event: parent_name",
            "FALSE  AND",
            "FALSE    name = 'nc'",
            "         name = 'x\\u{1b}[2J'",
            "NULL     parent_name = 'sh'",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line:?} in\n{text}");
        }
    }
}
