//! What a window rule consists of: its scans of `process_events`, what each of them filters by, and which of them may find
//! nothing.
//!
//! Only conditions that every row of a scan has to pass are taken from the text: those of WHERE and of inner joins, and for the
//! side that an outer join fills with NULL those of its ON. The plan applies all conditions again, so a condition that is not
//! taken costs room and never an answer. Each scan gets a table name of its own, by which the plan tells them apart.

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, SetOperator, Spanned as _, TableAlias, TableFactor,
    TableWithJoins, UnaryOperator, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::ops::ControlFlow;

use super::super::compile::Problem;
use super::bounds::{Bounds, is_now};
use crate::sql::names::{Class, class_of, normal};

const TABLE: &str = "process_events";
/// More scans than this are more joins than a run of 100 ms takes.
const MAX_SCANS: usize = 16;

/// One place where the rule reads `process_events`.
#[derive(Debug)]
pub(super) struct Scan {
    /// What its columns are qualified with.
    pub(super) alias: String,
    /// What each row has to pass.
    pub(super) conditions: Vec<Expr>,
    /// The rule also finds something where this scan has nothing.
    pub(super) absent: bool,
    /// It stands in a condition that need not hold, so what is said there bounds this scan only.
    pub(super) aside: bool,
    /// Where it stands.
    pub(super) at: Location,
}

/// A rule's SELECT, read.
#[derive(Debug)]
pub(super) struct Shape {
    /// With the scans' own table names.
    pub(super) query: Query,
    pub(super) scans: Vec<Scan>,
    pub(super) bounds: Bounds,
    /// Rows are put together by more than a join: an aggregate, a window function, DISTINCT or UNION.
    pub(super) gathers: bool,
    /// It speaks of `start_kind`, so the author decides about forks.
    pub(super) sees_forks: bool,
    /// The columns of its answer that are the same for all rows of a group; `None`: the answer has no groups.
    pub(super) groups: Option<Vec<String>>,
}

/// The table of scan `k`.
pub(super) fn table_name(scan: usize) -> String {
    format!("__scan_{scan}")
}

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

fn gathers(select: &Select) -> bool {
    grouped(select) || select.qualify.is_some() || !select.named_window.is_empty() || has_call(&select.projection)
}

fn grouped(select: &Select) -> bool {
    let by = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
    };
    by || select.having.is_some()
}

fn has_call(items: &impl datafusion::sql::sqlparser::ast::Visit) -> bool {
    any(items, &|expr| matches!(expr, Expr::Function(function) if is_gathering(function)))
}

fn is_gathering(function: &Function) -> bool {
    let aggregate = |ident: &Ident| matches!(class_of(&normal(ident)), Some(Class::Aggregate | Class::Window));
    function.over.is_some() || matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(aggregate))
}

fn has_subquery(node: &impl datafusion::sql::sqlparser::ast::Visit) -> bool {
    any(node, &|expr| matches!(expr, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }))
}

fn any(node: &impl datafusion::sql::sqlparser::ast::Visit, is: &dyn Fn(&Expr) -> bool) -> bool {
    visit_expressions(node, |expr| if is(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        .is_break()
}

impl Shape {
    pub(super) fn of(mut query: Query) -> Result<Self, Problem> {
        if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
            return Err(Problem::of(&query, "ORDER BY and LIMIT have no meaning for a rule")
                .hint("leave them out, and use dedup: to fold repeats"));
        }
        if any(&query, &|expr| matches!(expr, Expr::Function(function) if is_called(function, "current_date"))) {
            return Err(Problem::of(&query, "a rule goes by the time of events, and current_date by the clock")
                .hint("write date_trunc('day', now())"));
        }
        let names_kind = |expr: &Expr| match expr {
            Expr::Identifier(ident) => normal(ident) == "start_kind",
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|ident| normal(ident) == "start_kind"),
            _ => false,
        };
        let (sees_forks, groups) = (any(&query, &names_kind), groups(&query)?);
        let mut reader = Reader { scans: Vec::new(), bounds: Bounds::default(), gathers: false, ctes: Vec::new() };
        reader.query(&mut query, None, false)?;
        let Reader { scans, bounds, gathers, .. } = reader;
        if scans.is_empty() {
            return Err(Problem::of(&query, "the rule reads no events").hint("write FROM process_events"));
        }
        Ok(Self { query, scans, bounds, gathers, sees_forks, groups })
    }
}

fn is_called(function: &Function, name: &str) -> bool {
    matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| normal(ident) == name))
}

/// The outputs that are the same for all rows of a group, of a SELECT that has groups; they have to be all that it groups by, or
/// two groups would be one alert.
fn groups(query: &Query) -> Result<Option<Vec<String>>, Problem> {
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

/// What the names of a SELECT stand for.
pub(super) struct Scope<'a> {
    sources: Vec<Source>,
    outer: Option<&'a Scope<'a>>,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    /// `None`: a subquery or an entry of WITH.
    scan: Option<usize>,
    /// An outer join may fill it with NULL.
    nullable: bool,
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
    fn only_source(&self, condition: &Expr) -> Option<&Source> {
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

struct Reader {
    scans: Vec<Scan>,
    bounds: Bounds,
    gathers: bool,
    ctes: Vec<String>,
}

/// The conditions that AND joins.
fn conjuncts<'a>(condition: &'a Expr, into: &mut Vec<&'a Expr>) {
    match condition {
        Expr::Nested(inner) => conjuncts(inner, into),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        other => into.push(other),
    }
}

impl Reader {
    fn query(&mut self, query: &mut Query, outer: Option<&Scope<'_>>, absent: bool) -> Result<(), Problem> {
        let known = self.ctes.len();
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                self.query(&mut cte.query, None, absent)?;
                self.ctes.push(normal(&cte.alias.name));
            }
        }
        self.body(&mut query.body, outer, absent)?;
        self.ctes.truncate(known);
        Ok(())
    }

    fn body(&mut self, body: &mut SetExpr, outer: Option<&Scope<'_>>, absent: bool) -> Result<(), Problem> {
        match body {
            SetExpr::Select(select) => self.select(select, outer, absent),
            SetExpr::Query(query) => self.query(query, outer, absent),
            SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } => {
                self.gathers = true;
                self.body(left, outer, absent)?;
                self.body(right, outer, absent)
            }
            other => Err(Problem::of(other, "a rule cannot contain EXCEPT, INTERSECT or VALUES")
                .hint("write NOT EXISTS, EXISTS or IN")),
        }
    }

    fn select(&mut self, select: &mut Select, outer: Option<&Scope<'_>>, absent: bool) -> Result<(), Problem> {
        self.gathers |= gathers(select) || matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_)));
        let mut scope = Scope { sources: Vec::new(), outer };
        for from in &mut select.from {
            self.joined(from, &mut scope, absent)?;
        }
        if let Some(condition) = &mut select.selection {
            self.apply(condition, &scope, &|source| !source.nullable, true);
            self.subqueries(condition, &scope, absent, Asked::PLAIN)?;
        }
        if let Some(having) = &mut select.having {
            self.subqueries(having, &scope, absent, Asked::PLAIN)?;
        }
        if has_subquery(&select.projection) {
            return Err(Problem::of(select, "a rule cannot return the answer of a subquery").hint("join it"));
        }
        Ok(())
    }

    /// Takes the conditions of a WHERE or an ON; `passed_by` tells whose rows all have to pass them.
    fn apply(&mut self, condition: &Expr, scope: &Scope<'_>, passed_by: &dyn Fn(&Source) -> bool, firm: bool) {
        let mut parts = Vec::new();
        conjuncts(condition, &mut parts);
        for part in parts {
            self.bounds.read(part, scope, firm);
            let of = scope.only_source(part).filter(|source| passed_by(source));
            if let Some(scan) = of.and_then(|source| self.scans.get_mut(source.scan?)) {
                scan.conditions.push(part.clone());
            }
        }
    }

    fn joined(&mut self, from: &mut TableWithJoins, scope: &mut Scope<'_>, absent: bool) -> Result<(), Problem> {
        let (first_source, first_scan) = (scope.sources.len(), self.scans.len());
        self.factor(&mut from.relation, scope, absent)?;
        for join in &mut from.joins {
            let (sources, scans) = (scope.sources.len(), self.scans.len());
            let at = join.relation.span().start;
            let (left, on) = match &mut join.join_operator {
                JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => (None, on),
                JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (Some(true), on),
                JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (Some(false), on),
                _ => {
                    return Err(Problem::at(at, "a rule cannot contain FULL JOIN")
                        .hint("write LEFT JOIN from what is there to what may be absent"));
                }
            };
            self.factor(&mut join.relation, scope, absent || left == Some(true))?;
            if left == Some(false) {
                self.scans.iter_mut().take(scans).skip(first_scan).for_each(|scan| scan.absent = true);
            }
            let may_be_null = |at: usize| match left {
                None => false,
                Some(true) => at >= sources,
                Some(false) => (first_source..sources).contains(&at),
            };
            let nullable: Vec<String> = scope
                .sources
                .iter()
                .enumerate()
                .filter(|(at, _)| may_be_null(*at))
                .map(|(_, of)| of.name.clone())
                .collect();
            if let JoinConstraint::On(condition) = on {
                let passed = |source: &Source| match left {
                    None => !source.nullable,
                    Some(_) => nullable.contains(&source.name),
                };
                self.apply(condition, scope, &passed, left.is_none());
                self.subqueries(condition, scope, absent, Asked { firm: left.is_none(), ..Asked::PLAIN })?;
            }
            for (at, source) in scope.sources.iter_mut().enumerate() {
                source.nullable |= may_be_null(at);
            }
        }
        Ok(())
    }

    fn factor(&mut self, table: &mut TableFactor, scope: &mut Scope<'_>, absent: bool) -> Result<(), Problem> {
        let at = table.span().start;
        match table {
            TableFactor::Table { name, alias, args: None, .. } => self.table(name, alias, scope, absent),
            TableFactor::Derived { subquery, alias, .. } => {
                self.query(subquery, None, absent)?;
                let name = alias.as_ref().map(|alias| normal(&alias.name)).unwrap_or_default();
                scope.sources.push(Source { name, scan: None, nullable: false });
                Ok(())
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins, scope, absent),
            _ => Err(Problem::at(at, "a rule reads process_events only").hint("write FROM process_events")),
        }
    }

    fn table(
        &mut self,
        name: &mut ObjectName,
        alias: &mut Option<TableAlias>,
        scope: &mut Scope<'_>,
        absent: bool,
    ) -> Result<(), Problem> {
        let at = name.span().start;
        let table = match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => normal(ident),
            _ => name.to_string(),
        };
        let called = alias.as_ref().map_or_else(|| table.clone(), |alias| normal(&alias.name));
        if self.ctes.contains(&table) {
            scope.sources.push(Source { name: called, scan: None, nullable: false });
            return Ok(());
        }
        if table != TABLE {
            return Err(Problem::at(at, format!("a rule reads process_events only, and this is {table}"))
                .hint("parent columns and ancestry are in the event"));
        }
        if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
            return Err(Problem::at(at, "a rule calls columns by their names").hint("leave out the list of columns"));
        }
        if self.scans.len() == MAX_SCANS {
            return Err(Problem::at(at, format!("the rule reads events in more than {MAX_SCANS} places"))
                .hint("split it into several rules"));
        }
        *name = ObjectName::from(vec![Ident::new(table_name(self.scans.len()))]);
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::new(TABLE),
            columns: Vec::new(),
            at: None,
        });
        scope.sources.push(Source { name: called.clone(), scan: Some(self.scans.len()), nullable: false });
        self.scans.push(Scan { alias: called, conditions: Vec::new(), absent, aside: absent, at });
        Ok(())
    }

    /// Reads the queries inside a condition; under NOT they find what is absent.
    fn subqueries(&mut self, expr: &mut Expr, scope: &Scope<'_>, absent: bool, asked: Asked) -> Result<(), Problem> {
        match expr {
            Expr::Nested(inner) | Expr::IsTrue(inner) | Expr::IsNotFalse(inner) => {
                self.subqueries(inner, scope, absent, asked)
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } | Expr::IsFalse(inner) | Expr::IsNotTrue(inner) => {
                self.subqueries(inner, scope, absent, Asked { not: !asked.not, firm: false })
            }
            Expr::BinaryOp { left, op, right } => {
                let asked = Asked { firm: asked.firm && *op == BinaryOperator::And, ..asked };
                self.subqueries(left, scope, absent, asked)?;
                self.subqueries(right, scope, absent, asked)
            }
            Expr::Exists { subquery, negated } | Expr::InSubquery { subquery, negated, .. } => {
                let inverted = *negated != asked.not;
                self.inner(subquery, scope, absent || inverted, asked.firm && !inverted)
            }
            Expr::Subquery(subquery) => self.inner(subquery, scope, absent, false),
            other if has_subquery(other) => Err(Problem::of(other, "a subquery cannot stand here in a rule")
                .hint("write EXISTS (…), x IN (…) or a comparison in WHERE")),
            _ => Ok(()),
        }
    }

    /// Unless it is `firm`, what is said inside holds for its own rows and not for those outside.
    fn inner(&mut self, query: &mut Query, scope: &Scope<'_>, absent: bool, firm: bool) -> Result<(), Problem> {
        if firm {
            return self.query(query, Some(scope), absent);
        }
        let (outside, scans) = (std::mem::take(&mut self.bounds), self.scans.len());
        let read = self.query(query, Some(scope), absent);
        let inside = std::mem::replace(&mut self.bounds, outside);
        self.bounds.loosen(inside);
        self.scans.iter_mut().skip(scans).for_each(|scan| scan.aside = true);
        read
    }
}

/// How a condition is asked.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Whether it is FALSE.
    not: bool,
    /// Every row has to pass it.
    firm: bool,
}

impl Asked {
    const PLAIN: Self = Self { not: false, firm: true };
}
