//! Backpressure: what waits between the WAL and the bus has a bound; near it, the source is asked to look less often.
//!
//! Nothing is shed here. On at 70 %, off below 50 %, so it does not flap; each step makes the interval half as long again.

use std::time::Duration;

/// Share of the buffer at which the interval is stretched, in percent.
const ON_PERCENT: f64 = 70.0;
/// Share below which the interval is what it was asked to be, in percent.
const OFF_PERCENT: f64 = 50.0;
/// A step makes the interval 3/2 as long.
const STEP: (u32, u32) = (3, 2);
/// Longest stretched interval: an hour without a look is as far as a monitor may go.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// What the source has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Look at this interval.
    Stretch(Duration),
    /// Look as often as it was asked for.
    Restore,
}

#[derive(Debug, Default)]
pub(super) struct Pressure {
    stretched: Option<Stretched>,
    /// Times it went on.
    pub(super) count: u64,
}

#[derive(Debug)]
struct Stretched {
    interval: Duration,
    /// When the next step is due, since the start of the clock that the caller uses.
    next_step: Duration,
}

impl Pressure {
    /// `now` is any clock that only goes forward.
    pub(super) fn observe(&mut self, percent: f64, original: Duration, now: Duration) -> Option<Change> {
        match &mut self.stretched {
            None if percent >= ON_PERCENT => {
                self.count += 1;
                Some(self.stretch(original, now))
            }
            Some(stretched) if percent >= ON_PERCENT && now >= stretched.next_step => {
                let interval = stretched.interval;
                (interval < MAX_INTERVAL).then(|| self.stretch(interval, now))
            }
            Some(_) if percent < OFF_PERCENT => {
                self.stretched = None;
                Some(Change::Restore)
            }
            _ => None,
        }
    }

    /// A step takes effect at the source's next look, so the next one is judged after that.
    fn stretch(&mut self, from: Duration, now: Duration) -> Change {
        let interval = (from * STEP.0 / STEP.1).min(MAX_INTERVAL);
        self.stretched = Some(Stretched { interval, next_step: now + interval });
        Change::Stretch(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn it_goes_on_at_seventy_and_off_only_below_fifty() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.observe(69.9, S(10), S(0)), None);
        assert_eq!(pressure.observe(70.0, S(10), S(1)), Some(Change::Stretch(S(15))));
        assert_eq!(pressure.observe(60.0, S(10), S(2)), None, "between the two nothing changes");
        assert_eq!(pressure.observe(49.9, S(10), S(3)), Some(Change::Restore));
        assert_eq!(pressure.observe(60.0, S(10), S(4)), None);
        assert_eq!(pressure.count, 1);
    }

    #[test]
    fn each_step_waits_for_the_one_before_and_ends_at_an_hour() {
        let mut pressure = Pressure::default();
        let mut now = S(0);
        let mut longest = S(0);
        for _ in 0..10_000 {
            if let Some(Change::Stretch(interval)) = pressure.observe(100.0, S(5), now) {
                assert!(interval > longest, "steps only grow");
                longest = interval;
            }
            now += S(10);
        }
        assert_eq!(longest, MAX_INTERVAL);
        assert_eq!(pressure.count, 1, "steps are not new activations");
    }
}
