//! Everything that makes the store smaller, now, because somebody asked.

use std::collections::HashSet;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::segment::SegmentFile;
use super::super::{Store, StoreError, open};
use super::Failure;
use super::plan::{Job, Policy};
use super::setback::Group;

/// What a vacuum did. Sizes are bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Vacuumed {
    /// Merges.
    pub merges: u64,
    /// Merges that failed; `data stats` has the last reason.
    pub failures: u64,
    /// Listed segments before.
    pub segments_before: u64,
    /// Listed segments after.
    pub segments_after: u64,
    /// Their size before.
    pub segment_bytes_before: u64,
    /// Their size after.
    pub segment_bytes_after: u64,
    /// Size of `state.redb` before.
    pub state_bytes_before: u64,
    /// Size of `state.redb` after.
    pub state_bytes_after: u64,
    /// Whether `state.redb` could be compacted; not while it is being read.
    pub state_compacted: bool,
    /// Files that were not listed any more and have been deleted.
    pub files_removed: u64,
    /// Files that are not listed any more and stay until a query has read them.
    pub files_still_read: u64,
    /// False when it was stopped before it was through, or a merge failed.
    pub complete: bool,
}

impl Store {
    /// Merges every hour and day that can be merged, as fast as it can, deletes what nobody reads any more, and compacts
    /// `state.redb`. Waits for a merge that is under way. What is sealed meanwhile is left for the next: beside a busy host it would
    /// merge one file again and again.
    ///
    /// # Errors
    /// [`StoreError`] when a file or `state.redb` failed; what was merged until then stays merged.
    pub fn vacuum(&self, now_us: i64, stop: &CancellationToken) -> Result<Vacuumed, StoreError> {
        if self.state.is_offline() {
            return Err(StoreError::MisuseOffline);
        }
        let _hurry = self.hurry();
        let _one_at_a_time = self.compaction.alone();
        let mut done = Vacuumed { state_bytes_before: self.state_bytes()?, ..Vacuumed::default() };
        (done.segments_before, done.segment_bytes_before) = self.listed()?;
        let leaving_before = self.leaving_files()?;
        let inputs = self.merge_all(now_us, stop, &mut done)?;
        self.delete_leaving()?;
        done.files_still_read = self.leaving_files()?;
        done.files_removed = leaving_before.saturating_add(inputs).saturating_sub(done.files_still_read);
        done.state_compacted = self.state.compact()?;
        (done.segments_after, done.segment_bytes_after) = self.listed()?;
        done.state_bytes_after = self.state_bytes()?;
        done.complete = !stop.is_cancelled() && done.failures == 0;
        Ok(done)
    }

    /// Returns how many files were merged.
    fn merge_all(&self, now_us: i64, stop: &CancellationToken, done: &mut Vacuumed) -> Result<u64, StoreError> {
        let policy = Policy { now_us, file_bytes: self.file_bytes(), late: true, unfinished: true };
        let (mut inputs, mut failed): (u64, HashSet<Group>) = (0, HashSet::new());
        // Those that wait for another try too: whoever asks may have repaired what kept them.
        let begun = self.sealed_ids()?;
        let later = |file: &SegmentFile| file.level == 0 && !begun.contains(&file.id);
        let ours = |job: &Job| {
            let asked_for = job.inputs.iter().any(|file| begun.contains(&file.id));
            asked_for || !job.inputs.iter().any(|file| later(file))
        };
        let free = |job: &Job, failed: &HashSet<Group>| ours(job) && !failed.contains(&job.group());
        while !stop.is_cancelled()
            && let Some(job) = self.jobs(policy)?.into_iter().find(|job| free(job, &failed))
        {
            let group = job.group();
            match self.work(job, now_us, 0, stop) {
                Ok(Some(merged)) => {
                    done.merges = done.merges.saturating_add(1);
                    inputs = inputs.saturating_add(merged.inputs);
                }
                // An input went or was set aside, so the next plan is another one.
                Ok(None) => {}
                Err(Failure { alone: true, .. }) => {
                    done.failures = done.failures.saturating_add(1);
                    failed.insert(group);
                }
                Err(failure) => return Err(failure.error),
            }
        }
        Ok(inputs)
    }

    /// The files that are there.
    fn sealed_ids(&self) -> Result<HashSet<u64>, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        Ok(held.segments.iter().map(|file| file.id).collect())
    }

    fn listed(&self) -> Result<(u64, u64), StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        Ok((held.segments.len() as u64, held.segments.iter().map(|file| file.bytes).sum()))
    }

    fn leaving_files(&self) -> Result<u64, StoreError> {
        Ok(self.held.read().map_err(|_| StoreError::LockPoisoned)?.leaving.len() as u64)
    }

    fn state_bytes(&self) -> Result<u64, StoreError> {
        let path = self.options.dir.join(open::STATE_FILE);
        Ok(path.metadata().map_err(StoreError::io("look at", &path))?.len())
    }
}
