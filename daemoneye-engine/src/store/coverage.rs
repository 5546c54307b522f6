//! What was not seen, and why. Gaps that touch are one row, so that a flood of them is not a flood of rows.

use std::collections::{BTreeSet, HashSet};

use daemoneye_lib::proto::{CoverageGap, Sequence};
use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::retention::Expired;
use super::state::{COVERAGE, COVERAGE_NEWEST, next};
use super::state_view::Thinned;
use super::value::Record;
use super::{Store, StoreError, audit, reason};

/// Gaps of one kind that are no further apart than this are told as one: 10 s, two snapshot intervals.
const JOIN_WITHIN_US: i64 = 10_000_000;
/// Gaps that one transaction removes: it holds up those that seal. The next round takes the next ones.
const FORGOTTEN_AT_ONCE: usize = 10_000;
const COVERAGE_COUNTER: &str = "last_coverage";

/// One gap, or several that touch.
#[derive(Debug, Clone, PartialEq)]
pub struct CoverageRow {
    /// Number of the row; 0 for one that is only in memory yet.
    pub id: u64,
    /// What is missing.
    pub gap: CoverageGap,
}

/// A gap as it is stored; positions are (epoch, number).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredGap {
    collector: String,
    reason: String,
    from_us: i64,
    to_us: i64,
    count: Option<u64>,
    detail: String,
    first: Option<(u64, u64)>,
    last: Option<(u64, u64)>,
}

impl Record for StoredGap {
    const NAME: &'static str = "coverage";
}

impl StoredGap {
    fn of(gap: &CoverageGap) -> Self {
        Self {
            collector: gap.collector.clone(),
            reason: gap.reason.clone(),
            from_us: gap.from_us,
            to_us: gap.to_us.max(gap.from_us),
            count: gap.count,
            detail: gap.detail.clone(),
            first: gap.first.as_ref().map(Sequence::key),
            last: gap.last.as_ref().map(Sequence::key),
        }
    }

    pub(super) fn into_gap(self) -> CoverageGap {
        let Self { collector, reason, from_us, to_us, count, detail, first, last } = self;
        let sequence = |(epoch, number)| Sequence::new(epoch, number);
        CoverageGap {
            collector,
            reason,
            from_us,
            to_us,
            count,
            detail,
            first: first.map(sequence),
            last: last.map(sequence),
        }
    }

    /// What the ledger says of a row: all of it.
    pub(super) fn audited(&self, id: u64) -> Value {
        let place = |at: Option<(u64, u64)>| at.map(|(epoch, number)| Sequence::new(epoch, number).to_string());
        json!({
            "row": id, "collector": self.collector, "reason": self.reason, "from_us": self.from_us, "to_us": self.to_us,
            "count": self.count, "detail": self.detail, "first": place(self.first), "last": place(self.last),
        })
    }

    fn touches(&self, gap: &CoverageGap, within_us: i64) -> bool {
        gap.from_us >= self.from_us && gap.from_us <= self.to_us.saturating_add(within_us)
    }

    fn extend(&mut self, gap: &CoverageGap) {
        self.to_us = self.to_us.max(gap.to_us);
        self.count = self.count.zip(gap.count).map(|(before, more)| before.saturating_add(more));
        self.first = self.first.or(gap.first.as_ref().map(Sequence::key));
        self.last = gap.last.as_ref().map(Sequence::key).or(self.last);
    }
}

/// Key of a row: where it begins, and its number.
pub(super) type RowKey = (i64, u64);

/// Writes rows as they are now into the ledger, each once however often this transaction changed it.
pub(super) fn tell(
    transaction: &WriteTransaction,
    room: u64,
    keys: impl IntoIterator<Item = RowKey>,
) -> Result<(), StoreError> {
    let keys: BTreeSet<RowKey> = keys.into_iter().collect();
    for key in keys {
        let row = match transaction.open_table(COVERAGE)?.get(key)? {
            Some(row) => row.value().decode()?,
            None => continue,
        };
        audit::push(transaction, room, "agent", "coverage", &row.audited(key.1))?;
    }
    Ok(())
}

/// The same for the newest row of a kind.
pub(super) fn tell_newest(transaction: &WriteTransaction, room: u64, kind: (&str, &str)) -> Result<(), StoreError> {
    let newest = transaction.open_table(COVERAGE_NEWEST)?.get(kind)?.map(|key| key.value());
    tell(transaction, room, newest)
}

/// Writes a gap, or extends the newest of its kind when the two touch. Whoever changes rows tells the ledger, with [`tell`].
pub(super) fn record(transaction: &WriteTransaction, gap: &CoverageGap) -> Result<RowKey, StoreError> {
    // Two outages with a working time between them are two.
    let within_us = if gap.reason == reason::COLLECTOR_UNAVAILABLE { 0 } else { JOIN_WITHIN_US };
    record_within(transaction, gap, within_us)
}

/// Writes a gap that is a row of its own, whatever it touches: its detail names one thing.
pub(super) fn record_alone(transaction: &WriteTransaction, gap: &CoverageGap) -> Result<RowKey, StoreError> {
    let id = next(transaction, COVERAGE_COUNTER)?;
    transaction.open_table(COVERAGE)?.insert((gap.from_us, id), StoredGap::of(gap).encode()?)?;
    Ok((gap.from_us, id))
}

/// Extends the newest gap of this kind, whatever lies between: the cause has been there all the time.
pub(super) fn prolong(transaction: &WriteTransaction, gap: &CoverageGap) -> Result<RowKey, StoreError> {
    record_within(transaction, gap, i64::MAX)
}

/// The same where both give the same detail.
pub(super) fn prolong_alike(transaction: &WriteTransaction, gap: &CoverageGap) -> Result<RowKey, StoreError> {
    extend_or_insert(transaction, gap, |row| row.touches(gap, i64::MAX) && row.detail == gap.detail)
}

fn record_within(transaction: &WriteTransaction, gap: &CoverageGap, within_us: i64) -> Result<RowKey, StoreError> {
    extend_or_insert(transaction, gap, |row| row.touches(gap, within_us))
}

fn extend_or_insert(
    transaction: &WriteTransaction,
    gap: &CoverageGap,
    is_same: impl Fn(&StoredGap) -> bool,
) -> Result<RowKey, StoreError> {
    let kind = (gap.collector.as_str(), gap.reason.as_str());
    let mut newest = transaction.open_table(COVERAGE_NEWEST)?;
    let mut table = transaction.open_table(COVERAGE)?;
    let key = newest.get(kind)?.map(|key| key.value());
    if let Some(key) = key {
        let row = match table.get(key)? {
            Some(row) => Some(row.value().decode()?),
            None => None,
        };
        if let Some(mut row) = row.filter(is_same) {
            row.extend(gap);
            table.insert(key, row.encode()?)?;
            return Ok(key);
        }
    }
    let id = next(transaction, COVERAGE_COUNTER)?;
    table.insert((gap.from_us, id), StoredGap::of(gap).encode()?)?;
    newest.insert(kind, (gap.from_us, id))?;
    Ok((gap.from_us, id))
}

impl Store {
    /// Removes gaps that ended before everything that is kept. The newest of each kind stays: it may still grow, and that of
    /// retention says where the history begins.
    pub(super) fn forget_gaps(&self, before_us: i64) -> Result<u64, StoreError> {
        self.state.write(|transaction| {
            let newest = transaction.open_table(COVERAGE_NEWEST)?;
            let mut kept = HashSet::new();
            for entry in newest.iter()? {
                kept.insert(entry?.1.value());
            }
            let mut table = transaction.open_table(COVERAGE)?;
            let (mut old, mut until_us) = (Vec::new(), None);
            for entry in table.range(..(before_us, 0))? {
                let (key, gap) = entry?;
                let to_us = gap.value().decode()?.to_us;
                if !kept.contains(&key.value()) && to_us < before_us {
                    old.push(key.value());
                    until_us = until_us.max(Some(to_us));
                }
                if old.len() >= FORGOTTEN_AT_ONCE {
                    break;
                }
            }
            for key in &old {
                table.remove(*key)?;
            }
            // A table is open once in a transaction, and a full outbox is told there.
            drop((table, newest));
            Thinned::Coverage.mark(transaction, until_us)?;
            let gaps = old.len() as u64;
            Expired { gaps, ..Expired::default() }.tell(transaction, self.options.audit_entries, before_us)?;
            Ok(gaps)
        })
    }

    /// Stores a gap at once.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn add_coverage(&self, gap: CoverageGap) -> Result<(), StoreError> {
        self.state.write(|transaction| {
            let key = record(transaction, &gap)?;
            tell(transaction, self.options.audit_entries, [key])
        })
    }

    /// Every gap, by time, including those that wait in memory for the next seal.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a row cannot be read.
    pub fn coverage(&self) -> Result<Vec<CoverageRow>, StoreError> {
        let mut rows: Vec<CoverageRow> = self.state_view()?.coverage()?.collect::<Result<_, _>>()?;
        rows.sort_by_key(|row| (row.gap.from_us, row.id));
        Ok(rows)
    }

    /// Gaps that wait in memory for the next seal.
    pub(super) fn waiting_gaps(&self) -> Result<Vec<CoverageGap>, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        let sealing = held.sealing.iter().flat_map(|open| open.gaps.iter());
        Ok(sealing.chain(&held.open.gaps).map(|gap| &gap.gap).chain(&held.paused).cloned().collect())
    }
}
