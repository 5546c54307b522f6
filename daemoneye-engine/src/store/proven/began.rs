//! When a ledger began, by its collector's clock.
//!
//! What is older than the ledger can be neither proven nor refuted, so that moment decides what is judged. A hardware clock may be hours off
//! until a time server is asked, and whoever may set a clock may pretend that it was. So a jump ahead moves the beginning once, in the
//! first hour of the first run, where a heartbeat spans it: hours between two other entries may be a time in which nothing was
//! written. A step back always does, to where the clock says that the ledger began then: what it says of a time that it had not
//! reached excuses nothing.

use super::clocks::JITTER_US;

/// 2020: no ledger is older, so a clock before that is wrong.
const WRITTEN_US: i64 = 1_577_836_800_000_000;
/// How long the first run may have taken until a clock that was behind is set right.
const EARLY_US: i64 = 3_600_000_000;
/// Steps back that are remembered, to be made good: more than a clock has that somebody looks at.
const DROPS: usize = 64;

#[derive(Debug)]
pub(super) struct Began {
    /// As far as is known.
    us: i64,
    /// How far the clock has been since it was set back last.
    highest_us: i64,
    /// How long it went forward without a jump: less than has passed.
    run_us: i64,
    starts: u64,
    /// It was set ahead, to what it is taken for.
    is_set: bool,
    /// Steps back: where the clock had been, and when the ledger had begun by that.
    drops: Vec<(i64, i64)>,
}

impl Began {
    /// With its first entry.
    pub(super) const fn at(us: i64) -> Self {
        Self { us, highest_us: us, run_us: 0, starts: 0, is_set: false, drops: Vec::new() }
    }

    pub(super) const fn us(&self) -> i64 {
        self.us
    }

    /// Whether a heartbeat may tell that its clock had been behind.
    pub(super) const fn is_early(&self) -> bool {
        self.starts <= 1 && self.run_us <= EARLY_US && !self.is_set && self.drops.is_empty()
    }

    /// The interval of a heartbeat, before its entry is taken.
    pub(super) fn beats(&mut self, from_us: i64, to_us: i64) {
        if self.is_early() && to_us.saturating_sub(from_us) > JITTER_US {
            (self.us, self.is_set) = (to_us.saturating_sub(self.run_us), true);
        }
    }

    /// The next entry of the collector.
    pub(super) fn take(&mut self, action: &str, us: i64) {
        let is_start = action == "start";
        self.starts = self.starts.saturating_add(u64::from(is_start));
        if self.us < WRITTEN_US && us >= WRITTEN_US {
            *self = Self { starts: self.starts, ..Self::at(us) };
        } else if us < WRITTEN_US && self.us >= WRITTEN_US {
            // Whatever is made of that time, it is set right one day.
        } else if us.saturating_add(JITTER_US) < self.highest_us {
            self.is_set_back(us);
        } else if us > self.highest_us.saturating_add(JITTER_US) {
            if !is_start {
                self.jumps(us);
            }
            self.reaches(us);
        } else {
            self.run_us = self.run_us.saturating_add(us.saturating_sub(self.highest_us).max(0));
            self.reaches(us.max(self.highest_us));
        }
    }

    /// Time makes no step back good.
    fn reaches(&mut self, us: i64) {
        self.highest_us = us;
        while self.drops.pop_if(|(highest_us, _)| *highest_us <= us).is_some() {}
    }

    fn is_set_back(&mut self, us: i64) {
        if self.drops.len() < DROPS {
            self.drops.push((self.highest_us, self.us));
        }
        self.us = self.us.min(us.saturating_sub(self.run_us));
        self.highest_us = us;
    }

    /// Within a run: it had not been right before, or is not now.
    fn jumps(&mut self, us: i64) {
        while let Some((_, before_us)) =
            self.drops.pop_if(|(highest_us, _)| *highest_us <= us.saturating_add(JITTER_US))
        {
            self.us = before_us;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60_000_000;
    const HOUR: i64 = 60;
    const DAY: i64 = 24 * HOUR;
    const T: i64 = WRITTEN_US + 2_000 * DAY * MINUTE_US;

    /// Minutes behind [`T`], and the action of an entry then. When it began, in minutes.
    fn began(minutes: impl IntoIterator<Item = (i64, &'static str)>) -> i64 {
        let mut known: Option<Began> = None;
        let mut from_us = 0;
        for (minute, action) in minutes {
            let us = T + minute * MINUTE_US;
            let known = known.get_or_insert_with(|| Began::at(us));
            if action == "heartbeat" {
                known.beats(from_us, us);
            }
            known.take(action, us);
            from_us = us;
        }
        (known.unwrap().us() - T) / MINUTE_US
    }

    fn beats(minutes: std::ops::Range<i64>) -> impl Iterator<Item = (i64, &'static str)> {
        minutes.map(|minute| (minute, "heartbeat"))
    }

    #[test]
    fn a_ledger_whose_clock_was_hours_behind_began_when_it_was_set_right_and_only_at_once() {
        let first = [(-5 * HOUR, "key-created"), (-5 * HOUR, "start")];
        assert_eq!(began(first.into_iter().chain(beats(0..90))), 0);
        assert_eq!(
            began(first.into_iter().chain(beats(-290..-270)).chain(beats(30..90))),
            1,
            "as long before as it ran"
        );
        // The collector was stopped for hours: nobody set anything.
        assert_eq!(began(first.into_iter().chain([(0, "start")]).chain(beats(1..90))), -5 * HOUR);
        assert_eq!(began(first.into_iter().chain([(-4 * HOUR, "start")]).chain(beats(0..90))), -5 * HOUR);
        // Nothing was written for hours; and long after it began.
        assert_eq!(began([(0, "start"), (0, "registration"), (5 * HOUR, "event-range")]), 0);
        assert_eq!(began([(0, "start")].into_iter().chain(beats(0..DAY)).chain(beats(9 * DAY..10 * DAY))), 0);
    }

    #[test]
    fn a_ledger_whose_clock_was_ahead_began_by_what_it_shows_when_it_is_set_back() {
        let year = 365 * DAY;
        assert_eq!(began([(5 * HOUR, "start"), (1, "heartbeat")].into_iter().chain(beats(2..90))), 1);
        // It ran for a day before that.
        let ahead = [(year, "start")].into_iter().chain(beats(year..year + DAY));
        assert_eq!(began(ahead.chain(beats(DAY..2 * DAY))), 1);
        // A jump that is undone begins nothing.
        let jump = [(0, "start"), (1, "heartbeat"), (year, "heartbeat"), (year + 1, "heartbeat"), (2, "heartbeat")];
        assert_eq!(began(jump.into_iter().chain(beats(3..90))), 0);
    }

    #[test]
    fn a_step_back_that_is_made_good_was_a_mistake_and_time_alone_makes_none_good() {
        let run = || [(0, "start")].into_iter().chain(beats(0..2 * DAY));
        let year = 365 * DAY;
        let back = || run().chain(beats(-year..-year + 60));
        assert!(began(back()) < -year / 2);
        assert_eq!(began(back().chain(beats(2 * DAY..3 * DAY))), 0);
        // A clock before 2020 is wrong, and says nothing.
        assert_eq!(began(run().chain(beats(-2_500 * DAY..-2_500 * DAY + 60))), 0);
        let ahead = [(DAY, "start"), (DAY + 1, "heartbeat"), (0, "heartbeat")];
        assert_eq!(began(ahead.into_iter().chain(beats(1..3 * DAY)).chain([(5 * DAY, "heartbeat")])), -1);
    }

    #[test]
    fn a_clock_of_1970_began_when_it_was_told_the_time() {
        let mut known = Began::at(0);
        known.take("start", 0);
        known.take("heartbeat", 60_000_000);
        known.take("heartbeat", T);
        known.take("heartbeat", T + MINUTE_US);
        assert_eq!(known.us(), T);
    }
}
