//! What one window rule knows: the rows kept, the time that events have reached, and what is still to be decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule};
use daemoneye_lib::proto::value::Kind;
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use serde_json::{Map, Value};

use super::super::output;
use super::super::row::Columns;
use super::counters::Counters;
use super::kept::Kept;
use super::plan::Planned;
use super::run::{Failure, Runner};
use super::{EAGER_RUNS, EAGER_US, GRACE_US, RULE_ROWS, TICK_US};
use crate::sql::value_at;
use crate::store::RuleMatch;

/// Matches that one run hands on; a rule that finds more finds everything, and the rate limit would fold them.
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
}

/// A batch as all rules see it.
pub(super) struct Sight<'a> {
    batch: &'a RecordBatch,
    columns: &'a Columns<'a>,
    completeness: &'a Completeness,
    /// For each row the latest time up to it.
    reached: Vec<i64>,
}

impl<'a> Sight<'a> {
    pub(super) fn of(batch: &'a RecordBatch, columns: &'a Columns<'a>, completeness: &'a Completeness) -> Self {
        let mut latest = i64::MIN;
        let reached = (0..columns.rows()).map(|row| {
            latest = latest.max(columns.time(row).unwrap_or(i64::MIN));
            latest
        });
        Self { reached: reached.collect(), batch, columns, completeness }
    }

    /// The latest time from one row to another.
    fn reached(&self, since: usize, row: usize) -> i64 {
        match since {
            0 => self.reached.get(row).copied().unwrap_or(i64::MIN),
            since => (since..=row).filter_map(|row| self.columns.time(row)).max().unwrap_or(i64::MIN),
        }
    }

    /// The latest time in a batch.
    pub(super) fn latest(columns: &Columns<'_>) -> Option<i64> {
        (0..columns.rows()).filter_map(|row| columns.time(row)).max()
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
    /// What was found, and the number of its latest row.
    found: HashMap<u128, i64>,
    /// Until when answers lack something.
    lacks: BTreeMap<Degraded, i64>,
}

impl State {
    pub(super) fn of(plan: &Planned) -> Self {
        Self {
            kept: Kept::of(&plan.kept),
            reached_us: i64::MIN,
            eager: (i64::MIN, 0),
            ticks: BTreeSet::new(),
            behind: 0,
            found: HashMap::new(),
            lacks: BTreeMap::new(),
        }
    }

    /// It has seen no event.
    pub(super) const fn is_new(&self) -> bool {
        self.reached_us == i64::MIN
    }

    /// Rows and bytes.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.kept.len(), self.kept.bytes())
    }

    pub(super) fn fill(&mut self, work: &Work<'_>, sight: &Sight<'_>) {
        let mut nothing = Vec::new();
        self.observe(work, sight, &mut nothing);
    }

    pub(super) fn observe(&mut self, work: &Work<'_>, sight: &Sight<'_>, matches: &mut Vec<RuleMatch>) {
        let Some(last_row) = sight.reached.len().checked_sub(1) else { return };
        let last = sight.reached(0, last_row);
        work.counters.rows.fetch_add(sight.reached.len() as u64, Ordering::Relaxed);
        for reason in &sight.completeness.degraded {
            self.lack(work, *reason, self.reached_us.max(last));
        }
        if work.runner.is_some() && !work.plan.kept.iter().all(|column| sight.columns.has(*column)) {
            self.lack(work, Degraded::SchemaUnavailable, self.reached_us.max(last));
        }
        let (mut fresh, mut since) = (Vec::new(), 0);
        for row in 0..=last_row {
            let Some(begins) = taken(work.plan, sight.columns, row) else { continue };
            let reached = self.reached_us.max(sight.reached(since, row));
            self.tick(work, sight, &mut fresh, reached, matches);
            self.reached_us = reached;
            let time = sight.columns.time(row).unwrap_or(reached);
            self.note_late(work, time);
            if self.is_set_back(work, time) {
                (fresh, since) = (Vec::new(), row);
                self.begin_again(work, time);
            }
            fresh.push(u32::try_from(row).unwrap_or(u32::MAX));
            if begins {
                self.begin(work, sight, &mut fresh, time, matches);
            }
        }
        let reached = self.reached_us.max(sight.reached(since, last_row));
        self.tick(work, sight, &mut fresh, reached, matches);
        self.reached_us = reached;
        self.keep(work, sight, &mut fresh);
    }

    pub(super) fn advance(&mut self, work: &Work<'_>, to_us: i64, matches: &mut Vec<RuleMatch>) {
        while let Some(due) = self.ticks.first().copied().filter(|due| *due <= to_us) {
            self.ticks.pop_first();
            self.run(work, due, matches);
        }
    }

    /// Sees to a row with which something may begin to be true.
    fn begin(
        &mut self,
        work: &Work<'_>,
        sight: &Sight<'_>,
        fresh: &mut Vec<u32>,
        time: i64,
        matches: &mut Vec<RuleMatch>,
    ) {
        if work.plan.awaits {
            let due = tick_from(time.saturating_add(work.plan.wait_us()));
            self.ticks.insert(due.max(tick_from(self.reached_us.saturating_add(1))));
            return;
        }
        let span = self.reached_us.div_euclid(EAGER_US);
        if self.eager.0 != span {
            self.eager = (span, 0);
        }
        if self.eager.1 == EAGER_RUNS {
            self.ticks.insert(tick_from(self.reached_us.saturating_add(1)));
            return;
        }
        self.eager.1 += 1;
        self.keep(work, sight, fresh);
        self.run(work, self.reached_us, matches);
    }

    /// Decides what is due before an event of time `reached` is looked at.
    fn tick(
        &mut self,
        work: &Work<'_>,
        sight: &Sight<'_>,
        fresh: &mut Vec<u32>,
        reached: i64,
        matches: &mut Vec<RuleMatch>,
    ) {
        while let Some(due) = self.ticks.first().copied().filter(|due| *due <= reached) {
            self.ticks.pop_first();
            self.keep(work, sight, fresh);
            self.run(work, due, matches);
        }
    }

    /// Moves the rows that were taken into what is kept.
    fn keep(&mut self, work: &Work<'_>, sight: &Sight<'_>, fresh: &mut Vec<u32>) {
        if fresh.is_empty() {
            return;
        }
        let pushed = self.kept.push(sight.batch, sight.columns, fresh, self.reached_us);
        let taken = std::mem::take(fresh).len();
        if let Err(error) = pushed {
            let rule = &work.rule.name;
            tracing::warn!(rule, %error, "rows for a window rule were not kept");
            self.shed(work, taken, self.reached_us);
        }
        self.kept.expire(self.reached_us.saturating_sub(work.plan.back_us().saturating_add(GRACE_US)));
        if let Some((rows, last)) = self.kept.shed(RULE_ROWS, work.bytes) {
            self.shed(work, rows, last);
        }
    }

    fn shed(&mut self, work: &Work<'_>, rows: usize, time: i64) {
        work.counters.shed.fetch_add(rows as u64, Ordering::Relaxed);
        self.lack(work, Degraded::Capped, time);
    }

    fn note_late(&mut self, work: &Work<'_>, time: i64) {
        if time < self.reached_us.saturating_sub(GRACE_US) && work.runner.is_some() {
            work.counters.late.fetch_add(1, Ordering::Relaxed);
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
        *self = Self { reached_us: time, lacks, ..Self::of(work.plan) };
        self.lack(work, Degraded::Late, time);
    }

    /// Answers that look back to `at_us` lack something.
    pub(super) fn lack(&mut self, work: &Work<'_>, reason: Degraded, at_us: i64) {
        let until = at_us.saturating_add(work.plan.back_us());
        let known = self.lacks.entry(reason).or_insert(until);
        *known = until.max(*known);
    }

    /// Runs the plan at a time of events.
    fn run(&mut self, work: &Work<'_>, now: i64, matches: &mut Vec<RuleMatch>) {
        let Some(runner) = work.runner else { return };
        self.lacks.retain(|_, until| *until >= now);
        let mut completeness = Completeness::complete();
        self.lacks.keys().for_each(|reason| completeness.degrade(*reason));
        let scans = work.plan.scans.iter();
        let seen = scans
            .map(|scan| self.kept.between(now.saturating_sub(scan.reach.back_us), latest(now, scan.reach.wait_us)));
        let answer = match seen.collect::<Result<Vec<_>, ArrowError>>() {
            Err(error) => Err(Failure::Failed(error.to_string())),
            Ok(rows) => {
                work.plan.feed(rows, now);
                let outcome = runner.run(work.plan);
                work.counters.ran(outcome.cpu_ns, !completeness.is_complete());
                outcome.answer
            }
        };
        match answer {
            Ok(batches) => {
                if let Err(error) = self.found(work, &batches, &completeness, matches) {
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
        batches: &[RecordBatch],
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) -> Result<(), ArrowError> {
        let oldest = self.kept.first();
        self.found.retain(|_, latest| *latest >= oldest);
        let mut handed = 0_usize;
        for (batch, row) in batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))) {
            let numbers = numbers(batch, row, work.plan.numbers);
            let Some(latest) = numbers.last().copied() else { continue };
            let output = output(work.plan, batch, row);
            if self.found.insert(identity(work.rule, &output, &numbers), latest).is_some() {
                continue;
            }
            handed = handed.saturating_add(1);
            if handed > MATCHES_A_RUN {
                self.lack(work, Degraded::Capped, self.reached_us);
                break;
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

/// Whether a row is kept, and then whether something may begin to be true with it.
fn taken(plan: &Planned, columns: &Columns<'_>, row: usize) -> Option<bool> {
    if columns.is_fork(row) && !plan.sees_forks {
        return None;
    }
    let mut taken = None;
    for scan in plan.scans.iter().filter(|scan| scan.takes(columns, row)) {
        if !scan.absent {
            return Some(true);
        }
        taken = Some(false);
    }
    taken
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
