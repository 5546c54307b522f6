//! The few file operations that the logs are made of, behind a trait, so that tests can fill the disk, fail a sync or lose
//! what was not synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::platform;

/// An open segment file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The operating system's; how much was written is then unknown.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when everything written is on disk.
    ///
    /// # Errors
    /// What is on disk is then unknown, and a second call would lie.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    ///
    /// # Errors
    /// The operating system's.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// Where segment files live.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// The operating system's.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames over whatever is there.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// The operating system's.
    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn DiskDir>>;
}

/// An open directory: kept as long as its log, because a sync that needs a descriptor fails when there is none, and a failed sync
/// ends the program.
pub trait DiskDir: Send + Sync {
    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// The operating system's; what is on disk is then unknown.
    fn sync(&self) -> io::Result<()>;
}

/// The disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        platform::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl DiskDir for platform::Dir {
    fn sync(&self) -> io::Result<()> {
        Self::sync(self)
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(platform::create_file(path, mode)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(platform::Dir::open(dir)?))
    }
}
