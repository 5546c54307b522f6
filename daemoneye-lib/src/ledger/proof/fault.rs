//! Why a file proves nothing, in words for whoever was handed it.

use super::super::checkpoint::CheckpointError;
use super::super::keys::KeyChainError;
use super::super::tree::ProofError;
use super::SinceFault;

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofFault {
    /// The alert is not the one of an entry.
    #[error(
        "the alert is not the one that an entry of the ledger tells of; it was changed, or belongs to another proof"
    )]
    CorruptAlert,
    /// The checkpoint.
    #[error("the checkpoint: {0}")]
    CorruptCheckpoint(#[from] CheckpointError),
    /// An entry.
    #[error("entry {sequence} does not stand in the ledger of the checkpoint: {what}")]
    CorruptEntry {
        /// Which one.
        sequence: u64,
        /// Why not.
        what: ProofError,
    },
    /// An event.
    #[error("event {number}, {what}")]
    CorruptEvent {
        /// Which one of the file's, from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
    /// Not a file as this program writes it.
    #[error("this is no proof as daemoneye-cli writes it: {0}")]
    CorruptFile(String),
    /// The chain of keys.
    #[error("the chain of keys: {0}")]
    CorruptKeys(#[from] KeyChainError),
    /// The rule's text is not the one that the alert names.
    #[error("the rule's text is none, or does not have the hash that the alert names")]
    CorruptRule,
    /// The older checkpoint.
    #[error("the checkpoint that the file is to go on from: {0}")]
    CorruptSince(#[from] SinceFault),
    /// What is in the file is not what it is to prove.
    #[error("it does not hold what it says that it proves: {0}")]
    CorruptTarget(&'static str),
    /// The key is of another ledger than the file.
    #[error(
        "the file is of the ledger {found}, the key of {wanted}; give the key of that ledger, or ask for the right file"
    )]
    MisuseKey {
        /// Whose the file is.
        found: String,
        /// Whose the key is.
        wanted: String,
    },
    /// The key is none of those that lead to the checkpoint's.
    #[error(
        "the key {key} neither signed the file's checkpoint of {origin} nor handed over to the key that did: it is that of another \
         ledger of this name, or younger than the file, or the file is forged"
    )]
    PeerKey {
        /// The key that was given.
        key: String,
        /// Whose the file is.
        origin: String,
    },
}

impl ProofFault {
    /// Whether the key is the wrong one to ask with, which says nothing against the file.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        matches!(self, Self::MisuseKey { .. })
    }
}
