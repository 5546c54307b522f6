//! How fast a merge may read and write, so that capture, ingest and queries keep the disk.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The merge is to end, now.
#[derive(Debug)]
pub(super) struct Stopped;

/// Paid for each byte, in time.
pub(super) struct Budget<'a> {
    runtime: Runtime,
    bytes_per_s: u64,
    /// When the bytes taken so far are paid for.
    paid_at: Instant,
    /// Above zero while somebody waits for the merge: then it runs as fast as it can.
    urgent: &'a AtomicUsize,
    stop: &'a CancellationToken,
}

impl<'a> Budget<'a> {
    /// A budget of the calling thread; 0: no bound.
    pub(super) fn new(bytes_per_s: u64, urgent: &'a AtomicUsize, stop: &'a CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        Ok(Self::on(runtime, bytes_per_s, urgent, stop))
    }

    fn on(runtime: Runtime, bytes_per_s: u64, urgent: &'a AtomicUsize, stop: &'a CancellationToken) -> Self {
        let paid_at = runtime.block_on(async { Instant::now() });
        Self { runtime, bytes_per_s, paid_at, urgent, stop }
    }

    /// Waits until `bytes` more are paid for; at once when the merge is to end.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Stopped> {
        if self.bytes_per_s > 0 && self.urgent.load(Ordering::Relaxed) == 0 {
            let us = bytes.saturating_mul(1_000_000).checked_div(self.bytes_per_s).unwrap_or(0);
            let (stop, due) = (self.stop, self.paid_at);
            self.paid_at = self.runtime.block_on(async move {
                let paid_at = due.max(Instant::now()) + Duration::from_micros(us);
                // Elapsing is what it is for.
                drop(timeout_at(paid_at, stop.cancelled()).await);
                paid_at
            });
        }
        if self.stop.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn bytes_take_the_time_that_they_are_given_unless_somebody_waits() {
        let (urgent, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let mut budget = Budget::on(paused(), 1_000_000, &urgent, &stop);
        let now = |budget: &Budget<'_>| budget.runtime.block_on(async { Instant::now() });
        let began = now(&budget);
        for _ in 0..10 {
            budget.take(500_000).unwrap();
        }
        let took = now(&budget) - began;
        assert!((5_000..5_020).contains(&took.as_millis()), "{took:?}");
        urgent.store(1, Ordering::Relaxed);
        budget.take(u64::MAX).unwrap();
        urgent.store(0, Ordering::Relaxed);
        budget.bytes_per_s = 0;
        budget.take(u64::MAX).unwrap();
        assert!((now(&budget) - began - took).is_zero());
    }

    #[test]
    fn nobody_waits_for_a_merge_that_is_to_end() {
        let (urgent, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let mut budget = Budget::new(1, &urgent, &stop).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(1_000_000_000).is_err());
            stop.cancel();
            assert!(waiting.join().unwrap());
        });
    }
}
