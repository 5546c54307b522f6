//! Files that only this user may read: what is taken out of the store, and what was typed.
//!
//! The mode is given when the file is made: changing it afterwards would leave a moment in which others read it.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
use portable as system;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use system::is_private;

/// A new file for writing; one that exists is an error.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    system::options(OpenOptions::new().write(true).create_new(true)).open(path)
}

/// A file that is written at its end, made where it is not there.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    system::options(OpenOptions::new().append(true).create(true)).open(path)
}

/// A directory and those above it.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    system::directory(DirBuilder::new().recursive(true)).create(path)
}

/// Makes names in a directory survive a power cut; only Unix can open one for that.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// A new file that goes again unless it becomes whole.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    whole: bool,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: create(path)?, path: path.to_owned(), whole: false })
    }

    /// Another owner of the same file, for writing.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Everything is written: it is synced and stays.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.whole && std::fs::remove_file(&self.path).is_err() {
            eprintln!("{} is incomplete; remove it", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_that_did_not_become_whole_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export.csv");
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists());
        let file = NewFile::create(&path).unwrap();
        file.writer().unwrap().write_all(b"a\n").unwrap();
        file.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a\n");
        assert!(NewFile::create(&path).is_err(), "a file that is there is not overwritten");
        assert!(path.exists() && is_private(&path).unwrap());
    }
}
