//! What one window rule knows: the rows kept, the time that events have reached, and what is still to be decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemoneye_lib::model::{Completeness, Degraded, DetectionRule};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;

use super::super::row::Columns;
use super::answer::{events, identity, numbers, output};
use super::counters::Counters;
use super::found::Found;
use super::kept::Kept;
use super::plan::{Planned, Scan, Scans};
use super::run::{Failure, Runner};
use super::share::Share;
use super::sieve::Taken;
use super::sight::Sight;
use super::waiting::Waiting;
use super::{EAGER_RUNS, EAGER_US, EDGE_ROWS, GRACE_US, RULE_ROWS, RUN_ROWS, TICK_US};
use crate::store::{Answer, RuleMatch};

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
    pub(super) in_haste: bool,
}

impl Work<'_> {
    fn may_run(&self) -> bool {
        self.runner.is_none() || self.shares.iter().all(|share| share.is_left())
    }
}

/// When a plan runs.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The time that events have reached for it.
    now: i64,
    /// The time that its look back begins at.
    since: i64,
    /// The tick that it belongs to.
    due: i64,
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
    waiting: Waiting,
    /// Runs are due that there was no time for.
    postponed: bool,
    /// What runs beyond the first of a tick have looked at.
    looked: u64,
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
            waiting: Waiting::default(),
            postponed: false,
            looked: 0,
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
        self.try_again(work, reached);
    }

    pub(super) fn advance(&mut self, work: &Work<'_>, to_us: i64, matches: &mut Vec<RuleMatch>) {
        while let Some((due, since)) = self.due(work, to_us) {
            self.decide(work, due, since, matches);
        }
        self.try_again(work, to_us);
    }

    /// Sees to it that what had no answer up to `reached` is tried again at the next tick.
    fn try_again(&mut self, work: &Work<'_>, reached: i64) {
        if std::mem::take(&mut self.waiting.failed) {
            self.schedule(work, tick_from(reached.saturating_add(1)));
        }
    }

    /// What was read from files is put in the order of time, so that the bound lets go of the oldest.
    pub(super) fn sort(&mut self, work: &Work<'_>) {
        if let Err(error) = self.kept.sort() {
            let rule = &work.rule.name;
            tracing::warn!(rule, %error, "rows for a window rule were not sorted");
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
        self.waiting.clamp(now);
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
            self.skipped(work, 1, self.reached_us);
        }
    }

    /// Times at which something may have been true were not looked at.
    fn skipped(&mut self, work: &Work<'_>, times: u64, at_us: i64) {
        if times > 0 {
            work.counters.skipped.fetch_add(times, Ordering::Relaxed);
            self.lack(work, Degraded::Capped, at_us);
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
            self.waiting.renew();
        }
        let may_run = self.eager.1 < EAGER_RUNS && work.may_run();
        if self.eager.1 < EAGER_RUNS && !may_run {
            self.postpone(work);
        }
        if !may_run {
            let later = i64::try_from(fresh.len()).unwrap_or(i64::MAX).saturating_sub(1);
            match work.runner {
                Some(_) => self.waiting.row(self.kept.next().saturating_add(later), self.reached_us),
                // Rows of files get their numbers when all are there.
                None => self.waiting.only(self.reached_us),
            }
            return self.schedule(work, tick_from(self.reached_us.saturating_add(1)));
        }
        self.eager.1 += 1;
        self.keep(work, sight, fresh);
        let now = self.reached_us;
        self.run(work, Moment { now, since: now, due: now }, matches);
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
            self.decide(work, due, since, matches);
        }
    }

    /// Decides what waited for a tick. A rule that awaits nothing is decided as of the rows that waited, or at as few of their times
    /// as see the same: at the tick a row may be too old that was not when they came.
    fn decide(&mut self, work: &Work<'_>, due: i64, since: i64, matches: &mut Vec<RuleMatch>) {
        if work.plan.awaits {
            let since = self.waiting.take().first().map_or(since, |first| since.min(*first));
            return self.run(work, Moment { now: due, since, due }, matches);
        }
        let (edges, last) = self.waiting.times(&self.kept, work.plan, due);
        for now in edges {
            if self.may_look(work, now) {
                self.run(work, Moment { now, since: now, due }, matches);
            } else {
                self.skipped(work, 1, last);
            }
        }
        self.run(work, Moment { now: last, since: last, due }, matches);
    }

    /// Whether there is a run left for a time before the last of a tick.
    fn may_look(&mut self, work: &Work<'_>, now: i64) -> bool {
        if !work.in_haste && self.looked < EDGE_ROWS {
            let rows = self.kept.count(now.saturating_sub(work.plan.back_us()), now);
            self.looked = self.looked.saturating_add(RUN_ROWS).saturating_add(rows as u64);
            return true;
        }
        self.waiting.edge()
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
        let waiting = self.ticks.first().copied().filter(|_| self.postponed);
        let now = waiting.into_iter().chain(self.waiting.first()).fold(self.reached_us, i64::min);
        let most = work.bytes.saturating_sub(self.found.bytes());
        if work.runner.is_none() && self.kept.exceeds(RULE_ROWS, most) {
            self.sort(work);
        }
        self.kept.expire(now.saturating_sub(work.plan.back_us().saturating_add(GRACE_US)));
        if let Some((rows, last)) = self.kept.shed(RULE_ROWS, most) {
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
        // Files are not read in the order of time.
        self.behind = if old && work.runner.is_some() { self.behind.saturating_add(1) } else { 0 };
        self.behind == BEHIND_ROWS
    }

    fn begin_again(&mut self, work: &Work<'_>, time: i64) {
        let lacks = std::mem::take(&mut self.lacks);
        *self = Self { reached_us: time, lacks, looked: self.looked, ..Self::of(work.columns) };
        self.lack(work, Degraded::Late, time);
    }

    /// Answers that look back to `at_us` lack something.
    pub(super) fn lack(&mut self, work: &Work<'_>, reason: Degraded, at_us: i64) {
        let until = at_us.saturating_add(work.plan.back_us());
        let known = self.lacks.entry(reason).or_insert(until);
        *known = until.max(*known);
    }

    /// Runs the plan as of a moment.
    fn run(&mut self, work: &Work<'_>, at: Moment, matches: &mut Vec<RuleMatch>) {
        let Some(runner) = work.runner else { return };
        let Moment { now, since, .. } = at;
        self.lacks.retain(|_, until| *until >= now);
        let mut completeness = Completeness::complete();
        self.lacks.keys().for_each(|reason| completeness.degrade(*reason));
        let to = |scan: &Scan| if work.plan.awaits { latest(now, scan.reach.wait_us) } else { now };
        let reach = |scan: &Scan| (since.saturating_sub(scan.reach.back_us), to(scan));
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
                if let Err(error) = self.found(work, at, &batches, &completeness, matches) {
                    self.failed(work, &Failure::Failed(error.to_string()), at);
                }
            }
            Err(failure) => self.failed(work, &failure, at),
        }
    }

    fn failed(&mut self, work: &Work<'_>, failure: &Failure, at: Moment) {
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
        self.lack(work, reason, at.due);
        // Where nobody waits it had time enough.
        if !work.shares.is_empty() {
            let given_up = self.waiting.fail(at.since);
            self.skipped(work, given_up, at.due);
        }
    }

    /// The rows of an answer that were not found before, as their latest events stand in the stream: a summary counts by that.
    fn found(
        &mut self,
        work: &Work<'_>,
        at: Moment,
        batches: &[RecordBatch],
        completeness: &Completeness,
        matches: &mut Vec<RuleMatch>,
    ) -> Result<(), ArrowError> {
        self.found.forget_before(self.kept.first());
        let (mut handed, mut has_room) = (0_usize, true);
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_cached_key(|(batch, row)| events(batch, *row, work.plan.numbers).max());
        for (batch, row) in rows {
            let numbers = numbers(batch, row, work.plan.numbers);
            let Some(latest) = numbers.last().copied() else { continue };
            let output = output(work.plan, batch, row);
            let identity = identity(work.rule, &output, &numbers);
            if self.found.contains(identity) {
                continue;
            }
            if handed == MATCHES_A_RUN {
                self.lack(work, Degraded::Capped, at.due);
                if has_room {
                    let given_up = self.waiting.again(at.since);
                    self.skipped(work, given_up, at.due);
                    self.schedule(work, tick_from(at.due.saturating_add(1)));
                }
                break;
            }
            handed = handed.saturating_add(1);
            if !self.found.add(identity, latest, work.bytes / 2) {
                has_room = false;
                self.lack(work, Degraded::Capped, at.due);
            }
            let events = self.kept.rows(&numbers)?;
            let Some(last) = events.num_rows().checked_sub(1) else { continue };
            work.counters.matched(Columns::of(&events).time(last));
            matches.push(RuleMatch {
                rule: Arc::clone(work.rule),
                batch: Arc::new(events),
                row: last,
                answer: Answer::Row(output),
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
