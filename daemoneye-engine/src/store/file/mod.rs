//! Files that somebody else may have put there: opened without waiting for anybody, and told apart from what they were when
//! their bytes were last compared. One file per platform.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "other.rs")]
mod platform;

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Opens a file for reading. A pipe or a device in its place is refused: opening or reading one may wait for ever.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = platform::open(path)?;
    let kind = file.metadata()?.file_type();
    // Reading a directory tells what it is, and waits for nothing.
    if kind.is_file() || kind.is_dir() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"))
}

/// What changes when somebody writes a file or puts another one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    platform: platform::Stamp,
}

impl Stamp {
    pub(super) fn of(found: &Metadata) -> Self {
        Self { bytes: found.len(), modified: found.modified().ok(), platform: platform::Stamp::of(found) }
    }
}

/// Of a file whose bytes were those that were registered: what it looked like then.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<Option<Stamp>>);

impl Verified {
    /// Of a file that was just written here.
    pub(super) fn written(path: &Path) -> Self {
        Self(Mutex::new(fs::metadata(path).ok().map(|found| Stamp::of(&found))))
    }

    pub(super) fn set(&self, stamp: Option<Stamp>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
    }

    fn stamp(&self) -> Option<Stamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file at `path` still looks as it did then.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.stamp().is_some_and(|known| fs::metadata(path).is_ok_and(|found| Stamp::of(&found) == known))
    }
}

impl Clone for Verified {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.stamp()))
    }
}

/// What is known of a file is no part of what it is.
impl PartialEq for Verified {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Verified {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_or_replaced_is_no_longer_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "one").unwrap();
        let known = Verified::written(&path);
        assert!(known.holds(&path) && known.clone().holds(&path));
        fs::write(&path, "three").unwrap();
        assert!(!known.holds(&path));
        assert!(!Verified::default().holds(&path) && !Verified::written(&dir.path().join("none")).holds(&path));
    }

    #[cfg(unix)]
    #[test]
    fn a_change_that_hides_behind_the_old_length_and_time_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "one").unwrap();
        let (known, modified) = (Verified::written(&path), fs::metadata(&path).unwrap().modified().unwrap());
        let other = dir.path().join("y");
        fs::write(&other, "two").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!known.holds(&path));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        assert_eq!(open(&path).unwrap_err().to_string(), "it is no regular file");
    }
}
