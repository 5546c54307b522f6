//! Unix: the mode.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

pub(super) fn options(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

pub(super) fn directory(builder: &mut DirBuilder) -> &mut DirBuilder {
    builder.mode(0o700)
}

/// Whether nobody else may read it.
pub(crate) fn is_private(path: &Path) -> io::Result<bool> {
    Ok(path.metadata()?.mode() & 0o077 == 0)
}
