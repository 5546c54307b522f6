//! Unix: modes, and links that are not followed.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Creates a directory and its parents; one that exists keeps its mode. The agent's group may pass.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(path)
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    // A pipe put in its place must not hold up the start.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Whether nobody else may read or write it. Root's file is as good as one's own: root reads everything anyway.
pub(super) fn is_private(metadata: &Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    metadata.is_file() && metadata.mode() & 0o077 == 0 && [own, 0].contains(&metadata.uid())
}
