//! Why a rule file was not taken, with the place to look at.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One problem of one rule file. Lines and columns count from 1; 0 means the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The file, or the directory that could not be read.
    pub file: PathBuf,
    /// Line in that file.
    pub line: u64,
    /// Column in that line, in characters.
    pub column: u64,
    /// What is wrong: lower case, one sentence.
    pub message: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
}

impl Refusal {
    /// A problem of the file as a whole.
    #[must_use]
    pub fn whole(file: &Path, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into(), hint: hint.map(str::to_owned) }
    }

    /// Whether this is about the file, or about a directory that it lies in.
    #[must_use]
    pub fn concerns(&self, file: &Path) -> bool {
        file.starts_with(&self.file)
    }

    /// `file:line:column`, or the file alone.
    #[must_use]
    pub fn place(&self) -> String {
        let file = self.file.display();
        if self.line > 0 { format!("{file}:{}:{}", self.line, self.column) } else { file.to_string() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}
