//! One collector per directory: an advisory lock that ends with the process, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::CollectorError;
use crate::platform;

/// How long a lock may still be seen whose holder was killed: the system takes back its memory before its files, and a child that it
/// had forked holds them until it executes its program. A busy machine takes a second for either.
const DYING: Duration = Duration::from_secs(2);
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(1);

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

impl DirLock {
    /// Takes `dir/lock`, created with `mode`.
    pub(crate) fn take(dir: &Path, mode: u32) -> Result<Self, CollectorError> {
        let path = dir.join("lock");
        let file = platform::open_or_create(&path, mode).map_err(|e| CollectorError::io("open", &path, e))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if began.elapsed() < DYING => std::thread::park_timeout(RETRY),
                Err(TryLockError::WouldBlock) => return Err(CollectorError::MisuseInUse(dir.to_owned())),
                Err(TryLockError::Error(e)) => return Err(CollectorError::io("lock", &path, e)),
            }
        }
    }
}

impl Drop for DirLock {
    /// In so many words: closing it is not enough while a child that another thread has forked has not yet executed its program.
    fn drop(&mut self) {
        // Where that fails the lock ends with its last descriptor.
        let _held_longer = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_let_go_is_free_although_a_child_still_has_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path(), 0o600).unwrap();
        let of_a_child = lock.file.try_clone().unwrap();
        assert!(matches!(DirLock::take(dir.path(), 0o600), Err(CollectorError::MisuseInUse(_))));
        drop(lock);
        DirLock::take(dir.path(), 0o600).unwrap();
        drop(of_a_child);
    }
}
