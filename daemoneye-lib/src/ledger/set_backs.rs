//! Where the clock of a ledger's collector was set back.
//!
//! A verification does not judge times, but whoever reads what was said "before" or "after" has to know that the clock went back in
//! between. Only the collector's own entries count: those of others may have waited and say the time at which they were made.

use super::{AuditEntry, is_collector};

/// A step back that is told, in ms: smaller ones are what time servers do all day.
const TOLD_MS: i64 = 1_000;

/// One step back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetBack {
    /// The first entry behind it.
    pub sequence: u64,
    /// What the clock had said, ms since the Unix epoch.
    pub from_ms: i64,
    /// What it says at that entry.
    pub to_ms: i64,
}

impl SetBack {
    const fn by_ms(&self) -> i64 {
        self.from_ms.saturating_sub(self.to_ms)
    }
}

/// All of them in a ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetBacks {
    /// How many.
    pub count: u64,
    /// The first one.
    pub first: Option<SetBack>,
    /// The longest one.
    pub longest: Option<SetBack>,
    last_ms: Option<i64>,
}

impl SetBacks {
    /// None that is known of.
    pub(super) const NONE: Self = Self { count: 0, first: None, longest: None, last_ms: None };

    /// Takes the next entry.
    pub(super) fn take(&mut self, entry: &AuditEntry) {
        if !is_collector(&entry.actor) {
            return;
        }
        let to_ms = entry.timestamp_ms;
        let Some(from_ms) = self.last_ms.replace(to_ms) else { return };
        let step = SetBack { sequence: entry.sequence, from_ms, to_ms };
        if step.by_ms() < TOLD_MS {
            return;
        }
        self.count = self.count.saturating_add(1);
        self.first.get_or_insert(step);
        if self.longest.is_none_or(|longest| longest.by_ms() < step.by_ms()) {
            self.longest = Some(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::GENESIS;

    #[test]
    fn steps_back_of_the_collectors_clock_are_counted_and_the_first_and_the_longest_are_named() {
        let mut found = SetBacks::NONE;
        let said = [
            ("procmond", 10_000),
            ("agent", 2_000),
            ("procmond", 9_500),
            ("procmond", 8_000),
            ("operator:alice", 1_000),
            ("procmond", 60_000),
            ("procmond", 20_000),
            ("procmond", 21_000),
        ];
        for (sequence, (actor, ms)) in said.into_iter().enumerate() {
            found.take(&AuditEntry::link(sequence as u64, GENESIS, ms, actor, "heartbeat", b"{}"));
        }
        assert_eq!(found.count, 2);
        assert_eq!(found.first, Some(SetBack { sequence: 3, from_ms: 9_500, to_ms: 8_000 }));
        assert_eq!(found.longest, Some(SetBack { sequence: 6, from_ms: 60_000, to_ms: 20_000 }));
    }
}
