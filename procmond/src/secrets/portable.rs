//! Systems without modes: the directory's own rights protect the key.

use std::io;
use std::path::Path;

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}
