//! Window rules: what more than one event decides. A join, an aggregate, a window function or a subquery over events.
//!
//! A rule keeps only the rows that pass what its scans filter by, in its window and within a bound, and DataFusion runs its plan,
//! made once, over those. Everything goes by the time of events. A new row is decided at once while few come, and with the others
//! of its second when many do; what waits for something absent is decided when its window and the grace period are over. Which
//! rows meet which decision follows from the order of the events alone: how they are cut into batches changes nothing.
//! Time must be bounded, or the rule is refused.

mod bounds;
mod counters;
mod kept;
mod kind;
mod plan;
mod provenance;
mod run;
mod scope;
mod shape;
mod state;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use daemoneye_lib::columns::PROCESS_EVENTS;
use daemoneye_lib::model::{Completeness, Degraded, DetectionRule};
use datafusion::arrow::array::RecordBatch;

use super::compile::Problem;
use super::row::Columns;
use super::set::RuleStats;
use crate::ingest::EventBatch;
use crate::store::{RuleMatch, Store};

use counters::Counters;
pub(super) use kind::needs_window;
pub(super) use plan::Planned;
use run::Runner;
use state::{Sight, State};

/// Events older than this, against the youngest that has been seen, are late: sources that deliver within seconds are not.
pub const GRACE_US: i64 = 5_000_000;
/// When many rows come they are decided together, once in so many µs of event time.
const TICK_US: i64 = 1_000_000;
/// Rows that are decided one by one in each span of event time before they wait for the tick: an alert of a quiet host is not
/// late, and a busy one pays for two runs a second at most.
const EAGER_RUNS: u32 = 8;
const EAGER_US: i64 = 10_000_000;
/// Memory of the rows kept for all rules together, in bytes; each has its share, so that no rule's rows depend on another's.
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// The most that one rule keeps: more is not joined in 100 ms.
const RULE_BYTES: usize = 8 * 1024 * 1024;
const RULE_ROWS: usize = 32_768;
/// How long planning one rule may take before its patterns count as too slow.
const LOAD: Duration = Duration::from_secs(10);

/// What a window rule has done beside what every rule counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowStats {
    /// Rows that it keeps now.
    pub kept_rows: u64,
    /// What they count for, in bytes.
    pub kept_bytes: u64,
    /// Rows that the bound shed before they were too old.
    pub shed: u64,
    /// Rows that came after the grace period.
    pub late: u64,
    /// Runs that had no answer in time.
    pub timed_out: u64,
    /// Runs that failed otherwise.
    pub failed: u64,
    /// Runs over the budget of 100 ms of processor time.
    pub over_budget: u64,
    /// How many of the latest runs were, without one in between that was not.
    pub over_in_a_row: u64,
}

/// The window rules of a set.
#[derive(Debug, Default)]
pub(super) struct Windows {
    rules: Vec<Window>,
    runner: Option<Runner>,
}

#[derive(Debug)]
struct Window {
    rule: Arc<DetectionRule>,
    plan: Arc<Planned>,
    counters: RwLock<Arc<Counters>>,
    /// Shared with the set that this one replaces, where both have the rule: an event in flight is in both.
    state: RwLock<Arc<Mutex<State>>>,
}

impl Windows {
    pub(super) fn of(rules: Vec<(Arc<DetectionRule>, Arc<Planned>)>) -> Result<Self, Problem> {
        if rules.is_empty() {
            return Ok(Self::default());
        }
        let runner = Runner::start().map_err(|error| {
            let at = datafusion::sql::sqlparser::tokenizer::Location { line: 0, column: 0 };
            Problem::at(at, format!("no thread for window rules: {error}"))
        })?;
        let window = |(rule, plan): (_, Arc<Planned>)| {
            let state = RwLock::new(Arc::new(Mutex::new(State::of(&plan))));
            Window { rule, plan, counters: RwLock::default(), state }
        };
        Ok(Self { rules: rules.into_iter().map(window).collect(), runner: Some(runner) })
    }

    pub(super) const fn len(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<DetectionRule>> {
        self.rules.iter().map(|window| &window.rule)
    }

    /// Takes the rows and goes on with the counters of the rules that both sets have with the same text.
    pub(super) fn continue_with(&self, previous: &Self) {
        for window in &self.rules {
            let same = |old: &&Window| old.rule.id == window.rule.id && old.rule.hash == window.rule.hash;
            if let Some(old) = previous.rules.iter().find(same) {
                write(&window.state, read(&old.state));
                write(&window.counters, read(&old.counters));
            }
        }
    }

    /// The events of a batch, in order.
    pub(super) fn observe(
        &self,
        events: &EventBatch,
        columns: &Columns<'_>,
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) {
        self.watch(&events.batch, columns, completeness, matches);
    }

    fn watch(
        &self,
        batch: &RecordBatch,
        columns: &Columns<'_>,
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) {
        let Some(runner) = &self.runner else { return };
        let sight = Sight::of(batch, columns, completeness);
        for window in &self.rules {
            window.with_state(self.rules.len(), Some(runner), |state, work| state.observe(work, &sight, matches));
        }
    }

    /// Whether a rule has seen no event yet.
    pub(super) fn lacks_past(&self) -> bool {
        self.without_past().next().is_some()
    }

    fn without_past(&self) -> impl Iterator<Item = &Window> {
        self.rules.iter().filter(|window| {
            let state = read(&window.state);
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_new()
        })
    }

    /// Gives the rules that have seen no event those of the past that they would have kept. Nothing is decided by that: what
    /// there was to find in it was found when it came, or is found with the next event.
    pub(super) fn fill(&self, store: &Store) {
        let new: Vec<&Window> = self.without_past().collect();
        let snapshot = store.snapshot();
        let sealed = snapshot.segments.iter().map(|file| file.last_us).max();
        let open = snapshot.open.iter().filter_map(|batch| Sight::latest(&Columns::of(batch))).max();
        let (Some(back_us), Some(latest)) = (new.iter().map(|window| window.plan.back_us()).max(), sealed.max(open))
        else {
            return;
        };
        let mut columns: BTreeSet<&str> = BTreeSet::from(["start_kind"]);
        let kept = new.iter().flat_map(|window| &window.plan.kept);
        columns.extend(kept.filter_map(|at| Some(PROCESS_EVENTS.get(*at)?.name)));
        let columns: Vec<&str> = columns.into_iter().collect();
        let from_us = latest.saturating_sub(back_us).saturating_sub(EAGER_US);
        let whole = store.past(from_us, &columns, |batch| {
            let (seen, complete) = (Columns::of(batch), Completeness::complete());
            let sight = Sight::of(batch, &seen, &complete);
            for window in &new {
                window.with_state(self.rules.len(), None, |state, work| state.fill(work, &sight));
            }
        });
        if !whole {
            self.lack(Degraded::DataUnreadable, latest);
        }
    }

    /// Something is missing from the time before `at_us`: what looks back over it says so.
    pub(super) fn lack(&self, reason: Degraded, at_us: i64) {
        for window in &self.rules {
            window.with_state(self.rules.len(), None, |state, work| state.lack(work, reason, at_us));
        }
    }

    /// Decides what is due when no older event can come any more than those of `to_us`.
    pub(super) fn advance(&self, to_us: i64, matches: &mut Vec<RuleMatch>) {
        let Some(runner) = &self.runner else { return };
        for window in &self.rules {
            window.with_state(self.rules.len(), Some(runner), |state, work| state.advance(work, to_us, matches));
        }
    }

    pub(super) fn stats(&self) -> impl Iterator<Item = RuleStats> {
        self.rules.iter().map(|window| {
            let (counters, state) = (read(&window.counters), read(&window.state));
            let kept = state.lock().unwrap_or_else(PoisonError::into_inner).kept();
            counters.stats(&window.rule, kept)
        })
    }
}

/// Whether a rule finds something in these events, once nothing older can come any more.
pub(super) fn matches(rule: &DetectionRule, plan: &Arc<Planned>, batch: &RecordBatch) -> bool {
    let Ok(windows) = Windows::of(vec![(Arc::new(rule.clone()), Arc::clone(plan))]) else { return false };
    let (columns, complete, mut matches) = (Columns::of(batch), Completeness::complete(), Vec::new());
    windows.watch(batch, &columns, &complete, &mut matches);
    windows.advance(i64::MAX, &mut matches);
    !matches.is_empty()
}

impl Window {
    fn with_state(&self, rules: usize, runner: Option<&Runner>, work: impl FnOnce(&mut State, &state::Work<'_>)) {
        let (counters, state) = (read(&self.counters), read(&self.state));
        let bytes = (ALL_BYTES / rules.max(1)).min(RULE_BYTES);
        let with = state::Work { rule: &self.rule, plan: &self.plan, counters: &counters, runner, bytes };
        work(&mut state.lock().unwrap_or_else(PoisonError::into_inner), &with);
    }
}

fn read<T>(lock: &RwLock<Arc<T>>) -> Arc<T> {
    Arc::clone(&lock.read().unwrap_or_else(PoisonError::into_inner))
}

fn write<T>(lock: &RwLock<Arc<T>>, value: Arc<T>) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = value;
}
