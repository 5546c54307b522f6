//! Alerts past the retention, with everything that hangs on them: index rows, deliveries, counts.
//!
//! An alert stays while a match raised it within the retention, while one of its deliveries is younger than that (event times
//! may lie, the clock of the delivery is ours), and while a sink may still get it.

use std::ops::Bound;
use std::time::Duration;

use daemoneye_lib::model::Alert;
use redb::{ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};

use super::alert::{STATUSES, StoredAlert, status_key};
use super::commit::key_hash;
use super::outbox::{self, DeliveryRow, DeliveryState};
use super::retention::Expired;
use super::state::{ALERTS, ALERTS_BY_KEY, ALERTS_BY_STATUS};
use super::state_view::Thinned;
use super::{Store, StoreError, counts, crowd, growth};

/// Alerts that one transaction looks at: some 10 ms, for which new alerts wait.
pub(super) const ALERTS_PER_TRANSACTION: usize = 512;

/// A row of the index by status and time.
pub(super) type Indexed = (u8, i64, u128);

/// What was removed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Forgotten {
    pub(super) alerts: u64,
    pub(super) deliveries: u64,
    /// Bytes of the alerts.
    pub(super) bytes: u64,
    /// Alerts that a sink was still to get.
    pub(super) undelivered: u64,
    /// Event time of the latest alert, µs since the Unix epoch.
    pub(super) alerts_until_us: Option<i64>,
    /// When the latest delivery was to go first.
    deliveries_until_us: Option<i64>,
}

impl Forgotten {
    /// Sums up what several transactions removed.
    pub(super) fn add(&mut self, more: Self) {
        self.alerts = self.alerts.saturating_add(more.alerts);
        self.deliveries = self.deliveries.saturating_add(more.deliveries);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.undelivered = self.undelivered.saturating_add(more.undelivered);
        self.alerts_until_us = self.alerts_until_us.max(more.alerts_until_us);
        self.deliveries_until_us = self.deliveries_until_us.max(more.deliveries_until_us);
    }

    /// Takes down in the transaction that removes them how far they reached.
    pub(super) fn mark(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        Thinned::Alerts.mark(transaction, self.alerts_until_us)?;
        Thinned::Deliveries.mark(transaction, self.deliveries_until_us)
    }
}

/// What is old.
#[derive(Debug, Clone, Copy)]
struct Ages {
    /// Older than this: past the retention.
    before_us: i64,
    /// Older than this: no sink is tried any more.
    given_up_us: i64,
}

impl Ages {
    /// Whether a delivery keeps its alert.
    const fn keeps(&self, row: &DeliveryRow) -> bool {
        row.created_us >= self.before_us
            || (matches!(row.state, DeliveryState::Pending) && row.created_us >= self.given_up_us)
    }
}

impl Store {
    /// Removes the alerts that were last seen before `before_us`, a bounded number in each transaction, which tells the ledger.
    pub(super) fn forget_alerts(&self, now_us: i64, before_us: i64) -> Result<Forgotten, StoreError> {
        let ages = Ages { before_us, given_up_us: now_us.saturating_sub(micros(self.options.dead_after)) };
        let mut forgotten = Forgotten::default();
        for status in STATUSES {
            let mut after = Bound::Included((status_key(status), i64::MIN, u128::MIN));
            loop {
                let old = self.old_alerts(after, (status_key(status), before_us, u128::MIN))?;
                let Some(last) = old.last() else { break };
                after = Bound::Excluded(*last);
                let gone = self.state.write(|transaction| {
                    let (mut gone, sinks) = (Forgotten::default(), counts::sinks(transaction)?);
                    old.iter().try_for_each(|at| forget(transaction, &sinks, ages, *at, &mut gone))?;
                    gone.mark(transaction)?;
                    let Forgotten { alerts, deliveries, .. } = gone;
                    let told = Expired { alerts, deliveries, ..Expired::default() };
                    told.tell(transaction, self.options.audit_entries, before_us)?;
                    Ok(gone)
                })?;
                forgotten.add(gone);
            }
        }
        Ok(forgotten)
    }

    fn old_alerts(&self, after: Bound<Indexed>, before: Indexed) -> Result<Vec<Indexed>, StoreError> {
        let table = self.state.read()?.open_table(ALERTS_BY_STATUS)?;
        let range = table.range::<Indexed>((after, Bound::Excluded(before)))?;
        range.take(ALERTS_PER_TRANSACTION).map(|entry| Ok(entry?.0.value())).collect()
    }
}

impl Store {
    /// Takes alerts out of a store that delivers nothing, the oldest first: those from before `before_us` (µs since the Unix epoch),
    /// and of the others as many as there are more than `most`. With `few` or less it takes none.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an alert cannot be read.
    pub fn take_alerts(&self, before_us: i64, few: u64, most: usize) -> Result<TakenAlerts, StoreError> {
        let mut indexed: Vec<Indexed> = {
            let table = self.state.read()?.open_table(ALERTS_BY_STATUS)?;
            if table.len()? <= few {
                return Ok(TakenAlerts::default());
            }
            table.iter()?.map(|entry| Ok(entry?.0.value())).collect::<Result<_, StoreError>>()?
        };
        indexed.sort_unstable_by_key(|(_, time_us, id)| (*time_us, *id));
        let old = indexed.partition_point(|(_, time_us, _)| *time_us < before_us);
        indexed.truncate(old.max(indexed.len().saturating_sub(most)));
        let mut taken = TakenAlerts { early: indexed.len().saturating_sub(old) as u64, ..TakenAlerts::default() };
        for some in indexed.chunks(ALERTS_PER_TRANSACTION) {
            let some = self.state.write(|transaction| {
                some.iter().filter_map(|at| take(transaction, *at).transpose()).collect::<Result<Vec<_>, _>>()
            })?;
            taken.alerts.extend(some);
        }
        self.forget_rates(before_us)?;
        Ok(taken)
    }
}

/// What was taken out of a store.
#[derive(Debug, Default)]
pub struct TakenAlerts {
    /// By event time and id; what exceptions hid is among them.
    pub alerts: Vec<Alert>,
    /// How many of them, the last ones, were taken to make room: a repeat of one would have raised its count.
    pub early: u64,
}

fn take(transaction: &WriteTransaction, at: Indexed) -> Result<Option<Alert>, StoreError> {
    let Some(stored) = stored(transaction, at.2)? else { return Ok(None) };
    remove(transaction, at, stored).map(Some)
}

/// Removes one alert, unless something keeps it or it has changed since it was listed.
fn forget(
    transaction: &WriteTransaction,
    sinks: &[String],
    ages: Ages,
    at: Indexed,
    forgotten: &mut Forgotten,
) -> Result<(), StoreError> {
    let Some(stored) = stored(transaction, at.2)? else { return Ok(()) };
    if stored.last_seen_us >= ages.before_us || status_key(stored.status) != at.0 {
        return Ok(());
    }
    let deliveries = deliveries(transaction, sinks, at.2)?;
    if deliveries.iter().any(|(_, row)| ages.keeps(row)) {
        return Ok(());
    }
    take_out(transaction, at, stored, &deliveries, forgotten)
}

/// The deliveries of an alert, by sink.
pub(super) fn deliveries<'a>(
    transaction: &WriteTransaction,
    sinks: &'a [String],
    id: u128,
) -> Result<Vec<(&'a str, DeliveryRow)>, StoreError> {
    let mut deliveries = Vec::new();
    for sink in sinks {
        deliveries.extend(outbox::delivery(transaction, sink, id)?.map(|row| (sink.as_str(), row)));
    }
    Ok(deliveries)
}

/// Removes an alert with its deliveries.
pub(super) fn take_out(
    transaction: &WriteTransaction,
    (status, time_us, id): Indexed,
    stored: StoredAlert,
    deliveries: &[(&str, DeliveryRow)],
    forgotten: &mut Forgotten,
) -> Result<(), StoreError> {
    for (sink, row) in deliveries {
        outbox::remove(transaction, sink, id, row)?;
        forgotten.deliveries = forgotten.deliveries.saturating_add(1);
        forgotten.deliveries_until_us = forgotten.deliveries_until_us.max(Some(row.created_us));
    }
    forgotten.bytes = forgotten.bytes.saturating_add(crowd::weight(&stored));
    remove(transaction, (status, time_us, id), stored)?;
    forgotten.alerts = forgotten.alerts.saturating_add(1);
    forgotten.alerts_until_us = forgotten.alerts_until_us.max(Some(time_us));
    Ok(())
}

/// Removes an alert and what leads to it.
fn remove(
    transaction: &WriteTransaction,
    (status, time_us, id): Indexed,
    stored: StoredAlert,
) -> Result<Alert, StoreError> {
    crowd::subtract(transaction, &stored)?;
    let alert = stored.into_alert()?;
    let key = (key_hash(&alert.dedup_key), time_us);
    transaction.open_table(ALERTS)?.remove(id)?;
    growth::forget(transaction, id)?;
    transaction.open_table(ALERTS_BY_STATUS)?.remove((status, time_us, id))?;
    let mut by_key = transaction.open_table(ALERTS_BY_KEY)?;
    if by_key.get(key)?.is_some_and(|of| of.value() == id) {
        by_key.remove(key)?;
    }
    Ok(alert)
}

pub(super) fn stored(transaction: &WriteTransaction, id: u128) -> Result<Option<StoredAlert>, StoreError> {
    match transaction.open_table(ALERTS)?.get(id)? {
        Some(stored) => stored.value().decode().map(Some),
        None => Ok(None),
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
