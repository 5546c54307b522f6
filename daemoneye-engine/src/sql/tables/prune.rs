//! The range of time that a query's filters leave, so that segments outside of it are not even opened, and what is missing
//! is told only where it was asked for.

use crate::store::HistoryTable;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

/// The column that segments are ordered by.
pub(super) const TIME: &str = "time";
/// First and last instant of a lifetime.
const START: &str = "start_time";
const STOP: &str = "stop_time";

/// What the filters over a table of history leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Of the column `time`: what may stand in a file.
    pub(crate) told: TimeRange,
    /// Of the time that is asked about: a gap outside of it hides nothing that was asked for.
    pub(crate) asked: TimeRange,
}

impl Ranges {
    pub(crate) fn of(table: HistoryTable, filters: &[Expr]) -> Self {
        let events = TimeRange::of(filters);
        if table == HistoryTable::ProcessEvents {
            return Self { told: events, asked: events };
        }
        let (start, stop) = (TimeRange::over(START, filters), TimeRange::over(STOP, filters));
        // Whoever had stopped was told of then or later; who was told of early may have stopped early, and lives on for others.
        let told = TimeRange { from_us: events.from_us.max(stop.from_us), to_us: events.to_us.min(stop.to_us) };
        // Nothing is asked of the time before the earliest start.
        let asked = TimeRange { from_us: told.from_us.max(start.from_us), to_us: told.to_us.min(start.to_us) };
        Self { told, asked }
    }
}

/// Both ends included, µs since the Unix epoch. Everything, until a filter narrows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
}

impl TimeRange {
    pub(crate) const ALL: Self = Self { from_us: i64::MIN, to_us: i64::MAX };

    /// The range that all filters together leave. What is not understood narrows nothing, so it is never too small.
    pub(crate) fn of(filters: &[Expr]) -> Self {
        Self::over(TIME, filters)
    }

    /// The same over another column. Rows in which it is NULL are not meant: they are in memory.
    pub(super) fn over(column: &str, filters: &[Expr]) -> Self {
        let mut range = Self::ALL;
        for term in filters.iter().flat_map(split_conjunction) {
            range.narrow(column, not_null_side(column, term).unwrap_or(term));
        }
        range
    }

    /// Whether a condition that [`is_range`] holds for every row of these instants, or for none.
    pub(super) fn decides(term: &Expr, first_us: i64, last_us: i64) -> bool {
        let range = Self::over(TIME, std::slice::from_ref(term));
        range.has_all(first_us, last_us) || !range.overlaps(first_us, last_us)
    }

    /// Whether a condition holds for every row of these instants: one that is understood.
    pub(super) fn holds(term: &Expr, first_us: i64, last_us: i64) -> bool {
        is_range(term) && Self::over(TIME, std::slice::from_ref(term)).has_all(first_us, last_us)
    }

    /// Bounds are taken as if they included their end, so this is one instant stricter than the condition.
    const fn has_all(self, first_us: i64, last_us: i64) -> bool {
        (self.from_us == i64::MIN || first_us > self.from_us)
            && (self.to_us == i64::MAX || last_us < self.to_us.saturating_sub(1))
    }

    /// What lies in both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { from_us: self.from_us.max(other.from_us), to_us: self.to_us.min(other.to_us) }
    }

    /// Of a time that ends before it begins nothing can be missing.
    pub(super) const fn is_none(self) -> bool {
        self.from_us > self.to_us
    }

    pub(crate) const fn overlaps(&self, from_us: i64, to_us: i64) -> bool {
        from_us <= self.to_us && to_us >= self.from_us
    }

    /// Whether somebody who asks for this range wants events from `us` or before: the statement names a start that early, or
    /// ends there. Without a start it asks for what there is, and old events are meant to go.
    pub(crate) const fn asks_back_to(&self, us: i64) -> bool {
        (self.from_us > i64::MIN && self.from_us <= us) || self.to_us <= us
    }

    fn narrow(&mut self, column: &str, term: &Expr) {
        match term {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (is_column(left, column), literal(right)) {
                (true, Some(us)) => self.bound(*op, us),
                _ => {
                    if let (Some(us), true, Some(op)) = (literal(left), is_column(right, column), op.swap()) {
                        self.bound(op, us);
                    }
                }
            },
            Expr::Between(Between { expr, negated: false, low, high }) if is_column(expr, column) => {
                if let Some(us) = literal(low) {
                    self.bound(Operator::GtEq, us);
                }
                if let Some(us) = literal(high) {
                    self.bound(Operator::LtEq, us);
                }
            }
            _ => {}
        }
    }

    /// Rounding to µs makes a bound inexact by one, so strict bounds are taken as if they included their end.
    fn bound(&mut self, op: Operator, us: i64) {
        match op {
            Operator::Gt | Operator::GtEq => self.from_us = self.from_us.max(us),
            Operator::Lt | Operator::LtEq => self.to_us = self.to_us.min(us.saturating_add(1)),
            Operator::Eq => {
                self.from_us = self.from_us.max(us);
                self.to_us = self.to_us.min(us.saturating_add(1));
            }
            _ => {}
        }
    }
}

/// Whether nothing but bounds of `time` stand in a condition.
pub(super) fn is_range(term: &Expr) -> bool {
    let bounds = |op: &Operator| matches!(op, Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq);
    match term {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => is_range(left) && is_range(right),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let written = is_column(left, TIME) && literal(right).is_some();
            bounds(op) && (written || (is_column(right, TIME) && literal(left).is_some()))
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            is_column(expr, TIME) && literal(low).is_some() && literal(high).is_some()
        }
        _ => false,
    }
}

fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

/// Of `x > 1 OR x IS NULL` the first.
fn not_null_side<'a>(column: &str, term: &'a Expr) -> Option<&'a Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) = term else { return None };
    let is_null = |expr: &Expr| matches!(expr, Expr::IsNull(inner) if is_column(inner, column));
    if is_null(right) {
        Some(left)
    } else if is_null(left) {
        Some(right)
    } else {
        None
    }
}

fn literal(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::TimestampSecond(value, _), _) => value.map(|s| s.saturating_mul(1_000_000)),
        Expr::Literal(ScalarValue::TimestampMillisecond(value, _), _) => value.map(|ms| ms.saturating_mul(1_000)),
        Expr::Literal(ScalarValue::TimestampMicrosecond(value, _), _) => *value,
        Expr::Literal(ScalarValue::TimestampNanosecond(value, _), _) => value.map(|ns| ns.div_euclid(1_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    fn at(us: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
    }

    #[test]
    fn conjunctions_narrow_and_everything_else_does_not() {
        let both = col("time").gt_eq(at(10)).and(at(20).gt(col("time")));
        assert_eq!(TimeRange::of(&[both]), TimeRange { from_us: 10, to_us: 21 });
        let between = col("time").between(at(5), at(6));
        assert_eq!(TimeRange::of(&[between]), TimeRange { from_us: 5, to_us: 7 });
        let either = col("time").gt(at(10)).or(col("pid").eq(lit(1_i64)));
        assert_eq!(TimeRange::of(&[either]), TimeRange::ALL);
        assert_eq!(TimeRange::of(&[col("start_time").gt(at(10))]), TimeRange::ALL);
    }

    #[test]
    fn a_range_is_decided_where_no_row_is_at_its_ends() {
        let from = col("time").gt_eq(at(10));
        assert!(TimeRange::decides(&from, 11, 20) && TimeRange::decides(&from, 1, 9));
        assert!(!TimeRange::decides(&from, 10, 20) && !TimeRange::decides(&from, 9, 20));
        let until = at(20).gt(col("time"));
        assert!(TimeRange::decides(&until, 1, 18) && TimeRange::decides(&until, 22, 30));
        assert!(!TimeRange::decides(&until, 1, 20) && !TimeRange::decides(&until, 1, 21));
        let between = col("time").between(at(5), at(10));
        assert!(TimeRange::decides(&between, 6, 9) && TimeRange::decides(&between, 12, 13));
        assert!(!TimeRange::decides(&between, 4, 9) && !TimeRange::decides(&between, 6, 11));
        assert!(is_range(&from) && is_range(&until) && is_range(&between));
        let others = [
            col("time").eq(at(10)),
            col("time").gt(col("start_time")),
            col("start_time").gt(at(1)),
            from.or(col("pid").eq(lit(1_i64))),
            col("time").not_between(at(1), at(2)),
        ];
        assert!(!others.iter().any(is_range));
    }

    #[test]
    fn an_instant_asks_about_itself_and_reads_every_file_behind_it() {
        let lived = [col("start_time").lt_eq(at(50)), col("stop_time").gt(at(50)).or(col("stop_time").is_null())];
        let ranges = Ranges::of(HistoryTable::ProcessLifetimes, &lived);
        assert_eq!(ranges.told, TimeRange { from_us: 50, to_us: i64::MAX });
        assert_eq!(ranges.asked, TimeRange { from_us: 50, to_us: 51 });
        let started = [col("start_time").between(at(50), at(60))];
        let ranges = Ranges::of(HistoryTable::ProcessLifetimes, &started);
        assert_eq!(ranges.told, TimeRange::ALL, "what started then may have stopped at any time");
        assert_eq!(ranges.asked, TimeRange { from_us: 50, to_us: 61 });
        let other_column = [col("stop_time").gt(at(50)).or(col("pid").is_null())];
        assert_eq!(Ranges::of(HistoryTable::ProcessLifetimes, &other_column).told, TimeRange::ALL);
        assert_eq!(Ranges::of(HistoryTable::ProcessEvents, &lived).told, TimeRange::ALL);
    }
}
