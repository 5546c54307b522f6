//! Reads entries from any place of a ledger on, without verifying the chain: for whoever holds them against a tree.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::reader::LedgerHeader;
use super::{AuditEntry, tiles::TreeError};
use crate::segment::{Kind, SegmentName, SegmentReader, list};

/// Entries one after the other, beginning with a number.
#[derive(Debug)]
pub struct Entries {
    /// Newest first.
    rest: Vec<PathBuf>,
    reader: Option<SegmentReader>,
    next: u64,
}

impl Entries {
    /// Begins with entry `first`.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn from(dir: &Path, first: u64) -> Result<Self, TreeError> {
        let mut segments = list(dir, &SegmentName::ledger())?;
        let (mut low, mut high) = (0, segments.len());
        // The segment that begins last at or before it; what has no header of its own holds no entry that is wanted.
        while high - low > 1 {
            let middle = low.midpoint(high);
            let Some((_, path)) = segments.get(middle) else { break };
            let header = SegmentReader::open(path, Kind::Ledger)?.header().ok().flatten();
            if header.is_some_and(|header| header.first.saturating_sub(1) <= first) {
                low = middle;
            } else {
                high = middle;
            }
        }
        let rest = segments.drain(low..).rev().map(|(_, path)| path).collect();
        Ok(Self { rest, reader: None, next: first })
    }

    /// The next entry and its payload; `None` behind the last one.
    ///
    /// # Errors
    /// The files cannot be read, or what stands there is not the next entry.
    pub fn advance(&mut self) -> Result<Option<(AuditEntry, Bytes)>, TreeError> {
        loop {
            let Some(reader) = self.reader.as_mut() else {
                let Some(path) = self.rest.pop() else { return Ok(None) };
                self.reader = Some(SegmentReader::open(&path, Kind::Ledger)?);
                continue;
            };
            let bad = TreeError::CorruptEntry { sequence: self.next };
            let raw = match reader.step()? {
                Ok(Some(raw)) => raw,
                Ok(None) => {
                    self.reader = None;
                    continue;
                }
                Err(_) => return Err(bad),
            };
            let Ok(LedgerHeader { entry, .. }) = raw.header() else { return Err(bad) };
            if entry.sequence < self.next {
                continue;
            }
            if entry.sequence > self.next {
                return Err(bad);
            }
            self.next += 1;
            return Ok(Some((entry, raw.payload)));
        }
    }
}
