//! The first two gates: text in, a checked syntax tree out. [`Checked`] can only be made here.

use super::dialect::Postgres;
use super::lists::{self, ValueLists};
use super::{SqlRefusal, lower, names, patterns, tokens, walk};
use datafusion::sql::sqlparser::ast::{Query, Statement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::cell::Cell;
use std::collections::BTreeSet;

/// Stack of the thread that parses and walks, in bytes. The token caps allow some 64 levels, of which each takes a dozen
/// frames of the parser; unoptimised frames reach 10 KiB. The pages are only touched when they are needed.
pub(crate) const STACK_BYTES: usize = 64 * 1024 * 1024;

/// A statement that passed the caps and the syntax walk, with the sugar already lowered: `REGEXP` stands as
/// `PGRegexMatch` (`~`), `datetime(…)` as timestamp arithmetic.
#[derive(Debug, Clone)]
pub struct Checked {
    pub(crate) query: Query,
    pub(crate) tables: BTreeSet<&'static str>,
    pub(crate) parameters: usize,
    /// The `$n` that stand for an instant, and where.
    pub(crate) instants: Vec<(usize, Location)>,
    pub(crate) subqueries: usize,
    /// The value lists that it names, whose values stand in the tree.
    pub(crate) lists: BTreeSet<String>,
}

impl Checked {
    /// The syntax tree, lowered.
    #[must_use]
    pub const fn query(&self) -> &Query {
        &self.query
    }

    /// The tables that it reads, each once.
    pub fn tables(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.tables.iter().copied()
    }

    /// How many queries stand inside it.
    #[must_use]
    pub const fn subqueries(&self) -> usize {
        self.subqueries
    }

    /// The highest `$n` that it uses.
    #[must_use]
    pub const fn parameters(&self) -> usize {
        self.parameters
    }
}

/// Decides whether `sql` is one SELECT that we run, before anything is planned.
///
/// # Errors
/// The first thing that is not accepted, with its place and what to write instead.
pub fn check(sql: &str) -> Result<Checked, SqlRefusal> {
    on_large_stack(|| check_here(sql))
}

/// [`check`] for a rule, which has functions of its own to recommend and may name lists.
pub(crate) fn check_rule(
    sql: &str,
    instead_of_function: fn(&str) -> String,
    lists: &dyn ValueLists,
) -> Result<Checked, SqlRefusal> {
    on_large_stack(|| checked(sql, instead_of_function, true, Some(lists)))
}

/// [`check`] for a thread whose stack is already large.
pub(crate) fn check_here(sql: &str) -> Result<Checked, SqlRefusal> {
    checked(sql, names::instead_of_function, false, None)
}

/// The same for a query that may name lists.
pub(crate) fn check_query(sql: &str, lists: &dyn ValueLists) -> Result<Checked, SqlRefusal> {
    checked(sql, names::instead_of_function, false, Some(lists))
}

fn checked(
    sql: &str,
    instead_of_function: fn(&str) -> String,
    is_rule: bool,
    lists: Option<&dyn ValueLists>,
) -> Result<Checked, SqlRefusal> {
    Parsed::of(sql, is_rule)?.checked(instead_of_function, is_rule, lists)
}

/// A text that kept the caps and is SQL, as it was written.
#[derive(Clone)]
pub(crate) struct Parsed {
    statements: Vec<Statement>,
    texts: Vec<(String, Location)>,
    clauses: Vec<(Keyword, Location)>,
    second: Option<Location>,
}

impl Parsed {
    /// Of a rule. For a thread whose stack is large, as are all that work on it.
    pub(crate) fn rule(sql: &str) -> Result<Self, SqlRefusal> {
        Self::of(sql, true)
    }

    fn of(sql: &str, is_rule: bool) -> Result<Self, SqlRefusal> {
        let tokens = tokens::capped(sql, is_rule)?;
        let end = tokens::end(&tokens);
        let (texts, second) = (tokens::texts(&tokens), tokens::second_statement(&tokens));
        let clauses = tokens::clauses(&tokens);
        let statements = Parser::new(&Postgres)
            .with_recursion_limit(tokens::RECURSION_LIMIT)
            .with_tokens_with_locations(tokens)
            .parse_statements()
            .map_err(|error| parse_refusal(error, sql, end))?;
        Ok(Self { statements, texts, clauses, second })
    }

    /// The query, where it is one.
    pub(crate) fn query(&mut self) -> Option<&mut Query> {
        match self.statements.as_mut_slice() {
            [Statement::Query(query)] => Some(query),
            _ => None,
        }
    }

    /// [`check_rule`] of what was parsed.
    pub(crate) fn check_rule(
        self,
        instead_of_function: fn(&str) -> String,
        lists: &dyn ValueLists,
    ) -> Result<Checked, SqlRefusal> {
        self.checked(instead_of_function, true, Some(lists))
    }

    fn checked(
        mut self,
        instead_of_function: fn(&str) -> String,
        is_rule: bool,
        lists: Option<&dyn ValueLists>,
    ) -> Result<Checked, SqlRefusal> {
        let mut used = BTreeSet::new();
        if let (Some(query), Some(known)) = (self.query(), lists) {
            used = lists::expand(query, known)?;
        }
        let Self { mut statements, texts, clauses, second } = self;
        // Of a rule the matcher or the plan compiles them, and tells the place too.
        let try_pattern = if is_rule { patterns::parse } else { patterns::compile };
        let walked = walk::statements(&statements, second, (texts, clauses), instead_of_function, try_pattern)?;
        // The walk accepted exactly one statement, and it is a query.
        let Some(Statement::Query(query)) = statements.pop() else {
            return Err(SqlRefusal::whole("there is no statement", "write one SELECT"));
        };
        let mut query = *query;
        lower::query(&mut query)?;
        let walk::Walked { tables, parameters, instants, subqueries } = walked;
        Ok(Checked { query, tables, parameters, instants, subqueries, lists: used })
    }
}

thread_local! {
    static STACK_IS_LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` where deep trees may be built, walked and dropped: here, if this is such a thread already. A thread costs more
/// than checking a rule, so who checks many asks for one first.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, SqlRefusal> + Send) -> Result<T, SqlRefusal> {
    if STACK_IS_LARGE.get() {
        return work();
    }
    let work = || {
        STACK_IS_LARGE.set(true);
        work()
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("sql-check".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| SqlRefusal::whole(format!("no thread to check the statement: {error}"), "try again"))?
            .join()
            .unwrap_or_else(|_| Err(SqlRefusal::whole("the statement could not be checked", "simplify it")))
    })
}

fn parse_refusal(error: ParserError, sql: &str, end: Location) -> SqlRefusal {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            let (message, location) = split_location(&text);
            // It names a word with all that it knows of it.
            let word = message.split_once("No infix parser for token ").and_then(|(_, token)| token.split('"').nth(1));
            let message =
                word.map_or_else(|| message.to_owned(), |word| format!("Expected: an operator, found: {word}"));
            // The parser knows no place for what is missing at the end.
            let hint = location.and_then(|at| instead(sql, at)).map_or_else(|| hint(sql), str::to_owned);
            SqlRefusal::at(location.unwrap_or(end), format!("this is not SQL that we know: {message}"), hint)
        }
        ParserError::RecursionLimitExceeded => {
            SqlRefusal::whole("the statement is nested too deeply", "split it with WITH or flatten the conditions")
        }
    }
}

/// `PRAGMA`, `.tables` and `help` ask what there is.
fn hint(sql: &str) -> String {
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let asks = first.starts_with(['.', '\\']) || matches!(first.as_str(), "help" | "pragma");
    if asks { names::listing() } else { "write one SELECT statement".to_owned() }
}

/// What of other databases' SQL stands where the parser stopped, said otherwise.
const OTHERWISE: [(&str, &str); 6] = [
    ("?", "bind values as $1, $2, …"),
    ("`", "write names as they are, or in \"double quotes\""),
    (",", "LIMIT 3 OFFSET 2 skips two rows"),
    (")", "a list has at least one value"),
    ("glob", "use LIKE with % and _, or REGEXP"),
    ("match", "use LIKE with % and _, or REGEXP"),
];

fn instead(sql: &str, at: Location) -> Option<&'static str> {
    let (line, column) = (usize::try_from(at.line).ok()?, usize::try_from(at.column).ok()?);
    let line = sql.lines().nth(line.checked_sub(1)?)?;
    let (from, _) = line.char_indices().nth(column.checked_sub(1)?)?;
    let (before, rest) = line.split_at_checked(from)?;
    // A whole word, or a sign.
    let found = OTHERWISE.iter().find(|(what, _)| {
        rest.split_at_checked(what.len()).is_some_and(|(start, after)| {
            let goes_on =
                what.ends_with(char::is_alphabetic) && after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            start.eq_ignore_ascii_case(what) && !goes_on
        })
    });
    // Only what is meant: a comma may be missing its column, a bracket its value.
    let fits = |what: &str| match what {
        "," => before.to_ascii_lowercase().contains("limit"),
        ")" => before.trim_end().ends_with('('),
        _ => true,
    };
    found.filter(|(what, _)| fits(what)).map(|(_, hint)| *hint)
}

/// The parser reports its place at the end of its message only.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (text, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (message, Some(Location { line, column })),
        _ => (text, None),
    }
}
