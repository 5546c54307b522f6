//! What is wrong in a SELECT is blanked, so that the rest of it can be looked at.
//!
//! An expression becomes NULL, which fits wherever a value does and draws no complaint of its own. Where it does not fit, what it
//! stands in is blanked too, and nobody hears of that: it is a consequence. Places stay those of the text.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, Spanned as _, TableAlias, TableFactor, Value,
    ValueWithSpan, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use crate::sql::names::{nearest, normal};

/// What rules read.
const TABLE: &str = "process_events";

/// What has been blanked of one SELECT.
#[derive(Debug, Default)]
pub(super) struct Mending {
    blanks: Vec<Span>,
    is_bare: bool,
    /// A table stood there that is not like ours: nobody knows which columns were meant.
    is_foreign: bool,
    /// Where a problem was that is of no expression.
    outside: Vec<Location>,
}

/// What a problem was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mended {
    /// It follows from nothing that has been told.
    pub(super) is_new: bool,
    /// The SELECT is another one than before: there may be more.
    pub(super) goes_on: bool,
}

impl Mending {
    /// Blanks what a problem at this place speaks of.
    pub(super) fn mend(&mut self, query: &mut Query, at: Location) -> Mended {
        if at.line == 0 {
            return Mended { is_new: self.blanks.is_empty() && !self.is_bare, goes_on: false };
        }
        let mut search = Search { at, blanks: &self.blanks, open: Vec::new() };
        if let ControlFlow::Break((span, is_new)) = query.visit(&mut search) {
            let is_new = is_new && !self.is_blank(at);
            self.blanks.push(span);
            return Mended { is_new, goes_on: true };
        }
        if self.is_blank(at) {
            return Mended { is_new: false, goes_on: leave_out(query, at) };
        }
        if self.outside.contains(&at) {
            return Mended { is_new: false, goes_on: false };
        }
        self.outside.push(at);
        let goes_on = self.name_table(query, at) || self.lay_bare(query);
        Mended { is_new: true, goes_on }
    }

    /// Whether columns can still be judged.
    pub(super) const fn knows_columns(&self) -> bool {
        !self.is_foreign
    }

    /// Puts the events in the place of a table that is none; its columns stay called as they were.
    fn name_table(&mut self, query: &mut Query, at: Location) -> bool {
        let ControlFlow::Break(called) = query.visit(&mut Naming { at }) else { return false };
        self.is_foreign |= nearest(&called, std::iter::once(TABLE)).is_none();
        true
    }

    fn is_blank(&self, at: Location) -> bool {
        self.blanks.iter().any(|blank| blank.start <= at && at < blank.end)
    }

    /// Takes away what stands around a SELECT: it may be what is wrong, and decides nothing about the rest.
    fn lay_bare(&mut self, query: &mut Query) -> bool {
        if self.is_bare {
            return false;
        }
        self.is_bare = true;
        (query.order_by, query.limit_clause, query.fetch) = (None, None, None);
        if let SetExpr::Select(select) = query.body.as_mut() {
            (select.distinct, select.top) = (None, None);
        }
        true
    }
}

/// Looks for the innermost expression that begins at a place and blanks it; where that is blank already, what it stands in.
struct Search<'a> {
    at: Location,
    blanks: &'a [Span],
    open: Vec<Inside>,
}

/// What is known of the inside of an expression.
#[derive(Debug, Default)]
struct Inside {
    start: Option<Location>,
    has_blank: bool,
    /// The blank that does not fit.
    has_this: bool,
}

impl VisitorMut for Search<'_> {
    /// What was blanked, and whether there was no blank in it.
    type Break = (Span, bool);

    fn pre_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.open.push(Inside::default());
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let inside = self.open.pop().unwrap_or_default();
        let start = start_of(expr, inside.start);
        let (is_here, is_blank) = (start == Some(self.at), is_blank(expr, self.blanks));
        // Without its length an INTERVAL is nothing, and a time beside nothing is told as if it were a number.
        if inside.has_this
            && matches!(expr, Expr::Interval(_))
            && let Some(outer) = self.open.last_mut()
        {
            (outer.has_blank, outer.has_this) = (true, true);
            return ControlFlow::Continue(());
        }
        if inside.has_this || (is_here && !is_blank) {
            let span = expr.span();
            *expr = Expr::Value(ValueWithSpan { value: Value::Null, span });
            return ControlFlow::Break((span, !inside.has_blank));
        }
        if let Some(outer) = self.open.last_mut() {
            outer.start = outer.start.into_iter().chain(start).min();
            outer.has_blank |= inside.has_blank || is_blank;
            outer.has_this |= is_here && is_blank;
        }
        ControlFlow::Continue(())
    }
}

fn is_blank(expr: &Expr, blanks: &[Span]) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::Null, span }) if blanks.contains(span))
}

/// Where it begins. Asking each level of a long chain for all of it would take the square of its length.
fn start_of(expr: &Expr, inside: Option<Location>) -> Option<Location> {
    let own = match expr {
        Expr::Function(function) => Some(function.name.span().start),
        Expr::Case { case_token, .. } => Some(case_token.0.span.start),
        Expr::Exists { .. } | Expr::InSubquery { .. } | Expr::Subquery(_) => Some(expr.span().start),
        other => inside.is_none().then(|| other.span().start),
    };
    own.filter(|own| own.line > 0).or(inside)
}

/// Leaves the column out of the answer that stands there, where others stay.
fn leave_out(query: &mut Query, at: Location) -> bool {
    let SetExpr::Select(select) = query.body.as_mut() else { return false };
    let is_there = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.span().start == at,
        _ => false,
    };
    let Some(place) = select.projection.iter().position(is_there).filter(|_| select.projection.len() > 1) else {
        return false;
    };
    select.projection.remove(place);
    true
}

struct Naming {
    at: Location,
}

impl VisitorMut for Naming {
    /// What the table was called.
    type Break = String;

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<String> {
        let TableFactor::Table { name, alias, args, .. } = table else { return ControlFlow::Continue(()) };
        let span = name.span();
        let called = name.0.last().and_then(ObjectNamePart::as_ident).cloned();
        let Some(called) = called.filter(|called| span.start == self.at && called.value != TABLE) else {
            return ControlFlow::Continue(());
        };
        let word = normal(&called);
        *args = None;
        *name = ObjectName::from(vec![Ident::with_span(span, TABLE)]);
        alias.get_or_insert_with(|| TableAlias { explicit: true, name: called, columns: Vec::new(), at: None });
        ControlFlow::Break(word)
    }
}
