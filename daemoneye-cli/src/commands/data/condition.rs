//! A condition that stands in a statement of ours: it may not end the parenthesis around it, or what `--from` and `--to` say would
//! not hold for its other half. Whether it is SQL is for the agent to say; its places are told in what was typed.

use daemoneye_lib::proto::{Fault, FaultKind, Refusal};

use crate::error::CliError;

/// Refuses a condition that is more than one expression: what closes more than it opens, leaves something open, or goes on after `;`.
pub(super) fn alone(condition: &str) -> Result<(), CliError> {
    if condition.trim().is_empty() {
        return Err(CliError::Usage("--where is empty: write a condition, or leave it out".to_owned()));
    }
    let (mut line, mut column) = (1, 0);
    let mut state = State::Code { depth: 0 };
    let mut signs = condition.chars().peekable();
    while let Some(sign) = signs.next() {
        (line, column) = if sign == '\n' { (line + 1, 0) } else { (line, column + 1) };
        let pair = signs.peek().copied();
        let (next, both) = state.after(sign, pair).map_err(|what| refused(condition, what, line, column.max(1)))?;
        state = next;
        if both {
            signs.next();
            column += 1;
        }
    }
    let open = match state {
        State::Code { depth: 0 } | State::Line { depth: 0 } => return Ok(()),
        State::Code { .. } | State::Line { .. } => "a parenthesis stays open",
        State::Block { .. } => "a comment stays open",
        State::Quoted { .. } => "a quote stays open",
    };
    Err(refused(condition, open, line, column.max(1)))
}

/// What the lexer is in.
#[derive(Clone, Copy)]
enum State {
    Block { depth: u32, comments: u32 },
    Code { depth: u32 },
    Line { depth: u32 },
    Quoted { depth: u32, quote: char },
}

impl State {
    /// The state after a sign, and whether the sign behind it belongs to it.
    fn after(self, sign: char, next: Option<char>) -> Result<(Self, bool), &'static str> {
        let state = match (self, sign) {
            (Self::Code { depth }, '\'' | '"') => Self::Quoted { depth, quote: sign },
            (Self::Code { depth }, '-') if next == Some('-') => return Ok((Self::Line { depth }, true)),
            (Self::Code { depth }, '/') if next == Some('*') => return Ok((Self::Block { depth, comments: 1 }, true)),
            (Self::Code { depth }, '(') => Self::Code { depth: depth.saturating_add(1) },
            (Self::Code { depth }, ')') => {
                Self::Code { depth: depth.checked_sub(1).ok_or("it closes a parenthesis that it has not opened")? }
            }
            (Self::Code { .. }, ';') => return Err("it goes on with another statement"),
            // Two of them are one that is meant: it opens again at once.
            (Self::Quoted { depth, quote }, _) if sign == quote => Self::Code { depth },
            (Self::Line { depth }, '\n' | '\r') => Self::Code { depth },
            (Self::Block { depth, comments }, '/') if next == Some('*') => {
                return Ok((Self::Block { depth, comments: comments.saturating_add(1) }, true));
            }
            (Self::Block { depth, comments }, '*') if next == Some('/') => {
                let inner = comments.saturating_sub(1);
                return Ok((
                    if inner == 0 { Self::Code { depth } } else { Self::Block { depth, comments: inner } },
                    true,
                ));
            }
            (state, _) => state,
        };
        Ok((state, false))
    }
}

fn refused(condition: &str, what: &str, line: u32, column: u32) -> CliError {
    let message = format!("--where takes one condition: {what}");
    let hint = "write one expression, such as \"pid = 1 OR ppid = 1\"".to_owned();
    let problem = Refusal { message: message.clone(), line, column, hint, file: String::new() };
    let message = format!("{message} (line {line}, column {column})");
    let fault = Fault { problems: vec![problem], ..Fault::new(FaultKind::Refused, message) };
    CliError::PeerFault { fault, statement: Some(condition.to_owned()) }
}

/// What the agent said of the statement, told of the condition where it is about that.
pub(super) fn about(error: CliError, sql: &str, condition: &str) -> CliError {
    let before = sql.split_once(condition).map_or(0, |(before, _)| before.chars().count());
    let before = u32::try_from(before).unwrap_or(u32::MAX);
    let CliError::PeerFault { mut fault, .. } = error else { return error };
    let inside = |problem: &Refusal| {
        let at = usize::try_from(problem.line).ok()?.checked_sub(1)?;
        let column = if at == 0 { problem.column.checked_sub(before)? } else { problem.column };
        // One further than its end is where something is missing.
        let width = u32::try_from(condition.split('\n').nth(at)?.chars().count()).ok()?;
        (1..=width.saturating_add(1)).contains(&column).then_some(column)
    };
    let columns: Option<Vec<u32>> = fault.problems.iter().map(inside).collect();
    let Some(columns) = columns.filter(|columns| !columns.is_empty()) else {
        return CliError::PeerFault { fault, statement: Some(sql.to_owned()) };
    };
    for (problem, column) in fault.problems.iter_mut().zip(columns) {
        let place = |column: u32| format!("(line {}, column {column})", problem.line);
        fault.message = fault.message.replace(&place(problem.column), &place(column));
        problem.column = column;
    }
    CliError::PeerFault { fault, statement: Some(condition.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::exit::Exit;

    #[test]
    fn a_condition_that_leaves_its_parenthesis_is_refused_where_it_does() {
        for (condition, place) in [
            ("pid = 1) OR (1=1", "(line 1, column 8)"),
            ("pid = 1\n) OR (1=1", "(line 2, column 1)"),
            ("pid = 1; SELECT 1", "(line 1, column 8)"),
            ("pid = 1 --\r) OR (1=1", "(line 1, column 12)"),
            ("pid = (1", "(line 1, column 8)"),
            ("name = 'x", "(line 1, column 9)"),
            ("pid = 1 /* ) */ */ /*", "(line 1, column 21)"),
            ("name = 'a'') OR (1=1'') OR (1=1", "(line 1, column 31)"),
        ] {
            let error = alone(condition).unwrap_err();
            assert_eq!(error.exit(), Exit::Refused, "{condition}");
            assert!(error.to_string().ends_with(place), "{condition}: {error}");
        }
        for condition in [
            "pid = 1",
            "(pid = 1) OR (1 = 1) -- ) x",
            "name = ') OR ('",
            "name = 'it''s)' /* ) /* ) */ */",
            "\"a)\" = 1",
            "5 - 3 / 2 > 0",
        ] {
            alone(condition).unwrap();
        }
    }

    #[test]
    fn places_that_the_agent_tells_are_those_of_what_was_typed() {
        let sql = "SELECT * FROM process_events WHERE (nme = 1\n) AND time >= $1";
        let told = |column| {
            let problem = Refusal { line: 1, column, ..Refusal::default() };
            let message = format!("there is no column nme (line 1, column {column})");
            let fault = Fault { problems: vec![problem], ..Fault::new(FaultKind::Refused, message) };
            about(CliError::PeerFault { fault, statement: None }, sql, "nme = 1").report()
        };
        let inside = told(37);
        assert!(inside.contains("(line 1, column 1)") && inside.contains("| nme = 1\n  | ^"), "{inside}");
        assert!(told(15).contains("FROM process_events WHERE"), "a place before it is one of the statement");
    }
}
