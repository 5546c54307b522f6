//! Elsewhere: access is governed by the directory's own rights, and directories cannot be synced.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

pub(crate) fn create_dir(path: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

pub(crate) fn create_file(path: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

pub(crate) fn open_or_create(path: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

pub(crate) fn open_no_follow(path: &Path) -> io::Result<File> {
    File::open(path)
}

pub(crate) fn is_private(metadata: &Metadata) -> bool {
    metadata.is_file()
}

pub(crate) fn is_closed(metadata: &Metadata) -> bool {
    metadata.is_file()
}

pub(crate) fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

pub(crate) struct Dir;

#[expect(clippy::unnecessary_wraps, reason = "same signatures as on unix")]
impl Dir {
    pub(crate) const fn open(_path: &Path) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) const fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn resident_bytes() -> u64 {
    0
}
