//! The directory where a query puts what its memory does not hold: sorts, groups and joins spill there, up to a quota that all
//! queries share.
//!
//! What spills are rows of history, so the files are readable by the agent's user only, go when the operator that wrote them
//! ends, and whatever a killed agent left is removed before the first query. Nothing else may lie in the directory.

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where queries spill, and how much.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Made when it is missing, emptied when it is not.
    pub dir: PathBuf,
    /// Bytes of all files in it together.
    pub quota_bytes: u64,
}

/// A disk for queries; without a scratch directory they do not spill.
pub(crate) fn disk(scratch: Option<&Scratch>) -> io::Result<DiskManagerBuilder> {
    let builder = DiskManagerBuilder::default();
    let Some(Scratch { dir, quota_bytes }) = scratch.filter(|scratch| scratch.quota_bytes > 0) else {
        return Ok(builder.with_mode(DiskManagerMode::Disabled));
    };
    match empty(dir) {
        // A start on a full disk answers all the same; what does not fit into memory is cut.
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            tracing::warn!(dir = %dir.display(), %error, "queries do not spill until the next start");
            return Ok(builder.with_mode(DiskManagerMode::Disabled));
        }
        emptied => emptied?,
    }
    Ok(builder.with_mode(DiskManagerMode::Directories(vec![dir.clone()])).with_max_temp_directory_size(*quota_bytes))
}

/// Leaves the directory there, with nothing in it; the directory itself stays, as a sandbox may have let it in. A link in its place is
/// replaced and not followed.
fn empty(dir: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => {
            for entry in fs::read_dir(dir)? {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }?;
            }
            Ok(())
        }
        Ok(_) => fs::remove_file(dir).and_then(|()| fs::create_dir_all(dir)),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(dir),
        Err(error) => Err(error),
    }
}
