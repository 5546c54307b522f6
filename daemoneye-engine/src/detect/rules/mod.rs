//! Rule files: YAML for what a person needs to know, SQL for the logic, and sample events that prove it.
//!
//! A file holds one rule, or what belongs to rules: a list of values, an override, the manifest of a pack. Unknown keys, wrong kinds and missing fields are refused with line, column and the nearest known
//! name, all problems of a file at once; a bad file never keeps the others from loading. The rule's hash is BLAKE3 over the
//! file's canonical JSON, so comments and layout do not make a new version.

mod check;
mod document;
mod except;
mod kept;
mod lists;
mod load;
mod mend;
mod overrides;
mod packs;
mod parse;
mod place;
mod reader;
mod statement;
mod testing;
mod write;
pub(crate) mod yaml;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_lib::columns::{PROCESS_EVENTS, process_event_column};
use daemoneye_lib::model::DetectionRule;
use daemoneye_lib::proto::PathTest;
use serde_json::{Map, Value};

pub use crate::sql::lists::ListItem;
pub use check::{Checked, check_file, check_file_after, lists_with};
pub use kept::{keep, kept_lists, kept_rules};
pub use lists::{Lists, MAX_LIST_VALUES, ValueList};
pub use load::{apart, files, load_dirs, load_dirs_over, load_texts};
pub(crate) use load::{because, is_yaml};
pub use overrides::OverrideFile;
pub use packs::Pack;
pub use parse::parse;
pub use testing::run_tests;
pub use write::{exceptions_to_yaml, lists_to_yaml, to_yaml};

use super::Refusal;
use super::compile::{self, Compiled};
use super::exceptions::Exception;
use super::prefilter::paths_when_true;
use super::window::Planned;
use crate::sql::{self, SqlRefusal};

/// Largest rule file in bytes. A rule is a page of text; more is a mistake or an attack on the parser.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Most rule files of one load over all directories, so that a directory given by mistake cannot hold up the start.
pub const MAX_FILES: usize = 10_000;

/// What was found in the rule directories.
#[derive(Debug, Default)]
pub struct Loaded {
    /// One rule per id, those of later directories in place of earlier ones, ordered by id. Disabled ones are among them.
    pub rules: Vec<LoadedRule>,
    /// The value lists that rules may name.
    pub lists: Lists,
    /// The packs that have a manifest.
    pub packs: Vec<Pack>,
    /// What was not taken, and why.
    pub problems: Vec<Refusal>,
}

/// A rule as its file says it. Made by [`parse`] only, so its SQL has passed the guard and is compiled.
#[derive(Debug, Clone)]
pub struct LoadedRule {
    /// The rule. `version` is 1 until the store assigns it; nothing else may be changed.
    pub rule: Arc<DetectionRule>,
    /// Sample events with the expected answer.
    pub tests: Vec<RuleTest>,
    /// The file's text; empty once it is in the store.
    pub source: String,
    /// What its hash is over: its text, with the values of the lists that it names, then what each override changes; empty once it is in the
    /// store.
    pub hashed: Vec<String>,
    /// Where it was read.
    pub path: PathBuf,
    /// The value lists that its SQL names, as it was compiled with them.
    pub lists: Lists,
    /// What its users know to be harmless, from override files.
    pub exceptions: Vec<Arc<Exception>>,
    /// The files that override it, in the order in which they do.
    pub overrides: Vec<OverrideFile>,
    pub(super) compiled: Arc<Compiled>,
    /// What decides it when one event cannot; `compiled` matches nothing then.
    pub(super) window: Option<Arc<Planned>>,
}

impl LoadedRule {
    /// The columns of `process_events` that its condition reads; those that its plan reads, of a window rule.
    #[must_use]
    pub fn columns(&self) -> Vec<&'static str> {
        let asked = self.window.as_ref().map_or(&self.compiled.asked, |plan| &plan.asked);
        asked.iter().filter_map(|at| PROCESS_EVENTS.get(*at)).map(|column| column.name).collect()
    }

    /// Every column of `process_events` that it needs: for its condition, its answer, its exceptions and to tell alerts apart.
    #[must_use]
    pub fn reads(&self) -> BTreeSet<&'static str> {
        let excepted = self.excepted();
        let own = self.window.as_ref().map_or(&self.compiled.columns, |plan| &plan.kept);
        let named = self.rule.dedup.iter().filter_map(|name| process_event_column(name)).map(|column| column.name);
        let read = own.iter().chain(&excepted).filter_map(|at| PROCESS_EVENTS.get(*at)).map(|column| column.name);
        read.chain(named).collect()
    }

    /// Tests of which the path of the executable passes one in every event that it may match or keep; `None`: any path may do. What it
    /// reads of other events decides nothing.
    #[must_use]
    pub fn paths(&self) -> Option<Vec<PathTest>> {
        let Some(plan) = &self.window else { return paths_when_true(&self.compiled.condition) };
        plan.conditions().map(paths_when_true).collect::<Option<Vec<_>>>().map(|all| all.concat())
    }

    /// What its exceptions read: the rows that a window rule keeps have it too.
    pub(super) fn excepted(&self) -> BTreeSet<usize> {
        self.exceptions.iter().flat_map(|exception| exception.compiled.columns.iter().copied()).collect()
    }

    /// How far back it looks, in µs; a rule that one event decides does not.
    #[must_use]
    pub fn look_back_us(&self) -> i64 {
        self.window.as_ref().map_or(0, |plan| plan.back_us())
    }

    /// How long after its time an event may still be found by it, in µs: what waits for something absent finds it then.
    #[must_use]
    pub fn wait_us(&self) -> i64 {
        self.window.as_ref().map_or(0, |plan| plan.wait_us())
    }

    /// The rule under what overrides a loaded one with its id: its exceptions, and what they set in place of the file's own words.
    /// `source` is the loaded one's text, `lists` are those that it was read with.
    #[must_use]
    pub fn overridden_as(mut self, loaded: &Self, source: &str, lists: &Lists) -> Self {
        self.exceptions.clone_from(&loaded.exceptions);
        let Ok(Checked::Rule(plain)) = check_file(&loaded.path, source, lists) else { return self };
        let rule = Arc::make_mut(&mut self.rule);
        if plain.rule.dedup != loaded.rule.dedup {
            rule.dedup.clone_from(&loaded.rule.dedup);
        }
        if plain.rule.dedup_window_s != loaded.rule.dedup_window_s {
            rule.dedup_window_s = loaded.rule.dedup_window_s;
        }
        if plain.rule.severity != loaded.rule.severity {
            rule.severity = loaded.rule.severity;
        }
        self
    }

    /// Drops the texts that only the store needs, after [`keep`]: of three thousand rules they are some megabytes.
    pub fn settle(&mut self) {
        (self.source, self.hashed) = (String::new(), Vec::new());
    }

    /// Its SQL once more through the guard, with the values of its lists; the bounds of a statement are those of the SQL as it is written,
    /// however many values that names.
    pub(super) fn checked(&self) -> Result<sql::Checked, SqlRefusal> {
        sql::check_rule(&self.rule.sql, compile::known::instead, &self.lists)
    }
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
    /// Further events behind it, for a window rule.
    pub then: Vec<Map<String, Value>>,
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

/// The last part of a path.
fn part(path: Option<&Path>) -> String {
    path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
