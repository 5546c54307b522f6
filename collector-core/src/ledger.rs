//! Writes the audit ledger: a BLAKE3 chain in segment files, synced before a batch counts as written.
//!
//! Reading and verifying is [`daemoneye_lib::ledger`]. A torn tail was never acknowledged to anybody and is cut at the next
//! start. Damage to what had been synced is left exactly as it is, so that `audit verify` keeps naming it, and the chain goes on
//! from the last entry that can be read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daemoneye_lib::ledger::{AuditEntry, GENESIS, Hash, LedgerHeader};
use daemoneye_lib::proto::{AuditAppend, AuditAppended, Sequence};
use daemoneye_lib::segment::{
    DurableNote, HEADER_BYTES, HeaderError, Kind, MAX_RECORD_BYTES, SegmentName, SegmentReader, encode, encoded_len,
    list,
};

use crate::disk::{Disk, RealDisk};
use crate::error::CollectorError;
use crate::lock::DirLock;
use crate::platform;
use crate::writer::{LogOptions, SegmentLog, SyncNote};

/// Room that the header of a record takes besides actor and action: three hashes, numbers, prefix.
const HEADERS_BYTES: usize = 192;

/// How a ledger is set up.
#[derive(Clone)]
pub struct LedgerOptions {
    /// Created 0750 when it does not exist; files are 0640.
    pub dir: PathBuf,
    /// Bytes of a segment; also the bound of an entry.
    pub segment_bytes: u64,
    /// The disk; [`RealDisk`] outside tests.
    pub disk: Arc<dyn Disk>,
}

impl LedgerOptions {
    /// The default: 4 MiB segments.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: 4 * 1024 * 1024, disk: Arc::new(RealDisk) }
    }
}

/// An entry to be chained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// ms since the Unix epoch.
    pub timestamp_ms: i64,
    /// JSON.
    pub payload: Vec<u8>,
}

impl Draft {
    /// An act of this moment.
    #[must_use]
    pub fn now(actor: impl Into<String>, action: impl Into<String>, payload: Vec<u8>) -> Self {
        let timestamp_ms = crate::wal::now_us() / 1000;
        Self { actor: actor.into(), action: action.into(), timestamp_ms, payload }
    }
}

/// What was found when the ledger was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFound {
    /// Entries of earlier runs.
    pub entries: u64,
    /// Bytes of a torn tail that were cut.
    pub torn_bytes: u64,
    /// What is damaged, in words; the files are left as they are.
    pub damage: Option<String>,
    /// Time of the last entry, µs since the Unix epoch: the last sign of life of earlier runs, which wrote one at least each second
    /// while there were events.
    pub last_us: Option<i64>,
}

/// Where the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerHead {
    /// Entries.
    pub entries: u64,
    /// Hash of the last one, [`GENESIS`] without one.
    pub hash: Hash,
    /// Highest outbox id taken from the agent.
    pub outbox_id: u64,
    /// Last WAL record that an `event-range` entry covers.
    pub covered: Option<Sequence>,
}

struct Inner {
    log: SegmentLog,
    head: LedgerHead,
    durable: u64,
    failed: Option<String>,
    note: Option<SyncNote>,
    synced: Arc<Mutex<LedgerHead>>,
}

/// An open ledger. Appends block until they are synced; from async code they belong on a blocking thread.
pub struct Ledger {
    dir: PathBuf,
    inner: Mutex<Inner>,
    /// Apart from `inner`, which is held while the disk syncs: whoever only asks where the ledger stands does not wait for that.
    synced: Arc<Mutex<LedgerHead>>,
    _lock: DirLock,
}

impl Ledger {
    /// Opens or creates the ledger and goes on behind its last entry.
    ///
    /// # Errors
    /// [`CollectorError`]: the directory is in use, of a newer version, or cannot be written.
    pub fn open(options: LedgerOptions) -> Result<(Self, LedgerFound), CollectorError> {
        let dir = options.dir;
        platform::create_dir(&dir, 0o750).map_err(|e| CollectorError::io("create", &dir, e))?;
        let lock = DirLock::take(&dir, 0o640)?;
        let directory = options.disk.open_dir(&dir).map_err(|e| CollectorError::io("open", &dir, e))?;
        let log = LogOptions {
            disk: options.disk,
            directory,
            dir: dir.clone(),
            name: SegmentName::ledger(),
            kind: Kind::Ledger,
            mode: 0o640,
            segment_bytes: options.segment_bytes,
        };
        log.clean()?;
        let note = SyncNote::open(&log);
        let tail = Tail::find(&log)?;
        let entries = tail.head.entries;
        let found = LedgerFound { entries, torn_bytes: tail.torn_bytes, damage: tail.damage, last_us: tail.last_us };
        let log = SegmentLog::begin(log, tail.segment + 1, tail.epoch + 1, entries + 1, tail.crc)?;
        let synced = Arc::new(Mutex::new(tail.head));
        let inner = Inner { log, head: tail.head, durable: entries, failed: None, note, synced: Arc::clone(&synced) };
        Ok((Self { dir, inner: Mutex::new(inner), synced, _lock: lock }, found))
    }

    /// Chains one entry and syncs it.
    ///
    /// # Errors
    /// As [`Self::append_batch`].
    pub fn append(&self, draft: Draft) -> Result<AuditEntry, CollectorError> {
        let mut entries = self.append_batch(std::slice::from_ref(&draft))?;
        entries.pop().ok_or(CollectorError::LimitRecord { bytes: draft.payload.len(), limit: 0 })
    }

    /// Chains entries and syncs them together; all of them or none.
    ///
    /// # Errors
    /// [`CollectorError`]; after [`CollectorError::SyncFailed`] nothing is taken any more.
    pub fn append_batch(&self, drafts: &[Draft]) -> Result<Vec<AuditEntry>, CollectorError> {
        let mut inner = self.lock();
        let drafts: Vec<(&Draft, u64)> = drafts.iter().map(|draft| (draft, 0)).collect();
        let covered = inner.head.covered;
        inner.append(&self.dir, &drafts, covered)
    }

    /// Chains an `event-range` entry that covers the WAL up to `covered`.
    ///
    /// # Errors
    /// As [`Self::append_batch`].
    pub fn append_range(&self, drafts: &[Draft], covered: Sequence) -> Result<Vec<AuditEntry>, CollectorError> {
        let drafts: Vec<(&Draft, u64)> = drafts.iter().map(|draft| (draft, 0)).collect();
        self.lock().append(&self.dir, &drafts, Some(covered))
    }

    /// Takes the agent's entries. An id at or below the last one taken is acknowledged and not written again, also after a restart.
    ///
    /// # Errors
    /// As [`Self::append_batch`].
    pub fn append_audit(&self, appends: &[AuditAppend]) -> Result<AuditAppended, CollectorError> {
        let mut inner = self.lock();
        let mut taken = inner.head.outbox_id;
        let mut drafts = Vec::new();
        for append in appends {
            if append.outbox_id > taken {
                taken = append.outbox_id;
                let AuditAppend { actor, action, timestamp_ms, payload, .. } = append.clone();
                drafts.push((Draft { actor, action, timestamp_ms, payload }, append.outbox_id));
            }
        }
        let drafts: Vec<(&Draft, u64)> = drafts.iter().map(|(draft, id)| (draft, *id)).collect();
        let covered = inner.head.covered;
        inner.append(&self.dir, &drafts, covered)?;
        let head = inner.head;
        Ok(AuditAppended {
            last_outbox_id: head.outbox_id,
            last_sequence: head.entries.saturating_sub(1),
            last_hash: hex(&head.hash),
        })
    }

    /// Where it stands on the disk. Never waits for an append.
    #[must_use]
    pub fn head(&self) -> LedgerHead {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lower-case hex of a hash.
pub(crate) fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

impl Inner {
    fn append(
        &mut self,
        dir: &Path,
        drafts: &[(&Draft, u64)],
        covered: Option<Sequence>,
    ) -> Result<Vec<AuditEntry>, CollectorError> {
        if let Some(message) = &self.failed {
            return Err(CollectorError::SyncFailed { path: dir.to_owned(), message: message.clone() });
        }
        let limit = usize::try_from(self.log.largest()).unwrap_or(MAX_RECORD_BYTES).min(MAX_RECORD_BYTES);
        for (draft, _) in drafts {
            let bytes = encoded_len(HEADERS_BYTES, draft.actor.len() + draft.action.len() + draft.payload.len());
            if bytes > limit {
                return Err(CollectorError::LimitRecord { bytes, limit });
            }
        }
        let mut entries = Vec::with_capacity(drafts.len());
        let written = self.write(drafts, covered, &mut entries);
        // Entries of an earlier write call of this batch are chained already, so they are synced even when a later one failed.
        self.sync_active()?;
        self.durable = self.head.entries;
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = self.head;
        written.map(|()| entries)
    }

    fn sync_active(&mut self) -> Result<(), CollectorError> {
        self.log.sync().map_err(|error| {
            self.failed = Some(error.to_string());
            CollectorError::SyncFailed { path: self.log.path(), message: error.to_string() }
        })?;
        if let Some(note) = &self.note {
            note.write(self.log.epoch(), self.head.entries);
        }
        Ok(())
    }

    fn write(
        &mut self,
        drafts: &[(&Draft, u64)],
        covered: Option<Sequence>,
        entries: &mut Vec<AuditEntry>,
    ) -> Result<(), CollectorError> {
        let (mut bytes, mut crc, mut head, mut pending) = (Vec::new(), self.log.crc(), self.head, Vec::new());
        for (draft, outbox_id) in drafts {
            let Draft { actor, action, timestamp_ms, payload } = draft;
            let entry = AuditEntry::link(head.entries, head.hash, *timestamp_ms, actor, action, payload);
            let outbox_id = head.outbox_id.max(*outbox_id);
            let place = covered.unwrap_or_default();
            let header = LedgerHeader { entry, outbox_id, covered_epoch: place.epoch, covered_number: place.number };
            let too_long = |_| CollectorError::LimitRecord { bytes: payload.len(), limit: MAX_RECORD_BYTES };
            let before = bytes.len();
            let mut record_crc = encode(&mut bytes, crc, self.durable, &header, payload).map_err(too_long)?;
            if bytes.len() as u64 > self.log.room() {
                bytes.truncate(before);
                self.put(&bytes, crc, head, &mut pending, entries)?;
                bytes.clear();
                // Before anything of the next segment can reach the disk: a hole in the middle could not be told from tampering.
                self.sync_active()?;
                self.log.rotate(head.entries + 1)?;
                record_crc = encode(&mut bytes, crc, self.durable, &header, payload).map_err(too_long)?;
            }
            crc = record_crc;
            head = LedgerHead { entries: head.entries + 1, hash: header.entry.entry_hash, outbox_id, covered };
            pending.push(header.entry);
        }
        self.put(&bytes, crc, head, &mut pending, entries)
    }

    fn put(
        &mut self,
        bytes: &[u8],
        crc: u32,
        head: LedgerHead,
        pending: &mut Vec<AuditEntry>,
        entries: &mut Vec<AuditEntry>,
    ) -> Result<(), CollectorError> {
        if !bytes.is_empty() {
            self.log.write(bytes, crc)?;
            self.head = head;
            entries.append(pending);
        }
        Ok(())
    }
}

/// The end of a ledger that was left at any instant.
struct Tail {
    segment: u64,
    epoch: u64,
    crc: u32,
    head: LedgerHead,
    torn_bytes: u64,
    damage: Option<String>,
    last_us: Option<i64>,
}

impl Tail {
    /// Looks at the newest segments only: those before were complete and synced when the next one was begun.
    fn find(log: &LogOptions) -> Result<Self, CollectorError> {
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
