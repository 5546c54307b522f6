//! Several segments as one stream of rows by time, with a bounded number of files open and of rows in memory.
//!
//! Files follow each other in time, so most of the time one or two are open: a file is opened when the stream has reached
//! its first row, after its bytes were compared with the registered hash, and closed behind its last.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray as _, RecordBatch, TimestampMicrosecondArray, new_null_array};
use datafusion::arrow::compute::{cast, interleave_record_batch};
use datafusion::arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::super::StoreError;
use super::super::file;
use super::super::hash::Hashing;
use super::super::seal::by_time;
use super::super::segment::{SegmentFile, is_damage};
use super::budget::{Budget, Stopped};

/// Rows decoded at once, of each open file and of the output: some 1 MiB, and 16 MiB where every row carries command lines
/// as long as they may be.
const BATCH_ROWS: usize = 1_024;
/// Bytes hashed between two looks at the budget.
const HASH_BYTES: u64 = 1024 * 1024;

/// Why a merge came to nothing. The files that it read are as they were.
#[derive(Debug)]
pub(super) enum Broken {
    /// A file is not what was registered.
    Damaged { id: u64, what: String },
    /// A file whose hash was right before it was read cannot be decoded.
    Undecodable { id: u64, what: String },
    /// Reading or writing failed.
    Failed(StoreError),
    /// It was told to end.
    Stopped,
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<Stopped> for Broken {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<ArrowError> for Broken {
    fn from(error: ArrowError) -> Self {
        Self::Failed(error.into())
    }
}

/// The rows of all inputs.
pub(super) struct Merge {
    waiting: VecDeque<Arc<SegmentFile>>,
    open: Vec<Input>,
}

struct Input {
    file: Arc<SegmentFile>,
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    batch: RecordBatch,
    times: TimestampMicrosecondArray,
    at: usize,
    /// Rows that were decoded.
    rows: u64,
}

impl Merge {
    /// Over `files`, which are in the order of their first rows.
    pub(super) fn new(files: &[Arc<SegmentFile>]) -> Self {
        Self { waiting: files.iter().cloned().collect(), open: Vec::new() }
    }

    /// The next rows; `None` after the last.
    pub(super) fn next(&mut self, budget: &mut Budget<'_>) -> Result<Option<RecordBatch>, Broken> {
        loop {
            let earliest = self.earliest();
            let reached = |file: &Arc<SegmentFile>| earliest.is_none_or(|(_, time)| file.first_us <= time);
            let Some(file) = self.waiting.pop_front_if(|file| reached(file)) else { break };
            self.open.extend(Input::open(file, budget)?);
        }
        if self.open.is_empty() {
            return Ok(None);
        }
        let rows = self.take_rows();
        let batch = self.gather(&rows)?;
        for input in &mut self.open {
            input.refill()?;
        }
        self.open.retain(|input| input.time().is_some());
        Ok(Some(batch))
    }

    /// The open file whose next row is first, and that row's time.
    fn earliest(&self) -> Option<(usize, i64)> {
        let next = self.open.iter().enumerate().filter_map(|(index, input)| Some((index, input.time()?)));
        next.min_by_key(|(_, time)| *time)
    }

    /// The next rows as (open file, row): until a batch is used up, the output is full, or another file is to be opened.
    fn take_rows(&mut self) -> Vec<(usize, usize)> {
        let until = self.waiting.front().map(|file| file.first_us);
        let mut rows = Vec::with_capacity(BATCH_ROWS);
        while rows.len() < BATCH_ROWS {
            let Some((index, time)) = self.earliest() else { break };
            if !rows.is_empty() && until.is_some_and(|until| until <= time) {
                break;
            }
            let Some(input) = self.open.get_mut(index) else { break };
            rows.push((index, input.at));
            input.at = input.at.saturating_add(1);
            if input.time().is_none() {
                break;
            }
        }
        rows
    }

    fn gather(&self, rows: &[(usize, usize)]) -> Result<RecordBatch, ArrowError> {
        if let (Some((index, start)), true) = (rows.first(), rows.iter().map(|(index, _)| index).is_sorted())
            && rows.last().is_some_and(|(last, _)| last == index)
            && let Some(input) = self.open.get(*index)
        {
            return Ok(input.batch.slice(*start, rows.len()));
        }
        let batches: Vec<&RecordBatch> = self.open.iter().map(|input| &input.batch).collect();
        interleave_record_batch(&batches, rows)
    }
}

impl Input {
    /// Checks and opens the file; `None` when it has no rows.
    fn open(file: Arc<SegmentFile>, budget: &mut Budget<'_>) -> Result<Option<Self>, Broken> {
        check(&file, budget)?;
        let schema = file.table.schema();
        let opened = file::open(&file.path).map_err(StoreError::io("open", &file.path))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(opened)
            .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
            .map_err(|error| undecodable(&file, &error))?;
        let batch = RecordBatch::new_empty(Arc::clone(&schema));
        let times = TimestampMicrosecondArray::from(Vec::<i64>::new());
        let mut input = Self { file, reader, schema, batch, times, at: 0, rows: 0 };
        input.refill()?;
        Ok(input.time().is_some().then_some(input))
    }

    /// Time of the next row; `None` when the batch is used up.
    fn time(&self) -> Option<i64> {
        self.times.values().get(self.at).copied()
    }

    /// Decodes more when the batch is used up.
    fn refill(&mut self) -> Result<(), Broken> {
        if self.time().is_some() {
            return Ok(());
        }
        let Some(batch) = self.reader.next() else { return self.ended() };
        let batch = batch.map_err(|error| undecodable(&self.file, &error))?;
        let batch = by_time(&as_today(&batch, &self.schema)?)?;
        let times =
            batch.column_by_name("time").and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
        let Some(times) = times else { return Err(undecodable(&self.file, &"it has no column `time`")) };
        self.rows = self.rows.saturating_add(batch.num_rows() as u64);
        (self.times, self.at) = (times.clone(), 0);
        self.batch = batch;
        Ok(())
    }

    /// A file that has other rows than were registered must not pass for a whole one.
    fn ended(&self) -> Result<(), Broken> {
        let (found, registered) = (self.rows, self.file.rows);
        if found == registered {
            return Ok(());
        }
        Err(Broken::Damaged { id: self.file.id, what: format!("it has {found} rows, {registered} were registered") })
    }
}

/// The columns of this build: what an older one did not write is NULL.
fn as_today(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<datafusion::arrow::datatypes::Field>| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Compares the file with its registered hash: a flipped bit must not be merged into a file with a hash of its own.
fn check(file: &SegmentFile, budget: &mut Budget<'_>) -> Result<(), Broken> {
    let damaged = |what: String| Broken::Damaged { id: file.id, what };
    let unread = |error: std::io::Error| match is_damage(&error) {
        true => damaged(error.to_string()),
        false => Broken::Failed(StoreError::io("read", &file.path)(error)),
    };
    let mut hashing = Hashing::open(&file.path).map_err(unread)?;
    loop {
        let step = hashing.step(HASH_BYTES).map_err(unread)?;
        budget.take(step.bytes)?;
        if let Some(hash) = step.hash {
            return file.judge(&hash, &hashing).map_err(damaged);
        }
    }
}

fn undecodable(file: &SegmentFile, what: &dyn std::fmt::Display) -> Broken {
    Broken::Undecodable { id: file.id, what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio_util::sync::CancellationToken;

    use super::super::super::dated::Dated;
    use super::super::super::file::Verified;
    use super::super::super::history::HistoryTable;
    use super::*;

    #[test]
    fn a_file_that_is_as_it_was_registered_and_no_segment_is_told_from_a_disk_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("process_events-0000000000000001-00000007.parquet");
        let bytes = b"PAR1 this is no footer PAR1";
        std::fs::write(&path, bytes).unwrap();
        let file = SegmentFile {
            table: HistoryTable::ProcessEvents,
            path: path.clone(),
            id: 7,
            level: 0,
            rows: 1,
            bytes: bytes.len() as u64,
            first_us: 1,
            last_us: 1,
            ranges: Vec::new(),
            hash: *blake3::hash(bytes).as_bytes(),
            schema_version: 1,
            dated: Dated::new(1, 1),
            verified: Verified::default(),
        };
        let (urgent, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let next = || {
            let mut budget = Budget::new(0, &urgent, &stop).unwrap();
            Merge::new(&[Arc::new(file.clone())]).next(&mut budget)
        };
        assert!(matches!(next(), Err(Broken::Undecodable { id: 7, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(next(), Err(Broken::Damaged { id: 7, .. })), "gone");
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(next(), Err(Broken::Failed(StoreError::Io { .. }))), "it may pass");
    }
}
