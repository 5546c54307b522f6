//! That a ledger goes on from a checkpoint which somebody kept.
//!
//! A local root can rewrite a ledger and sign all of it again, and a file that was made from it verifies below its own checkpoint. What
//! left the host before cannot be signed again: whoever kept one checkpoint demands that the file's is of the same history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::checkpoint::{Checkpoint, CheckpointError};
use super::super::kept::{KeptNote, SignedNotes};
use super::super::keys::KeyChain;
use super::super::note::{NoteError, VerifierKey};
use super::super::tree::{self, Nodes, ProofError, TreeHash};
use super::{HexHash, Proof, Verified};

/// An older checkpoint, and the path that shows that the file's checkpoint is over the same entries and more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// The signed note.
    checkpoint: String,
    /// The consistency proof from its size to that of the file's checkpoint.
    path: Vec<HexHash>,
}

/// Why no path can be made from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum SinceError<E> {
    /// The ledger has fewer entries than it is over.
    #[error(
        "the checkpoint is over {size} entries and the newest one of this ledger over {newest}: the ledger's end was cut off, or this is \
         an older copy"
    )]
    CorruptRollback {
        /// Entries that there were.
        size: u64,
        /// Entries below the newest checkpoint.
        newest: u64,
    },
    /// It is none, or of another ledger.
    #[error("the checkpoint says nothing of this ledger: {0}; name the right one")]
    MisuseCheckpoint(#[from] CheckpointError),
    /// The tree's nodes.
    #[error("{0}")]
    Nodes(E),
}

/// Why the older checkpoint of a file does not fit the file's own.
#[derive(Debug, thiserror::Error)]
pub enum SinceFault {
    /// Another history.
    #[error("the ledger of the newer one does not go on from it, so entries before were replaced: {0}")]
    CorruptFork(#[from] ProofError),
    /// The note.
    #[error(transparent)]
    CorruptNote(#[from] CheckpointError),
}

/// Why a file cannot be held against a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldFault {
    /// Another history.
    #[error(
        "its ledger is not the one of the checkpoint that was kept: below the first {size} entries it has another root, so entries were \
         replaced after that checkpoint had left the host"
    )]
    CorruptFork {
        /// Entries that the checkpoint is over.
        size: u64,
    },
    /// The keys do not lead to the one that signed.
    #[error(
        "no key from the given one on that the file knows signed the checkpoint that was kept: it is forged, the ledger was begun anew \
         or signed on with an older key, or --vkey is younger than that checkpoint"
    )]
    CorruptKeys,
    /// It is none, or of another ledger.
    #[error("the checkpoint that was given says nothing of this ledger: {0}; name the right one")]
    MisuseCheckpoint(#[from] CheckpointError),
    /// There is no path from it to the file's.
    #[error(
        "nothing in the file leads from your checkpoint over {size} entries to its own over {newest}: ask for one that was made with \
         `--since` and your checkpoint"
    )]
    MisuseNoPath {
        /// Entries that the checkpoint is over.
        size: u64,
        /// Entries that the file's is over.
        newest: u64,
    },
    /// It is younger than the file.
    #[error(
        "your checkpoint is over {size} entries and the file's over {newest}: ask for a newer file, made with `--since` and your checkpoint"
    )]
    MisuseYounger {
        /// Entries that the checkpoint is over.
        size: u64,
        /// Entries that the file's is over.
        newest: u64,
    },
}

impl HoldFault {
    /// Whether the checkpoint is the wrong one to ask with, which says nothing against the file.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        matches!(self, Self::MisuseCheckpoint(_) | Self::MisuseNoPath { .. } | Self::MisuseYounger { .. })
    }
}

/// How much of a file's ledger a kept checkpoint vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The checkpoint that was kept.
    pub checkpoint: Checkpoint,
    /// Entries of the file that it is over: they were in the ledger when it left the host.
    pub below: usize,
    /// Entries of the file that came later: nothing that was kept vouches for them.
    pub behind: usize,
}

/// Which of many kept checkpoints a file is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The one over most entries that the file knows, else the one over most entries; `None`: the file's keys signed none.
    pub note: Option<KeptNote>,
    /// How many its keys did not sign.
    pub unsigned: u64,
    /// How many they signed that nothing in the file leads to.
    pub beside: u64,
}

impl Since {
    /// Verifies the note and the path; what the note says.
    pub(super) fn verify(
        &self,
        keys: &KeyChain,
        tree: TreeHash,
        newest: &Checkpoint,
    ) -> Result<Checkpoint, SinceFault> {
        let since = keys.verified_by_any(&self.checkpoint)?;
        let path: Vec<_> = self.path.iter().map(|hash| hash.0).collect();
        tree::verify_consistency(tree, since.size, &since.root, newest.size, &newest.root, &path)?;
        Ok(since)
    }
}

impl Proof {
    /// Adds the path from an older checkpoint. That it leads to the file's [`Proof::verify`] finds, as it does for everybody.
    ///
    /// # Errors
    /// [`SinceError`].
    pub fn set_since<N: Nodes>(
        &mut self,
        note: String,
        newest: &Checkpoint,
        nodes: &mut N,
    ) -> Result<(), SinceError<N::Error>> {
        let since = Checkpoint::dangerous_unverified(&note)?;
        is_of(&since, &newest.origin)?;
        let path = tree::consistency(nodes, self.hash(), since.size, newest.size).map_err(SinceError::Nodes)?;
        let path = path.ok_or(SinceError::CorruptRollback { size: since.size, newest: newest.size })?;
        self.since = Some(Since { checkpoint: note, path: path.into_iter().map(HexHash).collect() });
        Ok(())
    }

    /// Chooses among many checkpoints that were kept elsewhere the one that a verified file can be held against. All that are over as many
    /// entries have to agree; one over more than the file's own says nothing of it.
    ///
    /// # Errors
    /// [`HoldFault::CorruptFork`]: another history.
    pub fn choose(&self, key: &VerifierKey, verified: &Verified, notes: &[KeptNote]) -> Result<Chosen, HoldFault> {
        let (keys, newest) = self.signed(key).map_err(|_| HoldFault::CorruptKeys)?;
        let signed = SignedNotes::of(notes, &keys);
        let own = [Some(&newest), verified.since.as_ref()].into_iter().flatten();
        let own: BTreeMap<u64, _> = own.map(|known| (known.size, known.root)).collect();
        let mut roots = own.clone();
        for kept in signed.notes.iter().filter(|kept| kept.size <= newest.size) {
            if *roots.entry(kept.size).or_insert(kept.root) != kept.root {
                return Err(HoldFault::CorruptFork { size: kept.size });
            }
        }
        let is_known = |kept: &KeptNote| own.contains_key(&kept.size);
        let best = signed.notes.iter().max_by_key(|kept| (is_known(kept), kept.size <= newest.size, kept.size));
        let beside = signed.notes.iter().filter(|kept| !is_known(kept)).count() as u64;
        Ok(Chosen { note: best.map(|kept| (*kept).clone()), unsigned: signed.unsigned, beside })
    }

    /// Holds a verified file against a checkpoint that was kept elsewhere.
    ///
    /// # Errors
    /// [`HoldFault`]: another history, or nothing can be said.
    pub fn hold(&self, key: &VerifierKey, verified: &Verified, note: &str) -> Result<Held, HoldFault> {
        let newest = &verified.checkpoint;
        let kept = Checkpoint::dangerous_unverified(note)?;
        is_of(&kept, &newest.origin)?;
        let (size, newest_size) = (kept.size, newest.size);
        if size > newest_size {
            // Before its signature: a key that came behind the file signed it perhaps.
            return Err(HoldFault::MisuseYounger { size, newest: newest_size });
        }
        let (keys, _) = self.signed(key).map_err(|_| HoldFault::CorruptKeys)?;
        match keys.verified_by_any(note) {
            Ok(_) => {}
            Err(CheckpointError::Note(NoteError::PeerUnsigned)) => return Err(HoldFault::CorruptKeys),
            Err(other) => return Err(other.into()),
        }
        let known = [Some(newest), verified.since.as_ref()].into_iter().flatten().find(|known| known.size == size);
        match known {
            None => Err(HoldFault::MisuseNoPath { size, newest: newest_size }),
            Some(known) if known.root != kept.root => Err(HoldFault::CorruptFork { size }),
            Some(_) => {
                let below = self.entries.iter().filter(|entry| entry.sequence < size).count();
                Ok(Held { checkpoint: kept, below, behind: self.entries.len() - below })
            }
        }
    }
}

fn is_of(checkpoint: &Checkpoint, origin: &str) -> Result<(), CheckpointError> {
    if checkpoint.origin == origin {
        return Ok(());
    }
    Err(CheckpointError::PeerOrigin { found: checkpoint.origin.clone(), wanted: origin.to_owned() })
}
