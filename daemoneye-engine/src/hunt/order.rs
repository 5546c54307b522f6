//! Rows in the order of their times, for rules that go by it: each waits until what may still come before it has come.

use std::collections::{BTreeMap, VecDeque};

use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use datafusion::arrow::error::ArrowError;

use crate::detect::GRACE_US;

/// Most rows that wait, and most bytes of their batches; then all of them go, and what comes behind them is late.
const MOST_ROWS: usize = 65_536;
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// So many rows that come one after the other too late: the time before them was not true, or is another file's.
const BEHIND_ROWS: u32 = 16;

/// Rows under way.
#[derive(Debug)]
pub(super) struct Order {
    /// Each row by when it was and how many came before it: the batch that it is of, and its place there.
    waiting: BTreeMap<(i64, u64), (u64, usize)>,
    /// The batches in which some wait: how many, and how large it is.
    batches: VecDeque<Batch>,
    /// The number of the first of them.
    first: u64,
    came: u64,
    bytes: usize,
    reached_us: i64,
    behind: u32,
}

#[derive(Debug)]
struct Batch {
    rows: RecordBatch,
    waiting: usize,
    bytes: usize,
}

impl Default for Order {
    fn default() -> Self {
        let (waiting, batches) = (BTreeMap::new(), VecDeque::new());
        Self { waiting, batches, first: 0, came: 0, bytes: 0, reached_us: i64::MIN, behind: 0 }
    }
}

impl Order {
    /// Takes a batch, and hands on what nothing that is in time can come before, in order.
    ///
    /// # Errors
    /// Arrow would not put the rows together; a defect of this program.
    pub(super) fn add(&mut self, rows: RecordBatch) -> Result<Vec<RecordBatch>, ArrowError> {
        let (number, bytes) = (self.first.saturating_add(self.batches.len() as u64), rows.get_array_memory_size());
        let times = rows.column_by_name("time").and_then(|time| time.as_primitive_opt::<TimestampMicrosecondType>());
        let mut found = Vec::new();
        self.bytes = self.bytes.saturating_add(bytes);
        self.batches.push_back(Batch { waiting: rows.num_rows(), rows: rows.clone(), bytes });
        for row in 0..rows.num_rows() {
            let time = times.filter(|times| times.is_valid(row)).and_then(|times| times.values().get(row).copied());
            // Without a time it counts as of when it came.
            let time = time.unwrap_or(self.reached_us);
            let bound = self.reached_us.saturating_sub(GRACE_US);
            self.behind = if time < bound { self.behind.saturating_add(1) } else { 0 };
            if self.behind == BEHIND_ROWS {
                // What waits of the time before comes first, as it stands in the file.
                let before = self.waiting.split_off(&(bound, 0));
                found.extend(self.put_together(&before)?);
                (self.reached_us, self.behind) = (time, 0);
            }
            self.reached_us = self.reached_us.max(time);
            self.waiting.insert((time, self.came), (number, row));
            self.came = self.came.saturating_add(1);
        }
        let later = self.waiting.split_off(&(self.reached_us.saturating_sub(GRACE_US), 0));
        let mut ready = std::mem::replace(&mut self.waiting, later);
        if self.waiting.len() > MOST_ROWS || self.bytes > MOST_BYTES {
            ready.append(&mut self.waiting);
        }
        found.extend(self.put_together(&ready)?);
        Ok(found)
    }

    /// What still waits.
    ///
    /// # Errors
    /// As [`Order::add`].
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let ready = std::mem::take(&mut self.waiting);
        self.put_together(&ready)
    }

    fn put_together(&mut self, ready: &BTreeMap<(i64, u64), (u64, usize)>) -> Result<Option<RecordBatch>, ArrowError> {
        if ready.is_empty() {
            return Ok(None);
        }
        let place = |number: u64| usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let places: Vec<(usize, usize)> = ready.values().map(|(number, row)| (place(*number), *row)).collect();
        let batches: Vec<&RecordBatch> = self.batches.iter().map(|batch| &batch.rows).collect();
        let found = interleave_record_batch(&batches, &places)?;
        for (at, _) in places {
            if let Some(batch) = self.batches.get_mut(at) {
                batch.waiting = batch.waiting.saturating_sub(1);
            }
        }
        while let Some(done) = self.batches.pop_front_if(|batch| batch.waiting == 0) {
            self.bytes = self.bytes.saturating_sub(done.bytes);
            self.first = self.first.saturating_add(1);
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, TimestampMicrosecondArray};

    use super::*;

    const S: i64 = 1_000_000;

    fn batch(times: &[Option<i64>]) -> RecordBatch {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("time", times, true)]).unwrap()
    }

    fn times(batches: impl IntoIterator<Item = RecordBatch>) -> Vec<Option<i64>> {
        let times = |batch: &RecordBatch| -> Vec<Option<i64>> {
            batch.column(0).as_primitive::<TimestampMicrosecondType>().iter().collect()
        };
        batches.into_iter().flat_map(|batch| times(&batch)).collect()
    }

    #[test]
    fn rows_leave_in_order_once_nothing_in_time_can_come_before_them() {
        let mut order = Order::default();
        assert!(order.add(batch(&[Some(2 * S), Some(S), None])).unwrap().is_empty());
        // What is 5 s behind may have others before it.
        assert_eq!(times(order.add(batch(&[Some(7 * S), Some(3 * S)])).unwrap()), [Some(S)]);
        let left = [Some(2 * S), None, Some(3 * S), Some(7 * S)];
        assert_eq!(times(order.finish().unwrap()), left, "without a time as of when it came");
        assert!(order.finish().unwrap().is_none());
    }

    #[test]
    fn of_too_many_all_leave_and_none_is_lost() {
        let (mut order, mut left) = (Order::default(), Vec::new());
        for part in 0..40_i64 {
            let some: Vec<_> = (0..4_096).map(|row| Some(part * 10 + (row * 7) % 10)).collect();
            left.extend(times(order.add(batch(&some)).unwrap()));
            assert!(order.waiting.len() <= MOST_ROWS && order.batches.len() <= 18, "{} wait", order.batches.len());
        }
        assert!(!left.is_empty());
        left.extend(times(order.finish().unwrap()));
        assert_eq!((left.len(), left.is_sorted(), order.bytes, order.batches.len()), (40 * 4_096, true, 0, 0));
    }

    #[test]
    fn a_clock_that_was_ahead_and_a_second_log_hold_nothing_back() {
        let mut order = Order::default();
        let ahead: Vec<_> = [90_000 * S].into_iter().chain((0..40).map(|at| at * S)).map(Some).collect();
        let found = times(order.add(batch(&ahead)).unwrap());
        assert_eq!(found.first(), Some(&Some(90_000 * S)), "before those behind which it stands");
        assert_eq!((found.len(), order.waiting.len()), (35, 6), "from 34 s on they may have others before them");
        assert_eq!(times(order.finish().unwrap()).len() + found.len(), ahead.len());
        assert_eq!((order.batches.len(), order.bytes), (0, 0));
    }
}
