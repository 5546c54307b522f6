//! The rows kept for one rule, oldest first, each with a number that grows as they arrive.
//!
//! They lie in few batches of growing size: a batch of one row for each event would cost more than the rows. What a row counts
//! for does not depend on how they lie, so the bound sheds the same rows however they came.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;

use super::super::row::{Cell, Columns};
use super::gate::{Gate, Group, Look, MARK_BYTES, Mark};
use super::plan::{Planned, Scans};
use super::provenance::PREFIX;
use crate::schema::arrow_type;

/// What a column of a row counts for beside its text, in bytes: its place in an array and its share of the batch.
const CELL_BYTES: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Row {
    time_us: i64,
    bytes: usize,
    scans: Scans,
    /// Of a rule that counts.
    mark: Option<Mark>,
}

#[derive(Debug)]
struct Chunk {
    batch: RecordBatch,
    /// Rows that its buffers hold, of which some may have been cut off.
    held: usize,
}

/// The rows of one rule.
#[derive(Debug)]
pub(super) struct Kept {
    columns: Vec<usize>,
    schema: SchemaRef,
    chunks: VecDeque<Chunk>,
    rows: VecDeque<Row>,
    /// The number of the oldest row.
    first: i64,
    bytes: usize,
    gate: Option<Gate>,
}

/// A row that is to be kept, as it counts.
pub(super) struct Fresh {
    pub(super) time_us: i64,
    pub(super) mark: Option<Mark>,
}

impl Kept {
    /// `columns`: those of a row; `plan`: whose rows they are.
    pub(super) fn of(columns: &BTreeSet<usize>, plan: &Planned) -> Self {
        let field = |at: &usize| {
            let column = PROCESS_EVENTS.get(*at);
            column.map(|column| Field::new(column.name, arrow_type(column.kind), true))
        };
        let fields = columns.iter().filter_map(field).chain([Field::new(PREFIX, DataType::Int64, false)]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = columns.iter().copied().collect();
        let gate = plan.threshold.as_ref().map(Gate::of);
        Self { columns, schema, chunks: VecDeque::new(), rows: VecDeque::new(), first: 0, bytes: 0, gate }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the oldest row.
    pub(super) const fn first(&self) -> i64 {
        self.first
    }

    /// The number that the next row gets.
    pub(super) fn next(&self) -> i64 {
        self.first.saturating_add(count(self.rows.len()))
    }

    /// Adds rows of a batch, in order, each as it counts.
    pub(super) fn push(
        &mut self,
        batch: &RecordBatch,
        columns: &Columns<'_>,
        rows: &[(u32, Scans)],
        counts: impl Fn(usize) -> Fresh,
    ) -> Result<(), ArrowError> {
        if rows.is_empty() {
            return Ok(());
        }
        let numbers = numbers(self.next(), rows.len());
        let taken =
            take_record_batch(&self.narrow(batch)?, &UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row)))?;
        let mut arrays = taken.columns().to_vec();
        arrays.push(numbers);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        for (row, scans) in rows {
            let row = usize::try_from(*row).unwrap_or(usize::MAX);
            let Fresh { time_us, mark } = counts(row);
            let cells: usize = self.columns.iter().map(|column| cell_bytes(columns, *column, row)).sum();
            let bytes = mark.map_or(0, |_| MARK_BYTES).saturating_add(cells);
            self.bytes = self.bytes.saturating_add(bytes);
            self.gate.iter_mut().zip(&mark).for_each(|(gate, mark)| gate.add(mark));
            self.rows.push_back(Row { time_us, bytes, scans: *scans, mark });
        }
        self.chunks.push_back(Chunk { held: batch.num_rows(), batch });
        self.merge()
    }

    fn narrow(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let fields = self.schema.fields().iter().take(self.columns.len());
        let columns = fields.clone().map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            _ => new_null_array(field.data_type(), batch.num_rows()),
        });
        RecordBatch::try_new(Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())), columns.collect())
    }

    /// Each batch stays more than twice as large as the next, so a row is copied a few times in all.
    fn merge(&mut self) -> Result<(), ArrowError> {
        while let [.., before, last] = self.chunks.make_contiguous() {
            if before.batch.num_rows() > last.batch.num_rows().saturating_mul(2) {
                break;
            }
            let merged = concat_batches(&self.schema, [&before.batch, &last.batch])?;
            self.chunks.truncate(self.chunks.len().saturating_sub(2));
            self.chunks.push_back(Chunk { held: merged.num_rows(), batch: merged });
        }
        Ok(())
    }

    /// Puts the rows in the order of time, with numbers of their own: for what was read from files that overlap.
    pub(super) fn sort(&mut self) -> Result<(), ArrowError> {
        if self.rows.iter().is_sorted_by_key(|row| row.time_us) {
            return Ok(());
        }
        let mut order: Vec<(u32, Row)> = (0..).zip(self.rows.iter().copied()).collect();
        order.sort_by_key(|(_, row)| row.time_us);
        let all = concat_batches(&self.schema, self.chunks.iter().map(|chunk| &chunk.batch))?;
        let sorted = take_record_batch(&all, &UInt32Array::from_iter_values(order.iter().map(|(at, _)| *at)))?;
        let mut arrays = sorted.columns().to_vec();
        arrays.truncate(self.columns.len());
        arrays.push(numbers(self.first, order.len()));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        self.rows = order.into_iter().map(|(_, row)| row).collect();
        self.chunks = VecDeque::from([Chunk { held: batch.num_rows(), batch }]);
        Ok(())
    }

    /// For the rows from a number on that `counts`, the time that events had reached with each.
    pub(super) fn reached(
        &self,
        number: i64,
        mut reached_us: i64,
        counts: impl Fn(Scans) -> bool,
    ) -> impl Iterator<Item = i64> {
        let before = usize::try_from(number.saturating_sub(self.first)).unwrap_or(0);
        self.rows.iter().skip(before).filter(move |row| counts(row.scans)).map(move |row| {
            reached_us = reached_us.max(row.time_us);
            reached_us
        })
    }

    /// The times, but the last, at which to look so that all of them together see what each would have seen: the last one before a row
    /// goes out of sight, or every one where a further row may end what was true. Where a scan that is needed has nothing, nothing is found.
    pub(super) fn edges(&self, times: &BTreeSet<i64>, plan: &Planned) -> Vec<i64> {
        let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else { return Vec::new() };
        if first == last {
            return Vec::new();
        }
        let of = |at: usize| self.rows.iter().filter(move |row| row.scans.has(at)).map(|row| row.time_us);
        let scans = || plan.scans.iter().enumerate();
        let leaves = scans().filter(|(_, scan)| scan.reach.sharp);
        let leaves = leaves.flat_map(|(at, scan)| of(at).map(move |time| time.saturating_add(scan.reach.back_us)));
        let leaves: BTreeSet<i64> = leaves.filter(|leaves| (first..=last).contains(leaves)).collect();
        if plan.grows && leaves.is_empty() {
            return Vec::new();
        }
        let needed = scans().filter(|(_, scan)| scan.needed).map(|(at, scan)| {
            let mut there: Vec<i64> = of(at).collect();
            there.sort_unstable();
            (scan.reach.back_us, there)
        });
        let needed: Vec<(i64, Vec<i64>)> = needed.collect();
        let may_match = |now: i64| {
            needed.iter().all(|(back_us, there)| {
                let latest = there.partition_point(|time| *time <= now).checked_sub(1).and_then(|at| there.get(at));
                latest.is_some_and(|latest| *latest >= now.saturating_sub(*back_us))
            })
        };
        let (mut edges, mut since) = (Vec::new(), first);
        for (time, next) in times.iter().zip(times.iter().skip(1)) {
            if !plan.grows || leaves.range(since..=*next).next().is_some() {
                edges.extend(may_match(*time).then_some(*time));
                since = *next;
            }
        }
        edges
    }

    /// The groups that may be true at a time; `None`: that is not known.
    pub(super) fn open(&self, plan: &Planned, now: i64) -> Option<HashSet<Group>> {
        Some(self.gate.as_ref()?.open(plan.threshold.as_ref()?, self.marked(), now))
    }

    /// As [`Kept::edges`], for the groups that are not seen by the next one; `None`: they are not known.
    pub(super) fn edges_of_groups(&self, times: &BTreeSet<i64>, plan: &Planned) -> Option<Vec<Look>> {
        Some(self.gate.as_ref()?.edges(plan.threshold.as_ref()?, self.marked(), times))
    }

    fn marked(&self) -> impl Iterator<Item = (i64, Mark)> {
        self.rows.iter().filter_map(|row| Some((row.time_us, row.mark?)))
    }

    /// How many rows have a time from `from_us` on and up to `to_us`.
    pub(super) fn count(&self, from_us: i64, to_us: i64) -> usize {
        self.rows.iter().filter(|row| row.time_us >= from_us && row.time_us <= to_us).count()
    }

    /// No row counts as younger than `to_us`.
    pub(super) fn clamp(&mut self, to_us: i64) {
        for row in self.rows.iter_mut().filter(|row| row.time_us > to_us) {
            row.time_us = to_us;
            // The plan goes by the time that it says itself.
            row.mark.iter_mut().for_each(|mark| mark.is_sure = false);
        }
    }

    /// Lets go of what is older than `from_us`.
    pub(super) fn expire(&mut self, from_us: i64) {
        let old = self.rows.iter().take_while(|row| row.time_us < from_us).count();
        self.drop_oldest(old);
    }

    /// Whether there is more than may be kept.
    pub(super) fn exceeds(&self, most_rows: usize, most_bytes: usize) -> bool {
        self.rows.len() > most_rows || self.bytes > most_bytes
    }

    /// Lets go of the oldest rows until the bounds hold; how many, and the time of the last of them.
    pub(super) fn shed(&mut self, most_rows: usize, most_bytes: usize) -> Option<(usize, i64)> {
        let (mut rows, mut bytes, mut last) = (self.rows.len(), self.bytes, None);
        for row in &self.rows {
            if rows <= most_rows && bytes <= most_bytes {
                break;
            }
            (rows, bytes) = (rows.saturating_sub(1), bytes.saturating_sub(row.bytes));
            last = Some(row.time_us);
        }
        let shed = self.rows.len().saturating_sub(rows);
        self.drop_oldest(shed);
        last.map(|last| (shed, last))
    }

    fn drop_oldest(&mut self, rows: usize) {
        self.first = self.first.saturating_add(count(rows));
        for row in self.rows.drain(..rows.min(self.rows.len())) {
            self.bytes = self.bytes.saturating_sub(row.bytes);
            self.gate.iter_mut().zip(&row.mark).for_each(|(gate, mark)| gate.remove(mark));
        }
        let mut left = rows;
        while left > 0 {
            let Some(front) = self.chunks.front_mut() else { return };
            let there = front.batch.num_rows();
            if there <= left {
                left = left.saturating_sub(there);
                self.chunks.pop_front();
                continue;
            }
            front.batch = front.batch.slice(left, there.saturating_sub(left));
            left = 0;
            // A slice holds the buffers of the whole.
            let rows = front.batch.num_rows();
            let all = UInt32Array::from_iter_values(0..u32::try_from(rows).unwrap_or(u32::MAX));
            if rows < front.held / 2
                && let Ok(batch) = take_record_batch(&front.batch, &all)
            {
                *front = Chunk { held: rows, batch };
            }
        }
    }

    /// Whether a scan takes a row with a time from `from_us` on and up to `to_us`.
    pub(super) fn has(&self, scan: usize, from_us: i64, to_us: i64) -> bool {
        self.rows.iter().any(|row| row.scans.has(scan) && row.time_us >= from_us && row.time_us <= to_us)
    }

    /// The rows with a time from `from_us` on and up to `to_us`, of these groups if they are named.
    pub(super) fn between(
        &self,
        from_us: i64,
        to_us: i64,
        groups: Option<&HashSet<Group>>,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut rows = self.rows.iter();
        let mut seen = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let is_of = |row: &Row| groups.zip(row.mark).is_none_or(|(groups, mark)| groups.contains(&mark.group));
            let is_seen = |row: &Row| row.time_us >= from_us && row.time_us <= to_us && is_of(row);
            let mask: Vec<bool> = rows.by_ref().take(chunk.batch.num_rows()).map(is_seen).collect();
            if mask.iter().all(|seen| *seen) {
                seen.push(chunk.batch.clone());
            } else if mask.contains(&true) {
                seen.push(filter_record_batch(&chunk.batch, &BooleanArray::from(mask))?);
            }
        }
        Ok(seen)
    }

    /// The rows with these numbers, in that order, without their numbers; those that are gone are left out.
    pub(super) fn rows(&self, numbers: &[i64]) -> Result<RecordBatch, ArrowError> {
        let found: Vec<RecordBatch> = numbers.iter().filter_map(|number| self.row(*number)).collect();
        let all = concat_batches(&self.schema, &found)?;
        all.project(&(0..self.columns.len()).collect::<Vec<_>>())
    }

    fn row(&self, number: i64) -> Option<RecordBatch> {
        let mut at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        for chunk in &self.chunks {
            if at < chunk.batch.num_rows() {
                return Some(chunk.batch.slice(at, 1));
            }
            at = at.checked_sub(chunk.batch.num_rows())?;
        }
        None
    }
}

fn numbers(from: i64, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((0..count(rows)).map(|at| from.saturating_add(at))))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn cell_bytes(columns: &Columns<'_>, column: usize, row: usize) -> usize {
    let text = match columns.cell(column, row) {
        Some(Cell::Text(text)) => text.len(),
        Some(Cell::Blob(bytes)) => bytes.len(),
        _ => 0,
    };
    text.saturating_add(CELL_BYTES)
}
