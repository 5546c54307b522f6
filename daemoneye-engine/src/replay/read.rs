//! Where past events come from: a collector's log, or an export as Parquet or JSON Lines. Read once, piece by piece.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::errors::ParquetError;
use serde_json::{Map, Value};

use super::{events_of, merge, process_events, times};
use crate::detect::GRACE_US;
use crate::ingest::{self, EventBatch, JsonRowError};
use crate::store::{StoreError, WAL_DIR, collectors};

/// Rows or records of one piece: large enough that a piece costs nothing, small enough to be held.
pub(super) const PIECE: usize = 4_096;
/// Most bytes of an export that is brought into the order of time in memory: some million events.
const SORTED_BYTES: usize = 1024 * 1024 * 1024;
/// Longest line of an export in bytes: an event has at most 1 MiB, and JSON escapes some of it.
const LINE_BYTES: u64 = 8 * 1024 * 1024;
/// A Parquet file begins with this.
const PARQUET: &[u8] = b"PAR1";
/// Without these no alert has an identity.
const POSITION: [&str; 4] = ["time", "collector", "epoch", "seq"];

/// Why past events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line of an export is no row.
    #[error("{}, line {line}: {what}", path.display())]
    CorruptLine {
        /// The export.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The columns do not fit the table.
    #[error("{}: {source}; name a file that `daemoneye-cli data export` wrote", path.display())]
    CorruptColumns {
        /// The export.
        path: PathBuf,
        /// What Arrow said.
        source: ArrowError,
    },
    /// The Parquet file cannot be read.
    #[error("{}: {source}; name a file that `daemoneye-cli data export` wrote", path.display())]
    CorruptParquet {
        /// The export.
        path: PathBuf,
        /// What the reader said.
        source: ParquetError,
    },
    /// The operating system would not.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Events in disorder, and too many of them.
    #[error(
        "{} is not in the order of time, and larger than the {SORTED_BYTES} bytes that are sorted here; export it with \
         \"SELECT * FROM process_events ORDER BY time, collector, epoch, seq\", or a part of it with --from and --to",
        path.display()
    )]
    MisuseOrder {
        /// The export.
        path: PathBuf,
    },
    /// Rows without their place in a stream.
    #[error("{} has no column {column}: export whole rows, `daemoneye-cli data export` without a SELECT", path.display())]
    MisuseColumns {
        /// The export.
        path: PathBuf,
        /// What is missing.
        column: &'static str,
    },
    /// A directory without logs.
    #[error("{} has no log of a collector; name a data directory, its wal directory, or an export", path.display())]
    MisuseDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The store in memory failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Hands over what `path` holds, piece by piece, in the order of event time, and returns what could not be read of it.
///
/// # Errors
/// [`ReplayError`] when nothing more can be read, or `each` fails.
pub fn read(
    path: &Path,
    each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>,
) -> Result<Vec<String>, ReplayError> {
    if path.is_dir() {
        return logs(path, each);
    }
    let mut file = crate::store::file::open(path).map_err(io_of(path))?;
    let mut begins = Vec::with_capacity(PARQUET.len());
    file.by_ref().take(PARQUET.len() as u64).read_to_end(&mut begins).map_err(io_of(path))?;
    let pieces = if begins == PARQUET { parquet } else { lines };
    if is_in_order(path, pieces)? {
        pieces(path, &mut |batch| Ok(each(events_of(batch))?))?;
    } else {
        sorted(path, pieces, each)?;
    }
    Ok(Vec::new())
}

/// What hands over an export as batches of the table's columns.
type Pieces = fn(&Path, &mut dyn FnMut(RecordBatch) -> Result<(), ReplayError>) -> Result<(), ReplayError>;

/// Whether no event is further behind an earlier one than live ones may be.
fn is_in_order(path: &Path, pieces: Pieces) -> Result<bool, ReplayError> {
    let (mut latest, mut in_order) = (i64::MIN, true);
    pieces(path, &mut |batch| {
        for time in times(&batch).flatten() {
            in_order &= time >= latest.saturating_sub(GRACE_US);
            latest = latest.max(time);
        }
        Ok(())
    })?;
    Ok(in_order)
}

fn sorted(
    path: &Path,
    pieces: Pieces,
    each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>,
) -> Result<(), ReplayError> {
    let (mut all, mut bytes) = (Vec::new(), 0_usize);
    pieces(path, &mut |batch| {
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        all.push(batch);
        if bytes > SORTED_BYTES { Err(ReplayError::MisuseOrder { path: path.to_owned() }) } else { Ok(()) }
    })?;
    let columns = |source| ReplayError::CorruptColumns { path: path.to_owned(), source };
    let Some(schema) = all.first().map(RecordBatch::schema) else { return Ok(()) };
    let whole = concat_batches(&schema, &all).map_err(columns)?;
    drop(all);
    let keys = POSITION.iter().filter_map(|name| whole.column_by_name(name).cloned());
    let keys: Vec<SortColumn> = keys.map(|values| SortColumn { values, options: None }).collect();
    let order: UInt32Array = lexsort_to_indices(&keys, None).map_err(columns)?;
    for first in (0..order.len()).step_by(PIECE) {
        let rows = order.slice(first, PIECE.min(order.len().saturating_sub(first)));
        each(events_of(take_record_batch(&whole, &rows).map_err(columns)?))?;
    }
    Ok(())
}

fn io_of(path: &Path) -> impl Fn(io::Error) -> ReplayError {
    move |source| ReplayError::Io { path: path.to_owned(), source }
}

fn logs(path: &Path, each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>) -> Result<Vec<String>, ReplayError> {
    let below = path.join(WAL_DIR);
    let dir = if below.is_dir() { below } else { path.to_owned() };
    let found = collectors(&dir).map_err(io_of(&dir))?;
    if found.is_empty() {
        return Err(ReplayError::MisuseDirectory { path: path.to_owned() });
    }
    let mut troubles = Vec::new();
    merge::logs(&dir, &found, &mut troubles, each)?;
    Ok(troubles)
}

fn parquet(path: &Path, each: &mut dyn FnMut(RecordBatch) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
    let corrupt = |source| ReplayError::CorruptParquet { path: path.to_owned(), source };
    let columns = |source| ReplayError::CorruptColumns { path: path.to_owned(), source };
    let file = crate::store::file::open(path).map_err(io_of(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(corrupt)?;
    for batch in builder.with_batch_size(PIECE).build().map_err(corrupt)? {
        let batch: RecordBatch = batch.map_err(columns)?;
        if let Some(column) = POSITION.into_iter().find(|name| batch.column_by_name(name).is_none()) {
            return Err(ReplayError::MisuseColumns { path: path.to_owned(), column });
        }
        each(process_events(&batch).map_err(columns)?)?;
    }
    Ok(())
}

fn lines(path: &Path, each: &mut dyn FnMut(RecordBatch) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
    let mut reader = BufReader::new(crate::store::file::open(path).map_err(io_of(path))?);
    let (mut line, mut rows, mut text) = (0_u64, Vec::with_capacity(PIECE), String::new());
    loop {
        text.clear();
        let read = reader.by_ref().take(LINE_BYTES).read_line(&mut text).map_err(io_of(path))?;
        line = line.saturating_add(1);
        let corrupt = |what: String| ReplayError::CorruptLine { path: path.to_owned(), line, what };
        if read as u64 == LINE_BYTES {
            return Err(corrupt(format!("it has more than {LINE_BYTES} bytes")));
        }
        // What other systems put before text; JSON has none.
        let row_text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if read > 0 && !row_text.trim().is_empty() {
            rows.push(row(row_text, path).map_err(|error| error.unwrap_or_else(corrupt))?);
        }
        if rows.len() == PIECE || (read == 0 && !rows.is_empty()) {
            let batch = ingest::batch_from_json(&rows).map_err(|error| corrupt(before(&error, line, rows.len())))?;
            each(batch)?;
            rows.clear();
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// One row; the inner error is about the line, the outer one about the file as a whole.
fn row(text: &str, path: &Path) -> Result<Map<String, Value>, Trouble> {
    let row: Map<String, Value> = serde_json::from_str(text).map_err(|error| Trouble::Line(error.to_string()))?;
    match POSITION.into_iter().find(|name| row.get(*name).is_none_or(Value::is_null)) {
        Some(column) => Err(Trouble::File(ReplayError::MisuseColumns { path: path.to_owned(), column })),
        None => Ok(row),
    }
}

enum Trouble {
    File(ReplayError),
    Line(String),
}

impl Trouble {
    fn unwrap_or_else(self, line: impl FnOnce(String) -> ReplayError) -> ReplayError {
        match self {
            Self::File(error) => error,
            Self::Line(what) => line(what),
        }
    }
}

/// The error counts rows of its piece, a person lines of the file.
fn before(error: &JsonRowError, line: u64, rows: usize) -> String {
    let first = line.saturating_sub(rows as u64);
    format!("{error} (row 0 is line {first} or shortly before it)")
}
