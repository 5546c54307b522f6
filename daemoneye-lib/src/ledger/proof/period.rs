//! All entries of a time: from before it to behind it, without a hole.
//!
//! Times are those of the host's clock as the collector had it: its entries are written when it acts, those of others may have waited,
//! so it is their place between the collector's that counts. Where the clock was set back, all passes of the time are in it, as far as
//! they fit; and the ledger's newest heartbeat is, which says whether there was another pass.

use serde::{Deserialize, Serialize};

use super::super::clock::LedgerClock;
use super::super::entries::told_clock;
use super::super::heartbeat::{HEARTBEAT_INTERVAL, HeartbeatEntry};
use super::super::{LedgerFiles, LedgerRecord, is_collector};
use super::{EntryProof, Gap};
use crate::segment::SegmentError;

/// Entries of one file, some 30 MiB: 45 days of silence, or 18 hours with an event range each second.
pub const PERIOD_ENTRIES: usize = 65_536;
/// Entries from the newest heartbeat to the checkpoint, which is made with each heartbeat and after every thousand entries: all that may be
/// written in two heartbeats' time. Of a ledger in which there are more, the file has none of them.
const NEWEST_ENTRIES: u64 = 24_576;
/// Entries of the agent that a collector takes at once, and each second from then on; one of more than [`AGENT_ENTRY_BYTES`] counts as
/// several. The store lets through as many alerts in a minute. So a time that a proof has room for is always there: a minute and a
/// heartbeat's time on either side.
pub const AGENT_AT_ONCE: u64 = 8_192;
/// See [`AGENT_AT_ONCE`].
pub const AGENT_PER_S: u64 = 100;
/// Bytes of payload of an entry that counts as one: most alerts.
pub const AGENT_ENTRY_BYTES: u64 = 1_024;
/// Longest payload of an entry of the agent's, in bytes: below the least size of a segment, and twice what any of its entries has.
pub const AGENT_PAYLOAD_BYTES: u64 = 48 * 1_024;

/// Orders of the agent, and its connections, that a collector takes at once and each second from then on: far more than people and rules
/// give, and far fewer than entries. Each leaves at most two entries of the collector's.
pub const ORDERS_AT_ONCE: u64 = 256;
/// See [`ORDERS_AT_ONCE`].
pub const ORDERS_PER_S: u64 = 4;

/// The most entries that come in so many seconds: the agent's, those that its orders leave, and some two a second of the collector's own.
pub(super) const fn entries_in(seconds: u64) -> u64 {
    AGENT_AT_ONCE + 2 * ORDERS_AT_ONCE + seconds * (AGENT_PER_S + 2 * ORDERS_PER_S + 2)
}

const _: () = {
    // A time of a minute, as much on either side, and up to a heartbeat and a late one more.
    assert!(entries_in(360) <= PERIOD_ENTRIES as u64);
    assert!(entries_in(120) <= NEWEST_ENTRIES);
};

/// A time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// ms since the Unix epoch.
    pub from_ms: i64,
    /// ms since the Unix epoch.
    pub to_ms: i64,
}

/// Why the entries of a period cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PeriodError {
    /// It is damaged, or no text.
    #[error("entry {0} cannot be read; run: daemoneye-cli audit verify")]
    CorruptEntry(u64),
    /// More than [`PERIOD_ENTRIES`].
    #[error(
        "there are more than {PERIOD_ENTRIES} entries in and around that time; those up to {last_ms} ms since 1970 fit: \
         prove it in parts"
    )]
    LimitEntries {
        /// A period up to here fits.
        last_ms: i64,
    },
    /// No entry is below the checkpoint.
    #[error("no entry below the newest checkpoint tells of that time")]
    NoEntries,
    /// The files cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl Period {
    /// The entries of the period and a heartbeat's time around it: from the collector's last one before it to the one that tells of its
    /// end, or to the last one of `size`; then those from the newest heartbeat on.
    ///
    /// # Errors
    /// [`PeriodError`].
    pub fn entries(self, files: &LedgerFiles, size: u64) -> Result<Vec<EntryProof>, PeriodError> {
        let around = self.and_around(u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX));
        let newest = files.newest(|record| told_clock(record).filter(|_| record.entry.sequence < size))?;
        let twice = newest.as_ref().map_or_else(Vec::new, |(_, clock)| around.twice(clock));
        let (mut taken, mut begun, mut told): (Vec<EntryProof>, _, _) = (Vec::new(), false, None);
        for record in files.since(around.from_ms)? {
            let record = record?;
            if record.entry.sequence >= size {
                break;
            }
            let entry = linked(&record)?;
            if entry.is_collectors() {
                begun |= entry.timestamp_ms > around.from_ms;
                if !begun {
                    taken.clear();
                }
            }
            if let Some(last) = taken.last() {
                if taken.len() == PERIOD_ENTRIES {
                    // Of a pass that is too far away the newest heartbeat tells.
                    let last_ms = last.timestamp_ms.saturating_sub(around.to_ms.saturating_sub(self.to_ms));
                    taken.truncate(told.ok_or(PeriodError::LimitEntries { last_ms })?);
                    break;
                }
                if !last.is_before(&entry) {
                    return Err(PeriodError::CorruptEntry(last.sequence.saturating_add(1)));
                }
            }
            let ends = around.is_told_by(&entry);
            let has_all =
                twice.is_empty() || told_clock(&record).is_some_and(|(_, clock)| around.twice(&clock) == twice);
            taken.push(entry);
            if ends {
                told.get_or_insert(taken.len());
                if has_all {
                    break;
                }
            }
        }
        let last = taken.last().ok_or(PeriodError::NoEntries)?.sequence.saturating_add(1);
        let first = newest.map_or(size, |(sequence, _)| sequence.max(last));
        if size.saturating_sub(first) <= NEWEST_ENTRIES {
            for record in
                files.from(first)?.take_while(|found| found.as_ref().is_ok_and(|found| found.entry.sequence < size))
            {
                taken.push(linked(&record?)?);
            }
        }
        Ok(taken)
    }

    /// And so many ms before and behind it.
    pub(super) fn and_around(self, ms: u64) -> Self {
        let (Self { from_ms, to_ms }, ms) = (self, i64::try_from(ms).unwrap_or(i64::MAX));
        Self { from_ms: from_ms.saturating_sub(ms), to_ms: to_ms.saturating_add(ms) }
    }

    fn twice(self, clock: &LedgerClock) -> Vec<(i64, i64)> {
        clock.twice_in(self.from_ms, self.to_ms).collect()
    }

    /// Whether no later entry says more of the period: the heartbeat over its end, or a start behind it.
    pub(super) fn is_told_by(self, entry: &EntryProof) -> bool {
        let behind = entry.is_collectors() && entry.timestamp_ms >= self.to_ms;
        behind && (entry.action == "start" || entry.heartbeat().is_some_and(|beat| beat.to_ms >= self.to_ms))
    }

    pub(super) fn has(self, time_ms: i64) -> bool {
        (self.from_ms..=self.to_ms).contains(&time_ms)
    }

    /// Its part between two times; `None`: there is none.
    pub(super) fn part(self, from_ms: i64, to_ms: i64, why: String) -> Option<Gap> {
        let (from_ms, to_ms) = (from_ms.max(self.from_ms), to_ms.min(self.to_ms));
        (from_ms <= to_ms).then_some(Gap { from_ms, to_ms, why })
    }
}

impl EntryProof {
    pub(super) fn is_collectors(&self) -> bool {
        is_collector(&self.actor)
    }

    pub(super) fn is_before(&self, next: &Self) -> bool {
        self.sequence.checked_add(1) == Some(next.sequence)
    }

    pub(super) fn heartbeat(&self) -> Option<HeartbeatEntry> {
        HeartbeatEntry::of(&self.actor, &self.action, self.payload.as_bytes())
    }
}

/// The entries that follow each other without a hole, and those behind the hole.
pub(super) fn run_and_newest(entries: &[EntryProof]) -> (&[EntryProof], &[EntryProof]) {
    let hole = entries.iter().zip(entries.iter().skip(1)).position(|(one, next)| !one.is_before(next));
    let place = hole.map_or(entries.len(), |place| place.saturating_add(1));
    entries.split_at_checked(place).unwrap_or((entries, &[]))
}

fn linked(record: &LedgerRecord) -> Result<EntryProof, PeriodError> {
    EntryProof::linked(record).ok_or(PeriodError::CorruptEntry(record.entry.sequence))
}
