//! Reads and verifies the ledger's files, also while the writer appends to them.
//!
//! It uses nothing of the writer but the format. Every byte of every file is accounted for: header, record, padding and the zeros
//! behind the last record; the first one that is wrong is named by the entry that it belongs to. A record that looks torn is
//! read again a few times before it is reported, because a live writer may be in the middle of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checkpoint::CheckpointError;
use super::set_backs::SetBacks;
use super::tree::TreeHash;
use super::unsigned::UnsignedEnd;
use super::{AuditEntry, ChainError, ChainVerifier, Hash};
use crate::exit::Exit;
use crate::proto::Sequence;
use crate::segment::{
    BadRecord, HEADER_BYTES, HeaderError, Kind, RawRecord, SegmentError, SegmentName, SegmentReader, list,
};

/// Postcard header of a ledger record: the entry, and what the writer must know again after a restart. The latter is protected by
/// the record's checksum only; it is the writer's bookmark, not evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHeader {
    /// The chained entry.
    pub entry: AuditEntry,
    /// Highest outbox id taken from the agent so far.
    pub outbox_id: u64,
    /// Epoch of the last WAL record that an `event-range` entry covers.
    pub covered_epoch: u64,
    /// Its number; 0: none.
    pub covered_number: u64,
}

impl LedgerHeader {
    /// The last WAL record that an `event-range` entry covers.
    #[must_use]
    pub fn covered(&self) -> Option<Sequence> {
        (self.covered_number > 0).then(|| Sequence::new(self.covered_epoch, self.covered_number))
    }
}

/// A verified entry with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    /// The entry.
    pub entry: AuditEntry,
    /// What its payload hash was made from.
    pub payload: Bytes,
    /// Highest outbox id taken when it was written.
    pub outbox_id: u64,
    /// Last covered WAL record when it was written.
    pub covered: Option<Sequence>,
    /// Its leaf in the ledger's tree, where a reader was asked for leaves.
    pub leaf: Option<Hash>,
}

/// The first bad entry.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", place(*.sequence, .file, *.offset, .what))]
pub struct LedgerError {
    /// The entry that is bad or missing, of a fork the first one that may be; everything before it verifies.
    pub sequence: u64,
    /// The segment.
    pub file: PathBuf,
    /// Where in the segment.
    pub offset: u64,
    /// What is wrong with it.
    #[source]
    pub what: LedgerFault,
}

fn place(sequence: u64, file: &Path, offset: u64, what: &LedgerFault) -> String {
    let file = file.display();
    match what {
        LedgerFault::CorruptFork { size, .. } => {
            format!("ledger, between entry {sequence} and entry {}, {file}", size.saturating_sub(1))
        }
        _ => format!("ledger entry {sequence}, {file} at byte {offset}"),
    }
}

impl LedgerError {
    /// The code that the shell sees.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match &self.what {
            LedgerFault::Segment(e) => e.exit(),
            LedgerFault::MisuseCheckpoint(_) => Exit::Usage,
            _ => Exit::Tampered,
        }
    }
}

/// What can be wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFault {
    /// Hash, order or payload.
    #[error(transparent)]
    CorruptChain(#[from] ChainError),
    /// A checkpoint of the ledger itself.
    #[error("a checkpoint is bad: {0}")]
    CorruptCheckpoint(CheckpointError),
    /// The newest entries are gone.
    #[error(
        "the ledger ends here, but it had {synced} entries on disk; its end was cut off, or it was copied file by file while it was \
         written (copy entries.durable and the checkpoints first)"
    )]
    CorruptEnd {
        /// Entries that the writer noted as synced.
        synced: u64,
    },
    /// Another history than the one that a checkpoint is over.
    #[error(
        "the tree over the first {size} entries has another root than the checkpoint says; one of these entries, or several, were replaced"
    )]
    CorruptFork {
        /// Entries before this one fit a checkpoint.
        from: u64,
        /// Entries that the checkpoint is over.
        size: u64,
    },
    /// The segment's header.
    #[error(transparent)]
    CorruptHeader(#[from] HeaderError),
    /// The keys do not follow from each other, or not from the one that is trusted.
    #[error("the chain of keys is broken: {0}")]
    CorruptKeys(String),
    /// The segment does not continue the one before it.
    #[error("the segment does not continue the one before it; a segment was replaced or cut")]
    CorruptOrder,
    /// Checksum, length, link, record header, bytes after the end.
    #[error(transparent)]
    CorruptRecord(#[from] BadRecord),
    /// A checkpoint is over more entries than there are.
    #[error(
        "a checkpoint is over {size} entries, and here the ledger ends; its end was cut off, or an older copy was put in its place"
    )]
    CorruptRollback {
        /// Entries that there were.
        size: u64,
    },
    /// A segment file is gone.
    #[error("the segment file is missing")]
    CorruptSegmentMissing,
    /// A tile holds something else than the entries below it say.
    #[error(
        "the tile does not fit the entries below it; it is derived: removed, it is made again by procmond's next start"
    )]
    CorruptTile,
    /// The file that names the tree's hash, or one that has to be there with it.
    #[error("{0}")]
    CorruptTree(String),
    /// The checkpoint from elsewhere is not one of this ledger, so it says nothing of it.
    #[error("the checkpoint that was given says nothing of this ledger: {0}; name the right one")]
    MisuseCheckpoint(CheckpointError),
    /// The file cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// How long a reader waits for a writer that is in the middle of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often a bad place is read again.
    pub tries: u32,
    /// Time between two reads.
    pub pause: Duration,
}

impl Patience {
    /// For files that nobody writes.
    pub const NONE: Self = Self { tries: 0, pause: Duration::ZERO };
    /// For a live ledger: a record is written by one call, which takes far less than this.
    pub const LIVE: Self = Self { tries: 10, pause: Duration::from_millis(20) };
}

/// Where a verification stands. Clone it at an entry to verify a prefix once and go on from there as often as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerVerifier {
    chain: ChainVerifier,
    segment: u64,
    offset: u64,
    crc: u32,
    epoch: u64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

impl Default for LedgerVerifier {
    fn default() -> Self {
        let offset = HEADER_BYTES as u64;
        Self { chain: ChainVerifier::default(), segment: 1, offset, crc: 0, epoch: 0, first_ms: None, last_ms: None }
    }
}

impl LedgerVerifier {
    /// What has been verified so far.
    #[must_use]
    pub const fn summary(&self) -> LedgerSummary {
        LedgerSummary {
            entries: self.chain.entries(),
            head: self.chain.head(),
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            segments: self.segment,
            root: None,
            checkpoints: 0,
            signed_entries: 0,
            unsynced_tiles: 0,
            set_backs: SetBacks::NONE,
            unsigned: UnsignedEnd::NONE,
            kept_entries: None,
            unlisted_keys: false,
        }
    }

    /// Segment number and offset at which the next entry is expected.
    #[must_use]
    pub const fn position(&self) -> (u64, u64) {
        (self.segment, self.offset)
    }

    fn enter(
        &mut self,
        number: u64,
        header: Result<Option<crate::segment::SegmentHeader>, HeaderError>,
    ) -> Result<bool, LedgerFault> {
        let Some(header) = header? else { return Ok(false) };
        let continues = header.segment == number
            && header.previous_crc == self.crc
            && header.first == self.chain.entries() + 1
            && header.epoch >= self.epoch;
        if !continues {
            return Err(LedgerFault::CorruptOrder);
        }
        self.segment = number;
        self.offset = HEADER_BYTES as u64;
        self.epoch = header.epoch;
        Ok(true)
    }

    fn take(
        &mut self,
        raw: &RawRecord,
        tree: Option<TreeHash>,
        canonical: &mut Vec<u8>,
    ) -> Result<LedgerRecord, LedgerFault> {
        if raw.previous_crc != self.crc {
            return Err(BadRecord::CorruptLink.into());
        }
        let header: LedgerHeader = raw.header()?;
        canonical.clear();
        header.entry.write_canonical(canonical);
        self.chain.step_canonical(&header.entry, canonical, Some(&raw.payload))?;
        self.offset = raw.offset + raw.bytes;
        self.crc = raw.crc;
        self.first_ms.get_or_insert(header.entry.timestamp_ms);
        self.last_ms = Some(header.entry.timestamp_ms);
        let covered = header.covered();
        let leaf = tree.map(|hash| hash.leaf(canonical));
        Ok(LedgerRecord {
            entry: header.entry,
            payload: raw.payload.clone(),
            outbox_id: header.outbox_id,
            covered,
            leaf,
        })
    }
}

/// A ledger that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerSummary {
    /// Verified entries.
    pub entries: u64,
    /// Hash of the last one.
    pub head: Hash,
    /// Time of the first one, ms since the Unix epoch.
    pub first_ms: Option<i64>,
    /// Time of the last one.
    pub last_ms: Option<i64>,
    /// Segment files begun.
    pub segments: u64,
    /// The root of the tree over all entries; `None` for a ledger that is a chain and no tree.
    pub root: Option<Hash>,
    /// Checkpoints of the ledger itself that were verified.
    pub checkpoints: u64,
    /// Entries that the last one of them is over.
    pub signed_entries: u64,
    /// Entries at which a tile became full that does not fit, and that the writer had not noted as synced: a power failure may have
    /// spoilt it, and the writer's next start makes it again.
    pub unsynced_tiles: u64,
    /// Where the collector's clock was set back; filled where the whole ledger is walked.
    pub set_backs: SetBacks,
    /// What stands behind the last checkpoint; filled where the whole ledger is walked.
    pub unsigned: UnsignedEnd,
    /// Entries that the checkpoint from elsewhere is over, of several the most.
    pub kept_entries: Option<u64>,
    /// Its entries name a key by which no checkpoint from elsewhere was judged.
    pub unlisted_keys: bool,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerProgress {
    /// Verified entries.
    pub entries: u64,
    /// Bytes walked over.
    pub bytes: u64,
    /// Bytes in all files when the verification began; a live ledger may pass it.
    pub total_bytes: u64,
}

/// Walks a ledger's directory entry by entry, verifying each one.
#[derive(Debug)]
pub struct LedgerReader {
    dir: PathBuf,
    name: SegmentName,
    patience: Patience,
    state: LedgerVerifier,
    reader: Option<SegmentReader>,
    leaves: Option<TreeHash>,
    /// Of the entry that is read; kept for its memory.
    canonical: Vec<u8>,
}

impl LedgerReader {
    /// Reads from the first entry, patient with a live writer.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(dir: &Path) -> Result<Self, SegmentError> {
        Self::resume(dir, LedgerVerifier::default(), Patience::LIVE)
    }

    /// Goes on where `from` stands.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn resume(dir: &Path, from: LedgerVerifier, patience: Patience) -> Result<Self, SegmentError> {
        let name = SegmentName::ledger();
        list(dir, &name)?;
        Ok(Self {
            dir: dir.to_owned(),
            name,
            patience,
            state: from,
            reader: None,
            leaves: None,
            canonical: Vec::new(),
        })
    }

    /// Gives each entry's leaf in a tree of this hash as well.
    #[must_use]
    pub const fn with_leaves(mut self, hash: Option<TreeHash>) -> Self {
        self.leaves = hash;
        self
    }

    /// Where the verification stands.
    #[must_use]
    pub const fn verifier(&self) -> &LedgerVerifier {
        &self.state
    }

    /// The next entry; `None` when no more are written. Can be called again later for entries written since.
    ///
    /// # Errors
    /// [`LedgerError`] names the first bad entry.
    pub fn advance(&mut self) -> Result<Option<LedgerRecord>, LedgerError> {
        let mut tries = 0;
        loop {
            let fault = match self.attempt() {
                Ok(record) => return Ok(record),
                Err(fault) => fault,
            };
            self.reader = None;
            if tries >= self.patience.tries
                || matches!(fault.what, LedgerFault::Segment(SegmentError::PeerNewerFormat { .. }))
            {
                return Err(fault);
            }
            tries += 1;
            std::thread::park_timeout(self.patience.pause);
        }
    }

    pub(super) fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(self.name.file(segment))
    }

    pub(super) fn fault(&self, segment: u64, offset: u64, what: impl Into<LedgerFault>) -> LedgerError {
        LedgerError { sequence: self.state.chain.entries(), file: self.path(segment), offset, what: what.into() }
    }

    fn attempt(&mut self) -> Result<Option<LedgerRecord>, LedgerError> {
        loop {
            let (segment, offset) = self.state.position();
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => match self.begin()? {
                    Some(reader) => reader,
                    None => return Ok(None),
                },
            };
            let step = reader.step().map_err(|e| self.fault(segment, offset, e))?;
            match step.map_err(|what| self.fault(segment, offset, what))? {
                Some(raw) => {
                    let taken = self.state.take(&raw, self.leaves, &mut self.canonical);
                    let record = taken.map_err(|what| self.fault(segment, offset, what))?;
                    self.reader = Some(reader);
                    return Ok(Some(record));
                }
                None if !reader.zero_to_the_end().map_err(|e| self.fault(segment, offset, e))? => {
                    return Err(self.fault(segment, offset, BadRecord::CorruptAfterEnd));
                }
                None => match self.follow(segment)? {
                    Some(next) => self.reader = Some(next),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Opens the segment in which the verification stands and checks its header again.
    fn begin(&mut self) -> Result<Option<SegmentReader>, LedgerError> {
        let (segment, offset) = self.state.position();
        let mut reader = self.open_segment(segment)?;
        if self.state == LedgerVerifier::default() {
            return self.enter(segment, reader);
        }
        match reader.header() {
            Ok(Some(_)) => {}
            Ok(None) => return Err(self.fault(segment, 0, HeaderError::CorruptMagic)),
            Err(what) => return Err(self.fault(segment, 0, what)),
        }
        reader.seek(offset);
        Ok(Some(reader))
    }

    /// The segment after `segment`, when it has been begun.
    fn follow(&mut self, segment: u64) -> Result<Option<SegmentReader>, LedgerError> {
        let segments = list(&self.dir, &self.name).map_err(|e| self.fault(segment, 0, e))?;
        if segments.iter().all(|(number, _)| *number <= segment) {
            return Ok(None);
        }
        let reader = self.open_segment(segment + 1)?;
        let next = self.enter(segment + 1, reader)?;
        if next.is_none() && segments.iter().any(|(number, _)| *number > segment + 1) {
            return Err(self.fault(segment + 1, 0, HeaderError::CorruptMagic));
        }
        Ok(next)
    }

    fn enter(&mut self, number: u64, mut reader: SegmentReader) -> Result<Option<SegmentReader>, LedgerError> {
        match self.state.enter(number, reader.header()) {
            Ok(true) => Ok(Some(reader)),
            Ok(false) => match reader.zero_to_the_end() {
                Ok(true) => Ok(None),
                Ok(false) => Err(self.fault(number, 0, BadRecord::CorruptAfterEnd)),
                Err(e) => Err(self.fault(number, 0, e)),
            },
            Err(what) => Err(self.fault(number, 0, what)),
        }
    }

    fn open_segment(&self, number: u64) -> Result<SegmentReader, LedgerError> {
        SegmentReader::open(&self.path(number), Kind::Ledger).map_err(|e| match e {
            SegmentError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                self.fault(number, 0, LedgerFault::CorruptSegmentMissing)
            }
            other => self.fault(number, 0, other),
        })
    }
}

impl Iterator for LedgerReader {
    type Item = Result<LedgerRecord, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
