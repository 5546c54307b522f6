//! Letting go of segments: those that nobody needs any more, and those that fall to the total bound.

use std::path::{Path, PathBuf};

use daemoneye_lib::proto::{CoverageGap, Sequence};
use daemoneye_lib::segment::{Kind, SegmentReader, WalHeader};
use prost::Message as _;

use super::{Inner, Segment, Shared, SyncMode, Wal, now_us, reason};
use crate::error::CollectorError;

/// Topics of the records that tell gaps begin with this.
const GAP_TOPICS: &str = "events.collector.";

/// Dropped segments that may wait for a sync. So many rotations without one mean a disk that hangs, and then the bound counts for more than
/// a word that could outlive a power failure.
const MAX_CONDEMNED: usize = 8;

impl Wal {
    /// The last record that [`Self::trim`] up to `upto` would delete; `None` when it would delete nothing.
    #[must_use]
    pub fn trimmable(&self, upto: Sequence) -> Option<Sequence> {
        let inner = self.shared.lock();
        let closed = inner.segments.len().saturating_sub(1);
        inner.segments.iter().take(closed).take_while(|s| self.unneeded(s, upto)).filter_map(|s| s.last).last()
    }

    /// Whether everything in it is taken, and something behind it is on disk: a log without any segment has forgotten its numbers.
    fn unneeded(&self, segment: &Segment, upto: Sequence) -> bool {
        let never = self.shared.options.sync == SyncMode::Never;
        segment.last <= Some(upto) && (never || segment.last < self.shared.progress.borrow().durable)
    }

    /// The agent has everything up to `upto`, whether or not a segment can go for it. Never waits for an append.
    pub(crate) fn committed(&self, upto: Sequence) {
        let mut shown = self.shared.shown();
        shown.committed = shown.committed.max(Some(upto));
    }

    /// The agent has this and no more, perhaps less than it had. Never waits for an append.
    pub(crate) fn agent_has(&self, upto: Option<Sequence>) {
        self.shared.shown().committed = upto;
    }

    /// Deletes the segments whose every record is at or below `upto`: the smallest of what the agent committed, a ledger entry covers and the
    /// source's checkpoint holds. The segment that is written stays, and so does the one before until something behind it is synced.
    ///
    /// # Errors
    /// A file cannot be removed; it is tried again at the next trim.
    pub fn trim(&self, upto: Sequence) -> Result<usize, CollectorError> {
        let options = &self.shared.options;
        self.committed(upto);
        let mut inner = self.shared.lock();
        if !inner.condemned.is_empty() {
            // Oldest first: a hole in what is left would pass for damage. What fell to the bound goes when its word is on disk.
            drop(inner);
            self.shared.wishes.ask(true);
            return Ok(0);
        }
        let mut deleted = 0;
        while inner.segments.len() > 1 {
            let Some(oldest) = inner.segments.front().filter(|s| self.unneeded(s, upto)) else { break };
            let (path, last) = (oldest.path.clone(), oldest.last);
            let removed = options.remove(&path);
            if removed.is_err() {
                self.shared.show(&inner);
            }
            removed?;
            inner.trimmed = inner.trimmed.max(last);
            inner.segments.pop_front();
            deleted += 1;
        }
        self.shared.show(&inner);
        Ok(deleted)
    }
}

impl Inner {
    pub(super) fn end(&self) -> u64 {
        self.segments.back().map_or(0, |s| s.base) + self.log.offset()
    }

    pub(super) fn last(&self) -> Option<Sequence> {
        self.segments.iter().rev().find_map(|s| s.last)
    }

    /// Drops the oldest segments until one more has room under the total bound; what nobody committed is told, and its file goes only when
    /// that word is on disk: a power failure must not take both.
    pub(super) fn hold_bound(&mut self, wal: &Wal) {
        let options = &wal.shared.options;
        if self.condemned.len() >= MAX_CONDEMNED {
            self.release(&wal.shared);
        }
        let committed = wal.shared.committed();
        while self.segments.len() > 1 {
            let used: u64 = self.segments.iter().map(|s| s.bytes).sum();
            // The next one, its spare, and the one that goes take room as well.
            if used + 3 * options.segment_bytes <= options.max_bytes {
                return;
            }
            let Some(oldest) = self.segments.pop_front() else { return };
            self.trimmed = self.trimmed.max(oldest.last);
            if oldest.last > committed {
                let gap = gap_of(&oldest, committed, &options.prefix);
                self.lost += gap.count.unwrap_or_default();
                self.untold.add(gap.clone());
                self.gaps.push(gap);
            }
            let read = oldest.last <= committed;
            self.condemned.push(Condemned { number: oldest.number, path: oldest.path, read });
        }
    }

    /// Tells again what was told in segments that are about to go, so that the word of a loss is not lost with them.
    pub(super) fn tell_again(shared: &Shared) {
        let unread: Vec<PathBuf> =
            shared.lock().condemned.iter().filter(|one| !one.read).map(|one| one.path.clone()).collect();
        if unread.is_empty() {
            return;
        }
        let committed = shared.committed();
        // Without the lock: nobody who appends waits for it.
        let found: Vec<Option<Vec<CoverageGap>>> = unread.iter().map(|path| told_in(path, committed)).collect();
        let mut inner = shared.lock();
        let mut again = Vec::new();
        for (path, told) in unread.iter().zip(found) {
            // One that has gone meanwhile was read by whoever let it go; one that cannot be read now is read after the next sync.
            let Some(told) = told else { continue };
            if let Some(one) = inner.condemned.iter_mut().find(|one| !one.read && one.path == *path) {
                one.read = true;
                join_all(&mut again, told);
            }
        }
        inner.gaps.splice(0..0, again);
    }

    /// The last of the dropped segments of which, and of those before, everything is told that has to be.
    pub(super) fn told(&self) -> Option<u64> {
        self.condemned.iter().take_while(|one| one.read).last().map(|one| one.number)
    }

    /// Removes the files of all dropped segments.
    pub(super) fn release(&mut self, shared: &Shared) {
        self.release_upto(u64::MAX, shared);
    }

    /// Removes those up to a number, under the lock: a younger one must not go first, nor one that was dropped meanwhile.
    pub(super) fn release_upto(&mut self, number: u64, shared: &Shared) {
        let (mut again, committed) = (Vec::new(), shared.committed());
        let count = self.condemned.iter().take_while(|one| one.number <= number).count();
        for Condemned { path, read, .. } in self.condemned.drain(..count) {
            if !read {
                join_all(&mut again, told_in(&path, committed).into_iter().flatten());
            }
            if let Err(error) = shared.options.remove(&path) {
                tracing::error!(%error, "a segment above the total bound cannot be removed");
            }
        }
        self.gaps.splice(0..0, again);
    }
}

/// A dropped segment whose file is still there.
pub(super) struct Condemned {
    number: u64,
    path: PathBuf,
    /// Nothing is told in it that has to be told again.
    read: bool,
}

/// The gaps that a segment's records behind `committed` tell, one for each reason; `None` when it cannot be read now.
fn told_in(path: &Path, committed: Option<Sequence>) -> Option<Vec<CoverageGap>> {
    let mut told = Vec::new();
    let mut reader = SegmentReader::open(path, Kind::Wal).ok()?;
    while let Ok(Ok(Some(raw))) = reader.step() {
        let Ok(header) = raw.header::<WalHeader>() else { continue };
        let sequence = Some(Sequence::new(header.epoch, header.number));
        if sequence > committed && header.topic.starts_with(GAP_TOPICS) {
            join_all(&mut told, CoverageGap::decode(raw.payload.as_ref()).ok());
        }
    }
    Some(told)
}

fn join_all(told: &mut Vec<CoverageGap>, more: impl IntoIterator<Item = CoverageGap>) {
    for gap in more {
        // One without a count would take the count of the others away.
        let same =
            |other: &&mut CoverageGap| (&other.reason, other.count.is_some()) == (&gap.reason, gap.count.is_some());
        match told.iter_mut().find(same) {
            Some(other) => join(other, &gap),
            None => told.push(gap),
        }
    }
}

/// One gap for two of a kind: as many events, in the time from the first to the last.
fn join(gap: &mut CoverageGap, more: &CoverageGap) {
    gap.from_us = gap.from_us.min(more.from_us);
    gap.to_us = gap.to_us.max(more.to_us);
    gap.count = gap.count.zip(more.count).map(|(a, b)| a.saturating_add(b));
    gap.first = gap.first.zip(more.first).map(|(a, b)| a.min(b));
    gap.last = gap.last.max(more.last);
    "several gaps, told again because the segments that told them fell to the log's total bound"
        .clone_into(&mut gap.detail);
}

/// What of a dropped segment the agent does not have.
fn gap_of(segment: &Segment, committed: Option<Sequence>, collector: &str) -> CoverageGap {
    let mut gap = CoverageGap {
        collector: collector.to_owned(),
        reason: reason::BOUND.to_owned(),
        from_us: segment.time_us.0,
        to_us: if segment.records == 0 { now_us() } else { segment.time_us.1 },
        count: Some(segment.records),
        detail: format!(
            "segment {} fell to the write-ahead log's total bound before the agent took it",
            segment.number
        ),
        first: segment.first,
        last: segment.last,
    };
    if let (Some(has), Some(first), Some(last)) = (committed, segment.first, segment.last)
        && has.epoch == first.epoch
        && (first.number..last.number).contains(&has.number)
    {
        gap.first = Some(Sequence::new(has.epoch, has.number + 1));
        gap.count = Some(last.number - has.number);
    }
    gap
}
