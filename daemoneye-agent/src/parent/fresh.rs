//! Directories that a start makes, and takes back when nothing came of it: whoever was refused, or mistyped a path, finds the
//! disk as it was. Only what is still empty goes.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

/// Directories that do not exist yet, the deepest first.
pub(crate) struct Fresh(Vec<PathBuf>);

impl Fresh {
    /// What has to be made for `paths` to be there.
    pub(crate) fn of(paths: &[&Path]) -> Self {
        let all = paths.iter().flat_map(|path| path.ancestors());
        let mut absent: Vec<PathBuf> = all.filter(|path| !path.exists()).map(Path::to_owned).collect();
        absent.sort_by_key(|path| Reverse(path.components().count()));
        Self(absent)
    }

    /// Removes those that were made and hold nothing.
    pub(crate) fn take_back(&self) {
        for path in &self.0 {
            if let Err(error) = std::fs::remove_dir(path) {
                tracing::debug!(path = %path.display(), %error, "stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_and_is_empty_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |below: &str| dir.path().join(below);
        std::fs::create_dir(at("there")).unwrap();
        let fresh = Fresh::of(&[&at("there/a/data"), &at("there/a/run"), &at("there"), &at("full")]);
        std::fs::create_dir_all(at("there/a/data")).unwrap();
        std::fs::create_dir(at("full")).unwrap();
        std::fs::write(at("full/file"), "").unwrap();
        fresh.take_back();
        assert!(!at("there/a").exists() && at("there").exists() && at("full/file").exists());
    }
}
