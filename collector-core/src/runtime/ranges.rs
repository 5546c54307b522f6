//! Covers the stream with ledger entries and lets the WAL go behind them.
//!
//! An event is covered at most one second after it was written, and at most one range is written a second: the first event after a
//! silence is covered at once, what follows gathers until the second is over.

use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::ledger::EventRange;
use daemoneye_lib::proto::Sequence;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::ledger::Draft;
use crate::wal::Wal;

/// Least time between two ranges; also the longest time an event waits for one.
const RANGE_INTERVAL: Duration = Duration::from_secs(1);

/// What is taken from the WAL and not yet in the ledger.
#[derive(Default)]
pub(crate) struct Cover {
    pending: Mutex<Vec<EventRange>>,
    /// What is wrong with the ledger since it was opened.
    pub(crate) damage: Option<String>,
}

impl Cover {
    pub(super) fn new(pending: Vec<EventRange>, damage: Option<String>) -> Self {
        Self { pending: Mutex::new(pending), damage }
    }
}

impl Shared {
    /// Writes what has gathered. Ranges that cannot be written stay pending.
    pub(super) async fn cover_now(&self) {
        let mut pending = self.cover.pending.lock().await;
        pending.extend(self.on_the_log(Wal::take_ranges).await.unwrap_or_default());
        self.tell_losses().await;
        if pending.is_empty() {
            return;
        }
        // An entry for an event that a power failure took would hide that it is missing.
        if let Err(error) = self.wal.synced().await {
            return self.failed(error, "wal");
        }
        let draft = |range: &EventRange| (Draft::now(&self.id, "event-range", range.payload()), range.end());
        let drafts: Vec<(Draft, Sequence)> = pending.iter().map(draft).collect();
        let ledger = Arc::clone(&self.ledger);
        let written = tokio::task::spawn_blocking(move || ledger.append_ranges(&drafts)).await;
        // Some may be chained where one behind them could not be written: a second time they would cover nothing.
        let covered = self.ledger.head().covered;
        pending.retain(|range| Some(range.end()) > covered);
        if let Ok(Err(error)) = written {
            self.failed(error, "event-range");
        }
    }

    /// What may wait for an append, which may wait for the disk; `None` when the program ends.
    async fn on_the_log<T: Send + 'static>(&self, work: impl FnOnce(&Wal) -> T + Send + 'static) -> Option<T> {
        let wal = Arc::clone(&self.wal);
        tokio::task::spawn_blocking(move || work(&wal)).await.ok()
    }

    /// Trims what the agent has committed, the ledger covers and the source's checkpoint holds.
    pub(super) async fn trim_now(&self) {
        let (committed, covered) = (*self.committed.borrow(), self.ledger.head().covered);
        let Some(upto) = committed.min(covered) else { return };
        let Some(upto) = self.on_the_log(move |wal| wal.trimmable(upto)).await.flatten() else { return };
        let last = self.wal.progress().borrow().written;
        let held = match self.source.checkpoint(last).await {
            Ok(Some(held)) => held.min(upto),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the source has no checkpoint; the write-ahead log is not trimmed");
                return;
            }
        };
        // An agent that has less may have come meanwhile.
        let Some(held) = self.committed.borrow().map(|now| now.min(held)) else { return };
        match self.on_the_log(move |wal| wal.trim(held)).await {
            Some(Ok(_)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "the write-ahead log cannot be trimmed"),
        }
    }
}

/// Until `shutdown`: covers and trims.
pub(super) async fn keep_covered(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut progress = shared.wal.progress();
    let mut committed = shared.committed.subscribe();
    let mut last_range = Instant::now().checked_sub(RANGE_INTERVAL).unwrap_or_else(Instant::now);
    loop {
        let covered = shared.ledger.head().covered;
        let uncovered = progress.borrow_and_update().written > covered;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(last_range + RANGE_INTERVAL), if uncovered => {
                last_range = Instant::now();
                shared.cover_now().await;
                shared.trim_now().await;
            }
            changed = progress.changed() => match changed {
                Ok(()) => if let Err(error) = shared.wal.check() {
                    return shared.failed(error, "wal");
                },
                Err(_) => return,
            },
            changed = committed.changed() => match changed {
                Ok(()) => shared.trim_now().await,
                Err(_) => return,
            },
        }
    }
}
