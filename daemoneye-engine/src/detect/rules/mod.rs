//! Rule files: YAML for what a person needs to know, SQL for the logic, and sample events that prove it.
//!
//! A file holds one rule. Unknown keys, wrong kinds and missing fields are refused with line, column and the nearest known
//! name, all problems of a file at once; a bad file never keeps the others from loading. The rule's hash is BLAKE3 over the
//! file's canonical JSON, so comments and layout do not make a new version.

mod load;
mod parse;
mod place;
mod testing;
pub(crate) mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

use daemoneye_lib::model::DetectionRule;
use serde_json::{Map, Value};

pub use load::{load_dirs, load_dirs_over};
pub use parse::parse;
pub use testing::run_tests;

use super::Refusal;
use super::compile::Compiled;

/// Largest rule file in bytes. A rule is a page of text; more is a mistake or an attack on the parser.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Most rule files of one load over all directories, so that a directory given by mistake cannot hold up the start.
pub const MAX_FILES: usize = 10_000;

/// What was found in the rule directories.
#[derive(Debug, Default)]
pub struct Loaded {
    /// One rule per id, those of later directories in place of earlier ones, ordered by id. Disabled ones are among them.
    pub rules: Vec<LoadedRule>,
    /// What was not taken, and why.
    pub problems: Vec<Refusal>,
}

/// A rule as its file says it. Made by [`parse`] only, so its SQL has passed the guard and is compiled.
#[derive(Debug, Clone)]
pub struct LoadedRule {
    /// The rule. `version` is 1 until the store assigns it; nothing else may be changed.
    pub rule: DetectionRule,
    /// Sample events with the expected answer.
    pub tests: Vec<RuleTest>,
    /// The file's text.
    pub source: String,
    /// Where it was read.
    pub path: PathBuf,
    pub(super) compiled: Arc<Compiled>,
}

/// One sample event of a rule file.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// Whether the rule has to match.
    pub expect: bool,
    /// Column → value; a column that is not named is NULL.
    pub event: Map<String, Value>,
    /// Line of the test in its file.
    pub line: u64,
}

/// What running a rule's own tests gave.
#[derive(Debug, Clone, PartialEq)]
pub struct TestReport {
    /// The rule's name.
    pub rule: String,
    /// How many tests held.
    pub passed: usize,
    /// Those that did not.
    pub failures: Vec<TestFailure>,
}

impl TestReport {
    /// Whether every test held.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }
}

/// A test that did not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct TestFailure {
    /// The test's name.
    pub test: String,
    /// Line of the test in its file.
    pub line: u64,
    /// What was expected and what came.
    pub message: String,
}
