//! Who signed a file's checkpoint: the chain of keys from the reader's own on.

use super::super::checkpoint::{Checkpoint, CheckpointError};
use super::super::keys::KeyChain;
use super::super::note::{Note, NoteError, VerifierKey};
use super::{Proof, ProofFault};

/// Rotations of a file: one a day for 27 years. Each costs a verification.
pub(super) const MAX_ROTATIONS: usize = 10_000;

impl Proof {
    /// The chain of keys from `key` on, wherever in it that stands, and the checkpoint that its last one signed.
    pub(super) fn signed(&self, key: &VerifierKey) -> Result<(KeyChain, Checkpoint), ProofFault> {
        let origin = Checkpoint::dangerous_unverified(&self.checkpoint)?.origin;
        if origin != key.name() {
            return Err(ProofFault::MisuseKey { found: origin, wanted: key.name().to_owned() });
        }
        let is_first = |note: &String| note.parse::<Note>().is_ok_and(|note| note.verified(key).is_ok());
        // A key hands over once, so what it signed begins the chain; the newest one has signed no rotation.
        let first = self.rotations.iter().position(is_first);
        let mut keys = KeyChain::new(key.clone());
        let later = first.and_then(|first| self.rotations.get(first..)).unwrap_or_default();
        later.iter().try_for_each(|note| keys.follow(note))?;
        let unsigned = CheckpointError::Note(NoteError::PeerUnsigned);
        match keys.verified(&self.checkpoint) {
            Ok(checkpoint) => Ok((keys, checkpoint)),
            Err(error) if error == unsigned && first.is_none() => {
                Err(ProofFault::PeerKey { key: key.to_string(), origin })
            }
            Err(error) => Err(error.into()),
        }
    }
}
