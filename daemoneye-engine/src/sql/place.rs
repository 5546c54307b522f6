//! Where in a statement the planner's complaint belongs: it often knows what is wrong and not where. What it names is looked up
//! in the syntax tree, and the first that fits is shown.

use super::names::{self, Class};
use super::tables::TABLES;
use super::wording::{self, Sort};
use super::{absent, coerce, outer, tables, times};
use datafusion::common::SchemaError;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName,
    OrderByKind, Query, Select, SelectItem, SetExpr, Spanned, TableFactor, TypedString, Value, Visit, Visitor,
    WindowFrameUnits, WindowType, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Where the column is named first, and whether in quotes: the planner forgets the place of those in GROUP BY and ORDER BY.
pub(super) fn of_column(error: &SchemaError, query: &Query) -> Option<(Location, bool)> {
    let (SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field }) = error else {
        return None;
    };
    named(query, |ident| names::normal(ident) == field.name)
        .or_else(|| using(query, &field.name).map(|at| (at, false)))
}

/// A column that USING names.
fn using(query: &Query, column: &str) -> Option<Location> {
    selects(query, |select| {
        let joins = select.from.iter().flat_map(|from| &from.joins);
        let columns = joins.filter_map(|join| match &join.join_operator {
            JoinOperator::Join(JoinConstraint::Using(columns))
            | JoinOperator::Inner(JoinConstraint::Using(columns))
            | JoinOperator::Left(JoinConstraint::Using(columns))
            | JoinOperator::LeftOuter(JoinConstraint::Using(columns)) => Some(columns),
            _ => None,
        });
        let named = |name: &&ObjectName| name.0.last().and_then(|part| part.as_ident()).map(names::normal);
        columns.flatten().find(|name| named(name).as_deref() == Some(column)).map(start)
    })
}

/// What the message complains about.
pub(super) fn of_message(message: &str, query: &Query) -> Option<Location> {
    let has = |words: &str| message.contains(words);
    let at = match () {
        () if has("non-boolean predicate") => condition(query, |condition| !wording::is_condition(condition)),
        () if has("Aggregate functions are not allowed") => {
            condition_with(query, |call| class(call) == Some(Class::Aggregate))
        }
        () if has("calls cannot be nested") => nested_aggregate(query),
        () if has("HAVING clause references") => selects(query, |select| select.having.as_ref().map(start)),
        () if has("UNION queries") => union(query),
        () if has("return one column") => value_query(query),
        () if has("orrelated scalar subquery") || has("looks at the outer row") => outer_query(query),
        () if has(outer::IN_ON) => selects(query, |select| first(&select.from, asking)),
        () if has(absent::NOT_ALONE) || has(absent::IN_BOTH) => {
            selects(query, |select| first(&select.selection, asking).or_else(|| first(&select.having, asking)))
        }
        () if has("SELECT DISTINCT") => sort_key(query, message),
        () if has("Order by index starts at 1") => position(query, "0"),
        () if has("The window ") => {
            over(query, |over| matches!(over, WindowType::NamedWindow(name) if has(&name.value)))
        }
        () if has(coerce::RANGE_OVER) => over(query, |over| match over {
            WindowType::WindowSpec(spec) => {
                spec.window_frame.as_ref().is_some_and(|frame| frame.units == WindowFrameUnits::Range)
            }
            WindowType::NamedWindow(_) => true,
        }),
        () if has("Expected an integer value") => {
            ["lag", "lead", "nth_value"].iter().find_map(|name| called(name, query))
        }
        () if has("Invalid qualifier") => every_column(query),
        () if has("out of bounds") || has("with position") => position(query, message),
        () if has("While expanding wildcard") => star(query),
        () => None,
    };
    at.or_else(|| operation(message, query))
        .or_else(|| text(message, query))
        .or_else(|| called(wording::function_named(message)?, query))
        .or_else(|| column(message, query))
        .filter(|at| at.line > 0)
}

/// A window function in a condition.
pub(super) fn of_window(query: &Query) -> Option<Location> {
    condition_with(query, |call| call.over.is_some()).filter(|at| at.line > 0)
}

/// The first call whose window fits.
fn over(query: &Query, fits: impl Fn(&WindowType) -> bool) -> Option<Location> {
    first(query, |expr| match expr {
        Expr::Function(Function { over: Some(over), .. }) if fits(over) => Some(start(expr)),
        _ => None,
    })
}

/// The first `table.*`.
fn every_column(query: &Query) -> Option<Location> {
    selects(query, |select| {
        let all = |item: &&SelectItem| matches!(item, SelectItem::QualifiedWildcard(..));
        select.projection.iter().find(all).map(start)
    })
}

/// A subquery that is answered with yes or no, among the columns of a SELECT.
pub(super) fn of_asking(query: &Query) -> Option<Location> {
    selects(query, |select| first(&select.projection, asking))
}

/// The list of an expression that is answered with yes or no.
fn asking(expr: &Expr) -> Option<Location> {
    match expr {
        Expr::Exists { subquery, .. } | Expr::InSubquery { subquery, .. } => Some(start(subquery.as_ref())),
        _ => None,
    }
}

/// A column of an outer SELECT in a subquery that has none inside.
pub(super) fn of_outer(query: &Query) -> Option<Location> {
    let last = std::cell::Cell::new(None);
    let looked = queries(query, |inner| {
        last.set(outer_name(inner).or(last.get()));
        None
    });
    looked.or(last.get()).filter(|at| at.line > 0)
}

fn start(node: &impl Spanned) -> Location {
    node.span().start
}

/// The first expression that gives a place.
fn first(within: &impl Visit, place: impl Fn(&Expr) -> Option<Location>) -> Option<Location> {
    visit_expressions(within, |expr| place(expr).map_or(ControlFlow::Continue(()), ControlFlow::Break)).break_value()
}

struct Selects<F>(F);

impl<F: Fn(&Select) -> Option<Location>> Visitor for Selects<F> {
    type Break = Location;

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Location> {
        (self.0)(select).map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }
}

fn selects(query: &Query, place: impl Fn(&Select) -> Option<Location>) -> Option<Location> {
    query.visit(&mut Selects(place)).break_value()
}

struct Queries<F>(F);

impl<F: Fn(&Query) -> Option<Location>> Visitor for Queries<F> {
    type Break = Location;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Location> {
        (self.0)(query).map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }
}

fn queries(query: &Query, place: impl Fn(&Query) -> Option<Location>) -> Option<Location> {
    query.visit(&mut Queries(place)).break_value()
}

fn condition(query: &Query, fits: impl Fn(&Expr) -> bool) -> Option<Location> {
    selects(query, |select| {
        [&select.selection, &select.having].into_iter().flatten().find(|condition| fits(condition)).map(start)
    })
}

fn condition_with(query: &Query, fits: impl Fn(&Function) -> bool) -> Option<Location> {
    selects(query, |select| {
        first(select.selection.as_ref()?, |expr| match expr {
            Expr::Function(call) if fits(call) => Some(start(expr)),
            _ => None,
        })
    })
}

fn class(call: &Function) -> Option<Class> {
    names::class_of(&names::normal(call.name.0.last()?.as_ident()?))
}

fn nested_aggregate(query: &Query) -> Option<Location> {
    first(query, |expr| match expr {
        Expr::Function(Function { args: FunctionArguments::List(list), .. }) if aggregates(expr) => {
            first(&list.args, |inner| aggregates(inner).then(|| start(inner)))
        }
        _ => None,
    })
}

fn aggregates(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(call) if call.over.is_none() && class(call) == Some(Class::Aggregate))
}

fn union(query: &Query) -> Option<Location> {
    queries(query, |query| match query.body.as_ref() {
        SetExpr::SetOperation { right, .. } => Some(start(right.as_ref())),
        _ => None,
    })
}

/// A query that stands for one value.
fn value_query(query: &Query) -> Option<Location> {
    first(query, |expr| match expr {
        Expr::Subquery(query) | Expr::InSubquery { subquery: query, .. } => Some(start(query.as_ref())),
        _ => None,
    })
}

fn outer_query(query: &Query) -> Option<Location> {
    first(query, |expr| match expr {
        Expr::Subquery(query) | Expr::InSubquery { subquery: query, .. } | Expr::Exists { subquery: query, .. }
            if names_outer(query) =>
        {
            Some(start(query.as_ref()))
        }
        _ => None,
    })
}

/// Whether it names a table that it does not read.
fn names_outer(query: &Query) -> bool {
    outer_name(query).is_some()
}

fn outer_name(query: &Query) -> Option<Location> {
    let mut own = BTreeSet::new();
    if query.visit(&mut Sources(&mut own)).is_break() {
        return None;
    }
    first(query, |expr| match expr {
        Expr::CompoundIdentifier(parts) => {
            parts.first().filter(|table| !own.contains(&names::normal(table))).map(|_| start(expr))
        }
        _ => None,
    })
}

struct Sources<'a>(&'a mut BTreeSet<String>);

impl Visitor for Sources<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<()> {
        let (TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. }) = table else {
            return ControlFlow::Continue(());
        };
        if let Some(alias) = alias {
            self.0.insert(names::normal(&alias.name));
        } else if let TableFactor::Table { name, .. } = table
            && let Some(ident) = name.0.last().and_then(|part| part.as_ident())
        {
            self.0.insert(names::normal(ident));
        }
        ControlFlow::Continue(())
    }
}

/// The key of ORDER BY that the message names, or the first.
fn sort_key(query: &Query, message: &str) -> Option<Location> {
    queries(query, |query| {
        let OrderByKind::Expressions(keys) = &query.order_by.as_ref()?.kind else { return None };
        let told = wording::columns_named(message);
        let fits = |expr: &Expr| named(expr, |ident| told.contains(&names::normal(ident))).is_some();
        let key = keys.iter().find(|key| fits(&key.expr)).or_else(|| keys.first());
        key.map(|key| start(&key.expr))
    })
}

/// The number in ORDER BY or GROUP BY that counts further than the SELECT has columns.
fn position(query: &Query, message: &str) -> Option<Location> {
    let told = wording::first_number(message)?;
    let is_it =
        |expr: &Expr| matches!(expr, Expr::Value(value) if value.value.to_string() == told).then(|| start(expr));
    let ordered = queries(query, |query| {
        let OrderByKind::Expressions(keys) = &query.order_by.as_ref()?.kind else { return None };
        keys.iter().find_map(|key| is_it(&key.expr))
    });
    let grouped = |select: &Select| match &select.group_by {
        GroupByExpr::Expressions(keys, _) => keys.iter().find_map(is_it),
        GroupByExpr::All(_) => None,
    };
    if message.contains("with position") { selects(query, grouped) } else { ordered }
}

/// The `*` of a SELECT that groups.
fn star(query: &Query) -> Option<Location> {
    selects(query, |select| {
        select.projection.iter().find_map(|item| match item {
            SelectItem::Wildcard(options) => Some(options.wildcard_token.0.span.start),
            _ => None,
        })
    })
}

/// The operation between values of the sorts that the message names.
fn operation(message: &str, query: &Query) -> Option<Location> {
    let told = wording::Operation::of(message)?;
    first(query, |expr| {
        let (left, op, right) = match expr {
            Expr::BinaryOp { left, op, right } => (left, spelled(op), right),
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => (expr, "LIKE".to_owned(), pattern),
            Expr::IsDistinctFrom(left, right) => (left, "IS DISTINCT FROM".to_owned(), right),
            Expr::IsNotDistinctFrom(left, right) => (left, "IS NOT DISTINCT FROM".to_owned(), right),
            _ => return None,
        };
        let fits = op == told.op && may_be(left, told.left) && may_be(right, told.right);
        fits.then(|| start(expr))
    })
}

fn spelled(op: &BinaryOperator) -> String {
    match op {
        BinaryOperator::NotEq => "!=".to_owned(),
        other => other.to_string(),
    }
}

/// Whether nothing says that the expression is of another sort.
fn may_be(expr: &Expr, sort: Sort) -> bool {
    match expr {
        Expr::Nested(inner) => may_be(inner, sort),
        Expr::Value(value) => match &value.value {
            Value::Number(..) => sort == Sort::Number,
            Value::SingleQuotedString(_) => sort == Sort::Text,
            Value::Boolean(_) => sort == Sort::Truth,
            _ => true,
        },
        Expr::Interval(_) => sort == Sort::Length,
        Expr::TypedString(_) => sort == Sort::Time,
        Expr::Identifier(ident) => column_may_be(ident, sort),
        Expr::CompoundIdentifier(parts) => parts.last().is_none_or(|ident| column_may_be(ident, sort)),
        _ => true,
    }
}

fn column_may_be(ident: &Ident, sort: Sort) -> bool {
    let name = names::normal(ident);
    let tables = TABLES.iter().filter_map(|table| tables::table_columns(table));
    let sorts =
        tables.filter_map(|columns| columns.field_with_name(&name).ok().map(|field| Sort::of(field.data_type())));
    let sorts: Vec<Sort> = sorts.collect();
    sorts.is_empty() || sorts.contains(&sort)
}

/// Where the text stands that the message repeats in quotes, as it was written or with the seconds that were put in.
fn text(message: &str, query: &Query) -> Option<Location> {
    first(query, |expr| {
        let (Expr::Value(value) | Expr::TypedString(TypedString { value, .. })) = expr else { return None };
        let Value::SingleQuotedString(text) = &value.value else { return None };
        let mut completed = text.clone();
        times::complete(&mut completed);
        let told = [text, &completed].into_iter().any(|text| message.contains(&format!("'{text}'")));
        told.then_some(value.span.start)
    })
}

/// Where a function of that name is called first.
fn called(name: &str, query: &Query) -> Option<Location> {
    first(query, |expr| match expr {
        Expr::Function(function) => match function.name.0.as_slice() {
            [part] if part.as_ident().is_some_and(|ident| names::normal(ident).eq_ignore_ascii_case(name)) => {
                Some(start(expr))
            }
            _ => None,
        },
        Expr::Substring { .. } if name == "substr" => Some(start(expr)),
        _ => None,
    })
}

/// Where a column stands that the message names.
fn column(message: &str, query: &Query) -> Option<Location> {
    let told = wording::columns_named(message);
    named(query, |ident| told.contains(&names::normal(ident))).map(|(at, _)| at)
}

fn named(within: &impl Visit, fits: impl Fn(&Ident) -> bool) -> Option<(Location, bool)> {
    let named = visit_expressions(within, |expr| {
        let parts = match expr {
            Expr::Identifier(ident) => std::slice::from_ref(ident),
            Expr::CompoundIdentifier(parts) => parts,
            _ => return ControlFlow::Continue(()),
        };
        match parts.last() {
            Some(last) if fits(last) => ControlFlow::Break((start(expr), last.quote_style.is_some())),
            _ => ControlFlow::Continue(()),
        }
    });
    named.break_value().filter(|(at, _)| at.line > 0)
}
