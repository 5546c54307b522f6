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

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempPath;
use uuid::Uuid;

pub(crate) use system::is_private;

/// A longer name is left out of the name that its unfinished file has: file systems take 255 bytes, and 18 are added.
const NAME_BYTES: usize = 230;

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

/// A new file that has its name only when it is whole. Until then it stands beside it as `.NAME.….partial` and goes again when
/// it is dropped: a program that is killed leaves nothing under the name that somebody could take for everything.
pub(crate) struct NewFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    whole: bool,
}

impl NewFile {
    /// What is there already is an error, be it a file, a link, a pipe or a device.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        is_free(path)?;
        let partial = beside(path)?;
        Ok(Self { file: create(&partial)?, partial, path: path.to_owned(), whole: false })
    }

    /// Another owner of the same file, for writing.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Everything is written: it is synced, gets its name and stays.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        rename(&self.partial, &self.path)?;
        self.whole = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        // It has its name; a directory that may not be read cannot be synced.
        drop(sync_dir(dir.unwrap_or_else(|| Path::new("."))));
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.whole && std::fs::remove_file(&self.partial).is_err() {
            eprintln!("{} is incomplete; remove it", self.partial.display());
        }
    }
}

fn is_free(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A name in the same directory that nobody has: another program may write the same file.
fn beside(path: &Path) -> io::Result<PathBuf> {
    // `x/` and `x/.` name a directory, which would be told only when everything is written.
    let is_last = |name: &&OsStr| path.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes());
    let name = path.file_name().filter(is_last);
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file"))?;
    let mut partial = OsString::from(".");
    if name.len() <= NAME_BYTES {
        partial.push(name);
    }
    partial.push(format!(".{:08x}.partial", Uuid::new_v4().as_fields().0));
    Ok(path.with_file_name(partial))
}

/// Replaces nothing; what came meanwhile neither, where the file system can refuse to.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut partial = TempPath::try_from_path(from)?;
    // A failure is told by the owner, who removes it.
    partial.disable_cleanup(true);
    match partial.persist_noclobber(to) {
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Err(failed.error),
        // Some file systems cannot refuse to replace, and the jail makes no links in its place.
        Err(_) => is_free(to).and_then(|()| std::fs::rename(from, to)),
        Ok(()) => Ok(()),
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
        assert_eq!(names(dir.path()), Vec::<String>::new());
        let file = NewFile::create(&path).unwrap();
        file.writer().unwrap().write_all(b"a\n").unwrap();
        file.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a\n");
        assert!(NewFile::create(&path).is_err(), "a file that is there is not overwritten");
        assert!(path.exists() && is_private(&path).unwrap());
        assert_eq!(names(dir.path()), ["export.csv"]);
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export.csv");
        let file = NewFile::create(&path).unwrap();
        file.writer().unwrap().write_all(b"a\n").unwrap();
        let partial = names(dir.path()).pop().unwrap();
        assert!(partial.starts_with(".export.csv.") && partial.ends_with(".partial"), "{partial}");
        assert!(is_private(&dir.path().join(partial)).unwrap());

        // A name that somebody took meanwhile is theirs.
        std::fs::write(&path, b"theirs").unwrap();
        assert_eq!(file.keep().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            (names(dir.path()), std::fs::read(&path).unwrap()),
            (vec!["export.csv".into()], b"theirs".to_vec())
        );
    }

    #[test]
    fn what_is_no_name_of_a_new_file_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let longest = "x".repeat(255);
        let file = NewFile::create(&dir.path().join(&longest)).unwrap();
        file.keep().unwrap();
        assert_eq!(names(dir.path()), [longest]);
        for name in ["new/", "new/.", "..", ".", "none/new", &"x".repeat(256)] {
            assert!(NewFile::create(&dir.path().join(name)).is_err(), "{name}");
        }
        assert!(NewFile::create(Path::new("")).is_err());
        assert_eq!(names(dir.path()).len(), 1);
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
