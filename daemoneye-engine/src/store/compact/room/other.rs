//! Elsewhere nobody is asked: a merge that does not fit fails and is taken back.

use std::path::Path;

/// Not known.
pub(super) fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}
