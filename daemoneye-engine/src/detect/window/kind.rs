//! What kind of SELECT it is: whether one event decides it, whether it puts rows together, and what it groups by.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, TableFactor, Visit,
    visit_expressions,
};

use super::super::compile::Problem;
use crate::sql::names::{Class, class_of, normal};

/// Whether one event cannot decide it.
pub(in crate::detect) fn needs_window(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return true };
    let tables = select.from.len() != 1
        || select
            .from
            .iter()
            .any(|from| !from.joins.is_empty() || !matches!(from.relation, TableFactor::Table { .. }));
    query.with.is_some() || (tables && !select.from.is_empty()) || gathers(select) || has_subquery(query)
}

pub(super) fn gathers(select: &Select) -> bool {
    grouped(select) || select.qualify.is_some() || !select.named_window.is_empty() || has_call(&select.projection)
}

fn grouped(select: &Select) -> bool {
    let by = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
    };
    by || select.having.is_some()
}

fn has_call(items: &impl Visit) -> bool {
    any(items, &|expr| matches!(expr, Expr::Function(function) if is_gathering(function)))
}

fn is_gathering(function: &Function) -> bool {
    let aggregate = |ident: &Ident| matches!(class_of(&normal(ident)), Some(Class::Aggregate | Class::Window));
    function.over.is_some() || matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(aggregate))
}

pub(super) fn has_subquery(node: &impl Visit) -> bool {
    any(node, &|expr| matches!(expr, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }))
}

pub(super) fn any(node: &impl Visit, is: &dyn Fn(&Expr) -> bool) -> bool {
    visit_expressions(node, |expr| if is(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        .is_break()
}

pub(super) fn is_called(function: &Function, name: &str) -> bool {
    matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| normal(ident) == name))
}

/// The outputs that are the same for all rows of a group, of a SELECT that has groups; they have to be all that it groups by, or
/// two groups would be one alert.
pub(super) fn groups(query: &Query) -> Result<Option<Vec<String>>, Problem> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
    let over = |expr: &Expr| matches!(expr, Expr::Function(function) if function.over.is_some());
    let distinct = matches!(select.distinct, Some(Distinct::Distinct));
    if !(distinct || grouped(select) || has_call(&select.projection)) || any(&select.projection, &over) {
        return Ok(None);
    }
    let names = select.projection.iter().filter(|item| !has_call(*item)).filter_map(output_name).collect();
    if let GroupByExpr::Expressions(by, _) = &select.group_by
        && let Some(missing) = by.iter().find(|by| !is_returned(by, select))
    {
        return Err(Problem::of(missing, format!("the rule groups by {missing} and does not return it"))
            .hint("select it too: it tells one alert from the next"));
    }
    Ok(Some(names))
}

/// The names that its answer depends on: all but those of columns that are only returned.
pub(super) fn decided_by(query: &Query) -> BTreeSet<String> {
    let mut query = query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        let is_bare = |expr: &Expr| matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        select.projection.retain(|item| match item {
            SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => !is_bare(expr),
            _ => false,
        });
    }
    let mut names = BTreeSet::new();
    let _all: ControlFlow<()> = visit_expressions(&query, |expr| {
        match expr {
            Expr::Identifier(ident) => drop(names.insert(normal(ident))),
            Expr::CompoundIdentifier(parts) => names.extend(parts.last().map(normal)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    names
}

fn output_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(normal(ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(normal),
        _ => None,
    }
}

/// By its name, its text or its place.
fn is_returned(by: &Expr, select: &Select) -> bool {
    let named = |item: &SelectItem| match (by, item) {
        (Expr::Value(_), _) | (_, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)) => true,
        (Expr::Identifier(ident), _) if output_name(item).is_some_and(|name| name == normal(ident)) => true,
        (_, SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr)) => expr == by,
        _ => false,
    };
    select.projection.iter().any(named)
}
