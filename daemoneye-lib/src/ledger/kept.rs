//! Holds a ledger, or a proof of it, against every checkpoint that somebody kept.
//!
//! A log holds the checkpoints of all that was ever signed on a host. After a rewrite new ones follow in it, which fit the new history,
//! so one that fits shows nothing while an older one does not. Whatever the ledger's keys signed has to fit; what they did not sign
//! anybody may have written into a log, so that says nothing and is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Hash;
use super::checkpoint::{Checkpoint, CheckpointError};
use super::keys::KeyChain;
use super::note::{Note, NoteError, VerifierKey};

/// Checkpoints that [`KeptRoots`] holds: 347 days of one each minute, 100 bytes each.
pub const MAX_ROOTS: usize = 500_000;

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

/// What became of a checkpoint that was offered to [`KeptRoots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It was there already.
    Known,
    /// There is no room for it.
    LeftOut,
    /// It counts from here on.
    Taken,
    /// None of the keys signed it.
    Unsigned,
}

/// A checkpoint in [`KeptRoots`].
#[derive(Debug, Clone, Copy)]
struct Place {
    /// How many of those that count stood before it.
    before: u64,
    /// Which of the keys signed it.
    key: usize,
}

/// Entries, root and the key that signed.
pub(super) type Root<'a> = (u64, &'a Hash, Option<&'a VerifierKey>);

/// Checkpoints that keys signed, each as what verifying needs of it: entries and root.
#[derive(Debug, Clone, Default)]
pub struct KeptRoots {
    keys: Vec<VerifierKey>,
    roots: BTreeMap<(u64, Hash), Place>,
}

impl KeptRoots {
    /// None yet; those count that one of these keys signed.
    #[must_use]
    pub const fn of(keys: Vec<VerifierKey>) -> Self {
        Self { keys, roots: BTreeMap::new() }
    }

    /// Takes a note of a checkpoint, in the order of its file.
    pub fn offer(&mut self, note: &str, checkpoint: &Checkpoint) -> Offered {
        let Checkpoint { size, root, .. } = *checkpoint;
        if self.roots.contains_key(&(size, root)) {
            return Offered::Known;
        }
        let Ok(note) = note.parse::<Note>() else { return Offered::Unsigned };
        let says = |text: &str| text.parse::<Checkpoint>().is_ok_and(|said| said == *checkpoint);
        let signed = |key: &VerifierKey| match note.verified(key) {
            Err(NoteError::PeerUnsigned) => None,
            verified => Some(verified.is_ok_and(says) && key.name() == checkpoint.origin),
        };
        let found = self.keys.iter().enumerate().find_map(|(at, key)| Some((at, signed(key)?)));
        let Some((key, true)) = found.filter(|_| size > 0) else { return Offered::Unsigned };
        if self.roots.len() >= MAX_ROOTS {
            return Offered::LeftOut;
        }
        self.roots.insert((size, root), Place { before: self.roots.len() as u64, key });
        Offered::Taken
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The keys by which they were judged.
    #[must_use]
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// Of the one over so many entries, the first that does not fit: entries that the last one is over which stands before it in
    /// the file. Of what was signed later the rewritten history may be the one that fits.
    #[must_use]
    pub fn fits_before(&self, size: u64) -> u64 {
        let places = self.roots.range((size, [0; 32])..=(size, [u8::MAX; 32])).map(|(_, place)| place.before);
        let bad = places.min().unwrap_or_default();
        let smaller = self.roots.range(..(size, [0; 32])).rev();
        smaller.filter(|(_, place)| place.before < bad).map(|((size, _), _)| *size).next().unwrap_or_default()
    }

    /// From the fewest entries on.
    pub(super) fn iter(&self) -> impl Iterator<Item = Root<'_>> {
        self.roots.iter().map(|((size, root), place)| (*size, root, self.keys.get(place.key)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::NoteSigner;
    use super::*;

    const ORIGIN: &str = "daemoneye/4f/audit";

    fn signer(seed: u8) -> NoteSigner {
        NoteSigner::new(ORIGIN, &[seed; 32]).unwrap()
    }

    fn offer(roots: &mut KeptRoots, seed: u8, size: u64, root: u8) -> Offered {
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size, root: [root; 32] };
        roots.offer(&checkpoint.sign(&signer(seed)).unwrap(), &checkpoint)
    }

    #[test]
    fn checkpoints_count_once_in_the_order_of_their_file_if_a_key_signed_them() {
        let mut roots = KeptRoots::of(vec![signer(1).verifier().clone(), signer(2).verifier().clone()]);
        let given = [(1, 4, 1), (2, 7, 1), (1, 4, 1), (3, 5, 1), (1, 6, 2), (2, 10, 2), (1, 0, 1)];
        let offered = given.map(|(seed, size, root)| offer(&mut roots, seed, size, root));
        use Offered::{Known, Taken, Unsigned};
        assert_eq!(offered, [Taken, Taken, Known, Unsigned, Taken, Taken, Unsigned]);
        assert_eq!(roots.iter().map(|(size, ..)| size).collect::<Vec<_>>(), [4, 6, 7, 10]);
        // Over 6 was signed behind the one over 7.
        assert_eq!((roots.fits_before(7), roots.fits_before(10), roots.fits_before(4)), (4, 7, 0));
        let mut forged = Checkpoint { origin: ORIGIN.into(), size: 9, root: [1; 32] };
        let note = forged.sign(&signer(1)).unwrap().replace("\n9\n", "\n8\n");
        forged.size = 8;
        assert_eq!(roots.offer(&note, &forged), Unsigned);
    }

    #[test]
    fn the_room_is_bounded_and_what_it_sheds_is_told() {
        let mut roots = KeptRoots::of(vec![signer(1).verifier().clone()]);
        for size in 1..=MAX_ROOTS as u64 {
            roots.roots.insert((size, [0; 32]), Place { before: size, key: 0 });
        }
        assert_eq!(offer(&mut roots, 1, 7, 9), Offered::LeftOut);
        assert_eq!((roots.len(), offer(&mut roots, 1, 7, 0)), (MAX_ROOTS, Offered::Known));
    }
}
