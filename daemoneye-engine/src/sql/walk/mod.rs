//! The second gate: an allow-list over the syntax tree.
//!
//! Every variant of what a SELECT is made of is decided by name and every struct is taken apart field by field, so that
//! syntax which a later parser learns fails to compile here instead of slipping through. What is not named is refused.

mod expr;
mod function;
mod literal;
mod query;
mod select;
mod table;
mod window;

use super::{SqlRefusal, names};
use datafusion::sql::sqlparser::ast::{Spanned, Statement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use std::collections::BTreeSet;

/// Queries inside one another, the outermost not counted.
const MAX_SUBQUERY_DEPTH: usize = 3;
/// Levels of an expression, flat chains of AND and OR not counted. Bounds what the planner recurses over.
const MAX_EXPRESSION_DEPTH: usize = 96;
/// SELECTs and tables of one statement after WITH entries have been put where they are used: the planner copies an entry for
/// each use, so entries that use each other twice would double the plan at every step.
const MAX_SCANS: usize = 32;
/// Columns of an expression after the columns of inner queries have been replaced by what computes them: that is what the
/// optimizer does when it moves a condition inwards, and eight uses in each of ten steps would be a billion nodes.
const MAX_EXPANSION: usize = 20_000;
/// WITH entries of one statement.
const MAX_CTES: usize = 16;

type Step = Result<(), SqlRefusal>;

/// What the walk learnt on its way.
#[derive(Debug)]
pub(crate) struct Walked {
    /// Tables read.
    pub(crate) tables: BTreeSet<&'static str>,
    /// The highest `$n`.
    pub(crate) parameters: usize,
    /// The `$n` that stand for an instant, and where.
    pub(crate) instants: Vec<(usize, Location)>,
    /// Queries inside the outermost one.
    pub(crate) subqueries: usize,
}

/// One WITH entry.
struct Entry {
    name: String,
    scans: usize,
    weight: usize,
}

struct Walker {
    tables: BTreeSet<&'static str>,
    parameters: usize,
    instants: Vec<(usize, Location)>,
    /// What WITH brought into scope, innermost last.
    ctes: Vec<Entry>,
    cte_count: usize,
    scans: usize,
    /// Columns named in the expression under way.
    references: usize,
    /// Columns of tables that one column of the sources in scope can stand for.
    weight: usize,
    /// The same for a column of the query that was walked last.
    produced: usize,
    /// Regular expressions met so far.
    patterns: usize,
    subqueries: usize,
    /// As they are met, wherever they stand.
    inner: usize,
    depth: usize,
    /// The last place that the tree knew: some nodes carry none of their own.
    near: Location,
    /// Texts in single quotes where a table is named.
    texts: Vec<(String, Location)>,
    /// Words of clauses that the tree has no place for.
    clauses: Vec<(Keyword, Location)>,
    instead_of_function: fn(&str) -> String,
    try_pattern: TryPattern,
}

/// What only the tokens tell: texts where a table is named, and words of clauses, each with its place.
pub(crate) type Placed = (Vec<(String, Location)>, Vec<(Keyword, Location)>);

/// Tells what is wrong with a regular expression.
pub(crate) type TryPattern = fn(&str) -> Result<(), regex::Error>;

/// Accepts exactly one statement, and only a query.
pub(crate) fn statements(
    statements: &[Statement],
    second: Option<Location>,
    placed: Placed,
    instead_of_function: fn(&str) -> String,
    try_pattern: TryPattern,
) -> Result<Walked, SqlRefusal> {
    let statement = match statements {
        [] => return Err(SqlRefusal::whole("there is no statement", "write one SELECT")),
        [one] => one,
        [_, _, ..] => {
            let at = second.unwrap_or(Location { line: 1, column: 1 });
            return Err(SqlRefusal::at(at, "more than one statement", "send one SELECT at a time"));
        }
    };
    let Statement::Query(query) = statement else {
        let text = statement.to_string();
        let verb = text.split_whitespace().next().unwrap_or("this").to_owned();
        return Err(SqlRefusal::at(
            Location { line: 1, column: 1 },
            format!("{verb} is not accepted: nothing here writes, explains or changes settings"),
            match verb.as_str() {
                "EXPLAIN" => "leave EXPLAIN out, and ask with `query --explain`; .explain in the shell".to_owned(),
                "SHOW" | "DESCRIBE" | "DESC" => names::listing(),
                _ => "write one SELECT".to_owned(),
            },
        ));
    };
    let mut walker = Walker::new(placed, instead_of_function, try_pattern);
    walker.outermost(query)?;
    let Walker { tables, parameters, instants, inner: subqueries, .. } = walker;
    Ok(Walked { tables, parameters, instants, subqueries })
}

impl Walker {
    fn new(placed: Placed, instead_of_function: fn(&str) -> String, try_pattern: TryPattern) -> Self {
        let (texts, clauses) = placed;
        Self {
            tables: BTreeSet::new(),
            parameters: 0,
            instants: Vec::new(),
            ctes: Vec::new(),
            cte_count: 0,
            scans: 0,
            references: 0,
            weight: 1,
            produced: 1,
            patterns: 0,
            subqueries: 0,
            inner: 0,
            depth: 0,
            near: Location { line: 1, column: 1 },
            texts,
            clauses,
            instead_of_function,
            try_pattern,
        }
    }

    /// Refuses at the last known place.
    fn refuse<T>(&self, message: impl Into<String>, hint: impl Into<String>) -> Result<T, SqlRefusal> {
        Err(SqlRefusal::at(self.near, message, hint))
    }

    /// Refuses at a node's own place where it has one.
    fn refuse_node<T>(&self, node: &dyn Spanned, message: impl Into<String>, hint: &str) -> Result<T, SqlRefusal> {
        let span = node.span();
        let at = if span.start.line == 0 { self.near } else { span.start };
        Err(SqlRefusal::at(at, message, hint))
    }

    fn seen(&mut self, span: Span) {
        if span.start.line != 0 {
            self.near = span.start;
        }
    }

    /// Refuses an option that is set.
    fn absent(&self, set: bool, what: &str, hint: &str) -> Step {
        if set { self.refuse(format!("{what} is not accepted"), hint) } else { Ok(()) }
    }

    /// The same, where the word that begins the option stands.
    fn absent_at(&self, word: Keyword, set: bool, what: &str, hint: &str) -> Step {
        if !set {
            return Ok(());
        }
        let mut places = self.clauses.iter().filter(|(keyword, _)| *keyword == word).map(|(_, at)| *at);
        let at = places.clone().find(|at| *at >= self.near).or_else(|| places.next()).unwrap_or(self.near);
        Err(SqlRefusal::at(at, format!("{what} is not accepted"), hint))
    }
}
