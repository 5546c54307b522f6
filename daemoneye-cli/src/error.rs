//! Why a command failed: what, why, what to do, and the exit code that says so to a script.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemoneye_eventbus::{BusError, RpcError};
use daemoneye_lib::config::ConfigErrors;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::JailError;
use daemoneye_lib::ledger::LedgerError;
use daemoneye_lib::proto::{Fault, FaultKind, Refusal};
use unicode_width::UnicodeWidthStr as _;

use crate::value;

/// Longest part of a statement's line that is shown around the place of an error, in characters.
const SHOWN_CHARACTERS: usize = 120;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("the agent answered with something else than {0}; use the daemoneye-cli of the agent's version")]
    AgentAnswer(&'static str),
    #[error(
        "the agent's socket {} may not be used by this user: {owner}\nask with sudo, or as a member of that group; the groups \
         daemoneye and daemoneye-admin are for this", socket.display()
    )]
    AgentForbidden { socket: PathBuf, owner: String },
    #[error(
        "the agent on {} does not answer: it took the connection and said nothing for {} ms\nit is stopped or very busy; look at \
         its messages, or raise --deadline-ms", socket.display(), waited.as_millis()
    )]
    AgentHung { socket: PathBuf, waited: Duration },
    #[error("the agent gave no answer: {0}; raise --deadline-ms, or see `daemoneye-cli health`")]
    AgentSilent(RpcError),
    #[error("the agent stopped, or closed the connection, before the answer was complete; ask again when it runs")]
    AgentStopped,
    #[error("cannot reach the agent on {}: {}\n{UNREACHABLE_HINT}", socket.display(), cause(source))]
    AgentUnreachable { socket: PathBuf, source: BusError },
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("interrupted")]
    Interrupted,
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    NotProven(String),
    #[error("the agent for the copied store ended before it answered\n{message}")]
    OfflineAgent { message: String, exit: Exit },
    #[error("cannot write the result: {0}")]
    Output(#[source] io::Error),
    #[error("{}", .fault.message)]
    PeerFault { fault: Fault, statement: Option<String> },
    #[error(transparent)]
    SocketPath(BusError),
    #[error("the ledger does not verify: {0}\nkeep the files as they are and compare them with a copy from before")]
    Tampered(#[source] LedgerError),
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}")]
    Usage(String),
}

/// Without the path, which stands before it already.
fn cause(error: &BusError) -> String {
    match error {
        BusError::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Whether the place takes nothing more, whatever is written.
fn cannot_be_written(source: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(source.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

const UNREACHABLE_HINT: &str = "is it running? start it with `daemoneye-agent run`, or name its directory with --runtime-dir; \
                                a copied data directory is asked with --store DIR";

impl CliError {
    /// Somebody closed our standard output, as `head` does; nothing is wrong.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// No agent can be asked; what needs none goes on without it.
    pub(crate) const fn is_away(&self) -> bool {
        matches!(self, Self::AgentForbidden { .. } | Self::AgentHung { .. } | Self::AgentUnreachable { .. })
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::AgentAnswer(_) | Self::Interrupted => Exit::Failure,
            Self::Output(source) if cannot_be_written(source) => Exit::Unreadable,
            Self::Output(_) => Exit::Failure,
            Self::AgentForbidden { .. }
            | Self::AgentHung { .. }
            | Self::AgentSilent(_)
            | Self::AgentStopped
            | Self::AgentUnreachable { .. } => Exit::Unreachable,
            Self::Config(_) | Self::SocketPath(_) => Exit::Config,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => Exit::NotFound,
                io::ErrorKind::PermissionDenied => Exit::Unreadable,
                _ if cannot_be_written(source) => Exit::Unreadable,
                _ => Exit::Failure,
            },
            Self::Jail(error) => error.exit(),
            Self::NotFound(_) => Exit::NotFound,
            Self::NotProven(_) => Exit::Tampered,
            Self::OfflineAgent { exit, .. } => *exit,
            Self::PeerFault { fault, .. } => of_fault(fault.kind()),
            Self::Tampered(error) => error.exit(),
            Self::Unreadable(_) => Exit::Unreadable,
            Self::Usage(_) => Exit::Usage,
        }
    }

    /// The text for standard error, with the place in the statement where the agent named one. What foreign files and peers say
    /// stands in it, so it cannot steer a terminal.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("error: {self}");
        if let Self::PeerFault { fault, statement } = self {
            for problem in &fault.problems {
                text.push_str(&describe(problem, statement.as_deref(), fault.message.contains(&problem.message)));
            }
        }
        value::harmless_lines(&text)
    }

    /// The same error, where rows went into that file.
    pub(crate) fn writing(self, file: &Path) -> Self {
        match self {
            Self::Output(source) => Self::Io { what: format!("write {}", file.display()), source },
            other => other,
        }
    }

    /// The same error, told about the statement that caused it.
    pub(crate) fn about(self, sql: &str) -> Self {
        match self {
            Self::PeerFault { fault, .. } => Self::PeerFault { fault, statement: Some(sql.to_owned()) },
            other => other,
        }
    }
}

impl From<RpcError> for CliError {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Cancelled => Self::Interrupted,
            RpcError::PeerFault(fault) => Self::PeerFault { fault, statement: None },
            RpcError::LimitRunning | RpcError::LimitSize { .. } => Self::Usage(error.to_string()),
            RpcError::Timeout => Self::AgentSilent(error),
            RpcError::Unavailable(_) => Self::AgentStopped,
        }
    }
}

const fn of_fault(kind: FaultKind) -> Exit {
    match kind {
        FaultKind::NotFound => Exit::NotFound,
        FaultKind::Forbidden
        | FaultKind::InvalidRequest
        | FaultKind::Refused
        | FaultKind::TooLarge
        | FaultKind::Unauthenticated
        | FaultKind::UnsupportedVersion => Exit::Refused,
        FaultKind::Unavailable => Exit::Unreachable,
        _ => Exit::Failure,
    }
}

/// A refusal on lines of its own: place, statement with a caret, hint.
pub(crate) fn describe(problem: &Refusal, statement: Option<&str>, message_is_shown: bool) -> String {
    let mut text = String::new();
    if !message_is_shown {
        let Refusal { file, message, line, column, .. } = problem;
        let shown = match (file.is_empty(), *line) {
            (true, 0) => write!(text, "\n  {message}"),
            (true, _) => write!(text, "\n  {message} (line {line}, column {column})"),
            (false, 0) => write!(text, "\n  {file}: {message}"),
            (false, _) => write!(text, "\n  {file}:{line}:{column}: {message}"),
        };
        // Writing to a String cannot fail.
        shown.unwrap_or_default();
    }
    if let Some(picture) = statement.and_then(|sql| picture(sql, problem.line, problem.column)) {
        text.push_str(&picture);
    }
    if !problem.hint.is_empty() {
        write!(text, "\n  hint: {}", problem.hint).unwrap_or_default();
    }
    text
}

/// The statement's line with a caret under the column; a long line is cut around the place. A column is a character, and one
/// character takes two cells of a terminal, one or none.
fn picture(sql: &str, line: u32, column: u32) -> Option<String> {
    let at = usize::try_from(column.checked_sub(1)?).ok()?;
    let text = sql.lines().nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
    if at > text.chars().count() {
        return None;
    }
    let from = at.saturating_sub(SHOWN_CHARACTERS / 2);
    let shown: String =
        text.chars().skip(from).take(SHOWN_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let cut = if from > 0 { "…" } else { "" };
    let left: String = shown.chars().take(at - from).collect();
    let before = cut.width() + left.width();
    Some(format!("\n  | {cut}{shown}\n  | {}^", " ".repeat(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_the_statement_with_a_caret_under_the_place() {
        let problem = Refusal {
            message: "function pg_sleep is not allowed".into(),
            line: 2,
            column: 3,
            hint: "see `docs`".into(),
            file: String::new(),
        };
        let fault = Fault { problems: vec![problem.clone()], ..Fault::new(FaultKind::Refused, problem.message) };
        let error = CliError::from(RpcError::PeerFault(fault)).about("SELECT\n\tpg_sleep(1)");
        assert_eq!(error.exit(), Exit::Refused);
        let expected = "error: function pg_sleep is not allowed\n  |  pg_sleep(1)\n  |   ^\n  hint: see `docs`";
        assert_eq!(error.report(), expected);
    }

    #[test]
    fn the_caret_stands_under_its_place_behind_characters_of_any_width() {
        let caret = |sql: &str, column| {
            let picture = picture(sql, 1, column).unwrap();
            picture.lines().last().unwrap().strip_prefix("  | ").unwrap().len() - 1
        };
        assert_eq!(caret("SELECT '日本' FRM", 13), 14, "two cells each");
        assert_eq!(caret("SELECT 'e\u{301}' FRM", 13), 11, "an accent of its own takes none");
        assert_eq!(caret("SELECT 'é' FRM", 12), 11);
        let long = format!("{}x", "日".repeat(200));
        assert_eq!(caret(&long, 201), 1 + 2 * SHOWN_CHARACTERS / 2, "behind the mark of the cut");
    }

    #[test]
    fn a_place_outside_the_statement_draws_no_picture() {
        assert_eq!(picture("SELECT 1", 0, 0), None);
        assert_eq!(picture("SELECT 1", 7, 1), None);
        assert_eq!(picture("SELECT 1", 1, 70), None);
        let long = "x".repeat(1_000);
        let cut = picture(&long, 1, 900).unwrap();
        assert!(cut.len() < 300 && cut.starts_with("\n  | …x"), "{cut}");
        let caret = cut.lines().last().unwrap().chars().count();
        assert_eq!(cut.lines().nth(1).unwrap().chars().take(caret).last(), Some('x'), "{cut}");
    }
}
