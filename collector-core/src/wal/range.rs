//! What an `event-range` entry of the ledger says about a stretch of the stream.

use daemoneye_lib::proto::{Record, Sequence};
use serde_json::json;

/// A stretch of records of one epoch.
///
/// `root` is BLAKE3 over the concatenated BLAKE3 hashes of the records' payloads in order. A Merkle root takes its place when the ledger
/// gets its tree; until then a range is proven as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRange {
    /// First record.
    pub first: Sequence,
    /// Last record.
    pub last: Sequence,
    /// Records.
    pub count: u64,
    /// Hex.
    pub root: String,
}

impl EventRange {
    /// The ledger entry's payload.
    #[must_use]
    pub fn json(&self, collector: &str) -> Vec<u8> {
        json!({
            "collector": collector,
            "epoch": self.last.epoch,
            "first": self.first.number,
            "last": self.last.number,
            "count": self.count,
            "root": self.root,
        })
        .to_string()
        .into_bytes()
    }
}

/// Collects a range record by record.
#[derive(Default)]
pub(crate) struct RangeHasher {
    hasher: blake3::Hasher,
    span: Option<(Sequence, Sequence, u64)>,
}

impl RangeHasher {
    pub(crate) fn add(&mut self, sequence: Sequence, payload: &[u8]) {
        self.hasher.update(blake3::hash(payload).as_bytes());
        self.span = match self.span {
            Some((first, _, count)) => Some((first, sequence, count + 1)),
            None => Some((sequence, sequence, 1)),
        };
    }

    pub(crate) fn take(&mut self) -> Option<EventRange> {
        let (first, last, count) = self.span.take()?;
        let root = self.hasher.finalize().to_hex().to_string();
        self.hasher.reset();
        Some(EventRange { first, last, count, root })
    }
}

/// The ranges, one for each epoch, of records that a crash kept from being covered. A record that cannot be read now is none that may be
/// passed over: what follows would be covered behind it, and it would be trimmed without an entry.
///
/// # Errors
/// The first one of `records`.
pub(crate) fn ranges_of<E>(records: impl Iterator<Item = Result<Record, E>>) -> Result<Vec<EventRange>, E> {
    let mut hasher = RangeHasher::default();
    let mut ranges = Vec::new();
    let mut epoch = None;
    for record in records {
        let record = record?;
        let Some(sequence) = record.sequence else { continue };
        if epoch.is_some_and(|e| e != sequence.epoch) {
            ranges.extend(hasher.take());
        }
        epoch = Some(sequence.epoch);
        hasher.add(sequence, &record.payload);
    }
    ranges.extend(hasher.take());
    Ok(ranges)
}
