//! Peers that were turned away, on either socket: said and audited, but no oftener than once a second and with a count, so
//! that nobody can fill a disk by knocking.

use std::sync::{Arc, PoisonError};

use daemoneye_eventbus::Peer;
use serde_json::json;

use super::Worker;
use crate::clock::now_ms;
use crate::platform;

/// Milliseconds between two reports.
const REPORT_EVERY_MS: i64 = 1000;

impl Worker {
    /// Notes that a peer was turned away with this message. Must be called inside the runtime.
    pub(crate) fn refused(self: &Arc<Self>, peer: &Peer, message: &str) {
        let due = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count(now_ms());
        let Some(count) = due else { return };
        tracing::warn!(uid = peer.uid, count, "refused: {message}");
        let who = json!({ "user": platform::user_name(peer.uid), "uid": peer.uid, "pid": peer.pid, "count": count,
            "message": message });
        let worker = Arc::clone(self);
        tokio::spawn(async move { worker.audit("agent".to_owned(), "peer-refused", who).await });
    }
}

/// How many peers were refused since it was said last.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: u64,
    said_ms: i64,
}

impl Refusals {
    /// The number to report now, if it is time.
    pub(super) fn count(&mut self, now_ms: i64) -> Option<u64> {
        self.waiting += 1;
        if now_ms.saturating_sub(self.said_ms) < REPORT_EVERY_MS {
            return None;
        }
        self.said_ms = now_ms;
        Some(std::mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_refusals_in_a_second_are_one_entry_that_counts_them() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.count(10_000), Some(1));
        for _ in 0..999 {
            assert_eq!(refusals.count(10_500), None);
        }
        assert_eq!(refusals.count(11_001), Some(1000));
    }
}
