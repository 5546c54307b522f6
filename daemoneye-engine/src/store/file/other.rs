//! Elsewhere: length and time of the last write are all that is compared.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

pub(super) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp;

impl Stamp {
    pub(super) const fn of(_: &Metadata) -> Self {
        Self
    }
}
