//! When a program that ended may start again: exponential backoff with full jitter, and a limit after which the agent gives
//! up loudly instead of burning the machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// First ceiling of the wait: long enough that a program which dies at once does not spin.
const FIRST: Duration = Duration::from_millis(100);
/// Highest ceiling: an operator who repairs the cause waits no longer than this.
const LAST: Duration = Duration::from_secs(30);
/// Restarts are counted inside this window.
const WINDOW: Duration = Duration::from_secs(600);

/// The restarts of one program.
#[derive(Debug)]
pub(crate) struct Restarts {
    limit: usize,
    recent: VecDeque<Instant>,
    total: u32,
}

impl Restarts {
    /// At most `limit` restarts in ten minutes.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, recent: VecDeque::new(), total: 0 }
    }

    /// The wait before the next start; `None` when the limit is reached.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        while self.recent.front().is_some_and(|first| now.duration_since(*first) > WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.limit {
            return None;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).min(16);
        self.recent.push_back(now);
        self.total = self.total.saturating_add(1);
        Some(crate::jitter::full(FIRST.saturating_mul(1 << doublings).min(LAST)))
    }

    /// Restarts since this agent started.
    pub(crate) const fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_only_the_last_ten_minutes() {
        let mut restarts = Restarts::new(2);
        let start = Instant::now();
        assert!(restarts.next(start).is_some());
        assert!(restarts.next(start + Duration::from_secs(1)).is_some());
        assert!(restarts.next(start + Duration::from_secs(2)).is_none());
        assert!(restarts.next(start + Duration::from_secs(602)).is_some());
        assert_eq!(restarts.total(), 3);
    }

    #[test]
    fn no_wait_exceeds_its_ceiling() {
        let mut restarts = Restarts::new(30);
        let start = Instant::now();
        for doublings in 0..30 {
            let wait = restarts.next(start).unwrap();
            assert!(wait <= FIRST.saturating_mul(1 << doublings.min(16)).min(LAST), "{doublings}: {wait:?}");
        }
    }
}
