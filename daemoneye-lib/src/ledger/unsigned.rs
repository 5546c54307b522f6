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
/// Intervals between entries of the collector's own: to those heartbeats, and to the start behind a crash.
const PAUSES: u64 = HEARTBEATS + 1;

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
    /// How long its own entries lie apart, as their times say, ms.
    paused_ms: u64,
    /// Of its last entry, also of a signed one.
    last_own_ms: Option<i64>,
}

/// A host that slept, whose clock was set ahead or that was off has one heartbeat or one pause over all of that time.
fn once(ms: u64) -> u64 {
    ms.min(interval_ms())
}

fn interval_ms() -> u64 {
    u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX)
}

impl UnsignedEnd {
    /// Of a ledger without entries.
    pub const NONE: Self =
        Self { has_key: false, has_checkpoint: false, entries: 0, own: 0, ran_ms: 0, paused_ms: 0, last_own_ms: None };

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
        let before = self.last_own_ms.replace(entry.timestamp_ms).unwrap_or(entry.timestamp_ms);
        let paused = u64::try_from(entry.timestamp_ms.saturating_sub(before)).unwrap_or_default();
        self.paused_ms = self.paused_ms.saturating_add(once(paused));
        if let Some(beat) = HeartbeatEntry::of(&entry.actor, &entry.action, payload) {
            // How often it was to come is not asked of it: it may be forged like the rest.
            self.ran_ms = self.ran_ms.saturating_add(once(beat.length_ms()));
        }
    }

    /// A checkpoint is over all entries so far.
    pub const fn sign(&mut self) {
        *self = Self { has_key: self.has_key, has_checkpoint: true, last_own_ms: self.last_own_ms, ..Self::NONE };
    }

    /// Whether it is longer than what a collector leaves that signs.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.ran_long() || self.paused_ms > PAUSES.saturating_mul(interval_ms())
    }

    /// The same, but for pauses: a collector that is started again and again and finds no room for a checkpoint makes them.
    #[must_use]
    pub fn ran_long(&self) -> bool {
        self.own > OWN_ENTRIES || self.entries > ALL_ENTRIES || self.ran_ms > HEARTBEATS.saturating_mul(interval_ms())
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
        take_at(end, 0, actor, action, payload);
    }

    fn take_at(end: &mut UnsignedEnd, at_ms: i64, actor: &str, action: &str, payload: &str) {
        let entry = AuditEntry::link(0, GENESIS, at_ms, actor, action, payload.as_bytes());
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
            "cycles": 0, "entities": 0, "last": null, "every_ms": 1
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
    fn entries_without_heartbeats_lie_no_four_minutes_apart() {
        let mut end = begun();
        for minutes in 1..=3 {
            take_at(&mut end, minutes * 60_000, "procmond", "event-range", "{}");
            take_at(&mut end, minutes * 60_000 + 30_000, "agent", "alert", "{}");
        }
        assert!(!end.lacks_checkpoint());
        take_at(&mut end, 0, "procmond", "event-range", "{}");
        assert!(!end.lacks_checkpoint(), "the clock was set back");
        take_at(&mut end, 9 * 3_600_000, "procmond", "start", "{}");
        assert!(end.lacks_checkpoint());
        end.sign();
        for hours in [20, 40, 60] {
            take_at(&mut end, hours * 3_600_000, "procmond", "event-range", "{}");
        }
        assert!(!end.lacks_checkpoint(), "crashed, and off for long");
        take_at(&mut end, 80 * 3_600_000, "procmond", "event-range", "{}");
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
