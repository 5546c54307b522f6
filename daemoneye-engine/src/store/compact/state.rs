//! How far compaction is.

use std::time::Instant;

use serde::Serialize;

use super::super::{Store, StoreError};
use super::plan::{self, DAY, Job, Policy};
use super::setback::{Group, Setbacks};
use super::{Failure, LATE_EVERY, LATE_FIRST};

/// Segments of one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LevelState {
    /// 0: as sealed, 1: hours, 2: days.
    pub level: u8,
    /// Files.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A merge under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RunningMerge {
    /// What it makes: 1 an hour, 2 a day.
    pub level: u8,
    /// Files that become one.
    pub inputs: u64,
    /// Rows merged so far.
    pub rows_done: u64,
    /// Rows in all.
    pub rows: u64,
}

/// How far compaction is, and what it has done since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompactionState {
    /// By level: as sealed, hours, days.
    pub levels: [LevelState; 3],
    /// Segments that merges which are due would take.
    pub due_segments: u64,
    /// What is being merged now.
    pub running: Option<RunningMerge>,
    /// Merges done.
    pub merges: u64,
    /// Merges that failed.
    pub failures: u64,
    /// Of these, the groups of segments that were not merged since; each is tried again later and later.
    pub set_back: u64,
    /// Why the last merge failed; gone when one has succeeded since and none waits for another try.
    pub last_error: Option<String>,
    /// When the last merge was done, µs since the Unix epoch.
    pub last_merge_us: Option<i64>,
    /// Files that are not listed any more and still lie on the disk because a query reads them.
    pub leaving_files: u64,
    /// What merges may read and write together, in bytes a second; 0: as much as they can.
    pub io_bytes_per_s: u64,
}

/// What is counted since the start.
#[derive(Debug)]
pub(super) struct Progress {
    running: Option<RunningMerge>,
    merges: u64,
    failures: u64,
    last_error: Option<String>,
    last_merge_us: Option<i64>,
    pub(super) setbacks: Setbacks,
    /// From when on what is late is merged, however little it is.
    late_from: Instant,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        let (setbacks, late_from) = (Setbacks::default(), now + LATE_FIRST);
        Self { running: None, merges: 0, failures: 0, last_error: None, last_merge_us: None, setbacks, late_from }
    }

    pub(super) fn late_is_due(&self, now: Instant) -> bool {
        now >= self.late_from
    }

    pub(super) fn nothing_due(&mut self, now: Instant, late: bool) {
        if late {
            self.late_from = now + LATE_EVERY;
        }
    }

    pub(super) fn begin(&mut self, job: &Job) {
        let (inputs, rows) = (job.inputs.len() as u64, job.rows());
        self.running = Some(RunningMerge { level: job.level, inputs, rows_done: 0, rows });
    }

    pub(super) fn advance(&mut self, rows: usize) {
        if let Some(running) = &mut self.running {
            running.rows_done = running.rows_done.saturating_add(rows as u64);
        }
    }

    pub(super) fn merged(&mut self, group: Group, now_us: i64) {
        self.running = None;
        self.merges = self.merges.saturating_add(1);
        self.setbacks.succeeded(group);
        if self.setbacks.len() == 0 {
            self.last_error = None;
        }
        self.last_merge_us = Some(now_us);
    }

    pub(super) fn ended(&mut self) {
        self.running = None;
    }

    pub(super) fn failed(&mut self, group: Group, failure: &Failure) {
        self.running = None;
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(failure.error.to_string());
        if failure.is_lasting() {
            self.setbacks.failed(group, Instant::now());
        }
    }
}

impl Store {
    /// How far compaction is.
    ///
    /// # Errors
    /// [`StoreError::LockPoisoned`] when the store failed before.
    pub fn compaction_state(&self) -> Result<CompactionState, StoreError> {
        let (files, leaving_files) = {
            let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
            (held.segments.clone(), held.leaving.len() as u64)
        };
        let mut levels = [0, 1, 2].map(|level| LevelState { level, ..LevelState::default() });
        for file in &files {
            if let Some(level) = levels.get_mut(usize::from(file.level.min(DAY))) {
                level.segments = level.segments.saturating_add(1);
                level.rows = level.rows.saturating_add(file.rows);
                level.bytes = level.bytes.saturating_add(file.bytes);
            }
        }
        let policy =
            Policy { now_us: self.believed_us(), file_bytes: self.file_bytes(), late: false, unfinished: false };
        let due = plan::jobs(&files, policy);
        let progress = self.progress();
        Ok(CompactionState {
            levels,
            due_segments: due.iter().map(|job| job.inputs.len() as u64).sum(),
            running: progress.running,
            merges: progress.merges,
            failures: progress.failures,
            set_back: progress.setbacks.len(),
            last_error: progress.last_error.clone(),
            last_merge_us: progress.last_merge_us,
            leaving_files,
            io_bytes_per_s: self.options.compaction_bytes_per_s,
        })
    }
}
