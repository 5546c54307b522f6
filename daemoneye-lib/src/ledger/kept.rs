//! Holds a ledger, or a proof of it, against every checkpoint that somebody kept.
//!
//! A log holds the checkpoints of all that was ever signed on a host. After a rewrite new ones follow in it, which fit the new history,
//! so one that fits shows nothing while an older one does not. Whatever the ledger's keys signed has to fit; what they did not sign
//! anybody may have written into a log, so that says nothing and is counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::keys::{CREATED, KeyChain, KeyEntry, ROTATED};
use super::tiles::{TreeError, tree_file, tree_hash};
use super::tree::{Frontier, TreeHash};
use super::{Hash, LedgerError, LedgerFault, LedgerProgress, LedgerReader, LedgerRecord, LedgerVerifier, Patience};
use crate::segment::{SegmentName, list};

/// Entries between two calls of a progress callback: some milliseconds of work.
const PROGRESS_ENTRIES: u64 = 4096;

/// A checkpoint as it stands in a file; nobody has looked at its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptNote {
    /// All of it.
    pub note: Arc<str>,
    /// Entries that it is over.
    pub size: u64,
    /// The tree's root over them.
    pub root: Hash,
}

impl KeptNote {
    /// Reads a note.
    ///
    /// # Errors
    /// It is no checkpoint.
    pub fn read(note: &str) -> Result<Self, CheckpointError> {
        let Checkpoint { size, root, .. } = Checkpoint::dangerous_unverified(note)?;
        Ok(Self { note: note.into(), size, root })
    }
}

/// Notes that keys of a chain signed, in the order of their file, and how many others there are.
#[derive(Debug)]
pub struct SignedNotes<'a> {
    /// Those, each over at least one entry.
    pub notes: Vec<&'a KeptNote>,
    /// The others.
    pub unsigned: u64,
}

impl<'a> SignedNotes<'a> {
    /// Those of `notes` that a key of `keys` signed.
    #[must_use]
    pub fn of(notes: &'a [KeptNote], keys: &KeyChain) -> Self {
        let (signed, others): (Vec<_>, Vec<_>) =
            notes.iter().partition(|kept| kept.size > 0 && keys.verified_by_any(&kept.note).is_ok());
        Self { notes: signed, unsigned: others.len() as u64 }
    }

    /// The one over most entries.
    #[must_use]
    pub fn largest(&self) -> Option<&'a KeptNote> {
        self.notes.iter().max_by_key(|kept| kept.size).copied()
    }

    /// What contradicts the roots, as far as those are known.
    #[must_use]
    pub fn fork(&self, root: impl Fn(u64) -> Option<Hash>) -> Option<KeptFork> {
        let wrong = |kept: &KeptNote| root(kept.size).is_some_and(|root| root != kept.root);
        let (place, bad) = self.notes.iter().enumerate().filter(|(_, kept)| wrong(kept)).min_by_key(|at| at.1.size)?;
        let before = self.notes.iter().take(place).filter(|kept| kept.size < bad.size);
        let fits = before.map(|kept| kept.size).max().unwrap_or_default();
        Some(KeptFork { note: (*bad).clone(), fits })
    }
}

/// A checkpoint that is of another history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFork {
    /// The one over fewest entries.
    pub note: KeptNote,
    /// Entries that the last one is over which fits and stands before it in the file; of what was signed later the rewritten history may
    /// be the one that fits.
    pub fits: u64,
}

/// How a ledger stands to kept checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSummary {
    /// One that its keys signed and that it contradicts.
    pub fork: Option<KeptFork>,
    /// The one over most entries that its keys signed, whether or not it reaches so far.
    pub largest: Option<KeptNote>,
    /// How many its keys signed.
    pub signed: u64,
    /// How many they did not sign.
    pub unsigned: u64,
}

/// Walks a ledger and holds it against kept checkpoints, all of which name its origin. It is not judged otherwise.
///
/// # Errors
/// The ledger cannot be read to its end.
pub fn hold_kept(
    dir: &Path,
    notes: &[KeptNote],
    mut progress: impl FnMut(LedgerProgress),
) -> Result<KeptSummary, LedgerError> {
    let of_tree = |error: TreeError| {
        let what = match error {
            TreeError::Segment(error) => LedgerFault::Segment(error),
            other => LedgerFault::CorruptTree(other.to_string()),
        };
        LedgerError { sequence: 0, file: tree_file(dir), offset: 0, what }
    };
    let nothing = KeptSummary { fork: None, largest: None, signed: 0, unsigned: notes.len() as u64 };
    // A plain chain signs nothing.
    let Some(hash) = tree_hash(dir).map_err(of_tree)? else { return Ok(nothing) };
    let unreadable = |e| LedgerError { sequence: 0, file: dir.to_owned(), offset: 0, what: LedgerFault::Segment(e) };
    let from = LedgerReader::resume(dir, LedgerVerifier::default(), Patience::LIVE).map_err(unreadable)?;
    let mut reader = from.with_leaves(Some(hash));
    let segments = list(dir, &SegmentName::ledger()).map_err(unreadable)?.into_iter();
    let sizes: Vec<(u64, u64)> =
        segments.map(|(number, path)| (number, std::fs::metadata(path).map_or(0, |m| m.len()))).collect();
    let total_bytes = sizes.iter().map(|(_, bytes)| bytes).sum();
    let mut walk = Walk::new(hash, notes);
    while let Some(record) = reader.advance()? {
        walk.take(&record);
        let entries = walk.tree.size();
        if entries.is_multiple_of(PROGRESS_ENTRIES) {
            let (segment, offset) = reader.verifier().position();
            let before: u64 = sizes.iter().filter(|(number, _)| *number < segment).map(|(_, bytes)| bytes).sum();
            progress(LedgerProgress { entries, bytes: before + offset, total_bytes });
        }
    }
    let Some(keys) = &walk.keys else { return Ok(nothing) };
    let signed = SignedNotes::of(notes, keys);
    let fork = signed.fork(|size| walk.roots.get(&size).copied().flatten());
    let (largest, count) = (signed.largest().cloned(), signed.notes.len() as u64);
    Ok(KeptSummary { fork, largest, signed: count, unsigned: signed.unsigned })
}

struct Walk {
    tree: Frontier,
    keys: Option<KeyChain>,
    /// Per size that was asked for, once it is reached.
    roots: BTreeMap<u64, Option<Hash>>,
}

impl Walk {
    fn new(hash: TreeHash, notes: &[KeptNote]) -> Self {
        Self { tree: Frontier::new(hash), keys: None, roots: notes.iter().map(|kept| (kept.size, None)).collect() }
    }

    fn take(&mut self, record: &LedgerRecord) {
        self.follow_keys(record);
        let Some(leaf) = record.leaf else { return };
        self.tree.push(leaf, |_, _, _| {});
        if let Some(root) = self.roots.get_mut(&self.tree.size()) {
            *root = Some(self.tree.root());
        }
    }

    /// As far as they hold together: where they do not, whoever verifies the ledger refuses it.
    fn follow_keys(&mut self, record: &LedgerRecord) {
        let action = record.entry.action.as_str();
        if action != CREATED && action != ROTATED {
            return;
        }
        let Some(entry) = KeyEntry::parse(&record.payload) else { return };
        match self.keys.as_mut() {
            Some(keys) if action == ROTATED => {
                let _is_followed = keys.follow(&entry.note).is_ok();
            }
            None if action == ROTATED => {}
            _ => self.keys = Some(KeyChain::new(entry.key)),
        }
    }
}
