//! `audit_entries`: the ledger's files as they lie, the newest entries first into a bound.
//!
//! A row is what an entry says, not that it is true: the chain is proved by `daemoneye-cli audit verify`, which reads all of
//! it. Files are read from the newest backwards, and only as far as the bound or the filter on `time` needs.

use super::prune::TimeRange;
use daemoneye_lib::ledger::LedgerHeader;
use daemoneye_lib::model::Degraded;
use daemoneye_lib::segment::{Kind, SegmentError, SegmentName, SegmentReader, list};
use std::collections::VecDeque;
use std::path::Path;

/// Entries of one answer: with usual payloads some 25 MB.
const ENTRIES: usize = 50_000;
/// How often a file is read whose last entry is not whole: its writer is in the middle of it, which one write ends.
const TRIES: usize = 3;
/// Bytes of their payloads.
const PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) header: LedgerHeader,
    pub(super) payload: String,
}

impl Entry {
    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.payload, &self.header.entry.actor, &self.header.entry.action];
        texts.iter().fold(size_of::<Self>(), |sum, text| sum.saturating_add(text.len()))
    }

    pub(super) const fn time_us(&self) -> i64 {
        self.header.entry.timestamp_ms.saturating_mul(1_000)
    }
}

/// The newest entries that may lie in `range`, oldest first, and what is missing from them.
pub(super) fn read(dir: &Path, range: TimeRange) -> (Vec<Entry>, Option<Degraded>) {
    match read_back(dir, range, ENTRIES, PAYLOAD_BYTES) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "the ledger cannot be read");
            (Vec::new(), Some(Degraded::DataUnreadable))
        }
    }
}

fn read_back(
    dir: &Path,
    range: TimeRange,
    entries: usize,
    bytes: usize,
) -> Result<(Vec<Entry>, Option<Degraded>), SegmentError> {
    let (mut found, mut missing) = (VecDeque::new(), None);
    let mut room = Room { entries, bytes };
    for (_, path) in list(dir, &SegmentName::ledger())?.into_iter().rev() {
        let (mut segment, mut whole) = read_segment(&path)?;
        for _ in 1..TRIES {
            if whole {
                break;
            }
            (segment, whole) = read_segment(&path)?;
        }
        if !whole {
            missing = Some(Degraded::DataUnreadable);
        }
        let reaches_back = segment.first().is_some_and(|entry| entry.time_us() < range.from_us);
        for entry in segment.into_iter().rev().filter(|entry| range.overlaps(entry.time_us(), entry.time_us())) {
            if !room.take(&entry) {
                return Ok((found.into(), Some(Degraded::Capped)));
            }
            found.push_front(entry);
        }
        if reaches_back {
            break;
        }
    }
    Ok((found.into(), missing))
}

#[derive(Debug)]
struct Room {
    entries: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, entry: &Entry) -> bool {
        match (self.entries.checked_sub(1), self.bytes.checked_sub(entry.payload.len())) {
            (Some(entries), Some(bytes)) => {
                *self = Self { entries, bytes };
                true
            }
            _ => false,
        }
    }
}

/// The entries of one file, and whether it could be read to its end. A writer may be in the middle of the last one.
fn read_segment(path: &Path) -> Result<(Vec<Entry>, bool), SegmentError> {
    let mut reader = SegmentReader::open(path, Kind::Ledger)?;
    let mut entries = Vec::new();
    loop {
        match reader.step()? {
            Ok(None) => return Ok((entries, true)),
            Ok(Some(record)) => {
                let Ok(header) = record.header() else { return Ok((entries, false)) };
                let payload = String::from_utf8_lossy(&record.payload).into_owned();
                entries.push(Entry { header, payload });
            }
            Err(_) => return Ok((entries, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::ledger::{AuditEntry, GENESIS};
    use daemoneye_lib::segment::{SegmentHeader, encode};
    use std::fs;

    /// A file of `count` entries, one a second from `first` on.
    fn segment(dir: &Path, number: u64, first: u64, count: u64) {
        let header =
            SegmentHeader { kind: Kind::Ledger, previous_crc: 0, epoch: 1, segment: number, first: first + 1 };
        let (mut bytes, mut crc) = (header.encode().to_vec(), 0);
        for sequence in first..first + count {
            let at_ms = i64::try_from(sequence).unwrap() * 1_000;
            let entry = AuditEntry::link(sequence, GENESIS, at_ms, "agent", "alert", b"{}");
            let header = LedgerHeader { entry, outbox_id: 0, covered_epoch: 0, covered_number: 0 };
            crc = encode(&mut bytes, crc, 0, &header, b"{}").unwrap();
        }
        fs::write(dir.join(SegmentName::ledger().file(number)), bytes).unwrap();
    }

    fn numbers(read: &(Vec<Entry>, Option<Degraded>)) -> (Vec<u64>, Option<Degraded>) {
        (read.0.iter().map(|entry| entry.header.entry.sequence).collect(), read.1)
    }

    #[test]
    fn the_newest_entries_are_read_as_far_as_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        segment(dir.path(), 1, 0, 4);
        segment(dir.path(), 2, 4, 4);
        let all = read_back(dir.path(), TimeRange::ALL, 100, 100).unwrap();
        assert_eq!(numbers(&all), ((0..8).collect(), None));
        let capped = read_back(dir.path(), TimeRange::ALL, 5, 100).unwrap();
        assert_eq!(numbers(&capped), ((3..8).collect(), Some(Degraded::Capped)));
        let bytes = read_back(dir.path(), TimeRange::ALL, 100, 2 * 3 + 1).unwrap();
        assert_eq!(numbers(&bytes), ((5..8).collect(), Some(Degraded::Capped)));
        // The older file is not looked at: it may as well be damaged.
        fs::write(dir.path().join(SegmentName::ledger().file(1)), [1; 200]).unwrap();
        let late = TimeRange { from_us: 6_000_000, to_us: i64::MAX };
        assert_eq!(numbers(&read_back(dir.path(), late, 100, 100).unwrap()), (vec![6, 7], None));
        let damaged = read_back(dir.path(), TimeRange::ALL, 100, 100).unwrap();
        assert_eq!(numbers(&damaged), ((4..8).collect(), Some(Degraded::DataUnreadable)));
        assert_eq!(
            numbers(&read(&dir.path().join("absent"), TimeRange::ALL)),
            (Vec::new(), Some(Degraded::DataUnreadable))
        );
    }
}
