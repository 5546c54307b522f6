//! Verifies a whole ledger: chain, tree, tiles, checkpoints and the chain of keys, in one walk over the entries.
//!
//! Nothing of the writer is used but the formats. What a ledger cannot know of itself, that all of it was rewritten and signed
//! again, a checkpoint tells that was kept elsewhere.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::kept::{KeptRoots, Root};
use super::keys::{CREATED, KeyChain, KeyEntry, ROTATED};
use super::note::{NoteError, VerifierKey};
use super::notes::{
    CheckpointWalk, NotesError, StoredCheckpoint, StoredCheckpoints, checkpoint_file, checkpoints_log, keys_file,
    read_text,
};
use super::set_backs::SetBacks;
use super::tiles::{GrowingTree, Tile, read_tile, tile_path, tiles_name, tree_file, tree_hash};
use super::unsigned::{CHECKPOINT_ENTRIES, UnsignedEnd};
use super::{
    Hash, LedgerError, LedgerFault, LedgerProgress, LedgerReader, LedgerRecord, LedgerSummary, LedgerVerifier,
    Patience,
};
use crate::segment::{DurableNote, SegmentError, SegmentName, list};

/// Entries between two calls of a progress callback: some milliseconds of work.
const PROGRESS_ENTRIES: u64 = 4096;
/// Entries behind the last known checkpoint after which it is looked whether there is a newer one: a few looks for each that is due.
const LOOK_ENTRIES: u64 = CHECKPOINT_ENTRIES / 4;

/// What is known from elsewhere and has to hold.
#[derive(Debug, Clone)]
pub struct Demands {
    /// How long to wait for a writer that is in the middle of something.
    pub patience: Patience,
    /// A key of this ledger: it, or one that it handed over to, has to have signed a checkpoint. That the ledger names it proves
    /// nothing, as anybody may write a public key down.
    pub key: Option<VerifierKey>,
    /// The note of a checkpoint that left the host.
    pub checkpoint: Option<String>,
    /// All of a log of them, which keys of this ledger signed.
    pub kept: Arc<KeptRoots>,
}

impl Default for Demands {
    fn default() -> Self {
        Self { patience: Patience::LIVE, key: None, checkpoint: None, kept: Arc::default() }
    }
}

/// Verifies a whole ledger, also a live one, by what it says of itself.
///
/// # Errors
/// [`LedgerError`] names the first bad entry.
pub fn verify_dir(dir: &Path, progress: impl FnMut(LedgerProgress)) -> Result<LedgerSummary, LedgerError> {
    verify_with(dir, &Demands::default(), progress)
}

/// Verifies a whole ledger, also a live one, and holds it against what is known from elsewhere.
///
/// # Errors
/// [`LedgerError`] names the first bad entry.
pub fn verify_with(
    dir: &Path,
    demands: &Demands,
    mut progress: impl FnMut(LedgerProgress),
) -> Result<LedgerSummary, LedgerError> {
    let name = SegmentName::ledger();
    let unreadable = |e| LedgerError { sequence: 0, file: dir.to_owned(), offset: 0, what: LedgerFault::Segment(e) };
    // Before the walk: a live writer notes more meanwhile, never less.
    let synced = DurableNote::read(dir, &name).map_err(unreadable)?.map_or(0, |note| note.number);
    let mut walk = Walk::begin(dir, demands)?;
    let from = LedgerReader::resume(dir, LedgerVerifier::default(), demands.patience).map_err(unreadable)?;
    let mut reader = from.with_leaves(walk.tree.as_ref().map(GrowingTree::hash));
    let sizes: Vec<(u64, u64)> = list(dir, &name)
        .map_err(unreadable)?
        .into_iter()
        .map(|(number, path)| (number, std::fs::metadata(path).map_or(0, |m| m.len())))
        .collect();
    let total_bytes = sizes.iter().map(|(_, bytes)| bytes).sum();
    let mut report = |state: &LedgerVerifier| {
        let (segment, offset) = state.position();
        let before: u64 = sizes.iter().filter(|(number, _)| *number < segment).map(|(_, bytes)| bytes).sum();
        progress(LedgerProgress { entries: state.summary().entries, bytes: before + offset, total_bytes });
    };
    loop {
        let (segment, offset) = reader.verifier().position();
        let next = match reader.advance()? {
            // A checkpoint that came during the walk: its entries may be behind what was read ahead.
            None if walk.ahead.is_some() => reader.advance()?,
            next => next,
        };
        let Some(record) = next else { break };
        walk.take(&record).map_err(|(place, what)| {
            let (file, offset) = place.unwrap_or_else(|| (reader.path(segment), offset));
            // Which of the entries in between was replaced, a root does not tell.
            let sequence = if let LedgerFault::CorruptFork { from, .. } = what { from } else { record.entry.sequence };
            LedgerError { sequence, file, offset, what }
        })?;
        if reader.verifier().summary().entries % PROGRESS_ENTRIES == 0 {
            report(reader.verifier());
        }
    }
    report(reader.verifier());
    let mut summary = reader.verifier().summary();
    let (segment, offset) = reader.verifier().position();
    if summary.entries < synced {
        return Err(reader.fault(segment, offset, LedgerFault::CorruptEnd { synced }));
    }
    walk.end(summary.entries).map_err(|(place, what)| match place {
        Some((file, offset)) => LedgerError { sequence: summary.entries, file, offset, what },
        None => reader.fault(segment, offset, what),
    })?;
    summary.root = walk.tree.as_ref().map(GrowingTree::root);
    (summary.checkpoints, summary.signed_entries) = (walk.checkpoints, walk.signed_entries);
    (summary.unsynced_tiles, summary.set_backs) = (walk.unsynced_tiles, walk.set_backs);
    (summary.unsigned, summary.kept_entries) = (walk.unsigned, walk.kept_entries);
    let listed: BTreeSet<String> = demands.kept.keys().iter().map(ToString::to_string).collect();
    summary.unlisted_keys = walk.keys.iter().flat_map(KeyChain::keys).any(|key| !listed.contains(&key.to_string()));
    Ok(summary)
}

/// What is wrong, and where, when it is not the entry itself.
type Fault = (Option<(PathBuf, u64)>, LedgerFault);

struct Walk<'a> {
    dir: &'a Path,
    tree: Option<GrowingTree>,
    keys: Option<KeyChain>,
    trusted: Option<&'a VerifierKey>,
    patience: Patience,
    /// Of the ledger itself, the next one that has not been reached, the file that it is in, and those behind it.
    ahead: Option<(PathBuf, StoredCheckpoint)>,
    behind: CheckpointWalk,
    /// The one from elsewhere.
    exported: Option<(&'a str, Checkpoint)>,
    /// Those of a log, from the one over fewest entries that was not reached.
    kept: Peekable<Box<dyn Iterator<Item = Root<'a>> + 'a>>,
    /// The file of keys as it was before the walk: a rotation is in the ledger before it is there.
    keys_text: Option<String>,
    /// Tiles over the entries up to here were on the disk when the writer said so; a power failure may have spoilt later ones.
    tiles_synced: u64,
    checkpoints: u64,
    signed_entries: u64,
    unsigned: UnsignedEnd,
    /// Entries that the one from elsewhere is over, when it was reached.
    kept_entries: Option<u64>,
    unsynced_tiles: u64,
    set_backs: SetBacks,
    /// The trusted key, or one that follows from it, has signed.
    vouched: bool,
}

fn tree_fault(dir: &Path, error: super::tiles::TreeError) -> LedgerError {
    let what = match error {
        super::tiles::TreeError::Segment(error) => LedgerFault::Segment(error),
        other => LedgerFault::CorruptTree(other.to_string()),
    };
    LedgerError { sequence: 0, file: tree_file(dir), offset: 0, what }
}

fn notes_fault(dir: &Path, error: NotesError) -> Fault {
    match error {
        NotesError::Corrupt { file, offset, what } => (Some((file, offset)), LedgerFault::CorruptCheckpoint(what)),
        NotesError::Segment(error) => (Some((checkpoints_log(dir), 0)), LedgerFault::Segment(error)),
    }
}

impl<'a> Walk<'a> {
    fn begin(dir: &'a Path, demands: &'a Demands) -> Result<Self, LedgerError> {
        let tiles_synced = DurableNote::read(dir, &tiles_name()).ok().flatten().map_or(0, |note| note.number);
        let keys_text = read_text(&keys_file(dir)).map_err(|error: SegmentError| LedgerError {
            sequence: 0,
            file: keys_file(dir),
            offset: 0,
            what: LedgerFault::Segment(error),
        })?;
        let tree = tree_hash(dir).map_err(|error| tree_fault(dir, error))?.map(GrowingTree::new);
        let noted = |error| {
            let (place, what) = notes_fault(dir, error);
            let (file, offset) = place.unwrap_or_else(|| (checkpoints_log(dir), 0));
            LedgerError { sequence: 0, file, offset, what }
        };
        let stored = patient(dir, demands.patience).map_err(noted)?;
        let mut behind = CheckpointWalk::begin(dir, stored).map_err(noted)?;
        let ahead = behind.advance().map_err(noted)?;
        if tree.is_none() && ahead.is_some() {
            let text = "the file that names the tree's hash is missing; it reads sha256 or blake3".to_owned();
            let what = LedgerFault::CorruptTree(text);
            return Err(LedgerError { sequence: 0, file: tree_file(dir), offset: 0, what });
        }
        let exported = demands.checkpoint.as_deref().map(|note| Ok((note, Checkpoint::dangerous_unverified(note)?)));
        let exported = exported.transpose().map_err(|what: CheckpointError| {
            let what = LedgerFault::CorruptCheckpoint(what);
            LedgerError { sequence: 0, file: dir.to_owned(), offset: 0, what }
        })?;
        let trusted = demands.key.as_ref();
        Ok(Self {
            tiles_synced,
            keys_text,
            dir,
            tree,
            keys: None,
            trusted,
            patience: demands.patience,
            ahead,
            behind,
            exported,
            kept: (Box::new(demands.kept.iter()) as Box<dyn Iterator<Item = _>>).peekable(),
            checkpoints: 0,
            signed_entries: 0,
            unsigned: UnsignedEnd::NONE,
            kept_entries: None,
            unsynced_tiles: 0,
            set_backs: SetBacks::NONE,
            vouched: false,
        })
    }

    fn take(&mut self, record: &LedgerRecord) -> Result<(), Fault> {
        self.set_backs.take(&record.entry);
        self.follow_keys(record).map_err(|what| (None, what))?;
        self.unsigned.take(&record.entry, &record.payload);
        let (Some(tree), Some(leaf)) = (self.tree.as_mut(), record.leaf) else { return Ok(()) };
        let mut wrong = None;
        tree.push(leaf, |tile| wrong = wrong.take().or_else(|| check_tile(self.dir, &tile)));
        match wrong {
            Some((_, LedgerFault::CorruptTile)) if record.entry.sequence >= self.tiles_synced => {
                self.unsynced_tiles += 1
            }
            Some(fault) => return Err(fault),
            None => {}
        }
        self.check_notes(record.entry.sequence + 1)
    }

    fn follow_keys(&mut self, record: &LedgerRecord) -> Result<(), LedgerFault> {
        let action = record.entry.action.as_str();
        if action != CREATED && action != ROTATED {
            return Ok(());
        }
        let broken = |what: &dyn std::fmt::Display| LedgerFault::CorruptKeys(what.to_string());
        let entry = KeyEntry::parse(&record.payload).ok_or_else(|| broken(&"the entry names no key"))?;
        match (action == CREATED, self.keys.as_mut()) {
            (true, None) => self.keys = Some(KeyChain::new(entry.key)),
            // A key that its predecessor did not sign is as good as a stranger's, unless somebody knows it from elsewhere.
            (true, Some(_)) if self.trusted == Some(&entry.key) => self.keys = Some(KeyChain::new(entry.key)),
            (true, Some(_)) => return Err(broken(&"a new key that the key before did not sign")),
            (false, Some(keys)) => {
                keys.follow(&entry.note).map_err(|error| broken(&error))?;
                if *keys.current() != entry.key {
                    return Err(broken(&"the entry names another key than its note"));
                }
            }
            (false, None) => return Err(broken(&"there is no key before")),
        }
        Ok(())
    }

    /// The checkpoints that are over the entries so far.
    fn check_notes(&mut self, size: u64) -> Result<(), Fault> {
        while let Some((file, stored)) = self.ahead.take_if(|(_, stored)| stored.checkpoint.size == size) {
            self.check_note(&stored.note, &stored.checkpoint).map_err(|what| (Some((file, stored.offset)), what))?;
            self.checkpoints += 1;
            self.signed_entries = size;
            self.unsigned.sign();
            self.vouched |= self.follows_trusted();
            self.ahead = self.behind.advance().map_err(|error| notes_fault(self.dir, error))?;
        }
        if let Some((note, checkpoint)) = self.exported.take_if(|(_, checkpoint)| checkpoint.size == size) {
            let key = self.is_ours(note, &checkpoint).map_err(|what| (None, what))?;
            let vouches = self.is_trusted(key);
            self.is_kept(size, &checkpoint.root, vouches)?;
        }
        while let Some((_, root, key)) = self.kept.next_if(|(at, ..)| *at == size) {
            let vouches = key.is_some_and(|key| self.is_trusted(key));
            self.is_kept(size, root, vouches)?;
        }
        self.look_again(size)
    }

    /// A checkpoint from elsewhere, of which a key of this ledger or the trusted one vouches.
    fn is_kept(&mut self, size: u64, root: &Hash, vouches: bool) -> Result<(), Fault> {
        // The ledger's own checkpoints before it may be of whoever has the seed, so they do not narrow it down.
        self.fits(size, root, 0).map_err(|what| (Some((self.dir.to_owned(), 0)), what))?;
        self.kept_entries = Some(size);
        self.unsigned.sign();
        self.vouched |= vouches;
        Ok(())
    }

    /// Whether it is the trusted key, or one that it handed over to. Those before it do not count, as in [`Self::follows_trusted`].
    fn is_trusted(&self, key: &VerifierKey) -> bool {
        let keys = self.keys.iter().flat_map(KeyChain::keys);
        keys.skip_while(|known| self.trusted != Some(known)).any(|known| known == key)
    }

    /// Takes up what a live writer has signed since the walk began: behind the last checkpoint that is known, and now and then from there on.
    fn look_again(&mut self, size: u64) -> Result<(), Fault> {
        let behind = size.saturating_sub(self.signed_entries);
        if self.ahead.is_some() || !self.unsigned.has_key || !behind.is_multiple_of(LOOK_ENTRIES) {
            return Ok(());
        }
        let stored = patient(self.dir, self.patience).map_err(|error| notes_fault(self.dir, error))?;
        // One below is passed already, and the next one is over what it was over.
        let newer = stored.newest.filter(|newest| newest.checkpoint.size > size);
        self.ahead = newer.map(|newest| (checkpoint_file(self.dir), newest));
        Ok(())
    }

    /// Whether the key that signs now is the trusted one, or one that it handed over to. Those before it do not count: whoever
    /// has a key of their own can hand over to a public one.
    fn follows_trusted(&self) -> bool {
        self.keys.iter().flat_map(KeyChain::keys).any(|key| self.trusted == Some(key))
    }

    fn check_note(&self, note: &str, checkpoint: &Checkpoint) -> Result<(), LedgerFault> {
        let from = self.signed_entries.max(self.kept_entries.unwrap_or_default());
        self.fits(checkpoint.size, &checkpoint.root, from)?;
        let unsigned = || LedgerFault::CorruptCheckpoint(CheckpointError::Note(NoteError::PeerUnsigned));
        let keys = self.keys.as_ref().ok_or_else(unsigned)?;
        keys.verified(note).map(|_| ()).map_err(LedgerFault::CorruptCheckpoint)
    }

    /// `from`: entries before this one are as they were signed.
    fn fits(&self, size: u64, root: &Hash, from: u64) -> Result<(), LedgerFault> {
        if self.tree.as_ref().is_some_and(|tree| tree.root() != *root) {
            return Err(LedgerFault::CorruptFork { from, size });
        }
        Ok(())
    }

    /// Whose note from elsewhere this is, if it says anything of this ledger: another's must not make this one look changed.
    fn is_ours<'k>(&'k self, note: &str, checkpoint: &Checkpoint) -> Result<&'k VerifierKey, LedgerFault> {
        let mut origin = None;
        for key in self.trusted.into_iter().chain(self.keys.iter().flat_map(KeyChain::keys)) {
            match Checkpoint::verified(note, key) {
                Ok(_) => return Ok(key),
                Err(CheckpointError::Note(NoteError::PeerUnsigned)) => origin = Some(key.name()),
                Err(what) => return Err(LedgerFault::MisuseCheckpoint(what)),
            }
        }
        if let Some(wanted) = origin.filter(|origin| *origin != checkpoint.origin) {
            let (found, wanted) = (checkpoint.origin.clone(), wanted.to_owned());
            return Err(LedgerFault::MisuseCheckpoint(CheckpointError::PeerOrigin { found, wanted }));
        }
        let text = "none of them signed the checkpoint that was given: it is forged, the ledger was begun anew with another key, \
                    or an older copy was put in its place, of before the key was changed";
        Err(LedgerFault::CorruptKeys(text.to_owned()))
    }

    /// What had to be reached by the last of so many entries.
    fn end(&mut self, entries: u64) -> Result<(), Fault> {
        if let Some((file, stored)) = self.ahead.take() {
            return Err((Some((file, stored.offset)), LedgerFault::CorruptRollback { size: stored.checkpoint.size }));
        }
        if let Some((note, checkpoint)) = &self.exported {
            self.is_ours(note, checkpoint).map_err(|what| (None, what))?;
            return Err((None, LedgerFault::CorruptRollback { size: checkpoint.size }));
        }
        if let Some((size, ..)) = self.kept.by_ref().last() {
            return Err((None, LedgerFault::CorruptRollback { size }));
        }
        if entries > 0 && self.tree.is_none() && self.keys.is_some() {
            let text = "the file that names the tree's hash is missing; it reads sha256 or blake3".to_owned();
            return Err((Some((tree_file(self.dir), 0)), LedgerFault::CorruptTree(text)));
        }
        if self.trusted.is_some() && !self.vouched {
            let text = "no checkpoint is signed with the key that was given, or with one that it handed over to";
            return Err((None, LedgerFault::CorruptKeys(text.to_owned())));
        }
        self.check_keys_file()
    }

    /// What `audit key` prints has to be what the entries say: their keys in their order. The newest may be missing, for it is
    /// written behind the entry that names it.
    fn check_keys_file(&self) -> Result<(), Fault> {
        let path = keys_file(self.dir);
        let Some(text) = &self.keys_text else { return Ok(()) };
        // Keys may have come since the walk began.
        let fits = self.are_keys(text) || matches!(read_text(&path), Ok(Some(later)) if self.are_keys(&later));
        if fits {
            return Ok(());
        }
        let what = LedgerFault::CorruptKeys(
            "the file of keys names others than the entries, or in another order; where it is removed, the collector makes it again \
             from the entries at its next start"
                .to_owned(),
        );
        Err((Some((path, 0)), what))
    }

    fn are_keys(&self, text: &str) -> bool {
        let named: Vec<String> = self.keys.iter().flat_map(KeyChain::keys).map(|key| format!("{key}\n")).collect();
        let all = named.concat();
        let before = named.split_last().map_or_else(String::new, |(_, before)| before.concat());
        text == all || text == before
    }
}

/// A live writer may be between its two files.
fn patient(dir: &Path, patience: Patience) -> Result<StoredCheckpoints, NotesError> {
    let mut tries = 0;
    loop {
        match StoredCheckpoints::read(dir) {
            Err(NotesError::Corrupt { .. }) if tries < patience.tries => {
                tries += 1;
                std::thread::park_timeout(patience.pause);
            }
            read => return read,
        }
    }
}

/// A tile that is missing is made again by the writer and costs a prover time; one that is wrong would make wrong proofs.
fn check_tile(dir: &Path, tile: &Tile) -> Option<Fault> {
    let place = || Some((tile_path(dir, tile.level, tile.index), 0));
    match read_tile(dir, tile.level, tile.index) {
        Ok(Some(hashes)) if hashes != tile.hashes => Some((place(), LedgerFault::CorruptTile)),
        Ok(_) => None,
        Err(super::tiles::TreeError::Segment(error)) => Some((place(), LedgerFault::Segment(error))),
        Err(other) => Some((place(), LedgerFault::CorruptTree(other.to_string()))),
    }
}
