//! The chain of a ledger's keys: each new key is named in a note that the key before signed.
//!
//! The note's text is three lines: `daemoneye/key-rotation/v1`, the ledger's origin, the new verifier key. Its first line is no
//! origin, so it can never be taken for a checkpoint, nor a checkpoint for it. Verification begins with a key that somebody kept
//! elsewhere and follows the notes, so one key that was printed at the installation is enough for ever.

use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::{Note, NoteError, NoteSigner, VerifierKey};

const DOMAIN: &str = "daemoneye/key-rotation/v1";

/// Action of the entry that names the ledger's first key; only the collector writes it.
pub const CREATED: &str = "key-created";
/// Action of the entry by which a key hands over to the next; only the collector writes it.
pub const ROTATED: &str = "key-rotated";

/// What the entries of both actions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key that signs from here on.
    pub key: VerifierKey,
    /// The note by which the key before hands over; empty in the first key's entry.
    pub note: String,
}

impl KeyEntry {
    /// Reads an entry's payload; `None` when it is not one of these.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let json: serde_json::Value = serde_json::from_slice(payload).ok()?;
        let text = |field: &str| json.get(field).and_then(serde_json::Value::as_str);
        Some(Self { key: text("vkey")?.parse().ok()?, note: text("note").unwrap_or_default().to_owned() })
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let vkey = self.key.to_string();
        let json = match self.note.as_str() {
            "" => serde_json::json!({ "vkey": vkey }),
            note => serde_json::json!({ "vkey": vkey, "note": note }),
        };
        json.to_string().into_bytes()
    }
}

/// Why a chain of keys leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyChainError {
    /// A chain does not lead back.
    #[error("the note names a key that signed before; a ledger takes a new one each time")]
    CorruptCircle,
    /// The note is none of a rotation of this ledger's key.
    #[error("the note does not name the next key of this ledger")]
    CorruptRotation,
    /// The note or its signature.
    #[error("the note of a key's rotation: {0}")]
    Note(#[from] NoteError),
}

/// The note by which `old` hands over to `new`.
///
/// # Errors
/// The names cannot stand in a note.
pub fn rotation_note(old: &NoteSigner, new: &VerifierKey) -> Result<String, NoteError> {
    old.sign(&format!("{DOMAIN}\n{}\n{new}\n", old.verifier().name()))
}

/// The keys of a ledger as far as they have been followed, oldest first, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChain {
    before: Vec<VerifierKey>,
    current: VerifierKey,
}

impl KeyChain {
    /// Begins with a key that is trusted.
    #[must_use]
    pub const fn new(trusted: VerifierKey) -> Self {
        Self { before: Vec::new(), current: trusted }
    }

    /// Goes over to the key that this note names.
    ///
    /// # Errors
    /// [`KeyChainError`]; the chain stays where it was.
    pub fn follow(&mut self, note: &str) -> Result<(), KeyChainError> {
        let note: Note = note.parse()?;
        let text = note.verified(&self.current)?;
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        let [DOMAIN, origin, new] = lines.as_slice() else { return Err(KeyChainError::CorruptRotation) };
        let new: VerifierKey = new.parse()?;
        if *origin != self.current.name() || new.name() != self.current.name() {
            return Err(KeyChainError::CorruptRotation);
        }
        if self.keys().any(|key| *key == new) {
            return Err(KeyChainError::CorruptCircle);
        }
        self.before.push(std::mem::replace(&mut self.current, new));
        Ok(())
    }

    /// The key that signs now.
    #[must_use]
    pub const fn current(&self) -> &VerifierKey {
        &self.current
    }

    /// Reads a checkpoint that the current key signed.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verified(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::verified(note, &self.current)
    }

    /// Reads a checkpoint that one of the keys signed, as one that was kept for long may be of a key before.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verified_by_any(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let is_unsigned = |error: &CheckpointError| *error == CheckpointError::Note(NoteError::PeerUnsigned);
        let mut tried = self.keys().map(|key| Checkpoint::verified(note, key));
        let found = tried.find(|tried| !tried.as_ref().is_err_and(is_unsigned));
        found.unwrap_or(Err(NoteError::PeerUnsigned.into()))
    }

    /// All keys, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.before.iter().chain([&self.current])
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::origin;
    use super::*;

    fn signer(seed: u8) -> NoteSigner {
        NoteSigner::new(&origin("m"), &[seed; 32]).unwrap()
    }

    #[test]
    fn a_chain_leads_from_the_first_key_to_the_one_that_signs_now() {
        let mut chain = KeyChain::new(signer(1).verifier().clone());
        chain.follow(&rotation_note(&signer(1), signer(2).verifier()).unwrap()).unwrap();
        chain.follow(&rotation_note(&signer(2), signer(3).verifier()).unwrap()).unwrap();
        assert_eq!(chain.current(), signer(3).verifier());
        assert_eq!(chain.keys().count(), 3);
        let checkpoint = Checkpoint { origin: origin("m"), size: 1, root: [0; 32] };
        assert_eq!(chain.verified(&checkpoint.sign(&signer(3)).unwrap()), Ok(checkpoint.clone()));
        assert!(chain.verified(&checkpoint.sign(&signer(2)).unwrap()).is_err());
    }

    #[test]
    fn a_note_of_another_key_ledger_or_kind_hands_nothing_over() {
        let first = KeyChain::new(signer(1).verifier().clone());
        let elsewhere = NoteSigner::new(&origin("elsewhere"), &[2; 32]).unwrap();
        let checkpoint = Checkpoint { origin: origin("m"), size: 1, root: [0; 32] };
        let vkey = signer(2).verifier().to_string();
        let notes = [
            rotation_note(&signer(2), signer(3).verifier()).unwrap(),
            rotation_note(&signer(1), elsewhere.verifier()).unwrap(),
            rotation_note(&signer(1), signer(1).verifier()).unwrap(),
            checkpoint.sign(&signer(1)).unwrap(),
            signer(1).sign(&format!("{DOMAIN}\n{}\n{vkey}\nmore\n", origin("m"))).unwrap(),
            signer(1).sign(&format!("{DOMAIN}\n{}\n{vkey}x\n", origin("m"))).unwrap(),
            signer(1).sign(&format!("{DOMAIN}\nother\n{vkey}\n")).unwrap(),
            "nothing".to_owned(),
        ];
        for note in notes {
            let mut chain = first.clone();
            assert!(chain.follow(&note).is_err(), "{note}");
            assert_eq!(chain, first);
        }
    }
}
