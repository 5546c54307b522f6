//! The WAL's records as the bus carries them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Kind, RawRecord, SegmentError, SegmentName, SegmentReader, list};
use crate::proto::{Record, Sequence};

/// Postcard header of a WAL record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalHeader {
    /// Epoch of the writer.
    pub epoch: u64,
    /// Position in the stream; grows over all epochs.
    pub number: u64,
    /// Topic it is published under.
    pub topic: String,
    /// µs since the Unix epoch.
    pub time_us: i64,
}

impl WalHeader {
    /// The record as it goes to the bus; the payload's bytes are those on disk.
    #[must_use]
    pub fn into_record(self, raw: RawRecord) -> Record {
        Record {
            sequence: Some(Sequence::new(self.epoch, self.number)),
            topic: self.topic,
            time_us: self.time_us,
            payload: raw.payload,
        }
    }
}

/// Every readable record of a WAL directory in order, bad places skipped: for whoever only looks.
#[derive(Debug)]
pub struct DirReader {
    segments: std::vec::IntoIter<(u64, PathBuf)>,
    current: Option<SegmentReader>,
    after: Option<Sequence>,
    /// Something that cannot be read, and nothing behind it yet.
    is_cut: bool,
}

impl DirReader {
    /// Reads the records after `after`; all of them with `None`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(dir: &Path, collector: &str, after: Option<Sequence>) -> Result<Self, SegmentError> {
        let segments = list(dir, &SegmentName::wal(collector))?.into_iter();
        Ok(Self { segments, current: None, after, is_cut: false })
    }

    /// Whether what was read last is followed by something that cannot be read.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn advance(&mut self) -> Result<Option<Record>, SegmentError> {
        loop {
            let Some(reader) = &mut self.current else {
                let Some((_, path)) = self.segments.next() else { return Ok(None) };
                self.current = Some(SegmentReader::open(&path, Kind::Wal)?);
                continue;
            };
            match reader.step()? {
                Ok(Some(raw)) => match raw.header::<WalHeader>() {
                    Ok(header)
                        if self.after.is_none_or(|after| Sequence::new(header.epoch, header.number) > after) =>
                    {
                        self.is_cut = false;
                        return Ok(Some(header.into_record(raw)));
                    }
                    Ok(_) | Err(_) => {}
                },
                Ok(None) => self.current = None,
                Err(_) => {
                    self.is_cut = true;
                    if !reader.resync()? {
                        self.current = None;
                    }
                }
            }
        }
    }
}

impl Iterator for DirReader {
    type Item = Result<Record, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
