//! The frame of every local socket: `u32 LE body length | u32 LE CRC32C(body) | body`, body = one [`Envelope`].
//!
//! Zero length, a length above the endpoint's limit and a wrong checksum are refused before anything is allocated for the
//! body or decoded from it. The caller closes the connection on any error: after one of these the stream has no known
//! boundary any more.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use crate::proto::{Envelope, FaultKind};

/// Length and checksum.
pub const HEADER_BYTES: usize = 8;
/// Largest body on the bus: a run of 256 records and the largest capped event both fit.
pub const BUS_LIMIT_BYTES: usize = 1024 * 1024;
/// Largest request an operator may send: a rule file with the lists that it names. Answers stream in pages of the same length.
pub const OPERATOR_LIMIT_BYTES: usize = BUS_LIMIT_BYTES;
/// Longest statement of SQL that is taken.
pub const STATEMENT_LIMIT_BYTES: usize = 64 * 1024;

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer's checksum does not fit its bytes.
    #[error("frame checksum is wrong: the peer sent {sent:#010x}, its {length} bytes give {computed:#010x}")]
    PeerChecksum {
        /// From the header.
        sent: u32,
        /// Over the body that arrived.
        computed: u32,
        /// Body length.
        length: usize,
    },
    /// Nothing can have length zero.
    #[error("frame of length zero")]
    PeerEmpty,
    /// The body is not an envelope of this protocol.
    #[error("frame of {length} bytes is not an envelope of this protocol version")]
    PeerMessage {
        /// Body length.
        length: usize,
        /// What prost said.
        #[source]
        source: prost::DecodeError,
    },
    /// Longer than this endpoint takes.
    #[error("frame of {length} bytes is above this endpoint's limit of {limit}")]
    LimitLength {
        /// From the header, or of the message to be sent.
        length: usize,
        /// The endpoint's limit.
        limit: usize,
    },
}

impl FrameError {
    /// The closed kind that goes back to the peer.
    #[must_use]
    pub const fn fault_kind(&self) -> FaultKind {
        match self {
            Self::PeerChecksum { .. } => FaultKind::BadChecksum,
            Self::PeerEmpty => FaultKind::BadLength,
            Self::PeerMessage { .. } => FaultKind::BadMessage,
            Self::LimitLength { .. } => FaultKind::TooLarge,
        }
    }
}

/// Appends one frame to `out`.
///
/// # Errors
/// [`FrameError::LimitLength`] when the message would not be accepted on the other side.
pub fn encode(envelope: &Envelope, limit: usize, out: &mut BytesMut) -> Result<(), FrameError> {
    let length = envelope.encoded_len();
    if length > limit {
        return Err(FrameError::LimitLength { length, limit });
    }
    if length == 0 {
        return Err(FrameError::PeerEmpty);
    }
    let start = out.len();
    out.reserve(HEADER_BYTES + length);
    out.put_u64(0);
    // `encode` into a growable buffer cannot run out of room.
    envelope.encode(out).map_err(|_| FrameError::LimitLength { length, limit })?;
    let crc = crc32c::crc32c(out.get(start + HEADER_BYTES..).unwrap_or_default());
    if let Some(mut header) = out.get_mut(start..start + HEADER_BYTES) {
        header.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        header.put_u32_le(crc);
    }
    Ok(())
}

/// Takes one frame from the front of `buffer`; `None` until all of it has arrived.
///
/// # Errors
/// Any [`FrameError`]; the connection cannot go on after it.
pub fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Envelope>, FrameError> {
    let Some(mut header) = buffer.get(..HEADER_BYTES) else { return Ok(None) };
    let length = header.get_u32_le() as usize;
    let sent = header.get_u32_le();
    if length == 0 {
        return Err(FrameError::PeerEmpty);
    }
    if length > limit {
        return Err(FrameError::LimitLength { length, limit });
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let body: Bytes = buffer.split_to(length).freeze();
    let computed = crc32c::crc32c(&body);
    if computed != sent {
        return Err(FrameError::PeerChecksum { sent, computed, length });
    }
    Envelope::decode(body).map(Some).map_err(|source| FrameError::PeerMessage { length, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Ping, envelope::Body};
    use proptest::prelude::*;

    fn ping() -> BytesMut {
        let mut out = BytesMut::new();
        encode(&Envelope { body: Some(Body::Ping(Ping { nonce: 77 })) }, BUS_LIMIT_BYTES, &mut out).unwrap();
        out
    }

    #[test]
    fn a_frame_survives_the_round_trip_and_leaves_the_rest_alone() {
        let mut bytes = ping();
        bytes.extend_from_slice(&[1, 2, 3]);
        let envelope = decode(&mut bytes, BUS_LIMIT_BYTES).unwrap().unwrap();
        assert_eq!(envelope.body, Some(Body::Ping(Ping { nonce: 77 })));
        assert_eq!(&bytes[..], &[1, 2, 3]);
    }

    #[test]
    fn half_a_frame_waits_for_the_rest() {
        let whole = ping();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(decode(&mut part, BUS_LIMIT_BYTES).unwrap().is_none(), "cut at {cut}");
            assert_eq!(part.len(), cut, "nothing is consumed");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_body_or_checksum_is_refused() {
        let whole = ping();
        for byte in 4..whole.len() {
            for bit in 0..8 {
                let mut bad = whole.clone();
                bad[byte] ^= 1 << bit;
                assert!(matches!(decode(&mut bad, BUS_LIMIT_BYTES), Err(FrameError::PeerChecksum { .. })));
            }
        }
    }

    #[test]
    fn length_zero_and_length_above_the_limit_are_refused_before_the_body_arrives() {
        let mut zero = BytesMut::from(&[0u8; 8][..]);
        assert!(matches!(decode(&mut zero, 10), Err(FrameError::PeerEmpty)));
        let mut huge = BytesMut::from(&[0xff; 8][..]);
        assert!(matches!(decode(&mut huge, BUS_LIMIT_BYTES), Err(FrameError::LimitLength { .. })));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, 128) {}
        }
    }
}
