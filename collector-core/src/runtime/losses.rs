//! Tells the ledger what the write-ahead log lost: why, how much, and where it stood.

use std::sync::Arc;

use daemoneye_lib::proto::{CoverageGap, Sequence};
use serde_json::json;

use super::shared::Shared;
use crate::ledger::Draft;

/// Entries that are written together; the rest is told with the next range.
const AT_ONCE: usize = 16;

impl Shared {
    /// Before the ranges that cover the records which tell of it: after a crash, what those tell is told again. What the ledger cannot
    /// take now is kept.
    pub(super) async fn tell_losses(&self) {
        let mut untold = self.untold.lock().await;
        let wal = Arc::clone(&self.wal);
        for gap in tokio::task::spawn_blocking(move || wal.take_losses()).await.into_iter().flatten() {
            untold.add(gap);
        }
        let drafts: Vec<Draft> = untold.first(AT_ONCE).iter().map(|gap| self.loss(gap)).collect();
        let count = drafts.len();
        if count == 0 {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || ledger.append_batch(&drafts)).await {
            Ok(Ok(_)) => untold.remove_first(count),
            Ok(Err(error)) => self.failed(error, "coverage-gap"),
            Err(_) => {}
        }
    }

    fn loss(&self, gap: &CoverageGap) -> Draft {
        let place = |at: &Option<Sequence>| at.map(|at| at.to_string());
        let payload = json!({
            "collector": self.id, "reason": gap.reason, "events": gap.count, "first": place(&gap.first), "last": place(&gap.last),
        });
        Draft::now(&self.id, "coverage-gap", payload.to_string().into_bytes())
    }
}
