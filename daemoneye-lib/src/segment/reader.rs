//! Walks one segment file with a small window; what is read never grows with the file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::record::ALIGN;
use super::{
    BadRecord, HEADER_BYTES, HeaderError, Kind, MAX_SEGMENT_BYTES, Parsed, SegmentError, SegmentHeader, open_regular,
    parse,
};

/// Bytes read at once: large enough that a run of 256 usual records costs two reads.
const WINDOW_BYTES: usize = 64 * 1024;

/// A record with its place.
#[derive(Debug, Clone)]
pub struct RawRecord {
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes on disk, padding included.
    pub bytes: u64,
    /// Its checksum.
    pub crc: u32,
    /// The checksum of the record before.
    pub previous_crc: u32,
    /// Last number known to be synced when it was written.
    pub durable_upto: u64,
    /// Postcard.
    pub header: Bytes,
    /// As it was appended.
    pub payload: Bytes,
}

impl RawRecord {
    /// Decodes the postcard header.
    ///
    /// # Errors
    /// [`BadRecord::CorruptHeader`] when it is not one of `T`, or bytes are left.
    pub fn header<T: DeserializeOwned>(&self) -> Result<T, BadRecord> {
        match postcard::take_from_bytes(&self.header) {
            Ok((header, [])) => Ok(header),
            _ => Err(BadRecord::CorruptHeader),
        }
    }
}

/// One segment file, read from front to back.
#[derive(Debug)]
pub struct SegmentReader {
    path: PathBuf,
    file: File,
    length: u64,
    header: Result<Option<SegmentHeader>, HeaderError>,
    window: Vec<u8>,
    /// Offset in the file of the window's first byte.
    offset: u64,
    /// Of the window's bytes, those already walked over.
    used: usize,
}

impl SegmentReader {
    /// Opens `path` and reads its header; a bad header is kept, not an error, because records behind it may still be read.
    ///
    /// # Errors
    /// [`SegmentError`] when the file cannot be read or is of a newer version.
    pub fn open(path: &Path, kind: Kind) -> Result<Self, SegmentError> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(|e| SegmentError::io("read the length of", path, e))?.len();
        if length > MAX_SEGMENT_BYTES {
            let text = format!("it has {length} bytes, and a segment at most {MAX_SEGMENT_BYTES}");
            let source = std::io::Error::new(std::io::ErrorKind::FileTooLarge, text);
            return Err(SegmentError::io("read", path, source));
        }
        let mut reader =
            Self { path: path.to_owned(), file, length, header: Ok(None), window: Vec::new(), offset: 0, used: 0 };
        reader.want(HEADER_BYTES)?;
        reader.header = SegmentHeader::decode(reader.rest(), kind);
        if let Err(HeaderError::PeerNewer(found)) = reader.header {
            return Err(SegmentError::PeerNewerFormat { path: path.to_owned(), found });
        }
        reader.used = reader.window.len().min(HEADER_BYTES);
        Ok(reader)
    }

    /// The header; `Ok(None)` for a spare.
    ///
    /// # Errors
    /// What is wrong with it.
    pub const fn header(&self) -> Result<Option<SegmentHeader>, HeaderError> {
        self.header
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened or last refreshed.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Where the next record begins.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset + self.used as u64
    }

    /// The next record; `None` at the end. A bad record leaves the reader in front of it.
    ///
    /// # Errors
    /// Outer: the file cannot be read. Inner: what stands here is not a record.
    pub fn step(&mut self) -> Result<Result<Option<RawRecord>, BadRecord>, SegmentError> {
        loop {
            let offset = self.offset();
            let view = match parse(self.rest(), self.length.saturating_sub(offset)) {
                Parsed::More(bytes) => {
                    let have = self.rest().len();
                    self.want(have + bytes)?;
                    if self.rest().len() < have + bytes {
                        // The file became shorter than its length said.
                        self.length = offset + self.rest().len() as u64;
                    }
                    continue;
                }
                Parsed::End => return Ok(Ok(None)),
                Parsed::Bad(what) => return Ok(Err(what)),
                Parsed::Record(view) => view,
            };
            let bytes = view.bytes;
            let record = RawRecord {
                offset,
                bytes: bytes as u64,
                crc: view.crc,
                previous_crc: view.previous_crc,
                durable_upto: view.durable_upto,
                header: Bytes::copy_from_slice(view.header),
                payload: Bytes::copy_from_slice(view.payload),
            };
            self.used += bytes;
            return Ok(Ok(Some(record)));
        }
    }

    /// Moves over a bad place to the next whole record; `false` when there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn resync(&mut self) -> Result<bool, SegmentError> {
        loop {
            let next = (self.offset() + 1).next_multiple_of(ALIGN as u64);
            if next >= self.length {
                return Ok(false);
            }
            self.seek(next);
            loop {
                match parse(self.rest(), self.length.saturating_sub(next)) {
                    Parsed::Record(_) => return Ok(true),
                    Parsed::More(bytes) => {
                        let have = self.rest().len();
                        self.want(have + bytes)?;
                        if self.rest().len() < have + bytes {
                            self.length = next + self.rest().len() as u64;
                        }
                    }
                    Parsed::Bad(_) | Parsed::End => break,
                }
            }
        }
    }

    /// Whether everything from here to the end of the file is zero.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn zero_to_the_end(&mut self) -> Result<bool, SegmentError> {
        let start = self.offset();
        let mut zero = true;
        while zero {
            self.want(WINDOW_BYTES)?;
            if self.rest().is_empty() {
                break;
            }
            zero = self.rest().iter().all(|b| *b == 0);
            self.used = self.window.len();
        }
        self.seek(start);
        Ok(zero)
    }

    /// Forgets what was read ahead, so that records written since are seen.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn refresh(&mut self) -> Result<(), SegmentError> {
        self.length = self.file.metadata().map_err(|e| SegmentError::io("read the length of", &self.path, e))?.len();
        self.offset += self.used as u64;
        self.used = 0;
        self.window.clear();
        Ok(())
    }

    /// Goes to an offset at which a record begins.
    pub fn seek(&mut self, offset: u64) {
        match offset.checked_sub(self.offset).and_then(|d| usize::try_from(d).ok()) {
            Some(used) if used <= self.window.len() => self.used = used,
            _ => {
                self.window.clear();
                self.used = 0;
                self.offset = offset;
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.window.get(self.used..).unwrap_or_default()
    }

    /// Reads until the window holds `bytes` from here, or the file ends.
    fn want(&mut self, bytes: usize) -> Result<(), SegmentError> {
        if self.rest().len() >= bytes {
            return Ok(());
        }
        self.window.drain(..self.used);
        self.offset += self.used as u64;
        self.used = 0;
        let have = self.window.len();
        // A whole window each time: a search in steps of eight bytes must not become as many reads.
        let take = (bytes - have).max(WINDOW_BYTES);
        let from = self.offset + have as u64;
        self.file
            .seek(SeekFrom::Start(from))
            .and_then(|_| (&self.file).take(take as u64).read_to_end(&mut self.window))
            .map_err(|e| SegmentError::io("read", &self.path, e))?;
        Ok(())
    }
}
