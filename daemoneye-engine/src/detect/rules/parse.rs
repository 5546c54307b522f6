//! One rule file: the fields it may have, and every problem with its place.

use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::columns::process_event_column;
use daemoneye_lib::model::{DetectionRule, RuleKind, RuleState, Severity};
use serde_json::{Map, Value};
use serde_saphyr::Location;
use uuid::Uuid;

use super::super::Refusal;
use super::super::compile::{self, Compiled, Problem};
use super::super::window::{self, Planned};
use super::document::Document;
use super::lists::Lists;
use super::place::SqlPlace;
use super::reader::{Fields, Reader};
use super::statement::{self, Look};
use super::yaml::{Node, Yaml};
use super::{LoadedRule, RuleTest, part};
use crate::ingest::check_value;
use crate::sql::names::column_hint;
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
    "state",
    "tests",
];

const TEST_FIELDS: &[&str] = &["name", "match", "event", "events"];

/// Sigma's words, which rule authors know.
const STATUSES: &[&str] = &["stable", "test", "experimental", "deprecated"];

/// What a file may say; archived is what becomes of a rule without a file.
const STATES: &[(&str, RuleState)] =
    &[("active", RuleState::Active), ("disabled", RuleState::Disabled), ("draft", RuleState::Draft)];

/// Seconds during which repeats fold into one alert unless the rule says otherwise.
const DEFAULT_WINDOW_S: u32 = 300;

/// A week: longer than this and a second attack would hide behind the first.
const MAX_WINDOW_S: i64 = 7 * 24 * 3600;

/// Reads one rule that names no list and compiles it. `file` gives the rule its file name and, by its directory, its pack.
///
/// # Errors
/// Every problem of the file, each with its place.
pub fn parse(file: &Path, yaml: &str) -> Result<LoadedRule, Vec<Refusal>> {
    rule(&Document::new(file, yaml)?, &Lists::default())
}

/// Reads the rule of a document.
pub(super) fn rule(document: &Document, lists: &Lists) -> Result<LoadedRule, Vec<Refusal>> {
    let mut reader = Reader::new(document, lists);
    let loaded = reader.rule(&document.root);
    reader.finish(loaded)
}

impl From<SqlRefusal> for Problem {
    fn from(refusal: SqlRefusal) -> Self {
        Self {
            line: refusal.line.into(),
            column: refusal.column.into(),
            message: refusal.message,
            hint: Some(in_a_rule(refusal.hint)).filter(|hint| !hint.is_empty()),
        }
    }
}

/// A hint of queries, whose callers bind values; a rule has nobody who would.
fn in_a_rule(hint: String) -> String {
    match hint.split_once(", or bind it as $1").or_else(|| hint.split_once(", and bind it as $1")) {
        Some((before, after)) => format!("{before}{after}: a rule has no parameters"),
        None => hint,
    }
}

/// The columns of a test's event.
type Event = Map<String, Value>;

impl Reader<'_> {
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
        let rule = self.described(&fields, sql.as_ref());
        let (Statement { sql, compiled, window, lists }, rule) = (sql?, rule?);
        let text = hashed(document, &lists);
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        let (pack, file) = (part(self.file.parent()), part(Some(self.file)));
        Some(LoadedRule {
            rule: Arc::new(DetectionRule { hash, sql, pack, file, ..rule }),
            tests,
            source: self.source.to_owned(),
            hashed: vec![text],
            path: self.file.to_owned(),
            lists,
            exceptions: Vec::new(),
            overrides: Vec::new(),
            compiled: Arc::new(compiled),
            window,
        })
    }

    /// The fields for people; what the file as a whole gives is still empty.
    fn described(&mut self, fields: &Fields<'_>, sql: Option<&Statement>) -> Option<DetectionRule> {
        let id = self.uuid(fields, "id", "make one with uuidgen and never change it");
        let (name, severity) = (self.required_text(fields, "name"), self.severity(fields));
        let state = self.state(fields).unwrap_or(RuleState::Active);
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
            dedup: self.dedup(fields, sql),
            dedup_window_s: self.window(fields).unwrap_or(DEFAULT_WINDOW_S),
            state,
            kind: if sql.is_some_and(|sql| sql.window.is_some()) { RuleKind::Window } else { RuleKind::Stream },
            pack: String::new(),
            file: String::new(),
        };
        // A field that is missing has been told; the rule is dropped with its other problems.
        self.problems.is_empty().then_some(rule)
    }

    /// The guard first, then the compiler or, for what one event cannot decide, the planner; all name the place in the file.
    fn sql(&mut self, fields: &Fields<'_>) -> Option<Statement> {
        let sql = self.required_text(fields, "sql")?;
        let place = SqlPlace::new(self.source, fields.key_place("sql"), fields.place("sql"), &sql);
        let window_us = self.seconds(fields).map(|seconds| i64::from(seconds).saturating_mul(1_000_000));
        let decided = statement::decided(&sql, self.lists, |checked, look| {
            let needs_window = match look {
                Look::Written => window::needs_window(checked.query()),
                Look::Mended { needs_window } => needs_window,
            };
            match look {
                _ if !needs_window => Ok((compile::compile(checked.query())?, None)),
                // What a blank does to groups and times would be told as a mistake of theirs.
                Look::Mended { .. } => {
                    sql::window::named(checked)?;
                    if window_us.is_none() && !speaks_of_time(&sql) {
                        Planned::bounded(checked)?;
                    }
                    Ok((Compiled::never(), None))
                }
                Look::Written => {
                    let planned = window::Planned::of(checked, window_us, &named(fields, "dedup"))?;
                    Ok((Compiled::never(), Some(Arc::new(planned))))
                }
            }
        });
        match decided {
            Ok(((compiled, window), checked)) => {
                Some(Statement { sql, compiled, window, lists: self.lists.only(&checked.lists) })
            }
            Err(problems) => {
                self.refuse_sql(problems, |line, column| place.of(line, column));
                None
            }
        }
    }

    /// `place` gives the place in the file.
    pub(super) fn refuse_sql(&mut self, problems: Vec<Problem>, place: impl Fn(u64, u64) -> (u64, u64)) {
        for problem in problems {
            let (line, column) = place(problem.line, problem.column);
            let (file, message, hint) = (self.file.to_owned(), problem.message, problem.hint);
            self.problems.push(Refusal { file, line, column, message, hint });
        }
    }

    pub(super) fn uuid(&mut self, fields: &Fields<'_>, name: &str, hint: &str) -> Option<Uuid> {
        let text = self.required_text(fields, name)?;
        let id = Uuid::parse_str(&text).ok();
        if id.is_none() {
            self.refuse(fields.place(name), format!("{name} is not a UUID: {text}"), Some(hint.into()));
        }
        id
    }

    /// `state:`, or the older and shorter `enabled:`; `None` where neither stands.
    pub(super) fn state(&mut self, fields: &Fields<'_>) -> Option<RuleState> {
        let enabled = fields.of("enabled").map(|_| self.boolean(fields, "enabled", true));
        let Some(node) = fields.of("state") else {
            return enabled.map(|enabled| if enabled { RuleState::Active } else { RuleState::Disabled });
        };
        if enabled.is_some() {
            self.refuse(node.referenced, "enabled and state say the same twice", Some("leave enabled out".into()));
        }
        let text = self.text(fields, "state");
        let found = STATES.iter().find(|(word, _)| *word == text).map(|(_, state)| *state);
        if found.is_none() && !text.is_empty() {
            let hint = "known are active, disabled and draft; a rule is archived when its file is removed";
            self.refuse(node.referenced, format!("there is no state {text}"), Some(hint.into()));
        }
        found
    }

    pub(super) fn severity(&mut self, fields: &Fields<'_>) -> Option<Severity> {
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
    fn dedup(&mut self, fields: &Fields<'_>, sql: Option<&Statement>) -> Vec<String> {
        let columns = self.texts(fields, "dedup");
        let window = sql.and_then(|sql| sql.window.as_deref());
        // What a refused SELECT returns is not known: it may be whatever it speaks of.
        let refused = fields.of("sql").filter(|_| sql.is_none()).map(|node| &node.value);
        let returned = |column: &String| match (window, refused) {
            (Some(window), _) => window.returns(column),
            (None, Some(Yaml::Text(text))) => text.contains(column.as_str()),
            (None, _) => false,
        };
        for column in columns.iter().filter(|column| !returned(column)) {
            if process_event_column(column).is_none() {
                let message = format!("process_events has no column {column}");
                self.refuse(fields.place("dedup"), message, Some(column_hint(column)));
            }
        }
        if columns.is_empty() { window.map(Planned::identity).unwrap_or_default() } else { columns }
    }

    pub(super) fn window(&mut self, fields: &Fields<'_>) -> Option<u32> {
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
            Yaml::Integer(seconds) => seconds.value,
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
}

/// Whether a SELECT says anything about how far back it looks.
fn speaks_of_time(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    ["interval", "now", "datetime"].iter().any(|word| sql.contains(word))
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

/// A rule's SELECT, compiled.
struct Statement {
    sql: String,
    compiled: Compiled,
    /// What decides it when one event cannot.
    window: Option<Arc<Planned>>,
    /// The lists that it names.
    lists: Lists,
}

/// Of the file's content and of the values of the lists that it names: whatever changes an answer changes it.
fn hashed(document: &Node, lists: &Lists) -> String {
    let mut text = document.value.canonical().to_string();
    for list in lists.iter() {
        let values = super::lists::json(&list.items);
        text.push_str(&format!("\n{}", Value::from(vec![Value::from(list.name.as_str()), values])));
    }
    text
}
