//! How many deliveries of each sink stand where, kept in the transactions that change them: health asks every few seconds, and
//! counting the deliveries themselves takes longer the more there are.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, WriteTransaction};

use super::outbox::{DeliveryState, OutboxStats};
use super::state::{DELIVERIES, DELIVERY_COUNTS};
use super::value::Record as _;
use super::{Store, StoreError};

/// How a state stands in a key.
pub(super) const fn number(state: DeliveryState) -> u8 {
    match state {
        DeliveryState::Dead => 0,
        DeliveryState::Done => 1,
        DeliveryState::Pending => 2,
    }
}

/// A delivery went from one state to another; `None`: it was not there, or is no more.
pub(super) fn shift(
    transaction: &WriteTransaction,
    sink: &str,
    from: Option<DeliveryState>,
    to: Option<DeliveryState>,
) -> Result<(), StoreError> {
    if from == to {
        return Ok(());
    }
    let mut table = transaction.open_table(DELIVERY_COUNTS)?;
    for (state, by) in [(from, -1), (to, 1)] {
        let Some(state) = state else { continue };
        let key = (sink, number(state));
        let count: u64 = match table.get(key)? {
            Some(count) => count.value().decode()?,
            None => 0,
        };
        table.insert(key, count.saturating_add_signed(by).encode()?)?;
    }
    Ok(())
}

/// Counts what is there: stores of format 1 kept no counts.
pub(super) fn recount(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut counts: BTreeMap<(String, u8), u64> = BTreeMap::new();
    for entry in transaction.open_table(DELIVERIES)?.iter()? {
        let (at, row) = entry?;
        let count = counts.entry((at.value().0.to_owned(), number(row.value().decode()?.state))).or_default();
        *count = count.saturating_add(1);
    }
    let mut table = transaction.open_table(DELIVERY_COUNTS)?;
    for ((sink, state), count) in counts {
        table.insert((sink.as_str(), state), count.encode()?)?;
    }
    Ok(())
}

/// Every sink that was ever given an alert.
pub(super) fn sinks(transaction: &WriteTransaction) -> Result<Vec<String>, StoreError> {
    let mut sinks = Vec::new();
    for entry in transaction.open_table(DELIVERY_COUNTS)?.iter()? {
        sinks.push(entry?.0.value().0.to_owned());
    }
    sinks.dedup();
    Ok(sinks)
}

impl Store {
    /// How many deliveries of each sink stand where, by sink.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a count cannot be read.
    pub fn outbox_stats(&self) -> Result<Vec<OutboxStats>, StoreError> {
        let mut sinks: BTreeMap<String, OutboxStats> = BTreeMap::new();
        for entry in self.state.read()?.open_table(DELIVERY_COUNTS)?.iter()? {
            let (at, count) = entry?;
            let ((sink, state), count) = (at.value(), count.value().decode()?);
            let stats = sinks.entry(sink.to_owned()).or_default();
            sink.clone_into(&mut stats.sink);
            match state {
                0 => stats.dead = count,
                1 => stats.done = count,
                _ => stats.pending = count,
            }
        }
        Ok(sinks.into_values().collect())
    }
}
