//! The rule files of a folder: walked in order, read within bounds, and what could not be read told.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::detect::rules::{because, is_yaml};

/// Largest file in bytes. A rule is a page of text, a collection of them some hundred.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most files below one folder: ten times the public collection.
const MAX_FILES: usize = 50_000;
/// Deepest directory.
const MAX_DEPTH: usize = 16;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the folder, with `/` between its parts.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// Every `*.yml` and `*.yaml` below a folder in order of name, or the one file that `path` is; and what could not be read.
#[must_use]
pub fn files(path: &Path) -> (Vec<RuleFile>, Vec<(PathBuf, String)>) {
    let mut walk = Walk { root: path, walked: BTreeSet::new(), found: Vec::new(), problems: Vec::new() };
    if path.is_dir() {
        walk.directory(path, 0);
    } else {
        walk.file(path);
    }
    (walk.found, walk.problems)
}

struct Walk<'a> {
    root: &'a Path,
    /// Directories by their one name: links may lead to each of them again, also in a circle.
    walked: BTreeSet<PathBuf>,
    found: Vec<RuleFile>,
    problems: Vec<(PathBuf, String)>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Path, depth: usize) {
        if !self.walked.insert(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())) {
            return;
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => return self.problem(dir, format!("the directory cannot be read: {error}")),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        for path in paths {
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_rule = is_yaml(&path);
            if is_hidden {
                continue;
            }
            if path.is_dir() {
                match depth {
                    MAX_DEPTH.. => self.problem(&path, format!("more than {MAX_DEPTH} directories deep: not read")),
                    _ => self.directory(&path, depth + 1),
                }
            } else if is_rule {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        if self.found.len() >= MAX_FILES {
            if self.found.len() == MAX_FILES && !self.problems.iter().any(|(_, told)| told.starts_with("more than")) {
                self.problem(path, format!("more than {MAX_FILES} rule files: the rest is not read"));
            }
            return;
        }
        match read(path) {
            Ok(text) => {
                let below = path.strip_prefix(self.root).ok().filter(|below| !below.as_os_str().is_empty());
                let below = below.or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
                let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
                self.found.push(RuleFile { path: path.to_owned(), name: parts.join("/"), text });
            }
            Err(problem) => self.problem(path, problem),
        }
    }

    fn problem(&mut self, path: &Path, message: String) {
        self.problems.push((path.to_owned(), message));
    }
}

/// Never more than the bound, whatever the file turns out to be.
fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("the file cannot be read: {}", because(path, &error));
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("this is not a regular file".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MAX_FILE_BYTES) {
        return Err(format!("the file is larger than {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}
