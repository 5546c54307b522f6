//! Local words over a vendor's rule, by its id: what is set here stands in place of the rule's own, and exceptions are added.
//!
//! The rule's file is never edited. A changed field is a new version of the rule, since its alerts name what decided them; an
//! exception is none, since it changes no answer of the rule.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use daemoneye_lib::columns::process_event_column;
use daemoneye_lib::model::{DetectionRule, RuleState, Severity};
use serde_json::{Value, json};
use serde_saphyr::Location;
use uuid::Uuid;

use super::super::Refusal;
use super::super::compile::Problem;
use super::super::exceptions::Exception;
use super::super::window::Planned;
use super::document::Document;
use super::lists::Lists;
use super::reader::{Fields, Reader};
use super::yaml::{Node, Yaml};
use super::{LoadedRule, part};
use crate::sql::names::column_hint;

const FIELDS: &[&str] = &["override", "description", "enabled", "state", "severity", "dedup", "window", "exceptions"];

/// A file that overrides a rule, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// What such a file says.
#[derive(Debug, Clone)]
pub(super) struct Override {
    pub(super) rule: Uuid,
    pub(super) file: PathBuf,
    text: String,
    /// Of the rule's id in it.
    place: (u64, u64),
    state: Option<RuleState>,
    severity: Option<Severity>,
    /// With its place.
    dedup: Option<(Vec<String>, Location)>,
    window_s: Option<u32>,
    pub(super) exceptions: Vec<Arc<Exception>>,
}

/// Reads an override.
pub(super) fn read(document: &Document, lists: &Lists) -> Result<Override, Vec<Refusal>> {
    let mut reader = Reader::new(document, lists);
    let read = reader.overriding(&document.root);
    reader.finish(read)
}

impl Reader<'_> {
    fn overriding(&mut self, root: &Node) -> Option<Override> {
        let Yaml::Map(pairs) = &root.value else { return None };
        self.known_keys(pairs, FIELDS, "an override");
        let fields = Fields { pairs, at: root.referenced };
        let rule = self.uuid(&fields, "override", "copy the id of the rule");
        let at = fields.place("override");
        let _for_people = self.text(&fields, "description");
        let state = self.state(&fields);
        let severity = fields.of("severity").and_then(|_| self.severity(&fields));
        let dedup = fields.of("dedup").map(|_| (self.texts(&fields, "dedup"), fields.place("dedup")));
        let window_s = self.window(&fields);
        let exceptions = self.exceptions(&fields, rule.unwrap_or_default());
        let (file, text) = (self.file.to_owned(), self.source.to_owned());
        Some(Override {
            rule: rule?,
            file,
            text,
            place: (at.line(), at.column()),
            state,
            severity,
            dedup,
            window_s,
            exceptions,
        })
    }
}

/// The exceptions of the files of one directory that were read before.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<Uuid, Arc<Exception>>);

impl Told {
    /// Refuses a file of which an exception says what another one says: both would count the same hits, and of two owners and
    /// expiries one would go unseen. One that has run out may be said again. Of two directories the later one's words count, as with all
    /// that an override sets.
    pub(super) fn look(&self, over: &Override) -> Result<(), Vec<Refusal>> {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let (mut own, mut problems) = (BTreeMap::new(), Vec::new());
        for exception in &over.exceptions {
            let first = self.0.get(&exception.id).or_else(|| own.get(&exception.id).copied());
            match first.filter(|first| !first.is_expired(now_us)) {
                Some(first) => problems.push(same_condition(exception, first)),
                None => drop(own.insert(exception.id, exception)),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Looks at those of a file and takes them, whatever else becomes of it.
    pub(super) fn take(&mut self, over: &Override) -> Result<(), Vec<Refusal>> {
        self.look(over)?;
        self.add(over.exceptions.clone());
        Ok(())
    }

    /// Takes those of a file that is in force.
    pub(super) fn add(&mut self, exceptions: Vec<Arc<Exception>>) {
        self.0.extend(exceptions.into_iter().map(|exception| (exception.id, exception)));
    }
}

fn same_condition(second: &Exception, first: &Exception) -> Refusal {
    let place = format!("{}:{}", first.file.display(), first.line);
    Refusal {
        file: second.file.clone(),
        line: second.line,
        column: second.column,
        message: format!("the exception in line {} has the condition of the one in {place}", second.line),
        hint: Some(format!("keep one of them, with one owner, reason and expiry; the one in {place} came first")),
    }
}

impl Override {
    /// Puts its words in place of the rule's; where they do not fit the rule, none of them.
    pub(super) fn apply(self, loaded: &mut LoadedRule) -> Result<(), Vec<Refusal>> {
        let dedup = self.dedup_of(loaded)?;
        if let Some(planned) = self.planned(loaded, dedup.as_deref()).map_err(|problem| vec![problem])? {
            loaded.window = Some(Arc::new(planned));
        }
        let identity = loaded.window.as_ref().map(|plan| plan.identity()).unwrap_or_default();
        let dedup = dedup.map(|columns| if columns.is_empty() { identity } else { columns });
        let changed = self.changed();
        let Self { file, text, state, severity, window_s, exceptions, .. } = self;
        let rule = Arc::make_mut(&mut loaded.rule);
        if changed != json!({}) {
            loaded.hashed.push(changed.to_string());
            rule.hash = blake3::hash(format!("{}\n{changed}", rule.hash).as_bytes()).to_hex().to_string();
        }
        let DetectionRule { state: now, severity: urgency, dedup: columns, dedup_window_s, .. } = rule;
        *now = state.unwrap_or(*now);
        *urgency = severity.unwrap_or(*urgency);
        *dedup_window_s = window_s.unwrap_or(*dedup_window_s);
        if let Some(dedup) = dedup {
            *columns = dedup;
        }
        for exception in exceptions {
            // The same words in a later directory; its owner, reason and expiry count.
            loaded.exceptions.retain(|other| other.id != exception.id);
            loaded.exceptions.push(exception);
        }
        loaded.overrides.push(OverrideFile { path: file, text });
        Ok(())
    }

    /// The columns that are to tell matches of the rule apart.
    fn dedup_of(&self, loaded: &LoadedRule) -> Result<Option<Vec<String>>, Vec<Refusal>> {
        let Some((columns, at)) = &self.dedup else { return Ok(None) };
        let returned = |column: &str| loaded.window.as_ref().is_some_and(|plan| plan.returns(column));
        let unknown = columns.iter().filter(|column| process_event_column(column).is_none() && !returned(column));
        let refused = |unknown: &String| Refusal {
            file: self.file.clone(),
            line: at.line(),
            column: at.column(),
            message: format!("process_events has no column {unknown}"),
            hint: Some(column_hint(unknown)),
        };
        let problems: Vec<Refusal> = unknown.map(refused).collect();
        if problems.is_empty() { Ok(Some(columns.clone())) } else { Err(problems) }
    }

    /// A window rule's plan over what it keeps for the other columns and the other time.
    fn planned(&self, loaded: &LoadedRule, dedup: Option<&[String]>) -> Result<Option<Planned>, Refusal> {
        let Some(before) = loaded.window.as_ref().filter(|_| dedup.is_some() || self.window_s.is_some()) else {
            return Ok(None);
        };
        let window_us = self.window_s.map(|seconds| i64::from(seconds).saturating_mul(1_000_000)).or(before.window_us);
        let planned = loaded
            .checked()
            .map_err(Problem::from)
            .and_then(|checked| Planned::of(&checked, window_us, dedup.unwrap_or(&loaded.rule.dedup)));
        planned.map(Some).map_err(|problem| {
            let (line, column) = self.place;
            Refusal { file: self.file.clone(), line, column, message: problem.message, hint: problem.hint }
        })
    }

    /// What it changes about the rule's alerts; whether the rule runs is no part of its text.
    fn changed(&self) -> Value {
        let mut changed = serde_json::Map::new();
        let mut set =
            |name: &str, value: Option<Value>| drop(value.map(|value| changed.insert(name.to_owned(), value)));
        set("severity", self.severity.map(|severity| severity.as_str().into()));
        set("dedup", self.dedup.as_ref().map(|(dedup, _)| dedup.clone().into()));
        set("window", self.window_s.map(Into::into));
        Value::Object(changed)
    }

    /// The refusal of one whose rule is not there.
    pub(super) fn without_rule<'a>(&self, rules: impl Iterator<Item = &'a LoadedRule>) -> Refusal {
        let id = self.rule.to_string();
        let like = rules
            .map(|loaded| (strsim::jaro_winkler(&loaded.rule.id.to_string(), &id), loaded))
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        // Two ids have nothing in common but by mistake.
        let hint = like.filter(|(score, _)| *score >= 0.9).map_or_else(
            || "remove the file, or correct the id: SELECT id, name FROM rules".to_owned(),
            |(_, near)| format!("did you mean {} ({})?", near.rule.id, near.rule.name),
        );
        let (line, column) = self.place;
        let message = format!("no rule that is loaded has the id {id}");
        Refusal { file: self.file.clone(), line, column, message, hint: Some(hint) }
    }
}

impl LoadedRule {
    /// The last parts of the paths of the files that override it, comma-separated.
    #[must_use]
    pub fn override_names(&self) -> String {
        self.overrides.iter().map(|file| part(Some(&file.path))).collect::<Vec<_>>().join(",")
    }
}
