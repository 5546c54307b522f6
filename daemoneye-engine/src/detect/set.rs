//! The rules that run together, and what each of them has cost and found.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleKind, RuleState};
use datafusion::arrow::array::RecordBatch;

use super::compile::Compiled;
use super::row::Columns;
use super::window::{WindowStats, Windows};
use super::{LoadedRule, Refusal, output};
use crate::ingest::EventBatch;
use crate::store::{RuleMatch, Store};

/// A set of compiled rules. It never changes: a reload compiles a new one and swaps the `Arc`.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Running>,
    windows: Windows,
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
    /// Batches it was evaluated on.
    pub evaluations: u64,
    /// Rows it looked at.
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
    /// What only a window rule does; its evaluations are runs of its plan, its nanoseconds those of the processor.
    pub window: Option<WindowStats>,
}

impl RuleSet {
    /// Takes the active rules, in order of id. A second rule with an id that is taken is refused and the others stand.
    #[must_use]
    pub fn compile(rules: Vec<LoadedRule>) -> (Self, Vec<Refusal>) {
        let (mut running, mut windows, mut refusals) = (BTreeMap::new(), Vec::new(), Vec::new());
        for LoadedRule { rule, compiled, path, window, .. } in rules {
            if rule.state != RuleState::Active {
                continue;
            }
            match running.entry(rule.id) {
                Entry::Vacant(free) => {
                    let rule = Arc::new(rule);
                    windows.extend(window.map(|plan| (Arc::clone(&rule), plan)));
                    free.insert(Running { rule, compiled, counters: Counters::default() });
                }
                Entry::Occupied(_) => {
                    let message = format!("another rule has the id {}", rule.id);
                    refusals.push(Refusal::whole(&path, message, Some("give the newer rule an id of its own")));
                }
            }
        }
        let windows = Windows::of(windows).unwrap_or_else(|problem| {
            refusals.push(Refusal::whole(Path::new(""), problem.message, Some("window rules do not run")));
            Windows::default()
        });
        let rules = running.into_values().filter(|running| running.rule.kind == RuleKind::Stream).collect();
        (Self { rules, windows }, refusals)
    }

    /// Every match of every rule in the batch: rules in order of id, rows in order.
    #[must_use]
    pub fn evaluate(&self, events: &EventBatch, completeness: &Completeness) -> Vec<RuleMatch> {
        let columns = Columns::of(&events.batch);
        let mut matches = Vec::new();
        for running in &self.rules {
            running.evaluate(&events.batch, &columns, completeness, &mut matches);
        }
        self.windows.observe(events, &columns, completeness, &mut matches);
        matches
    }

    /// Whether a window rule has seen no event yet, so that [`RuleSet::fill`] has something to do.
    #[must_use]
    pub fn lacks_past(&self) -> bool {
        self.windows.lacks_past()
    }

    /// Gives window rules that have seen no event the ones of the store that they look back over. Blocking, for as long as
    /// reading these takes; no event may be evaluated or appended meanwhile, or it would be missing or there twice.
    pub fn fill(&self, store: &Store) {
        self.windows.fill(store);
    }

    /// What window rules find when time passes and no event comes: no event older than `to_us` (µs since the Unix epoch) will
    /// come any more.
    #[must_use]
    pub fn advance(&self, to_us: i64) -> Vec<RuleMatch> {
        let mut matches = Vec::new();
        self.windows.advance(to_us, &mut matches);
        matches
    }

    /// Something is missing from the time up to `at_us` (µs since the Unix epoch) that no batch tells: window rules that look back
    /// over it say so.
    pub fn lack(&self, reason: Degraded, at_us: i64) {
        self.windows.lack(reason, at_us);
    }

    /// The counters, in order of id.
    #[must_use]
    pub fn stats(&self) -> Vec<RuleStats> {
        let mut stats: Vec<_> = self.rules.iter().map(Running::stats).chain(self.windows.stats()).collect();
        stats.sort_by_key(|stats| stats.rule.id);
        stats
    }

    /// Takes over the counters, and the rows of window rules, of the rules that both sets have with the same text, so that a reload
    /// does not hide them.
    pub fn continue_counters_of(&self, previous: &Self) {
        let old: HashMap<_, _> = previous.rules.iter().map(|running| (running.rule.id, running)).collect();
        for running in &self.rules {
            if let Some(old) = old.get(&running.rule.id).filter(|old| old.rule.hash == running.rule.hash) {
                running.counters.add(&old.counters);
            }
        }
        self.windows.continue_with(&previous.windows);
    }

    /// The rules that run: stream rules in order of id, then window rules.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<DetectionRule>> {
        self.rules.iter().map(|running| &running.rule).chain(self.windows.rules())
    }

    /// How many rules run.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rules.len() + self.windows.len()
    }

    /// Whether none runs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Running {
    fn evaluate(
        &self,
        batch: &RecordBatch,
        columns: &Columns<'_>,
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) {
        let (started, overflows) = (Instant::now(), columns.overflows());
        let mut completeness = completeness.clone();
        if !self.compiled.columns.iter().all(|column| columns.has(*column)) {
            completeness.degrade(Degraded::SchemaUnavailable);
            self.counters.degraded.fetch_add(1, Ordering::Relaxed);
        }
        for row in (0..columns.rows()).filter(|row| self.compiled.matches(columns, *row)) {
            self.counters.matched(columns.time(row));
            matches.push(RuleMatch {
                rule: Arc::clone(&self.rule),
                batch: batch.clone(),
                row,
                output: output::row(&self.compiled.outputs, columns, row),
                completeness: completeness.clone(),
            });
        }
        self.overflowed(columns.overflows().saturating_sub(overflows));
        self.counters.evaluated(columns.rows(), started);
    }

    /// Said once per rule and load: every event could do it.
    fn overflowed(&self, times: u64) {
        if times > 0 && self.counters.overflows.fetch_add(times, Ordering::Relaxed) == 0 {
            let rule = &self.rule.name;
            tracing::warn!(rule, "the rule calculates a number that does not fit 64 bits; it is NULL in such events");
        }
    }

    fn stats(&self) -> RuleStats {
        let last = self.counters.last_match_us.load(Ordering::Relaxed);
        RuleStats {
            rule: Arc::clone(&self.rule),
            evaluations: self.counters.evaluations.load(Ordering::Relaxed),
            rows: self.counters.rows.load(Ordering::Relaxed),
            matches: self.counters.matches.load(Ordering::Relaxed),
            nanoseconds: self.counters.nanoseconds.load(Ordering::Relaxed),
            last_match_us: (last != i64::MIN).then_some(last),
            degraded: self.counters.degraded.load(Ordering::Relaxed),
            overflows: self.counters.overflows.load(Ordering::Relaxed),
            window: None,
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

    fn evaluated(&self, rows: usize, started: Instant) {
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(u64::try_from(rows).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }

    fn add(&self, other: &Self) {
        let sum = |to: &AtomicU64, from: &AtomicU64| {
            to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        sum(&self.evaluations, &other.evaluations);
        sum(&self.rows, &other.rows);
        sum(&self.matches, &other.matches);
        sum(&self.nanoseconds, &other.nanoseconds);
        sum(&self.degraded, &other.degraded);
        sum(&self.overflows, &other.overflows);
        self.last_match_us.fetch_max(other.last_match_us.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
