//! Finds the end of a ledger that was left at any instant, cuts what was never promised, and names what is damaged.

use std::path::Path;

use daemoneye_lib::ledger::{GENESIS, LedgerHeader};
use daemoneye_lib::segment::{DurableNote, HEADER_BYTES, HeaderError, Kind, SegmentReader, list};

use super::LedgerHead;
use crate::error::CollectorError;
use crate::writer::LogOptions;

/// The end of a ledger that was left at any instant.
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) epoch: u64,
    pub(super) crc: u32,
    pub(super) head: LedgerHead,
    pub(super) torn_bytes: u64,
    pub(super) damage: Option<String>,
    pub(super) last_us: Option<i64>,
}

impl Tail {
    /// Looks at the newest segments only: those before were complete and synced when the next one was begun.
    pub(super) fn find(log: &LogOptions) -> Result<Self, CollectorError> {
        let head = LedgerHead { entries: 0, hash: GENESIS, outbox_id: 0, covered: None };
        let mut tail = Self { segment: 0, epoch: 0, crc: 0, head, torn_bytes: 0, damage: None, last_us: None };
        let mut durable = DurableNote::read(&log.dir, &log.name)?.map_or(0, |note| note.number);
        for (number, path) in list(&log.dir, &log.name)?.into_iter().rev() {
            let reader = SegmentReader::open(&path, Kind::Ledger)?;
            let header = reader.header();
            if matches!(header, Ok(None) | Err(HeaderError::CorruptShort)) && tail.segment == 0 {
                // A spare, or one that was begun and never got its header.
                log.remove(&path)?;
                continue;
            }
            tail.segment = tail.segment.max(number);
            tail.epoch = tail.epoch.max(header.ok().flatten().map_or(0, |h| h.epoch));
            if let Err(what) = header {
                tail.damage = Some(format!("segment {number}: {what}"));
            }
            if tail.walk(log, number, reader, durable)? {
                break;
            }
            // What lies before a header was judged and synced before the header was written.
            durable = durable.max(header.ok().flatten().map_or(0, |h| h.first.saturating_sub(1)));
        }
        let entries = tail.head.entries;
        if entries < durable && tail.damage.is_none() {
            tail.damage = Some(format!("entries {entries} to {} are missing at the end", durable - 1));
        }
        Ok(tail)
    }

    /// Reads one segment and judges its end; `true` when it held an entry.
    fn walk(
        &mut self,
        log: &LogOptions,
        number: u64,
        mut reader: SegmentReader,
        durable: u64,
    ) -> Result<bool, CollectorError> {
        let mut found = Walked::read(&mut reader)?;
        let path = reader.path().to_owned();
        let length = reader.length();
        match found.bad {
            Some((expected, what)) if expected <= durable.max(found.durable) => {
                self.damage = Some(format!("segment {number}, entry {}: {what}", expected.saturating_sub(1)));
            }
            Some(_) => {
                self.torn_bytes = length.saturating_sub(found.good_end);
                found.last = found.last_good;
                cut(log, &path, found.good_end)?;
            }
            None if length > found.good_end => cut(log, &path, found.good_end)?,
            None => {}
        }
        let Some((header, crc)) = found.last else { return Ok(false) };
        self.crc = crc;
        self.last_us = Some(header.entry.timestamp_ms.saturating_mul(1000));
        self.head = LedgerHead {
            entries: header.entry.sequence + 1,
            hash: header.entry.entry_hash,
            outbox_id: header.outbox_id,
            covered: header.covered(),
        };
        Ok(true)
    }
}

/// What one segment holds.
struct Walked {
    durable: u64,
    /// Last readable record, and the last one before the first bad place, each with its checksum.
    last: Option<(LedgerHeader, u32)>,
    last_good: Option<(LedgerHeader, u32)>,
    good_end: u64,
    /// Number of the record that had to stand at the first bad place, and what is wrong there.
    bad: Option<(u64, String)>,
}

impl Walked {
    fn read(reader: &mut SegmentReader) -> Result<Self, CollectorError> {
        let first = reader.header().ok().flatten().map_or(0, |h| h.first);
        let mut found = Self { durable: 0, last: None, last_good: None, good_end: HEADER_BYTES as u64, bad: None };
        loop {
            match reader.step()? {
                Ok(Some(raw)) => {
                    if let Ok(header) = raw.header::<LedgerHeader>() {
                        found.durable = found.durable.max(raw.durable_upto);
                        found.last = Some((header, raw.crc));
                        if found.bad.is_none() {
                            found.good_end = reader.offset();
                            found.last_good.clone_from(&found.last);
                        }
                    }
                }
                Ok(None) if found.bad.is_none() && reader.zero_to_the_end()? => return Ok(found),
                other => {
                    let expected = found.last_good.as_ref().map_or(first, |(h, _)| h.entry.sequence + 2);
                    let what = other.err().map_or_else(|| "bytes after the end".to_owned(), |e| e.to_string());
                    found.bad.get_or_insert((expected, what));
                    if !reader.resync()? {
                        return Ok(found);
                    }
                }
            }
        }
    }
}

/// Synced before anything new is written: a cut that a power failure takes back would be damage in the middle of the chain.
fn cut(log: &LogOptions, path: &Path, length: u64) -> Result<(), CollectorError> {
    let file = log.disk.open(path).and_then(|file| file.truncate(length).and_then(|()| file.sync()));
    file.map_err(|e| CollectorError::io("cut", path, e))
}
