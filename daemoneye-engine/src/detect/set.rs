//! The rules that run together, and what each of them has cost and found.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleState};
use datafusion::arrow::array::RecordBatch;

use super::compile::Compiled;
use super::prefilter::{Candidates, Prefilter};
use super::row::Columns;
use super::{LoadedRule, Refusal, output};
use crate::ingest::EventBatch;
use crate::store::RuleMatch;

/// A set of compiled rules. It never changes: a reload compiles a new one and swaps the `Arc`.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Running>,
    prefilter: Prefilter,
    /// Remembers across batches; a second thread at the same time begins with nothing.
    candidates: Mutex<Candidates>,
    /// Batches and rows since it was compiled, counted once for all rules: most are candidates on no row of a batch.
    batches: AtomicU64,
    rows: AtomicU64,
    candidates_found: AtomicU64,
}

#[derive(Debug)]
struct Running {
    rule: Arc<DetectionRule>,
    compiled: Arc<Compiled>,
    counters: Counters,
}

/// Written by the evaluating thread, read by health; nothing is decided by them, so their order does not matter.
#[derive(Debug)]
struct Counters {
    /// Before this set: its own are counted by the set.
    evaluations: AtomicU64,
    rows: AtomicU64,
    matches: AtomicU64,
    nanoseconds: AtomicU64,
    degraded: AtomicU64,
    overflows: AtomicU64,
    last_match_us: AtomicI64,
}

/// What one rule has done since its set was compiled, or longer where the counters were continued.
#[derive(Debug, Clone)]
pub struct RuleStats {
    /// Which rule.
    pub rule: Arc<DetectionRule>,
    /// Batches that it was there for.
    pub evaluations: u64,
    /// Rows of those batches. On most of them it was no candidate and cost nothing.
    pub rows: u64,
    /// Rows that matched.
    pub matches: u64,
    /// Nanoseconds it took.
    pub nanoseconds: u64,
    /// Event time of its latest match, µs since the Unix epoch.
    pub last_match_us: Option<i64>,
    /// Evaluations that lacked a column that the rule reads; that column was NULL for it.
    pub degraded: u64,
    /// Results that did not fit a whole number; they were NULL.
    pub overflows: u64,
}

impl RuleSet {
    /// Takes the active rules, in order of id. A second rule with an id that is taken is refused and the others stand.
    #[must_use]
    pub fn compile(rules: Vec<LoadedRule>) -> (Self, Vec<Refusal>) {
        let (mut running, mut refusals) = (BTreeMap::new(), Vec::new());
        for LoadedRule { rule, compiled, path, .. } in rules {
            if rule.state != RuleState::Active {
                continue;
            }
            match running.entry(rule.id) {
                Entry::Vacant(free) => {
                    free.insert(Running { rule: Arc::new(rule), compiled, counters: Counters::default() });
                }
                Entry::Occupied(_) => {
                    let message = format!("another rule has the id {}", rule.id);
                    refusals.push(Refusal::whole(&path, message, Some("give the newer rule an id of its own")));
                }
            }
        }
        let rules: Vec<Running> = running.into_values().collect();
        let prefilter = Prefilter::new(rules.iter().map(|running| &running.compiled.condition));
        (Self { rules, prefilter, ..Self::default() }, refusals)
    }

    /// The same rules without the prefilter: each is evaluated on every row. For tests and benchmarks, which hold the one to
    /// the other.
    #[must_use]
    pub fn without_prefilter(mut self) -> Self {
        self.prefilter = Prefilter::open(self.rules.len());
        self
    }

    /// Size of the automata that find candidates, in bytes.
    #[must_use]
    pub fn automata_bytes(&self) -> usize {
        self.prefilter.automata_bytes()
    }

    /// Every match of every rule in the batch: rules in order of id, rows in order.
    #[must_use]
    pub fn evaluate(&self, events: &EventBatch, completeness: &Completeness) -> Vec<RuleMatch> {
        let columns = Columns::of(&events.batch);
        if columns.lacks_some() {
            self.rules.iter().filter(|running| running.lacks(&columns)).for_each(Running::degraded);
        }
        let mut fresh = Candidates::default();
        let mut kept = match self.candidates.try_lock() {
            Ok(kept) => Some(kept),
            // What a panic left is overwritten before it is read.
            Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => None,
        };
        let candidates = kept.as_deref_mut().unwrap_or(&mut fresh);
        let mut matches = Vec::new();
        let mut row = 0;
        while row < columns.rows() {
            let next = self.prefilter.find(&columns, row, candidates);
            if next == row {
                break;
            }
            row = next;
            self.candidates_found.fetch_add(candidates.len(), Ordering::Relaxed);
            self.decide(&events.batch, &columns, completeness, candidates, &mut matches);
        }
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(u64::try_from(columns.rows()).unwrap_or(u64::MAX), Ordering::Relaxed);
        matches.sort_unstable_by_key(|(rule, found)| (*rule, found.row));
        matches.into_iter().map(|(_, found)| found).collect()
    }

    /// How often a rule was a candidate on a row since the set was compiled.
    #[must_use]
    pub fn candidates(&self) -> u64 {
        self.candidates_found.load(Ordering::Relaxed)
    }

    /// Evaluates the candidates. The clock is read once between two rules.
    fn decide(
        &self,
        batch: &RecordBatch,
        columns: &Columns<'_>,
        completeness: &Completeness,
        candidates: &Candidates,
        matches: &mut Vec<(usize, RuleMatch)>,
    ) {
        let mut started = Instant::now();
        for rule in candidates.rules() {
            let Some(running) = self.rules.get(rule) else { continue };
            let overflows = columns.overflows();
            for row in candidates.rows(rule).filter(|row| running.compiled.matches(columns, *row)) {
                matches.push((rule, running.found(batch, columns, row, completeness)));
            }
            running.overflowed(columns.overflows().saturating_sub(overflows));
            let now = Instant::now();
            running.counters.took(now.saturating_duration_since(started));
            started = now;
        }
    }

    /// The counters, in order of id.
    #[must_use]
    pub fn stats(&self) -> Vec<RuleStats> {
        let (batches, rows) = (self.batches.load(Ordering::Relaxed), self.rows.load(Ordering::Relaxed));
        self.rules.iter().map(|running| running.stats(batches, rows)).collect()
    }

    /// Takes over the counters of the rules that both sets have with the same text, so that a reload does not hide them.
    pub fn continue_counters_of(&self, previous: &Self) {
        let old: HashMap<_, _> = previous.stats().into_iter().map(|stats| (stats.rule.id, stats)).collect();
        for running in &self.rules {
            if let Some(old) = old.get(&running.rule.id).filter(|old| old.rule.hash == running.rule.hash) {
                running.counters.add(old);
            }
        }
    }

    /// The rules that run, in order of id.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<DetectionRule>> {
        self.rules.iter().map(|running| &running.rule)
    }

    /// How many rules run.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether none runs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Running {
    fn found(&self, batch: &RecordBatch, columns: &Columns<'_>, row: usize, completeness: &Completeness) -> RuleMatch {
        self.counters.matched(columns.time(row));
        let mut completeness = completeness.clone();
        if self.lacks(columns) {
            completeness.degrade(Degraded::SchemaUnavailable);
        }
        let output = output::row(&self.compiled.outputs, columns, row);
        RuleMatch { rule: Arc::clone(&self.rule), batch: batch.clone(), row, output, completeness }
    }

    /// Whether it reads a column that the batch does not have.
    fn lacks(&self, columns: &Columns<'_>) -> bool {
        columns.lacks_some() && !self.compiled.columns.iter().all(|column| columns.has(*column))
    }

    fn degraded(&self) {
        self.counters.degraded.fetch_add(1, Ordering::Relaxed);
    }

    /// Said once per rule and load: every event could do it.
    fn overflowed(&self, times: u64) {
        if times > 0 && self.counters.overflows.fetch_add(times, Ordering::Relaxed) == 0 {
            let rule = &self.rule.name;
            tracing::warn!(rule, "the rule calculates a number that does not fit 64 bits; it is NULL in such events");
        }
    }

    fn stats(&self, batches: u64, rows: u64) -> RuleStats {
        let last = self.counters.last_match_us.load(Ordering::Relaxed);
        RuleStats {
            rule: Arc::clone(&self.rule),
            evaluations: self.counters.evaluations.load(Ordering::Relaxed).saturating_add(batches),
            rows: self.counters.rows.load(Ordering::Relaxed).saturating_add(rows),
            matches: self.counters.matches.load(Ordering::Relaxed),
            nanoseconds: self.counters.nanoseconds.load(Ordering::Relaxed),
            last_match_us: (last != i64::MIN).then_some(last),
            degraded: self.counters.degraded.load(Ordering::Relaxed),
            overflows: self.counters.overflows.load(Ordering::Relaxed),
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            evaluations: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            matches: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            degraded: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            last_match_us: AtomicI64::new(i64::MIN),
        }
    }
}

impl Counters {
    fn matched(&self, time: Option<i64>) {
        self.matches.fetch_add(1, Ordering::Relaxed);
        self.last_match_us.fetch_max(time.unwrap_or(i64::MIN), Ordering::Relaxed);
    }

    fn took(&self, time: Duration) {
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn add(&self, old: &RuleStats) {
        for (to, from) in [
            (&self.evaluations, old.evaluations),
            (&self.rows, old.rows),
            (&self.matches, old.matches),
            (&self.nanoseconds, old.nanoseconds),
            (&self.degraded, old.degraded),
            (&self.overflows, old.overflows),
        ] {
            to.fetch_add(from, Ordering::Relaxed);
        }
        self.last_match_us.fetch_max(old.last_match_us.unwrap_or(i64::MIN), Ordering::Relaxed);
    }
}
