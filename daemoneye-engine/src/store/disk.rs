//! The few operations by which the store changes its disk, behind a trait, so that tests can fill it, fail a sync or cut the
//! power at any of them. What is read goes past it: readers open files where they lie.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use redb::{Database, DatabaseError};

use super::overlay::Overlay;
use super::state::builder;

/// A segment file that is being written.
pub(super) trait DiskFile: Write + Send {
    /// Returns when everything written is on disk.
    fn sync(&self) -> io::Result<()>;
}

/// Where `state.redb` and the segments live.
pub(super) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a file; one that is there is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames over whatever is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a database.
    fn new_database(&self, path: &Path) -> Result<Database, DatabaseError>;
    /// Opens the database that is there. Never makes one: where its disk is away, an empty one would take its segments for
    /// garbage.
    fn database(&self, path: &Path) -> Result<Database, DatabaseError>;
    /// The database's file as something that takes changes without room; nothing when it is not there.
    fn overlay(&self, path: &Path) -> io::Result<Overlay>;
}

/// The disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct RealDisk;

impl DiskFile for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// A rename survives a power cut only once its directory is synced; only Unix can open one for that.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn new_database(&self, path: &Path) -> Result<Database, DatabaseError> {
        builder().create(path)
    }

    fn database(&self, path: &Path) -> Result<Database, DatabaseError> {
        builder().open(path)
    }

    fn overlay(&self, path: &Path) -> io::Result<Overlay> {
        match Overlay::over(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Overlay::empty()),
            found => found,
        }
    }
}
