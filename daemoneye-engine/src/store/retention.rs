//! Retention by age and size: whole segments go, and coverage says so; so do alerts that nobody has to get any more, and the oldest
//! alerts where all together take too much. The ledger says what went.

use std::sync::Arc;

use daemoneye_lib::proto::{CoverageGap, Sequence};
use redb::WriteTransaction;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::forget::Forgotten;
use super::history::HistoryTable;
use super::owed::Owed;
use super::proven::Kept;
use super::segment::SegmentFile;
use super::state::{RATES, SEGMENTS};
use super::{Store, StoreError, coverage, leaving, owed};

/// Counters of the rate limit are kept this long: far beyond any replay.
const RATES_KEPT_MINUTES: i64 = 2 * 24 * 60;

/// What coverage and the ledger say about it.
pub(super) const AGE: &str = "removed because of their age";
const SIZE: &str = "removed because all events together had become too large";

/// What a retention run removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// Files.
    pub segments: usize,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Alerts.
    pub alerts: u64,
    /// Their deliveries.
    pub deliveries: u64,
    /// Rows of coverage.
    pub gaps: u64,
}

/// What retention takes next.
#[derive(Debug)]
pub(super) struct Victims {
    /// How many go now.
    pub(super) due: usize,
    /// Every segment, the first to go first.
    pub(super) files: Vec<Arc<SegmentFile>>,
    age_us: i64,
}

impl Victims {
    /// When its age makes a segment go.
    pub(super) fn goes_us(&self, file: &SegmentFile) -> i64 {
        file.dated.us().saturating_add(self.age_us)
    }
}

impl Store {
    /// Removes the segments that are dated before the retention, the oldest while all together are larger than they may be,
    /// and the alerts that were last seen before the retention. `now_us` is the believed time, [`Store::believed_us`]. A file that a query reads stays until the next
    /// run; an alert stays while a sink may still get it.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails; a file that cannot be deleted is logged and tried again.
    pub fn expire(&self, now_us: i64) -> Result<Expired, StoreError> {
        let before_us = now_us.saturating_sub(self.age_us());
        let mut expired = self.expire_segments(|files| older(files, before_us), Some(before_us))?;
        expired.add(self.expire_by_size()?);
        self.forget_rates(now_us)?;
        expired.gaps = self.forget_gaps(before_us)?;
        let forgotten = self.forget_alerts(now_us, before_us)?;
        expired.alerts = expired.alerts.saturating_add(forgotten.alerts);
        expired.deliveries = expired.deliveries.saturating_add(forgotten.deliveries);
        Ok(expired)
    }

    /// Removes the oldest segments while all together are larger than they may be, and alerts likewise: what cannot wait for
    /// [`Store::expire`] on a host that stores gigabytes an hour, or with a rule that matches everything.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn expire_by_size(&self) -> Result<Expired, StoreError> {
        let mut expired = self.expire_segments(|files| beyond(files, self.options.retention_bytes), None)?;
        let Forgotten { alerts, deliveries, .. } = self.forget_alerts_by_size()?;
        expired.add(Expired { alerts, deliveries, ..Expired::default() });
        Ok(expired)
    }

    fn expire_segments(
        &self,
        choose: impl FnOnce(&mut Vec<Arc<SegmentFile>>) -> Vec<Arc<SegmentFile>>,
        before_us: Option<i64>,
    ) -> Result<Expired, StoreError> {
        let _one_at_a_time = self.sealing.lock().map_err(|_| StoreError::LockPoisoned)?;
        let old = choose(&mut self.every_file()?);
        let mut expired = Expired { segments: old.len(), ..Expired::default() };
        for file in &old {
            expired.rows = expired.rows.saturating_add(file.rows);
            expired.bytes = expired.bytes.saturating_add(file.bytes);
        }
        if !old.is_empty() {
            self.unregister(&old, before_us, expired)?;
        }
        {
            let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
            let stays = |file: &Arc<SegmentFile>| !old.iter().any(|gone| gone.id == file.id);
            held.segments.retain(stays);
            held.damaged.retain(|(file, _)| stays(file));
            held.leaving.extend(old);
        }
        self.delete_leaving()?;
        Ok(expired)
    }

    /// `before_us`: what their age was judged by; `None`: it was their size.
    fn unregister(
        &self,
        old: &[Arc<SegmentFile>],
        before_us: Option<i64>,
        expired: Expired,
    ) -> Result<(), StoreError> {
        let why = if before_us.is_some() { AGE } else { SIZE };
        let mut gaps: Vec<CoverageGap> = old.iter().flat_map(|file| gaps(file, why)).collect();
        gaps.sort_by_key(|gap| gap.from_us);
        let (removed, room) = (removed(old), self.options.audit_entries);
        let kept = Kept::of(&self.ledger_dir(), &self.state.read()?, old, &removed)?;
        self.state.write(|transaction| {
            for file in old {
                transaction.open_table(SEGMENTS)?.remove((file.table.name(), file.first_us, file.id))?;
            }
            let told: Result<Vec<_>, _> = gaps.iter().map(|gap| coverage::prolong_alike(transaction, gap)).collect();
            coverage::tell(transaction, room, told?)?;
            kept.write(transaction)?;
            let ranges = removed.clone();
            owed::tell(transaction, room, why, Owed { before_us, ranges, expired })?;
            leaving::insert(transaction, old)
        })
    }

    fn age_us(&self) -> i64 {
        i64::try_from(self.options.retention.as_micros()).unwrap_or(i64::MAX)
    }

    /// What retention would take at `now_us`.
    pub(super) fn victims(&self, now_us: i64) -> Result<Victims, StoreError> {
        let mut files = self.every_file()?;
        let mut all = files.clone();
        let old = older(&mut files, now_us.saturating_sub(self.age_us())).len();
        let due = old.saturating_add(beyond(&mut files, self.options.retention_bytes).len());
        all.sort_by_key(order);
        Ok(Victims { due, files: all, age_us: self.age_us() })
    }

    pub(super) fn forget_rates(&self, now_us: i64) -> Result<(), StoreError> {
        let oldest_minute = now_us.div_euclid(60_000_000).saturating_sub(RATES_KEPT_MINUTES);
        self.state.write(|transaction| {
            transaction.open_table(RATES)?.retain(|(_, minute), _| minute >= oldest_minute)?;
            Ok(())
        })
    }
}

impl Expired {
    pub(super) const fn add(&mut self, more: Self) {
        self.segments = self.segments.saturating_add(more.segments);
        self.rows = self.rows.saturating_add(more.rows);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.alerts = self.alerts.saturating_add(more.alerts);
        self.deliveries = self.deliveries.saturating_add(more.deliveries);
        self.gaps = self.gaps.saturating_add(more.gaps);
    }

    /// Tells the ledger of what was too old, in the transaction that removes it.
    pub(super) fn tell(self, transaction: &WriteTransaction, room: u64, before_us: i64) -> Result<(), StoreError> {
        if self == Self::default() {
            return Ok(());
        }
        owed::tell(transaction, room, AGE, Owed { before_us: Some(before_us), ranges: Vec::new(), expired: self })
    }

    /// What the ledger says of it. `before_us`: what is older was too old; `None`: all was too large.
    pub(super) fn audited(self, before_us: Option<i64>) -> Value {
        let Self { segments, rows, bytes, alerts, deliveries, gaps } = self;
        json!({
            "before_us": before_us, "segments": segments, "rows": rows, "bytes": bytes,
            "alerts": alerts, "deliveries": deliveries, "coverage": gaps,
        })
    }
}

/// The first to go has the smallest.
fn order(file: &Arc<SegmentFile>) -> (i64, u64) {
    (file.dated.us(), file.id)
}

/// Takes out the files that are dated before `before_us`.
fn older(files: &mut Vec<Arc<SegmentFile>>, before_us: i64) -> Vec<Arc<SegmentFile>> {
    files.extract_if(.., |file| file.dated.us() < before_us).collect()
}

/// Takes out the oldest files, as many as have to go before the rest is not larger than `bound` bytes.
fn beyond(files: &mut Vec<Arc<SegmentFile>>, bound: u64) -> Vec<Arc<SegmentFile>> {
    files.sort_by_key(|file| std::cmp::Reverse(order(file)));
    let mut kept: u64 = 0;
    let stay = files.iter().position(|file| {
        kept = kept.saturating_add(file.bytes);
        kept > bound
    });
    files.split_off(stay.unwrap_or(files.len()))
}

/// A stretch of a stream whose events are gone, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) collector: String,
    pub(super) first: (u64, u64),
    pub(super) last: (u64, u64),
}

/// The events in these files, as few stretches as say it.
fn removed(old: &[Arc<SegmentFile>]) -> Vec<Removed> {
    let events = old.iter().filter(|file| file.table == HistoryTable::ProcessEvents);
    let ranges = events.flat_map(|file| file.ranges.iter());
    let all = ranges.map(|range| Removed { collector: range.collector.clone(), first: range.first, last: range.last });
    owed::joined_all(all.collect())
}

/// Bounded by the time of the segment: an event that was dated years ahead makes no gap until then.
fn gaps(file: &SegmentFile, why: &str) -> impl Iterator<Item = CoverageGap> {
    let to_us = file.dated.us();
    file.ranges.iter().map(move |range| CoverageGap {
        collector: range.collector.clone(),
        reason: file.table.retention_reason().to_owned(),
        from_us: file.first_us.min(to_us),
        to_us,
        count: Some(range.rows),
        detail: why.to_owned(),
        first: Some(Sequence::new(range.first.0, range.first.1)),
        last: Some(Sequence::new(range.last.0, range.last.1)),
    })
}
