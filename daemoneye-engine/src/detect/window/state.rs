//! What one window rule knows: the rows kept, the time that events have reached, and what is still to be decided.

mod decide;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use daemoneye_lib::model::{Degraded, DetectionRule};

use super::counters::Counters;
use super::found::Found;
use super::kept::{Fresh, Kept};
use super::plan::{Planned, Scans};
use super::run::Runner;
use super::share::Share;
use super::sieve::Taken;
use super::sight::Sight;
use super::ticks::{Ticks, tick_from};
use super::waiting::Waiting;
use super::{GRACE_US, RULE_ROWS};
use crate::store::RuleMatch;
use decide::Moment;

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
    /// What cannot be true is not decided by a run.
    pub(super) has_gates: bool,
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
    ticks: Ticks,
    /// How many of the latest rows were too old to be looked at.
    behind: u32,
    found: Found,
    waiting: Waiting,
    /// What runs beyond the first of a tick have looked at.
    looked: u64,
    /// Until when answers lack something.
    lacks: BTreeMap<Degraded, i64>,
}

impl State {
    pub(super) fn of(columns: &BTreeSet<usize>, plan: &Planned) -> Self {
        Self {
            kept: Kept::of(columns, plan),
            reached_us: i64::MIN,
            ticks: Ticks::default(),
            behind: 0,
            found: Found::default(),
            waiting: Waiting::default(),
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
        // It was not asked about what it is filled with.
        if work.runner.is_some() {
            work.counters.rows.fetch_add(sight.rows() as u64, Ordering::Relaxed);
        }
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
            let time = sight.time(row).unwrap_or_else(|| self.note_untimed(work));
            self.note_late(work, time, sight, row);
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

    /// The next decision up to a time, and the one that its look back begins at.
    fn due(&mut self, work: &Work<'_>, to_us: i64) -> Option<(i64, i64)> {
        if !self.ticks.is_due(to_us) {
            return None;
        }
        if !work.may_run() {
            self.postpone(work);
            return None;
        }
        self.ticks.take(to_us, work.plan.awaits)
    }

    /// There is no time now.
    fn postpone(&mut self, work: &Work<'_>) {
        if self.ticks.postpone() {
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
        self.kept.clamp(now);
        self.waiting.clamp(now);
        self.ticks.clamp(tick_from(now.saturating_add(work.plan.wait_us()).saturating_add(1)));
        self.lack(work, Degraded::Late, now);
    }

    /// Something is to be decided at that time.
    fn schedule(&mut self, work: &Work<'_>, due: i64) {
        if self.ticks.schedule(due) {
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
        if self.ticks.reach(self.reached_us) {
            self.waiting.renew();
        }
        // What holds of a part of the events of one time need not hold of all of them: where these come together, they are waited for.
        let late = sight.clock.is_in_order() && time < self.reached_us;
        let waits = !work.plan.grows && sight.clock.is_in_order() && !late;
        if late {
            self.ticks.reach_late(time);
        }
        let is_eager = self.ticks.is_eager(late);
        let may_run = is_eager && !waits && work.may_run();
        if is_eager && !waits && !may_run {
            self.postpone(work);
        }
        if !may_run {
            let later = i64::try_from(fresh.len()).unwrap_or(i64::MAX).saturating_sub(1);
            match work.runner {
                Some(_) => self.waiting.row(self.kept.next().saturating_add(later), self.reached_us),
                // Rows of files get their numbers when all are there.
                None => self.waiting.only(self.reached_us),
            }
            let next = self.reached_us.saturating_add(1);
            if waits && self.ticks.has(next) {
                return;
            }
            if waits && is_eager {
                self.ticks.decided(late);
                return self.schedule(work, next);
            }
            return self.schedule(work, tick_from(next));
        }
        self.ticks.decided(late);
        self.keep(work, sight, fresh);
        let now = self.reached_us;
        self.run(work, Moment { now, since: now, due: now }, None, matches);
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

    /// Moves the rows that were taken into what is kept.
    fn keep(&mut self, work: &Work<'_>, sight: &Sight<'_>, fresh: &mut Vec<(u32, Scans)>) {
        if fresh.is_empty() {
            return;
        }
        let (reached, threshold) = (self.reached_us, work.plan.threshold.as_ref());
        let counts = |row: usize| Fresh {
            time_us: sight.time(row).unwrap_or(reached),
            mark: threshold.map(|threshold| threshold.mark(sight.columns, row, sight.is_believed(row))),
        };
        let pushed = self.kept.push(sight.batch, sight.columns, fresh, counts);
        let taken = std::mem::take(fresh).len();
        if let Err(error) = pushed {
            let rule = &work.rule.name;
            tracing::warn!(rule, %error, "rows for a window rule were not kept");
            self.shed(work, taken, self.reached_us);
        }
        let waiting = self.ticks.postponed_since().into_iter().chain(self.waiting.first());
        let now = waiting.fold(self.reached_us, i64::min);
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

    fn note_late(&mut self, work: &Work<'_>, time: i64, sight: &Sight<'_>, row: usize) {
        let is_ahead = sight.is_ahead(row);
        let is_late = sight.clock.is_late(time, self.reached_us) && work.runner.is_some();
        work.counters.late.fetch_add(u64::from(is_late), Ordering::Relaxed);
        work.counters.ahead.fetch_add(u64::from(is_ahead), Ordering::Relaxed);
        if is_late || is_ahead {
            self.lack(work, Degraded::Late, self.reached_us);
        }
    }

    /// A row has no time, by which such a rule goes; it counts as of now, and a condition on its time is not true.
    fn note_untimed(&mut self, work: &Work<'_>) -> i64 {
        work.counters.untimed.fetch_add(u64::from(work.runner.is_some()), Ordering::Relaxed);
        self.lack(work, Degraded::SchemaUnavailable, self.reached_us);
        self.reached_us
    }

    /// Whether one event after the other is too old to be looked at: what came before them had a time that was not true.
    fn is_set_back(&mut self, work: &Work<'_>, time: i64) -> bool {
        let old = self.is_beyond(work, time);
        // Files are not read in the order of time.
        self.behind = if old && work.runner.is_some() { self.behind.saturating_add(1) } else { 0 };
        self.behind == BEHIND_ROWS
    }

    fn begin_again(&mut self, work: &Work<'_>, time: i64) {
        self.begin_anew(work);
        self.reached_us = time;
        self.lack(work, Degraded::Late, time);
    }

    /// What comes now is of this time: where a rule does not look back over the step, what waited is decided and no event of before counts
    /// any more.
    pub(super) fn go_back(&mut self, work: &Work<'_>, to_us: i64, matches: &mut Vec<RuleMatch>) {
        if self.is_beyond(work, to_us) {
            self.advance(work, i64::MAX, matches);
            self.begin_anew(work);
        }
    }

    /// Whether this time lies before all that the rule looks back to.
    fn is_beyond(&self, work: &Work<'_>, time: i64) -> bool {
        time < self.reached_us.saturating_sub(work.plan.back_us()).saturating_sub(GRACE_US)
    }

    /// What answers lack, they go on to say.
    fn begin_anew(&mut self, work: &Work<'_>) {
        let lacks = std::mem::take(&mut self.lacks);
        *self = Self { lacks, looked: self.looked, ..Self::of(work.columns, work.plan) };
    }

    /// Answers that look back to `at_us` lack something.
    pub(super) fn lack(&mut self, work: &Work<'_>, reason: Degraded, at_us: i64) {
        let until = at_us.saturating_add(work.plan.back_us());
        let known = self.lacks.entry(reason).or_insert(until);
        *known = until.max(*known);
    }
}
