//! The time that a segment is accounted under: by it segments grow old, and by it those of an hour or day become one.
//!
//! It is the time of the latest event in it, but never later than when the segment was stored. Event times may lie. Without
//! the bound one event of a wrong clock, dated years ahead, would keep its whole segment, and after merging its whole day,
//! out of reach of retention for those years; dropping it at once would lose an event that somebody may look for. So it
//! stays as long as what was stored beside it. What a time says about rows, for a query to skip a file, is not bounded.

use std::sync::atomic::{AtomicI64, Ordering};

use redb::{ReadableTable as _, WriteTransaction};

use super::segment::SegmentRow;
use super::state::SEGMENTS;
use super::value::Record as _;
use super::{Store, StoreError};

/// That time, in µs since the Unix epoch. It changes in place, because queries hold the file that it belongs to.
#[derive(Debug, Default)]
pub struct Dated(AtomicI64);

impl Dated {
    /// The time of the latest event, `last_us`, as far as it had come at `stored_us`.
    #[must_use]
    pub fn new(last_us: i64, stored_us: i64) -> Self {
        Self(AtomicI64::new(last_us.min(stored_us)))
    }

    /// In µs since the Unix epoch.
    #[must_use]
    pub fn us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Dated {
    fn clone(&self) -> Self {
        Self(AtomicI64::new(self.us()))
    }
}

impl PartialEq for Dated {
    fn eq(&self, other: &Self) -> bool {
        self.us() == other.us()
    }
}

impl Eq for Dated {}

/// A step of the host's clock that has been believed: what was stored while it stood was dated before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The believed time when it began.
    pub(super) began_us: i64,
    /// The believed time now.
    pub(super) now_us: i64,
}

impl Step {
    /// The time of a segment with events until `last_us` that was dated `dated_us`.
    fn dates(self, dated_us: i64, last_us: i64) -> i64 {
        if dated_us < last_us && dated_us >= self.began_us { last_us.min(self.now_us) } else { dated_us }
    }
}

/// Dates in the list what was stored while the step stood.
pub(super) fn redate(transaction: &WriteTransaction, step: Step) -> Result<(), StoreError> {
    let mut segments = transaction.open_table(SEGMENTS)?;
    let mut changed = Vec::new();
    for entry in segments.iter()? {
        let (at, row) = entry?;
        let row = row.value().decode()?;
        let dated_us = step.dates(row.dated_us, row.last_us);
        if dated_us != row.dated_us {
            let (table, first_us, id) = at.value();
            changed.push((table.to_owned(), first_us, id, SegmentRow { dated_us, ..row }));
        }
    }
    for (table, first_us, id, row) in changed {
        segments.insert((table.as_str(), first_us, id), row.encode()?)?;
    }
    Ok(())
}

impl Store {
    /// The same in memory, once the transaction with [`redate`] is on disk.
    pub(super) fn redated(&self, step: Step) -> Result<(), StoreError> {
        for file in self.every_file()? {
            file.dated.0.store(step.dates(file.dated.us(), file.last_us), Ordering::Relaxed);
        }
        Ok(())
    }
}
