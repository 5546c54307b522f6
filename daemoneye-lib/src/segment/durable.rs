//! A small file beside a log that says how far it was synced.
//!
//! The newest records cannot say of themselves that they were synced: `durable_upto` speaks of those before. The writer notes the
//! place here after each sync, with one unsynced write; when the note is there, what it says is true, and when a power failure
//! took it, the judgement falls back to the records.

use std::path::{Path, PathBuf};

use bytes::Buf as _;

use super::{SegmentError, SegmentName, read_regular};

const MAGIC: [u8; 8] = *b"DEYEDUR\n";
const NOTE_BYTES: usize = 32;
/// What is read of a note: room for versions to come.
const NOTE_MOST_BYTES: usize = 4096;

/// Up to where a log was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableNote {
    /// Epoch of the writer.
    pub epoch: u64,
    /// Number of the last record that is synced.
    pub number: u64,
}

impl DurableNote {
    /// `procmond.durable`, beside the segments.
    #[must_use]
    pub fn path(dir: &Path, name: &SegmentName) -> PathBuf {
        dir.join(format!("{}.durable", name.prefix))
    }

    /// The bytes on disk.
    #[must_use]
    pub fn encode(self) -> [u8; NOTE_BYTES] {
        let mut bytes = Vec::with_capacity(NOTE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.resize(NOTE_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut out = [0; NOTE_BYTES];
        out.copy_from_slice(&bytes);
        out
    }

    /// What the bytes say; anything but a whole note says nothing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.get(..NOTE_BYTES)?.split_at(NOTE_BYTES - 4);
        if crc32c::crc32c(body).to_le_bytes() != sum {
            return None;
        }
        let mut fields = body.strip_prefix(&MAGIC)?;
        Some(Self { epoch: fields.get_u64_le(), number: fields.get_u64_le() })
    }

    /// The note of a log, if there is one.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(dir: &Path, name: &SegmentName) -> Result<Option<Self>, SegmentError> {
        let path = Self::path(dir, name);
        Ok(read_regular(&path, NOTE_MOST_BYTES)?.as_deref().and_then(Self::decode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_not_whole_says_nothing() {
        let note = DurableNote { epoch: 9, number: 1_000 };
        let bytes = note.encode();
        assert_eq!(DurableNote::decode(&bytes), Some(note));
        for length in 0..bytes.len() {
            assert_eq!(DurableNote::decode(&bytes[..length]), None, "{length} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(DurableNote::decode(&bad), None, "bit {bit}");
        }
    }
}
