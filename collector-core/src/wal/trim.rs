//! Letting go of segments: those that nobody needs any more, and those that fall to the total bound.

use daemoneye_lib::proto::{CoverageGap, Sequence};

use super::{Inner, Segment, Wal, now_us, reason};
use crate::error::CollectorError;

impl Wal {
    /// The last record that [`Self::trim`] up to `upto` would delete; `None` when it would delete nothing.
    #[must_use]
    pub fn trimmable(&self, upto: Sequence) -> Option<Sequence> {
        let inner = self.shared.lock();
        let closed = inner.segments.len().saturating_sub(1);
        inner.segments.iter().take(closed).take_while(|s| s.last <= Some(upto)).filter_map(|s| s.last).last()
    }

    /// Deletes the segments whose every record is at or below `upto`: the smallest of what the agent committed, a ledger entry covers and the
    /// source's checkpoint holds. The segment that is written stays.
    ///
    /// # Errors
    /// A file cannot be removed; it is tried again at the next trim.
    pub fn trim(&self, upto: Sequence) -> Result<usize, CollectorError> {
        let options = self.shared.options.log();
        let mut inner = self.shared.lock();
        inner.committed = inner.committed.max(Some(upto));
        let mut deleted = 0;
        while inner.segments.len() > 1 {
            let Some(oldest) = inner.segments.front().filter(|s| s.last <= Some(upto)) else { break };
            options.remove(&oldest.path)?;
            let last = oldest.last;
            inner.trimmed = inner.trimmed.max(last);
            inner.segments.pop_front();
            deleted += 1;
        }
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

    /// Drops the oldest segments until one more has room under the total bound; what nobody committed is told.
    pub(super) fn hold_bound(&mut self, wal: &Wal) {
        let options = &wal.shared.options;
        while self.segments.len() > 1 {
            let used: u64 = self.segments.iter().map(|s| s.bytes).sum();
            // The spare counts as well: it takes the room before it is begun.
            if used + 2 * options.segment_bytes <= options.max_bytes {
                return;
            }
            let Some(oldest) = self.segments.pop_front() else { return };
            if let Err(error) = options.log().remove(&oldest.path) {
                tracing::error!(%error, "a segment above the total bound cannot be removed");
            }
            self.trimmed = self.trimmed.max(oldest.last);
            if oldest.last > self.committed {
                self.lost += oldest.records;
                self.gaps.push(gap_of(&oldest, &options.prefix));
            }
        }
    }
}

fn gap_of(segment: &Segment, collector: &str) -> CoverageGap {
    CoverageGap {
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
    }
}
