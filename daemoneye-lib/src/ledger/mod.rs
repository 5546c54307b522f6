//! The audit ledger's entry, its BLAKE3 chain and the verifier.
//!
//! `entry_hash` = BLAKE3 over the canonical bytes: the domain `daemoneye/audit/v1`, then each field in the order sequence,
//! timestamp, actor, action, payload hash, previous hash, every one preceded by its length as u32 LE. Integers are LE.
//! Length prefixes make the encoding injective: no two different entries have the same bytes.
//!
//! The payload is not chained itself, only its hash, so it can be withheld without breaking the chain.

mod base64;
pub mod checkpoint;
pub mod clock;
mod entries;
pub mod event;
pub mod heartbeat;
pub mod hexed;
pub mod kept;
pub mod keys;
pub mod note;
pub mod notes;
pub mod proof;
mod range;
mod reader;
mod set_backs;
pub mod tiles;
pub mod tree;
mod unsigned;
mod verify;

pub use entries::{Entries, LedgerFiles, range_in};
pub use range::{EventRange, MAX_RANGE_RECORDS, OtherRecords, RangeBuilder};
pub use reader::{
    LedgerError, LedgerFault, LedgerHeader, LedgerProgress, LedgerReader, LedgerRecord, LedgerSummary, LedgerVerifier,
    Patience,
};
pub use set_backs::{SetBack, SetBacks};
pub use unsigned::{CHECKPOINT_ENTRIES, UnsignedEnd};
pub use verify::{Demands, verify_dir, verify_with};

use serde::{Deserialize, Serialize};

const DOMAIN: &[u8] = b"daemoneye/audit/v1";

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// `previous_hash` of the first entry.
pub const GENESIS: Hash = [0; 32];

/// Who acts for the agent.
pub const AGENT: &str = "agent";
/// What stands before the name of an operator who acts.
pub const OPERATOR: &str = "operator:";

/// Whether an actor is the ledger's collector, whose entries are written when it acts; those of others may have waited.
fn is_collector(actor: &str) -> bool {
    actor != AGENT && !actor.starts_with(OPERATOR)
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// From 0, without gaps.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Who acted: `procmond`, `agent`, `operator:alice`.
    pub actor: String,
    /// What was done: `start`, `event-range`, `alert`, …
    pub action: String,
    /// BLAKE3 of the payload that stands beside the entry.
    pub payload_hash: Hash,
    /// `entry_hash` of the entry before, [`GENESIS`] for the first.
    pub previous_hash: Hash,
    /// BLAKE3 of the canonical bytes of all fields above.
    pub entry_hash: Hash,
}

impl AuditEntry {
    /// Links a new entry to `previous` (its hash; [`GENESIS`] for the first).
    #[must_use]
    pub fn link(
        sequence: u64,
        previous_hash: Hash,
        timestamp_ms: i64,
        actor: impl Into<String>,
        action: impl Into<String>,
        payload: &[u8],
    ) -> Self {
        Self::link_canonical(sequence, previous_hash, timestamp_ms, actor, action, payload, &mut Vec::new())
    }

    /// As [`Self::link`]; leaves the canonical bytes in `canonical`, for whoever hashes them as well.
    #[must_use]
    pub fn link_canonical(
        sequence: u64,
        previous_hash: Hash,
        timestamp_ms: i64,
        actor: impl Into<String>,
        action: impl Into<String>,
        payload: &[u8],
        canonical: &mut Vec<u8>,
    ) -> Self {
        let hash = *blake3::hash(payload).as_bytes();
        let mut entry = Self::unlinked(sequence, previous_hash, timestamp_ms, actor, action, hash);
        canonical.clear();
        entry.write_canonical(canonical);
        entry.entry_hash = *blake3::hash(canonical).as_bytes();
        entry
    }

    /// As [`Self::link`], of a payload that is withheld: `payload_hash` is its BLAKE3.
    #[must_use]
    pub fn link_hashed(
        sequence: u64,
        previous_hash: Hash,
        timestamp_ms: i64,
        actor: impl Into<String>,
        action: impl Into<String>,
        payload_hash: Hash,
    ) -> Self {
        let mut entry = Self::unlinked(sequence, previous_hash, timestamp_ms, actor, action, payload_hash);
        entry.entry_hash = *blake3::hash(&entry.canonical_bytes()).as_bytes();
        entry
    }

    fn unlinked(
        sequence: u64,
        previous_hash: Hash,
        timestamp_ms: i64,
        actor: impl Into<String>,
        action: impl Into<String>,
        payload_hash: Hash,
    ) -> Self {
        let (actor, action) = (actor.into(), action.into());
        Self { sequence, timestamp_ms, actor, action, payload_hash, previous_hash, entry_hash: GENESIS }
    }

    /// The bytes that are hashed; also the leaf of the Merkle tree.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160 + self.actor.len() + self.action.len());
        self.write_canonical(&mut bytes);
        bytes
    }

    fn write_canonical(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(DOMAIN);
        for field in [
            self.sequence.to_le_bytes().as_slice(),
            self.timestamp_ms.to_le_bytes().as_slice(),
            self.actor.as_bytes(),
            self.action.as_bytes(),
            &self.payload_hash,
            &self.previous_hash,
        ] {
            bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(field);
        }
    }
}

/// What is wrong with the first bad entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The entry's own hash does not fit its fields.
    #[error("entry {sequence}: its hash does not fit its fields; the entry was changed")]
    CorruptEntryHash {
        /// The bad entry.
        sequence: u64,
    },
    /// A number is missing, repeated or out of order.
    #[error("entry {expected} is missing: entry {found} stands in its place")]
    CorruptOrder {
        /// What had to come.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The payload beside the entry is not the one that was hashed.
    #[error("entry {sequence}: its payload does not fit its payload hash; the payload was changed")]
    CorruptPayload {
        /// The bad entry.
        sequence: u64,
    },
    /// The entry does not continue the one before it.
    #[error("entry {sequence}: it does not continue the entry before it; an entry was removed, inserted or replaced")]
    CorruptPreviousHash {
        /// The bad entry.
        sequence: u64,
    },
}

impl ChainError {
    /// The entry at which the chain breaks.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        match self {
            Self::CorruptOrder { expected, .. } => *expected,
            Self::CorruptEntryHash { sequence }
            | Self::CorruptPayload { sequence }
            | Self::CorruptPreviousHash { sequence } => *sequence,
        }
    }
}

/// Walks a chain entry by entry. Cloning it at an entry lets a caller verify a prefix once and go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainVerifier {
    next: u64,
    head: Hash,
}

impl Default for ChainVerifier {
    fn default() -> Self {
        Self { next: 0, head: GENESIS }
    }
}

impl ChainVerifier {
    /// Checks the next entry and its payload (`None`: withheld).
    ///
    /// # Errors
    /// [`ChainError`] names the entry and what is wrong; the verifier stays where it was.
    pub fn step(&mut self, entry: &AuditEntry, payload: Option<&[u8]>) -> Result<(), ChainError> {
        self.step_canonical(entry, &entry.canonical_bytes(), payload)
    }

    /// `canonical`: the entry's canonical bytes.
    fn step_canonical(
        &mut self,
        entry: &AuditEntry,
        canonical: &[u8],
        payload: Option<&[u8]>,
    ) -> Result<(), ChainError> {
        let sequence = self.next;
        if entry.sequence != sequence {
            return Err(ChainError::CorruptOrder { expected: sequence, found: entry.sequence });
        }
        if *blake3::hash(canonical).as_bytes() != entry.entry_hash {
            return Err(ChainError::CorruptEntryHash { sequence });
        }
        if entry.previous_hash != self.head {
            return Err(ChainError::CorruptPreviousHash { sequence });
        }
        if payload.is_some_and(|bytes| *blake3::hash(bytes).as_bytes() != entry.payload_hash) {
            return Err(ChainError::CorruptPayload { sequence });
        }
        self.next += 1;
        self.head = entry.entry_hash;
        Ok(())
    }

    /// How many entries have been verified; the number of the next one.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.next
    }

    /// Hash of the last verified entry.
    #[must_use]
    pub const fn head(&self) -> Hash {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut head = GENESIS;
        (0..length)
            .map(|n| {
                let entry = AuditEntry::link(n, head, 1_000 + n as i64, "procmond", "start", b"payload");
                head = entry.entry_hash;
                entry
            })
            .collect()
    }

    fn walk(entries: &[AuditEntry]) -> Result<u64, ChainError> {
        let mut verifier = ChainVerifier::default();
        for entry in entries {
            verifier.step(entry, Some(b"payload"))?;
        }
        Ok(verifier.entries())
    }

    #[test]
    fn an_untouched_chain_verifies() {
        assert_eq!(walk(&chain(5)), Ok(5));
    }

    #[test]
    fn removal_insertion_and_change_are_named() {
        let mut removed = chain(5);
        removed.remove(2);
        assert_eq!(walk(&removed), Err(ChainError::CorruptOrder { expected: 2, found: 3 }));

        let mut changed = chain(5);
        changed[3].actor = "nobody".into();
        assert_eq!(walk(&changed), Err(ChainError::CorruptEntryHash { sequence: 3 }));

        let mut relinked = chain(5);
        relinked[3] = AuditEntry::link(3, GENESIS, 0, "x", "y", b"payload");
        assert_eq!(walk(&relinked), Err(ChainError::CorruptPreviousHash { sequence: 3 }));

        let mut verifier = ChainVerifier::default();
        assert_eq!(verifier.step(&chain(1)[0], Some(b"other")), Err(ChainError::CorruptPayload { sequence: 0 }));
    }

    #[test]
    fn shifting_a_byte_between_actor_and_action_changes_the_hash() {
        let one = AuditEntry::link(0, GENESIS, 0, "ab", "c", b"");
        let two = AuditEntry::link(0, GENESIS, 0, "a", "bc", b"");
        assert_ne!(one.entry_hash, two.entry_hash);
    }
}
