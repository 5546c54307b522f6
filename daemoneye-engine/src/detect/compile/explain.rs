//! A rule's condition over one event, part by part. Every outcome is asked of the matcher itself, never worked out beside it.

use std::collections::BTreeSet;

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, UnaryOperator};
use serde_json::{Map, Value};

use super::super::explain::Part;
use super::super::output;
use super::super::row::Columns;
use super::{Compiler, Problem, select};

/// The condition of a checked rule over one row; `None` where it has none.
pub(in crate::detect) fn explain(query: &Query, columns: &Columns<'_>, row: usize) -> Result<Option<Part>, Problem> {
    let (table, condition) = select::table_and_condition(query)?;
    let explainer = Explainer { table, columns, row };
    condition.map(|condition| explainer.part(condition)).transpose()
}

/// One condition over the columns of a table that is called `alias`.
pub(in crate::detect) fn explain_one(
    condition: &Expr,
    alias: &str,
    columns: &Columns<'_>,
    row: usize,
) -> Result<Part, Problem> {
    Explainer { table: alias.to_owned(), columns, row }.part(condition)
}

/// Characters of a part's text: with the values of a list it can have a megabyte, and each part around it has them again.
const SHOWN: usize = 4_096;

/// A part as text.
pub(in crate::detect) fn shown(expr: &Expr) -> String {
    let mut text = expr.to_string();
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

struct Explainer<'a> {
    table: String,
    columns: &'a Columns<'a>,
    row: usize,
}

impl Explainer<'_> {
    fn part(&self, expr: &Expr) -> Result<Part, Problem> {
        if let Expr::Nested(inner) = expr {
            return self.part(inner);
        }
        let (kind, inner) = parts(expr);
        let (outcome, read) = self.outcome(expr)?;
        let parts = inner.into_iter().map(|expr| self.part(expr)).collect::<Result<Vec<_>, _>>()?;
        let values = if parts.is_empty() { self.values(&read) } else { Map::new() };
        Ok(Part { kind, sql: shown(expr), outcome, values, parts })
    }

    /// TRUE, FALSE or NULL, and the columns that decide it.
    fn outcome(&self, expr: &Expr) -> Result<(Option<bool>, BTreeSet<usize>), Problem> {
        let mut compiler = Compiler::new(vec![self.table.clone()]);
        let (yes, no) = (compiler.test(expr, true)?, compiler.test(expr, false)?);
        let outcome = match (yes.holds(self.columns, self.row), no.holds(self.columns, self.row)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        Ok((outcome, compiler.columns))
    }

    fn values(&self, read: &BTreeSet<usize>) -> Map<String, Value> {
        let known = read.iter().filter_map(|at| PROCESS_EVENTS.get(*at).map(|column| (*at, column.name)));
        known
            .map(|(at, name)| {
                let value = self.columns.cell(at, self.row).map_or(Value::Null, output::json);
                (name.to_owned(), value)
            })
            .collect()
    }
}

/// What a part is made of; a predicate of nothing.
fn parts(expr: &Expr) -> (&'static str, Vec<&Expr>) {
    match expr {
        Expr::BinaryOp { op: op @ BinaryOperator::And, .. } => ("and", chain(expr, op)),
        Expr::BinaryOp { op: op @ BinaryOperator::Or, .. } => ("or", chain(expr, op)),
        Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => ("not", vec![inner]),
        Expr::IsTrue(inner) => ("is true", vec![inner]),
        Expr::IsNotTrue(inner) => ("is not true", vec![inner]),
        Expr::IsFalse(inner) => ("is false", vec![inner]),
        Expr::IsNotFalse(inner) => ("is not false", vec![inner]),
        _ => ("predicate", Vec::new()),
    }
}

/// A flat chain comes as a tree as deep as the chain is long.
fn chain<'a>(expr: &'a Expr, wanted: &BinaryOperator) -> Vec<&'a Expr> {
    let (mut rest, mut found) = (expr, Vec::new());
    while let Expr::BinaryOp { left, op, right } = rest
        && op == wanted
    {
        found.push(right.as_ref());
        rest = left;
    }
    found.push(rest);
    found.reverse();
    found
}
