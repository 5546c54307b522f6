//! What is decided when, and what becomes of the answers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::model::{Completeness, Degraded};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;

use super::super::super::row::Columns;
use super::super::answer::{events, identity, numbers, output};
use super::super::gate::Group;
use super::super::plan::Scan;
use super::super::run::Failure;
use super::super::ticks::tick_from;
use super::super::{EDGE_ROWS, RUN_ROWS};
use super::{State, Work};
use crate::store::{Answer, RuleMatch};

/// The time of runs before any event had one. Intervals are taken from it, of which no type of times may run out.
const EARLIEST_US: i64 = i64::MIN / 2;

/// Matches that one run hands on; the others wait for the next.
const MATCHES_A_RUN: usize = 1_024;

/// When a plan runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The time that events have reached for it.
    pub(super) now: i64,
    /// The time that its look back begins at.
    pub(super) since: i64,
    /// The tick that it belongs to.
    pub(super) due: i64,
}

impl State {
    /// Decides what waited for a tick. A rule that awaits nothing is decided as of the rows that waited, or at as few of their times
    /// as see the same: at the tick a row may be too old that was not when they came.
    pub(super) fn decide(&mut self, work: &Work<'_>, due: i64, since: i64, matches: &mut Vec<RuleMatch>) {
        if work.plan.awaits {
            let since = self.waiting.take().first().map_or(since, |first| since.min(*first));
            return self.run(work, Moment { now: due, since, due }, None, matches);
        }
        let (looks, last) = self.waiting.looks(&self.kept, work.plan, due, work.has_gates);
        for (now, groups) in looks {
            let at = Moment { now, since: now, due };
            match self.may_look(work, now, groups.is_some()) {
                Some(true) => self.run(work, at, groups, matches),
                Some(false) => {
                    let given_up = self.waiting.look_later(now);
                    self.skipped(work, given_up, last);
                    self.postpone(work);
                }
                None => self.skipped(work, 1, last),
            }
        }
        self.run(work, Moment { now: last, since: last, due }, None, matches);
    }

    /// Whether there is a run for a time before the last of a tick: now, or later when there is time for it, or never.
    fn may_look(&mut self, work: &Work<'_>, now: i64, of_groups: bool) -> Option<bool> {
        if !work.in_haste && self.looked < EDGE_ROWS {
            let rows = self.kept.count(now.saturating_sub(work.plan.back_us()), now);
            self.looked = self.looked.saturating_add(RUN_ROWS).saturating_add(rows as u64);
            return Some(true);
        }
        // It finds what no other run does, among few rows.
        let is_sure = of_groups && work.plan.threshold.as_ref().is_some_and(|threshold| threshold.whole);
        if work.in_haste && is_sure { Some(work.may_run()) } else { self.waiting.edge().then_some(true) }
    }

    /// Runs the plan as of a moment, over the rows of these groups or of those that may be true.
    pub(super) fn run(
        &mut self,
        work: &Work<'_>,
        at: Moment,
        groups: Option<HashSet<Group>>,
        matches: &mut Vec<RuleMatch>,
    ) {
        let Some(runner) = work.runner else { return };
        let Moment { now, since, .. } = at;
        self.lacks.retain(|_, until| *until >= now);
        let mut completeness = Completeness::complete();
        self.lacks.keys().for_each(|reason| completeness.degrade(*reason));
        let to = |scan: &Scan| if work.plan.awaits { latest(now, scan.reach.wait_us) } else { now };
        let reach = |scan: &Scan| (since.saturating_sub(scan.reach.back_us), to(scan));
        let scans = work.plan.scans.iter().enumerate().map(|(at, scan)| (at, scan.needed, reach(scan)));
        let open = || if work.has_gates { self.kept.open(work.plan, now) } else { None };
        let groups = groups.or_else(open);
        // Of a join whose rarer side has not come, and of a count that no group has reached, which is most of them most of the time.
        if groups.as_ref().is_some_and(HashSet::is_empty)
            || scans.clone().any(|(at, needed, (from, to))| needed && !self.kept.has(at, from, to))
        {
            return work.counters.decided(!completeness.is_complete());
        }
        let seen = scans.map(|(_, _, (from, to))| self.kept.between(from, to, groups.as_ref()));
        let answer = match seen.collect::<Result<Vec<_>, ArrowError>>() {
            Err(error) => Err(Failure::Failed(error.to_string())),
            Ok(rows) => {
                work.plan.feed(rows, now.max(EARLIEST_US));
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
        if counters.failed(counter, failure) {
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
