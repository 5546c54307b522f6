//! The leaves of events that retention takes out of a range of which others stay: without them nobody could compute the range's
//! root again. A range that goes as a whole needs none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::ledger::{EventRange, Hash};
use daemoneye_lib::proto::Sequence;
use daemoneye_lib::segment::SegmentError;
use redb::{ReadTransaction, WriteTransaction};

use super::super::StoreError;
use super::super::retention::Removed;
use super::super::segment::SegmentFile;
use super::super::state::RANGE_LEAVES;
use super::leaves::{Leaves, Seen};

/// What a removal changes in the table of kept leaves.
#[derive(Debug, Default)]
pub(in crate::store) struct Kept {
    insert: Vec<(String, u64, u64, Hash)>,
    /// Ranges of which nothing is left.
    remove: Vec<EventRange>,
}

impl Kept {
    /// Of the events in `old`, which make up the stretches `removed`. A ledger that cannot be read costs the proof of what is left of
    /// the ranges at the edges, never the removal.
    pub(in crate::store) fn of(
        ledger: &Path,
        transaction: &ReadTransaction,
        old: &[Arc<SegmentFile>],
        removed: &[Removed],
    ) -> Result<Self, StoreError> {
        let cut = match cut(ledger, removed) {
            Ok(cut) => cut,
            Err(error) => {
                tracing::warn!(%error, "ranges of the ledger that retention cuts cannot be proven any more");
                return Ok(Self::default());
            }
        };
        let (mut leaves, mut kept) = (Leaves::of(old, &[]), Self::default());
        let bounds = |range: &EventRange| ((range.epoch, range.first), (range.epoch, range.last));
        let is_cut = |event: &Seen<'_>, range: &EventRange| {
            let (first, last) = bounds(range);
            range.collector == event.collector && (first..=last).contains(&event.at)
        };
        for range in cut.values() {
            let bounds = bounds(range);
            let mut keep = |event: &Seen<'_>| cut.values().any(|range| is_cut(event, range));
            while leaves.advance(&range.collector, bounds.1, range.schema, &mut keep) {}
            let goes = leaves.take(&range.collector, bounds);
            let mut known: BTreeSet<u64> = goes.keys().copied().collect();
            known.extend(read(transaction, range)?.into_keys());
            if range.numbers().all(|number| known.contains(&number)) {
                kept.remove.push(range.clone());
            } else {
                let rows =
                    goes.into_iter().map(|(number, leaf)| (range.collector.clone(), range.epoch, number, leaf.hash));
                kept.insert.extend(rows);
            }
        }
        Ok(kept)
    }

    /// In the transaction that removes the events.
    pub(in crate::store) fn write(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = transaction.open_table(RANGE_LEAVES)?;
        for (collector, epoch, number, leaf) in &self.insert {
            table.insert((collector.as_str(), *epoch, *number), leaf)?;
        }
        for range in &self.remove {
            let of = |number| (range.collector.as_str(), range.epoch, number);
            table.retain_in(of(range.first)..=of(range.last), |_, _| false)?;
        }
        Ok(())
    }
}

/// What was kept of a range.
pub(super) fn read(transaction: &ReadTransaction, range: &EventRange) -> Result<BTreeMap<u64, Hash>, StoreError> {
    let of = |number| (range.collector.as_str(), range.epoch, number);
    let table = transaction.open_table(RANGE_LEAVES)?;
    let rows = table.range(of(range.first)..=of(range.last))?;
    rows.map(|row| row.map(|(at, leaf)| (at.value().2, leaf.value())).map_err(StoreError::from)).collect()
}

/// The ranges that reach over an edge of what is removed, by collector and first position.
fn cut(ledger: &Path, removed: &[Removed]) -> Result<BTreeMap<(String, u64, u64), EventRange>, SegmentError> {
    let files = LedgerFiles::open(ledger)?;
    let mut cut = BTreeMap::new();
    for stretch in removed {
        for (epoch, number) in [stretch.first, stretch.last] {
            let Some((_, range)) = files.range_of(&stretch.collector, Sequence::new(epoch, number))? else { continue };
            let stays = (range.epoch, range.first) < stretch.first || (range.epoch, range.last) > stretch.last;
            if stays && range.has_tree() {
                cut.insert((range.collector.clone(), range.epoch, range.first), range);
            }
        }
    }
    Ok(cut)
}
