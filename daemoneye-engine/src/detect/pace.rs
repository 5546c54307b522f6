//! Whether rules keep to their budget: CPU time of the evaluating thread, so that a busy machine makes no rule slow.
//!
//! Reading that clock costs a system call, so rules are measured one by one only behind a batch that took longer, as a whole, than
//! any one of them may. A rule that misses its budget three times in a row is slow, six times degraded; the mark stays as long as
//! its text, and the rule goes on being evaluated.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::cpu;

/// What one rule may take for one batch.
pub const BUDGET: Duration = Duration::from_millis(100);

/// Misses in a row that are no accident.
const SLOW_AFTER: u32 = 3;
/// And those that the owner must be told of.
const DEGRADED_AFTER: u32 = 6;

/// How a rule stands with its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mark {
    /// It has not missed it three times in a row.
    #[default]
    Kept,
    /// Three times in a row.
    Slow,
    /// Six times in a row.
    Degraded,
}

/// Of a rule: how often it missed.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// In the batch that is being evaluated, in nanoseconds: a rule may come up several times in it.
    spent: AtomicU64,
    misses: AtomicU64,
    in_a_row: AtomicU32,
    most_in_a_row: AtomicU32,
}

impl Pace {
    fn spend(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.spent.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// At the end of a batch.
    fn judge(&self) {
        if Duration::from_nanos(self.spent.swap(0, Ordering::Relaxed)) <= BUDGET {
            return self.in_a_row.store(0, Ordering::Relaxed);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.most_in_a_row.fetch_max(row, Ordering::Relaxed);
    }

    /// One run that was measured by itself.
    pub(super) fn ran(&self, time: Duration) {
        self.spend(time);
        self.judge();
    }

    pub(super) fn in_a_row(&self) -> u64 {
        self.in_a_row.load(Ordering::Relaxed).into()
    }

    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub(super) fn mark(&self) -> Mark {
        match self.most_in_a_row.load(Ordering::Relaxed) {
            0..SLOW_AFTER => Mark::Kept,
            SLOW_AFTER..DEGRADED_AFTER => Mark::Slow,
            DEGRADED_AFTER.. => Mark::Degraded,
        }
    }

    /// Goes on from what the same rule did in another set.
    pub(super) fn continue_from(&self, other: &Self) {
        self.misses.fetch_add(other.misses(), Ordering::Relaxed);
        self.in_a_row.fetch_max(other.in_a_row.load(Ordering::Relaxed), Ordering::Relaxed);
        self.most_in_a_row.fetch_max(other.most_in_a_row.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Of a rule set: its clock, and whether rules are measured one by one now.
#[derive(Debug)]
pub(super) struct Meter {
    clock: fn() -> Duration,
    watching: AtomicBool,
}

impl Default for Meter {
    fn default() -> Self {
        Self::with_clock(|| Duration::from_nanos(cpu::thread_ns()))
    }
}

impl Meter {
    pub(super) const fn with_clock(clock: fn() -> Duration) -> Self {
        Self { clock, watching: AtomicBool::new(false) }
    }

    /// Evaluates one batch; `work` tells the time of each rule through the watch that it gets.
    pub(super) fn batch<'a>(&self, paces: impl Iterator<Item = &'a Pace>, work: impl FnOnce(Watch)) {
        let watching = self.watching.load(Ordering::Relaxed);
        let began = (self.clock)();
        work(Watch { clock: watching.then_some(self.clock) });
        let over = (self.clock)().saturating_sub(began) > BUDGET;
        if over != watching {
            self.watching.store(over, Ordering::Relaxed);
        }
        if watching {
            paces.for_each(Pace::judge);
        }
    }
}

/// Measures rules one by one, if they are measured at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    clock: Option<fn() -> Duration>,
}

impl Watch {
    pub(super) fn rule(self, pace: &Pace, work: impl FnOnce()) {
        let Some(clock) = self.clock else { return work() };
        let began = clock();
        work();
        pace.spend(clock().saturating_sub(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    fn spend(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    fn evaluate(meter: &Meter, rules: &[Pace], costs: [u64; 2]) {
        meter.batch(rules.iter(), |watch| {
            for (pace, cost) in rules.iter().zip(costs) {
                watch.rule(pace, || spend(Duration::from_millis(cost)));
            }
        });
    }

    #[test]
    fn three_misses_in_a_row_make_a_rule_slow_six_degraded_and_its_neighbour_nothing() {
        let meter = Meter::with_clock(|| NOW.get());
        let rules = [Pace::default(), Pace::default()];
        // The first batch only makes it look closer.
        evaluate(&meter, &rules, [101, 1]);
        assert_eq!((rules[0].misses(), rules[0].mark()), (0, Mark::Kept));
        for _ in 0..3 {
            evaluate(&meter, &rules, [101, 1]);
        }
        assert_eq!((rules[0].misses(), rules[0].mark()), (3, Mark::Slow));
        for _ in 0..3 {
            evaluate(&meter, &rules, [500, 99]);
        }
        assert_eq!((rules[0].misses(), rules[0].mark()), (6, Mark::Degraded));
        evaluate(&meter, &rules, [1, 1]);
        assert_eq!(rules[0].mark(), Mark::Degraded, "it is a mark of this text, and stays");
        assert_eq!((rules[1].misses(), rules[1].mark()), (0, Mark::Kept));
    }

    #[test]
    fn misses_that_are_not_in_a_row_are_counted_and_mark_nothing() {
        let meter = Meter::with_clock(|| NOW.get());
        let rules = [Pace::default(), Pace::default()];
        for _ in 0..10 {
            // Closer, a miss, a miss, and within budget again.
            for cost in [101, 101, 101, 2] {
                evaluate(&meter, &rules, [cost, 1]);
            }
        }
        assert_eq!((rules[0].misses(), rules[0].mark()), (20, Mark::Kept));
    }

    #[test]
    fn a_rule_pays_for_all_that_it_took_in_a_batch() {
        let meter = Meter::with_clock(|| NOW.get());
        let rules = [Pace::default()];
        for _ in 0..4 {
            meter.batch(rules.iter(), |watch| {
                for _ in 0..3 {
                    watch.rule(&rules[0], || spend(Duration::from_millis(40)));
                }
            });
        }
        assert_eq!((rules[0].misses(), rules[0].mark()), (3, Mark::Slow));
    }

    #[test]
    fn many_rules_that_are_slow_together_are_no_slow_rule() {
        let meter = Meter::with_clock(|| NOW.get());
        let rules = [Pace::default(), Pace::default()];
        for _ in 0..10 {
            evaluate(&meter, &rules, [90, 90]);
        }
        assert!(rules.iter().all(|pace| pace.misses() == 0));
    }
}
