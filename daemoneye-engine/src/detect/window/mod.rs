//! Window rules: what more than one event decides. A join, an aggregate, a window function or a subquery over events.
//!
//! A rule keeps only the rows that pass what its scans filter by, in its window and within a bound, and DataFusion runs its plan,
//! made once, over those. Everything goes by the time of events. A new row is decided at once while few come, and with the others
//! of its second when many do; what waits for something absent is decided when its window and the grace period are over. Which
//! rows meet which decision follows from the order of the events alone: how they are cut into batches changes nothing.
//! Time must be bounded, or the rule is refused.

mod answer;
mod bounds;
mod counters;
mod explain;
mod fill;
mod found;
mod gate;
mod kept;
mod kind;
mod perils;
mod plan;
mod provenance;
mod run;
mod scope;
mod shape;
mod share;
mod sieve;
mod sight;
mod state;
mod threshold;
mod ticks;
mod waiting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule};
use datafusion::arrow::array::RecordBatch;
use uuid::Uuid;

use super::clock::Clock;
use super::compile::Problem;
use super::row::Columns;
use super::set::RuleStats;
use crate::cpu;
use crate::store::RuleMatch;

use counters::Counters;
pub(super) use explain::scans_said;
pub use fill::Filling;
pub(super) use kind::needs_window;
pub(super) use plan::Planned;
use run::{Limits, Runner};
use share::Share;
pub(super) use share::passing;
use sieve::{Sieve, Taken};
use sight::Sight;
use state::State;

/// Events older than this, against the youngest that has been seen, are late: sources that deliver within seconds are not.
pub const GRACE_US: i64 = 5_000_000;
/// When many rows come they are decided together, once in so many µs of event time.
const TICK_US: i64 = 1_000_000;
/// Rows that are decided one by one in each span of event time before they wait for the tick: an alert of a quiet host is not
/// late, and a busy one pays for two runs a second at most.
const EAGER_RUNS: u32 = 8;
const EAGER_US: i64 = 10_000_000;
/// Runs of a tick beyond its first, in each span of event time, for rows that went out of sight while others waited.
const EDGE_RUNS: usize = 4;
/// Rows that such runs may look at where nobody waits, of one rule and in all: a minute or two of a processor. Counted in rows, so
/// that the answer is the same on every host.
const EDGE_ROWS: u64 = 400_000_000;
/// What a run counts for beside its rows.
const RUN_ROWS: u64 = 4_096;
/// How often a run that had no answer is tried again.
const RETRIES: u32 = 3;
/// Memory of the rows kept for all rules together, in bytes; each has its share, so that no rule's rows depend on another's.
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// The most that one rule keeps: more is not joined in 100 ms.
const RULE_BYTES: usize = 8 * 1024 * 1024;
pub(crate) const RULE_ROWS: usize = 32_768;
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
    /// Rows that were ahead of the clock, and times that it was set back.
    pub ahead: u64,
    /// Times that there was no time to decide it when it was due.
    pub postponed: u64,
    /// Runs that had no answer in time.
    pub timed_out: u64,
    /// Runs that failed otherwise.
    pub failed: u64,
    /// Moments at which it may have matched and was not decided, since there were too many.
    pub skipped: u64,
    /// Rows without a time, which it goes by.
    pub untimed: u64,
    /// Runs over the budget of 100 ms of processor time.
    pub over_budget: u64,
    /// How many of the latest runs were, without one in between that was not.
    pub over_in_a_row: u64,
}

/// The window rules of a set.
#[derive(Debug, Default)]
pub(super) struct Windows {
    rules: Vec<Window>,
    sieve: Sieve,
    runner: Option<Runner>,
    /// That of all of them, where something waits for them.
    share: Option<Share>,
    /// Bursts are decided as in a running agent, at few of their moments.
    in_haste: bool,
    /// For holding the gates to the plans: they are not asked.
    without_gates: bool,
}

/// A rule of a set as it is loaded.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) rule: Arc<DetectionRule>,
    pub(super) plan: Arc<Planned>,
    /// The columns that its exceptions read.
    pub(super) excepted: BTreeSet<usize>,
}

#[derive(Debug)]
struct Window {
    rule: Arc<DetectionRule>,
    plan: Arc<Planned>,
    /// Those of a kept row.
    columns: BTreeSet<usize>,
    share: Option<Share>,
    counters: RwLock<Arc<Counters>>,
    /// Shared with the set that this one replaces, where both have the rule: an event in flight is in both.
    state: RwLock<Arc<Mutex<State>>>,
}

impl Windows {
    pub(super) fn of(members: Vec<Member>) -> Result<Self, Problem> {
        if members.is_empty() {
            return Ok(Self::default());
        }
        let runner = Runner::start().map_err(|error| {
            let at = datafusion::sql::sqlparser::tokenizer::Location { line: 0, column: 0 };
            Problem::at(at, format!("no thread for window rules: {error}"))
        })?;
        let rules: Vec<Window> = members.into_iter().map(Window::of).collect();
        let sieve = Sieve::of(rules.iter().map(|window| window.plan.as_ref()));
        Ok(Self { rules, sieve, runner: Some(runner), ..Self::default() })
    }

    /// Something waits for them: they get a share of each second by this clock.
    pub(super) fn share_time(&mut self, clock: fn() -> Duration) {
        self.share = Some(Share::of_all(clock));
        self.hasten();
        self.runner.iter_mut().for_each(|runner| runner.limits = Limits::LIVE);
        self.rules.iter_mut().for_each(|window| window.share = Some(Share::of_one(clock)));
    }

    /// Few moments of a burst are decided.
    pub(super) const fn hasten(&mut self) {
        self.in_haste = true;
    }

    /// Without the prefilter.
    pub(super) fn open(&mut self) {
        self.sieve.open();
    }

    /// Every moment is decided by a run.
    pub(super) const fn open_gates(&mut self) {
        self.without_gates = true;
    }

    /// From here on these lack a column.
    pub(super) fn mark_blind(&self, rules: &BTreeSet<Uuid>) {
        for window in &self.rules {
            read(&window.counters).mark_blind(rules.contains(&window.rule.id));
        }
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
            let Some(old) = previous.rules.iter().find(same) else { continue };
            write(&window.counters, read(&old.counters));
            // Rows that lack what an exception reads now are of no use; a set that has seen nothing is filled by itself.
            if old.columns == window.columns && !old.is_new() {
                write(&window.state, read(&old.state));
            }
        }
    }

    /// The events of a batch, in order.
    pub(super) fn observe(
        &self,
        batch: &RecordBatch,
        columns: &Columns<'_>,
        completeness: &Completeness,
        clock: &Clock,
        matches: &mut Vec<RuleMatch>,
    ) {
        let Some(runner) = &self.runner else { return };
        let sight = Sight::of(batch, columns, completeness, clock);
        let taken = self.sieve.sift(&self.rules, columns);
        for (window, taken) in self.rules.iter().zip(taken) {
            self.with_state(window, Some(runner), |state, work| {
                measured(work, &taken, || state.observe(work, &sight, &taken, matches));
            });
        }
    }

    /// Whether a rule has seen no event yet.
    pub(super) fn lacks_past(&self) -> bool {
        self.rules.iter().any(Window::is_new)
    }

    /// Something is missing from the time before `at_us`: what looks back over it says so.
    pub(super) fn lack(&self, reason: Degraded, at_us: i64) {
        for window in &self.rules {
            self.with_state(window, None, |state, work| state.lack(work, reason, at_us));
        }
    }

    /// Decides what is due when no older event can come any more than those of `to_us`.
    pub(super) fn advance(&self, to_us: i64, clock: &Clock, matches: &mut Vec<RuleMatch>) {
        let Some(runner) = &self.runner else { return };
        for window in &self.rules {
            self.with_state(window, Some(runner), |state, work| {
                state.clamp(work, clock.most());
                state.advance(work, to_us, matches);
            });
        }
    }

    /// What comes now is of this time, and others had come before.
    pub(super) fn go_back(&self, to_us: i64, matches: &mut Vec<RuleMatch>) {
        let Some(runner) = &self.runner else { return };
        for window in &self.rules {
            self.with_state(window, Some(runner), |state, work| state.go_back(work, to_us, matches));
        }
    }

    fn with_state(&self, window: &Window, runner: Option<&Runner>, work: impl FnOnce(&mut State, &state::Work<'_>)) {
        let (counters, state) = (read(&window.counters), read(&window.state));
        let bytes = (ALL_BYTES / self.rules.len().max(1)).min(RULE_BYTES);
        let shares: Vec<&Share> = self.share.iter().chain(&window.share).collect();
        let with = state::Work {
            rule: &window.rule,
            plan: &window.plan,
            counters: &counters,
            runner,
            bytes,
            columns: &window.columns,
            shares: &shares,
            in_haste: self.in_haste,
            has_gates: !self.without_gates,
        };
        work(&mut state.lock().unwrap_or_else(PoisonError::into_inner), &with);
    }

    fn found_in(&self, batch: &RecordBatch) -> Result<bool, String> {
        let (columns, complete, mut matches) = (Columns::of(batch), Completeness::complete(), Vec::new());
        let clock = Clock::default();
        self.observe(batch, &columns, &complete, &clock, &mut matches);
        self.advance(i64::MAX, &clock, &mut matches);
        let lack = self.stats().find_map(|stats| stats.shortfall());
        lack.map_or(Ok(!matches.is_empty()), |lack| Err(format!("the rule was not decided: {lack}")))
    }

    pub(super) fn stats(&self) -> impl Iterator<Item = RuleStats> {
        self.rules.iter().map(|window| {
            let (counters, state) = (read(&window.counters), read(&window.state));
            let kept = state.lock().unwrap_or_else(PoisonError::into_inner).kept();
            counters.stats(&window.rule, kept)
        })
    }
}

/// Counts what keeping rows costs; runs have a thread of their own, and a rule that keeps nothing of a batch costs nothing.
fn measured(work: &state::Work<'_>, taken: &[Taken], observe: impl FnOnce()) {
    if taken.is_empty() {
        return observe();
    }
    let began = cpu::thread_ns();
    observe();
    work.counters.took(Duration::from_nanos(cpu::thread_ns().saturating_sub(began)));
}

/// Whether a rule finds something in these events, once nothing older can come any more; or why that could not be told.
pub(super) fn matches(rule: &DetectionRule, plan: &Arc<Planned>, batch: &RecordBatch) -> Result<bool, String> {
    let (rule, plan, excepted) = (Arc::new(rule.clone()), Arc::clone(plan), BTreeSet::new());
    let windows = Windows::of(vec![Member { rule, plan, excepted }]).map_err(|problem| problem.message)?;
    windows.found_in(batch)
}

impl Window {
    fn of(Member { rule, plan, excepted }: Member) -> Self {
        let columns: BTreeSet<usize> = plan.kept.union(&excepted).copied().collect();
        let state = RwLock::new(Arc::new(Mutex::new(State::of(&columns, &plan))));
        Self { rule, plan, columns, share: None, counters: RwLock::default(), state }
    }

    /// It has seen no event.
    fn is_new(&self) -> bool {
        let state = read(&self.state);
        state.lock().unwrap_or_else(PoisonError::into_inner).is_new()
    }
}

fn read<T>(lock: &RwLock<Arc<T>>) -> Arc<T> {
    Arc::clone(&lock.read().unwrap_or_else(PoisonError::into_inner))
}

fn write<T>(lock: &RwLock<Arc<T>>, value: Arc<T>) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::rules::parse;
    use crate::ingest::batch_from_json;
    use std::cell::Cell;
    use std::path::Path;

    thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// 2026-01-31T12:00:00Z
    const T0: i64 = 1_769_860_800_000_000;

    const SEQUENCE: &str = "SELECT a.pid AS pid FROM process_events a JOIN process_events b ON b.time BETWEEN a.time AND a.time + \
                            INTERVAL '5 seconds' WHERE a.name = 'a' AND b.name = 'b'";
    const ABSENCE: &str = "SELECT a.pid AS pid FROM process_events a LEFT JOIN process_events b ON b.name = 'c' AND b.time BETWEEN \
                           a.time AND a.time + INTERVAL '5 seconds' WHERE a.name = 'a' AND b.pid IS NULL";
    /// No run has an answer in that.
    const NONE: Limits = Limits { cpu_ns: 0, wall: Duration::from_secs(1) };

    fn windows(sql: &str) -> Windows {
        let yaml = format!("id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: x\nseverity: low\nsql: {sql}\n");
        let loaded = parse(Path::new("pack/x.yaml"), &yaml).unwrap();
        let (rule, plan) = (Arc::clone(&loaded.rule), Arc::clone(loaded.window.as_ref().unwrap()));
        Windows::of(vec![Member { rule, plan, excepted: BTreeSet::new() }]).unwrap()
    }

    fn two_events() -> RecordBatch {
        let row = |second: i64, name: &str| {
            let row = serde_json::json!({"time": T0 + second * 1_000_000, "name": name, "pid": second, "collector": "c", "epoch": 1, "seq": second});
            row.as_object().unwrap().clone()
        };
        batch_from_json(&[row(1, "a"), row(2, "b")]).unwrap()
    }

    #[test]
    fn a_run_that_had_no_answer_is_tried_again_a_bounded_number_of_times() {
        let (batch, clock, complete) = (two_events(), Clock::default(), Completeness::complete());
        let limit = |windows: &mut Windows, limits| windows.runner.as_mut().unwrap().limits = limits;
        let timed_out = |windows: &Windows| windows.stats().next().unwrap().window.unwrap().timed_out;
        let tried_until = |sql, seconds| {
            let (mut windows, mut found) = (windows(sql), Vec::new());
            windows.share_time(|| NOW.get());
            limit(&mut windows, NONE);
            windows.observe(&batch, &Columns::of(&batch), &complete, &clock, &mut found);
            (3..seconds).for_each(|second| windows.advance(T0 + second * 1_000_000, &clock, &mut found));
            assert!(found.is_empty() && timed_out(&windows) > 0, "{sql}");
            limit(&mut windows, Limits::ALONE);
            NOW.set(NOW.get() + Duration::from_secs(60));
            windows.advance(T0 + 600_000_000, &clock, &mut found);
            (found, timed_out(&windows))
        };
        for (sql, seconds) in [(SEQUENCE, 4), (ABSENCE, 13)] {
            let (found, _) = tried_until(sql, seconds);
            assert_eq!(found.len(), 1, "{sql}");
            assert_eq!(found[0].completeness.degraded, [Degraded::TimedOut]);
            let (found, timed_out) = tried_until(sql, 60);
            assert_eq!((found.len(), timed_out), (0, 4), "{sql}");
        }
    }

    /// Twenty users, each of whom does something ten times within a second, one after the other, with all the time that it takes or none
    /// until they are through.
    fn burst(having: &str, has_time: bool) -> (Vec<RuleMatch>, RuleStats) {
        let mut windows = windows(&format!(
            "SELECT user, count(*) AS n FROM process_events WHERE name = 'a' AND time > now() - INTERVAL '1 second' GROUP BY user \
             HAVING {having}",
        ));
        windows.share_time(|| NOW.get());
        if !has_time {
            windows.share.as_ref().unwrap().spend(Duration::from_secs(60));
        }
        let passes = if has_time { Duration::from_secs(60) } else { Duration::ZERO };
        let (clock, complete, mut found) = (Clock::default(), Completeness::complete(), Vec::new());
        for at in 0..200_i64 {
            NOW.set(NOW.get() + passes);
            let (user, time) = (at / 10, T0 + at / 10 * 900_000 + at % 10 * 90_000);
            let row = serde_json::json!({"time": time, "name": "a", "user": user.to_string(), "collector": "c", "epoch": 1, "seq": at});
            let batch = batch_from_json(&[row.as_object().unwrap().clone()]).unwrap();
            windows.observe(&batch, &Columns::of(&batch), &complete, &clock, &mut found);
        }
        assert!(has_time || found.is_empty());
        for _ in 0..20 {
            NOW.set(NOW.get() + Duration::from_secs(600));
            windows.advance(i64::MAX, &clock, &mut found);
        }
        (found, windows.stats().next().unwrap())
    }

    #[test]
    fn what_a_running_agent_passes_over_in_a_burst_is_counted_and_told() {
        // Its share of time is not what it lacks.
        let (found, stats) = burst("count(*) + count(*) >= 20", true);
        let window = stats.window.unwrap();
        assert!(found.len() < 20 && window.skipped > 0 && window.postponed == 0, "{} {window:?}", found.len());
        assert!(stats.shortfall().unwrap().contains("passed over"));
        assert_eq!(found.last().unwrap().completeness.degraded, [Degraded::Capped]);
    }

    #[test]
    fn of_a_rule_that_counts_a_running_agent_passes_over_nothing() {
        let (found, stats) = burst("count(*) >= 10", true);
        assert_eq!((found.len(), stats.window.unwrap().skipped, stats.shortfall()), (20, 0, None));
        assert!(found.iter().all(|found| found.completeness.is_complete()));
        // Without the time for it, what is found is found later.
        let (found, stats) = burst("count(*) >= 10", false);
        let window = stats.window.unwrap();
        assert_eq!((found.len(), window.skipped, window.postponed > 0), (20, 0, true));
        assert!(found.iter().any(|found| found.completeness.degraded == [Degraded::TimedOut]));
    }

    #[test]
    fn a_count_that_no_group_has_reached_takes_no_run() {
        let mut windows = windows(
            "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' GROUP BY user HAVING count(*) >= 2",
        );
        windows.runner.as_mut().unwrap().limits = NONE;
        let (batch, clock, complete, mut found) =
            (two_events(), Clock::default(), Completeness::complete(), Vec::new());
        let mut observe =
            |batch: &RecordBatch| windows.observe(batch, &Columns::of(batch), &complete, &clock, &mut found);
        observe(&batch.slice(0, 1));
        let stats = || windows.stats().next().unwrap();
        assert_eq!((stats().evaluations, stats().window.unwrap().timed_out), (1, 0), "it was decided without a run");
        observe(&batch.slice(1, 1));
        assert_eq!((stats().evaluations, stats().window.unwrap().timed_out), (2, 1), "and now with one");
    }

    #[test]
    fn an_event_without_a_time_is_counted_and_told() {
        let windows =
            windows("SELECT count(*) AS n FROM process_events WHERE name = 'a' HAVING count(*) >= 2\nwindow: 1m");
        let rows = [
            serde_json::json!({"name": "a", "time": T0}),
            serde_json::json!({"name": "a"}),
            serde_json::json!({"name": "b"}),
        ];
        let rows: Vec<_> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
        let batch = batch_from_json(&rows).unwrap();
        let (clock, mut found) = (Clock::default(), Vec::new());
        windows.observe(&batch, &Columns::of(&batch), &Completeness::complete(), &clock, &mut found);
        windows.advance(i64::MAX, &clock, &mut found);
        let stats = windows.stats().next().unwrap();
        assert_eq!(stats.window.unwrap().untimed, 1, "the third is none of its rows");
        assert!(stats.shortfall().unwrap().contains("1 events without a time"));
        assert_eq!(found[0].completeness.degraded, [Degraded::SchemaUnavailable]);
    }

    #[test]
    fn a_test_of_a_rule_that_could_not_be_decided_fails_whatever_is_expected() {
        let (batch, mut windows) = (two_events(), windows(ABSENCE));
        assert_eq!(windows.found_in(&batch), Ok(true));
        windows.runner.as_mut().unwrap().limits = NONE;
        assert!(windows.found_in(&batch).unwrap_err().contains("1 times it could not be decided"));
    }

    #[test]
    fn a_rule_whose_share_of_time_is_spent_is_decided_later_and_says_so() {
        let yaml = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: x\nseverity: low\nsql: SELECT count(*) AS n FROM process_events \
                    WHERE name = 'a' AND time > now() - INTERVAL '1 hour' HAVING count(*) >= 2\n";
        let loaded = parse(Path::new("pack/x.yaml"), yaml).unwrap();
        let (rule, plan) = (Arc::clone(&loaded.rule), Arc::clone(loaded.window.as_ref().unwrap()));
        let mut windows = Windows::of(vec![Member { rule, plan, excepted: BTreeSet::new() }]).unwrap();
        windows.share_time(|| NOW.get());
        let (clock, complete) = (Clock::default(), Completeness::complete());
        let observe = |second: i64| {
            let row = serde_json::json!({"time": T0 + second * 1_000_000, "name": "a", "collector": "c", "epoch": 1, "seq": second});
            let batch = batch_from_json(&[row.as_object().unwrap().clone()]).unwrap();
            let mut found = Vec::new();
            windows.observe(&batch, &Columns::of(&batch), &complete, &clock, &mut found);
            found
        };
        assert!(observe(0).is_empty());
        windows.share.as_ref().unwrap().spend(Duration::from_secs(1));
        let runs = || windows.stats().next().unwrap().evaluations;
        let before = runs();
        for second in 1..20 {
            assert!(observe(second).is_empty(), "there is no time for a run");
        }
        let mut found = Vec::new();
        windows.advance(T0 + 30_000_000, &clock, &mut found);
        assert_eq!((found.len(), runs()), (0, before), "nor when time passes");
        NOW.set(Duration::from_secs(60));
        windows.advance(T0 + 30_000_000, &clock, &mut found);
        assert_eq!((found.len(), runs()), (1, before + 1), "all that was due is one run");
        assert_eq!(found[0].output()["n"], 20);
        assert_eq!(found[0].completeness.degraded, [Degraded::TimedOut]);
        assert_eq!(windows.stats().next().unwrap().window.unwrap().postponed, 1);
    }
}
