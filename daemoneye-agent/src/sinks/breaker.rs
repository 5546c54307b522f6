//! The breaker of one sink: after five failures in a row it is left alone for 30 s, so that a dead receiver costs nothing.

use std::time::{Duration, Instant};

/// Failures in a row that open it: fewer would open on a hiccup.
const FAILURES: u32 = 5;
/// How long it stays open.
const OPEN_FOR: Duration = Duration::from_secs(30);

/// Closed until five failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// How long to leave the sink alone; `None` when it may be tried.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.open_until.map(|until| until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// A delivery worked.
    pub(crate) fn success(&mut self) {
        *self = Self::default();
    }

    /// A delivery failed. After the pause one try is enough to open it again.
    pub(crate) fn failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open_until = Some(now + OPEN_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_five_failures_and_one_more_opens_it_again() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..4 {
            breaker.failure(start);
        }
        assert_eq!(breaker.wait(start), None);
        breaker.failure(start);
        assert_eq!(breaker.wait(start), Some(OPEN_FOR));
        let later = start + OPEN_FOR;
        assert_eq!(breaker.wait(later), None);
        breaker.failure(later);
        assert!(breaker.wait(later).is_some());
        breaker.success();
        assert_eq!(breaker.wait(later), None);
    }
}
