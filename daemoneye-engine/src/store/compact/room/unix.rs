//! Unix: statvfs.

use std::path::Path;

/// Bytes that this user may still write; `None` when the system does not tell.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
