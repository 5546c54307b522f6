//! When to try again: 100 ms to 30 s with full jitter, and a breaker that opens after five failures.

use std::time::Duration;

/// Ceiling of the first wait.
const FIRST: Duration = Duration::from_millis(100);
/// Ceiling of every wait, and how long the breaker stays open.
const LONGEST: Duration = Duration::from_secs(30);
/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// Good probes that close it again.
const PROBES: u32 = 3;

/// The state of the retries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    probes_missing: u32,
}

impl Backoff {
    /// A connection could not be made, or ended before it was proven. `random` spreads the clients: a broker that comes back
    /// must not meet all of them in the same instant.
    pub(super) fn failed(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.probes_missing > 0 || self.failures >= FAILURES {
            self.probes_missing = PROBES;
            return LONGEST;
        }
        let ceiling = FIRST.saturating_mul(1 << self.failures).min(LONGEST);
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random % micros)
    }

    /// The peer answered a ping; true when another answer is needed to close the breaker.
    pub(super) fn proven(&mut self) -> bool {
        self.probes_missing = self.probes_missing.saturating_sub(1);
        if self.probes_missing == 0 {
            self.failures = 0;
        }
        self.probes_missing > 0
    }

    /// Another broker has taken the place: the failures of the old one say nothing about it.
    pub(super) fn renew(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_full_jitter_until_the_breaker_opens() {
        let mut backoff = Backoff::default();
        for ceiling_ms in [200, 400, 800, 1_600] {
            let ceiling = Duration::from_millis(ceiling_ms);
            let mut twin = Backoff { ..backoff };
            assert_eq!(twin.failed(0), Duration::ZERO, "the whole range is used");
            assert_eq!(
                backoff.failed(u64::try_from(ceiling.as_micros()).unwrap() - 1).as_micros(),
                ceiling.as_micros() - 1
            );
        }
        assert_eq!(backoff.failed(1), LONGEST, "the fifth failure opens the breaker");
    }

    #[test]
    fn an_open_breaker_needs_three_good_probes_and_one_failure_opens_it_again() {
        let mut backoff = Backoff::default();
        assert_eq!((0..5).map(|_| backoff.failed(1)).last(), Some(LONGEST));
        assert!(backoff.proven());
        assert_eq!(backoff.failed(1), LONGEST);
        assert!(backoff.proven() && backoff.proven() && !backoff.proven());
        assert!(backoff.failed(1) < LONGEST, "closed: waits are short again");
    }
}
