//! Where past events come from: a collector's log, or an export as Parquet or JSON Lines. Read once, piece by piece.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use daemoneye_lib::segment::DirReader;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::errors::ParquetError;
use serde_json::{Map, Value};

use super::{events_of, process_events};
use crate::ingest::{self, EventBatch, JsonRowError};
use crate::store::{StoreError, WAL_DIR, collectors};

/// Rows or records of one piece: large enough that a piece costs nothing, small enough to be held.
const PIECE: usize = 4_096;
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

/// Hands over what `path` holds, piece by piece, in its order, and returns what could not be read of it.
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
    let mut file = File::open(path).map_err(io_of(path))?;
    let mut begins = Vec::with_capacity(PARQUET.len());
    file.by_ref().take(PARQUET.len() as u64).read_to_end(&mut begins).map_err(io_of(path))?;
    if begins == PARQUET {
        parquet(path, each)?;
    } else {
        lines(path, each)?;
    }
    Ok(Vec::new())
}

fn io_of(path: &Path) -> impl Fn(io::Error) -> ReplayError {
    move |source| ReplayError::Io { path: path.to_owned(), source }
}

/// A log that ends in the middle has been read up to there.
fn logs(path: &Path, each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>) -> Result<Vec<String>, ReplayError> {
    let below = path.join(WAL_DIR);
    let dir = if below.is_dir() { below } else { path.to_owned() };
    let found = collectors(&dir).map_err(io_of(&dir))?;
    if found.is_empty() {
        return Err(ReplayError::MisuseDirectory { path: path.to_owned() });
    }
    let mut troubles = Vec::new();
    for collector in &found {
        let records = match DirReader::open(&dir, collector, None) {
            Ok(records) => records,
            Err(error) => {
                troubles.push(format!("{collector}: {error}"));
                continue;
            }
        };
        let mut run = Vec::with_capacity(PIECE);
        for record in records {
            match record {
                Ok(record) => run.push(record),
                Err(error) => {
                    troubles.push(format!("{collector}: {error}"));
                    break;
                }
            }
            if run.len() == PIECE {
                hand_over(collector, &mut run, each, &mut troubles)?;
            }
        }
        hand_over(collector, &mut run, each, &mut troubles)?;
    }
    Ok(troubles)
}

fn hand_over(
    collector: &str,
    run: &mut Vec<daemoneye_lib::proto::Record>,
    each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>,
    troubles: &mut Vec<String>,
) -> Result<(), StoreError> {
    if !run.is_empty() {
        match ingest::decode(collector, run) {
            Ok(events) => each(events)?,
            Err(error) => troubles.push(error.to_string()),
        }
        run.clear();
    }
    Ok(())
}

fn parquet(path: &Path, each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>) -> Result<(), ReplayError> {
    let corrupt = |source| ReplayError::CorruptParquet { path: path.to_owned(), source };
    let columns = |source| ReplayError::CorruptColumns { path: path.to_owned(), source };
    let file = File::open(path).map_err(io_of(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(corrupt)?;
    for batch in builder.with_batch_size(PIECE).build().map_err(corrupt)? {
        let batch: RecordBatch = batch.map_err(columns)?;
        if let Some(column) = POSITION.into_iter().find(|name| batch.column_by_name(name).is_none()) {
            return Err(ReplayError::MisuseColumns { path: path.to_owned(), column });
        }
        each(events_of(process_events(&batch).map_err(columns)?))?;
    }
    Ok(())
}

fn lines(path: &Path, each: &mut dyn FnMut(EventBatch) -> Result<(), StoreError>) -> Result<(), ReplayError> {
    let mut reader = BufReader::new(File::open(path).map_err(io_of(path))?);
    let (mut line, mut rows, mut text) = (0_u64, Vec::with_capacity(PIECE), String::new());
    loop {
        text.clear();
        let read = reader.by_ref().take(LINE_BYTES).read_line(&mut text).map_err(io_of(path))?;
        line = line.saturating_add(1);
        let corrupt = |what: String| ReplayError::CorruptLine { path: path.to_owned(), line, what };
        if read as u64 == LINE_BYTES {
            return Err(corrupt(format!("it has more than {LINE_BYTES} bytes")));
        }
        if read > 0 && !text.trim().is_empty() {
            rows.push(row(&text, path).map_err(|error| error.unwrap_or_else(corrupt))?);
        }
        if rows.len() == PIECE || (read == 0 && !rows.is_empty()) {
            let batch = ingest::batch_from_json(&rows).map_err(|error| corrupt(before(&error, line, rows.len())))?;
            each(events_of(batch))?;
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
