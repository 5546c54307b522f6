//! The entries of a ledger as its files say: from any place on, by their number, by time, or by what they cover.
//!
//! The chain is not verified here. What is made of these entries is held against a tree or a checkpoint, which a changed entry does not
//! fit. Something that is no entry ends its file: a live writer is in the middle of the last one, and behind damage the next file
//! goes on, so whoever needs every entry asks for it by number.

use std::path::{Path, PathBuf};

use super::clock::LedgerClock;
use super::heartbeat::HeartbeatEntry;
use super::tiles::TreeError;
use super::{EventRange, LedgerHeader, LedgerRecord, is_collector};
use crate::proto::Sequence;
use crate::segment::{Kind, RawRecord, SegmentError, SegmentName, SegmentReader, list};

/// Files in which a heartbeat is looked for, which comes each minute: what is written in that time is far less, unless the ledger is of
/// builds whose heartbeats tell no clock.
const CLOCK_FILES: usize = 64;

/// The files of a ledger, oldest first.
#[derive(Debug, Clone)]
pub struct LedgerFiles {
    paths: Vec<PathBuf>,
}

impl LedgerFiles {
    /// Lists them.
    ///
    /// # Errors
    /// [`SegmentError`]: the directory cannot be read.
    pub fn open(dir: &Path) -> Result<Self, SegmentError> {
        Ok(Self { paths: list(dir, &SegmentName::ledger())?.into_iter().map(|(_, path)| path).collect() })
    }

    /// The entries from this number on.
    ///
    /// # Errors
    /// [`SegmentError`]: a file cannot be read, or is of a newer version.
    pub fn from(&self, first: u64) -> Result<Entries, SegmentError> {
        let behind = self.behind(|path| {
            let header = SegmentReader::open(path, Kind::Ledger)?.header().ok().flatten();
            Ok(header.is_some_and(|header| header.first.saturating_sub(1) <= first))
        })?;
        Ok(self.walk(behind.saturating_sub(1), first))
    }

    /// The entry with this number.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub fn entry(&self, sequence: u64) -> Result<Option<LedgerRecord>, SegmentError> {
        let found = self.from(sequence)?.next().transpose()?;
        Ok(found.filter(|record| record.entry.sequence == sequence))
    }

    /// The first entry that tells of more of the agent's outbox than up to this id.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub fn behind_outbox(&self, id: u64) -> Result<Option<u64>, SegmentError> {
        let behind = self.behind(|path| {
            let first = Entries::of(path).next().transpose()?;
            Ok(first.is_some_and(|record| record.outbox_id <= id))
        })?;
        for record in self.walk(behind.saturating_sub(1), 0) {
            let record = record?;
            if record.outbox_id > id {
                return Ok(Some(record.entry.sequence));
            }
        }
        Ok(None)
    }

    /// The entries from at most a file before the first one on that is behind this time (ms since the Unix epoch), also where the clock was
    /// set back later. Only what the collector says itself is looked at: what others said may have waited. Of a file without a
    /// heartbeat that tells how far the clock had been, its first entry decides, which may be of a later pass.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub fn since(&self, time_ms: i64) -> Result<Entries, SegmentError> {
        let behind = self.behind(|path| {
            let mut first = None;
            for record in Entries::of(path) {
                let record = record?;
                let at_ms = record.entry.timestamp_ms;
                if let Some((_, clock)) = told_clock(&record) {
                    first = Some(clock.highest_ms.max(at_ms));
                    break;
                }
                first = first.or(is_collector(&record.entry.actor).then_some(at_ms));
            }
            Ok(first.is_some_and(|first| first <= time_ms))
        })?;
        Ok(self.walk(behind.saturating_sub(1), 0))
    }

    /// What the collector's clock has been through, up to the last entry: as the last heartbeat that tells has it, and the entries
    /// behind that. At most the newest 64 files are looked at.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub fn clock(&self) -> Result<LedgerClock, SegmentError> {
        let mut first = self.paths.len().saturating_sub(CLOCK_FILES);
        for (place, path) in self.paths.iter().enumerate().skip(first).rev() {
            let mut entries = Entries::of(path);
            if entries.any(|record| record.is_ok_and(|record| told_clock(&record).is_some())) {
                first = place;
                break;
            }
        }
        let mut clock = LedgerClock::default();
        for record in self.walk(first, 0) {
            let record = record?;
            if let Some((_, told)) = told_clock(&record) {
                clock = told;
            }
            if is_collector(&record.entry.actor) {
                clock.shows(record.entry.timestamp_ms);
            }
        }
        Ok(clock)
    }

    /// What `pick` picks first, beginning with the newest entry.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub fn newest<T>(&self, pick: impl Fn(&LedgerRecord) -> Option<T>) -> Result<Option<T>, SegmentError> {
        for path in self.paths.iter().rev() {
            let mut found = None;
            for record in Entries::of(path) {
                found = pick(&record?).or(found);
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The entry that covers a record of a collector's stream. Reads two files of the ledger, also where none covers it.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub fn range_of(&self, collector: &str, at: Sequence) -> Result<Option<(LedgerRecord, EventRange)>, SegmentError> {
        // What an entry says is covered grows along the ledger.
        let behind = self.behind(|path| {
            let first = Entries::of(path).next().transpose()?;
            Ok(first.is_some_and(|record| record.covered < Some(at)))
        })?;
        let mut reached = None;
        for record in self.walk(behind.saturating_sub(1), 0) {
            let record = record?;
            // Ranges that were written together say all of them what the last one covers.
            if record.covered >= Some(at) && *reached.get_or_insert(record.covered) < record.covered {
                break;
            }
            let range = range_in(&record).filter(|range| range.collector == collector && range.epoch == at.epoch);
            if let Some(range) = range.filter(|range| (range.first..=range.last).contains(&at.number)) {
                return Ok(Some((record, range)));
            }
        }
        Ok(None)
    }

    /// How many files, oldest first, `is_before` holds for.
    fn behind(&self, is_before: impl Fn(&Path) -> Result<bool, SegmentError>) -> Result<usize, SegmentError> {
        let (mut low, mut high) = (0, self.paths.len());
        while low < high {
            let middle = low.midpoint(high);
            let Some(path) = self.paths.get(middle) else { break };
            if is_before(path)? { low = middle.saturating_add(1) } else { high = middle }
        }
        Ok(low)
    }

    fn walk(&self, file: usize, first: u64) -> Entries {
        Entries { rest: self.paths.iter().skip(file).rev().cloned().collect(), reader: None, next: first }
    }
}

/// What a heartbeat says of the collector's clock, and which entry it is.
pub(super) fn told_clock(record: &LedgerRecord) -> Option<(u64, LedgerClock)> {
    let beat = HeartbeatEntry::of(&record.entry.actor, &record.entry.action, &record.payload)?;
    Some((record.entry.sequence, beat.clock?))
}

/// The range that an entry tells of. Nobody but its collector says what a stream holds.
#[must_use]
pub fn range_in(record: &LedgerRecord) -> Option<EventRange> {
    let range = (record.entry.action == "event-range").then(|| EventRange::read(&record.payload)).flatten();
    range.filter(|range| range.collector == record.entry.actor)
}

/// Entries one after the other.
#[derive(Debug)]
pub struct Entries {
    /// Newest first.
    rest: Vec<PathBuf>,
    reader: Option<SegmentReader>,
    next: u64,
}

impl Entries {
    fn of(path: &Path) -> Self {
        Self { rest: vec![path.to_owned()], reader: None, next: 0 }
    }

    /// The next one, which has to have this number.
    ///
    /// # Errors
    /// [`TreeError::CorruptEntry`]: it has another, or cannot be read.
    pub fn numbered(&mut self, sequence: u64) -> Result<LedgerRecord, TreeError> {
        let found = self.next().transpose()?.filter(|record| record.entry.sequence == sequence);
        found.ok_or(TreeError::CorruptEntry { sequence })
    }

    fn advance(&mut self) -> Result<Option<LedgerRecord>, SegmentError> {
        loop {
            let Some(reader) = self.reader.as_mut() else {
                let Some(path) = self.rest.pop() else { return Ok(None) };
                self.reader = Some(SegmentReader::open(&path, Kind::Ledger)?);
                continue;
            };
            match reader.step()?.ok().flatten().and_then(record) {
                Some(record) if record.entry.sequence >= self.next => return Ok(Some(record)),
                Some(_) => {}
                None => self.reader = None,
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<LedgerRecord, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.advance().transpose();
        if !matches!(found, Some(Ok(_))) {
            (self.rest, self.reader) = (Vec::new(), None);
        }
        found
    }
}

fn record(raw: RawRecord) -> Option<LedgerRecord> {
    let header: LedgerHeader = raw.header().ok()?;
    let covered = header.covered();
    Some(LedgerRecord { entry: header.entry, payload: raw.payload, outbox_id: header.outbox_id, covered, leaf: None })
}
