//! What the names of a SELECT stand for.

use std::ops::ControlFlow;

use daemoneye_lib::columns::{Column, PROCESS_EVENTS};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, SelectItem, visit_expressions};

use super::bounds::is_now;
use super::kind::{any, has_subquery};
use crate::sql::names::normal;

/// What the names of a SELECT stand for.
pub(super) struct Scope<'a> {
    pub(super) sources: Vec<Source>,
    pub(super) outer: Option<&'a Scope<'a>>,
}

/// A table of its FROM.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    /// `None`: a subquery.
    pub(super) scan: Option<usize>,
    /// Of a subquery: its columns that are columns of events.
    pub(super) passed: Vec<Passed>,
    /// An outer join may fill it with NULL.
    pub(super) nullable: bool,
}

/// A column of an answer that is one of events, as it is.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    name: String,
    scan: usize,
    /// Its place in the column table.
    column: usize,
}

impl Source {
    /// The scan and the place in the column table of its column of that name.
    fn column(&self, name: &str) -> Option<(usize, usize)> {
        let Some(scan) = self.scan else {
            let passed = self.passed.iter().find(|passed| passed.name == name)?;
            return Some((passed.scan, passed.column));
        };
        Some((scan, PROCESS_EVENTS.iter().position(|column| column.name == name)?))
    }

    fn all(&self) -> Vec<Passed> {
        let Some(scan) = self.scan else { return self.passed.clone() };
        let passed = |(column, of): (usize, &Column)| Passed { name: of.name.to_owned(), scan, column };
        PROCESS_EVENTS.iter().enumerate().map(passed).collect()
    }
}

impl Scope<'_> {
    /// The scan and the place in the column table of a column of events.
    pub(super) fn column(&self, expr: &Expr) -> Option<(usize, usize)> {
        let (source, name) = self.source(expr)?;
        source.column(&name)
    }

    /// What of an answer are columns of events.
    pub(super) fn passed(&self, projection: &[SelectItem]) -> Vec<Passed> {
        let one = |expr: &Expr, name: &Ident| {
            let (scan, column) = self.column(expr)?;
            Some(Passed { name: normal(name), scan, column })
        };
        let item = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { expr, alias } => one(expr, alias).into_iter().collect(),
            SelectItem::UnnamedExpr(expr @ Expr::Identifier(name)) => one(expr, name).into_iter().collect(),
            SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(parts)) => {
                parts.last().and_then(|name| one(expr, name)).into_iter().collect()
            }
            SelectItem::Wildcard(_) => self.sources.iter().flat_map(Source::all).collect(),
            _ => Vec::new(),
        };
        projection.iter().flat_map(item).collect()
    }

    fn source(&self, expr: &Expr) -> Option<(&Source, String)> {
        match expr {
            Expr::Identifier(ident) => match self.sources.as_slice() {
                [only] => Some((only, normal(ident))),
                _ => None,
            },
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [of, name] => {
                    let of = normal(of);
                    let here = self.sources.iter().find(|source| source.name == of);
                    match (here, self.outer) {
                        (Some(source), _) => Some((source, normal(name))),
                        (None, Some(outer)) => outer.source(expr),
                        (None, None) => None,
                    }
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a condition speaks of now and of a column of a subquery that is none of events. Subqueries inside of it speak for themselves.
    pub(super) fn ages_a_subquery(&self, condition: &Expr) -> bool {
        let is_made = |expr: &Expr| {
            self.source(expr).is_some_and(|(source, name)| source.scan.is_none() && source.column(&name).is_none())
        };
        let names_now = any(condition, &|expr| matches!(expr, Expr::Function(call) if is_now(call)));
        names_now && !has_subquery(condition) && any(condition, &is_made)
    }

    /// The one source of this SELECT that a condition speaks of.
    pub(super) fn only_source(&self, condition: &Expr) -> Option<&Source> {
        if has_subquery(condition) || any(condition, &|expr| matches!(expr, Expr::Function(call) if is_now(call))) {
            return None;
        }
        let mut only: Option<&Source> = None;
        let seen = visit_expressions(condition, |expr| {
            if !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
                return ControlFlow::Continue(());
            }
            match (self.source(expr), only) {
                (Some((source, _)), None) => only = Some(source),
                (Some((source, _)), Some(before)) if source.name == before.name => {}
                _ => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        });
        let only = only.filter(|_| seen.is_continue())?;
        self.sources.iter().find(|source| std::ptr::eq(*source, only))
    }
}

/// The conditions that AND joins.
pub(super) fn conjuncts<'a>(condition: &'a Expr, into: &mut Vec<&'a Expr>) {
    match condition {
        Expr::Nested(inner) => conjuncts(inner, into),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        other => into.push(other),
    }
}
