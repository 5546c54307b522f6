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
        let guard = runtime.enter();
        let paid_at = Instant::now();
        drop(guard);
        Ok(Self { runtime, bytes_per_s, paid_at, urgent, stop })
    }

    /// Waits until `bytes` more are paid for; at once when the merge is to end.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Stopped> {
        if self.bytes_per_s > 0 && self.urgent.load(Ordering::Relaxed) == 0 {
            let us = bytes.saturating_mul(1_000_000).checked_div(self.bytes_per_s).unwrap_or(0);
            self.paid_at = self.paid_at.max(Instant::now()) + Duration::from_micros(us);
            let (stop, paid_at) = (self.stop, self.paid_at);
            // Elapsing is what it is for.
            drop(self.runtime.block_on(async move { timeout_at(paid_at, stop.cancelled()).await }));
        }
        if self.stop.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }
}
