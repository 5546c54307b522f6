//! Elsewhere access lists decide, and they have no short name.

use std::path::Path;

pub(crate) fn of(path: &Path) -> String {
    format!("see the access list of {}", path.display())
}
