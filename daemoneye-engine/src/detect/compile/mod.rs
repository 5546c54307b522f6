//! From a checked SELECT to what runs: a condition, and the columns of the answer.
//!
//! Only the shape that one event can decide is taken: `SELECT … FROM process_events [WHERE …]`. Everything is decided by
//! name; a node that is not known here makes the rule refused, with its place, so the matcher never answers differently
//! from DataFusion on the same text.

mod calls;
mod condition;
mod explain;
pub(super) mod functions;
pub(super) mod known;
mod literal;
mod scalar;
mod select;

pub(super) use explain::{explain, explain_one, shown};
pub(super) use select::table_and_condition;

use std::collections::BTreeSet;

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Spanned};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::matcher::{Scalar, Test};
use super::row::Columns;
use crate::sql::names::{column_hint, normal};

/// Most nodes of one rule. A generated rule of 40 conditions has some 200; more than this cannot keep any budget per event.
const MAX_NODES: usize = 20_000;

/// A rule ready to run.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) condition: Test,
    /// What the SELECT returns, in order.
    pub(super) outputs: Vec<Output>,
    /// Every column that it reads, by place in the column table.
    pub(super) columns: BTreeSet<usize>,
    /// Those that its condition reads: without one of them it cannot decide.
    pub(super) asked: BTreeSet<usize>,
    /// The condition speaks of `start_kind`, so the author decides about forks.
    pub(super) sees_forks: bool,
}

impl Compiled {
    /// What no row matches: a rule that is not decided row by row.
    pub(super) const fn never() -> Self {
        Self {
            condition: Test::Never,
            outputs: Vec::new(),
            columns: BTreeSet::new(),
            asked: BTreeSet::new(),
            sees_forks: false,
        }
    }

    /// Whether the rule matches a row.
    pub(super) fn matches(&self, columns: &Columns<'_>, row: usize) -> bool {
        self.matches_beside(0, columns, row)
    }

    /// Whether the rule matches a row where these parts of its condition hold.
    pub(super) fn matches_beside(&self, proven: u64, columns: &Columns<'_>, row: usize) -> bool {
        (self.sees_forks || !columns.is_fork(row)) && self.condition.holds_beside(proven, columns, row)
    }
}

/// One column of the answer.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) value: Scalar,
}

/// Why a SELECT cannot run as a rule, with the place inside the SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn at(location: Location, message: impl Into<String>) -> Self {
        Self { line: location.line, column: location.column, message: message.into(), hint: None }
    }

    pub(super) fn of(node: &impl Spanned, message: impl Into<String>) -> Self {
        Self::at(node.span().start, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn too_large() -> String {
    format!("the rule is larger than {MAX_NODES} conditions")
}

/// Whether it is about the SELECT as a whole, wherever the compiler was when it had enough.
pub(super) fn is_of_size(problem: &Problem) -> bool {
    problem.message == too_large()
}

/// Compiles a checked SELECT.
pub(super) fn compile(query: &Query) -> Result<Compiled, Problem> {
    select::compile(query)
}

/// Compiles one condition over the columns of a table that is called `alias`.
pub(super) fn condition(expr: &Expr, alias: &str) -> Result<Test, Problem> {
    let mut compiler = Compiler { qualifiers: vec![alias.to_owned()], columns: BTreeSet::new(), nodes: 0 };
    compiler.test(expr, true)
}

/// A value with what is known about it before it runs.
struct Typed {
    scalar: Scalar,
    /// `None` for the literal NULL, which fits everywhere.
    kind: Option<Kind>,
    /// 32 bits in DataFusion (`length`): arithmetic on two such could overflow there and not here.
    narrow: bool,
}

impl Typed {
    const fn new(scalar: Scalar, kind: Kind) -> Self {
        Self { scalar, kind: Some(kind), narrow: false }
    }
}

/// The state of one compilation.
struct Compiler {
    /// Names that may stand before a column's.
    qualifiers: Vec<String>,
    columns: BTreeSet<usize>,
    nodes: usize,
}

impl Compiler {
    const fn new(qualifiers: Vec<String>) -> Self {
        Self { qualifiers, columns: BTreeSet::new(), nodes: 0 }
    }

    /// Counts a node; the bound also ends the doubling of conditions that are used as values.
    fn spend(&mut self, location: Location) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Problem::at(location, too_large()).hint("split it into several rules"));
        }
        Ok(())
    }

    fn column(&mut self, parts: &[Ident]) -> Result<Typed, Problem> {
        let Some((last, qualifiers)) = parts.split_last() else {
            return Err(Problem::at(Location { line: 0, column: 0 }, "an empty column name"));
        };
        if let [qualifier, ..] = qualifiers
            && (qualifiers.len() > 1 || !self.qualifiers.contains(&normal(qualifier)))
        {
            return Err(Problem::at(qualifier.span.start, format!("there is no table {qualifier} in this rule"))
                .hint(format!("a column is written as {last} or {}.{last}", self.qualifiers.join(", "))));
        }
        let name = normal(last);
        let Some((at, column)) = PROCESS_EVENTS.iter().enumerate().find(|(_, column)| column.name == name) else {
            let problem = Problem::at(last.span.start, format!("process_events has no column {name}"));
            return Err(problem.hint(column_hint(&name)));
        };
        self.columns.insert(at);
        Ok(Typed::new(Scalar::Column(at), column.kind))
    }
}

/// `an integer`, for messages.
const fn kind_name(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Blob) => "bytes",
        Some(Kind::Boolean) => "true or false",
        Some(Kind::Integer) => "an integer",
        Some(Kind::Real) => "a real number",
        Some(Kind::Text) => "text",
        Some(Kind::Timestamp) => "a time",
        None => "NULL",
    }
}
