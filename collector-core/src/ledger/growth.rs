//! The tree of a ledger that is opened: taken up from its tiles, held against the newest checkpoint, repaired where tiles are
//! missing or wrong.
//!
//! A sync for each tile would bound the ledger at some hundred tiles a second, so tiles are synced behind the appends, and a note says
//! up to which entry that is done. A start reads the tiles that the newest checkpoint's root is made of, and the entries behind it. Tiles
//! between the note and that checkpoint are held against their entries when they are synced, a few with each checkpoint.

use std::path::Path;

use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::keys::{CREATED, KeyEntry, ROTATED};
use daemoneye_lib::ledger::note::VerifierKey;
use daemoneye_lib::ledger::notes::{StoredCheckpoints, keys_file, read_text};
use daemoneye_lib::ledger::tiles::{
    GrowingTree, StoredTree, TILE_BYTES, TILE_WIDTH, Tile, TreeError, read_tile, tile_path, tiles_name, tree_file,
    tree_hash,
};
use daemoneye_lib::ledger::tree::TreeHash;
use daemoneye_lib::ledger::{LedgerFiles, LedgerRecord, UnsignedEnd};
use daemoneye_lib::segment::DurableNote;

use super::signing::TreeOptions;
use super::twin;
use crate::error::CollectorError;
use crate::platform;
use crate::writer::{LogOptions, SyncNote};

const WIDTH: u64 = TILE_WIDTH as u64;
/// Tiles that one checkpoint syncs: more than a checkpoint's thousand entries fill, few enough for it to come at once.
const SYNCED_AT_ONCE: usize = 16;
/// Missing tiles that are each made from their own entries, for which half a segment is read on the average; with more of them, one
/// walk over all entries reads less.
const FILLED_ONE_BY_ONE: usize = 64;

/// Wrong tiles that are held while it is not known whether they may be overwritten, in 8 KiB each. Further ones are mended when they are
/// synced.
const DIFFERING_TILES: usize = 512;

/// The tree and what its beginning says.
pub(super) struct Grown {
    /// `None`: its entries cannot be read.
    pub(super) tree: Option<GrowingTree>,
    pub(super) stored: StoredCheckpoints,
    /// Tiles that may not be on disk yet.
    pub(super) unsynced: UnsyncedTiles,
    /// Keys that entries behind the newest checkpoint name.
    pub(super) keys: Vec<VerifierKey>,
    /// They are those of all entries.
    pub(super) all_keys: bool,
    /// The entries behind the newest checkpoint, all where there is none.
    pub(super) unsigned: UnsignedEnd,
    /// Why nothing may be signed.
    pub(super) refused: Option<String>,
}

/// Why a tree cannot be taken up.
#[derive(Debug, thiserror::Error)]
enum GrowthError {
    #[error(transparent)]
    Disk(#[from] CollectorError),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The tree over the first `entries` of a ledger.
pub(super) fn grow(log: &LogOptions, options: &TreeOptions, entries: u64) -> Result<Grown, CollectorError> {
    let (stored, unreadable) = match StoredCheckpoints::read(&log.dir) {
        Ok(stored) => (stored, None),
        Err(error) => (StoredCheckpoints::default(), Some(error.to_string())),
    };
    let newest = stored.newest.as_ref().map(|newest| newest.checkpoint.clone());
    let unsynced = UnsyncedTiles::open(log)?;
    let mut grown = Grown {
        tree: None,
        stored,
        unsynced,
        keys: Vec::new(),
        all_keys: false,
        unsigned: UnsignedEnd::NONE,
        refused: unreadable,
    };
    let wanted = options.hash;
    let hash = match tree_hash(&log.dir) {
        Ok(Some(hash)) => hash,
        Ok(None) => {
            write_whole(log, &tree_file(&log.dir), format!("{}\n", wanted.word()).as_bytes())?;
            wanted
        }
        Err(error) => {
            grown.refused.get_or_insert(error.to_string());
            return Ok(grown);
        }
    };
    if let Some(size) = newest.as_ref().map(|newest| newest.size).filter(|size| *size > entries) {
        let text = format!(
            "a checkpoint is over {size} entries, and there are {entries}: the end was cut off or an older copy put back"
        );
        grown.refused.get_or_insert(text);
    }
    let newest = newest.filter(|newest| newest.size <= entries);
    match (Growth { log, hash, entries, newest }).tree(&mut grown) {
        Ok((tree, fits)) => {
            grown.tree = Some(tree);
            if !fits {
                let text = "the newest checkpoint has another root than the entries: entries before it were replaced";
                grown.refused.get_or_insert_with(|| text.to_owned());
            }
        }
        Err(GrowthError::Disk(error)) => return Err(error),
        Err(GrowthError::Tree(error)) => drop(grown.refused.get_or_insert(error.to_string())),
    }
    if grown.refused.is_none() {
        grown.refused = twin::lacks(log, options, entries, &grown);
    }
    Ok(grown)
}

struct Growth<'a> {
    log: &'a LogOptions,
    hash: TreeHash,
    entries: u64,
    newest: Option<Checkpoint>,
}

impl Growth<'_> {
    /// The tree, and whether it goes on from the newest checkpoint.
    fn tree(&self, grown: &mut Grown) -> Result<(GrowingTree, bool), GrowthError> {
        let signed = self.newest.as_ref().map_or(0, |newest| newest.size);
        let synced = grown.unsynced.synced.min(signed) / WIDTH * WIDTH;
        let is_whole = !self.keys_are_lost(grown)? && self.fill_gaps(synced, true)?;
        let newest =
            if is_whole && self.fill_gaps(signed / WIDTH * WIDTH, false)? { signed / WIDTH * WIDTH } else { 0 };
        let mut bases = [newest.max(synced), synced, 0].into_iter().filter(|base| is_whole || *base == 0);
        let mut base = bases.next().unwrap_or(0);
        let mut found = self.from(base, grown)?;
        while !found.1
            && let Some(next) = bases.find(|next| *next < base)
        {
            tracing::warn!(
                base,
                "the ledger's tiles do not have the root of the newest checkpoint; they are made again"
            );
            base = next;
            found = self.from(base, grown)?;
        }
        Ok(found)
    }

    /// Whether the file of keys does not end with the one that signed last, so that all of them have to be read from the entries.
    /// It does not behind a new key that has signed nothing yet either.
    fn keys_are_lost(&self, grown: &Grown) -> Result<bool, CollectorError> {
        let text = read_text(&keys_file(&self.log.dir))?.unwrap_or_default();
        let signed = |note: &str| {
            let last = text.lines().last().and_then(|line| line.parse::<VerifierKey>().ok());
            last.is_some_and(|key| Checkpoint::verified(note, &key).is_ok())
        };
        Ok(grown.stored.newest.as_ref().is_some_and(|newest| !signed(&newest.note)))
    }

    /// Makes the tree and mends its tiles in one walk, which for a ledger whose tiles are lost is over all entries.
    fn from(&self, base: u64, grown: &mut Grown) -> Result<(GrowingTree, bool), GrowthError> {
        grown.keys.clear();
        grown.unsigned = UnsignedEnd::NONE;
        grown.all_keys = base == 0;
        let dir = &self.log.dir;
        let mut tree = match base {
            0 => GrowingTree::new(self.hash),
            _ => GrowingTree::resume(StoredTree::open(dir, self.hash, base)?)?,
        };
        let fit = |tree: &GrowingTree| match &self.newest {
            Some(newest) => newest.size == tree.size() && newest.root == tree.root(),
            None => true,
        };
        let mut mending = Mending::default();
        if fit(&tree) {
            mending.is_signed(self.log)?;
        }
        let mut rest = LedgerFiles::open(dir).and_then(|files| files.from(base)).map_err(TreeError::from)?;
        while tree.size() < self.entries {
            let LedgerRecord { entry, payload, .. } = rest.numbered(tree.size())?;
            let mut mended = Ok(());
            tree.push(self.hash.leaf(&entry.canonical_bytes()), |tile| {
                if mended.is_ok() {
                    mended = mending.take(self.log, tile);
                }
            });
            mended?;
            if !mending.signed && fit(&tree) {
                mending.is_signed(self.log)?;
            }
            grown.unsigned.take(&entry, &payload);
            if [CREATED, ROTATED].contains(&entry.action.as_str()) {
                grown.keys.extend(KeyEntry::parse(&payload).map(|entry| entry.key));
            }
        }
        if !mending.signed {
            mending.undo(self.log)?;
            return Ok((tree, false));
        }
        let unmended = if mending.shed { tree.size() } else { base };
        grown.unsynced.begin(base, unmended);
        Ok((tree, true))
    }

    /// Makes the tiles below `size` again that are missing, lowest level first, if it is to `fill` them; `false`: too many are.
    fn fill_gaps(&self, size: u64, fill: bool) -> Result<bool, GrowthError> {
        let (mut level, mut count, mut missing) = (0, size / WIDTH, 0);
        while count > 0 {
            for index in 0..count {
                let path = tile_path(&self.log.dir, level, index);
                if std::fs::metadata(path).is_ok_and(|found| found.len() == TILE_BYTES as u64) {
                    continue;
                }
                missing += 1;
                if missing > FILLED_ONE_BY_ONE {
                    return Ok(false);
                }
                if !fill {
                    continue;
                }
                let mut stored = StoredTree::open(&self.log.dir, self.hash, 0)?;
                let hashes = stored.tile(level, index)?;
                // Found again as missing, should the power fail before it is on disk.
                write_tile(self.log, &Tile { level, index, hashes })?;
            }
            (level, count) = (level + 1, count / WIDTH);
        }
        Ok(true)
    }
}

/// How far tiles are known to be on the disk, in entries.
pub(super) struct UnsyncedTiles {
    synced: u64,
    /// Full tiles up to here are those of an earlier run, which a power failure may have spoilt.
    inherited: u64,
    note: Option<SyncNote>,
}

impl UnsyncedTiles {
    fn open(log: &LogOptions) -> Result<Self, CollectorError> {
        let named = LogOptions { name: tiles_name(), ..log.clone() };
        let synced = DurableNote::read(&named.dir, &named.name)?.map_or(0, |note| note.number);
        Ok(Self { synced, inherited: 0, note: SyncNote::open(&named) })
    }

    /// The tiles behind `base` entries have been made again; those up to `unmended` are held against their entries when they are synced.
    fn begin(&mut self, base: u64, unmended: u64) {
        (self.synced, self.inherited) = (self.synced.min(base), unmended);
    }

    /// Syncs some of them; `entries` is what the tree has.
    pub(super) fn sync_some(&mut self, log: &LogOptions, hash: TreeHash, entries: u64) -> Result<(), CollectorError> {
        for _ in 0..SYNCED_AT_ONCE {
            let full_at = (self.synced / WIDTH + 1) * WIDTH;
            if full_at > entries {
                self.synced = entries;
                break;
            }
            match self.sync_full(log, hash, full_at) {
                Ok(()) => self.synced = full_at,
                Err(GrowthError::Disk(error)) => return Err(error),
                // Whoever needs the tile is told; what is signed does not hang on it.
                Err(GrowthError::Tree(error)) => {
                    tracing::warn!(%error, "a tile of the ledger cannot be made");
                    break;
                }
            }
        }
        if let Some(note) = &self.note {
            note.write(0, self.synced);
        }
        Ok(())
    }

    /// Syncs the tiles, lowest first, that so many entries make full.
    fn sync_full(&self, log: &LogOptions, hash: TreeHash, full_at: u64) -> Result<(), GrowthError> {
        let (mut level, mut count) = (0, full_at);
        while count > 0 && count % WIDTH == 0 {
            count /= WIDTH;
            let (index, path) = (count - 1, tile_path(&log.dir, level, count - 1));
            if full_at <= self.inherited || !path.exists() {
                let hashes = StoredTree::open(&log.dir, hash, 0)?.made(level, index)?;
                mend_tile(log, &Tile { level, index, hashes })?;
            }
            let synced = log.disk.open(&path).and_then(|file| file.sync());
            synced.map_err(|e| CollectorError::io("sync", &path, e))?;
            level += 1;
        }
        Ok(())
    }
}

/// Tiles that are made again before it is known whether the newest checkpoint has signed them: over another history they must not
/// overwrite what is left of the one that was signed.
#[derive(Default)]
struct Mending {
    /// The root was the signed one.
    signed: bool,
    /// Level and index of those that were not there.
    added: Vec<(u32, u64)>,
    /// Others than those that are there.
    differing: Vec<Tile>,
    /// There were more of them.
    shed: bool,
}

impl Mending {
    fn take(&mut self, log: &LogOptions, tile: Tile) -> Result<(), CollectorError> {
        if self.signed {
            return mend_tile(log, &tile);
        }
        if !tile_path(&log.dir, tile.level, tile.index).exists() {
            self.added.push((tile.level, tile.index));
            return write_tile(log, &tile);
        }
        if has_tile(log, &tile) {
            return Ok(());
        }
        if self.differing.len() < DIFFERING_TILES {
            self.differing.push(tile)
        } else {
            self.shed = true
        }
        Ok(())
    }

    fn is_signed(&mut self, log: &LogOptions) -> Result<(), CollectorError> {
        self.signed = true;
        self.added.clear();
        std::mem::take(&mut self.differing).iter().try_for_each(|tile| write_tile(log, tile))
    }

    fn undo(self, log: &LogOptions) -> Result<(), CollectorError> {
        let paths = self.added.into_iter().map(|(level, index)| tile_path(&log.dir, level, index));
        paths
            .into_iter()
            .try_for_each(|path| log.disk.remove(&path).map_err(|e| CollectorError::io("remove", &path, e)))
    }
}

/// Writes a tile that is not there yet, or differs.
fn mend_tile(log: &LogOptions, tile: &Tile) -> Result<(), CollectorError> {
    if has_tile(log, tile) { Ok(()) } else { write_tile(log, tile) }
}

fn has_tile(log: &LogOptions, tile: &Tile) -> bool {
    read_tile(&log.dir, tile.level, tile.index).is_ok_and(|found| found.as_ref() == Some(&tile.hashes))
}

/// Writes a tile and does not sync it.
pub(super) fn write_tile(log: &LogOptions, tile: &Tile) -> Result<(), CollectorError> {
    let path = tile_path(&log.dir, tile.level, tile.index);
    if let Some(parent) = path.parent() {
        platform::create_dir(parent, 0o750).map_err(|e| CollectorError::io("create", parent, e))?;
    }
    replace(log, &path, &tile.bytes(), false)
}

/// A file that appears whole, synced, or not at all.
pub(super) fn write_whole(log: &LogOptions, path: &Path, bytes: &[u8]) -> Result<(), CollectorError> {
    replace(log, path, bytes, true)?;
    log.directory.sync().map_err(|e| CollectorError::io("sync", &log.dir, e))
}

/// A file that appears whole, once its directory is synced, or not at all.
pub(super) fn replace(log: &LogOptions, path: &Path, bytes: &[u8], sync: bool) -> Result<(), CollectorError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    let failed = |e| CollectorError::io("write", path, e);
    let created = log.disk.create(temporary, log.mode).or_else(|error| match error.kind() {
        // A crash left it.
        std::io::ErrorKind::AlreadyExists => {
            log.disk.remove(temporary).and_then(|()| log.disk.create(temporary, log.mode))
        }
        _ => Err(error),
    });
    let file = created.map_err(failed)?;
    file.write_at(bytes, 0).and_then(|()| if sync { file.sync() } else { Ok(()) }).map_err(failed)?;
    log.disk.rename(temporary, path).map_err(failed)
}
