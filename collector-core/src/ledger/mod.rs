//! Writes the audit ledger: a BLAKE3 chain in segment files, synced before a batch counts as written, with a Merkle tree over it
//! whose checkpoints are signed.
//!
//! Reading and verifying is [`daemoneye_lib::ledger`]. A torn tail was never acknowledged to anybody and is cut at the next
//! start. Damage to what had been synced is left exactly as it is, so that `audit verify` keeps naming it, and the chain goes on
//! from the last entry that can be read.

pub(crate) mod agents;
mod growth;
mod seed;
mod signing;
mod tail;
mod twin;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daemoneye_lib::ledger::clock::LedgerClock;
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::tiles::{GrowingTree, Tile};
use daemoneye_lib::ledger::{AuditEntry, CHECKPOINT_ENTRIES, Hash, LedgerFiles, LedgerHeader};
use daemoneye_lib::proto::{AuditAppend, AuditAppended, Sequence};
use daemoneye_lib::segment::{Kind, MAX_RECORD_BYTES, SegmentName, encode, encoded_len};

use tokio::sync::Notify;

use self::signing::Signing;
pub use self::signing::{SigningError, TreeOptions};
use self::tail::Tail;

use crate::disk::{Disk, RealDisk};
use crate::error::CollectorError;
use crate::lock::DirLock;
use crate::platform;
use crate::writer::{LogOptions, SegmentLog, SyncNote};

/// Room that the header of a record takes besides actor and action: three hashes, numbers, prefix.
const HEADERS_BYTES: usize = 192;

/// Tiles that wait for the next checkpoint, in 8 KiB each: more than four minutes of a thousand entries a second. What does not
/// fit is made again when it is synced.
const WAITING_TILES: usize = 1024;

/// How a ledger is set up.
#[derive(Clone)]
pub struct LedgerOptions {
    /// Created 0750 when it does not exist; files are 0640.
    pub dir: PathBuf,
    /// Bytes of a segment; also the bound of an entry.
    pub segment_bytes: u64,
    /// The disk; [`RealDisk`] outside tests.
    pub disk: Arc<dyn Disk>,
    /// The tree and who signs it; `None`: a plain chain.
    pub tree: Option<TreeOptions>,
}

impl LedgerOptions {
    /// The default: 4 MiB segments.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: 4 * 1024 * 1024, disk: Arc::new(RealDisk), tree: None }
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
    /// What the collector's clock went through in them; `None`: that cannot be read now.
    pub clock: Option<LedgerClock>,
}

/// Where the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerHead {
    /// Entries.
    pub entries: u64,
    /// Hash of the last one, [`GENESIS`](daemoneye_lib::ledger::GENESIS) without one.
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
    tree: Option<GrowingTree>,
    /// Full and not yet on disk, oldest first.
    tiles: Vec<Tile>,
    canonical: Vec<u8>,
    /// Size of the tree when it was last signed, or that was tried.
    signed: u64,
    due: Arc<Notify>,
}

/// An open ledger. Appends block until they are synced; from async code they belong on a blocking thread.
pub struct Ledger {
    dir: PathBuf,
    inner: Mutex<Inner>,
    /// Apart from `inner`, which is held while the disk syncs: whoever only asks where the ledger stands does not wait for that.
    synced: Arc<Mutex<LedgerHead>>,
    /// Held while a checkpoint is made, which appends do not wait for. Before `inner`, never behind it.
    signing: Option<Mutex<Signing>>,
    due: Arc<Notify>,
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
        let clock = read_clock(&dir);
        let mut damage = tail.damage;
        let mut grown = None;
        if let Some(tree) = &options.tree {
            let mut growth = growth::grow(&log, tree, entries)?;
            // A tree over what is left of a damaged ledger would be another one than before.
            growth.refused = growth.refused.or_else(|| damage.clone());
            grown = Some(growth);
        }
        let begun = SegmentLog::begin(log.clone(), tail.segment + 1, tail.epoch + 1, entries + 1, tail.crc)?;
        let synced = Arc::new(Mutex::new(tail.head));
        let due = Arc::new(Notify::new());
        let mut inner = Inner {
            log: begun,
            head: tail.head,
            durable: entries,
            failed: None,
            note,
            synced: Arc::clone(&synced),
            tree: None,
            tiles: Vec::new(),
            canonical: Vec::new(),
            signed: entries,
            due: Arc::clone(&due),
        };
        let mut signing = None;
        if let Some((mut growth, tree)) = grown.zip(options.tree) {
            inner.tree = growth.tree.take();
            let mut begun = Signing::begin(&log, tree, growth)?;
            if let Some(draft) = begun.entry {
                inner.append(&dir, &[Placed::of(&draft)])?;
            }
            match begun.signing.refused() {
                Some(why) => damage = damage.or_else(|| Some(why.to_owned())),
                None => begun.signing.settle()?,
            }
            signing = Some(Mutex::new(begun.signing));
        }
        let found = LedgerFound { entries, torn_bytes: tail.torn_bytes, damage, last_us: tail.last_us, clock };
        Ok((Self { dir, inner: Mutex::new(inner), synced, signing, due, _lock: lock }, found))
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
        let drafts: Vec<Placed<'_>> = drafts.iter().map(Placed::of).collect();
        inner.append(&self.dir, &drafts)
    }

    /// Chains `event-range` entries, each with how far it covers the WAL: of a batch that was torn the rest is still to be covered.
    ///
    /// # Errors
    /// As [`Self::append_batch`]; what was chained before is in [`Self::head`].
    pub fn append_ranges(&self, ranges: &[(Draft, Sequence)]) -> Result<Vec<AuditEntry>, CollectorError> {
        let drafts = ranges.iter().map(|(draft, covered)| Placed { covered: Some(*covered), ..Placed::of(draft) });
        self.lock().append(&self.dir, &drafts.collect::<Vec<_>>())
    }

    /// Takes the agent's entries; in place of one that is not the agent's to write stands one that says so. An id at or below the last one taken is acknowledged and not written again, also after a restart. One
    /// far above it is refused: it would leave no ids for those that follow.
    ///
    /// # Errors
    /// As [`Self::append_batch`].
    pub fn append_audit(&self, appends: &[AuditAppend]) -> Result<AuditAppended, CollectorError> {
        let mut inner = self.lock();
        let mut taken = inner.head.outbox_id;
        let mut drafts = Vec::new();
        for append in appends {
            if append.outbox_id > agents::last_id(taken) {
                drafts.push((agents::leap(append), taken));
            } else if append.outbox_id > taken {
                taken = append.outbox_id;
                drafts.push((agents::draft(append), append.outbox_id));
            }
        }
        let drafts = drafts.iter().map(|(draft, id)| Placed { outbox_id: *id, ..Placed::of(draft) });
        inner.append(&self.dir, &drafts.collect::<Vec<_>>())?;
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

    /// Signs what the tree is now and keeps the note; on disk when this returns. `None`: nothing is new, or there is no tree. Appends
    /// go on meanwhile.
    ///
    /// # Errors
    /// [`SigningError`]; the next call tries again.
    pub fn checkpoint(&self) -> Result<Option<String>, SigningError> {
        let Some(signing) = &self.signing else { return Ok(None) };
        self.sign(&mut signing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sign(&self, signing: &mut Signing) -> Result<Option<String>, SigningError> {
        let (hash, size, root, tiles) = {
            let mut inner = self.lock();
            let tiles = std::mem::take(&mut inner.tiles);
            inner.signed = inner.head.entries;
            // Behind a failed sync nobody knows what is on the disk.
            match inner.tree.as_ref().filter(|_| inner.failed.is_none()) {
                Some(tree) => (tree.hash(), tree.size(), tree.root(), tiles),
                None => return Ok(None),
            }
        };
        let mut waiting = tiles.into_iter();
        while let Some(tile) = waiting.next() {
            if let Err(error) = signing.write_tile(&tile) {
                let mut inner = self.lock();
                let newer = std::mem::take(&mut inner.tiles);
                inner.tiles = std::iter::once(tile).chain(waiting).chain(newer).collect();
                return Err(error.into());
            }
        }
        signing.sign(hash, size, root)
    }

    /// Goes over to a new key: an entry that the old one signs, and a checkpoint of the new one. The key that verifies from now on, and
    /// that checkpoint's note; `None` while it could not be signed yet.
    ///
    /// # Errors
    /// [`SigningError`]; the old key stays.
    pub fn rotate_key(&self) -> Result<(VerifierKey, Option<String>), SigningError> {
        let none = || SigningError::Refused("this ledger has no tree".to_owned());
        let mut signing = self.signing.as_ref().ok_or_else(none)?.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, draft) = signing.next_key()?;
        let key = next.verifier().clone();
        {
            let mut inner = self.lock();
            inner.append(&self.dir, &[Placed::of(&draft)])?;
        }
        // From here on the ledger names the new key: whoever is told of an error would ask again and get one more.
        let signed = signing.hand_over(next).and_then(|()| self.sign(&mut signing));
        let note = signed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the new key has not signed yet; the next checkpoint makes up for it");
            None
        });
        Ok((key, note))
    }

    /// Returns when there are enough new entries for a checkpoint.
    pub async fn due(&self) {
        self.due.notified().await;
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

/// What a ledger's files say of its collector's clock, as far as they reach; `None`: they cannot be read now.
pub(crate) fn read_clock(dir: &Path) -> Option<LedgerClock> {
    let read = LedgerFiles::open(dir).and_then(|files| files.clock());
    let say = |error: &_| {
        tracing::warn!(
            %error,
            "what the clock went through cannot be read; the next heartbeat tries again, and until then silence is not shown"
        );
    };
    read.inspect_err(say).ok()
}

/// Lower-case hex of a hash.
pub(crate) fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// An entry to chain, and what it brings with it.
struct Placed<'a> {
    draft: &'a Draft,
    /// Of the agent's outbox; 0: as before.
    outbox_id: u64,
    /// How far it covers the WAL; `None`: as before.
    covered: Option<Sequence>,
}

impl<'a> Placed<'a> {
    const fn of(draft: &'a Draft) -> Self {
        Self { draft, outbox_id: 0, covered: None }
    }
}

impl Inner {
    fn append(&mut self, dir: &Path, drafts: &[Placed<'_>]) -> Result<Vec<AuditEntry>, CollectorError> {
        if let Some(message) = &self.failed {
            return Err(CollectorError::SyncFailed { path: dir.to_owned(), message: message.clone() });
        }
        let limit = usize::try_from(self.log.largest()).unwrap_or(MAX_RECORD_BYTES).min(MAX_RECORD_BYTES);
        for Placed { draft, .. } in drafts {
            let bytes = encoded_len(HEADERS_BYTES, draft.actor.len() + draft.action.len() + draft.payload.len());
            if bytes > limit {
                return Err(CollectorError::LimitRecord { bytes, limit });
            }
        }
        let mut entries = Vec::with_capacity(drafts.len());
        let written = self.write(drafts, &mut entries);
        // Entries of an earlier write call of this batch are chained already, so they are synced even when a later one failed.
        self.sync_active()?;
        self.durable = self.head.entries;
        if self.tree.is_some() && self.durable.saturating_sub(self.signed) >= CHECKPOINT_ENTRIES {
            self.due.notify_one();
        }
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

    fn write(&mut self, drafts: &[Placed<'_>], entries: &mut Vec<AuditEntry>) -> Result<(), CollectorError> {
        let (mut bytes, mut crc, mut head, mut pending) = (Vec::new(), self.log.crc(), self.head, Vec::new());
        for Placed { draft, outbox_id, covered } in drafts {
            let Draft { actor, action, timestamp_ms, payload } = draft;
            let (sequence, canonical) = (head.entries, &mut self.canonical);
            let entry =
                AuditEntry::link_canonical(sequence, head.hash, *timestamp_ms, actor, action, payload, canonical);
            let leaf = self.tree.as_ref().map(|tree| tree.hash().leaf(canonical));
            let outbox_id = head.outbox_id.max(*outbox_id);
            let covered = covered.or(head.covered);
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
            pending.push((header.entry, leaf));
        }
        self.put(&bytes, crc, head, &mut pending, entries)
    }

    fn put(
        &mut self,
        bytes: &[u8],
        crc: u32,
        head: LedgerHead,
        pending: &mut Vec<(AuditEntry, Option<Hash>)>,
        entries: &mut Vec<AuditEntry>,
    ) -> Result<(), CollectorError> {
        if !bytes.is_empty() {
            self.log.write(bytes, crc)?;
            self.head = head;
            for (entry, leaf) in pending.drain(..) {
                entries.push(entry);
                if let Some((tree, leaf)) = self.tree.as_mut().zip(leaf) {
                    tree.push(leaf, |tile| self.tiles.push(tile));
                }
            }
            let excess = self.tiles.len().saturating_sub(WAITING_TILES);
            self.tiles.drain(..excess);
        }
        Ok(())
    }
}
