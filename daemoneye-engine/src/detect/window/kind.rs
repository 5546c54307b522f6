//! What kind of SELECT it is: whether one event decides it, whether it puts rows together, and what it groups by.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    Query, Select, SelectItem, SetExpr, TableFactor, Value, Visit, VisitMut, VisitorMut, visit_expressions,
    visit_expressions_mut,
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

/// Whether it puts rows together by groups, of which there is none without rows.
pub(super) fn by_group(select: &Select) -> bool {
    matches!(&select.group_by, GroupByExpr::Expressions(by, modifiers) if !by.is_empty() && modifiers.is_empty())
}

/// Whether a further event takes nothing from what it finds. Of what is not known it may.
pub(super) fn grows(query: &Query) -> bool {
    let mut query = query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        // What is only returned decides nothing.
        select.projection.clear();
        if select.having.take().is_some_and(|having| !is_at_least(&having)) {
            return false;
        }
    }
    let latest = latest_of_groups(&mut query);
    let _all: ControlFlow<()> = visit_expressions_mut(&mut query, |expr| {
        let Expr::BinaryOp { left, op, right } = expr else { return ControlFlow::Continue(()) };
        let greater = match op {
            BinaryOperator::Gt | BinaryOperator::GtEq => left,
            BinaryOperator::Lt | BinaryOperator::LtEq => right,
            _ => return ControlFlow::Continue(()),
        };
        if is_latest_and_more(greater, &latest) {
            **greater = Expr::value(Value::Null);
        }
        ControlFlow::Continue(())
    });
    !any(&query, &|expr| matches!(expr, Expr::Subquery(_)) || is_call(expr) || names(expr, &latest))
}

/// Takes `max(column) AS name` out of the SELECTs inside that have groups: the names, which no further row makes less.
fn latest_of_groups(query: &mut Query) -> BTreeSet<String> {
    let mut latest = Latest(BTreeSet::new());
    let _all: ControlFlow<()> = VisitMut::visit(query, &mut latest);
    latest.0
}

struct Latest(BTreeSet<String>);

impl VisitorMut for Latest {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut()
            && by_group(select)
        {
            select.projection.retain(|item| match item {
                SelectItem::ExprWithAlias { expr: Expr::Function(function), alias } if is_latest(function) => {
                    self.0.insert(normal(alias));
                    false
                }
                _ => true,
            });
        }
        ControlFlow::Continue(())
    }
}

/// `max` of a column as it is.
fn is_latest(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let is_column = matches!(
        list.args.as_slice(),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)))]
    );
    is_called(function, "max") && function.over.is_none() && is_column
}

/// One of these names, or what is added to it.
fn is_latest_and_more(expr: &Expr, latest: &BTreeSet<String>) -> bool {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::Plus, right } => {
            is_latest_and_more(left, latest) && matches!(right.as_ref(), Expr::Interval(_) | Expr::Value(_))
        }
        expr => names(expr, latest),
    }
}

fn names(expr: &Expr, latest: &BTreeSet<String>) -> bool {
    match expr {
        Expr::Identifier(ident) => latest.contains(&normal(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|ident| latest.contains(&normal(ident))),
        _ => false,
    }
}

fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if is_gathering(function))
}

/// Whether a condition of a group stays true when rows are added to it.
fn is_at_least(having: &Expr) -> bool {
    if !any(having, &is_call) {
        return true;
    }
    match having {
        Expr::Nested(inner) => is_at_least(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            is_at_least(left) && is_at_least(right)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Gt | BinaryOperator::GtEq, right } => {
            rises(left) && matches!(right.as_ref(), Expr::Value(_))
        }
        Expr::BinaryOp { left, op: BinaryOperator::Lt | BinaryOperator::LtEq, right } => {
            rises(right) && matches!(left.as_ref(), Expr::Value(_))
        }
        _ => false,
    }
}

/// Whether more rows make it no less.
fn rises(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => rises(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Plus, right } => rises(left) && rises(right),
        Expr::Function(function) => {
            function.over.is_none() && (is_called(function, "count") || is_called(function, "max"))
        }
        _ => false,
    }
}

fn grouped(select: &Select) -> bool {
    let by = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
    };
    by || select.having.is_some()
}

fn has_call(items: &impl Visit) -> bool {
    any(items, &is_call)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::check;

    #[test]
    fn what_a_further_event_may_end_is_told_from_what_it_cannot() {
        let counted =
            |having: &str| format!("SELECT user, count(*) AS n FROM process_events GROUP BY user HAVING {having}");
        let latest = |condition: &str| {
            format!(
                "SELECT e.pid AS pid FROM (SELECT user, max(time) AS latest FROM process_events GROUP BY user) AS s \
                 JOIN process_events e ON e.user = s.user WHERE {condition}"
            )
        };
        for (sql, expected) in [
            (counted("count(*) >= 3"), true),
            (counted("count(DISTINCT name) > 3 AND user <> 'root'"), true),
            (counted("(max(CASE WHEN pid = 1 THEN 1 ELSE 0 END) + max(uid)) >= 2"), true),
            (counted("count(*) = 3"), false),
            (counted("count(*) >= 3 AND count(*) <= 5"), false),
            (counted("max(time) - min(time) > INTERVAL '1 second'"), false),
            (latest("e.time <= s.latest + INTERVAL '5 seconds'"), true),
            (latest("e.time >= s.latest"), false),
            (latest("e.time = s.latest"), false),
            ("SELECT a.pid FROM process_events a JOIN process_events b ON a.ppid = b.pid".to_owned(), true),
            (
                "SELECT q.pid FROM (SELECT pid, row_number() OVER (ORDER BY time) AS nth FROM process_events) AS q WHERE nth = 3"
                    .to_owned(),
                false,
            ),
        ] {
            assert_eq!(grows(check(&sql).unwrap().query()), expected, "{sql}");
        }
    }
}
