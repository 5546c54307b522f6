//! Unix: modes at creation, `pwrite`, directories that can be synced.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Creates a directory and its parents with `mode`; one that exists keeps its own. New ones outlast a power failure: what is
/// synced in a directory that is gone is gone too, and a ledger without its key looks like one whose key was taken away.
pub(crate) fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    let is_new = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let new: Vec<&Path> = path.ancestors().take_while(is_new).collect();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    for parent in new.iter().filter_map(|dir| dir.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        // A directory of somebody else's, which only makes others, is theirs to sync.
        if let Ok(dir) = Dir::open(parent) {
            dir.sync()?;
        }
    }
    Ok(())
}

/// Creates a file that must not exist.
pub(crate) fn create_file(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Opens a file for writing and leaves its contents; one that exists keeps its mode.
pub(crate) fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)
}

/// Opens a file for reading; neither a link nor a pipe that was put in its place.
pub(crate) fn open_no_follow(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    // The jail knows the one call that std makes as well, not its older form.
    Ok(File::from(rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())?))
}

/// Whether nobody else may read or write it. Root's file is as good as one's own: root reads everything anyway.
pub(crate) fn is_private(metadata: &Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    metadata.is_file() && metadata.mode() & 0o077 == 0 && [own, 0].contains(&metadata.uid())
}

/// Whether those who are neither its owner nor of its group may do nothing with it.
pub(crate) fn is_closed(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.mode() & 0o007 == 0
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// An open directory.
pub(crate) struct Dir(File);

impl Dir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Makes creations, renames and removals in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Resident bytes of this process; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
