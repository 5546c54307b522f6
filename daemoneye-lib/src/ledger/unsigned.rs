//! What stands behind a ledger's last checkpoint: no signature is over it, so whoever can write the files can replace it without a key.
//!
//! A collector signs when a thousand entries are new, behind each heartbeat, and at each start and stop, so a crash leaves little there. More was
//! not signed because it could not be (the seed is gone, the disk is full, the history was changed), or because later checkpoints were
//! taken away. Nothing in an unsigned end can vouch for it: what an entry there says of why it is unsigned may be forged like the rest.

use super::heartbeat::{HEARTBEAT_INTERVAL, HeartbeatEntry};
use super::keys::CREATED;
use super::proof::AGENT_AT_ONCE;
use super::{AuditEntry, is_collector};

/// New entries after which a checkpoint is due.
pub const CHECKPOINT_ENTRIES: u64 = 1_000;
/// Of the collector's own: as many again come while a checkpoint is made.
const OWN_ENTRIES: u64 = 2 * CHECKPOINT_ENTRIES;
/// Of all: the agent's may come in one burst.
const ALL_ENTRIES: u64 = OWN_ENTRIES + AGENT_AT_ONCE;
/// Heartbeats that may have no checkpoint behind them: the one that a crash left unsigned, and one for which signing failed.
const HEARTBEATS: u64 = 2;

/// The entries behind the last checkpoint; where there is none, those from the first one on that names a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsignedEnd {
    /// Whether the ledger names a key at all.
    pub has_key: bool,
    /// Whether there is a checkpoint.
    pub has_checkpoint: bool,
    entries: u64,
    own: u64,
    /// How long the collector ran, as its heartbeats say, ms.
    ran_ms: u64,
}

impl UnsignedEnd {
    /// Of a ledger without entries.
    pub const NONE: Self = Self { has_key: false, has_checkpoint: false, entries: 0, own: 0, ran_ms: 0 };

    /// Takes the next entry.
    pub fn take(&mut self, entry: &AuditEntry, payload: &[u8]) {
        if entry.action == CREATED && !self.has_key {
            // What stands before is of a build that signed nothing.
            *self = Self { has_key: true, ..Self::NONE };
        }
        self.entries = self.entries.saturating_add(1);
        if !is_collector(&entry.actor) {
            return;
        }
        self.own = self.own.saturating_add(1);
        if let Some(beat) = HeartbeatEntry::of(&entry.actor, &entry.action, payload) {
            // A host that slept, or whose clock was set ahead, has one heartbeat over all of that time.
            self.ran_ms = self.ran_ms.saturating_add(beat.length_ms().min(beat.every_ms()));
        }
    }

    /// A checkpoint is over all entries so far.
    pub const fn sign(&mut self) {
        *self = Self { has_key: self.has_key, has_checkpoint: true, ..Self::NONE };
    }

    /// Whether it is longer than what a collector leaves that signs.
    #[must_use]
    pub fn is_long(&self) -> bool {
        let interval_ms = u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        self.own > OWN_ENTRIES || self.entries > ALL_ENTRIES || self.ran_ms > HEARTBEATS.saturating_mul(interval_ms)
    }

    /// Whether a signature is missing that has to be there.
    #[must_use]
    pub fn lacks_checkpoint(&self) -> bool {
        self.has_key && (!self.has_checkpoint || self.is_long())
    }
}

#[cfg(test)]
mod tests {
    use super::super::GENESIS;
    use super::*;

    fn take(end: &mut UnsignedEnd, actor: &str, action: &str, payload: &str) {
        let entry = AuditEntry::link(0, GENESIS, 0, actor, action, payload.as_bytes());
        end.take(&entry, payload.as_bytes());
    }

    fn begun() -> UnsignedEnd {
        let mut end = UnsignedEnd::NONE;
        take(&mut end, "procmond", CREATED, "{}");
        end.sign();
        end
    }

    fn beat(end: &mut UnsignedEnd, length_ms: i64) {
        let json = serde_json::json!({
            "collector": "procmond", "from_ms": 0, "to_ms": length_ms, "state": "running", "events": 0, "lost": 0, "errors": 0,
            "cycles": 0, "entities": 0, "last": null, "every_ms": 60_000
        });
        take(end, "procmond", "heartbeat", &json.to_string());
    }

    #[test]
    fn what_a_collector_leaves_that_signs_is_not_long() {
        let mut end = begun();
        assert!(!end.lacks_checkpoint());
        for _ in 0..2_000 {
            take(&mut end, "procmond", "start", "{}");
        }
        for _ in 0..8_192 {
            take(&mut end, "agent", "alert", "{}");
        }
        assert!(!end.lacks_checkpoint());
        take(&mut end, "operator:alice", "alert-status", "{}");
        assert!(end.lacks_checkpoint(), "more than a burst of the agent's");
        let mut end = begun();
        for _ in 0..2_001 {
            take(&mut end, "procmond", "start", "{}");
        }
        assert!(end.lacks_checkpoint(), "more of the collector's own");
        end.sign();
        assert!(!end.lacks_checkpoint());
    }

    #[test]
    fn a_host_that_slept_or_set_its_clock_is_not_late_and_three_minutes_are() {
        let mut end = begun();
        beat(&mut end, 9 * 3_600_000);
        beat(&mut end, -3_600_000);
        for _ in 0..6 {
            beat(&mut end, 10_000);
        }
        assert!(!end.lacks_checkpoint());
        beat(&mut end, 60_000);
        assert!(end.lacks_checkpoint());
    }

    #[test]
    fn a_ledger_with_a_key_has_a_checkpoint_and_one_without_a_key_is_not_judged() {
        let mut end = UnsignedEnd::NONE;
        for _ in 0..20_000 {
            take(&mut end, "procmond", "start", "{}");
        }
        assert!(!end.has_key && !end.lacks_checkpoint());
        take(&mut end, "procmond", CREATED, "{}");
        assert!(end.has_key && end.lacks_checkpoint() && !end.is_long());
    }
}
