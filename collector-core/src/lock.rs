//! One collector per directory: an advisory lock that ends with the process, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::CollectorError;

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes `dir/lock`.
    pub(crate) fn take(dir: &Path) -> Result<Self, CollectorError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| CollectorError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(CollectorError::MisuseInUse(dir.to_owned())),
            Err(TryLockError::Error(e)) => Err(CollectorError::io("lock", &path, e)),
        }
    }
}
