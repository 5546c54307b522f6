//! One rule file: the fields it may have, and every problem with its place.

use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::columns::process_event_column;
use daemoneye_lib::model::{DetectionRule, RuleKind, RuleState, Severity};
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};
use uuid::Uuid;

use super::super::Refusal;
use super::super::compile::{self, Compiled, Problem};
use super::super::window::{self, Planned};
use super::place::SqlPlace;
use super::yaml::{Node, Yaml, read};
use super::{LoadedRule, RuleTest};
use crate::ingest::check_value;
use crate::sql::names::{column_hint, nearest};
use crate::sql::{self, SqlRefusal};

/// The fields of a rule file.
const FIELDS: &[&str] = &[
    "id",
    "name",
    "description",
    "author",
    "references",
    "severity",
    "category",
    "tags",
    "status",
    "false_positives",
    "sql",
    "dedup",
    "window",
    "enabled",
    "tests",
];

const TEST_FIELDS: &[&str] = &["name", "match", "event", "events"];

/// Sigma's words, which rule authors know.
const STATUSES: &[&str] = &["stable", "test", "experimental", "deprecated"];

/// Seconds during which repeats fold into one alert unless the rule says otherwise.
const DEFAULT_WINDOW_S: u32 = 300;

/// A week: longer than this and a second attack would hide behind the first.
const MAX_WINDOW_S: i64 = 7 * 24 * 3600;

/// Reads one rule and compiles it. `file` gives the rule its file name and, by its directory, its pack.
///
/// # Errors
/// Every problem of the file, each with its place.
pub fn parse(file: &Path, yaml: &str) -> Result<LoadedRule, Vec<Refusal>> {
    let document = read(yaml).map_err(|unreadable| {
        let mut refusal = Refusal::whole(file, format!("this is not YAML that we read: {}", unreadable.message), None);
        (refusal.line, refusal.column) = (unreadable.location.line(), unreadable.location.column());
        vec![refusal]
    })?;
    let mut reader = Reader { file, source: yaml, problems: Vec::new() };
    match reader.rule(&document) {
        Some(loaded) if reader.problems.is_empty() => Ok(loaded),
        _ => {
            reader.problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(reader.problems)
        }
    }
}

impl From<SqlRefusal> for Problem {
    fn from(refusal: SqlRefusal) -> Self {
        Self {
            line: refusal.line.into(),
            column: refusal.column.into(),
            message: refusal.message,
            hint: Some(refusal.hint).filter(|hint| !hint.is_empty()),
        }
    }
}

/// The columns of a test's event.
type Event = Map<String, Value>;

/// The text, and what decides it.
type Sql = (String, Compiled, Option<Arc<Planned>>);

/// Reads fields and collects what is wrong with them.
struct Reader<'a> {
    file: &'a Path,
    source: &'a str,
    problems: Vec<Refusal>,
}

impl Reader<'_> {
    fn refuse(&mut self, at: Location, message: impl Into<String>, hint: Option<String>) {
        let (line, column) = (at.line(), at.column());
        self.problems.push(Refusal { file: self.file.to_owned(), line, column, message: message.into(), hint });
    }

    /// Reads every field before it gives up on one, so that all problems are told.
    fn rule(&mut self, document: &Node) -> Option<LoadedRule> {
        let Yaml::Map(pairs) = &document.value else {
            self.refuse(
                document.referenced,
                "a rule file is a map of fields",
                Some("begin with id: and name:".into()),
            );
            return None;
        };
        self.known_keys(pairs, FIELDS, "a rule");
        let fields = Fields { pairs, at: document.referenced };
        let (sql, tests) = (self.sql(&fields), self.tests(&fields));
        let window = sql.as_ref().and_then(|(_, _, window)| window.clone());
        let rule = self.described(&fields, window.as_deref());
        let ((sql, compiled, window), rule) = (sql?, rule?);
        let hash = blake3::hash(document.value.canonical().to_string().as_bytes()).to_hex().to_string();
        let (pack, file) = (part(self.file.parent()), part(Some(self.file)));
        Some(LoadedRule {
            rule: DetectionRule { hash, sql, pack, file, ..rule },
            tests,
            source: self.source.to_owned(),
            path: self.file.to_owned(),
            compiled: Arc::new(compiled),
            window,
        })
    }

    /// The fields for people; what the file as a whole gives is still empty.
    fn described(&mut self, fields: &Fields<'_>, window: Option<&Planned>) -> Option<DetectionRule> {
        let (id, name, severity) = (self.id(fields), self.required_text(fields, "name"), self.severity(fields));
        let enabled = self.boolean(fields, "enabled", true);
        let rule = DetectionRule {
            id: id.unwrap_or_default(),
            version: 1,
            hash: String::new(),
            name: name.unwrap_or_default(),
            description: self.text(fields, "description"),
            author: self.text(fields, "author"),
            references: self.texts(fields, "references"),
            severity: severity.unwrap_or(Severity::Info),
            category: self.text(fields, "category"),
            tags: self.texts(fields, "tags"),
            status: self.status(fields),
            false_positives: self.texts(fields, "false_positives"),
            sql: String::new(),
            dedup: self.dedup(fields, window),
            dedup_window_s: self.window(fields).unwrap_or(DEFAULT_WINDOW_S),
            state: if enabled { RuleState::Active } else { RuleState::Disabled },
            kind: if window.is_some() { RuleKind::Window } else { RuleKind::Stream },
            pack: String::new(),
            file: String::new(),
        };
        // A field that is missing has been told; the rule is dropped with its other problems.
        self.problems.is_empty().then_some(rule)
    }

    /// The guard first, then the compiler or, for what one event cannot decide, the planner; all name the place in the file.
    fn sql(&mut self, fields: &Fields<'_>) -> Option<Sql> {
        let sql = self.required_text(fields, "sql")?;
        let place = SqlPlace::new(self.source, fields.key_place("sql"), fields.place("sql"));
        let window_us = self.seconds(fields).map(|seconds| i64::from(seconds).saturating_mul(1_000_000));
        let checked = sql::check_rule(&sql, compile::functions::instead).map_err(Problem::from);
        let compiled = checked.and_then(|checked| {
            if window::needs_window(checked.query()) {
                let planned = window::Planned::of(&checked, window_us, &named(fields, "dedup"))?;
                return Ok((Compiled::never(), Some(Arc::new(planned))));
            }
            Ok((compile::compile(checked.query())?, None))
        });
        match compiled {
            Ok((compiled, window)) => Some((sql, compiled, window)),
            Err(problem) => {
                let (line, column) = place.of(problem.line, problem.column);
                let (file, message, hint) = (self.file.to_owned(), problem.message, problem.hint);
                self.problems.push(Refusal { file, line, column, message, hint });
                None
            }
        }
    }

    fn known_keys(&mut self, pairs: &[(Spanned<String>, Node)], known: &[&str], whose: &str) {
        for (key, _) in pairs {
            if !known.contains(&key.value.as_str()) {
                let hint = nearest(&key.value, known.iter().copied())
                    .map_or_else(|| format!("known are {}", known.join(", ")), |near| format!("did you mean {near}?"));
                self.refuse(key.referenced, format!("{whose} has no field {}", key.value), Some(hint));
            }
        }
    }

    fn id(&mut self, fields: &Fields<'_>) -> Option<Uuid> {
        let text = self.required_text(fields, "id")?;
        let id = Uuid::parse_str(&text).ok();
        if id.is_none() {
            let hint = "make one with uuidgen and never change it";
            self.refuse(fields.place("id"), format!("id is not a UUID: {text}"), Some(hint.into()));
        }
        id
    }

    fn severity(&mut self, fields: &Fields<'_>) -> Option<Severity> {
        let text = self.required_text(fields, "severity")?;
        let found = Severity::ALL.iter().copied().find(|severity| severity.as_str() == text);
        if found.is_none() {
            let known: Vec<_> = Severity::ALL.iter().map(|severity| severity.as_str()).collect();
            let hint = format!("known are {}", known.join(", "));
            self.refuse(fields.place("severity"), format!("there is no severity {text}"), Some(hint));
        }
        found
    }

    fn status(&mut self, fields: &Fields<'_>) -> String {
        let text = self.text(fields, "status");
        if text.is_empty() {
            return "experimental".to_owned();
        }
        if !STATUSES.contains(&text.as_str()) {
            let hint = format!("known are {}", STATUSES.join(", "));
            self.refuse(fields.place("status"), format!("there is no status {text}"), Some(hint));
        }
        text
    }

    /// A window rule also tells matches apart by what it returns, and by the columns that it groups by where the file names none.
    fn dedup(&mut self, fields: &Fields<'_>, window: Option<&Planned>) -> Vec<String> {
        let columns = self.texts(fields, "dedup");
        let returned = |column: &String| window.is_some_and(|window| window.returns(column));
        for column in columns.iter().filter(|column| !returned(column)) {
            if process_event_column(column).is_none() {
                let message = format!("process_events has no column {column}");
                self.refuse(fields.place("dedup"), message, Some(column_hint(column)));
            }
        }
        if columns.is_empty() { window.map(Planned::identity).unwrap_or_default() } else { columns }
    }

    fn window(&mut self, fields: &Fields<'_>) -> Option<u32> {
        let seconds = self.seconds(fields);
        if let Some(node) = fields.of("window")
            && seconds.is_none()
        {
            let message = format!("window is a number of seconds from 1 to {MAX_WINDOW_S}, or a length like 5m");
            self.refuse(node.referenced, message, Some("write 90s, 5m, 12h or 7d".into()));
        }
        seconds
    }

    /// The length in `window`, where it is one.
    fn seconds(&self, fields: &Fields<'_>) -> Option<u32> {
        let seconds = match &fields.of("window")?.value {
            Yaml::Integer(seconds) => *seconds,
            Yaml::Text(text) => length_s(text)?,
            _ => return None,
        };
        u32::try_from(seconds).ok().filter(|_| (1..=MAX_WINDOW_S).contains(&seconds))
    }

    fn tests(&mut self, fields: &Fields<'_>) -> Vec<RuleTest> {
        let Some(node) = fields.of("tests") else { return Vec::new() };
        let Yaml::List(items) = &node.value else {
            self.wrong(node, "tests", "a list");
            return Vec::new();
        };
        items.iter().filter_map(|item| self.test(item)).collect()
    }

    fn test(&mut self, node: &Node) -> Option<RuleTest> {
        let Yaml::Map(pairs) = &node.value else {
            self.wrong(node, "a test", "a map");
            return None;
        };
        self.known_keys(pairs, TEST_FIELDS, "a test");
        let fields = Fields { pairs, at: node.referenced };
        let name = self.required_text(&fields, "name")?;
        if fields.of("match").is_none() {
            self.refuse(
                node.referenced,
                "the test does not say what it expects",
                Some("add match: true or false".into()),
            );
        }
        let expect = self.boolean(&fields, "match", false);
        let (event, then) = self.events(&fields)?;
        Some(RuleTest { name, expect, event, then, line: node.referenced.line() })
    }

    /// `event:`, or `events:` for a rule that needs several.
    fn events(&mut self, fields: &Fields<'_>) -> Option<(Event, Vec<Event>)> {
        let Some(node) = fields.of("events") else {
            return Some((self.event(fields.of("event"), fields.place("event"))?, Vec::new()));
        };
        if fields.of("event").is_some() {
            self.refuse(node.referenced, "a test has an event or events, not both", None);
        }
        let Yaml::List(items) = &node.value else {
            self.wrong(node, "events", "a list");
            return None;
        };
        let events: Option<Vec<_>> = items.iter().map(|item| self.event(Some(item), item.referenced)).collect();
        let mut events = events?.into_iter();
        let Some(first) = events.next() else {
            self.refuse(node.referenced, "a test needs an event", None);
            return None;
        };
        Some((first, events.collect()))
    }

    fn event(&mut self, node: Option<&Node>, at: Location) -> Option<Map<String, Value>> {
        let Some(Yaml::Map(pairs)) = node.map(|node| &node.value) else {
            self.refuse(at, "a test needs an event: a map of columns and values", None);
            return None;
        };
        let mut event = Map::new();
        for (column, value) in pairs {
            let canonical = value.value.canonical();
            match process_event_column(&column.value).map(|known| check_value(known, &canonical)) {
                None => {
                    let message = format!("process_events has no column {}", column.value);
                    self.refuse(column.referenced, message, Some(column_hint(&column.value)));
                }
                Some(Err(wrong)) => self.refuse(value.referenced, wrong, None),
                Some(Ok(())) => {}
            }
            event.insert(column.value.clone(), canonical);
        }
        Some(event)
    }

    fn required_text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        if fields.of(name).is_none() {
            self.refuse(fields.at, format!("the field {name} is missing"), None);
            return None;
        }
        let text = self.text(fields, name);
        (!text.is_empty()).then_some(text)
    }

    fn text(&mut self, fields: &Fields<'_>, name: &str) -> String {
        match fields.of(name) {
            None => String::new(),
            Some(Spanned { value: Yaml::Text(text), referenced, .. }) => {
                let text = text.trim_end();
                if text.is_empty() {
                    self.refuse(*referenced, format!("{name} is empty"), None);
                }
                text.to_owned()
            }
            Some(node) => {
                self.wrong(node, name, "text");
                String::new()
            }
        }
    }

    fn texts(&mut self, fields: &Fields<'_>, name: &str) -> Vec<String> {
        let Some(node) = fields.of(name) else { return Vec::new() };
        let Yaml::List(items) = &node.value else {
            self.wrong(node, name, "a list");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Yaml::Text(text) => texts.push(text.clone()),
                _ => self.wrong(item, name, "a list of text"),
            }
        }
        texts
    }

    fn boolean(&mut self, fields: &Fields<'_>, name: &str, default: bool) -> bool {
        match fields.of(name) {
            None => default,
            Some(Spanned { value: Yaml::Boolean(value), .. }) => *value,
            Some(node) => {
                self.wrong(node, name, "true or false");
                default
            }
        }
    }

    fn wrong(&mut self, node: &Node, name: &str, wanted: &str) {
        let hint = (wanted == "text").then(|| "put it in quotes".to_owned());
        self.refuse(node.referenced, format!("{name} is {wanted}, and this is {}", node.value.kind()), hint);
    }
}

/// The texts of a list, as far as it is one.
fn named(fields: &Fields<'_>, name: &str) -> Vec<String> {
    let Some(Yaml::List(items)) = fields.of(name).map(|node| &node.value) else { return Vec::new() };
    let text = |item: &Node| match &item.value {
        Yaml::Text(text) => Some(text.clone()),
        _ => None,
    };
    items.iter().filter_map(text).collect()
}

/// `90s`, `5m`, `12h` or `7d` in seconds.
fn length_s(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit_s)
}

/// The pairs of a map by name.
struct Fields<'a> {
    pairs: &'a [(Spanned<String>, Node)],
    at: Location,
}

impl<'a> Fields<'a> {
    fn of(&self, name: &str) -> Option<&'a Node> {
        self.pairs.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
    }

    fn key_place(&self, name: &str) -> Location {
        self.pairs.iter().find(|(key, _)| key.value == name).map_or(self.at, |(key, _)| key.referenced)
    }

    fn place(&self, name: &str) -> Location {
        self.of(name).map_or(self.at, |node| node.referenced)
    }
}

/// The last part of a path.
fn part(path: Option<&Path>) -> String {
    path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
