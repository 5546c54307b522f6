//! What somebody who is copying `state.redb` has yet to read is not written over.
//!
//! A copy of a running host's directory has the beginning of the file, which says where everything is, some time before the rest. What
//! a change replaces is free for the next change as soon as nobody reads it, and the copy would have that. So there is always one reader
//! that is as old as a copy may take; the file grows by what is replaced meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::ReadTransaction;

use super::StoreError;

/// How long a copy may take: two GiB from memory, 200 MB from a slow disk.
const COPY: Duration = Duration::from_secs(2);
/// Changes that a copy may see at least: each replaces some 150 KB.
const CHANGES: u32 = 128;

struct Reader {
    since: Instant,
    changes: u32,
    _transaction: ReadTransaction,
}

/// Readers of some earlier states, the oldest first.
#[derive(Default)]
pub(super) struct Copied(Mutex<VecDeque<Reader>>);

impl Copied {
    /// Before each change; `read` begins a transaction that reads.
    pub(super) fn keep(&self, read: impl FnOnce() -> Result<ReadTransaction, StoreError>) -> Result<(), StoreError> {
        let now = Instant::now();
        let is_due = |reader: &Reader| reader.changes >= CHANGES || now.duration_since(reader.since) >= COPY;
        let mut readers = self.readers();
        for reader in readers.iter_mut() {
            reader.changes = reader.changes.saturating_add(1);
        }
        if readers.back().is_none_or(is_due) {
            readers.push_back(Reader { since: now, changes: 0, _transaction: read()? });
        }
        while readers.get(1).is_some_and(is_due) {
            drop(readers.pop_front());
        }
        Ok(())
    }

    /// Before the file is closed or made smaller.
    pub(super) fn let_go(&self) {
        self.readers().clear();
    }

    fn readers(&self) -> MutexGuard<'_, VecDeque<Reader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Copied").field(&self.readers().len()).finish()
    }
}
