//! Compaction: small segments become one for each hour, hours become one for each day.
//!
//! The inputs stay as they are while the merged file is written beside them, on a thread of low priority and within a budget
//! of bytes a second. Then one transaction takes them out of the list and puts the new file in, so that every event is
//! listed exactly once at any instant; their files go when the last snapshot that holds them is dropped. A crash before
//! that transaction leaves a file that the next start removes, one after it leaves the inputs, which are on a list of their
//! own until they are deleted.

mod budget;
mod merge;
mod plan;
mod ranges;
mod room;
mod setback;
mod state;
mod vacuum;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use datafusion::parquet::errors::ParquetError;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::budget::Budget;
use self::merge::{Broken, Merge};
use self::plan::{Job, Policy};
use self::setback::Group;
use self::state::Progress;
pub use self::state::{CompactionState, LevelState, RunningMerge};
pub use self::vacuum::Vacuumed;
use super::encode::{Encoder, Lasts, Written};
use super::seal::{Placed, SEGMENTS_DIR, insert};
use super::segment::SegmentFile;
use super::state::SEGMENTS;
use super::{Store, StoreError, leaving};
use crate::sql::lower_priority;

/// Largest merged file: an eighth of the default bound of all history, so that retention by size takes small steps.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Merged files that fit into the bound of all history at least.
const FILES_IN_BOUND: u64 = 8;
/// How often what is late is merged, little as it may be.
const LATE_EVERY: Duration = Duration::from_secs(86_400);
/// The same after a start, so that an agent that is started anew every day merges it as well.
const LATE_FIRST: Duration = Duration::from_secs(3_600);
/// The unfinished file. There is one at a time, and the next start removes it.
const PARTIAL: &str = "merge.parquet.tmp";

/// What one merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// 1: an hour, 2: a day.
    pub level: u8,
    /// Files that became one.
    pub inputs: u64,
    /// Rows in them, and in it.
    pub rows: u64,
    /// Bytes of the inputs.
    pub bytes_before: u64,
    /// Bytes of the new file.
    pub bytes_after: u64,
}

/// What compaction shares between its callers.
#[derive(Debug)]
pub(super) struct Compaction {
    /// One merge at a time.
    one: Mutex<()>,
    /// Callers that wait for the merge that is under way.
    urgent: AtomicUsize,
    progress: Mutex<Progress>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            one: Mutex::default(),
            urgent: AtomicUsize::new(0),
            progress: Mutex::new(Progress::new(Instant::now())),
        }
    }
}

impl Compaction {
    /// Nothing is merged for as long as the result is kept.
    pub(super) fn alone(&self) -> std::sync::MutexGuard<'_, ()> {
        self.one.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a merge ended that did not fail.
enum Outcome {
    Merged(Compacted),
    /// An input went, or was found damaged, or it was told to end.
    Abandoned,
}

/// How a merge ended that failed.
struct Failure {
    error: StoreError,
    /// Another merge, of other files, may succeed at once.
    alone: bool,
}

impl Failure {
    /// What it wrote into, or the state: no merge would fare better. What it read, or had no room for: others may.
    fn of(job: &Job, error: StoreError) -> Self {
        let alone = match &error {
            StoreError::Columns(_) | StoreError::LimitRoom { .. } | StoreError::Segment { .. } => true,
            StoreError::Io { path, .. } => job.inputs.iter().any(|input| &input.path == path),
            _ => false,
        };
        Self { error, alone }
    }

    /// Whether the same will probably fail again. Room is looked for each time: that costs nothing.
    const fn is_lasting(&self) -> bool {
        self.alone && !matches!(self.error, StoreError::LimitRoom { .. })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, alone: false }
    }
}

impl Store {
    /// Merges the segments of one hour or day when that is due; `None` when nothing is, or another thread is at it. A merge that
    /// fails steps back and the next one gets its turn. Reads
    /// and writes no more than [`super::StoreOptions::compaction_bytes_per_s`] and ends soon after `stop` is cancelled.
    ///
    /// # Errors
    /// [`StoreError`] when a file or the transaction failed. Nothing is lost: the segments stay as they are.
    pub fn compact(&self, now_us: i64, stop: &CancellationToken) -> Result<Option<Compacted>, StoreError> {
        let _one_at_a_time = match self.compaction.one.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
        };
        self.delete_leaving()?;
        let late = self.progress().late_is_due(Instant::now());
        let policy = Policy { now_us, file_bytes: self.file_bytes(), late, unfinished: false };
        let (mut tried, mut failed) = (HashSet::new(), None);
        while !stop.is_cancelled()
            && let Some(job) = self.next_job(policy, &tried)?
        {
            let group = job.group();
            match self.work(job, now_us, self.options.compaction_bytes_per_s, stop) {
                Ok(Some(done)) => return Ok(Some(done)),
                // Without a merge an input went or was set aside, so the next plan is another one.
                Ok(None) => {}
                Err(Failure { error, alone: true }) => {
                    tried.insert(group);
                    failed.get_or_insert(error);
                }
                Err(failure) => return Err(failure.error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.progress().nothing_due(Instant::now(), late);
        Ok(None)
    }

    /// The first merge that is due, was not tried by this caller, and whose turn it is.
    fn next_job(&self, policy: Policy, tried: &HashSet<Group>) -> Result<Option<Job>, StoreError> {
        let (jobs, now) = (self.jobs(policy)?, Instant::now());
        let progress = self.progress();
        let is_free = |job: &Job| !tried.contains(&job.group()) && !progress.setbacks.waits(job.group(), now);
        Ok(jobs.into_iter().find(is_free))
    }

    fn jobs(&self, policy: Policy) -> Result<Vec<Job>, StoreError> {
        let files = self.held.read().map_err(|_| StoreError::LockPoisoned)?.segments.clone();
        Ok(plan::jobs(&files, policy))
    }

    fn file_bytes(&self) -> u64 {
        FILE_BYTES.min(self.options.retention_bytes.checked_div(FILES_IN_BOUND).unwrap_or(FILE_BYTES))
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        // Counters only: a panic elsewhere leaves none of them worse than a little off.
        self.compaction.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one merge and counts it.
    fn work(
        &self,
        job: Job,
        now_us: i64,
        bytes_per_s: u64,
        stop: &CancellationToken,
    ) -> Result<Option<Compacted>, Failure> {
        self.state.check()?;
        self.progress().begin(&job);
        let group = job.group();
        let outcome = self.merge(&job, bytes_per_s, stop).map_err(|error| Failure::of(&job, error));
        // The job's own hold on the inputs would keep their files.
        drop(job);
        match outcome {
            Ok(Outcome::Merged(done)) => {
                self.progress().merged(group, now_us);
                self.delete_leaving()?;
                Ok(Some(done))
            }
            Ok(Outcome::Abandoned) => {
                self.progress().ended();
                Ok(None)
            }
            Err(failure) => {
                self.progress().failed(group, &failure);
                Err(failure)
            }
        }
    }

    fn merge(&self, job: &Job, bytes_per_s: u64, stop: &CancellationToken) -> Result<Outcome, StoreError> {
        let dir = self.options.dir.join(SEGMENTS_DIR);
        room::check(&dir, job.bytes())?;
        let partial = dir.join(PARTIAL);
        let written = match self.on_own_thread(job, &partial, bytes_per_s, stop) {
            Ok(written) => written,
            Err(broken) => {
                self.discard(&partial);
                return self.broken(job, broken);
            }
        };
        let rows = job.rows();
        if written.rows != rows {
            self.discard(&partial);
            let what = format!("{} rows were read of {rows}, so it is not used", written.rows);
            return Err(StoreError::Segment { path: partial, source: ParquetError::General(what) });
        }
        self.swap(job, &partial, written)
    }

    fn broken(&self, job: &Job, broken: Broken) -> Result<Outcome, StoreError> {
        match broken {
            Broken::Stopped => Ok(Outcome::Abandoned),
            Broken::Failed(error) => Err(error),
            Broken::Damaged { id, what } => {
                let damaged = job.inputs.iter().find(|input| input.id == id);
                self.set_aside(damaged.map(|file| (Arc::clone(file), what)).into_iter().collect())?;
                Ok(Outcome::Abandoned)
            }
            Broken::Undecodable { id, what } => {
                let Some(file) = job.inputs.iter().find(|input| input.id == id) else { return Ok(Outcome::Abandoned) };
                // The reader does not tell a disk that fails from bytes that are wrong.
                let found = file.compare().map_err(StoreError::io("read", &file.path))?;
                let what = found.err().unwrap_or_else(|| format!("it cannot be decoded: {what}"));
                self.broken(job, Broken::Damaged { id, what })
            }
        }
    }

    /// Merges where a low priority costs the caller nothing, and a decoder that panics ends nothing but this merge.
    fn on_own_thread(
        &self,
        job: &Job,
        partial: &Path,
        bytes_per_s: u64,
        stop: &CancellationToken,
    ) -> Result<Written, Broken> {
        let failed =
            |source| Broken::Failed(StoreError::Io { action: "merge into", path: partial.to_owned(), source });
        let panicked = || {
            let source = ParquetError::General("the merge gave way; the log has more".to_owned());
            Broken::Failed(StoreError::Segment { path: partial.to_owned(), source })
        };
        std::thread::scope(|scope| {
            let work = || {
                lower_priority();
                let mut budget = Budget::new(bytes_per_s, &self.compaction.urgent, stop).map_err(failed)?;
                self.write_merged(job, partial, &mut budget)
            };
            let thread = std::thread::Builder::new().name("compact".to_owned()).spawn_scoped(scope, work);
            thread.map_err(failed)?.join().unwrap_or_else(|_| Err(panicked()))
        })
    }

    fn write_merged(&self, job: &Job, partial: &Path, budget: &mut Budget<'_>) -> Result<Written, Broken> {
        let mut merge = Merge::new(&job.inputs);
        let mut encoder = Encoder::create(self.disk.as_ref(), job.table, partial, job.rows(), Lasts::Months)?;
        let mut written = 0;
        while let Some(batch) = merge.next(budget)? {
            encoder.write(&batch)?;
            self.progress().advance(batch.num_rows());
            budget.take(encoder.bytes().saturating_sub(written))?;
            written = encoder.bytes();
        }
        Ok(encoder.finish()?)
    }

    /// Puts the new file in the place of its inputs, unless retention has taken one of them meanwhile.
    fn swap(&self, job: &Job, partial: &Path, written: Written) -> Result<Outcome, StoreError> {
        let _one_at_a_time = self.sealing.lock().map_err(|_| StoreError::LockPoisoned)?;
        if !self.are_registered(&job.inputs)? {
            self.discard(partial);
            return Ok(Outcome::Abandoned);
        }
        let ranges = ranges::joined(&job.inputs);
        let stored_us = job.inputs.iter().map(|input| input.dated.us()).max().unwrap_or(i64::MAX);
        let id = self.last_segment()?.saturating_add(1);
        let placed = Placed { id, level: job.level, ranges, stored_us };
        let file = self.place(job.table, partial, written, placed).inspect_err(|_| self.discard(partial))?;
        let swapped = self.state.write(|transaction| {
            let mut segments = transaction.open_table(SEGMENTS)?;
            for input in &job.inputs {
                if segments.remove((job.table.name(), input.first_us, input.id))?.is_none() {
                    let what = format!("segment {} was in use and is not listed", input.id);
                    return Err(StoreError::CorruptState { table: "segments".to_owned(), what });
                }
            }
            drop(segments);
            leaving::insert(transaction, &job.inputs)?;
            insert(transaction, &file)
        });
        if swapped.is_err() {
            self.unsettled(&file.path)?;
        }
        swapped?;
        let done = job.done(&file);
        self.held.write().map_err(|_| StoreError::LockPoisoned)?.replace(&job.inputs, file);
        Ok(Outcome::Merged(done))
    }

    fn are_registered(&self, inputs: &[Arc<SegmentFile>]) -> Result<bool, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        Ok(inputs.iter().all(|input| held.segments.iter().any(|file| file.id == input.id)))
    }

    /// Lets the merge that is under way run as fast as it can for as long as the result is kept.
    fn hurry(&self) -> Hurry<'_> {
        self.compaction.urgent.fetch_add(1, Ordering::Relaxed);
        Hurry(&self.compaction.urgent)
    }
}

/// Somebody waits.
struct Hurry<'a>(&'a AtomicUsize);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Job {
    fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }

    fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.bytes).sum()
    }

    fn done(&self, file: &SegmentFile) -> Compacted {
        Compacted {
            level: self.level,
            inputs: self.inputs.len() as u64,
            rows: file.rows,
            bytes_before: self.bytes(),
            bytes_after: file.bytes,
        }
    }
}
