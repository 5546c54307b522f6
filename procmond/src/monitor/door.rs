//! The door that every record passes before anything else sees it: secrets leave it, and the hash of its executable joins it
//! when it is known.

use std::sync::{PoisonError, RwLock};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
use daemoneye_lib::redaction::Redactor;

use super::wanted::Wanted;
use crate::hashing::{ALGORITHM, Answer, FileKey, HashStatus, HashWish, Hasher};
use crate::text::bound;

/// What a process runs, or why that is not hashed; `None` when nobody has looked.
pub(super) type Looked = Option<Result<FileKey, HashStatus>>;

fn wish(record: &ProcessRecord, entity: EntityId, file: Option<FileKey>) -> Option<HashWish> {
    let executable_path = record.executable_path.clone()?;
    Some(HashWish { entity, pid: record.pid, executable_path, uid: record.uid, file })
}

pub(super) struct Door {
    pub(super) redactor: Option<Redactor>,
    pub(super) hasher: Option<Hasher>,
    /// Whose hashes are read.
    wanted: RwLock<Wanted>,
}

impl Default for Door {
    fn default() -> Self {
        Self::new(None, None)
    }
}

impl Door {
    pub(super) const fn new(redactor: Option<Redactor>, hasher: Option<Hasher>) -> Self {
        Self { redactor, hasher, wanted: RwLock::new(Wanted::All) }
    }

    /// Whose hashes are read from now on.
    pub(super) fn select_hashes(&self, wanted: Wanted) {
        *self.wanted.write().unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    fn hasher(&self, record: &ProcessRecord) -> Option<&Hasher> {
        let (hasher, path) = (self.hasher.as_ref()?, record.executable_path.as_ref()?);
        self.wanted.read().unwrap_or_else(PoisonError::into_inner).has(path).then_some(hasher)
    }

    /// What the process runs, asked of the file system, which may hang: before any lock.
    pub(super) fn look(&self, record: &ProcessRecord) -> Looked {
        let (hasher, entity) = (self.hasher(record)?, EntityId::from_bytes(&record.entity_id)?);
        Some(hasher.look(&wish(record, entity, None)?))
    }

    /// `entity` is whose record it is; without it a hash that takes its time would find nobody.
    /// `looked` is its executable as the kernel or the file system identifies it.
    pub(super) fn admit(
        &self,
        record: &mut ProcessRecord,
        entity: Option<EntityId>,
        looked: Looked,
    ) -> Option<Answer> {
        self.redact(record);
        let answer = self.hash(record, entity, looked);
        if let Some(Answer { hash, status }) = answer.clone() {
            record.hash_algorithm = hash.is_some().then(|| ALGORITHM.to_owned());
            record.executable_hash = hash;
            record.hash_status = Some(status.word().to_owned());
        }
        bound(record);
        answer
    }

    pub(super) fn redact(&self, record: &mut ProcessRecord) {
        let ProcessRecord { executable_path, command_line, arg_lengths, .. } = record;
        if let (Some(redactor), Some(line)) = (&self.redactor, command_line) {
            redactor.command_line(executable_path.as_deref(), line, arg_lengths);
        }
    }

    fn hash(&self, record: &ProcessRecord, entity: Option<EntityId>, looked: Looked) -> Option<Answer> {
        let hasher = self.hasher(record)?;
        match looked.transpose() {
            Ok(file) => hasher.ask(wish(record, entity?, file)?),
            Err(status) => Some(Answer { hash: None, status }),
        }
    }

    /// What `health` tells about both.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.redactor.is_none() {
            notes.push("redaction is off: secrets in command lines are kept".to_owned());
        }
        let Some(hasher) = &self.hasher else {
            notes.push("executable hashing is off".to_owned());
            return notes;
        };
        notes.extend(self.wanted.read().unwrap_or_else(PoisonError::into_inner).note());
        let counters = hasher.counters();
        let counted = [
            (counters.timeouts, "executables took too long to hash"),
            (counters.shed, "executables were not hashed for want of room, or on a device that does not answer"),
            (counters.left_behind, "hashing threads hang in a read that does not come back"),
        ];
        notes.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        notes
    }
}
