//! What the times of the collectors' own entries are worth where their clock was set.
//!
//! Order is the sequence; a clock may jump ahead and be set back, by whoever may set it. So times order events only as long as the
//! clock went forward, and what was said while it was ahead is held against what it said later.

use std::collections::HashMap;

use daemoneye_lib::ledger::AuditEntry;

/// How far the times of events and entries may lie apart: a file that was not merged has a minute of events. A longer step of the
/// clock is a jump.
pub(super) const JITTER_US: i64 = 600_000_000;
/// What a crash left uncovered is covered at the next start, maybe days after it was recorded, and at once.
const COVERED_LATE_US: i64 = 60_000_000;
/// A merged file has a day of events and goes by its latest one.
const MERGED_US: i64 = 86_400_000_000;

/// When the events of a range were recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorded {
    pub(super) earliest_us: i64,
    pub(super) latest_us: i64,
    /// Times order what has the same one.
    regime: u64,
    /// How long the collector had run; no step of its clock counts.
    pub(super) run_us: i64,
}

/// The clocks of collectors, as their entries tell.
#[derive(Debug, Default)]
pub(super) struct Clocks(HashMap<String, Clock>);

#[derive(Debug)]
struct Clock {
    /// Behind this, what came before is covered.
    covered_us: i64,
    started_us: i64,
    last_us: i64,
    line: Line,
    run_us: i64,
    /// Regimes so far.
    regimes: u64,
    /// Where the clock jumped ahead from, the latest last.
    left: Vec<Line>,
}

/// A clock that goes forward.
#[derive(Debug, Clone, Copy)]
struct Line {
    regime: u64,
    highest_us: i64,
    /// When it was there.
    run_us: i64,
}

impl Clocks {
    /// Takes the next entry of the ledger: when the events that it covers were recorded.
    pub(super) fn take(&mut self, entry: &AuditEntry) -> Recorded {
        let us = entry.timestamp_ms.saturating_mul(1_000);
        let covers = matches!(entry.action.as_str(), "event-range" | "heartbeat");
        if !covers && entry.action != "start" {
            return Recorded { earliest_us: us, latest_us: us, regime: 0, run_us: 0 };
        }
        let clock = self.0.entry(entry.actor.clone()).or_insert_with(|| Clock::begin(us));
        clock.step(us);
        let earliest_us = clock.covered_us.min(us);
        if !covers {
            clock.started_us = us;
        } else if us > clock.started_us.saturating_add(COVERED_LATE_US) || us < clock.started_us {
            clock.covered_us = us;
        }
        Recorded { earliest_us, latest_us: us, regime: clock.line.regime, run_us: clock.run_us }
    }

    /// How long a collector had run at its last entry.
    pub(super) fn run_us(&self, collector: &str) -> i64 {
        self.0.get(collector).map_or(0, |clock| clock.run_us)
    }
}

impl Clock {
    const fn begin(us: i64) -> Self {
        let line = Line { regime: 0, highest_us: us, run_us: 0 };
        Self { covered_us: i64::MIN, started_us: i64::MIN, last_us: us, line, run_us: 0, regimes: 0, left: Vec::new() }
    }

    fn step(&mut self, us: i64) {
        let step_us = us.saturating_sub(self.last_us);
        self.last_us = us;
        if step_us > JITTER_US {
            self.left.push(Line { run_us: self.run_us, ..self.line });
        } else {
            self.run_us = self.run_us.saturating_add(step_us.max(0));
        }
        if us.saturating_add(JITTER_US) >= self.line.highest_us {
            self.line.highest_us = self.line.highest_us.max(us);
            return;
        }
        while self.left.pop_if(|line| line.highest_us > us.saturating_add(JITTER_US)).is_some() {}
        let run_us = self.run_us;
        // Where it would stand without the jump: the jump was a mistake, and the times before it go on.
        let is_there = |line: &mut Line| {
            let due_us = line.highest_us.saturating_add(run_us.saturating_sub(line.run_us));
            us <= due_us.saturating_add(JITTER_US)
        };
        self.regimes = self.regimes.saturating_add(1);
        self.line = match self.left.pop_if(is_there) {
            Some(line) => Line { highest_us: line.highest_us.max(us), ..line },
            None => Line { regime: self.regimes, highest_us: us, run_us },
        };
    }
}

/// When the oldest events of a stream that are there were recorded.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    by_regime: HashMap<u64, i64>,
    oldest_us: Option<i64>,
}

impl Survivors {
    pub(super) fn add(&mut self, recorded: Recorded) {
        let us = recorded.latest_us;
        let oldest = self.by_regime.entry(recorded.regime).or_insert(us);
        *oldest = us.min(*oldest);
        self.oldest_us = Some(self.oldest_us.map_or(us, |oldest| oldest.min(us)));
    }

    /// Whether one is older than that event, so that retention would have taken it first.
    pub(super) fn are_older(&self, event: Recorded) -> bool {
        let before = |us: i64, by_us: i64| us.saturating_add(by_us) < event.earliest_us;
        let here = self.by_regime.get(&event.regime).is_some_and(|us| before(*us, JITTER_US));
        // Over a step back, files of one day may have become one whose latest event is younger.
        here || self.oldest_us.is_some_and(|us| before(us, MERGED_US.saturating_add(JITTER_US)))
    }
}

/// What was said between entries of the collector: when, at the latest.
///
/// That is the least time that the collector's clock has shown since. A time that it was set back to counts only until it jumps
/// ahead again: a host that begins at 1970 and asks a time server then has not gone back.
#[derive(Debug)]
pub(super) struct Ceilings<T> {
    marks: Vec<Mark<T>>,
    /// Steps back that the clock has not made good: where it had been, and the mark.
    drops: Vec<(i64, usize)>,
    last_us: i64,
    highest_us: i64,
}

#[derive(Debug)]
enum Mark<T> {
    Said(i64, T),
    Clock(i64),
}

impl<T> Default for Ceilings<T> {
    fn default() -> Self {
        Self { marks: Vec::new(), drops: Vec::new(), last_us: i64::MIN, highest_us: i64::MIN }
    }
}

impl<T> Ceilings<T> {
    pub(super) fn say(&mut self, said_us: i64, what: T) {
        self.marks.push(Mark::Said(said_us, what));
    }

    /// What the collector's clock shows next.
    pub(super) fn clock(&mut self, us: i64) {
        if us > self.last_us.saturating_add(JITTER_US) {
            self.jump(us);
        }
        while self.drops.pop_if(|(highest_us, _)| *highest_us <= us).is_some() {}
        let is_set_back = us.saturating_add(JITTER_US) < self.highest_us;
        let goes_back = is_set_back && us < self.last_us;
        if goes_back || matches!(self.marks.last(), Some(Mark::Said(..))) {
            if goes_back {
                self.drops.push((self.highest_us, self.marks.len()));
            }
            self.marks.push(Mark::Clock(us));
        }
        self.highest_us = if goes_back { us } else { self.highest_us.max(us) };
        self.last_us = us;
    }

    /// The clock jumps ahead: it had not been right before.
    fn jump(&mut self, us: i64) {
        while let Some((highest_us, mark)) = self.drops.last().copied() {
            if let Some(Mark::Clock(least_us)) = self.marks.get_mut(mark) {
                *least_us = us.max(*least_us);
            }
            if us.saturating_add(JITTER_US) < highest_us {
                break;
            }
            self.drops.pop();
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.marks.len()
    }

    /// All that was said and when, as it was said.
    pub(super) fn said(&mut self) -> impl Iterator<Item = &mut T> {
        self.marks.iter_mut().filter_map(|mark| match mark {
            Mark::Said(_, what) => Some(what),
            Mark::Clock(_) => None,
        })
    }

    /// Puts the first `count` marks together: what was said there was said where they end. `join` gives back what is of another kind.
    pub(super) fn fold(&mut self, count: usize, join: impl Fn(&mut T, T) -> Option<T>) {
        let rest = self.marks.split_off(count.min(self.marks.len()));
        let mut put: Vec<(i64, T)> = Vec::new();
        let folded = std::mem::take(&mut self.marks);
        let behind = folded.len();
        for mark in folded {
            let Mark::Said(us, what) = mark else { continue };
            let mut what = Some(what);
            for (said_us, known) in &mut put {
                what = what.and_then(|what| join(known, what));
                if what.is_none() {
                    *said_us = us;
                    break;
                }
            }
            put.extend(what.map(|what| (us, what)));
        }
        self.marks = put.into_iter().map(|(us, what)| Mark::Said(us, what)).collect();
        let before = self.marks.len();
        self.marks.extend(rest);
        for (_, mark) in &mut self.drops {
            // What the clock showed there bounds nothing any more.
            *mark = mark.checked_sub(behind).map_or(usize::MAX, |mark| mark.saturating_add(before));
        }
    }

    /// All that was said, in order, with its time. What no clock follows was said until `now_us`.
    pub(super) fn settle(&mut self, now_us: i64) -> Vec<(i64, T)> {
        let (mut least_us, mut is_bounded) = (now_us, false);
        let mut settled = Vec::new();
        for mark in std::mem::take(&mut self.marks).into_iter().rev() {
            match mark {
                Mark::Said(us, what) => settled.push((us.min(least_us), what)),
                Mark::Clock(us) => {
                    least_us = if is_bounded { least_us.min(us) } else { us };
                    is_bounded = true;
                }
            }
        }
        settled.reverse();
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60_000_000;
    const T: i64 = 1_000_000 * MINUTE_US;
    const DAY: i64 = 24 * 60;

    /// Minutes behind [`T`]; one of `None` says something. When that was.
    fn ceilings(minutes: &[Option<i64>]) -> Vec<i64> {
        let (mut ceilings, mut last) = (Ceilings::default(), 0);
        for minute in minutes {
            match minute {
                Some(minute) => {
                    last = *minute;
                    ceilings.clock(T + minute * MINUTE_US);
                }
                None => ceilings.say(T + last * MINUTE_US, ()),
            }
        }
        ceilings.settle(i64::MAX).into_iter().map(|(us, ())| (us - T) / MINUTE_US).collect()
    }

    #[test]
    fn what_was_said_while_the_clock_was_ahead_was_said_before_what_it_shows_later() {
        assert_eq!(ceilings(&[Some(0), None, Some(1), None, Some(2)]), [0, 1]);
        let year = 365 * DAY;
        assert_eq!(ceilings(&[Some(0), Some(year), None, Some(year + 1), Some(2), None, Some(3)]), [2, 2]);
        // Twice, and the second time not far enough to make the first one good.
        assert_eq!(ceilings(&[Some(0), Some(year), None, Some(2), Some(DAY), None, Some(4), Some(5)]), [4, 4]);
        // Time makes nothing good.
        let slowly: Vec<_> = [Some(0), Some(60), None].into_iter().chain((1..90).map(Some)).collect();
        assert_eq!(ceilings(&slowly), [1]);
    }

    #[test]
    fn a_clock_that_was_behind_and_jumps_back_to_its_place_makes_nothing_older() {
        let year = 365 * DAY;
        assert_eq!(ceilings(&[Some(0), None, Some(1), None, Some(-year), None, Some(5), Some(6)]), [0, 1, -year]);
        assert_eq!(ceilings(&[Some(0), None, Some(-year), Some(-year + 1), None]), [-year, -year + 1]);
    }

    fn entry(minute: i64) -> AuditEntry {
        AuditEntry::link(0, [0; 32], (T + minute * MINUTE_US) / 1_000, "procmond", "event-range", b"")
    }

    fn regimes(minutes: impl IntoIterator<Item = i64>) -> Vec<u64> {
        let mut clocks = Clocks::default();
        minutes.into_iter().map(|minute| clocks.take(&entry(minute)).regime).collect()
    }

    #[test]
    fn a_step_back_begins_a_regime_and_one_that_undoes_a_jump_goes_on_with_the_one_before() {
        assert_eq!(regimes([0, 1, 0, 2, 60, 61]), [0; 6], "minutes are no step back, and what is ahead is none");
        assert_eq!(regimes([0, 60, 30, 31, 90]), [0, 0, 1, 1, 1]);
        assert_eq!(regimes([0, 1, 525_600, 525_601, 3, 4]), [0; 6], "it was ahead by mistake");
        assert_eq!(regimes([0, 1, 525_600, 3, 525_600, 5, 60]), [0; 7]);
        assert_eq!(regimes([0, 1, 120, 60]), [0, 0, 0, 1], "an hour has not passed");
    }

    #[test]
    fn events_that_are_there_show_that_younger_ones_were_not_removed_first() {
        let mut clocks = Clocks::default();
        let mut survivors = Survivors::default();
        survivors.add(clocks.take(&entry(0)));
        clocks.take(&entry(60));
        let removed = clocks.take(&entry(61));
        assert!(survivors.are_older(removed));
        clocks.take(&entry(30));
        let removed = clocks.take(&entry(50));
        assert!(!survivors.are_older(removed), "another regime, the same day");
        clocks.take(&entry(DAY + 20));
        let removed = clocks.take(&entry(DAY + 21));
        assert!(survivors.are_older(removed), "another day");
    }
}
