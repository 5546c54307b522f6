//! What is worth its price: whose executables are hashed.

use daemoneye_lib::path_test::FoldedPath;
use daemoneye_lib::proto::{ColumnSelection, PathQuestion, PathTest};

/// The columns that are empty without hashing; rules that read them are shown as unhealthy then.
pub(super) const HASH_COLUMNS: [&str; 3] = ["executable_hash", "hash_algorithm", "hash_status"];

/// The questions that narrow a selection.
pub(super) const QUESTIONS: [PathQuestion; 3] = [PathQuestion::Contains, PathQuestion::Equals, PathQuestion::BaseName];

/// Whose hashes are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// Everybody's.
    All,
    /// Nobody's.
    None,
    /// Of executables with a path that passes one of these.
    Where(Vec<PathTest>),
}

impl From<ColumnSelection> for Wanted {
    fn from(ColumnSelection { columns, only_where, .. }: ColumnSelection) -> Self {
        match columns.iter().any(|column| HASH_COLUMNS.contains(&column.as_str())) {
            false => Self::None,
            true if only_where.is_empty() => Self::All,
            true => Self::Where(only_where),
        }
    }
}

impl Wanted {
    /// What stays empty for everybody.
    pub(crate) const fn left_empty(&self) -> &'static [&'static str] {
        match self {
            Self::All | Self::Where(_) => &[],
            Self::None => &HASH_COLUMNS,
        }
    }

    /// Whether the hash of this executable is read.
    pub(crate) fn has(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Where(tests) => {
                let path = FoldedPath::new(path);
                tests.iter().any(|test| test.passes(&path))
            }
        }
    }

    /// What `health` tells about it.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::None => Some("executables are not hashed: no rule in force reads a hash".to_owned()),
            Self::Where(tests) => {
                Some(format!("executables are hashed only where one of {} tests of their paths passes", tests.len()))
            }
        }
    }
}
