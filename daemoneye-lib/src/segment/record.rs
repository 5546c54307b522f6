//! The record codec; the layout stands in the parent module.
//!
//! The length is checked against what can be there before anything is read behind it, and nothing is decoded before the checksum
//! holds.

use serde::Serialize;

use super::{MAX_RECORD_BYTES, PREFIX_BYTES};

/// Records begin at multiples of this, so a reader that lost its place finds the next one.
pub(super) const ALIGN: usize = 8;

/// A whole record inside a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its checksum; the next record repeats it.
    pub crc: u32,
    /// The checksum of the record before.
    pub previous_crc: u32,
    /// Last number known to be synced when it was written.
    pub durable_upto: u64,
    /// Postcard.
    pub header: &'a [u8],
    /// As it was appended.
    pub payload: &'a [u8],
    /// Bytes it takes on disk, padding included.
    pub bytes: usize,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Bytes behind the last record that are not zero.
    #[error("bytes that are not zero after the last record")]
    CorruptAfterEnd,
    /// The checksum does not fit the bytes.
    #[error("the record's checksum is wrong")]
    CorruptChecksum,
    /// The postcard header does not decode, or says something else than the segment.
    #[error("the record's header does not decode")]
    CorruptHeader,
    /// A length that no record has, or that leads out of the file.
    #[error("the record's length is impossible")]
    CorruptLength,
    /// It does not continue the record before it.
    #[error("the record does not follow the one before it")]
    CorruptLink,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not a record.
    Bad(BadRecord),
    /// No record begins here.
    End,
    /// The buffer holds this many bytes too few to tell.
    More(usize),
    /// A record.
    Record(RecordView<'a>),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn checksum(record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(record.get(..4).unwrap_or_default());
    crc32c::crc32c_append(crc, record.get(8..).unwrap_or_default())
}

/// Bytes on disk of a record with this header and payload length.
#[must_use]
pub const fn encoded_len(header: usize, payload: usize) -> usize {
    (PREFIX_BYTES + header + payload).next_multiple_of(ALIGN)
}

/// Lets postcard write behind what is there, without a buffer of its own.
struct Tail<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Tail<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

/// Appends one record to `out` and returns its checksum.
///
/// # Errors
/// [`BadRecord::CorruptLength`] when it would be longer than [`MAX_RECORD_BYTES`]; [`BadRecord::CorruptHeader`] when postcard cannot
/// encode the header. `out` is left as it was.
pub fn encode(
    out: &mut Vec<u8>,
    previous_crc: u32,
    durable_upto: u64,
    header: &impl Serialize,
    payload: &[u8],
) -> Result<u32, BadRecord> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    let encoded = postcard::to_extend(header, Tail(out)).map(|_| ());
    let header_bytes = out.len() - start - PREFIX_BYTES;
    let length = PREFIX_BYTES + header_bytes + payload.len();
    let fields = match (encoded, u32::try_from(length), u32::try_from(header_bytes)) {
        (Ok(()), Ok(all), Ok(header)) if length <= MAX_RECORD_BYTES => {
            [all, 0, previous_crc, header].into_iter().flat_map(u32::to_le_bytes).chain(durable_upto.to_le_bytes())
        }
        (encoded, ..) => {
            out.truncate(start);
            return Err(encoded.map_or(BadRecord::CorruptHeader, |()| BadRecord::CorruptLength));
        }
    };
    out.iter_mut().skip(start).zip(fields).for_each(|(to, from)| *to = from);
    out.extend_from_slice(payload);
    out.resize(start + length.next_multiple_of(ALIGN), 0);
    let crc = checksum(out.get(start..).unwrap_or_default());
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    Ok(crc)
}

/// Reads what stands at the front of `bytes`, of which the file still holds `remaining`.
#[must_use]
pub fn parse(bytes: &[u8], remaining: u64) -> Parsed<'_> {
    if remaining < 4 {
        return if bytes.iter().all(|b| *b == 0) { Parsed::End } else { Parsed::Bad(BadRecord::CorruptAfterEnd) };
    }
    if bytes.len() < 4 {
        return Parsed::More(4 - bytes.len());
    }
    let length = u32_at(bytes, 0) as usize;
    if length == 0 {
        return Parsed::End;
    }
    let padded = length.next_multiple_of(ALIGN);
    if !(PREFIX_BYTES..=MAX_RECORD_BYTES).contains(&length) || padded as u64 > remaining {
        return Parsed::Bad(BadRecord::CorruptLength);
    }
    let Some(record) = bytes.get(..padded) else { return Parsed::More(padded - bytes.len()) };
    let crc = u32_at(record, 4);
    if checksum(record) != crc {
        return Parsed::Bad(BadRecord::CorruptChecksum);
    }
    let split = PREFIX_BYTES + u32_at(record, 12) as usize;
    match (record.get(PREFIX_BYTES..split), record.get(split..length)) {
        (Some(header), Some(payload)) => Parsed::Record(RecordView {
            crc,
            previous_crc: u32_at(record, 8),
            durable_upto: record.get(16..24).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes),
            header,
            payload,
            bytes: padded,
        }),
        _ => Parsed::Bad(BadRecord::CorruptLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_the_round_trip(
            header in any::<(u64, u64, String, i64)>(),
            payload in proptest::collection::vec(any::<u8>(), 0..500),
            previous in any::<u32>(),
            durable in any::<u64>(),
        ) {
            let mut bytes = vec![9; 8];
            let crc = encode(&mut bytes, previous, durable, &header, &payload).unwrap();
            let record = &bytes[8..];
            prop_assert_eq!(record.len() % ALIGN, 0);
            let Parsed::Record(view) = parse(record, record.len() as u64) else { panic!("not a record") };
            prop_assert_eq!((view.crc, view.previous_crc, view.durable_upto), (crc, previous, durable));
            prop_assert_eq!(view.payload, &payload[..]);
            prop_assert_eq!(postcard::from_bytes::<(u64, u64, String, i64)>(view.header).unwrap(), header);
        }

        #[test]
        fn every_flipped_bit_is_seen(payload in proptest::collection::vec(any::<u8>(), 0..60), at in any::<usize>()) {
            let mut bytes = Vec::new();
            encode(&mut bytes, 1, 2, &(3u64, "topic"), &payload).unwrap();
            let bit = at % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let seen = match parse(&bytes, bytes.len() as u64) {
                Parsed::Record(_) => false,
                // A length of zero ends the segment; the bytes behind it give it away.
                Parsed::End | Parsed::Bad(_) | Parsed::More(_) => true,
            };
            prop_assert!(seen);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), more in 0u64..300) {
            std::hint::black_box(parse(&bytes, bytes.len() as u64 + more));
        }
    }

    #[test]
    fn a_record_above_the_bound_is_refused_and_leaves_the_buffer_alone() {
        let mut out = vec![1, 2, 3];
        assert_eq!(encode(&mut out, 0, 0, &0u8, &vec![0; MAX_RECORD_BYTES]), Err(BadRecord::CorruptLength));
        assert_eq!(out, [1, 2, 3]);
    }
}
