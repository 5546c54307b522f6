//! Finds single entries in a ledger's files without reading all of them.
//!
//! What is found is what the files say: the chain is not verified here. Proofs are made of it, and those are verified against a
//! checkpoint, which a changed entry does not fit.

use std::path::{Path, PathBuf};

use super::{EventRange, LedgerHeader, LedgerRecord};
use crate::proto::Sequence;
use crate::segment::{Kind, RawRecord, SegmentError, SegmentName, SegmentReader, list};

/// The files of a ledger, oldest first, each with the sequence of its first entry.
#[derive(Debug, Clone)]
pub struct LedgerFiles {
    segments: Vec<(u64, PathBuf)>,
}

impl LedgerFiles {
    /// Lists them.
    ///
    /// # Errors
    /// [`SegmentError`]: a file cannot be read, or is of a newer version.
    pub fn open(dir: &Path) -> Result<Self, SegmentError> {
        let mut segments = Vec::new();
        for (_, path) in list(dir, &SegmentName::ledger())? {
            let first = SegmentReader::open(&path, Kind::Ledger)?.header().ok().flatten().map(|header| header.first);
            segments.extend(first.and_then(|first| first.checked_sub(1)).map(|first| (first, path)));
        }
        Ok(Self { segments })
    }

    /// The entry with this number.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn entry(&self, sequence: u64) -> Result<Option<LedgerRecord>, SegmentError> {
        let behind = self.segments.partition_point(|(first, _)| *first <= sequence);
        let Some((_, path)) = behind.checked_sub(1).and_then(|at| self.segments.get(at)) else { return Ok(None) };
        let mut found = None;
        walk(path, |record| {
            found = (record.entry.sequence == sequence).then_some(record);
            found.is_none()
        })?;
        Ok(found)
    }

    /// Every entry, oldest first, until `take` has enough.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn each(&self, mut take: impl FnMut(LedgerRecord) -> bool) -> Result<(), SegmentError> {
        for (_, path) in &self.segments {
            if !walk(path, &mut take)? {
                break;
            }
        }
        Ok(())
    }

    /// What `pick` picks first, beginning with the newest entry.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn newest<T>(&self, pick: impl Fn(&LedgerRecord) -> Option<T>) -> Result<Option<T>, SegmentError> {
        for (_, path) in self.segments.iter().rev() {
            let mut found = None;
            walk(path, |record| {
                found = pick(&record).or(found.take());
                true
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The entry that covers a record of a collector's stream.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn range_of(&self, collector: &str, at: Sequence) -> Result<Option<(LedgerRecord, EventRange)>, SegmentError> {
        let covers = |record: &LedgerRecord| {
            let range = range_in(record).filter(|range| range.collector == collector && range.epoch == at.epoch)?;
            (range.first..=range.last).contains(&at.number).then(|| (record.clone(), range))
        };
        // What an entry says is covered grows along the ledger, for the collector whose ledger it is.
        let mut begin = (0, self.segments.len());
        while begin.0 < begin.1 {
            let middle = begin.0.midpoint(begin.1);
            begin = if self.begins_covered(middle)? < Some(at) { (middle + 1, begin.1) } else { (begin.0, middle) };
        }
        let (mut found, mut passed) = (None, false);
        for (_, path) in self.segments.iter().skip(begin.0.saturating_sub(1)) {
            walk(path, |record| {
                found = covers(&record);
                let range = range_in(&record).filter(|range| range.collector == collector);
                passed = range.is_some_and(|range| Sequence::new(range.epoch, range.first) > at);
                found.is_none() && !passed
            })?;
            if found.is_some() {
                return Ok(found);
            }
            if passed {
                break;
            }
        }
        self.newest(covers)
    }

    /// What the first entry of a file says is covered.
    fn begins_covered(&self, file: usize) -> Result<Option<Sequence>, SegmentError> {
        let mut covered = None;
        if let Some((_, path)) = self.segments.get(file) {
            walk(path, |record| {
                covered = record.covered;
                false
            })?;
        }
        Ok(covered)
    }
}

/// The range that an entry tells of.
#[must_use]
pub fn range_in(record: &LedgerRecord) -> Option<EventRange> {
    (record.entry.action == "event-range").then(|| EventRange::read(&record.payload)).flatten()
}

/// Hands over the entries of a file until `take` has enough, or until something that is no entry: a live writer is in the middle of
/// the last one. `true`: more was wanted.
fn walk(path: &Path, mut take: impl FnMut(LedgerRecord) -> bool) -> Result<bool, SegmentError> {
    let mut reader = SegmentReader::open(path, Kind::Ledger)?;
    while let Ok(Some(raw)) = reader.step()? {
        let Some(record) = record(raw) else { break };
        if !take(record) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn record(raw: RawRecord) -> Option<LedgerRecord> {
    let header: LedgerHeader = raw.header().ok()?;
    let covered = header.covered();
    Some(LedgerRecord { entry: header.entry, payload: raw.payload, outbox_id: header.outbox_id, covered, leaf: None })
}
