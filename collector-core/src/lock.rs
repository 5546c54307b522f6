//! One collector per directory: an advisory lock that ends with the process, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::CollectorError;
use crate::platform;

/// How long a lock that was let go may still be seen: a child that another thread has forked holds it until it executes its
/// program, which takes a busy machine some milliseconds.
const FORKED: Duration = Duration::from_millis(200);
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(1);

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
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if began.elapsed() < FORKED => std::thread::park_timeout(RETRY),
                Err(TryLockError::WouldBlock) => return Err(CollectorError::MisuseInUse(dir.to_owned())),
                Err(TryLockError::Error(e)) => return Err(CollectorError::io("lock", &path, e)),
            }
        }
    }
}
