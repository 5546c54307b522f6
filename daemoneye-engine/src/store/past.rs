//! The latest part of history, read straight from the files: what window rules had in hand when the last agent ended.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{AsArray as _, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::metadata::RowGroupMetaData;
use datafusion::parquet::file::statistics::Statistics;

use super::segment::{SegmentFile, SequenceRange};
use super::{Store, damage, file};

/// What tells where an event stands.
const POSITION: [&str; 3] = ["collector", "epoch", "seq"];

/// Up to where each stream was read.
#[derive(Debug, Clone, Default)]
pub struct PastRead(HashMap<String, Sequence>);

impl PastRead {
    fn has(&self, range: &SequenceRange) -> bool {
        self.0.get(&range.collector).is_some_and(|seen| range.last <= (seen.epoch, seen.number))
    }

    /// The rows that were not read.
    fn rest(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let number = |name: &str| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let collectors = batch.column_by_name("collector").and_then(|column| column.as_string_opt::<i32>());
        let (Some(collectors), Some(epochs), Some(numbers)) = (collectors, number("epoch"), number("seq")) else {
            return Ok(batch);
        };
        if self.0.is_empty() {
            return Ok(batch);
        }
        let unread: BooleanArray = (0..batch.num_rows())
            .map(|row| {
                let at = |column: &Int64Array| u64::try_from(column.value(row)).unwrap_or(0);
                let seen = self.0.get(collectors.value(row));
                Some(seen.is_none_or(|seen| Sequence::new(at(epochs), at(numbers)) > *seen))
            })
            .collect();
        filter_record_batch(&batch, &unread)
    }
}

impl Store {
    /// Hands `take` the events from `from_us` (µs since the Unix epoch) on that were not `read`, file by file and then what is in
    /// memory only, with these columns at least, and those that tell an event's position. False when a file could not be read: its events are missing.
    pub fn past(
        &self,
        from_us: i64,
        columns: &[&str],
        read: &mut PastRead,
        mut take: impl FnMut(&RecordBatch),
    ) -> bool {
        let (snapshot, seen) = {
            // As for every snapshot: each event is there once, also after a panic elsewhere.
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            (held.snapshot(), held.seen.clone())
        };
        let is_unread =
            |file: &SegmentFile| file.ranges.is_empty() || file.ranges.iter().any(|range| !read.has(range));
        let is_wanted = |file: &&Arc<SegmentFile>| file.last_us >= from_us && is_unread(file);
        let columns: Vec<&str> = columns.iter().copied().chain(POSITION).collect();
        let mut files: Vec<_> = snapshot.segments.iter().filter(is_wanted).collect();
        files.sort_by_key(|file| file.first_us);
        let mut whole = snapshot.damaged.is_empty();
        for file in files {
            let mut hand = || -> Result<(), Box<dyn Error>> {
                for batch in events(&file.path, from_us, &columns)? {
                    take(&read.rest(since(&batch?, from_us)?)?);
                }
                Ok(())
            };
            if !file.is_verified()
                && let Some(Err(what)) = file.compare_while(&|| true)
            {
                tracing::warn!(path = %file.path.display(), %what, "a segment was not read for the window rules");
                whole = false;
                continue;
            }
            // The decoder may panic on bytes that are not what was written.
            if let Err(error) = damage::guarded(&file.path, || Ok(hand().map_err(|error| error.to_string())))
                .unwrap_or_else(|error| Err(error.to_string()))
            {
                tracing::warn!(path = %file.path.display(), %error, "a segment was not read for the window rules");
                whole = false;
            }
        }
        for batch in &snapshot.open {
            match since(batch, from_us).and_then(|batch| read.rest(batch)) {
                Ok(batch) => take(&batch),
                Err(_) => whole = false,
            }
        }
        read.0 = seen;
        whole
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// The groups of rows that reach into that time.
fn events(path: &Path, from_us: i64, columns: &[&str]) -> Result<Batches, Box<dyn Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file::open(path)?)?;
    let groups = reader.metadata().row_groups().iter().enumerate();
    let groups = groups.filter(|(_, group)| latest(group).is_none_or(|latest| latest >= from_us)).map(|(at, _)| at);
    let groups = groups.collect();
    let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
    Ok(Box::new(reader.with_row_groups(groups).with_projection(mask).build()?))
}

fn latest(group: &RowGroupMetaData) -> Option<i64> {
    let times = group.columns().iter().find(|column| column.column_path().string() == "time")?;
    match times.statistics()? {
        Statistics::Int64(times) => times.max_opt().copied(),
        _ => None,
    }
}

fn since(batch: &RecordBatch, from_us: i64) -> Result<RecordBatch, ArrowError> {
    let times = batch.column_by_name("time").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    let Some(times) = times else { return Ok(batch.slice(0, 0)) };
    let young: BooleanArray = times.iter().map(|time| Some(time.is_some_and(|time| time >= from_us))).collect();
    filter_record_batch(batch, &young)
}
