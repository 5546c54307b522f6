//! The rules that run together, and what each of them has cost and found.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleState};
use datafusion::arrow::array::RecordBatch;

use super::compile::Compiled;
use super::pace::{Mark, Meter, Pace};
use super::row::Columns;
use super::{LoadedRule, Refusal, output};
use crate::ingest::EventBatch;
use crate::store::RuleMatch;

/// A set of compiled rules. It never changes: a reload compiles a new one and swaps the `Arc`.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Running>,
    meter: Meter,
}

#[derive(Debug)]
struct Running {
    rule: Arc<DetectionRule>,
    compiled: Arc<Compiled>,
    counters: Counters,
    pace: Pace,
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
    /// Batches for which it took more CPU time than its budget.
    pub over_budget: u64,
    /// Whether it did so again and again.
    pub mark: Mark,
}

impl RuleSet {
    /// Takes the rules that run, drafts among them, in order of id. A second rule with an id that is taken is refused and the others stand.
    #[must_use]
    pub fn compile(rules: Vec<LoadedRule>) -> (Self, Vec<Refusal>) {
        let (mut running, mut refusals) = (BTreeMap::new(), Vec::new());
        for LoadedRule { rule, compiled, path, .. } in rules {
            if !matches!(rule.state, RuleState::Active | RuleState::Draft) {
                continue;
            }
            match running.entry(rule.id) {
                Entry::Vacant(free) => {
                    let (counters, pace) = (Counters::default(), Pace::default());
                    free.insert(Running { rule: Arc::new(rule), compiled, counters, pace });
                }
                Entry::Occupied(_) => {
                    let message = format!("another rule has the id {}", rule.id);
                    refusals.push(Refusal::whole(&path, message, Some("give the newer rule an id of its own")));
                }
            }
        }
        (Self { rules: running.into_values().collect(), meter: Meter::default() }, refusals)
    }

    /// Every match of every rule in the batch: rules in order of id, rows in order.
    #[must_use]
    pub fn evaluate(&self, events: &EventBatch, completeness: &Completeness) -> Vec<RuleMatch> {
        let columns = Columns::of(&events.batch);
        let mut matches = Vec::new();
        self.meter.batch(self.rules.iter().map(|running| &running.pace), |watch| {
            for running in &self.rules {
                watch.rule(&running.pace, || running.evaluate(&events.batch, &columns, completeness, &mut matches));
            }
        });
        matches
    }

    /// The counters, in order of id.
    #[must_use]
    pub fn stats(&self) -> Vec<RuleStats> {
        self.rules.iter().map(Running::stats).collect()
    }

    /// Takes over the counters of the rules that both sets have with the same text, so that a reload does not hide them.
    pub fn continue_counters_of(&self, previous: &Self) {
        let old: HashMap<_, _> = previous.rules.iter().map(|running| (running.rule.id, running)).collect();
        for running in &self.rules {
            if let Some(old) = old.get(&running.rule.id).filter(|old| old.rule.hash == running.rule.hash) {
                running.counters.add(&old.counters);
                running.pace.continue_from(&old.pace);
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
            over_budget: self.pace.misses(),
            mark: self.pace.mark(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::rules::parse;
    use crate::ingest::batch_from_json;
    use daemoneye_lib::proto::Sequence;
    use std::cell::Cell;
    use std::path::Path;
    use std::time::Duration;

    thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    #[test]
    fn a_rule_that_takes_too_much_cpu_time_is_marked_in_its_counters_and_goes_on_over_a_reload() {
        let rules = || {
            let yaml = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: x\nseverity: low\nsql: SELECT pid FROM process_events\n";
            vec![parse(Path::new("pack/x.yaml"), yaml).unwrap()]
        };
        // Every look at this clock is 101 ms after the one before.
        let slow = || {
            NOW.set(NOW.get() + Duration::from_millis(101));
            NOW.get()
        };
        let (mut set, _) = RuleSet::compile(rules());
        set.meter = Meter::with_clock(slow);
        let row = serde_json::json!({ "pid": 4 });
        let batch = batch_from_json(&[row.as_object().unwrap().clone()]).unwrap();
        let at = Sequence::new(1, 1);
        let events =
            EventBatch { batch, collector: "c".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() };
        for _ in 0..7 {
            assert_eq!(set.evaluate(&events, &Completeness::complete()).len(), 1, "it is never switched off");
        }
        assert_eq!((set.stats()[0].over_budget, set.stats()[0].mark), (6, Mark::Degraded));
        let (next, _) = RuleSet::compile(rules());
        next.continue_counters_of(&set);
        assert_eq!(next.stats()[0].mark, Mark::Degraded);
    }
}
