//! Systems without modes: the directory's own rights protect the key.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

pub(super) fn is_private(metadata: &Metadata) -> bool {
    metadata.is_file()
}
