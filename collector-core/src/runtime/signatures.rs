//! Signs the ledger while it grows, and says each minute what the interval held, so that silence can be shown as well.
//!
//! A checkpoint is on the disk before anybody is told of it, and each one goes to the log, which the system keeps and forwards: one
//! that has left the host is what a local root cannot take back.

use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::telemetry::PUBLISHED;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::ledger::SigningError;
use crate::wal::now_us;

/// Time between two heartbeat entries, each of which is signed: half a million entries a year.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The counters at the end of an interval.
struct Counted {
    at_ms: i64,
    events: u64,
    lost: u64,
    errors: u64,
    cycles: u64,
}

impl Shared {
    async fn count(&self) -> (Counted, u64) {
        let source = self.source_health().await;
        let wal = self.wal.stats();
        let counted = Counted {
            at_ms: now_us() / 1000,
            events: wal.appended,
            lost: wal.lost.saturating_add(source.lost),
            errors: source.errors,
            cycles: source.cycles,
        };
        (counted, source.entities)
    }

    /// What happened since `before`, as an entry.
    async fn note_interval(&self, before: &mut Counted) {
        let (now, entities) = self.count().await;
        let state = self.state.borrow().word();
        let payload = json!({
            "collector": self.id,
            "from_ms": before.at_ms,
            "to_ms": now.at_ms,
            "state": state,
            "events": now.events.saturating_sub(before.events),
            "lost": now.lost.saturating_sub(before.lost),
            "errors": now.errors.saturating_sub(before.errors),
            "cycles": now.cycles.saturating_sub(before.cycles),
            "entities": entities,
            "last": self.wal.progress().borrow().written.map(|last| last.to_string()),
        });
        *before = now;
        self.note("heartbeat", payload).await;
    }

    /// Signs what is new and tells it.
    pub(super) async fn sign_now(&self) {
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || ledger.checkpoint()).await {
            Ok(Ok(Some(note))) => self.publish(&note),
            // The entry at the start says why, and health repeats it.
            Ok(Ok(None) | Err(SigningError::Refused(_))) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the ledger was not signed; the next checkpoint makes up for it"),
        }
    }

    /// One line of the log, so that nothing can come between its parts.
    pub(crate) fn publish(&self, note: &str) {
        tracing::info!(target: PUBLISHED, checkpoint = note, "ledger signed");
        self.checkpoint.send_replace(note.to_owned());
    }
}

/// Until `shutdown`: heartbeats, and a checkpoint for each as well as for every thousand entries.
pub(super) async fn keep_signed(shared: Arc<Shared>, shutdown: CancellationToken) {
    shared.sign_now().await;
    let (mut before, _) = shared.count().await;
    let mut next = Instant::now() + HEARTBEAT_INTERVAL;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(next) => {
                next = Instant::now() + HEARTBEAT_INTERVAL;
                shared.note_interval(&mut before).await;
            }
            () = shared.ledger.due() => {}
        }
        shared.sign_now().await;
    }
}
