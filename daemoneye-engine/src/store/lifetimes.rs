//! Processes that have ended since the last seal: rows of `process_lifetimes` that no file holds yet.
//!
//! They leave the table of live processes and enter here under one lock, and a seal writes both in the transaction that moves
//! the watermark. So an entity is open, ended here or in a file, never two of them, and a replay after a crash ends it again
//! in the same way.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{ProcessRecord, Sequence};
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::errors::ParquetError;
use foldhash::fast::RandomState;

use super::history::HistoryTable;
use super::live::ENDS;
use super::segment::{SegmentFile, SequenceRange};
use super::{StoreError, damage, file};
use crate::ingest::{End, LifetimeRow, lifetimes_batch};

/// Rows that are kept as messages, some 1 MB; as columns they take a third of that.
const UNBATCHED_ROWS: usize = 1_024;

/// A usual record as a message with its text, in bytes.
const ROW_BYTES: usize = 1_536;

/// What is known of a process beyond its latest record. Stored behind that record as further fields of the same message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Seen {
    #[prost(double, optional, tag = "1000")]
    pub(super) max_cpu_usage: Option<f64>,
    #[prost(uint64, optional, tag = "1001")]
    pub(super) max_memory_usage: Option<u64>,
    /// When it was first told of, µs since the Unix epoch.
    #[prost(int64, optional, tag = "1002")]
    pub(super) first_us: Option<i64>,
}

impl Seen {
    /// Takes in what `record` says, told at `time_us`.
    pub(super) fn and(mut self, record: &ProcessRecord, time_us: i64) -> Self {
        let higher = |known: f64, more: f64| if more > known { more } else { known };
        let cpu = record.cpu_usage.filter(|usage| usage.is_finite());
        self.max_cpu_usage = match (self.max_cpu_usage, cpu) {
            (Some(known), Some(more)) => Some(higher(known, more)),
            (known, more) => known.or(more),
        };
        self.max_memory_usage = self.max_memory_usage.max(record.memory_usage);
        self.first_us = self.first_us.or(Some(time_us));
        self
    }
}

/// A process that has ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) collector: Arc<str>,
    pub(super) at: Sequence,
    pub(super) time_us: i64,
    pub(super) end: End,
    /// Shared with whoever reads at the moment.
    pub(super) process: Arc<ProcessRecord>,
    pub(super) seen: Seen,
}

/// Those of one open segment.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    pub(super) rows: Vec<Ended>,
    /// Where in `rows` an entity stands.
    places: HashMap<EntityId, usize, RandomState>,
    batches: Vec<RecordBatch>,
    /// Bytes of `batches`.
    batch_bytes: usize,
    ranges: BTreeMap<String, SequenceRange>,
}

impl Lifetimes {
    pub(super) fn push(&mut self, entity: EntityId, ended: Ended) {
        let at = ended.at.key();
        let range = SequenceRange { collector: ended.collector.to_string(), first: at, last: at, rows: 1 };
        extend(&mut self.ranges, range);
        self.places.insert(entity, self.rows.len());
        self.rows.push(ended);
    }

    /// An end that nobody watched is told once more by somebody who knows better.
    pub(super) fn correct(&mut self, entity: EntityId, end: End, time_us: i64) {
        let row = self.places.get(&entity).and_then(|place| self.rows.get_mut(*place));
        if let Some(row) = row.filter(|row| row.end.observed != Some(true)) {
            (row.end, row.time_us) = (end, time_us);
        }
    }

    /// Adds what is told of a process after its end; false when it is not here.
    pub(super) fn amend(&mut self, entity: EntityId, later: &ProcessRecord) -> bool {
        let row = self.places.get(&entity).and_then(|place| self.rows.get_mut(*place));
        row.map(|row| row.process = Arc::new(ProcessRecord::clone(&row.process).followed_by(later.clone()))).is_some()
    }

    /// Turns rows into columns once they are many.
    pub(super) fn compact(&mut self) -> Result<(), ArrowError> {
        if self.rows.len() >= UNBATCHED_ROWS {
            let batch = batch(&self.rows)?;
            self.batch_bytes = self.batch_bytes.saturating_add(batch.get_array_memory_size());
            self.batches.push(batch);
            self.rows.clear();
            self.places.clear();
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn to_batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let last = if self.rows.is_empty() { None } else { Some(batch(&self.rows)?) };
        Ok(self.batches.iter().cloned().chain(last).collect())
    }

    /// The batches that are made, and the rows of the next one.
    pub(super) fn parts(&self) -> (&[RecordBatch], &[Ended]) {
        (&self.batches, &self.rows)
    }

    pub(super) fn ranges(&self) -> Vec<SequenceRange> {
        self.ranges.values().cloned().collect()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.batch_bytes.saturating_add(self.rows.len().saturating_mul(ROW_BYTES))
    }

    /// Puts back what could not be sealed, before what came since.
    pub(super) fn prepend(&mut self, earlier: &Self) {
        self.batches.splice(0..0, earlier.batches.iter().cloned());
        self.batch_bytes = self.batch_bytes.saturating_add(earlier.batch_bytes);
        self.rows.splice(0..0, earlier.rows.iter().cloned());
        self.places.values_mut().for_each(|place| *place = place.saturating_add(earlier.rows.len()));
        self.places.extend(&earlier.places);
        for range in earlier.ranges.values() {
            extend(&mut self.ranges, range.clone());
        }
    }
}

pub(super) fn batch(rows: &[Ended]) -> Result<RecordBatch, ArrowError> {
    let rows = rows.iter().map(|ended| LifetimeRow {
        collector: &ended.collector,
        at: ended.at,
        time_us: ended.time_us,
        process: &ended.process,
        start_us: ended.process.start_time_us.or(ended.seen.first_us),
        end: Some(&ended.end),
        max_cpu_usage: ended.seen.max_cpu_usage,
        max_memory_usage: ended.seen.max_memory_usage,
    });
    lifetimes_batch(rows)
}

/// Files that are looked into for ends: a quarter of an hour of a quiet host as sealed, more than any collector can be behind
/// itself; merged ones reach back for days.
const RECENT_FILES: usize = 16;

/// An end that a file has: entity, collector and position.
pub(super) type PastEnd = (EntityId, Arc<str>, Sequence);

/// Who ended lately according to the newest files, merged or not, oldest first; as many as are remembered. A file that cannot
/// be read tells nothing; queries find out what is wrong with it.
pub(super) fn recent(files: &[Arc<SegmentFile>]) -> Vec<PastEnd> {
    let mut files: Vec<&Arc<SegmentFile>> =
        files.iter().filter(|file| file.table == HistoryTable::ProcessLifetimes).collect();
    files.sort_by_key(|file| std::cmp::Reverse((file.dated.us(), file.id)));
    let (mut found, mut room) = (Vec::new(), ENDS);
    for file in files.into_iter().take(RECENT_FILES) {
        if room == 0 {
            break;
        }
        let unreadable = |error: Box<dyn Error>| {
            let source = ParquetError::General(error.to_string());
            StoreError::Segment { path: file.path.clone(), source }
        };
        // The decoder may panic on bytes that are not what was written; hashing all of a merged file would take long.
        let ends = damage::guarded(&file.path, || last_ends(&file.path, room).map_err(unreadable));
        let ends = ends.unwrap_or_default();
        room = room.saturating_sub(ends.len());
        found.push(ends);
    }
    found.into_iter().rev().flatten().collect()
}

/// The last `room` ends in a file, which is by time.
fn last_ends(path: &Path, room: usize) -> Result<Vec<PastEnd>, Box<dyn Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file::open(path)?)?;
    let (mut groups, mut rows) = (Vec::new(), 0_usize);
    for (number, group) in reader.metadata().row_groups().iter().enumerate().rev() {
        if rows >= room {
            break;
        }
        groups.insert(0, number);
        rows = rows.saturating_add(usize::try_from(group.num_rows())?);
    }
    let reader = reader.with_row_groups(groups).with_offset(rows.saturating_sub(room));
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["entity_id", "collector", "epoch", "seq"]);
    let mut ends = Vec::new();
    for batch in reader.with_projection(mask).build()? {
        let batch = batch?;
        let text = |name| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let number = |name| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(entities), Some(collectors)) = (text("entity_id"), text("collector")) else { continue };
        let (Some(epochs), Some(numbers)) = (number("epoch"), number("seq")) else { continue };
        for (((entity, collector), epoch), number) in entities.iter().zip(collectors).zip(epochs).zip(numbers) {
            let (Some(entity), Some(collector), Some(epoch), Some(number)) = (entity, collector, epoch, number) else {
                continue;
            };
            let at = Sequence::new(epoch.try_into()?, number.try_into()?);
            let entity = hex::decode(entity).ok().and_then(|bytes| EntityId::from_bytes(&bytes));
            ends.extend(entity.map(|entity| (entity, Arc::from(collector), at)));
        }
    }
    Ok(ends)
}

/// Makes the range of a collector reach over `more`.
pub(super) fn extend(ranges: &mut BTreeMap<String, SequenceRange>, more: SequenceRange) {
    if let Some(range) = ranges.get_mut(&more.collector) {
        range.first = range.first.min(more.first);
        range.last = range.last.max(more.last);
        range.rows = range.rows.saturating_add(more.rows);
    } else {
        ranges.insert(more.collector.clone(), more);
    }
}
