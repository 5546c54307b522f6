//! The rules that run together, and what each of them has cost and found.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule, RuleKind, RuleState};
use datafusion::arrow::array::RecordBatch;

use super::blind::Blind;
use super::clock::Clock;
use super::compile::Compiled;
use super::matcher::Test;
use super::pace::{Mark, Meter, Pace, Watch};
use super::prefilter::{Candidates, Kept, Prefilter};
use super::row::Columns;
use super::window::{self, Filling, WindowStats, Windows};
use super::{LoadedRule, Refusal, output};
use crate::ingest::EventBatch;
use crate::store::{Answer, RuleMatch, Store};

/// A set of compiled rules. It never changes: a reload compiles a new one and swaps the `Arc`.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Running>,
    meter: Meter,
    filter: RwLock<Arc<Filter>>,
    /// Batches and rows since it was compiled, counted once for all rules: most are candidates on no row of a batch.
    batches: AtomicU64,
    rows: AtomicU64,
    /// Those of the batches that did not hold all that there was: shed before, late, or of a collector that was away.
    incomplete: AtomicU64,
    candidates_found: AtomicU64,
    pub(super) clock: Clock,
    pub(super) windows: Windows,
    pub(super) blind: Blind,
}

/// What finds the candidates; another one takes its place when witnesses are chosen anew.
#[derive(Debug, Default)]
struct Filter {
    prefilter: Prefilter,
    /// Remembers across batches; a second thread at the same time begins with nothing.
    candidates: Kept,
}

/// Columns of an answer, each under its name there.
type Plain = Arc<[(String, &'static str)]>;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) rule: Arc<DetectionRule>,
    compiled: Arc<Compiled>,
    /// The answer where it is columns of the event and nothing has to be worked out.
    plain: Option<Plain>,
    counters: Counters,
    pace: Pace,
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
    /// Rows of the batches that it was asked about, without those of the past with which a window rule begins. On most of them it was
    /// no candidate and cost nothing.
    pub rows: u64,
    /// Rows that matched.
    pub matches: u64,
    /// Nanoseconds it took.
    pub nanoseconds: u64,
    /// Event time of its latest match, µs since the Unix epoch.
    pub last_match_us: Option<i64>,
    /// Evaluations over something that is missing: events, or a column that the rule reads, which was NULL for it.
    pub degraded: u64,
    /// Results that did not fit a whole number; they were NULL.
    pub overflows: u64,
    /// Batches for which it took more CPU time than its budget.
    pub over_budget: u64,
    /// Whether it did so again and again.
    pub mark: Mark,
    /// What only a window rule does; its evaluations are runs of its plan, its nanoseconds those of the processor for them and for
    /// finding and keeping rows.
    pub window: Option<WindowStats>,
    /// Why a window rule was not decided the last time that it was not.
    pub failure: Option<Arc<str>>,
}

impl RuleSet {
    /// Takes the rules that run, drafts among them, in order of id. A second rule with an id that is taken is refused and the others stand.
    #[must_use]
    pub fn compile(rules: Vec<LoadedRule>) -> (Self, Vec<Refusal>) {
        let (mut running, mut windows, mut refusals) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut plains: HashSet<Plain> = HashSet::new();
        for loaded in rules {
            let excepted = loaded.excepted();
            let LoadedRule { rule, compiled, path, window, .. } = loaded;
            if !matches!(rule.state, RuleState::Active | RuleState::Draft) {
                continue;
            }
            match running.entry(rule.id) {
                Entry::Vacant(free) => {
                    let (counters, pace) = (Counters::default(), Pace::default());
                    let member = |plan| window::Member { rule: Arc::clone(&rule), plan, excepted };
                    windows.extend(window.map(member));
                    // Most rules return what others do.
                    let plain = output::plain(&compiled.outputs).map(|plain| match plains.get(&plain) {
                        Some(same) => Arc::clone(same),
                        None => {
                            plains.insert(Arc::clone(&plain));
                            plain
                        }
                    });
                    free.insert(Running { rule, compiled, plain, counters, pace });
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
        let rules: Vec<Running> =
            running.into_values().filter(|running| running.rule.kind == RuleKind::Stream).collect();
        let set = Self { rules, windows, ..Self::default() };
        set.find_by(Prefilter::new(set.conditions()));
        (set, refusals)
    }

    /// The same rules without the prefilter: each is evaluated on every row. For tests and benchmarks, which hold the one to
    /// the other.
    #[must_use]
    pub fn without_prefilter(mut self) -> Self {
        self.find_by(Prefilter::open(self.rules.len()));
        self.windows.open();
        self
    }

    /// The same rules where every moment of a burst is decided by a run, which the gates of window rules are held to.
    #[must_use]
    pub const fn without_gates(mut self) -> Self {
        self.windows.open_gates();
        self
    }

    /// Ingest waits for it: window rules get a share of each second. What there is no time for is decided later, and told.
    #[must_use]
    pub fn sharing_time(mut self) -> Self {
        self.windows.share_time(window::passing);
        self
    }

    /// Window rules decide a burst at as few of its moments as in a running agent, without a share of time: for benchmarks of what they
    /// cost there.
    #[must_use]
    pub const fn in_haste(mut self) -> Self {
        self.windows.hasten();
        self
    }

    /// No event is younger than `now_us`, the time that is believed (µs since the Unix epoch): one that says so counts as of now. It is
    /// told as wrong when it is also ahead of what the host's clock says.
    pub fn set_clock(&self, now_us: i64, host_us: i64) {
        self.clock.set(now_us, host_us);
    }

    fn conditions(&self) -> impl ExactSizeIterator<Item = &Test> {
        self.rules.iter().map(|running| &running.compiled.condition)
    }

    fn filter(&self) -> Arc<Filter> {
        Arc::clone(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn find_by(&self, prefilter: Prefilter) {
        let filter = Arc::new(Filter { prefilter, candidates: Kept::default() });
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
    }

    /// Chooses anew what candidates are found by, where it is on far more of the events since the last time than it was taken
    /// for; whether that was so. Takes as long as loading; events are evaluated meanwhile, and found are the same.
    pub fn reweigh(&self) -> bool {
        let filter = self.filter();
        let reweighed = filter.prefilter.reweighed(&filter.candidates, self.conditions());
        reweighed.map(|prefilter| self.find_by(prefilter)).is_some()
    }

    /// Size of what finds needles in texts, in bytes.
    #[must_use]
    pub fn needle_bytes(&self) -> usize {
        self.filter().prefilter.needle_bytes()
    }

    /// Every match of every rule in the batch: rules in order of id, rows in order.
    #[must_use]
    pub fn evaluate(&self, events: &EventBatch, completeness: &Completeness) -> Vec<RuleMatch> {
        let columns = Columns::of(&events.batch);
        let late = self.clock.pass(&columns);
        if !completeness.is_complete() || late.contains(&true) {
            self.incomplete.fetch_add(1, Ordering::Relaxed);
        } else {
            if columns.lacks_some() {
                self.rules.iter().filter(|running| running.lacks(&columns)).for_each(Running::degraded);
            }
            let blind = self.blind.places();
            let blind = blind.iter().filter_map(|at| self.rules.get(*at));
            blind.filter(|running| !running.lacks(&columns)).for_each(Running::degraded);
        }
        let (mut matches, shared) = (Vec::new(), Shared { batch: &events.batch, once: OnceCell::new() });
        let (filter, mut parts) = (self.filter(), 0_usize);
        self.meter.batch(self.rules.iter().map(|running| &running.pace), |watch| {
            filter.candidates.each(&filter.prefilter, &columns, |candidates| {
                self.candidates_found.fetch_add(candidates.len(), Ordering::Relaxed);
                parts = parts.saturating_add(1);
                let proven = |rule| filter.prefilter.proven(rule, &columns);
                self.decide(&shared, &columns, completeness, (candidates, &proven), watch, &mut matches);
            });
        });
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(u64::try_from(columns.rows()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Those of one part are in order.
        if parts > 1 {
            matches.sort_unstable_by_key(|found: &RuleMatch| (found.rule.id, found.row));
        }
        for found in matches.iter_mut().filter(|found| late.get(found.row).copied().unwrap_or(false)) {
            found.completeness.degrade(Degraded::Late);
        }
        self.windows.observe(&events.batch, &columns, completeness, &self.clock, &mut matches);
        matches
    }

    /// How often a rule was a candidate on a row since the set was compiled.
    #[must_use]
    pub fn candidates(&self) -> u64 {
        self.candidates_found.load(Ordering::Relaxed)
    }

    /// Evaluates the candidates, each beside the parts of it that are proven. The clock is read once between two rules.
    fn decide(
        &self,
        batch: &Shared<'_>,
        columns: &Columns<'_>,
        completeness: &Completeness,
        (candidates, proven): (&Candidates, &dyn Fn(usize) -> u64),
        watch: Watch,
        matches: &mut Vec<RuleMatch>,
    ) {
        let (mut started, mut rows) = (Instant::now(), Vec::new());
        matches.reserve(usize::try_from(candidates.len()).unwrap_or_default().min(columns.rows()));
        for rule in candidates.rules() {
            let Some(running) = self.rules.get(rule) else { continue };
            let overflows = columns.overflows();
            rows.clear();
            rows.extend(candidates.rows(rule));
            let proven = proven(rule);
            watch.rule(&running.pace, || {
                // In order, so that matches seldom have to be sorted.
                let rows =
                    rows.iter().rev().copied().filter(|row| running.compiled.matches_beside(proven, columns, *row));
                running.found(batch, columns, rows, completeness, matches);
            });
            running.overflowed(columns.overflows().saturating_sub(overflows));
            let now = Instant::now();
            running.counters.took(now.saturating_duration_since(started));
            started = now;
        }
    }

    /// Whether a window rule has seen no event yet, so that [`RuleSet::fill`] has something to do.
    #[must_use]
    pub fn lacks_past(&self) -> bool {
        self.windows.lacks_past()
    }

    /// Gives window rules that have seen no event the ones of the store that they look back over. Blocking, for as long as
    /// reading these takes; what is appended meanwhile, [`RuleSet::catch_up`] brings.
    pub fn fill(&self, store: &Store) -> Filling {
        self.windows.fill(store, &self.clock)
    }

    /// Gives the same rules what the store has got since. No event may be evaluated or appended meanwhile, or it would be
    /// missing or there twice.
    pub fn catch_up(&self, store: &Store, mut filling: Filling) {
        self.windows.catch_up(store, &self.clock, &mut filling);
    }

    /// What window rules find when time passes and no event comes: no event older than `to_us` (µs since the Unix epoch) will
    /// come any more.
    #[must_use]
    pub fn advance(&self, to_us: i64) -> Vec<RuleMatch> {
        let mut matches = Vec::new();
        self.windows.advance(to_us, &self.clock, &mut matches);
        matches
    }

    /// Something is missing from the time up to `at_us` (µs since the Unix epoch) that no batch tells: window rules that look back
    /// over it say so.
    pub fn lack(&self, reason: Degraded, at_us: i64) {
        self.windows.lack(reason, at_us);
    }

    fn passed(&self) -> Passed {
        let [batches, rows, incomplete] =
            [&self.batches, &self.rows, &self.incomplete].map(|counter| counter.load(Ordering::Relaxed));
        Passed { batches, rows, incomplete }
    }

    /// The counters, in order of id.
    #[must_use]
    pub fn stats(&self) -> Vec<RuleStats> {
        let passed = self.passed();
        let of_streams = self.rules.iter().map(|running| running.stats(&passed));
        let mut stats: Vec<_> = of_streams.chain(self.windows.stats()).collect();
        stats.sort_by_key(|stats| stats.rule.id);
        stats
    }

    /// Takes over what was counted of events, the counters, and the rows of window rules, of the rules that both sets have with the same text, so that a reload
    /// does not hide them.
    pub fn continue_counters_of(&self, previous: &Self) {
        let passed = previous.passed();
        let old: HashMap<_, _> = previous.rules.iter().map(|running| (running.rule.id, running)).collect();
        for running in &self.rules {
            if let Some(old) = old.get(&running.rule.id).filter(|old| old.rule.hash == running.rule.hash) {
                running.counters.add(&old.stats(&passed));
                running.pace.continue_from(&old.pace);
            }
        }
        if let Some(prefilter) = Prefilter::weighed_as(&previous.filter().prefilter, self.conditions()) {
            self.find_by(prefilter);
        }
        self.clock.continue_from(&previous.clock);
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

/// What has passed by every stream rule of a set.
struct Passed {
    batches: u64,
    rows: u64,
    incomplete: u64,
}

/// A batch as all its matches have it: its columns are some fifty references, which each would count anew.
struct Shared<'a> {
    batch: &'a RecordBatch,
    once: OnceCell<Arc<RecordBatch>>,
}

impl Shared<'_> {
    fn owned(&self) -> Arc<RecordBatch> {
        Arc::clone(self.once.get_or_init(|| Arc::new(self.batch.clone())))
    }
}

impl Running {
    /// Its matches on these rows. What is the same of all of them is looked at for the first one, and counted behind the last.
    fn found(
        &self,
        batch: &Shared<'_>,
        columns: &Columns<'_>,
        rows: impl Iterator<Item = usize>,
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) {
        let (before, mut latest, mut completeness) = (matches.len(), None, Cow::Borrowed(completeness));
        for row in rows {
            if latest.is_none() && self.lacks(columns) {
                completeness.to_mut().degrade(Degraded::SchemaUnavailable);
            }
            latest = latest.max(Some(columns.time(row)));
            let answer = match &self.plain {
                // In a batch that lacks a column another may stand in its place.
                Some(plain) if !columns.lacks_some() => Answer::Columns(Arc::clone(plain)),
                _ => Answer::Row(output::row(&self.compiled.outputs, columns, row)),
            };
            let (rule, batch) = (Arc::clone(&self.rule), batch.owned());
            matches.push(RuleMatch { rule, batch, row, answer, completeness: completeness.clone().into_owned() });
        }
        if let Some(latest) = latest {
            self.counters.matched(matches.len().saturating_sub(before), latest);
        }
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

    fn stats(&self, passed: &Passed) -> RuleStats {
        let last = self.counters.last_match_us.load(Ordering::Relaxed);
        RuleStats {
            rule: Arc::clone(&self.rule),
            evaluations: self.counters.evaluations.load(Ordering::Relaxed).saturating_add(passed.batches),
            rows: self.counters.rows.load(Ordering::Relaxed).saturating_add(passed.rows),
            matches: self.counters.matches.load(Ordering::Relaxed),
            nanoseconds: self.counters.nanoseconds.load(Ordering::Relaxed),
            last_match_us: (last != i64::MIN).then_some(last),
            degraded: self.counters.degraded.load(Ordering::Relaxed).saturating_add(passed.incomplete),
            overflows: self.counters.overflows.load(Ordering::Relaxed),
            over_budget: self.pace.misses(),
            mark: self.pace.mark(),
            window: None,
            failure: None,
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
    fn matched(&self, times: usize, latest: Option<i64>) {
        self.matches.fetch_add(u64::try_from(times).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.last_match_us.fetch_max(latest.unwrap_or(i64::MIN), Ordering::Relaxed);
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
