//! A sealed file of events, and the consistent view over all of them.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use daemoneye_lib::model::{Completeness, Degraded};
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use super::dated::Dated;
use super::file::{self, Verified};
use super::held::Held;
use super::history::HistoryTable;
use super::living::OpenLifetimes;
use super::value::Record;
use super::{Store, StoreError};

/// Both ends of a Parquet file.
const MAGIC: &[u8; 4] = b"PAR1";

/// What one collector has in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceRange {
    /// Collector id.
    pub collector: String,
    /// First position (epoch, number).
    pub first: (u64, u64),
    /// Last position, including records that are no rows.
    pub last: (u64, u64),
    /// Rows of this collector.
    pub rows: u64,
}

/// A segment as `state.redb` has it. The file name is relative, so a data directory can be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentRow {
    pub(super) file: String,
    pub(super) level: u8,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    pub(super) ranges: Vec<SequenceRange>,
    pub(super) hash: [u8; 32],
    pub(super) schema_version: u32,
    /// See [`super::dated`].
    pub(super) dated_us: i64,
}

impl Record for SegmentRow {
    const NAME: &'static str = "segments";
}

/// A registered Parquet file. The file stays until the last clone of its `Arc` is gone, whatever retention decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Whose rows it holds.
    pub table: HistoryTable,
    /// Where it lies.
    pub path: PathBuf,
    /// Number of the segment.
    pub id: u64,
    /// How far it has been merged: 0 as sealed, 1 an hour, 2 a day.
    pub level: u8,
    /// Rows in it.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Earliest event time, µs since the Unix epoch.
    pub first_us: i64,
    /// Latest event time, µs since the Unix epoch.
    pub last_us: i64,
    /// Whose events, from where to where.
    pub ranges: Vec<SequenceRange>,
    /// BLAKE3 of the file.
    pub hash: [u8; 32],
    /// Version of the column table it was written with.
    pub schema_version: u32,
    /// When it was, for retention and merging.
    pub dated: Dated,
    pub(super) verified: Verified,
}

impl SegmentFile {
    pub(super) fn of(table: HistoryTable, row: SegmentRow, id: u64, dir: &Path) -> Self {
        Self {
            table,
            path: dir.join(&row.file),
            id,
            level: row.level,
            rows: row.rows,
            bytes: row.bytes,
            first_us: row.first_us,
            last_us: row.last_us,
            ranges: row.ranges,
            hash: row.hash,
            schema_version: row.schema_version,
            dated: Dated::new(row.last_us, row.dated_us),
            verified: Verified::default(),
        }
    }

    /// Cheap look at start: there, of the registered length, and Parquet at both ends.
    pub(super) fn look(&self) -> Result<(), String> {
        let mut file = file::open(&self.path).map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        if length != self.bytes {
            return Err(format!("it has {length} bytes, {} were registered", self.bytes));
        }
        for end in [SeekFrom::Start(0), SeekFrom::End(-4)] {
            let mut magic = [0; 4];
            file.seek(end).and_then(|_| file.read_exact(&mut magic)).map_err(|error| error.to_string())?;
            if &magic != MAGIC {
                return Err("it is no Parquet file".to_owned());
            }
        }
        Ok(())
    }
}

/// Whether a file that gives this error is not there as it was written; every other one may pass.
pub(super) fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

/// A registered file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSegment {
    /// Whose rows it holds.
    pub table: HistoryTable,
    /// Where it should lie.
    pub path: PathBuf,
    /// Rows that are missing from every answer.
    pub rows: u64,
    /// Earliest event time in it, µs since the Unix epoch.
    pub first_us: i64,
    /// Latest event time in it, µs since the Unix epoch.
    pub last_us: i64,
    /// What is wrong with it.
    pub what: String,
}

/// What a query reads: every event that has entered the store exactly once.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Sealed files of events; keep the `Arc`s for as long as the files are read.
    pub segments: Vec<Arc<SegmentFile>>,
    /// Events that are in memory only.
    pub open: Vec<RecordBatch>,
    /// Sealed files of lifetimes.
    pub lifetimes: Vec<Arc<SegmentFile>>,
    /// Lifetimes that are in memory only, those of live processes included; empty unless they were asked for.
    pub open_lifetimes: OpenLifetimes,
    /// Degraded when registered files cannot be read.
    pub completeness: Completeness,
    /// Those files.
    pub damaged: Vec<DamagedSegment>,
}

impl Held {
    pub(super) fn snapshot(&self) -> Snapshot {
        let sealing = self.sealing.iter().flat_map(|open| open.batches.iter());
        let mut completeness = Completeness::complete();
        if !self.damaged.is_empty() {
            completeness.degrade(Degraded::DataUnreadable);
        }
        let files = |table| self.segments.iter().filter(move |file| file.table == table).cloned().collect();
        Snapshot {
            segments: files(HistoryTable::ProcessEvents),
            open: sealing.chain(&self.open.batches).cloned().collect(),
            lifetimes: files(HistoryTable::ProcessLifetimes),
            open_lifetimes: OpenLifetimes::default(),
            completeness,
            damaged: self.damaged_segments(),
        }
    }
}

impl Store {
    /// A consistent view that later writes do not change.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // Reading is safe after a panic elsewhere: every change to `held` is a sequence of moves that keeps each event once.
        self.held.read().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    /// The same, with the lifetimes of that instant.
    #[must_use]
    pub fn snapshot_with_lifetimes(&self) -> Snapshot {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = held.snapshot();
        let lifetimes = &mut snapshot.open_lifetimes;
        for open in held.sealing.as_deref().into_iter().chain([&held.open]) {
            let (batches, ended) = open.lifetimes.parts();
            lifetimes.batches.extend_from_slice(batches);
            lifetimes.ended.extend_from_slice(ended);
        }
        lifetimes.living = held.live.living();
        snapshot
    }

    /// Compares every file with its registered hash and sets aside the ones that do not fit; returns all that are aside.
    ///
    /// # Errors
    /// [`StoreError::LockPoisoned`] when the store failed before.
    pub fn check_segments(&self) -> Result<Vec<DamagedSegment>, StoreError> {
        let files = self.held.read().map_err(|_| StoreError::LockPoisoned)?.segments.clone();
        self.check_files(&files, &|| true)?;
        Ok(self.held.read().map_err(|_| StoreError::LockPoisoned)?.damaged_segments())
    }

    /// The same for some files, for as long as `going`: those that a query had open when reading failed. Returns those that
    /// are whole, and how many are damaged; what could not be read to its end is neither.
    pub(crate) fn check_files(
        &self,
        files: &[Arc<SegmentFile>],
        going: &dyn Fn() -> bool,
    ) -> Result<(Vec<Arc<SegmentFile>>, usize), StoreError> {
        let (mut whole, mut bad) = (Vec::new(), Vec::new());
        for file in files {
            match file.compare_while(going) {
                Some(Ok(())) => whole.push(Arc::clone(file)),
                Some(Err(what)) => bad.push((Arc::clone(file), what)),
                None => {}
            }
        }
        let damaged = bad.len();
        self.set_aside(bad)?;
        Ok((whole, damaged))
    }

    /// The last position of `collector` that no crash can take back.
    #[must_use]
    pub fn committed(&self, collector: &str) -> Option<Sequence> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).committed.get(collector).copied()
    }
}
