//! When one rule is decided: the ticks at which something is due, and the rows of each span that are decided as they come.

use std::collections::BTreeSet;

use super::{EAGER_RUNS, EAGER_US, RULE_ROWS, TICK_US};

/// What is due of one rule, and when.
#[derive(Debug)]
pub(super) struct Ticks {
    due: BTreeSet<i64>,
    /// Something is due that there was no time for.
    postponed: bool,
    /// A span of event time, and how many of its rows were decided as they came.
    eager: (i64, u32),
    /// The same of rows that are late: of those that go on behind a step back, time goes on by itself.
    late: (i64, u32),
}

impl Default for Ticks {
    fn default() -> Self {
        Self { due: BTreeSet::new(), postponed: false, eager: (i64::MIN, 0), late: (i64::MIN, 0) }
    }
}

impl Ticks {
    /// Something is to be decided at that time; whether an earlier time was given up for it. As many as there may be rows are enough:
    /// those of the oldest were shed.
    pub(super) fn schedule(&mut self, due: i64) -> bool {
        self.due.insert(due);
        let is_full = self.due.len() > RULE_ROWS;
        if is_full {
            self.due.pop_first();
        }
        is_full
    }

    pub(super) fn has(&self, due: i64) -> bool {
        self.due.contains(&due)
    }

    pub(super) fn is_due(&self, to_us: i64) -> bool {
        self.due.first().is_some_and(|due| *due <= to_us)
    }

    /// The next that is due up to a time, and the one that its look back begins at: what was postponed is decided together. A rule
    /// that `awaits` something looks back from the first of them; of another the rows that are older than it looks back have nothing
    /// to do with the answer.
    pub(super) fn take(&mut self, to_us: i64, awaits: bool) -> Option<(i64, i64)> {
        let first = self.due.first().copied().filter(|due| *due <= to_us)?;
        if !std::mem::take(&mut self.postponed) {
            self.due.pop_first();
            return Some((first, first));
        }
        let later = self.due.split_off(&to_us.saturating_add(1));
        let due = std::mem::replace(&mut self.due, later).last().copied().unwrap_or(first);
        Some((due, if awaits { first } else { due }))
    }

    /// There is no time for what is due; whether there was until now.
    pub(super) const fn postpone(&mut self) -> bool {
        !std::mem::replace(&mut self.postponed, true)
    }

    /// The first that was postponed.
    pub(super) fn postponed_since(&self) -> Option<i64> {
        self.due.first().copied().filter(|_| self.postponed)
    }

    /// Events have not reached the time that they seemed to have: nothing is due after `latest`, a tick.
    pub(super) fn clamp(&mut self, latest: i64) {
        self.eager = (i64::MIN, 0);
        if self.due.last().is_some_and(|last| *last > latest) {
            self.due.split_off(&latest);
            self.due.insert(latest);
        }
    }

    /// Events have reached a time; whether a new span begins with it.
    pub(super) const fn reach(&mut self, time_us: i64) -> bool {
        let span = time_us.div_euclid(EAGER_US);
        let is_new = self.eager.0 != span;
        if is_new {
            self.eager = (span, 0);
        }
        is_new
    }

    /// Late events have come as far. What lies between two others begins no new span.
    pub(super) const fn reach_late(&mut self, time_us: i64) {
        let span = time_us.div_euclid(EAGER_US);
        if span > self.late.0 {
            self.late = (span, 0);
        }
    }

    const fn span(&mut self, late: bool) -> &mut (i64, u32) {
        if late { &mut self.late } else { &mut self.eager }
    }

    /// Whether a row of this span may still be decided as it comes.
    pub(super) const fn is_eager(&mut self, late: bool) -> bool {
        self.span(late).1 < EAGER_RUNS
    }

    /// One was.
    pub(super) const fn decided(&mut self, late: bool) {
        let span = self.span(late);
        span.1 = span.1.saturating_add(1);
    }
}

/// The first tick at or after a time.
pub(super) const fn tick_from(time: i64) -> i64 {
    let whole = time.div_euclid(TICK_US).saturating_mul(TICK_US);
    if whole < time { whole.saturating_add(TICK_US) } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_postponed_is_due_together_and_what_comes_later_is_not() {
        let mut ticks = Ticks::default();
        for due in [3, 1, 2, 9] {
            assert!(!ticks.schedule(due));
        }
        assert_eq!((ticks.is_due(0), ticks.take(0, false)), (false, None));
        assert_eq!(ticks.take(5, true), Some((1, 1)));
        assert!(ticks.postpone() && !ticks.postpone());
        assert_eq!(ticks.postponed_since(), Some(2));
        assert_eq!(ticks.take(5, true), Some((3, 2)));
        assert_eq!((ticks.take(5, true), ticks.postponed_since()), (None, None));
        ticks.clamp(7);
        assert_eq!(ticks.take(7, false), Some((7, 7)));
    }

    #[test]
    fn the_oldest_is_given_up_when_there_are_more_than_rows() {
        let mut ticks = Ticks::default();
        let most = i64::try_from(RULE_ROWS).unwrap();
        assert!((0..most).all(|due| !ticks.schedule(due)));
        assert!(ticks.schedule(most) && !ticks.is_due(0) && ticks.is_due(1));
    }
}
