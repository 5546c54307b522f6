//! What is missing from an answer, collected from wherever it is noticed: the tables, the stream of rows, the clock.

use crate::store::reason;
use daemoneye_lib::model::{Completeness, Degraded};
use daemoneye_lib::proto;
use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Things told about one answer: beyond that, a list of them helps nobody.
const MAX_LACKS: usize = 32;
/// Things counted beyond that.
const MAX_COUNTED: usize = 100_000;
/// How DataFusion begins to say that the quota of the scratch directory is used up.
const OVER_QUOTA: &str = "The used disk space during the spilling process";

/// One thing that is missing from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lack {
    pub(crate) reason: Degraded,
    /// For a person.
    pub(crate) what: String,
    /// The time that it touches, both ends, µs since the Unix epoch.
    pub(crate) range: Option<(i64, i64)>,
}

impl Lack {
    pub(crate) fn new(reason: Degraded, what: impl Into<String>) -> Self {
        Self { reason, what: what.into(), range: None }
    }

    pub(crate) fn during(self, from_us: i64, to_us: i64) -> Self {
        Self { range: Some((from_us, to_us)), ..self }
    }

    fn to_proto(&self) -> proto::Lack {
        let (from_us, to_us) = self.range.map_or((0, 0), |(from, to)| (told_end(from), told_end(to)));
        proto::Lack { reason: self.reason.as_str().to_owned(), what: self.what.clone(), from_us, to_us }
    }
}

/// An end that nobody set is not a time.
const fn told_end(us: i64) -> i64 {
    if us == i64::MIN || us == i64::MAX { 0 } else { us }
}

#[derive(Debug, Default)]
struct Known {
    lacks: Vec<Lack>,
    /// What had no room in the list, as hashes, and the reason of the last of it.
    more: BTreeSet<u64>,
    last: Option<Degraded>,
}

/// Shared by everything that works on one query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Missing(Arc<Mutex<Known>>);

impl Missing {
    /// Adds it, once; a reason that is not told yet has room always.
    pub(crate) fn add(&self, lack: Lack) {
        let mut known = self.lock();
        let told = known.lacks.iter().any(|other| other.reason == lack.reason);
        if known.lacks.contains(&lack) {
            return;
        }
        if known.lacks.len() < MAX_LACKS || !told {
            known.lacks.push(lack);
        } else if known.more.len() < MAX_COUNTED {
            let mut hasher = DefaultHasher::new();
            lack.hash(&mut hasher);
            known.more.insert(hasher.finish());
            known.last = Some(lack.reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn so_far(&self) -> Completeness {
        let mut completeness = Completeness::complete();
        self.lock().lacks.iter().for_each(|lack| completeness.degrade(lack.reason));
        completeness
    }

    /// What is missing so far, in the shape that goes over a socket.
    pub(crate) fn lacks(&self) -> Vec<proto::Lack> {
        let known = self.lock();
        let rest = known.last.map(|reason| {
            let at_least = if known.more.len() < MAX_COUNTED { "" } else { "at least " };
            Lack::new(reason, format!("{at_least}{} more like these, not listed", known.more.len()))
        });
        known.lacks.iter().chain(&rest).map(Lack::to_proto).collect()
    }
}

/// Nobody has taken a page for so long that the query ended.
pub(crate) fn stopped_reader(waited: Duration) -> Lack {
    let what = format!("reader: it took nothing for {} s, so the rest was not read", waited.as_secs());
    Lack::new(Degraded::TimedOut, what)
}

/// What a coverage gap of this reason means for an answer about events of its time; `None`: they are all there, or, for
/// retention, it depends on what was asked.
pub(crate) fn of_gap(gap: &str) -> Option<Degraded> {
    match gap {
        reason::ALERTS_RETENTION
        | reason::ALERTS_UNDELIVERED
        | reason::AUDIT_FULL
        | reason::LIFETIMES_RETENTION
        | reason::NO_TABLE
        | reason::PROCESSES_FULL
        | reason::RETENTION
        | reason::RULE_OVER_BUDGET
        // The files that cannot be used now are known; one that was put back is whole.
        | reason::SEGMENT_DAMAGED
        | reason::STORE_PAUSED
        | reason::SUBSCRIBER_SLOW => None,
        reason::COLLECTOR_UNAVAILABLE => Some(Degraded::CollectorUnavailable),
        reason::SEGMENTS_UNREGISTERED | reason::WAL_UNREADABLE => Some(Degraded::DataUnreadable),
        reason::WAL_BEYOND_BOUND => Some(Degraded::Capped),
        // not_received, undecodable, shed, wal_bound, wal_corrupt, wal_disk, wal_oversize, and what a newer collector may tell:
        // events that were there once and are not here.
        _ => Some(Degraded::EventsShed),
    }
}

/// What an answer lacks whose plan found no memory.
pub(crate) const NO_MEMORY: &str = "memory: it needs more than query.memory_bytes";

/// What an error stands for when the rows so far are still right; `None`: the query failed.
pub(crate) fn degradation(error: &DataFusionError) -> Option<Lack> {
    let text = error.to_string();
    if text.contains(OVER_QUOTA) {
        return Some(Lack::new(Degraded::Capped, "scratch: it needs more disk than query.scratch_bytes"));
    }
    let root = error.find_root();
    let io = match root {
        DataFusionError::ResourcesExhausted(text) if text.contains(" would build up to ") => {
            return Some(Lack::new(Degraded::Capped, text.clone()));
        }
        DataFusionError::ResourcesExhausted(_) => {
            return Some(Lack::new(Degraded::Capped, NO_MEMORY));
        }
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::IoError(_, io) => Some(io),
            ArrowError::ParquetError(_) => None,
            _ => return None,
        },
        DataFusionError::IoError(io) => Some(io),
        DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => None,
        _ => return None,
    };
    // Only the scratch directory is written to.
    let full = io.is_some_and(|io| matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
    Some(if full {
        Lack::new(Degraded::Capped, "scratch: the disk is full")
    } else {
        Lack::new(Degraded::DataUnreadable, "a segment could not be read to its end")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_in_the_list_is_counted_once_each() {
        let missing = Missing::default();
        for n in (0..MAX_LACKS + 8).chain(0..MAX_LACKS + 8) {
            missing.add(Lack::new(Degraded::DataUnreadable, format!("segment {n}")).during(i64::MIN, 7));
        }
        let lacks = missing.lacks();
        assert_eq!(lacks.len(), MAX_LACKS + 1);
        assert_eq!((lacks[0].from_us, lacks[0].to_us), (0, 7), "an open end is no time");
        assert_eq!(lacks.last().unwrap().what, "8 more like these, not listed");
    }

    #[test]
    fn a_gap_says_what_was_lost_and_what_was_only_not_told() {
        assert_eq!(of_gap("collector_unavailable"), Some(Degraded::CollectorUnavailable));
        for unread in ["segments_unregistered", "wal_unreadable"] {
            assert_eq!(of_gap(unread), Some(Degraded::DataUnreadable), "{unread}");
        }
        assert_eq!(of_gap("wal_beyond_bound"), Some(Degraded::Capped));
        for lost in
            ["not_received", "undecodable", "shed", "wal_bound", "wal_corrupt", "wal_disk", "wal_oversize", "new"]
        {
            assert_eq!(of_gap(lost), Some(Degraded::EventsShed), "{lost}");
        }
        for kept in [
            "retention",
            "lifetimes_retention",
            "subscriber_slow",
            "no_table",
            "alerts_retention",
            "alerts_undelivered",
            "audit_outbox_full",
            "processes_full",
            "segment_damaged",
            "store_paused",
        ] {
            assert_eq!(of_gap(kept), None, "{kept}");
        }
    }
}
