//! What a window rule consists of: its scans of `process_events`, what each of them filters by, and which of them may find
//! nothing.
//!
//! Only conditions that every row of a scan has to pass are taken from the text: those of WHERE and of inner joins, and for the
//! side that an outer join fills with NULL those of its ON. The plan applies all conditions again, so a condition that is not
//! taken costs room and never an answer. Each scan gets a table name of its own, by which the plan tells them apart. An entry of
//! WITH is written out wherever it is used: what may be absent in one place may be needed in another.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Cte, Distinct, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query,
    Select, SetExpr, SetOperator, Spanned as _, TableAlias, TableFactor, TableWithJoins, UnaryOperator,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::super::compile::Problem;
use super::bounds::{Bounds, only_looks_back};
use super::kind::{any, by_group, gathers, groups, has_subquery, is_called};
use super::scope::{Passed, Scope, Source, conjuncts};
use crate::sql::names::normal;

const TABLE: &str = "process_events";
/// More scans than this are more joins than a run of 100 ms takes.
pub(super) const MAX_SCANS: usize = 16;

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
    /// Something is found where one of several scans has nothing: a sum of all rows, or UNION.
    pub(super) fills: bool,
    /// It speaks of `start_kind`, so the author decides about forks.
    pub(super) sees_forks: bool,
    /// It filters by more than the conditions of its scans and how old their rows may be.
    pub(super) filters: bool,
    /// It says how old rows of a subquery may be that are no rows of a scan: what it finds may end with time alone, and no scan knows when.
    pub(super) ages: bool,
    /// The columns of its answer that are the same for all rows of a group; `None`: the answer has no groups.
    pub(super) groups: Option<Vec<String>>,
}

/// The table of scan `k`.
pub(super) fn table_name(scan: usize) -> String {
    format!("__scan_{scan}")
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
        let mut reader = Reader::default();
        reader.query(&mut query, None, false)?;
        let Reader { scans, bounds, gathers, fills, filters, ages, .. } = reader;
        if scans.is_empty() {
            return Err(Problem::of(&query, "the rule reads no events").hint("write FROM process_events"));
        }
        Ok(Self { query, scans, bounds, gathers, fills, sees_forks, filters, ages, groups })
    }
}

#[derive(Default)]
struct Reader {
    scans: Vec<Scan>,
    bounds: Bounds,
    gathers: bool,
    fills: bool,
    filters: bool,
    ages: bool,
    ctes: Vec<Cte>,
}

/// A side of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The side that a join fills with NULL, and its condition.
fn filled_side(join: &mut JoinOperator, at: Location) -> Result<(Option<Side>, &mut JoinConstraint), Problem> {
    match join {
        JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => Ok((None, on)),
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => Ok((Some(Side::Right), on)),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Ok((Some(Side::Left), on)),
        _ => Err(Problem::at(at, "a rule cannot contain FULL JOIN")
            .hint("write LEFT JOIN from what is there to what may be absent")),
    }
}

impl Reader {
    /// The columns of events that its answer hands on as they are.
    fn query(&mut self, query: &mut Query, outer: Option<&Scope<'_>>, absent: bool) -> Result<Vec<Passed>, Problem> {
        let known = self.ctes.len();
        self.ctes.extend(query.with.take().into_iter().flat_map(|with| with.cte_tables));
        let passed = self.body(&mut query.body, outer, absent)?;
        self.ctes.truncate(known);
        // Which rows those of a LIMIT are depends on all the others.
        let is_limited = query.limit_clause.is_some() || query.fetch.is_some();
        Ok(if is_limited { Vec::new() } else { passed })
    }

    fn body(&mut self, body: &mut SetExpr, outer: Option<&Scope<'_>>, absent: bool) -> Result<Vec<Passed>, Problem> {
        match body {
            SetExpr::Select(select) => self.select(select, outer, absent),
            SetExpr::Query(query) => self.query(query, outer, absent),
            SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } => {
                (self.gathers, self.fills) = (true, true);
                self.body(left, outer, absent)?;
                self.body(right, outer, absent)?;
                Ok(Vec::new())
            }
            other => Err(Problem::of(other, "a rule cannot contain EXCEPT, INTERSECT or VALUES")
                .hint("write NOT EXISTS, EXISTS or IN")),
        }
    }

    fn select(
        &mut self,
        select: &mut Select,
        outer: Option<&Scope<'_>>,
        absent: bool,
    ) -> Result<Vec<Passed>, Problem> {
        self.fills |= gathers(select) && !by_group(select);
        let gathers = gathers(select) || matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_)));
        self.gathers |= gathers;
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
        Ok(if gathers { Vec::new() } else { scope.passed(&select.projection) })
    }

    /// Takes the conditions of a WHERE or an ON; `passed_by` tells whose rows all have to pass them.
    fn apply(&mut self, condition: &Expr, scope: &Scope<'_>, passed_by: &dyn Fn(&Source) -> bool, firm: bool) {
        let mut parts = Vec::new();
        conjuncts(condition, &mut parts);
        for part in parts {
            let known = self.bounds.len();
            self.bounds.read(part, scope, firm);
            self.ages |= self.bounds.len() == known && scope.ages_a_subquery(part);
            let of = scope.only_source(part).filter(|source| passed_by(source));
            match of.and_then(|source| self.scans.get_mut(source.scan?)) {
                Some(scan) => scan.conditions.push(part.clone()),
                None => self.filters |= !only_looks_back(part, scope),
            }
        }
    }

    fn joined(&mut self, from: &mut TableWithJoins, scope: &mut Scope<'_>, absent: bool) -> Result<(), Problem> {
        let (first_source, first_scan) = (scope.sources.len(), self.scans.len());
        self.factor(&mut from.relation, scope, absent)?;
        for join in &mut from.joins {
            let (sources, scans) = (scope.sources.len(), self.scans.len());
            let at = join.relation.span().start;
            let (filled, on) = filled_side(&mut join.join_operator, at)?;
            self.factor(&mut join.relation, scope, absent || filled == Some(Side::Right))?;
            let nullable = match filled {
                None => 0..0,
                Some(Side::Right) => sources..scope.sources.len(),
                Some(Side::Left) => {
                    self.scans.iter_mut().take(scans).skip(first_scan).for_each(|scan| scan.absent = true);
                    first_source..sources
                }
            };
            self.on(on, scope, absent, scope.sources.get(nullable.clone()).filter(|_| filled.is_some()))?;
            scope.sources.iter_mut().take(nullable.end).skip(nullable.start).for_each(|source| source.nullable = true);
        }
        Ok(())
    }

    /// The condition of a join; of an outer one the rows of the `filled` side have to pass it and no others.
    fn on(
        &mut self,
        on: &mut JoinConstraint,
        scope: &Scope<'_>,
        absent: bool,
        filled: Option<&[Source]>,
    ) -> Result<(), Problem> {
        let JoinConstraint::On(condition) = on else { return Ok(()) };
        let passed = |source: &Source| match filled {
            None => !source.nullable,
            Some(filled) => filled.iter().any(|of| of.name == source.name),
        };
        self.apply(condition, scope, &passed, filled.is_none());
        self.subqueries(condition, scope, absent, Asked { firm: filled.is_none(), ..Asked::PLAIN })
    }

    fn factor(&mut self, table: &mut TableFactor, scope: &mut Scope<'_>, absent: bool) -> Result<(), Problem> {
        let at = table.span().start;
        if let Some(entry) = self.entry_of(table) {
            return self.entry(entry, table, scope, absent);
        }
        match table {
            TableFactor::Table { name, alias, args: None, .. } => self.table(name, alias, scope, absent),
            TableFactor::Derived { subquery, alias, .. } => {
                let mut passed = self.query(subquery, None, absent)?;
                let name = alias.as_ref().map(|alias| normal(&alias.name)).unwrap_or_default();
                // Columns that are called otherwise are not followed.
                if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
                    passed.clear();
                }
                scope.sources.push(Source { name, scan: None, passed, nullable: false });
                Ok(())
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins, scope, absent),
            _ => Err(Problem::at(at, "a rule reads process_events only").hint("write FROM process_events")),
        }
    }

    /// The entry of WITH that a table's name stands for.
    fn entry_of(&self, table: &TableFactor) -> Option<usize> {
        let TableFactor::Table { name, args: None, .. } = table else { return None };
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return None };
        self.ctes.iter().rposition(|cte| normal(&cte.alias.name) == normal(ident))
    }

    /// Writes the entry out in the place of its name, where it sees those before it. The guard bounds how often.
    fn entry(
        &mut self,
        entry: usize,
        table: &mut TableFactor,
        scope: &mut Scope<'_>,
        absent: bool,
    ) -> Result<(), Problem> {
        let later = self.ctes.split_off(entry.saturating_add(1));
        let (Some(cte), TableFactor::Table { alias, .. }) = (self.ctes.pop(), &*table) else { return Ok(()) };
        let mut alias = alias.clone().unwrap_or_else(|| cte.alias.clone());
        if alias.columns.is_empty() {
            alias.columns.clone_from(&cte.alias.columns);
        }
        let (lateral, subquery, sample) = (false, cte.query.clone(), None);
        *table = TableFactor::Derived { lateral, subquery, alias: Some(alias), sample };
        let read = self.factor(table, scope, absent);
        self.ctes.push(cte);
        self.ctes.extend(later);
        read
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
        let (scan, passed) = (Some(self.scans.len()), Vec::new());
        scope.sources.push(Source { name: called.clone(), scan, passed, nullable: false });
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
            return self.query(query, Some(scope), absent).map(drop);
        }
        let (outside, scans) = (std::mem::take(&mut self.bounds), self.scans.len());
        let read = self.query(query, Some(scope), absent);
        let inside = std::mem::replace(&mut self.bounds, outside);
        self.bounds.loosen(inside);
        self.scans.iter_mut().skip(scans).for_each(|scan| scan.aside = true);
        read.map(drop)
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
