//! The latest part of history, read straight from the files: what window rules had in hand when the last agent ended.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use datafusion::arrow::array::{AsArray as _, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::metadata::RowGroupMetaData;
use datafusion::parquet::file::statistics::Statistics;

use super::{Store, damage};

impl Store {
    /// Hands `take` the events from `from_us` (µs since the Unix epoch) on, file by file and then what is in memory only, with
    /// these columns at least. False when a file could not be read: its events are missing.
    pub fn past(&self, from_us: i64, columns: &[&str], mut take: impl FnMut(&RecordBatch)) -> bool {
        let snapshot = self.snapshot();
        let mut files: Vec<_> = snapshot.segments.iter().filter(|file| file.last_us >= from_us).collect();
        files.sort_by_key(|file| file.first_us);
        let mut whole = snapshot.damaged.is_empty();
        for file in files {
            let mut read = || -> Result<(), Box<dyn Error>> {
                for batch in events(&file.path, from_us, columns)? {
                    take(&since(&batch?, from_us)?);
                }
                Ok(())
            };
            // The decoder may panic on bytes that are not what was written.
            if let Err(error) = damage::guarded(&file.path, || Ok(read().map_err(|error| error.to_string())))
                .unwrap_or_else(|error| Err(error.to_string()))
            {
                tracing::warn!(path = %file.path.display(), %error, "a segment was not read for the window rules");
                whole = false;
            }
        }
        for batch in &snapshot.open {
            match since(batch, from_us) {
                Ok(batch) => take(&batch),
                Err(_) => whole = false,
            }
        }
        whole
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, datafusion::arrow::error::ArrowError>>>;

/// The groups of rows that reach into that time.
fn events(path: &Path, from_us: i64, columns: &[&str]) -> Result<Batches, Box<dyn Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
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

fn since(batch: &RecordBatch, from_us: i64) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let times = batch.column_by_name("time").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    let Some(times) = times else { return Ok(batch.slice(0, 0)) };
    let young: BooleanArray = times.iter().map(|time| Some(time.is_some_and(|time| time >= from_us))).collect();
    filter_record_batch(batch, &young)
}
