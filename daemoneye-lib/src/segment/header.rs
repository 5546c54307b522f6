//! The 64 bytes at the front of a segment; the layout stands in the parent module.

use super::{FORMAT_VERSION, HEADER_BYTES, MAGIC};

/// What a log is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Write-ahead log of a collector.
    Wal = 1,
    /// Audit ledger.
    Ledger = 2,
}

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What it is for.
    pub kind: Kind,
    /// CRC of the record before the first one here; 0 when there is none.
    pub previous_crc: u32,
    /// Epoch of the writer.
    pub epoch: u64,
    /// Number in the file name.
    pub segment: u64,
    /// Number after the last record before it; its first record has this one or, behind a gap that was told, a higher one.
    pub first: u64,
}

/// Why a header is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Its checksum does not fit.
    #[error("the segment header's checksum is wrong")]
    CorruptChecksum,
    /// Reserved bytes are not zero, or a field has no meaning.
    #[error("the segment header has a field without meaning")]
    CorruptField,
    /// It does not begin with the magic.
    #[error("this is not a segment file")]
    CorruptMagic,
    /// The file ends inside its header.
    #[error("the file ends inside its header")]
    CorruptShort,
    /// Another kind of log.
    #[error("the segment belongs to another kind of log")]
    MisuseKind,
    /// A newer program wrote it.
    #[error("format version {0} is newer than this build")]
    PeerNewer(u16),
}

impl SegmentHeader {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.kind as u16).to_le_bytes());
        bytes.extend_from_slice(&self.previous_crc.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut out = [0; HEADER_BYTES];
        out.copy_from_slice(&bytes);
        out
    }

    /// Reads a header; `None` for a spare (all zeros).
    ///
    /// # Errors
    /// [`HeaderError`] says what is wrong; the version is judged only after the checksum.
    pub fn decode(bytes: &[u8], kind: Kind) -> Result<Option<Self>, HeaderError> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.get(..HEADER_BYTES).and_then(|b| b.try_into().ok()).ok_or(HeaderError::CorruptShort)?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(HeaderError::CorruptMagic);
        }
        let (body, sum) = bytes.split_at(HEADER_BYTES - 4);
        if crc32c::crc32c(body).to_le_bytes() != sum {
            return Err(HeaderError::CorruptChecksum);
        }
        let mut fields = body.get(MAGIC.len()..).unwrap_or_default();
        let version = bytes::Buf::get_u16_le(&mut fields);
        if version > FORMAT_VERSION {
            return Err(HeaderError::PeerNewer(version));
        }
        let found = bytes::Buf::get_u16_le(&mut fields);
        let header = Self {
            kind,
            previous_crc: bytes::Buf::get_u32_le(&mut fields),
            epoch: bytes::Buf::get_u64_le(&mut fields),
            segment: bytes::Buf::get_u64_le(&mut fields),
            first: bytes::Buf::get_u64_le(&mut fields),
        };
        if version == 0 || !matches!(found, 1 | 2) || fields.iter().any(|b| *b != 0) {
            return Err(HeaderError::CorruptField);
        }
        if found != kind as u16 {
            return Err(HeaderError::MisuseKind);
        }
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip_and_every_flipped_bit_is_refused() {
        let header = SegmentHeader { kind: Kind::Wal, previous_crc: 7, epoch: 3, segment: 9, first: 1_000 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes, Kind::Wal), Ok(Some(header)));
        assert_eq!(SegmentHeader::decode(&bytes, Kind::Ledger), Err(HeaderError::MisuseKind));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad, Kind::Wal).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_a_spare_and_a_newer_version_is_named() {
        assert_eq!(SegmentHeader::decode(&[0; HEADER_BYTES], Kind::Wal), Ok(None));
        let mut newer = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch: 1, segment: 1, first: 1 }.encode();
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]).to_le_bytes();
        newer[60..].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::decode(&newer, Kind::Wal), Err(HeaderError::PeerNewer(2)));
    }
}
