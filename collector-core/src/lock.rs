//! One collector per directory: an advisory lock that ends with the process, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::CollectorError;
use crate::platform;

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes `dir/lock`, created with `mode`.
    pub(crate) fn take(dir: &Path, mode: u32) -> Result<Self, CollectorError> {
        let path = dir.join("lock");
        let file = platform::open_or_create(&path, mode).map_err(|e| CollectorError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(CollectorError::MisuseInUse(dir.to_owned())),
            Err(TryLockError::Error(e)) => Err(CollectorError::io("lock", &path, e)),
        }
    }
}
