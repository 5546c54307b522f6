//! Rows in the order of their times, for rules that go by it: each waits until what may still come before it has come.
//!
//! A few rows whose time is far ahead of those around them (a clock that was wrong, the end of another log) wait until that time has
//! come, or all others have. Where many stand behind others, another time begins, of which rules are told.

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
const BEHIND_ROWS: u64 = 16;
/// The latest rows, of which none decides yet what leaves: those behind, and as many before them whose time may not have been true.
const LATEST_ROWS: usize = 32;
/// Rows that are far ahead and wait for their time, at most; each is a batch by itself, of some 10 KB.
const MOST_AHEAD: usize = 256;

/// What leaves.
#[derive(Debug)]
pub(super) enum Ordered {
    /// Rows in order, and behind those that left before.
    Rows(RecordBatch),
    /// What comes now is of this time or later, and others had come before.
    Back { to_us: i64 },
}

/// A row by when it was and how many came before it.
type Key = (i64, u64);

/// Rows under way.
#[derive(Debug)]
pub(super) struct Order {
    /// Each row: the batch that it is of, and its place there.
    waiting: BTreeMap<Key, (u64, usize)>,
    /// The batches in which some wait: how many, and how large it is.
    batches: VecDeque<Batch>,
    /// The number of the first of them.
    first: u64,
    came: u64,
    bytes: usize,
    reached_us: i64,
    /// What was reached before each of the latest rows.
    lately: VecDeque<i64>,
    /// How many of the latest rows came too late.
    behind: u64,
    /// Rows that are far ahead, each by itself, so that none holds a batch.
    ahead: BTreeMap<Key, RecordBatch>,
    went_back: u64,
}

#[derive(Debug)]
struct Batch {
    rows: RecordBatch,
    waiting: usize,
    bytes: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            batches: VecDeque::new(),
            first: 0,
            came: 0,
            bytes: 0,
            reached_us: i64::MIN,
            lately: VecDeque::from([i64::MIN; LATEST_ROWS]),
            behind: 0,
            ahead: BTreeMap::new(),
            went_back: 0,
        }
    }
}

impl Order {
    /// Takes a batch, and hands on what nothing that is in time can come before, in order.
    ///
    /// # Errors
    /// Arrow would not put the rows together; a defect of this program.
    pub(super) fn add(&mut self, rows: RecordBatch) -> Result<Vec<Ordered>, ArrowError> {
        let number = self.batch(rows.clone());
        let times = rows.column_by_name("time").and_then(|time| time.as_primitive_opt::<TimestampMicrosecondType>());
        let mut found = Vec::new();
        for row in 0..rows.num_rows() {
            let time = times.filter(|times| times.is_valid(row)).and_then(|times| times.values().get(row).copied());
            // Without a time it counts as of when it came.
            let time = time.unwrap_or(self.reached_us);
            self.lately.pop_front();
            self.lately.push_back(self.reached_us);
            let is_behind = time < self.reached_us.saturating_sub(GRACE_US);
            self.behind = if is_behind { self.behind.saturating_add(1) } else { 0 };
            self.waiting.insert((time, self.came), (number, row));
            self.came = self.came.saturating_add(1);
            self.reached_us = self.reached_us.max(time);
            if self.behind == BEHIND_ROWS {
                self.turn_back(&mut found)?;
            }
        }
        let sure = self.lately.front().copied().unwrap_or(i64::MIN);
        self.rejoin(sure);
        let bound = sure.saturating_sub(GRACE_US);
        let later = self.waiting.split_off(&(bound, 0));
        let mut ready = std::mem::replace(&mut self.waiting, later);
        // Of those behind it is not known yet whether they are late or of another time.
        let since = self.came.saturating_sub(self.behind);
        self.waiting.extend(ready.extract_if(.., |(_, came), _| *came >= since));
        if self.waiting.len() > MOST_ROWS || self.bytes > MOST_BYTES {
            ready.append(&mut self.waiting);
        }
        found.extend(self.put_together(&ready)?.map(Ordered::Rows));
        Ok(found)
    }

    /// What still waits.
    ///
    /// # Errors
    /// As [`Order::add`].
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.rejoin(i64::MAX);
        let ready = std::mem::take(&mut self.waiting);
        self.put_together(&ready)
    }

    /// How often time went back.
    pub(super) const fn went_back(&self) -> u64 {
        self.went_back
    }

    /// The latest rows all came too late. If they go on where rows were shortly before, what came between is ahead; otherwise all that
    /// came before them leaves.
    fn turn_back(&mut self, found: &mut Vec<Ordered>) -> Result<(), ArrowError> {
        self.behind = 0;
        let since = self.came.saturating_sub(BEHIND_ROWS);
        let mut latest: Vec<Key> = self.waiting.keys().filter(|(_, came)| *came >= since).copied().collect();
        let least = latest.first().map_or(i64::MIN, |(time, _)| *time);
        let before = self.lately.iter().rev().find(|reached| least >= reached.saturating_sub(GRACE_US)).copied();
        let is_ahead = |(time, came): &Key| *came < since && before.is_some_and(|before| *time > before);
        let ahead: Vec<Key> = self.waiting.keys().filter(|key| is_ahead(key)).copied().collect();
        match before {
            Some(before) if self.ahead.len().saturating_add(ahead.len()) <= MOST_AHEAD => {
                for key in ahead {
                    let row = self.waiting.remove(&key).map(|place| BTreeMap::from([(key, place)]));
                    let row = self.put_together(&row.unwrap_or_default())?;
                    self.ahead.extend(row.map(|row| (key, row)));
                }
                self.reached_us = before;
            }
            _ => {
                self.rejoin(i64::MAX);
                let of_before: BTreeMap<_, _> = self.waiting.extract_if(.., |(_, came), _| *came < since).collect();
                found.extend(self.put_together(&of_before)?.map(Ordered::Rows));
                found.push(Ordered::Back { to_us: least });
                self.went_back = self.went_back.saturating_add(1);
                self.reached_us = i64::MIN;
            }
        }
        latest.sort_unstable_by_key(|(_, came)| *came);
        self.lately.iter_mut().for_each(|reached| *reached = self.reached_us.min(*reached));
        self.lately.truncate(LATEST_ROWS.saturating_sub(latest.len()));
        for (time, _) in latest {
            self.lately.push_back(self.reached_us);
            self.reached_us = self.reached_us.max(time);
        }
        Ok(())
    }

    /// Of the rows that are ahead those whose time has come wait like others.
    fn rejoin(&mut self, to_us: i64) {
        while let Some(first) = self.ahead.first_entry().filter(|first| first.key().0 <= to_us) {
            let (key, row) = first.remove_entry();
            let number = self.batch(row);
            self.waiting.insert(key, (number, 0));
        }
    }

    /// Takes a batch of which all rows will wait; its number.
    fn batch(&mut self, rows: RecordBatch) -> u64 {
        let (number, bytes) = (self.first.saturating_add(self.batches.len() as u64), rows.get_array_memory_size());
        self.bytes = self.bytes.saturating_add(bytes);
        self.batches.push_back(Batch { waiting: rows.num_rows(), rows, bytes });
        number
    }

    fn put_together(&mut self, ready: &BTreeMap<Key, (u64, usize)>) -> Result<Option<RecordBatch>, ArrowError> {
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

    fn rows(found: Vec<Ordered>) -> Vec<Option<i64>> {
        times(found.into_iter().map(|one| match one {
            Ordered::Rows(rows) => rows,
            Ordered::Back { .. } => panic!("time went back"),
        }))
    }

    /// The seconds of what leaves, in batches of so many rows, for each of the times that began.
    fn left(seconds: &[i64], rows: usize) -> Vec<Vec<i64>> {
        let (mut order, mut left) = (Order::default(), vec![Vec::new()]);
        let mut take = |one: Ordered| match one {
            Ordered::Rows(rows) => {
                left.last_mut().unwrap().extend(times([rows]).into_iter().flatten().map(|time| time / S));
            }
            Ordered::Back { .. } => left.push(Vec::new()),
        };
        for some in seconds.chunks(rows) {
            let some: Vec<_> = some.iter().map(|second| Some(second * S)).collect();
            order.add(batch(&some)).unwrap().into_iter().for_each(&mut take);
        }
        order.finish().unwrap().map(Ordered::Rows).into_iter().for_each(&mut take);
        assert_eq!((order.batches.len(), order.bytes, order.ahead.len()), (0, 0, 0));
        assert_eq!(left.len() as u64, order.went_back() + 1);
        left
    }

    #[test]
    fn rows_leave_in_order_once_nothing_in_time_can_come_before_them() {
        let mut order = Order::default();
        assert!(order.add(batch(&[Some(2 * S), Some(S), None])).unwrap().is_empty());
        assert!(order.add(batch(&[Some(7 * S), Some(3 * S)])).unwrap().is_empty());
        // What is 5 s behind may have others before it.
        assert_eq!(rows(order.add(batch(&[Some(8 * S); LATEST_ROWS])).unwrap()), [Some(S)]);
        let left = times(order.finish().unwrap());
        assert_eq!(left[..4], [Some(2 * S), None, Some(3 * S), Some(7 * S)], "without a time as of when it came");
        assert_eq!((left.len(), order.finish().unwrap().is_none()), (4 + LATEST_ROWS, true));
    }

    #[test]
    fn of_too_many_all_leave_and_none_is_lost() {
        let (mut order, mut left) = (Order::default(), Vec::new());
        for part in 0..40_i64 {
            let some: Vec<_> = (0..4_096).map(|row| Some(part * 10 + (row * 7) % 10)).collect();
            left.extend(rows(order.add(batch(&some)).unwrap()));
            assert!(order.waiting.len() <= MOST_ROWS && order.batches.len() <= 18, "{} wait", order.batches.len());
        }
        assert!(!left.is_empty());
        left.extend(times(order.finish().unwrap()));
        assert_eq!((left.len(), left.is_sorted(), order.bytes, order.batches.len()), (40 * 4_096, true, 0, 0));
    }

    #[test]
    fn what_is_far_ahead_waits_for_its_time_and_holds_nothing_back() {
        for pieces in [1, 7, 30, 1_000] {
            for ahead in [0, 1, 40, 99] {
                for (times, count) in [(90_000, 1), (90_000, 16), (110, 3)] {
                    let mut seconds: Vec<i64> = (0..150).map(|at| at ^ 1).collect();
                    seconds.splice(ahead..ahead, std::iter::repeat_n(times, count));
                    let found = left(&seconds, pieces);
                    seconds.sort_unstable();
                    assert_eq!(found, [seconds], "{count} at {ahead} with {times}, in pieces of {pieces}");
                }
            }
        }
    }

    #[test]
    fn another_time_begins_behind_all_of_the_one_before() {
        let (newer, older): (Vec<i64>, Vec<i64>) = ((5_000..5_030).collect(), (0..100).collect());
        for pieces in [1, 7, 30, 1_000] {
            let found = left(&[newer.as_slice(), &older].concat(), pieces);
            assert_eq!(found, [newer.clone(), older.clone()], "in pieces of {pieces}");
            // A row that is ahead belongs to the time that it stood in.
            let found = left(&[[90_000].as_slice(), &newer, &older].concat(), pieces);
            assert_eq!(found, [[newer.as_slice(), &[90_000]].concat(), older.clone()], "in pieces of {pieces}");
        }
    }

    #[test]
    fn of_too_many_that_are_ahead_all_leave() {
        let (mut order, mut most) = (Order::default(), 0);
        let mut seconds = 0..;
        for _ in 0..2_000 {
            let next: Vec<_> = [900_000].into_iter().chain(seconds.by_ref().take(20)).map(|at| Some(at * S)).collect();
            order.add(batch(&next)).unwrap();
            most = most.max(order.ahead.len());
            assert!(order.batches.len() < MOST_AHEAD + 8, "{} batches are held", order.batches.len());
        }
        assert_eq!((most, order.went_back() > 0, order.batches.len() < 8), (MOST_AHEAD, true, true));
    }
}
