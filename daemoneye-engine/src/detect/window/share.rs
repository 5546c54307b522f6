//! How much processor time window rules may take while ingest waits for them: a share of each second, saved up for a moment.
//!
//! A rule whose share is spent is decided later, together with what has come meanwhile; that is counted and told, since it makes
//! what is decided depend on how busy the host was. Replays have no share: nobody waits for them.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of all window rules together: a quarter of a core, so that ingest has the rest of its own.
const ALL: Rate = Rate { one_in: 4, most: Duration::from_millis(250) };
/// Of one rule, so that a heavy one leaves something for the others: a run over its budget every two seconds.
const ONE: Rate = Rate { one_in: 20, most: Duration::from_millis(150) };

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Debug, Clone, Copy)]
struct Rate {
    /// The part of each second that may be spent.
    one_in: u32,
    /// What is saved up at most.
    most: Duration,
}

/// What may still be spent.
#[derive(Debug)]
pub(super) struct Share {
    rate: Rate,
    clock: fn() -> Duration,
    left: Mutex<Left>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    saved: Duration,
    /// Spent beyond what was saved: nobody knows before a run what it takes.
    owed: Duration,
    at: Duration,
}

/// Time that passes on the wall.
pub(in crate::detect) fn passing() -> Duration {
    BEGAN.elapsed()
}

impl Share {
    pub(super) fn of_all(clock: fn() -> Duration) -> Self {
        Self::with(ALL, clock)
    }

    pub(super) fn of_one(clock: fn() -> Duration) -> Self {
        Self::with(ONE, clock)
    }

    fn with(rate: Rate, clock: fn() -> Duration) -> Self {
        let left = Left { saved: rate.most, owed: Duration::ZERO, at: clock() };
        Self { rate, clock, left: Mutex::new(left) }
    }

    /// Whether there is any.
    pub(super) fn is_left(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        let earned = now.saturating_sub(left.at).checked_div(self.rate.one_in).unwrap_or_default();
        let saved = left.saved.saturating_add(earned);
        *left = Left {
            saved: saved.saturating_sub(left.owed).min(self.rate.most),
            owed: left.owed.saturating_sub(saved),
            at: now,
        };
        !left.saved.is_zero()
    }

    pub(super) fn spend(&self, time: Duration) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.owed = left.owed.saturating_add(time.saturating_sub(left.saved));
        left.saved = left.saved.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    #[test]
    fn what_is_spent_comes_back_at_the_rate_and_no_more_than_the_most_is_saved() {
        let pass = |ms: u64| NOW.set(NOW.get() + Duration::from_millis(ms));
        let share = Share::of_one(|| NOW.get());
        pass(3_600_000);
        assert!(share.is_left());
        share.spend(Duration::from_millis(250));
        assert!(!share.is_left(), "100 ms are owed");
        pass(1_999);
        assert!(!share.is_left());
        pass(2);
        assert!(share.is_left());
    }
}
