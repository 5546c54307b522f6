//! A batch as all window rules see it: its columns, and for each row the time that events have reached with it.

use daemoneye_lib::model::Completeness;
use datafusion::arrow::array::RecordBatch;

use super::super::clock::Clock;
use super::super::row::Columns;

/// A batch as all rules see it.
pub(super) struct Sight<'a> {
    pub(super) batch: &'a RecordBatch,
    pub(super) columns: &'a Columns<'a>,
    pub(super) completeness: &'a Completeness,
    pub(super) clock: &'a Clock,
    /// For each row the latest time up to it.
    reached: Vec<i64>,
}

impl<'a> Sight<'a> {
    pub(super) fn of(
        batch: &'a RecordBatch,
        columns: &'a Columns<'a>,
        completeness: &'a Completeness,
        clock: &'a Clock,
    ) -> Self {
        let mut latest = i64::MIN;
        let reached = (0..columns.rows()).map(|row| {
            latest = latest.max(columns.time(row).map_or(i64::MIN, |time| clock.believed(time)));
            latest
        });
        Self { reached: reached.collect(), batch, columns, completeness, clock }
    }

    pub(super) const fn rows(&self) -> usize {
        self.reached.len()
    }

    /// The time at which a row counts.
    pub(super) fn time(&self, row: usize) -> Option<i64> {
        self.columns.time(row).map(|time| self.clock.believed(time))
    }

    /// Whether a row counts at its own time.
    pub(super) fn is_believed(&self, row: usize) -> bool {
        self.columns.time(row).is_some_and(|time| self.clock.believed(time) == time)
    }

    /// Whether a row's own time is ahead of the clock.
    pub(super) fn is_ahead(&self, row: usize) -> bool {
        self.columns.time(row).is_some_and(|time| self.clock.is_ahead(time))
    }

    /// The latest time from one row to another.
    pub(super) fn reached(&self, since: usize, row: usize) -> i64 {
        match since {
            0 => self.reached.get(row).copied().unwrap_or(i64::MIN),
            since => (since..=row).filter_map(|row| self.time(row)).max().unwrap_or(i64::MIN),
        }
    }

    /// The latest time in a batch.
    pub(super) fn latest(columns: &Columns<'_>) -> Option<i64> {
        (0..columns.rows()).filter_map(|row| columns.time(row)).max()
    }
}
