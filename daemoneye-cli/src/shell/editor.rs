//! The line editor: keys, history, completion, and lines until the statement is whole.

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Helper};

use super::catalog::Catalog;
use super::complete::complete;
use super::history::History;
use super::statement;
use crate::error::CliError;

const PROMPT: &str = "daemoneye> ";

/// What came from the keyboard.
pub(super) enum Read {
    /// Ctrl-D on an empty line.
    End,
    Failed(CliError),
    /// Ctrl-C: the line is forgotten.
    Interrupted,
    Text(String),
}

pub(super) struct Editor {
    inner: rustyline::Editor<Assistant, MemHistory>,
    history: History,
}

impl Editor {
    pub(super) fn new(catalog: Catalog) -> Result<Self, CliError> {
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
        let mut inner = rustyline::Editor::with_history(config, MemHistory::new()).map_err(broken)?;
        inner.set_helper(Some(Assistant { catalog }));
        let history = History::open(History::place().as_deref());
        for entry in history.loaded() {
            inner.add_history_entry(entry).map_err(broken)?;
        }
        Ok(Self { inner, history })
    }

    pub(super) fn read(&mut self) -> Read {
        match self.inner.readline(PROMPT) {
            Ok(text) => {
                if !text.trim().is_empty() && matches!(self.inner.add_history_entry(text.trim_end()), Ok(true)) {
                    self.history.add(text.trim_end());
                }
                Read::Text(text)
            }
            Err(ReadlineError::Eof) => Read::End,
            Err(ReadlineError::Interrupted) => Read::Interrupted,
            Err(error) => Read::Failed(broken(error)),
        }
    }
}

fn broken(error: ReadlineError) -> CliError {
    let source = match error {
        ReadlineError::Io(source) => source,
        other => std::io::Error::other(other.to_string()),
    };
    CliError::Io { what: "read from the terminal".to_owned(), source }
}

/// What the editor asks while somebody types.
struct Assistant {
    catalog: Catalog,
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&self.catalog, line, cursor))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let whole = statement::is_whole(context.input());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {}

impl Helper for Assistant {}
