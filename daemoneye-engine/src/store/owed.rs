//! What retention removed while the outbox was full: the ledger still has to hear of it, or every removed row would look deleted
//! for ever.
//!
//! It is kept in the transaction that removes, put together per cause, so that it does not grow with the removals, and handed to the
//! outbox as soon as that has room again. Unlike other entries it is never shed.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::StoreError;
use super::audit;
use super::crowd::ALERTS_SIZE;
use super::retention::{Expired, Removed};
use super::state::{AUDIT, OWED};
use super::value::{Record, Stored};

/// Stretches of streams that one entry of the ledger names: some 20 KiB.
const RANGES_TOLD: usize = 256;
/// Stretches that are kept; the oldest go first and join, so there are more only where streams are full of holes. Then the nearest
/// ones are told as one.
const STRETCHES_KEPT: usize = 4_096;

/// A removal that the ledger is to hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owed {
    /// What was older was too old; `None`: all was too large. Of alerts that were too large together: the time of the latest.
    pub(super) before_us: Option<i64>,
    /// Events that are gone.
    pub(super) ranges: Vec<Removed>,
    /// What went, in numbers.
    pub(super) expired: Expired,
}

impl Record for Owed {
    const NAME: &'static str = "audit_owed";
}

impl Owed {
    /// What the ledger is to hear of it. `why`: the cause.
    fn entries(&self, why: &str) -> Vec<(&'static str, Value)> {
        let Self { before_us, ranges, expired } = self;
        let mut entries: Vec<_> = ranges
            .chunks(RANGES_TOLD)
            .map(|ranges| ("events-removed", json!({ "why": why, "before_us": before_us, "ranges": ranges })))
            .collect();
        if why == ALERTS_SIZE {
            let Expired { alerts, deliveries, bytes, .. } = expired;
            entries.push((
                "alerts-removed",
                json!({ "why": why, "until_us": before_us, "alerts": alerts, "deliveries": deliveries, "bytes": bytes }),
            ));
        } else if *expired != Expired::default() {
            entries.push(("retention", expired.audited(*before_us)));
        }
        entries
    }

    fn join(&mut self, more: Self) {
        // What went earlier was older still.
        self.before_us = self.before_us.max(more.before_us);
        self.ranges.extend(more.ranges);
        join(&mut self.ranges, STRETCHES_KEPT);
        self.expired.add(more.expired);
    }
}

/// Makes as few stretches of them as say the same; more than `most` are made fewer by taking in the shortest holes between them.
fn join(ranges: &mut Vec<Removed>, most: usize) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| joined(next, before, 0));
    let hole = |pair: &[Removed]| match pair {
        [before, next] if before.collector == next.collector && before.last.0 == next.first.0 => {
            Some(next.first.1.saturating_sub(before.last.1))
        }
        _ => None,
    };
    while ranges.len() > most {
        let mut holes: Vec<u64> = ranges.windows(2).filter_map(hole).collect();
        holes.sort_unstable();
        // Nothing to join: so many epochs are so many starts of a collector.
        let Some(within) = holes.get(ranges.len().saturating_sub(most).min(holes.len()).saturating_sub(1)) else {
            return;
        };
        let within = *within;
        ranges.dedup_by(|next, before| joined(next, before, within));
    }
}

/// Puts two stretches of one epoch together where no more than `within` numbers lie between.
fn joined(next: &Removed, before: &mut Removed, within: u64) -> bool {
    let reaches = before.last.1.saturating_add(within.max(1));
    let follows = next.first.0 == before.last.0 && next.first.1 <= reaches;
    let joined = next.collector == before.collector && follows;
    if joined {
        before.last = before.last.max(next.last);
    }
    joined
}

/// As few stretches as say the same.
pub(super) fn joined_all(mut ranges: Vec<Removed>) -> Vec<Removed> {
    join(&mut ranges, usize::MAX);
    ranges
}

/// Tells the ledger, in the transaction that removes: now, or when the outbox has room.
pub(super) fn tell(transaction: &WriteTransaction, room: u64, why: &str, removal: Owed) -> Result<(), StoreError> {
    let entries = removal.entries(why);
    let free = room.saturating_sub(transaction.open_table(AUDIT)?.len()?);
    if free >= entries.len() as u64 {
        return push(transaction, room, entries);
    }
    let mut table = transaction.open_table(OWED)?;
    let mut owed = match table.get(why)? {
        Some(owed) => owed.value().decode()?,
        None => Owed::default(),
    };
    owed.join(removal);
    table.insert(why, owed.encode()?)?;
    Ok(())
}

/// Hands to the outbox what it has room for.
pub(super) fn settle(transaction: &WriteTransaction, room: u64) -> Result<(), StoreError> {
    let all = {
        let table = transaction.open_table(OWED)?;
        read(&table)?
    };
    for (why, mut owed) in all {
        let free = room.saturating_sub(transaction.open_table(AUDIT)?.len()?);
        let mut entries = owed.entries(&why);
        let rest = entries.split_off(entries.len().min(usize::try_from(free).unwrap_or(usize::MAX)));
        let told = entries.len();
        push(transaction, room, entries)?;
        let mut table = transaction.open_table(OWED)?;
        if rest.is_empty() {
            table.remove(why.as_str())?;
        } else if told > 0 {
            owed.ranges.drain(..told.saturating_mul(RANGES_TOLD).min(owed.ranges.len()));
            table.insert(why.as_str(), owed.encode()?)?;
        }
    }
    Ok(())
}

/// What waits for room, as entries would tell it.
pub(super) fn waiting(transaction: &ReadTransaction) -> Result<Vec<(&'static str, Value)>, StoreError> {
    let all = read(&transaction.open_table(OWED)?)?;
    Ok(all.iter().flat_map(|(why, owed)| owed.entries(why)).collect())
}

fn read(table: &impl ReadableTable<&'static str, Stored<Owed>>) -> Result<Vec<(String, Owed)>, StoreError> {
    let mut all = Vec::new();
    for entry in table.iter()? {
        let (why, owed) = entry?;
        all.push((why.value().to_owned(), owed.value().decode()?));
    }
    Ok(all)
}

fn push(transaction: &WriteTransaction, room: u64, entries: Vec<(&str, Value)>) -> Result<(), StoreError> {
    entries.iter().try_for_each(|(action, payload)| audit::push(transaction, room, "agent", action, payload).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(epoch: u64, first: u64, last: u64) -> Removed {
        Removed { collector: "c".to_owned(), first: (epoch, first), last: (epoch, last) }
    }

    #[test]
    fn removals_that_follow_each_other_are_one_and_the_shortest_holes_make_room() {
        let mut owed = Owed { before_us: Some(5), ranges: vec![stretch(1, 1, 4)], ..Owed::default() };
        owed.join(Owed { before_us: Some(9), ranges: vec![stretch(1, 5, 9), stretch(2, 1, 3)], ..Owed::default() });
        assert_eq!((owed.before_us, owed.ranges), (Some(9), vec![stretch(1, 1, 9), stretch(2, 1, 3)]));
        let holes = || vec![stretch(1, 1, 2), stretch(1, 5, 6), stretch(1, 50, 60), stretch(2, 3, 4)];
        let mut ranges = holes();
        join(&mut ranges, 3);
        assert_eq!(ranges, [stretch(1, 1, 6), stretch(1, 50, 60), stretch(2, 3, 4)]);
        join(&mut ranges, 1);
        assert_eq!(ranges, [stretch(1, 1, 60), stretch(2, 3, 4)], "epochs do not join");
    }
}
