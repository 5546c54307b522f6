//! What one window rule knows: the rows kept, the time that events have reached, and what is still to be decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule};
use daemoneye_lib::proto::value::Kind;
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use serde_json::{Map, Value};

use super::super::output;
use super::super::row::Columns;
use super::counters::Counters;
use super::found::Found;
use super::kept::Kept;
use super::plan::{Planned, Scan, Scans};
use super::run::{Failure, Runner};
use super::share::Share;
use super::sieve::Taken;
use super::sight::Sight;
use super::{EAGER_RUNS, EAGER_US, GRACE_US, RULE_ROWS, TICK_US};
use crate::sql::value_at;
use crate::store::RuleMatch;

/// Matches that one run hands on; the others wait for the next.
const MATCHES_A_RUN: usize = 1_024;

/// Rows in a row that are older than the rule looks back, after which the time before them is taken for a mistake: the clock of
/// the host was ahead and was set back.
const BEHIND_ROWS: u32 = 16;

/// What a rule works with.
pub(super) struct Work<'a> {
    pub(super) rule: &'a Arc<DetectionRule>,
    pub(super) plan: &'a Arc<Planned>,
    pub(super) counters: &'a Counters,
    /// `None` while the past is read, of which everything was decided.
    pub(super) runner: Option<&'a Runner>,
    /// What its rows may count for.
    pub(super) bytes: usize,
    /// Columns of a kept row.
    pub(super) columns: &'a BTreeSet<usize>,
    /// That of all rules and its own; empty where nobody waits.
    pub(super) shares: &'a [&'a Share],
}

impl Work<'_> {
    fn may_run(&self) -> bool {
        self.runner.is_none() || self.shares.iter().all(|share| share.is_left())
    }
}

/// The state of one rule.
#[derive(Debug)]
pub(super) struct State {
    kept: Kept,
    /// The time that events have reached.
    reached_us: i64,
    /// The span of event time in which rows were decided one by one, and how many.
    eager: (i64, u32),
    /// When something is to be decided.
    ticks: BTreeSet<i64>,
    /// How many of the latest rows were too old to be looked at.
    behind: u32,
    found: Found,
    /// Runs are due that there was no time for.
    postponed: bool,
    /// Until when answers lack something.
    lacks: BTreeMap<Degraded, i64>,
}

impl State {
    pub(super) fn of(columns: &BTreeSet<usize>) -> Self {
        Self {
            kept: Kept::of(columns),
            reached_us: i64::MIN,
            eager: (i64::MIN, 0),
            ticks: BTreeSet::new(),
            behind: 0,
            found: Found::default(),
            postponed: false,
            lacks: BTreeMap::new(),
        }
    }

    /// It has seen no event.
    pub(super) const fn is_new(&self) -> bool {
        self.reached_us == i64::MIN
    }

    /// Rows and bytes.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.kept.len(), self.bytes())
    }

    fn bytes(&self) -> usize {
        self.kept.bytes().saturating_add(self.found.bytes())
    }

    pub(super) fn fill(&mut self, work: &Work<'_>, sight: &Sight<'_>, taken: &[Taken]) {
        let mut nothing = Vec::new();
        self.observe(work, sight, taken, &mut nothing);
    }

    /// A batch of which it keeps the rows `taken`.
    pub(super) fn observe(
        &mut self,
        work: &Work<'_>,
        sight: &Sight<'_>,
        taken: &[Taken],
        matches: &mut Vec<RuleMatch>,
    ) {
        let Some(last_row) = sight.rows().checked_sub(1) else { return };
        self.clamp(work, sight.clock.most());
        let last = sight.reached(0, last_row);
        work.counters.rows.fetch_add(sight.rows() as u64, Ordering::Relaxed);
        for reason in &sight.completeness.degraded {
            self.lack(work, *reason, self.reached_us.max(last));
        }
        if work.runner.is_some() && !work.columns.iter().all(|column| sight.columns.has(*column)) {
            self.lack(work, Degraded::SchemaUnavailable, self.reached_us.max(last));
        }
        let (mut fresh, mut since) = (Vec::new(), 0);
        for (row, scans) in taken.iter().copied() {
            let reached = self.reached_us.max(sight.reached(since, row));
            self.tick(work, sight, &mut fresh, reached, matches);
            self.reached_us = reached;
            let time = sight.time(row).unwrap_or(reached);
            self.note_late(work, time, sight.is_ahead(row));
            if self.is_set_back(work, time) {
                (fresh, since) = (Vec::new(), row);
                self.begin_again(work, time);
            }
            fresh.push((u32::try_from(row).unwrap_or(u32::MAX), scans));
            if work.plan.begins_with(scans) {
                self.begin(work, sight, &mut fresh, time, matches);
            }
        }
        let reached = self.reached_us.max(sight.reached(since, last_row));
        self.tick(work, sight, &mut fresh, reached, matches);
        self.reached_us = reached;
        self.keep(work, sight, &mut fresh);
    }

    pub(super) fn advance(&mut self, work: &Work<'_>, to_us: i64, matches: &mut Vec<RuleMatch>) {
        while let Some((due, since)) = self.due(work, to_us) {
            self.run(work, due, since, matches);
        }
    }

    /// The next decision up to a time, and the one that its look back begins at: what was postponed is decided together.
    fn due(&mut self, work: &Work<'_>, to_us: i64) -> Option<(i64, i64)> {
        let first = self.ticks.first().copied().filter(|due| *due <= to_us)?;
        if !work.may_run() {
            self.postpone(work);
            return None;
        }
        if !std::mem::take(&mut self.postponed) {
            self.ticks.pop_first();
            return Some((first, first));
        }
        let later = self.ticks.split_off(&to_us.saturating_add(1));
        let due = std::mem::replace(&mut self.ticks, later).last().copied().unwrap_or(first);
        // Of another rule the rows that are older than it looks back have nothing to do with the answer.
        Some((due, if work.plan.awaits { first } else { due }))
    }

    /// There is no time now.
    fn postpone(&mut self, work: &Work<'_>) {
        if !std::mem::replace(&mut self.postponed, true) {
            work.counters.postponed.fetch_add(1, Ordering::Relaxed);
            self.lack(work, Degraded::TimedOut, self.reached_us);
        }
    }

    /// The clock says that events cannot have reached the time which they have: one of them was ahead of it, or the clock was set
    /// back. What was kept stays, and counts as of now.
    pub(super) fn clamp(&mut self, work: &Work<'_>, most: Option<(i64, i64)>) {
        let Some((_, now)) = most.filter(|(most, _)| self.reached_us > *most) else { return };
        work.counters.ahead.fetch_add(1, Ordering::Relaxed);
        self.reached_us = now;
        self.eager = (i64::MIN, 0);
        self.kept.clamp(now);
        let latest = tick_from(now.saturating_add(work.plan.wait_us()).saturating_add(1));
        if self.ticks.last().is_some_and(|last| *last > latest) {
            self.ticks.split_off(&latest);
            self.ticks.insert(latest);
        }
        self.lack(work, Degraded::Late, now);
    }

    /// Something is to be decided at that time. As many as there may be rows are enough: those of the oldest were shed.
    fn schedule(&mut self, work: &Work<'_>, due: i64) {
        self.ticks.insert(due);
        if self.ticks.len() > RULE_ROWS {
            self.ticks.pop_first();
            self.lack(work, Degraded::Capped, self.reached_us);
        }
    }

    /// Sees to a row with which something may begin to be true.
    fn begin(
        &mut self,
        work: &Work<'_>,
        sight: &Sight<'_>,
        fresh: &mut Vec<(u32, Scans)>,
        time: i64,
        matches: &mut Vec<RuleMatch>,
    ) {
        if work.plan.awaits {
            let due = tick_from(time.saturating_add(work.plan.wait_us()));
            self.schedule(work, due.max(tick_from(self.reached_us.saturating_add(1))));
            return;
        }
        let span = self.reached_us.div_euclid(EAGER_US);
        if self.eager.0 != span {
            self.eager = (span, 0);
        }
        let may_run = self.eager.1 < EAGER_RUNS && work.may_run();
        if self.eager.1 < EAGER_RUNS && !may_run {
            self.postpone(work);
        }
        if !may_run {
            return self.schedule(work, tick_from(self.reached_us.saturating_add(1)));
        }
        self.eager.1 += 1;
        self.keep(work, sight, fresh);
        self.run(work, self.reached_us, self.reached_us, matches);
    }

    /// Decides what is due before an event of time `reached` is looked at.
    fn tick(
        &mut self,
        work: &Work<'_>,
        sight: &Sight<'_>,
        fresh: &mut Vec<(u32, Scans)>,
        reached: i64,
        matches: &mut Vec<RuleMatch>,
    ) {
        while let Some((due, since)) = self.due(work, reached) {
            self.keep(work, sight, fresh);
            self.run(work, due, since, matches);
        }
    }

    /// Moves the rows that were taken into what is kept.
    fn keep(&mut self, work: &Work<'_>, sight: &Sight<'_>, fresh: &mut Vec<(u32, Scans)>) {
        if fresh.is_empty() {
            return;
        }
        let reached = self.reached_us;
        let pushed = self.kept.push(sight.batch, sight.columns, fresh, |row| sight.time(row).unwrap_or(reached));
        let taken = std::mem::take(fresh).len();
        if let Err(error) = pushed {
            let rule = &work.rule.name;
            tracing::warn!(rule, %error, "rows for a window rule were not kept");
            self.shed(work, taken, self.reached_us);
        }
        let waiting = self.ticks.first().copied().filter(|_| self.postponed).unwrap_or(i64::MAX);
        let now = self.reached_us.min(waiting);
        self.kept.expire(now.saturating_sub(work.plan.back_us().saturating_add(GRACE_US)));
        if let Some((rows, last)) = self.kept.shed(RULE_ROWS, work.bytes.saturating_sub(self.found.bytes())) {
            self.shed(work, rows, last);
        }
    }

    fn shed(&mut self, work: &Work<'_>, rows: usize, time: i64) {
        work.counters.shed.fetch_add(rows as u64, Ordering::Relaxed);
        self.lack(work, Degraded::Capped, time);
    }

    fn note_late(&mut self, work: &Work<'_>, time: i64, is_ahead: bool) {
        let is_late = time < self.reached_us.saturating_sub(GRACE_US) && work.runner.is_some();
        work.counters.late.fetch_add(u64::from(is_late), Ordering::Relaxed);
        work.counters.ahead.fetch_add(u64::from(is_ahead), Ordering::Relaxed);
        if is_late || is_ahead {
            self.lack(work, Degraded::Late, self.reached_us);
        }
    }

    /// Whether one event after the other is too old to be looked at: what came before them had a time that was not true.
    fn is_set_back(&mut self, work: &Work<'_>, time: i64) -> bool {
        let old = time < self.reached_us.saturating_sub(work.plan.back_us()).saturating_sub(GRACE_US);
        self.behind = if old { self.behind.saturating_add(1) } else { 0 };
        self.behind == BEHIND_ROWS
    }

    fn begin_again(&mut self, work: &Work<'_>, time: i64) {
        let lacks = std::mem::take(&mut self.lacks);
        *self = Self { reached_us: time, lacks, ..Self::of(work.columns) };
        self.lack(work, Degraded::Late, time);
    }

    /// Answers that look back to `at_us` lack something.
    pub(super) fn lack(&mut self, work: &Work<'_>, reason: Degraded, at_us: i64) {
        let until = at_us.saturating_add(work.plan.back_us());
        let known = self.lacks.entry(reason).or_insert(until);
        *known = until.max(*known);
    }

    /// Runs the plan at a time of events, over what it would have seen from `since` on.
    fn run(&mut self, work: &Work<'_>, now: i64, since: i64, matches: &mut Vec<RuleMatch>) {
        let Some(runner) = work.runner else { return };
        self.lacks.retain(|_, until| *until >= now);
        let mut completeness = Completeness::complete();
        self.lacks.keys().for_each(|reason| completeness.degrade(*reason));
        let reach = |scan: &Scan| (since.saturating_sub(scan.reach.back_us), latest(now, scan.reach.wait_us));
        let scans = work.plan.scans.iter().enumerate().map(|(at, scan)| (at, scan.needed, reach(scan)));
        // Of a join whose rarer side has not come, which is most of them most of the time.
        if scans.clone().any(|(at, needed, (from, to))| needed && !self.kept.has(at, from, to)) {
            return work.counters.decided(!completeness.is_complete());
        }
        let seen = scans.map(|(_, _, (from, to))| self.kept.between(from, to));
        let answer = match seen.collect::<Result<Vec<_>, ArrowError>>() {
            Err(error) => Err(Failure::Failed(error.to_string())),
            Ok(rows) => {
                work.plan.feed(rows, now);
                let outcome = runner.run(work.plan);
                work.counters.ran(outcome.cpu_ns, !completeness.is_complete());
                work.shares.iter().for_each(|share| share.spend(Duration::from_nanos(outcome.cpu_ns)));
                outcome.answer
            }
        };
        match answer {
            Ok(batches) => {
                if let Err(error) = self.found(work, now, &batches, &completeness, matches) {
                    self.failed(work, &Failure::Failed(error.to_string()), now);
                }
            }
            Err(failure) => self.failed(work, &failure, now),
        }
    }

    fn failed(&mut self, work: &Work<'_>, failure: &Failure, now: i64) {
        let (counters, rule) = (work.counters, &work.rule.name);
        let (counter, reason) = match failure {
            Failure::Failed(_) => (&counters.failed, Degraded::DataUnreadable),
            Failure::OutOfMemory => (&counters.failed, Degraded::Capped),
            Failure::TimedOut => (&counters.timed_out, Degraded::TimedOut),
        };
        // Said once per rule and load: every event could do it.
        if counter.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(rule, %failure, "a window rule was not decided");
        }
        self.lack(work, reason, now);
    }

    /// The rows of an answer that were not found before.
    fn found(
        &mut self,
        work: &Work<'_>,
        now: i64,
        batches: &[RecordBatch],
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) -> Result<(), ArrowError> {
        self.found.forget_before(self.kept.first());
        let (mut handed, mut has_room) = (0_usize, true);
        for (batch, row) in batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))) {
            let numbers = numbers(batch, row, work.plan.numbers);
            let Some(latest) = numbers.last().copied() else { continue };
            let output = output(work.plan, batch, row);
            let identity = identity(work.rule, &output, &numbers);
            if self.found.contains(identity) {
                continue;
            }
            if handed == MATCHES_A_RUN {
                self.lack(work, Degraded::Capped, now);
                if has_room {
                    self.schedule(work, tick_from(now.saturating_add(1)));
                }
                break;
            }
            handed = handed.saturating_add(1);
            if !self.found.add(identity, latest, work.bytes / 2) {
                has_room = false;
                self.lack(work, Degraded::Capped, now);
            }
            let events = self.kept.rows(&numbers)?;
            let Some(last) = events.num_rows().checked_sub(1) else { continue };
            work.counters.matched(Columns::of(&events).time(last));
            matches.push(RuleMatch {
                rule: Arc::clone(work.rule),
                batch: Arc::new(events),
                row: last,
                output,
                completeness: completeness.clone(),
            });
        }
        Ok(())
    }
}

/// Without a wait there is no such time: what has come counts.
const fn latest(now: i64, wait_us: i64) -> i64 {
    if wait_us == 0 { i64::MAX } else { now.saturating_sub(wait_us) }
}

/// The first tick at or after a time.
const fn tick_from(time: i64) -> i64 {
    let whole = time.div_euclid(TICK_US).saturating_mul(TICK_US);
    if whole < time { whole.saturating_add(TICK_US) } else { whole }
}

/// The numbers of a row's events, ascending.
fn numbers(batch: &RecordBatch, row: usize, count: usize) -> Vec<i64> {
    let columns = batch.columns();
    let from = columns.len().saturating_sub(count);
    let numbers = columns.iter().skip(from).filter_map(|column| column.as_primitive_opt::<Int64Type>());
    let numbers = numbers.filter(|column| row < column.len() && column.is_valid(row)).map(|column| column.value(row));
    let unique: BTreeSet<i64> = numbers.collect();
    unique.into_iter().collect()
}

fn output(plan: &Planned, batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let value =
        |column: &datafusion::arrow::array::ArrayRef| value_at(column.as_ref(), row).kind.map_or(Value::Null, json);
    plan.outputs.iter().cloned().zip(batch.columns().iter().map(value)).collect()
}

fn json(kind: Kind) -> Value {
    match kind {
        Kind::Blob(bytes) => Value::String(format!("0x{}", hex::encode(bytes))),
        Kind::Boolean(value) => Value::Bool(value),
        Kind::Integer(value) => Value::from(value),
        // JSON has no word for NaN and the infinities.
        Kind::Real(value) => Value::from(value),
        Kind::Text(text) => Value::String(text),
        Kind::TimestampUs(micros) => output::time(micros),
    }
}

/// What makes a match the same as one before: the events that it was made of, or what the file says.
fn identity(rule: &DetectionRule, output: &Map<String, Value>, numbers: &[i64]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for column in &rule.dedup {
        hasher.update(output.get(column).map(ToString::to_string).unwrap_or_default().as_bytes());
        hasher.update(&[0]);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}
