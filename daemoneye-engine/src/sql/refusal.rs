//! Why a statement was not run, or not finished: a closed set, worded for the person who typed it.

use super::arithmetic::DOES_NOT_FIT;
use daemoneye_lib::proto::Refusal;
use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use thiserror::Error;

/// Bytes of a message: parts of the statement are quoted in it, and a statement may be one long word.
const MESSAGE_BYTES: usize = 400;

/// How the engine begins to say that a number is beyond the type of its CAST.
pub(crate) const CAST_FAILED: &str = "Can't cast value ";

const LOOKS_ELSEWHERE: &str = "more than conditions in WHERE, and with groups more than equal columns, in a subquery that looks at the outer row";

/// What the engine says of rows, and what that means to whoever wrote the statement.
const ENGINE_SAYS: [(&str, &str); 9] = [
    ("DivideByZero", "a division by zero; write a / nullif(b, 0), which is NULL there"),
    ("Divide by zero error", "a division by zero; write a / nullif(b, 0), which is NULL there"),
    (
        "Scalar subquery returned more than one row",
        "a subquery that stands for one value has several rows; write IN (SELECT …), or take one with max(…) or LIMIT 1",
    ),
    (
        "Timestamp out of range",
        "a time lies outside of the years that a time can have; add less to it, or take less from it",
    ),
    ("Substring without for/from", "substr takes a text, a position from 1 and at most a length"),
    (
        "`retract_batch`",
        "this aggregate cannot follow its frame: let the frame begin at UNBOUNDED PRECEDING, or use another aggregate",
    ),
    ("not support logical expression InSubquery", LOOKS_ELSEWHERE),
    ("not support logical expression Exists", LOOKS_ELSEWHERE),
    (
        "not support logical expression ScalarSubquery",
        "a subquery that stands for one value and looks at the outer row must be an aggregate, without LIMIT, over equal columns",
    ),
];

/// A statement that is not accepted: where, why, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}{}", place(*line, *column))]
pub struct SqlRefusal {
    /// What is not accepted.
    pub message: String,
    /// From 1; 0 when the position is not known.
    pub line: u32,
    /// From 1, in characters; 0 when the position is not known.
    pub column: u32,
    /// What to use instead; may be empty.
    pub hint: String,
}

fn place(line: u32, column: u32) -> String {
    if line == 0 { String::new() } else { format!(" (line {line}, column {column})") }
}

impl SqlRefusal {
    /// A refusal at a place.
    pub(crate) fn at(location: Location, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        Self {
            message,
            line: u32::try_from(location.line).unwrap_or(u32::MAX),
            column: u32::try_from(location.column).unwrap_or(u32::MAX),
            hint: hint.into(),
        }
    }

    /// A refusal at the start of a span.
    pub(crate) fn span(span: Span, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::at(span.start, message, hint)
    }

    /// A refusal of the statement as a whole.
    #[must_use]
    pub fn whole(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::at(Location { line: 0, column: 0 }, message, hint)
    }

    /// The shape that goes over a socket.
    #[must_use]
    pub fn to_proto(&self, file: &str) -> Refusal {
        Refusal {
            message: self.message.clone(),
            line: self.line,
            column: self.column,
            hint: self.hint.clone(),
            file: file.to_owned(),
        }
    }
}

/// What the engine said at the root of an error, on one line and in SQL's words: its outer layers name plan nodes, and further
/// lines hold candidates and back traces.
pub(crate) fn spoken(error: &DataFusionError) -> String {
    in_words(&error.find_root().message())
}

/// [`spoken`], where only the text of the error is left.
pub(crate) fn in_words(text: &str) -> String {
    if text.contains("regex parse error") {
        let reason = text.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it does not parse");
        return format!("the pattern does not compile: {reason}");
    }
    if text.contains("CompiledTooBig") {
        return "the pattern does not compile: it needs too much memory".to_owned();
    }
    let first = text.lines().next().unwrap_or("it failed");
    if let Some((_, words)) = ENGINE_SAYS.iter().find(|(said, _)| first.contains(said)) {
        return (*words).to_owned();
    }
    if let Some((text, of)) =
        first.split_once("Cannot cast string ").and_then(|(_, rest)| rest.split_once(" to value of "))
    {
        let of = of.strip_suffix(" type").unwrap_or(of);
        let noun = if of.starts_with("Bool") { "neither true nor false" } else { "no number" };
        return format!("{text} is {noun}; TRY_CAST(column AS …) is NULL there");
    }
    let number = first.split_once(CAST_FAILED).and_then(|(_, rest)| rest.split_once(" to type "));
    number.map_or_else(|| first.to_owned(), |(value, _)| format!("{value} {DOES_NOT_FIT} of that type"))
}

/// Why a query gave no answer. What was cut but answered is in the result's completeness instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// All query slots stayed taken.
    #[error(
        "{running} queries are running and none ended within {waited_ms} ms; try again: a query ends at its deadline, or when who asked it leaves"
    )]
    Busy {
        /// How many may run at once.
        running: usize,
        /// How long this one waited.
        waited_ms: u64,
    },
    /// The caller cancelled it or went away.
    #[error("the query was cancelled")]
    Cancelled,
    /// The statement was accepted and failed on the data, for example by a division by zero.
    #[error("the query failed: {0}")]
    Execution(String),
    /// The engine's own thread is gone; only a restart helps.
    #[error("the query engine has stopped; restart the agent")]
    Stopped,
    /// Tables, columns or types do not fit.
    #[error("{0}")]
    Planning(SqlRefusal),
    /// A gate refused the statement.
    #[error("{0}")]
    Refused(SqlRefusal),
}

impl QueryError {
    /// The same, saying which parameter is to blame.
    #[must_use]
    pub(crate) fn of_parameter(self, number: Option<usize>) -> Self {
        let Some(number) = number else { return self };
        match self {
            Self::Planning(refusal) => {
                Self::Planning(SqlRefusal { message: format!("${number}: {}", refusal.message), ..refusal })
            }
            Self::Execution(what) => Self::Execution(format!("${number}: {what}")),
            other => other,
        }
    }

    /// The refusal, where the statement is to blame.
    #[must_use]
    pub const fn refusal(&self) -> Option<&SqlRefusal> {
        match self {
            Self::Planning(refusal) | Self::Refused(refusal) => Some(refusal),
            Self::Busy { .. } | Self::Cancelled | Self::Execution(_) | Self::Stopped => None,
        }
    }
}
