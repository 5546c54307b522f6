//! Checks everything that is stored: each segment against what `state.redb` says of it, each value, each reference both ways.
//!
//! It changes nothing. A live store is checked while it is written: the files are pinned, `state.redb` is read in one
//! transaction, and what only looks wrong because it came since is looked at again. What is wrong is named with what to do;
//! the first thousand findings are listed, the others counted.

mod segments;
mod tables;

use std::path::Path;

use serde::Serialize;

use super::{Store, StoreError};

/// Findings that are listed: more than a person reads, and a bound for a store that is garbage.
const LISTED: usize = 1_000;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: a file below the data directory, or a table and a key of `state.redb`.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fsck {
    /// Segments that were read.
    pub segments: u64,
    /// Bytes of them.
    pub segment_bytes: u64,
    /// Rows of them.
    pub segment_rows: u64,
    /// Tables of `state.redb`.
    pub tables: u64,
    /// Values in them.
    pub values: u64,
    /// The first problems.
    pub problems: Vec<Problem>,
    /// Problems that are not listed.
    pub further_problems: u64,
    /// False: the check was stopped before its end.
    pub finished: bool,
}

impl Fsck {
    /// Whether all was checked and nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.finished && self.problems.is_empty()
    }

    fn report(&mut self, place: impl Into<String>, what: impl Into<String>, advice: &'static str) {
        let problem = Problem { place: place.into(), what: what.into(), advice };
        list(&mut self.problems, &mut self.further_problems, problem);
    }
}

/// Lists a problem, or counts it when there are as many as anybody reads.
pub(super) fn list(problems: &mut Vec<Problem>, further: &mut u64, problem: Problem) {
    if problems.len() >= LISTED {
        *further = further.saturating_add(1);
    } else {
        problems.push(problem);
    }
}

/// Told how many bytes of how many are done; false stops.
pub type OnProgress<'a> = dyn FnMut(u64, u64) -> bool + 'a;

impl Store {
    /// Checks all of it. Takes as long as reading every segment takes.
    ///
    /// # Errors
    /// [`StoreError`] when the check itself cannot go on; what is wrong with the store is in the result.
    pub fn fsck(&self, progress: &mut OnProgress<'_>) -> Result<Fsck, StoreError> {
        let mut found = Fsck::default();
        self.check_tables(&mut found)?;
        found.finished = self.check_history(&mut found, progress)?;
        Ok(found)
    }
}

fn shown(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
