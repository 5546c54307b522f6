//! Sigma rules as ours: YAML in, a rule file with visible SQL out, exactly as Sigma's specification (version 2) says.
//!
//! Nothing is approximated: what cannot be said over `process_events` is refused by its name, and a field that no column holds is
//! one that no event has, which the verdict tells. Sigma knows two truth values and SQL three, so every leaf is written so that
//! NULL makes it false, and a negation as `IS NOT TRUE`. Each converted rule passes the guard and the compiler like any other.

mod condition;
mod conversion;
mod correlation;
mod document;
mod encode;
mod expr;
pub(crate) mod fields;
mod folder;
mod grouping;
pub(crate) mod leaf;
mod lists;
mod modifiers;
mod pcre;
mod text;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use serde_saphyr::Location;
use uuid::Uuid;

pub use self::conversion::{Conversion, Reason, Verdict};
pub use self::folder::{RuleFile, files};
pub use self::lists::{Lists, read_lists};

use self::correlation::{Matches, Part};
use self::document::{Detection, Header};
use self::expr::{Expr, quoted};
use self::fields::Naming;
use crate::detect::rules::yaml::{Node, Yaml, read_merged};
use crate::detect::{LoadedRule, rules};

/// Columns that a converted rule returns: who ran what, started by whom.
const OUTPUT: &str =
    "time, pid, name, executable_path, command_line, user, parent_name, parent_executable_path, parent_command_line";

/// Converts every document of the files; correlations find the rules that they refer to in all of them. Ids that have to be made are
/// made of the files' names, so that they stay the same on every host.
#[must_use]
pub fn convert(files: &[RuleFile], lists: &Lists) -> Vec<Conversion> {
    let (mut done, mut correlations) = (Vec::new(), Vec::new());
    for file in files {
        let mut collection = None;
        for (document, text) in document::documents(&file.text).into_iter().enumerate() {
            match Draft::new(file, document, lists).convert(&text, &mut collection) {
                Stage::Done(converted) => done.push(*converted),
                Stage::Correlation(correlation) => correlations.push(*correlation),
            }
        }
    }
    let replaced = correlate(correlations, &mut done);
    let alone = |converted: Converted| {
        let mut conversion = converted.conversion;
        if conversion.rule.is_some() && replaced.contains(&conversion.sigma_id) {
            conversion.rule = None;
            let message = "it stands in a correlation and raises nothing by itself (generate: true would)";
            conversion.reasons.push(Reason::new(converted.at, message));
        }
        conversion
    };
    let mut conversions: Vec<Conversion> = done.into_iter().map(alone).collect();
    conversions.sort_by(|a, b| (&a.file, a.document).cmp(&(&b.file, b.document)));
    refuse_repeated_ids(&mut conversions);
    conversions
}

/// Of rules with one id the first is in force, as in a directory of ours.
fn refuse_repeated_ids(conversions: &mut [Conversion]) {
    let mut first_of: HashMap<Uuid, String> = HashMap::new();
    for conversion in conversions.iter_mut().filter(|conversion| conversion.rule.is_some()) {
        match first_of.get(&conversion.id) {
            Some(first) => conversion.refuse_id_of(first),
            None => {
                let (file, line) = (conversion.file.display(), conversion.id_at.line());
                first_of.insert(conversion.id, format!("{file}:{line} ({})", conversion.title));
            }
        }
    }
}

/// Adds the correlations to the rules that are done, those first that others refer to: the ids of the rules that stand in them.
fn correlate(mut waiting: Vec<(Draft<'_>, Node)>, done: &mut Vec<Converted>) -> BTreeSet<String> {
    let mut parts: Vec<Rc<Part>> = done.iter().map(|converted| Rc::clone(&converted.part)).collect();
    let first = parts.len();
    parts.extend(waiting.iter().map(|(draft, _)| Rc::new(draft.part(Matches::Later))));
    let mut places: Vec<usize> = (first..parts.len()).collect();
    let mut replaced = BTreeSet::new();
    while !waiting.is_empty() {
        let is_later = |part: &&Rc<Part>| matches!(part.matches, Matches::Later);
        let waits = |name: &str| parts.iter().filter(is_later).any(|part| part.is_called(name));
        let next = correlation::next_of(waiting.iter().map(|(_, node)| node), waits);
        let ((draft, node), place) = (waiting.remove(next), places.remove(next));
        let at = draft.at;
        let mut part = draft.part(Matches::Nothing);
        let conversion = match correlation::read(&node, &parts) {
            Err(problems) => draft.refused(problems),
            Ok(read) => {
                let lack = |(rule, field): (String, String)| {
                    let message = format!("a part of its rule {rule} is missing: no column holds the field {field}");
                    (Reason::new(read.at, message), field)
                };
                let (reasons, unmapped) = read.unmapped().into_iter().map(lack).unzip();
                let conversion = draft.finish(&read.sql(), &read.dedup(), Lacks { reasons, unmapped });
                // Where nothing stands in their place they go on by themselves: too much is better than nothing.
                if conversion.rule.is_some() {
                    replaced.extend(read.replaced(&node));
                    part = Part { matches: Matches::Correlated(read), unmapped: conversion.unmapped.clone(), ..part };
                }
                conversion
            }
        };
        let part = Rc::new(part);
        parts.splice(place..=place, [Rc::clone(&part)]);
        done.push(Converted { conversion, at, part });
    }
    replaced
}

/// Whether a file is Sigma's rather than a rule of ours: by the keys that only one of them has.
#[must_use]
pub fn is_sigma(text: &str) -> bool {
    const SIGMA: &[&str] = &["detection", "logsource", "correlation"];
    const OURS: &[&str] = &["sql"];
    let Some(keys) = document::keys(text) else { return seems(text, SIGMA) && !seems(text, OURS) };
    let has = |names: &[&str]| names.iter().any(|name| keys.contains(*name));
    has(SIGMA) && !has(OURS)
}

/// Of a file that cannot be read, which has to be told by someone: by the words at the beginning of its lines.
fn seems(text: &str, names: &[&str]) -> bool {
    text.lines().any(|line| {
        let key = line.strip_prefix('"').unwrap_or(line);
        let is =
            |name: &&str| key.strip_prefix(name).is_some_and(|rest| rest.trim_start_matches('"').starts_with(':'));
        names.iter().any(is)
    })
}

/// A rule that is done, and what a correlation needs of it.
struct Converted {
    conversion: Conversion,
    /// Where it begins.
    at: Location,
    part: Rc<Part>,
}

/// What there is to know about a rule, and the fields that it asks for and no column holds.
#[derive(Default)]
struct Lacks {
    reasons: Vec<Reason>,
    unmapped: Vec<String>,
}

enum Stage<'a> {
    Correlation(Box<(Draft<'a>, Node)>),
    Done(Box<Converted>),
}

/// A conversion under way.
struct Draft<'a> {
    file: &'a RuleFile,
    document: usize,
    /// Where it says what it is: its title, or what it has of a rule.
    at: Location,
    id_at: Location,
    keywords: bool,
    /// Where a collection begins whose parts it may lack.
    collection: Option<Location>,
    header: Header,
    lists: &'a Lists,
}

impl<'a> Draft<'a> {
    fn new(file: &'a RuleFile, document: usize, lists: &'a Lists) -> Self {
        let at = Location::UNKNOWN;
        Self { file, document, at, id_at: at, keywords: false, collection: None, header: Header::default(), lists }
    }

    /// `collection` is where a document of the file before it says `action`.
    fn convert(mut self, text: &str, collection: &mut Option<Location>) -> Stage<'a> {
        let node = match read_merged(text) {
            Ok(node) => node,
            Err(unreadable) => {
                let message = format!("this is not YAML that we read: {}", unreadable.message);
                let part = Rc::new(Part { place: String::new(), ..self.part(Matches::Nothing) });
                let conversion = self.refused(vec![Reason::new(unreadable.location, message)]);
                return Stage::Done(Box::new(Converted { conversion, at: Location::UNKNOWN, part }));
            }
        };
        self.header = Header::read(&node);
        let said = ["title", "correlation", "detection"].into_iter().find_map(|key| document::key_at(&node, key));
        self.at = said.unwrap_or(node.referenced);
        self.id_at = document::field(&node, "id").map_or(self.at, |id| id.referenced);
        self.keywords = document::field(&node, "detection").is_some_and(|of| !document::keywords(of).is_empty());
        if document::field(&node, "correlation").is_some() {
            return Stage::Correlation(Box::new((self, node)));
        }
        let (at, naming, part) = (self.at, self.naming(&node), self.part(Matches::Nothing));
        self.collection = *collection;
        *collection = match document::text(&node, "action") {
            Some(action) if action == "reset" => None,
            _ => collection.or_else(|| document::field(&node, "action").map(|node| node.referenced)),
        };
        let (condition, conversion) = self.rule(&node);
        let matches = condition.map_or(Matches::Nothing, |condition| Matches::Events { condition, naming });
        let part = Rc::new(Part { matches, unmapped: conversion.unmapped.clone(), ..part });
        Stage::Done(Box::new(Converted { conversion, at, part }))
    }

    /// As correlations refer to it.
    fn part(&self, matches: Matches) -> Part {
        let (id, name, place) = (self.sigma_id(), self.header.name.clone(), self.place());
        Part { id, name, place, matches, unmapped: Vec::new() }
    }

    fn rule(self, node: &Node) -> (Option<String>, Conversion) {
        if !matches!(node.value, Yaml::Map(_)) {
            return (None, self.refused(vec![Reason::new(node.referenced, "a Sigma rule is a map of fields")]));
        }
        match self.condition(node) {
            Ok((Expr::Constant(false), lacks)) => (None, self.done(Verdict::Inert, lacks, None)),
            Ok((expr, lacks)) => {
                let condition = expr.sql(0);
                let sql = format!("SELECT {OUTPUT}\nFROM process_events\nWHERE {condition}");
                (Some(condition), self.finish(&sql, &[], lacks))
            }
            Err(reasons) => (None, self.refused(reasons)),
        }
    }

    fn naming(&self, node: &Node) -> Naming {
        let events = document::field(node, "detection").map(|of| document::numbers(of, "EventID")).unwrap_or_default();
        Naming::of(&events, self.header.category.as_deref(), self.header.service.as_deref())
    }

    /// The whole condition, or everything that is wrong with the rule.
    fn condition(&self, node: &Node) -> Result<(Expr, Lacks), Vec<Reason>> {
        let mut problems = Vec::new();
        for (key, what) in [
            ("filter", "Sigma filters are not built"),
            ("action", "collections of rules (action) are of Sigma before version 2"),
        ] {
            problems.extend(document::field(node, key).map(|node| Reason::new(node.referenced, what)));
        }
        if let (Some(action), true) = (self.collection, problems.is_empty()) {
            let message = format!(
                "it stands behind a collection of rules (action, line {}), which may hold a part of it: write it whole, in a file of its own",
                action.line()
            );
            problems.push(Reason::new(self.at, message));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (source, mut reasons) = self.logsource(node).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            Default::default()
        });
        let Some(detection) = document::field(node, "detection") else {
            problems.push(Reason::new(node.referenced, "the rule has no detection"));
            return Err(problems);
        };
        let service = document::field(node, "logsource").and_then(|source| document::field(source, "service"));
        let of_one_log = service.map(|node| node.referenced).or_else(|| document::asked_for(detection, "EventID"));
        let (expr, condition_at) = match self.detected(detection, self.naming(node), &mut problems) {
            Some(found) if problems.is_empty() => found,
            _ => {
                problems.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
                problems.dedup();
                return Err(problems);
            }
        };
        let mut unmapped = Vec::new();
        expr.unmapped(false, &mut unmapped);
        reasons.extend(unmapped.iter().map(|(field, holds, at)| {
            let effect = if *holds { "what it would take out stays in" } else { "what needs it never matches" };
            Reason::new(*at, format!("no column holds the field {field}: {effect}"))
        }));
        let mut unmapped: Vec<String> = unmapped.into_iter().map(|(field, ..)| field).collect();
        unmapped.sort();
        unmapped.dedup();
        match expr.folded() {
            Expr::Constant(true) => Err(vec![Reason::new(condition_at, "every event would match")]),
            Expr::Constant(false) => {
                if reasons.is_empty() {
                    reasons.push(Reason::new(condition_at, "no event here can match it"));
                }
                Ok((Expr::Constant(false), Lacks { reasons, unmapped }))
            }
            expr => {
                let message = "an event that does not tell its log is looked at too, as if it were of this one";
                reasons.extend(of_one_log.map(|at| Reason::new(at, message)));
                let number = |word: &&Node| matches!(word.value, Yaml::Integer(_) | Yaml::Real(_));
                let message =
                    "a keyword is looked for in columns of text only, a number too: not in pid, ppid and the like";
                let numbers = document::keywords(detection).into_iter().filter(number);
                reasons.extend(numbers.map(|word| Reason::new(word.referenced, message)));
                let whole = Expr::All(source.into_iter().chain([expr]).collect()).folded();
                Ok((whole, Lacks { reasons, unmapped }))
            }
        }
    }

    /// What the detection asks, and where its condition stands.
    fn detected(&self, node: &Node, naming: Naming, problems: &mut Vec<Reason>) -> Option<(Expr, Location)> {
        let read = Detection::read(node, naming, self.lists);
        let detection = read.map_err(|problem| problems.push(Reason::new(node.referenced, problem))).ok()?;
        if detection.conditions.is_empty() {
            problems.push(Reason::new(node.referenced, "detection has no condition"));
            let wrong = detection.identifiers.into_iter().filter_map(|(_, expr)| expr.err());
            problems.extend(wrong.flatten());
            return None;
        }
        let mut each = Vec::with_capacity(detection.conditions.len());
        for (text, at) in &detection.conditions {
            match condition::parse(text, &detection.identifiers, problems) {
                Ok(expr) => each.push(expr),
                Err(problem) => problems.push(Reason::new(*at, problem)),
            }
        }
        Some((Expr::Any(each), detection.at))
    }

    /// The log source as conditions. What is no source of process events is refused.
    fn logsource(&self, node: &Node) -> Result<(Vec<Expr>, Vec<Reason>), Vec<Reason>> {
        let written = document::field(node, "logsource");
        let at = written.map_or(node.referenced, |node| node.referenced);
        let place =
            |name: &str| written.and_then(|node| document::field(node, name)).map_or(at, |node| node.referenced);
        let mut problems = Vec::new();
        let Header { category, product, service, .. } = &self.header;
        let (mut source, mut reasons) = (Vec::new(), Vec::new());
        let event = |word: &str| Expr::Leaf(format!("event_type = {}", quoted(word)));
        match category.as_deref() {
            Some("process_creation") => source.push(event("start")),
            Some("process_termination") => source.push(event("stop")),
            Some(other) => {
                problems
                    .push(Reason::new(place("category"), format!("no table holds events of the category {other}")));
            }
            None if service.is_none() => {
                reasons.push(Reason::new(at, "logsource names no category: every event of a process is looked at"));
            }
            None => {}
        }
        if let Some(service) = service.as_deref() {
            match fields::log_of(service) {
                Some(log) => source.push(leaf::of_log(log)),
                None => {
                    let message = format!("no table holds events of the service {service}");
                    problems.push(Reason::new(place("service"), message));
                }
            }
        }
        if let Some(product) = product.as_deref() {
            match fields::foreign_sources(product) {
                Some(foreign) => source.push(leaf::not_from(&foreign)),
                None => {
                    let message = format!("no table holds events of the product {product}");
                    problems.push(Reason::new(place("product"), message));
                }
            }
        }
        if problems.is_empty() { Ok((source, reasons)) } else { Err(problems) }
    }

    /// Through the same door as a rule that was written by hand.
    fn finish(self, sql: &str, dedup: &[&str], mut lacks: Lacks) -> Conversion {
        let (id, made) = self.id();
        let at = self.at;
        lacks.reasons.extend(made.map(|message| Reason::new(at, message)));
        let header = Header { title: self.title(), ..self.header.clone() };
        let file = write::rule_file(&header, id, sql, dedup);
        if u64::try_from(file.len()).is_ok_and(|bytes| bytes > rules::MAX_FILE_BYTES) {
            let message = format!(
                "the rule file that it becomes has {} bytes, more than {}: split its values over several rules",
                file.len(),
                rules::MAX_FILE_BYTES
            );
            return self.refused(vec![Reason::new(at, message)]);
        }
        match rules::parse(&self.file.path, &file) {
            Ok(rule) => {
                let verdict = if lacks.unmapped.is_empty() { Verdict::Compiled } else { Verdict::Partial };
                self.done(verdict, lacks, Some(rule))
            }
            Err(problems) => {
                // The places are those of a file that was not written.
                let title = self.title();
                let told = problems
                    .into_iter()
                    .map(|problem| format!("as a rule of ours {title} fails: {}", problem.message));
                self.refused(told.map(|message| Reason::new(at, message)).collect())
            }
        }
    }

    /// Its title and where it stands, for people.
    fn place(&self) -> String {
        format!("{} ({}:{})", self.title(), self.file.name, self.at.line())
    }

    fn sigma_id(&self) -> String {
        self.header.id.clone().unwrap_or_else(|| self.id().0.to_string())
    }

    /// The title, or what the file is called.
    fn title(&self) -> String {
        if self.header.title.is_empty() { self.file.name.clone() } else { self.header.title.clone() }
    }

    /// The id of our rule, and what to say where Sigma's is none.
    fn id(&self) -> (Uuid, Option<String>) {
        if let Some(id) = self.header.id.as_deref().and_then(|id| Uuid::parse_str(id).ok()) {
            return (id, None);
        }
        let cause = match &self.header.id {
            Some(id) => format!("sigma id {id}"),
            None => format!("sigma rule {} {} {}", self.file.name, self.document, self.header.title),
        };
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, cause.as_bytes());
        let message = match &self.header.id {
            Some(written) => format!("the id {written} is no UUID: the rule gets {id}"),
            None => format!("the rule has no id: it gets {id}, made of its path and title"),
        };
        (id, Some(message))
    }

    fn refused(self, reasons: Vec<Reason>) -> Conversion {
        self.done(Verdict::Refused, Lacks { reasons, ..Lacks::default() }, None)
    }

    fn done(self, verdict: Verdict, lacks: Lacks, rule: Option<LoadedRule>) -> Conversion {
        let (id, Lacks { reasons, unmapped }) = (self.id().0, lacks);
        Conversion {
            file: self.file.path.clone(),
            document: self.document,
            sigma_id: self.sigma_id(),
            title: self.header.title,
            id,
            verdict,
            reasons,
            unmapped,
            keywords: self.keywords,
            rule,
            id_at: self.id_at,
        }
    }
}
