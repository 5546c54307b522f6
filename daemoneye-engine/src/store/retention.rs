//! Retention by age: whole segments go, and coverage says so; so do alerts that nobody has to get any more. The ledger says
//! what went.

use std::fs;
use std::sync::Arc;

use daemoneye_lib::proto::{CoverageGap, Sequence};
use serde_json::json;

use super::segment::{PROCESS_EVENTS, SegmentFile};
use super::state::{RATES, SEGMENTS};
use super::{Store, StoreError, audit, coverage, reason};

/// Counters of the rate limit are kept this long: far beyond any replay.
const RATES_KEPT_MINUTES: i64 = 2 * 24 * 60;

/// What a retention run removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
}

impl Store {
    /// Removes the segments whose latest event is older than the retention, and the alerts that were last seen before it. A
    /// file that a query reads stays until the next run; an alert stays while a sink may still get it.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails; a file that cannot be deleted is logged and tried again.
    pub fn expire(&self, now_us: i64) -> Result<Expired, StoreError> {
        let age_us = i64::try_from(self.options.retention.as_micros()).unwrap_or(i64::MAX);
        let before_us = now_us.saturating_sub(age_us);
        let mut expired = self.expire_segments(now_us, before_us)?;
        let forgotten = self.forget_alerts(now_us, before_us)?;
        (expired.alerts, expired.deliveries) = (forgotten.alerts, forgotten.deliveries);
        if expired != Expired::default() {
            let payload = json!({
                "before_us": before_us, "segments": expired.segments, "rows": expired.rows, "bytes": expired.bytes,
                "alerts": expired.alerts, "deliveries": expired.deliveries,
            });
            let room = self.options.audit_entries;
            self.state.write(|transaction| audit::push(transaction, room, "agent", "retention", &payload))?;
        }
        Ok(expired)
    }

    fn expire_segments(&self, now_us: i64, before_us: i64) -> Result<Expired, StoreError> {
        let _one_at_a_time = self.sealing.lock().map_err(|_| StoreError::LockPoisoned)?;
        let old: Vec<Arc<SegmentFile>> = {
            let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
            let registered = held.segments.iter().chain(held.damaged.iter().map(|(file, _)| file));
            registered.filter(|file| file.last_us < before_us).cloned().collect()
        };
        self.unregister(&old, now_us)?;
        let mut expired = Expired { segments: old.len(), ..Expired::default() };
        for file in &old {
            expired.rows = expired.rows.saturating_add(file.rows);
            expired.bytes = expired.bytes.saturating_add(file.bytes);
        }
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let stays = |file: &Arc<SegmentFile>| !old.iter().any(|gone| gone.id == file.id);
        held.segments.retain(stays);
        held.damaged.retain(|(file, _)| stays(file));
        held.leaving.extend(old);
        held.leaving.retain_mut(|file| !delete_unread(file));
        Ok(expired)
    }

    fn unregister(&self, old: &[Arc<SegmentFile>], now_us: i64) -> Result<(), StoreError> {
        let oldest_minute = now_us.div_euclid(60_000_000).saturating_sub(RATES_KEPT_MINUTES);
        self.state.write(|transaction| {
            for file in old {
                transaction.open_table(SEGMENTS)?.remove((PROCESS_EVENTS, file.first_us, file.id))?;
                for gap in gaps(file) {
                    coverage::record(transaction, &gap)?;
                }
            }
            transaction.open_table(RATES)?.retain(|(_, minute), _| minute >= oldest_minute)?;
            Ok(())
        })
    }
}

fn gaps(file: &SegmentFile) -> impl Iterator<Item = CoverageGap> {
    file.ranges.iter().map(|range| CoverageGap {
        collector: range.collector.clone(),
        reason: reason::RETENTION.to_owned(),
        from_us: file.first_us,
        to_us: file.last_us,
        count: Some(range.rows),
        detail: "removed because of their age".to_owned(),
        first: Some(Sequence::new(range.first.0, range.first.1)),
        last: Some(Sequence::new(range.last.0, range.last.1)),
    })
}

/// Deletes the file when no snapshot holds it; true when it is gone.
fn delete_unread(file: &mut Arc<SegmentFile>) -> bool {
    if Arc::get_mut(file).is_none() {
        return false;
    }
    match fs::remove_file(&file.path) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(path = %file.path.display(), %error, "cannot delete an expired segment");
            false
        }
    }
}
