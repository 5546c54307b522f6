//! Sigma's correlations as window rules: how many events, how many values, which rules in which order, within a time and a group.
//!
//! The windows slide: they end at each event and begin the time span before it. Events without a value in a field of the group
//! belong to no group. Rules that a correlation refers to raise nothing by themselves unless it says `generate`. A correlation may
//! refer to another: what that finds counts as an event, in the place and at the time of the last one of it.

mod bounds;
mod query;

use std::rc::Rc;

use serde_saphyr::Location;

use super::Reason;
use super::document::{field, text, texts};
use super::fields::Naming;
use super::grouping::{Group, columns, groups};
use crate::detect::rules::yaml::{Node, Yaml, truth};
use bounds::{Bound, Counts};

/// Most rules of one correlation: each of an ordered one is a join.
const MAX_RULES: usize = 8;
/// Longest time span in days. A window keeps its rows in memory whatever its length, up to its bound, and begins with those that
/// history still has: this is longer than history is kept.
const MAX_DAYS: i64 = 366;
const DAY_SECONDS: i64 = 24 * 3600;
/// What a correlation may say. Other words would change what it finds, so they are refused.
const FIELDS: [&str; 7] = ["type", "rules", "aliases", "group-by", "timespan", "condition", "generate"];

/// A rule that a correlation may refer to.
pub(super) struct Part {
    pub(super) id: String,
    pub(super) name: Option<String>,
    /// Its title, file and line, for messages.
    pub(super) place: String,
    pub(super) matches: Matches,
    /// The fields that it asks for and no column holds.
    pub(super) unmapped: Vec<String>,
}

/// What a rule finds.
pub(super) enum Matches {
    /// It was not converted, and nothing runs of it.
    Nothing,
    /// It is a correlation that was not converted yet.
    Later,
    /// The events for which a condition in SQL is true.
    Events { condition: String, naming: Naming },
    /// What a correlation finds.
    Correlated(Correlation),
}

impl Part {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) || self.id.eq_ignore_ascii_case(name)
    }

    /// As people know it.
    pub(super) fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// Its condition, if each of its matches is one event.
    fn condition(&self) -> Option<&str> {
        match &self.matches {
            Matches::Events { condition, .. } => Some(condition),
            _ => None,
        }
    }
}

/// A correlation, read.
pub(super) struct Correlation {
    kind: Kind,
    bounds: Vec<Bound>,
    pub(super) parts: Vec<Rc<Part>>,
    pub(super) groups: Vec<Group>,
    /// The fields of `group-by` as they are written, and the name of the group of each.
    pub(super) fields: Vec<(String, usize)>,
    seconds: i64,
    pub(super) at: Location,
}

enum Kind {
    /// How many events.
    Events,
    /// How many values, of these columns in the matches of each rule.
    Values(Vec<&'static str>),
    /// How many of the rules.
    Together,
    /// All of the rules, one after the other.
    Ordered,
}

impl Correlation {
    /// The columns that tell its matches apart.
    pub(super) fn dedup(&self) -> Vec<&'static str> {
        self.groups.iter().map(|group| group.name).collect()
    }

    /// Its rules and the fields that they ask for and no column holds.
    pub(super) fn unmapped(&self) -> Vec<(String, String)> {
        let of = |part: &Rc<Part>| {
            part.unmapped.iter().map(|field| (part.called().to_owned(), field.clone())).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of).collect()
    }

    /// The ids of its rules, which raise nothing by themselves because it refers to them; none where its document wants it otherwise.
    pub(super) fn replaced(&self, document: &Node) -> Vec<String> {
        // The specification has it inside of the correlation; beside it was a draft's place.
        let inside = field(document, "correlation");
        if [Some(document), inside].into_iter().flatten().any(|node| generates(node) == Ok(true)) {
            return Vec::new();
        }
        self.parts.iter().map(|part| part.id.clone()).collect()
    }
}

/// Of the correlations that wait the first that refers to none of them; the first of all where each does.
pub(super) fn next_of<'a>(mut waiting: impl Iterator<Item = &'a Node>, waits: impl Fn(&str) -> bool) -> usize {
    let is_ready = |document: &Node| {
        field(document, "correlation").is_none_or(|node| !texts(node, "rules").iter().any(|name| waits(name)))
    };
    waiting.position(is_ready).unwrap_or(0)
}

/// Reads a document with a correlation, or tells everything that is wrong with it.
pub(super) fn read(document: &Node, parts: &[Rc<Part>]) -> Result<Correlation, Vec<Reason>> {
    let Some(node) = field(document, "correlation") else { return Err(Vec::new()) };
    let mut problems = Vec::new();
    if let Yaml::Map(pairs) = &node.value {
        problems.extend(pairs.iter().filter(|(key, _)| !FIELDS.contains(&key.value.as_str())).map(|(key, _)| {
            let message =
                format!("the correlation has a field {}, which Sigma's specification does not know", key.value);
            Reason::new(key.referenced, message)
        }));
    }
    let place = |name: &str| field(node, name).map_or(node.referenced, |node| node.referenced);
    let mut told = |name: &str, problem: String| {
        let problem = Reason::new(place(name), problem);
        // A rule may be named twice.
        problems.extend((!problems.contains(&problem)).then_some(problem));
    };
    let named = texts(node, "rules");
    if named.is_empty() || named.len() > MAX_RULES {
        told("rules", format!("a correlation is of 1 to {MAX_RULES} rules"));
    }
    let found = named.iter().map(|name| find(name, parts));
    let parts: Vec<Rc<Part>> = found.filter_map(|part| part.map_err(|problem| told("rules", problem)).ok()).collect();
    let (groups, fields) = groups(node, &parts).map_err(|problem| told("group-by", problem)).unwrap_or_default();
    let seconds = seconds(node).map_err(|problem| told("timespan", problem)).unwrap_or_default();
    if let Err(problem) = generates(document).and(generates(node)) {
        told("generate", problem);
    }
    let kind = match text(node, "type").unwrap_or_default().as_str() {
        "event_count" => events(node).map_err(|problem| ("condition", problem)),
        "value_count" => values(node, &parts).map_err(|problem| ("condition", problem)),
        "temporal" => together(node, &parts).map_err(|problem| ("condition", problem)),
        "temporal_ordered" => ordered(node, &parts).map_err(|problem| ("condition", problem)),
        "" => Err(("type", "the correlation has no type".to_owned())),
        other => Err(("type", format!("correlations of the type {other} are not built"))),
    };
    match kind.map_err(|(name, problem)| told(name, problem)) {
        Ok((kind, bounds)) if problems.is_empty() => {
            Ok(Correlation { kind, bounds, parts, groups, fields, seconds, at: node.referenced })
        }
        _ => Err(problems),
    }
}

/// Whether its rules also raise alerts by themselves; YAML 1.1 had more words for it.
fn generates(node: &Node) -> Result<bool, String> {
    match field(node, "generate").map(|node| &node.value) {
        None | Some(Yaml::Null) => Ok(false),
        Some(Yaml::Boolean(typed)) => Ok(typed.value),
        Some(Yaml::Text(word)) if truth(word).is_some() => Ok(truth(word) == Some(true)),
        Some(other) => Err(format!("generate is true or false, and this is {}", other.kind())),
    }
}

fn find(name: &str, parts: &[Rc<Part>]) -> Result<Rc<Part>, String> {
    let called: Vec<&Rc<Part>> = parts.iter().filter(|part| part.is_called(name)).collect();
    match called.as_slice() {
        [] => Err(format!("the correlation refers to {name}, and there is no such rule")),
        [part] => match part.matches {
            Matches::Later => Err(format!(
                "the correlation refers to {name}, and that refers back to it or stands in a circle: {}; a chain of correlations \
                 ends in rules",
                part.place
            )),
            Matches::Nothing => {
                Err(format!("the correlation refers to {name}, and nothing runs of that rule: {}", part.place))
            }
            Matches::Events { .. } | Matches::Correlated(_) => Ok(Rc::clone(part)),
        },
        several => {
            let places: Vec<&str> = several.iter().map(|part| part.place.as_str()).collect();
            Err(format!(
                "the correlation refers to {name}, which several rules are called: {}; give each a name or id of its own",
                places.join(", ")
            ))
        }
    }
}

/// `90s`, `5m`, `1h`, `30d`, `1w`.
fn seconds(node: &Node) -> Result<i64, String> {
    let span = text(node, "timespan").ok_or("the correlation has no timespan: write timespan: 5m")?;
    let wrong =
        || format!("the timespan {span} is no number with s, m, h, d or w behind it: write 90s, 5m, 12h, 30d or 2w");
    let unit = span.chars().last().ok_or_else(wrong)?;
    let number: i64 = span.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let factor: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY_SECONDS,
        'w' => 7 * DAY_SECONDS,
        // Sigma has them too.
        'M' | 'y' => {
            let days = if unit == 'M' { 30 } else { 365 };
            return Err(format!(
                "the timespan {span} has no fixed length, as months and years differ: write it in days, as {days}d"
            ));
        }
        _ => return Err(wrong()),
    };
    let bounds = 1..=MAX_DAYS * DAY_SECONDS;
    number.checked_mul(factor).filter(|seconds| bounds.contains(seconds)).ok_or_else(|| {
        format!("the timespan {span} is not from 1s to {MAX_DAYS}d, which is longer than events are kept: write one that is")
    })
}

/// The bounds of the condition, of which there has to be one.
fn bounded(node: &Node, counts: Counts) -> Result<Vec<Bound>, String> {
    let bounds = Bound::read(node, counts)?;
    if bounds.is_empty() { Err("the correlation's condition has no bound".to_owned()) } else { Ok(bounds) }
}

fn events(node: &Node) -> Result<(Kind, Vec<Bound>), String> {
    no_field(node, "an event_count counts events: for the values of a field write value_count")?;
    Ok((Kind::Events, bounded(node, Counts::of_events(1))?))
}

fn values(node: &Node, parts: &[Rc<Part>]) -> Result<(Kind, Vec<Bound>), String> {
    let condition = field(node, "condition");
    let asked = condition.and_then(|condition| field(condition, "field"));
    if asked.is_some_and(|asked| matches!(asked.value, Yaml::List(_) | Yaml::Map(_))) {
        return Err("a value_count of several fields is not built: name one".to_owned());
    }
    let name = condition.and_then(|condition| text(condition, "field"));
    let name = name.ok_or("a value_count needs a field in its condition")?;
    // An event without a value is one of its group and counts for none.
    let bounds = bounded(node, Counts::of_events(0))?;
    Ok((Kind::Values(columns(&name, parts)?), bounds))
}

/// Every rule in the span, or as many of them as the condition says.
fn together(node: &Node, parts: &[Rc<Part>]) -> Result<(Kind, Vec<Bound>), String> {
    no_field(node, NO_FIELD)?;
    let counts = Counts::of_rules(parts.len());
    let bounds = Bound::read(node, counts)?;
    let all = Bound { operator: ">=", number: counts.most };
    Ok((Kind::Together, if bounds.is_empty() { vec![all] } else { bounds }))
}

fn ordered(node: &Node, parts: &[Rc<Part>]) -> Result<(Kind, Vec<Bound>), String> {
    no_field(node, NO_FIELD)?;
    let counts = Counts::of_rules(parts.len());
    let bounds = Bound::read(node, counts)?;
    if !parts.is_empty()
        && (counts.least..counts.most).any(|few| bounds.iter().all(|bound| bound.holds(few)))
        && !bounds.is_empty()
    {
        return Err(format!(
            "some of the rules in order are not built: the condition has to need all {}",
            counts.most
        ));
    }
    Ok((Kind::Ordered, bounds))
}

fn no_field(node: &Node, problem: &str) -> Result<(), String> {
    let asked = field(node, "condition").and_then(|condition| field(condition, "field"));
    if asked.is_some() { Err(problem.to_owned()) } else { Ok(()) }
}

const NO_FIELD: &str = "a temporal correlation counts its rules and has no field: for values write value_count";
