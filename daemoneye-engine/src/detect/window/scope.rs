//! What the names of a SELECT stand for.

use std::ops::ControlFlow;

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, visit_expressions};

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
    /// `None`: a subquery or an entry of WITH.
    pub(super) scan: Option<usize>,
    /// An outer join may fill it with NULL.
    pub(super) nullable: bool,
}

impl Scope<'_> {
    /// The scan and the place in the column table of a column of events.
    pub(super) fn column(&self, expr: &Expr) -> Option<(usize, usize)> {
        let (source, name) = self.source(expr)?;
        let column = PROCESS_EVENTS.iter().position(|column| column.name == name)?;
        Some((source.scan?, column))
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
