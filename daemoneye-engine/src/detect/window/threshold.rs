//! What a group of rows needs at least for a rule that counts: `SELECT … GROUP BY user HAVING count(*) >= 5` and the like.
//!
//! Taken from the text, so a SELECT that is written in another way has no threshold and is decided by its plan alone. What is read
//! here is needed by every group that the plan finds; `whole` says that nothing else is.

use std::num::NonZero;

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr,
    Ident, Query, Select, SelectItem, SetExpr, TableFactor, Value,
};

use super::super::row::{Cell, Columns};
use super::gate::Mark;
use super::kind::{any, has_subquery, is_called};
use super::scope::conjuncts;
use crate::sql::names::normal;

/// What every group that a rule finds has at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Threshold {
    /// The columns that it groups by, by place in the column table.
    pub(super) by: Vec<usize>,
    /// Rows.
    pub(super) rows: usize,
    pub(super) values: Option<Values>,
    /// Enough rows are all that it needs, and the row matcher knows which rows count.
    pub(super) whole: bool,
    /// A further row takes nothing from what is found.
    pub(super) grows: bool,
    /// How long a row counts, in µs.
    pub(super) back_us: i64,
}

/// Rows that have a value in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Values {
    /// By place in the column table.
    pub(super) column: usize,
    /// Equal values are one.
    pub(super) distinct: bool,
    pub(super) least: usize,
}

/// What a condition of a group asks for: at least so many of something.
struct Asked {
    counted: Counted,
    least: usize,
    /// It asks for nothing else.
    whole: bool,
}

enum Counted {
    Rows,
    Values { column: usize, distinct: bool },
}

impl Threshold {
    /// That of a SELECT, if it counts; as of a rule whose rows count forever and of which nothing else is known.
    pub(super) fn of(query: &Query) -> Option<Self> {
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        if query.with.is_some() || !is_plain(select) || has_subquery(query) || any(query, &is_over) {
            return None;
        }
        let GroupByExpr::Expressions(by, modifiers) = &select.group_by else { return None };
        let by: Vec<usize> = by.iter().map(|by| column(by, select)).collect::<Option<_>>()?;
        let mut parts = Vec::new();
        conjuncts(select.having.as_ref().filter(|_| modifiers.is_empty())?, &mut parts);
        let asked: Vec<Option<Asked>> = parts.into_iter().map(|part| asked(part, select)).collect();
        let whole = asked.iter().all(|asked| asked.as_ref().is_some_and(|asked| asked.whole));
        let mut this = Self { by, rows: 1, values: None, whole, grows: false, back_us: i64::MAX };
        let mut is_known = false;
        for asked in asked.into_iter().flatten() {
            is_known = true;
            this.ask(&asked);
        }
        is_known.then_some(this)
    }

    fn ask(&mut self, asked: &Asked) {
        let least = asked.least;
        match (&asked.counted, &mut self.values) {
            (Counted::Rows, _) => self.rows = self.rows.max(least),
            (Counted::Values { column, distinct }, None) => {
                self.values = Some(Values { column: *column, distinct: *distinct, least });
            }
            (Counted::Values { column, distinct }, Some(known))
                if (known.column, known.distinct) == (*column, *distinct) =>
            {
                known.least = known.least.max(least);
            }
            // One column is counted. Of another there are no more values than rows.
            (Counted::Values { .. }, Some(_)) => (self.rows, self.whole) = (self.rows.max(least), false),
        }
    }

    /// The rows that a group has at least.
    pub(super) fn least(&self) -> usize {
        self.values.map_or(self.rows, |values| self.rows.max(values.least))
    }

    /// The columns that it goes by.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.by.iter().copied().chain(self.values.map(|values| values.column))
    }

    /// What it is about a row that counts; `is_sure`: the plan sees the row at the time at which it counts.
    pub(super) fn mark(&self, columns: &Columns<'_>, row: usize, is_sure: bool) -> Mark {
        let mut group = blake3::Hasher::new();
        self.by.iter().for_each(|column| add(&mut group, columns.cell(*column, row).as_ref()));
        let value = self.values.and_then(|values| columns.cell(values.column, row)).and_then(|cell| {
            let mut value = blake3::Hasher::new();
            add(&mut value, Some(&cell));
            NonZero::new(hashed(&value))
        });
        Mark { group: hashed(&group), value, is_sure }
    }
}

fn hashed(hasher: &blake3::Hasher) -> u128 {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// Such that no two lists of values are the same bytes.
fn add(hasher: &mut blake3::Hasher, cell: Option<&Cell<'_>>) {
    let mut add = |kind: u8, bytes: &[u8]| {
        hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    match cell {
        None => add(0, &[]),
        Some(Cell::Blob(bytes)) => add(1, bytes),
        Some(Cell::Boolean(value)) => add(2, &[u8::from(*value)]),
        Some(Cell::Integer(value)) => add(3, &value.to_le_bytes()),
        Some(Cell::Real(value)) => add(4, &value.to_le_bytes()),
        Some(Cell::Text(text)) => add(5, text.as_bytes()),
        Some(Cell::Timestamp(time)) => add(6, &time.to_le_bytes()),
    }
}

/// One table of events, and nothing between its rows and their groups.
fn is_plain(select: &Select) -> bool {
    let [from] = select.from.as_slice() else { return false };
    let is_table = from.joins.is_empty() && matches!(from.relation, TableFactor::Table { args: None, .. });
    is_table && select.distinct.is_none() && select.qualify.is_none() && select.named_window.is_empty()
}

fn is_over(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if function.over.is_some())
}

fn named(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Nested(inner) => named(inner),
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// The place of a column whose values are equal where SQL says so; of a name that the answer gives to something else too, nobody
/// should have to know what it stands for.
fn column(expr: &Expr, select: &Select) -> Option<usize> {
    let name = normal(named(expr)?);
    let is_other = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            normal(alias) == name && named(expr).is_none_or(|ident| normal(ident) != name)
        }
        _ => false,
    };
    let (at, column) = PROCESS_EVENTS.iter().enumerate().find(|(_, column)| column.name == name)?;
    let is_exact = matches!(column.kind, Kind::Blob | Kind::Boolean | Kind::Integer | Kind::Text);
    (is_exact && !select.projection.iter().any(is_other)).then_some(at)
}

/// `count(…) >= 5` in any way to write it.
fn asked(condition: &Expr, select: &Select) -> Option<Asked> {
    let Expr::BinaryOp { left, op, right } = condition else { return None };
    let (call, op, number) = match (number(right), number(left)) {
        (Some(number), _) => (left, op.clone(), number),
        (_, Some(number)) => (right, turned(op)?, number),
        _ => return None,
    };
    let (least, is_least) = match op {
        BinaryOperator::Gt => (number.checked_add(1)?, true),
        BinaryOperator::GtEq => (number, true),
        BinaryOperator::Eq => (number, false),
        _ => return None,
    };
    let (counted, is_all) = counted(call, select)?;
    Some(Asked { counted, least: usize::try_from(least.max(0)).ok()?, whole: is_least && is_all })
}

const fn turned(op: &BinaryOperator) -> Option<BinaryOperator> {
    match op {
        BinaryOperator::Eq => Some(BinaryOperator::Eq),
        BinaryOperator::Lt => Some(BinaryOperator::Gt),
        BinaryOperator::LtEq => Some(BinaryOperator::GtEq),
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Nested(inner) => number(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// What a call of `count`, or the answer's name for one, counts at most; whether it is just that.
fn counted(expr: &Expr, select: &Select) -> Option<(Counted, bool)> {
    match expr {
        Expr::Nested(inner) => counted(inner, select),
        Expr::Function(function) if is_called(function, "count") => Some(of_call(function, select)),
        Expr::Identifier(ident) => {
            let name = normal(ident);
            if PROCESS_EVENTS.iter().any(|column| column.name == name) {
                return None;
            }
            let mut named = select.projection.iter().filter_map(|item| match item {
                SelectItem::ExprWithAlias { expr: Expr::Function(function), alias } if normal(alias) == name => {
                    Some(function)
                }
                _ => None,
            });
            let function = named.next().filter(|function| is_called(function, "count"))?;
            Some(of_call(function, select))
        }
        _ => None,
    }
}

fn of_call(function: &Function, select: &Select) -> (Counted, bool) {
    let FunctionArguments::List(list) = &function.args else { return (Counted::Rows, false) };
    let is_whole = function.filter.is_none() && function.within_group.is_empty() && list.clauses.is_empty();
    let distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] => (Counted::Rows, is_whole && !distinct),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => match (number(expr), column(expr, select)) {
            (Some(_), _) => (Counted::Rows, is_whole && !distinct),
            (None, Some(column)) => (Counted::Values { column, distinct }, is_whole),
            (None, None) => (Counted::Rows, false),
        },
        _ => (Counted::Rows, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::check;

    fn place(name: &str) -> usize {
        PROCESS_EVENTS.iter().position(|column| column.name == name).unwrap()
    }

    fn of(having: &str) -> Option<Threshold> {
        let sql = format!("SELECT user, count(*) AS n FROM process_events e GROUP BY e.user HAVING {having}");
        Threshold::of(check(&sql).unwrap().query())
    }

    #[test]
    fn what_a_condition_of_a_group_asks_for_is_read_and_what_is_not_known_is_said() {
        let name = |distinct, least| Some(Values { column: place("name"), distinct, least });
        for (having, rows, values, whole) in [
            ("count(*) >= 5", 5, None, true),
            ("count(*) > 5", 6, None, true),
            ("5 <= count(1) AND (3 < count(*))", 5, None, true),
            ("n >= 5", 5, None, true),
            ("count(name) >= 4", 1, name(false, 4), true),
            ("count(DISTINCT e.name) > 3 AND count(*) >= 9 AND count(DISTINCT name) >= 2", 9, name(true, 4), true),
            ("count(DISTINCT name) >= 2 AND count(pid) >= 9", 9, name(true, 2), false),
            ("count(*) = 5", 5, None, false),
            ("count(*) >= 5 AND count(*) <= 9", 5, None, false),
            ("count(*) >= 5 AND max(uid) > 0", 5, None, false),
            ("count(*) FILTER (WHERE uid = 0) >= 5", 5, None, false),
            ("count(DISTINCT 1) >= 5", 5, None, false),
            ("count(DISTINCT lower(name)) >= 5", 5, None, false),
            ("count(cpu_usage) >= 5", 5, None, false),
        ] {
            let found = of(having).unwrap_or_else(|| panic!("{having}"));
            assert_eq!((found.rows, found.values, found.whole), (rows, values, whole), "{having}");
            assert_eq!(found.by, [place("user")]);
        }
    }

    #[test]
    fn a_select_that_does_not_just_count_has_no_threshold() {
        for having in ["count(*) <= 5", "count(*) >= 5 OR uid = 0", "max(uid) > 5", "count(*) + 1 >= 5", "5 = 5"] {
            assert_eq!(of(having), None, "{having}");
        }
        let having = "HAVING count(*) >= 5";
        for sql in [
            format!("SELECT lower(user) AS u FROM process_events GROUP BY lower(user) {having}"),
            format!("SELECT lower(user) AS user FROM process_events GROUP BY user {having}"),
            format!("SELECT cpu_usage FROM process_events GROUP BY cpu_usage {having}"),
            format!(
                "SELECT a.user FROM process_events a JOIN process_events b ON a.pid = b.ppid GROUP BY a.user {having}"
            ),
            format!("SELECT user FROM (SELECT user FROM process_events) AS q GROUP BY user {having}"),
            format!("SELECT DISTINCT user FROM process_events GROUP BY user {having}"),
            format!("SELECT user, row_number() OVER (ORDER BY user) AS n FROM process_events GROUP BY user {having}"),
            "SELECT user, count(*) AS n FROM process_events GROUP BY user".to_owned(),
        ] {
            assert_eq!(Threshold::of(check(&sql).unwrap().query()), None, "{sql}");
        }
    }
}
