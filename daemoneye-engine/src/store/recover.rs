//! Going on after `state.redb` has failed: redb latches an input or output error until the file is opened again, and whether
//! the transaction that failed happened is known only then. Nothing is lost meanwhile: what was being sealed stays in memory,
//! where queries see it, and in the collectors' logs.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use daemoneye_lib::proto::{CoverageGap, Sequence};

use super::held::{Held, Open};
use super::open::{STATE_FILE, ready, registered};
use super::seal::SEGMENTS_DIR;
use super::segment::SegmentFile;
use super::state::State;
use super::{Store, StoreError, audit, damage, reason};

impl Store {
    /// Opens `state.redb` again when a write to it has failed or it was opened on a full disk, and settles what was in doubt: a segment is registered or its
    /// events are open again. Returns the watermarks that have moved; empty when nothing was in doubt.
    ///
    /// # Errors
    /// [`StoreError`] when the file still fails; everything stays as it was, and this may be called again.
    pub fn recover(&self) -> Result<Vec<(String, Sequence)>, StoreError> {
        if !self.state.is_in_doubt() {
            return Ok(Vec::new());
        }
        let unsettled = self.is_unsettled();
        // A merge's unfinished file must not be taken for one that a crash left.
        let _no_merge = unsettled.then(|| self.compaction.alone());
        let _one_at_a_time = self.sealing.lock().map_err(|_| StoreError::LockPoisoned)?;
        let path = self.options.dir.join(STATE_FILE);
        // A database that was there and is not is away, and nothing is begun in its place.
        let begins = unsettled && self.begins;
        let disk = self.disk.as_ref();
        damage::guarded(&path, || {
            self.state.reopen(|| ready(disk, &self.options.dir, begins), || State::aside(disk, &path))
        })?;
        let files = registered(&self.state.read()?, &self.options.dir.join(SEGMENTS_DIR))?;
        let committed = self.state.watermarks()?;
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let (moved, garbage) = held.settle(files, committed);
        drop(held);
        for path in garbage {
            self.discard(&path);
        }
        self.state.trust();
        if unsettled {
            if let Err(error) = self.settle_start() {
                self.state.doubt_all();
                return Err(error);
            }
            self.unsettled.store(false, Ordering::SeqCst);
        }
        tracing::info!("state.redb was opened again");
        Ok(moved)
    }

    /// Tells from now on, in coverage, that no events are taken because the disk fails, as `why` says.
    ///
    /// # Errors
    /// [`StoreError::LockPoisoned`] when the store failed before.
    pub fn pause(&self, why: &str) -> Result<(), StoreError> {
        let now_us = audit::now_us();
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let from_us = held.paused.as_ref().map_or(now_us, |gap| gap.from_us);
        held.paused = Some(paused(from_us, now_us, why));
        Ok(())
    }

    /// Writes down that none were taken until now.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn resume(&self) -> Result<(), StoreError> {
        let gap = self.held.read().map_err(|_| StoreError::LockPoisoned)?.paused.clone();
        if let Some(gap) = gap {
            self.add_coverage(CoverageGap { to_us: audit::now_us(), ..gap })?;
            // Only now: a word that could not be written is written the next time.
            self.held.write().map_err(|_| StoreError::LockPoisoned)?.paused = None;
        }
        Ok(())
    }

    /// Since when no events are taken, µs since the Unix epoch, and why.
    #[must_use]
    pub fn paused(&self) -> Option<(i64, String)> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.paused.as_ref().map(|gap| (gap.from_us, gap.detail.clone()))
    }
}

fn paused(from_us: i64, to_us: i64, why: &str) -> CoverageGap {
    CoverageGap {
        collector: "agent".to_owned(),
        reason: reason::STORE_PAUSED.to_owned(),
        from_us,
        to_us,
        count: None,
        detail: why.to_owned(),
        first: None,
        last: None,
    }
}

impl Held {
    /// Makes memory what `state.redb` says; returns the watermarks that have moved and the files that nothing refers to.
    fn settle(
        &mut self,
        files: Vec<SegmentFile>,
        committed: BTreeMap<String, Sequence>,
    ) -> (Vec<(String, Sequence)>, Vec<PathBuf>) {
        if let Some(open) = self.sealing.take()
            && !is_committed(&open, &committed)
        {
            self.open.prepend(&open);
        }
        let known: HashSet<u64> = files.iter().map(|file| file.id).collect();
        let paths: HashSet<&PathBuf> = files.iter().map(|file| &file.path).collect();
        let doubtful = std::mem::take(&mut self.doubtful);
        let garbage = doubtful.into_iter().filter(|path| !paths.contains(path)).collect();
        self.keep(&known);
        let held = self.segments.iter().chain(self.damaged.iter().map(|(file, _)| file));
        let held: HashSet<u64> = held.map(|file| file.id).collect();
        self.segments.extend(files.into_iter().filter(|file| !held.contains(&file.id)).map(Arc::new));
        let before = std::mem::replace(&mut self.committed, committed);
        let moved = self.committed.iter().filter(|(collector, at)| before.get(*collector) != Some(*at));
        (moved.map(|(collector, at)| (collector.clone(), *at)).collect(), garbage)
    }

    /// Lets go of the files that are registered no more.
    fn keep(&mut self, known: &HashSet<u64>) {
        let (segments, gone) =
            std::mem::take(&mut self.segments).into_iter().partition(|file| known.contains(&file.id));
        let (damaged, lost): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.damaged).into_iter().partition(|(file, _)| known.contains(&file.id));
        self.segments = segments;
        self.damaged = damaged;
        self.leaving.extend::<Vec<_>>(gone);
        self.leaving.extend(lost.into_iter().map(|(file, _)| file));
    }
}

/// Whether the transaction that seals `open` happened: it moves the watermark of everybody in it, or of nobody.
fn is_committed(open: &Open, committed: &BTreeMap<String, Sequence>) -> bool {
    open.ranges.values().all(|range| committed.get(&range.collector).is_some_and(|at| at.key() >= range.last))
}
