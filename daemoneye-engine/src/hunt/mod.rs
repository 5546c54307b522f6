//! Rules over events from anywhere: our rules and Sigma's, one JSON object a line, and the same matcher as on live events.
//!
//! Every event is decided by itself and every rule by every event, so the answer does not depend on how lines fall into batches.
//! What cannot be used, of the rules or of the lines, is told and stops nothing else.

mod read;
mod rows;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use daemoneye_lib::model::{Completeness, RuleKind, RuleState};
use daemoneye_lib::proto::Sequence;
use serde::Serialize;
use uuid::Uuid;

pub use self::rows::{Line, Lines, Rows};

use crate::detect::{LoadedRule, Refusal, RuleSet, rules};
use crate::ingest::EventBatch;
use crate::sigma::{self, Lists, Verdict};

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
    set: RuleSet,
    /// Ids as they are printed.
    ids: HashMap<Uuid, String>,
}

impl Hunt {
    /// Takes every rule below the paths, ours and Sigma's, and tells what it could not take.
    #[must_use]
    pub fn load(paths: &[PathBuf], lists: &Lists) -> (Self, Vec<Note>) {
        let mut loading = Loading { lists, rules: Vec::new(), ids: HashMap::new(), notes: Vec::new() };
        paths.iter().for_each(|path| loading.path(path));
        let Loading { rules, ids, mut notes, .. } = loading;
        let (set, refusals) = RuleSet::compile(rules);
        notes.extend(refusals.iter().map(|refusal| Note { is_refusal: true, text: refusal.to_string() }));
        (Self { set, ids }, notes)
    }

    /// How many rules run.
    #[must_use]
    pub const fn rules(&self) -> usize {
        self.set.len()
    }

    /// Every match in the lines, in order of line, then of id.
    #[must_use]
    pub fn matches(&self, lines: Lines) -> Vec<Match<'_>> {
        let Lines { batch, numbers } = lines;
        let (at, collector) = (Sequence::new(1, 1), "hunt".into());
        let events = EventBatch { batch, collector, first: at, last: at, gaps: Vec::new(), live: Vec::new() };
        let found = self.set.evaluate(&events, &Completeness::complete());
        let one = |found: &crate::store::RuleMatch| {
            let rule_id = self.ids.get(&found.rule.id).map_or("", String::as_str);
            Some(Match { rule_id, event: *numbers.get(found.row)? })
        };
        let mut matches: Vec<Match<'_>> = found.iter().filter_map(one).collect();
        matches.sort_unstable_by_key(|found| (found.event, found.rule_id));
        matches
    }
}

struct Loading<'a> {
    lists: &'a Lists,
    rules: Vec<LoadedRule>,
    ids: HashMap<Uuid, String>,
    notes: Vec<Note>,
}

impl Loading<'_> {
    fn path(&mut self, path: &Path) {
        let (files, problems) = sigma::files(path);
        for (file, problem) in problems {
            self.note(true, format!("{}: {problem}", file.display()));
        }
        let (foreign, own): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| sigma::is_sigma(&file.text));
        sigma::convert(&foreign, self.lists).into_iter().for_each(|one| self.sigma(one));
        if !own.is_empty() {
            let foreign: BTreeSet<&Path> = foreign.iter().map(|file| file.path.as_path()).collect();
            self.own(path, &own, &foreign);
        }
    }

    /// Through the loader of rule directories, so that what such a directory means is decided in one place.
    fn own(&mut self, path: &Path, own: &[sigma::RuleFile], foreign: &BTreeSet<&Path>) {
        if path.is_dir() {
            let loaded = rules::load_dirs(&[path.to_owned()]);
            loaded
                .problems
                .iter()
                .filter(|problem| !foreign.contains(problem.file.as_path()))
                .for_each(|p| self.refused(p));
            loaded.rules.into_iter().for_each(|rule| self.rule(rule));
            return;
        }
        for file in own {
            match rules::parse(&file.path, &file.text) {
                Ok(rule) => self.rule(rule),
                Err(problems) => problems.iter().for_each(|problem| self.refused(problem)),
            }
        }
    }

    fn rule(&mut self, rule: LoadedRule) {
        let whose = rule.path.display();
        if rule.rule.kind == RuleKind::Window {
            self.note(true, format!("{whose}: a hunt decides event by event, and this rule needs several"));
        } else if rule.rule.state == RuleState::Active {
            self.ids.insert(rule.rule.id, rule.rule.id.to_string());
            self.rules.push(rule);
        } else {
            self.note(false, format!("{whose}: the rule is not active and does not run"));
        }
    }

    fn refused(&mut self, problem: &Refusal) {
        self.note(true, problem.to_string());
    }

    fn sigma(&mut self, conversion: sigma::Conversion) {
        let sigma::Conversion { file, verdict, reasons, rule, sigma_id, id, .. } = conversion;
        let file = file.display();
        for reason in &reasons {
            let line = if reason.line > 0 { format!(":{}", reason.line) } else { String::new() };
            self.note(verdict == Verdict::Refused, format!("{file}{line}: {}: {}", verdict.as_str(), reason.message));
        }
        match rule {
            Some(rule) if rule.rule.kind == RuleKind::Window => self.rule(rule),
            Some(rule) => {
                self.ids.insert(id, sigma_id);
                self.rules.push(rule);
            }
            None => {}
        }
    }

    fn note(&mut self, is_refusal: bool, text: String) {
        self.notes.push(Note { is_refusal, text });
    }
}
