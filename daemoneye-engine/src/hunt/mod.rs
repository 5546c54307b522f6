//! Rules over events from anywhere: our rules and Sigma's, one JSON object a line, and the same matcher as on live events.
//!
//! How lines fall into batches changes nothing about what is found. A rule that needs several events goes by their time and names
//! the line of the one that completed it. What cannot be used, of the rules or of the lines, is told and stops nothing else.

mod cell;
mod lacks;
mod mend;
mod order;
mod printed;
mod read;
mod rows;
mod settle;
mod time;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use daemoneye_lib::model::{Completeness, RuleKind, RuleState};
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use serde::Serialize;
use uuid::Uuid;

pub use self::lacks::Lacks;
pub use self::rows::{Line, Lines, Rows};

use self::order::{Order, Ordered};
use self::printed::Printed;
use self::read::ANY_FIELD;

use crate::detect::{Exceptions, LoadedRule, RuleSet, rules};
use crate::ingest::EventBatch;
use crate::sigma::{self, Lists, Verdict};
use crate::store::RuleMatch;

/// One match, as it is printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Match<'a> {
    /// The rule's id as its file has it.
    pub rule_id: &'a str,
    /// The event's line, from 0.
    pub event: u64,
}

/// Something to know about a rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether a rule does not run because of it that should.
    pub is_refusal: bool,
    /// File, line and what there is to know.
    pub text: String,
}

/// The rules of a hunt.
#[derive(Debug)]
pub struct Hunt {
    /// Rules that one event decides.
    set: RuleSet,
    /// Rules that need several: they see the lines in the order of their times.
    windows: RuleSet,
    order: Mutex<Order>,
    exceptions: Exceptions,
    /// Ids as they are printed.
    ids: HashMap<Uuid, String>,
    unmapped: BTreeSet<String>,
    printed: Mutex<Printed>,
}

impl Hunt {
    /// Takes every rule below the paths, ours and Sigma's, with the lists, overrides and exceptions in any of them, and tells what it
    /// could not take.
    #[must_use]
    pub fn load(paths: &[PathBuf], lists: &Lists) -> (Self, Vec<Note>) {
        let mut loading = Loading::default();
        let (mut foreign, mut own, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for path in paths {
            let (mut files, problems) = sigma::files(path);
            // The paths may lie in each other.
            files.retain(|file| seen.insert(fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone())));
            for (file, problem) in problems {
                loading.note(true, format!("{}: {problem}", file.display()));
            }
            let (of_sigma, ours): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| sigma::is_sigma(&file.text));
            foreign.extend(of_sigma);
            own.push(ours.into_iter().map(|file| (file.path, file.text)).collect());
        }
        sigma::convert(&foreign, lists).into_iter().for_each(|one| loading.sigma(one));
        // Through the loader of rule directories, so that what such a directory means is decided in one place.
        let loaded = rules::load_texts(&own, &std::mem::take(&mut loading.rules));
        loaded.problems.iter().for_each(|problem| loading.note(true, problem.to_string()));
        loaded.rules.into_iter().for_each(|rule| loading.rule(rule));
        let Loading { rules, ids, mut notes, unmapped } = loading;
        let exceptions = Exceptions::of(&rules);
        let (alone, several): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.rule.kind == RuleKind::Stream);
        let (set, mut refusals) = RuleSet::compile(alone);
        let (windows, more) = RuleSet::compile(several);
        refusals.extend(more);
        notes.extend(refusals.iter().map(|refusal| Note { is_refusal: true, text: refusal.to_string() }));
        let windows = windows.in_order();
        (Self { set, windows, order: Mutex::default(), exceptions, ids, unmapped, printed: Mutex::default() }, notes)
    }

    /// Fields that rules ask for and no column holds: of an event that has one it is not known whether they would have matched.
    #[must_use]
    pub fn unmapped(&self) -> Vec<String> {
        self.unmapped.iter().cloned().collect()
    }

    /// How many rules run.
    #[must_use]
    pub const fn rules(&self) -> usize {
        self.set.len().saturating_add(self.windows.len())
    }

    /// What is found with these lines and no exception hides, in order of line, then of id. A rule that needs several events may
    /// name a line of the batch before; it names each line once, however many ways led there.
    #[must_use]
    pub fn matches(&self, lines: Lines) -> Vec<Match<'_>> {
        let mut found = Vec::new();
        if !self.windows.is_empty() {
            let ordered = self.order.lock().unwrap_or_else(PoisonError::into_inner).add(lines.batch.clone());
            found = self.in_order(ordered);
        }
        found.extend(self.set.evaluate(&events(lines.batch), &Completeness::complete()));
        self.shown(found)
    }

    fn in_order(&self, ordered: Result<Vec<Ordered>, ArrowError>) -> Vec<RuleMatch> {
        let ordered = ordered.unwrap_or_else(|error| {
            tracing::error!(%error, "rows were not put in order; rules over several events lack them");
            Vec::new()
        });
        let each = |part| match part {
            Ordered::Rows(batch) => self.windows.evaluate(&events(batch), &Completeness::complete()),
            Ordered::Back { to_us } => self.windows.go_back(to_us),
        };
        ordered.into_iter().flat_map(each).collect()
    }

    /// What is found because nothing more comes.
    #[must_use]
    pub fn finish(&self) -> Vec<Match<'_>> {
        let ordered = self.order.lock().unwrap_or_else(PoisonError::into_inner).finish();
        let mut found = self.in_order(ordered.map(|batch| batch.map(Ordered::Rows).into_iter().collect()));
        found.extend(self.windows.advance(i64::MAX));
        self.shown(found)
    }

    fn shown(&self, found: Vec<RuleMatch>) -> Vec<Match<'_>> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |found: &RuleMatch| {
            let seq = found.batch.column_by_name("seq")?.as_primitive_opt::<Int64Type>()?;
            let line = seq.values().get(found.row).and_then(|line| u64::try_from(*line).ok())?;
            // On a row alone a rule is decided once, so only the others are remembered.
            let is_new = found.rule.kind == RuleKind::Stream || printed.add(line, found.rule.id);
            is_new.then_some(Match { rule_id: self.ids.get(&found.rule.id)?, event: line })
        };
        let mut matches: Vec<Match<'_>> = self.exceptions.judge(found).shown.iter().filter_map(one).collect();
        matches.sort_unstable_by_key(|found| (found.event, found.rule_id));
        matches
    }

    /// Matches that may have been printed before: so many lay between that it is no longer known.
    #[must_use]
    pub fn maybe_again(&self) -> u64 {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).doubtful()
    }

    /// Rules that need several events and could not see all that they need, each with what was missing.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let times = self.order.lock().unwrap_or_else(PoisonError::into_inner).went_back();
        let back = (times > 0).then(|| {
            format!(
                "the time of events went back {times} times, and rules over several events saw what lies before and behind apart or as too \
                 late: order the file by time"
            )
        });
        back.into_iter().chain(self.windows.shortfalls()).collect()
    }
}

fn events(batch: RecordBatch) -> EventBatch {
    let at = Sequence::new(1, 1);
    EventBatch { batch, collector: "hunt".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() }
}

#[derive(Default)]
struct Loading {
    rules: Vec<LoadedRule>,
    ids: HashMap<Uuid, String>,
    notes: Vec<Note>,
    unmapped: BTreeSet<String>,
}

impl Loading {
    fn rule(&mut self, rule: LoadedRule) {
        if rule.rule.state == RuleState::Active {
            self.ids.entry(rule.rule.id).or_insert_with(|| rule.rule.id.to_string());
            self.rules.push(rule);
        } else {
            self.note(false, format!("{}: the rule is not active and does not run", rule.path.display()));
        }
    }

    fn sigma(&mut self, conversion: sigma::Conversion) {
        let sigma::Conversion { file, title, verdict, reasons, rule, sigma_id, id, unmapped, keywords, .. } =
            conversion;
        self.unmapped.extend(unmapped);
        // Also where a correlation runs in its place.
        self.unmapped.extend((keywords && verdict != Verdict::Refused).then(|| ANY_FIELD.to_owned()));
        let file = file.display();
        for reason in &reasons {
            let (place, verdict_word) = (reason.place(), verdict.as_str());
            let place = if place.is_empty() { " " } else { &place };
            let whose = if title.is_empty() { String::new() } else { format!(" ({title})") };
            let text = format!("{file}:{place}{verdict_word}: {}{whose}", reason.message);
            self.note(verdict == Verdict::Refused, text);
        }
        if let Some(rule) = rule {
            self.ids.insert(id, sigma_id);
            self.rules.push(rule);
        }
    }

    fn note(&mut self, is_refusal: bool, text: String) {
        self.notes.push(Note { is_refusal, text });
    }
}
