//! What was typed, in a file that only this user may read: one JSON string a line, so that a statement of several lines
//! comes back as it was. The newest thousand are kept.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::private;

/// Entries that are loaded.
const LOADED: usize = 1_000;
/// Lines at which the file is written anew with the loaded ones only.
const MOST_LINES: usize = 2 * LOADED;
/// A longer file is none of ours.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// The file, and what was in it.
#[derive(Debug)]
pub(super) struct History {
    file: Option<File>,
    loaded: Vec<String>,
}

impl History {
    /// Where it belongs: `XDG_STATE_HOME`, else `.local/state` in the home directory.
    pub(super) fn place() -> Option<PathBuf> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))?;
        Some(state.join("daemoneye/shell_history"))
    }

    /// Opens the file, or goes on without one and says why.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let none = || Self { file: None, loaded: Vec::new() };
        let Some(path) = path else { return none() };
        Self::at(path).unwrap_or_else(|error| {
            eprintln!("no history is kept in {}: {error}", path.display());
            none()
        })
    }

    fn at(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            private::create_dir(dir)?;
        }
        let mut file = private::append(path)?;
        if !private::is_private(path)? {
            return Err(io::Error::other("others may read it; take their rights with chmod 600"));
        }
        if file.metadata()?.len() > MOST_BYTES {
            return Err(io::Error::other("it is too long; remove it"));
        }
        let text = std::fs::read_to_string(path)?;
        // A line that is no entry was cut by a full disk.
        let mut loaded: Vec<String> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lines = text.lines().count();
        loaded.drain(..loaded.len().saturating_sub(LOADED));
        if lines > MOST_LINES {
            file = rewrite(path, &loaded)?;
        }
        Ok(Self { file: Some(file), loaded })
    }

    /// The entries, the oldest first.
    pub(super) fn loaded(&self) -> &[String] {
        &self.loaded
    }

    /// Adds an entry; without room for it the shell goes on.
    pub(super) fn add(&mut self, entry: &str) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(line(entry).as_bytes()) {
            eprintln!("the history is not kept any more: {error}");
            self.file = None;
        }
    }
}

fn line(entry: &str) -> String {
    format!("{}\n", serde_json::Value::from(entry))
}

/// Beside it first, so that a crash leaves one of the two.
fn rewrite(path: &Path, entries: &[String]) -> io::Result<File> {
    let partial = path.with_extension("new");
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private::create(&partial)?;
    file.write_all(entries.iter().map(|entry| line(entry)).collect::<String>().as_bytes())?;
    std::fs::rename(&partial, path)?;
    private::append(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_several_lines_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/shell_history");
        let mut history = History::open(Some(&path));
        history.add("SELECT 1\nFROM t;");
        history.add(".tables");
        assert!(private::is_private(&path).unwrap());
        assert_eq!(History::open(Some(&path)).loaded(), ["SELECT 1\nFROM t;", ".tables"]);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shell_history");
        let mut history = History::open(Some(&path));
        for number in 0..=MOST_LINES {
            history.add(&format!("SELECT {number};"));
        }
        let mut again = History::open(Some(&path));
        assert_eq!((again.loaded().len(), again.loaded().last().unwrap().as_str()), (LOADED, "SELECT 2000;"));
        again.add(".help");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), LOADED + 1);
        assert!(private::is_private(&path).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_not_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shell_history");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        History::open(Some(&path)).add("SELECT 1;");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
