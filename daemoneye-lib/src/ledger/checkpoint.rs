//! Checkpoints: what a signed note says of a ledger's tree at one moment (c2sp.org/tlog-checkpoint).
//!
//! Three lines: the origin `daemoneye/<machine>/audit`, the number of entries, the tree's root in base64. Whoever keeps one of them
//! elsewhere can show later that entries were cut off, put back or replaced.

use std::str::FromStr;

use super::note::{Note, NoteError, NoteSigner, VerifierKey};
use super::{Hash, base64};

/// A ledger's tree at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which ledger.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// The tree's root over them.
    pub root: Hash,
}

/// Why a checkpoint says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note's text is no checkpoint.
    #[error("the note is not a checkpoint")]
    CorruptText,
    /// The note or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It is another ledger's.
    #[error("the checkpoint is of {found}, the key of {wanted}")]
    PeerOrigin {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

/// The origin of the ledger of a machine; a name for its keys.
#[must_use]
pub fn origin(machine: &str) -> String {
    format!("daemoneye/{machine}/audit")
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, base64::encode(&self.root))
    }

    /// The signed note.
    ///
    /// # Errors
    /// The origin has a control character.
    pub fn sign(&self, signer: &NoteSigner) -> Result<String, NoteError> {
        signer.sign(&self.text())
    }

    /// Reads a note that `key` signed for the ledger of its own name.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verified(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note: Note = note.parse()?;
        let checkpoint: Self = note.verified(key)?.parse()?;
        if checkpoint.origin == key.name() {
            return Ok(checkpoint);
        }
        Err(CheckpointError::PeerOrigin { found: checkpoint.origin, wanted: key.name().to_owned() })
    }

    /// Reads a note and does not look at its signature.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn dangerous_unverified(note: &str) -> Result<Self, CheckpointError> {
        note.parse::<Note>()?.dangerous_unverified_text().parse()
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    /// The text without its signature. Lines after the third are extensions, which say nothing of the tree.
    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::CorruptText)?.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::CorruptText);
        let (origin, size, root) = (next()?, next()?, next()?);
        let number: u64 = size.parse().map_err(|_| CheckpointError::CorruptText)?;
        // `+7` and `007` are other spellings of a number that has one.
        if number.to_string() != size || lines.any(str::is_empty) {
            return Err(CheckpointError::CorruptText);
        }
        let root = base64::decode_hash(root).ok_or(CheckpointError::CorruptText)?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: origin("4f3"), size: 1_000, root: [5; 32] }
    }

    #[test]
    fn a_checkpoint_goes_through_its_note() {
        let signer = NoteSigner::new(&origin("4f3"), &[1; 32]).unwrap();
        let note = checkpoint().sign(&signer).unwrap();
        assert!(note.starts_with("daemoneye/4f3/audit\n1000\nBQUF"), "{note}");
        assert_eq!(Checkpoint::verified(&note, signer.verifier()), Ok(checkpoint()));
        assert_eq!(Checkpoint::dangerous_unverified(&note), Ok(checkpoint()));
        let stranger = NoteSigner::new(&origin("4f3"), &[2; 32]).unwrap();
        let unsigned = Err(CheckpointError::Note(NoteError::PeerUnsigned));
        assert_eq!(Checkpoint::verified(&note, stranger.verifier()), unsigned);
    }

    #[test]
    fn a_checkpoint_of_another_ledger_is_none_of_this_one() {
        let signer = NoteSigner::new(&origin("other"), &[1; 32]).unwrap();
        let note = checkpoint().sign(&signer).unwrap();
        assert!(matches!(Checkpoint::verified(&note, signer.verifier()), Err(CheckpointError::PeerOrigin { .. })));
    }

    #[test]
    fn texts_that_are_no_checkpoint_are_refused_and_extensions_are_passed_over() {
        let text = checkpoint().text();
        assert_eq!(format!("{text}extension 1\n").parse(), Ok(checkpoint()));
        let bad = [
            String::new(),
            "\n".to_owned(),
            text.trim_end().to_owned(),
            text.replace("1000", "01000"),
            text.replace("1000", "-1"),
            text.replace("1000", "99999999999999999999"),
            text.replace("daemoneye/4f3/audit", ""),
            text.replace('=', ""),
            format!("{text}\nx\n"),
            "a\n1\n".to_owned(),
        ];
        for text in bad {
            assert_eq!(text.parse::<Checkpoint>(), Err(CheckpointError::CorruptText), "{text:?}");
        }
    }
}
