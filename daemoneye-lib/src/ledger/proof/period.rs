//! All entries of a time: from before it to behind it, without a hole.
//!
//! Times are those of the host's clock as the collector had it: its entries are written when it acts, those of others may have waited,
//! so it is their place between the collector's that counts.

use serde::{Deserialize, Serialize};

use super::super::heartbeat::{HEARTBEAT, HeartbeatEntry};
use super::super::{LedgerFiles, is_collector};
use super::{EntryProof, Gap};
use crate::segment::SegmentError;

/// Entries of one file, some 30 MiB: 45 days of silence, or 18 hours with an event range each second.
pub const PERIOD_ENTRIES: usize = 65_536;

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
        "there are more than {PERIOD_ENTRIES} entries in that time; the {PERIOD_ENTRIES}th is of {last_ms} ms since 1970: \
         prove it in parts"
    )]
    LimitEntries {
        /// Time of the last one that fits.
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
    /// The entries of the period: from the collector's last one before it to the one that tells of its end, or to the last one of `size`.
    ///
    /// # Errors
    /// [`PeriodError`].
    pub fn entries(self, files: &LedgerFiles, size: u64) -> Result<Vec<EntryProof>, PeriodError> {
        let (mut taken, mut begun): (Vec<EntryProof>, _) = (Vec::new(), false);
        for record in files.since(self.from_ms)? {
            let record = record?;
            let sequence = record.entry.sequence;
            if sequence >= size {
                break;
            }
            let entry = EntryProof::linked(&record).ok_or(PeriodError::CorruptEntry(sequence))?;
            if entry.is_collectors() {
                begun |= entry.timestamp_ms > self.from_ms;
                if !begun {
                    taken.clear();
                }
            }
            if let Some(last) = taken.last() {
                if taken.len() == PERIOD_ENTRIES {
                    return Err(PeriodError::LimitEntries { last_ms: last.timestamp_ms });
                }
                if !last.is_before(&entry) {
                    return Err(PeriodError::CorruptEntry(last.sequence.saturating_add(1)));
                }
            }
            let ends = self.is_told_by(&entry);
            taken.push(entry);
            if ends {
                break;
            }
        }
        if taken.is_empty() { Err(PeriodError::NoEntries) } else { Ok(taken) }
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
        let beat =
            if self.action == HEARTBEAT { HeartbeatEntry::read(self.payload.as_bytes())? } else { return None };
        (beat.collector == self.actor).then_some(beat)
    }
}
