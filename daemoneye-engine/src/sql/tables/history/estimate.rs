//! How many rows a scan will give, roughly: what a join needs to gather the smaller of its inputs.

use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// Of the rows, one in so many is taken to equal a given value.
const EQUAL: u64 = 8;
/// Of the rows, one in so many is taken to pass any other condition.
const OTHER: u64 = 2;

/// Of `rows`, those that pass all of `filters`. Only the order between two scans matters, not the number.
pub(super) fn passing(rows: u64, filters: &[Expr]) -> usize {
    let share = |term: &Expr| match term {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }) => EQUAL,
        _ => OTHER,
    };
    let shares = filters.iter().flat_map(split_conjunction).map(share);
    let left = shares.fold(rows, |rows, share| rows.checked_div(share).unwrap_or(rows));
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// Columns whose conditions leave runs of rows, or most rows: what they exclude is cheaper to drop than to step over.
pub(super) const WIDE: &[&str] = &["event_type", "start_kind", "time"];

/// Whether few rows pass `filters`, so that the other columns are worth decoding only for those.
pub(super) fn narrow(filters: &[Expr]) -> bool {
    let narrow = |term: &Expr| term.column_refs().iter().any(|column| !WIDE.contains(&column.name.as_str()));
    filters.iter().flat_map(split_conjunction).any(narrow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    #[test]
    fn a_scan_with_more_conditions_is_taken_to_give_fewer_rows() {
        let start = || col("event_type").eq(lit("start"));
        let all = passing(1_000_000, &[]);
        let starts = passing(1_000_000, &[start()]);
        let shells = passing(1_000_000, &[start().and(col("name").eq(lit("bash")))]);
        assert_eq!(all, 1_000_000);
        assert!(shells < starts && starts < all, "{shells} {starts} {all}");
        assert_eq!(passing(0, &[start()]), 0);
    }

    #[test]
    fn a_kind_of_event_and_a_time_are_not_worth_stepping_over_rows() {
        let start = || col("event_type").eq(lit("start"));
        assert!(!narrow(&[]) && !narrow(&[start(), col("time").gt(lit(1))]));
        assert!(narrow(&[start().and(col("name").eq(lit("bash")))]));
    }
}
