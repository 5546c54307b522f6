//! The on-disk record format of the write-ahead log and the audit ledger: headers, record codec, readers.
//!
//! A log is a directory of segment files `<prefix>-NNNNN.<extension>`, numbered from 1 without gaps (a trimmed WAL starts
//! later). A segment is written full of zeros before it gets its name, so an append never grows a file; zeros, or the end
//! of the file, mean the end of the records. All integers are little-endian. The writer lives in `collector-core`; nothing
//! here writes, so whoever only reads (CLI, tests, an outside verifier) needs no more than this.
//!
//! # Segment header, 64 bytes at offset 0
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `DEYESEG\n` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | kind: 1 write-ahead log, 2 ledger |
//! | 12 | 4 | CRC32C of the record before this segment's first one, 0 when there is none |
//! | 16 | 8 | epoch of the writer |
//! | 24 | 8 | segment number, as in the file name |
//! | 32 | 8 | number after the last record before this segment; its first record has this one or, behind a gap that was told, a higher one |
//! | 40 | 20 | zero |
//! | 60 | 4 | CRC32C of bytes 0 to 59 |
//!
//! A header of zeros is a spare: prepared, not begun; then the whole file is zeros.
//!
//! # Record, at a multiple of 8
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length in bytes up to the end of the payload, padding excluded; 0: no record, the segment ends here |
//! | 4 | 4 | CRC32C over bytes 0 to 3 and 8 to the end of the padding |
//! | 8 | 4 | CRC of the record before (first of a segment: the header's) |
//! | 12 | 4 | length of the postcard header |
//! | 16 | 8 | `durable_upto`: number of the last record known to be synced when this one was written, 0: none |
//! | 24 | n | postcard header |
//! | 24+n | m | payload |
//! | … | 0–7 | zeros up to the next multiple of 8 |
//!
//! Record numbers grow from 1 and go on in the next epoch. Postcard header of the WAL: epoch `u64`, number
//! `u64`, topic `str`, time `i64` (µs since the Unix epoch); payload: protobuf. Postcard header of the ledger: the fields of
//! [`AuditEntry`](crate::ledger::AuditEntry) in order, then highest outbox id taken from the agent so far `u64`, then epoch
//! `u64` and number `u64` of the last WAL record that an `event-range` entry covers (0 0: none); payload: the entry's; the record number is the entry's
//! sequence plus one.
//!
//! # How a tail is judged
//!
//! Known to be synced is everything up to the highest of: `durable_upto` of any readable record; the number before the first one of
//! a segment that begins an epoch, because a log is judged and synced before a new run writes; the durable note.
//! A bad or missing record above it was never promised to anybody: it is a torn tail and is cut with
//! everything behind it, because pages reach the disk in any order. A bad or missing record at or below it is corruption.
//!
//! # Durable note, `<prefix>.durable`, 32 bytes
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `DEYEDUR\n` |
//! | 8 | 8 | epoch of the writer |
//! | 16 | 8 | number of the last record that is synced |
//! | 24 | 4 | zero |
//! | 28 | 4 | CRC32C of bytes 0 to 27 |

mod dir;
mod durable;
mod header;
mod open;
mod reader;
mod record;
mod wal;

pub use dir::{Bad, DirScan, SegmentName, SegmentScan, Tail, list, scan_dir};
pub use durable::DurableNote;
pub use header::{HeaderError, Kind, SegmentHeader};
pub use open::{open_regular, read_regular};
pub use reader::{RawRecord, SegmentReader};
pub use record::{BadRecord, Parsed, RecordView, encode, encoded_len, parse};
pub use wal::{DirReader, WalHeader};

/// First bytes of every segment.
pub const MAGIC: [u8; 8] = *b"DEYESEG\n";
/// Version of header and record layout together; a reader refuses a higher one.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a segment header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a record before its postcard header.
pub const PREFIX_BYTES: usize = 24;
/// Longest record in bytes: one socket frame plus its header, so nothing is written that the bus cannot carry. It bounds what a
/// damaged length makes a reader allocate.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024 + 4096;
/// Longest segment in bytes: what `wal.segment_bytes` and `ledger.segment_bytes` may be, and the record that made it longer. It bounds how
/// long a reader is busy with a file of zeros.
pub const MAX_SEGMENT_BYTES: u64 = (1 << 30) + MAX_RECORD_BYTES as u64;

/// Why a log cannot be read at all; damage inside it is [`BadRecord`] and [`HeaderError`].
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The operating system refused.
    #[error("cannot {operation} {path}: {source}; check that the directory exists and who owns it", path = .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error("{path} has format version {found}; this build reads up to {FORMAT_VERSION}: use a newer build", path = .path.display())]
    PeerNewerFormat {
        /// The segment.
        path: std::path::PathBuf,
        /// Its version.
        found: u16,
    },
}

impl SegmentError {
    pub(crate) fn io(operation: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// The code a program ends with when it cannot go on after this.
    #[must_use]
    pub const fn exit(&self) -> crate::exit::Exit {
        match self {
            Self::Io { .. } => crate::exit::Exit::Unreadable,
            Self::PeerNewerFormat { .. } => crate::exit::Exit::NewerFormat,
        }
    }
}
