//! How much the agent may have written into the ledger: its entries, and the orders and new connections that leave one of the collector's.
//!
//! A proof has room for a number of entries, so whoever could have any number written in a moment could make a time that nobody can
//! prove. What is too much is not shed here: it is refused, the agent keeps it and asks again, and what its outbox has no room for is
//! counted there. That something had to wait is counted here and told by an entry of the collector's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use daemoneye_lib::ledger::proof::{ORDERS_AT_ONCE, ORDERS_PER_S};
use tokio::time::Instant;

/// So many at once, and so many each second from then on.
pub(crate) struct Allowance {
    at_once: u64,
    per_s: u64,
    left: Mutex<Left>,
    /// Times that something had to wait.
    waited: AtomicU64,
    /// Of these the ledger has heard.
    told: AtomicU64,
}

struct Left {
    count: u64,
    /// Up to here time has been counted.
    at: Instant,
}

impl Allowance {
    pub(crate) fn new(at_once: u64, per_s: u64) -> Self {
        let left = Mutex::new(Left { count: at_once, at: Instant::now() });
        Self { at_once, per_s, left, waited: AtomicU64::new(0), told: AtomicU64::new(0) }
    }

    pub(crate) fn of_orders() -> Self {
        Self::new(ORDERS_AT_ONCE, ORDERS_PER_S)
    }

    /// How many of these, in order, there is room for now; the rest has to wait.
    pub(crate) fn take(&self, costs: impl IntoIterator<Item = u64>) -> usize {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.grow(self.at_once, self.per_s, Instant::now());
        let mut taken = 0;
        for cost in costs {
            // What costs more than there ever is would wait for ever.
            let Some(rest) = left.count.checked_sub(cost.min(self.at_once)) else {
                self.waited.fetch_add(1, Ordering::Relaxed);
                break;
            };
            left.count = rest;
            taken += 1;
        }
        taken
    }

    /// Returns when there is room for one, which is taken.
    pub(crate) async fn wait(&self) {
        while self.take([1]) == 0 {
            tokio::time::sleep(Duration::from_millis(1_000 / self.per_s.max(1))).await;
        }
    }

    /// Times that something had to wait.
    pub(crate) fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Those of which the ledger has not heard; it has now.
    pub(crate) fn news(&self) -> u64 {
        let waited = self.waited();
        waited.saturating_sub(self.told.swap(waited, Ordering::Relaxed))
    }
}

impl Left {
    fn grow(&mut self, at_once: u64, per_s: u64, now: Instant) {
        let passed_ms = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let more = passed_ms.saturating_mul(per_s) / 1_000;
        self.count = self.count.saturating_add(more).min(at_once);
        // The rest of a millisecond, or of an entry, counts the next time.
        let counted = Duration::from_millis(more.saturating_mul(1_000).checked_div(per_s).unwrap_or(passed_ms));
        self.at = self.at.checked_add(counted).unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_so_much_at_once_and_so_much_each_second_and_what_has_to_wait_is_counted() {
        let allowance = Allowance::new(10, 4);
        assert_eq!(allowance.take([3, 3, 3, 3, 1]), 3, "in order: the last one waits for the one before");
        assert_eq!((allowance.take([1]), allowance.take([1])), (1, 0));
        assert_eq!((allowance.waited(), allowance.news(), allowance.news()), (2, 2, 0));
        tokio::time::advance(Duration::from_millis(249)).await;
        assert_eq!(allowance.take([1]), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(allowance.take([1, 1]), 1);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(allowance.take([1; 11]), 10, "time that passed gives no more than there is at once");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((allowance.take([70]), allowance.news()), (0, 4));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(allowance.take([70]), 1, "what costs more than there is waits for all of it");
        allowance.wait().await;
        assert_eq!(allowance.take([1]), 0, "it waited for one, and took it");
    }
}
