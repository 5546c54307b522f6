//! The outbox: per sink and alert, whether it was delivered. A crash between match and delivery loses nothing.

use daemoneye_lib::model::Alert;
use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{ALERTS, DELIVERIES, DUE, META, key, next};
use super::value::Record;
use super::{Store, StoreError, alert, counts};

const OUTBOX_COUNTER: &str = "last_delivery";
/// Bytes of a sink's error that are kept.
const ERROR_BYTES: usize = 512;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeliveryState {
    /// Given up after too long; an operator decides.
    Dead,
    /// The sink has it.
    Done,
    /// Not yet, or to be tried again.
    Pending,
}

impl DeliveryState {
    /// The word in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Done => "done",
            Self::Pending => "pending",
        }
    }
}

/// A delivery as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeliveryRow {
    pub(super) state: DeliveryState,
    attempts: u32,
    pub(super) created_us: i64,
    pub(super) next_try_us: i64,
    last_error: Option<String>,
    /// Deliveries that are due together go in the order of their alerts.
    pub(super) order: u64,
}

impl DeliveryRow {
    pub(super) fn into_delivery(self, sink: &str, alert: u128) -> Delivery {
        let Self { state, attempts, created_us, next_try_us, last_error, .. } = self;
        let (sink, alert_id) = (sink.to_owned(), Uuid::from_u128(alert));
        Delivery { sink, alert_id, state, attempts, created_us, next_try_us, last_error }
    }
}

impl Record for DeliveryRow {
    const NAME: &'static str = "alert_deliveries";
}

/// One alert on its way to one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The sink.
    pub sink: String,
    /// The alert.
    pub alert_id: Uuid,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts so far, with the one that succeeded.
    pub attempts: u32,
    /// When the alert was raised, µs since the Unix epoch.
    pub created_us: i64,
    /// When it may be tried next, µs since the Unix epoch; 0: at once.
    pub next_try_us: i64,
    /// What the sink said last; `None` before the first failure.
    pub last_error: Option<String>,
}

/// An alert that a sink should get now.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// The alert as it stands.
    pub alert: Alert,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it was raised, µs since the Unix epoch.
    pub created_us: i64,
}

/// How many deliveries of a sink stand where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// The sink.
    pub sink: String,
    /// Not delivered yet.
    pub pending: u64,
    /// Delivered.
    pub done: u64,
    /// Given up.
    pub dead: u64,
}

/// Adds a delivery of `alert` to every sink.
pub(super) fn enqueue(
    transaction: &WriteTransaction,
    sinks: &[String],
    alert: Uuid,
    created_us: i64,
    next_try_us: i64,
) -> Result<(), StoreError> {
    for sink in sinks {
        let order = next(transaction, OUTBOX_COUNTER)?;
        let state = DeliveryState::Pending;
        let row = DeliveryRow { state, attempts: 0, created_us, next_try_us, last_error: None, order };
        transaction.open_table(DELIVERIES)?.insert((sink.as_str(), key(alert)), row.encode()?)?;
        transaction.open_table(DUE)?.insert((sink.as_str(), next_try_us, order), key(alert))?;
        counts::shift(transaction, sink, None, Some(state))?;
    }
    Ok(())
}

/// The delivery of an alert to a sink.
pub(super) fn delivery(
    transaction: &WriteTransaction,
    sink: &str,
    alert: u128,
) -> Result<Option<DeliveryRow>, StoreError> {
    match transaction.open_table(DELIVERIES)?.get((sink, alert))? {
        Some(row) => row.value().decode().map(Some),
        None => Ok(None),
    }
}

/// Removes a delivery and what refers to it.
pub(super) fn remove(
    transaction: &WriteTransaction,
    sink: &str,
    alert: u128,
    row: &DeliveryRow,
) -> Result<(), StoreError> {
    transaction.open_table(DELIVERIES)?.remove((sink, alert))?;
    transaction.open_table(DUE)?.remove((sink, row.next_try_us, row.order))?;
    counts::shift(transaction, sink, Some(row.state), None)
}

/// No delivery is put off for longer: what lies further ahead was written before the clock was set back.
const LATEST_US: i64 = 3_600_000_000;

impl Store {
    /// The alerts that `sink` should get at `now_us`, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a row cannot be read.
    pub fn outbox_due(&self, sink: &str, now_us: i64, limit: usize) -> Result<Vec<Due>, StoreError> {
        let transaction = self.state.read()?;
        let (due, alerts) = (transaction.open_table(DUE)?, transaction.open_table(ALERTS)?);
        let deliveries = transaction.open_table(DELIVERIES)?;
        let mut found = Vec::new();
        let ahead = due.range((sink, now_us.saturating_add(LATEST_US), 0)..=(sink, i64::MAX, u64::MAX))?;
        for entry in due.range((sink, i64::MIN, 0)..=(sink, now_us, u64::MAX))?.chain(ahead) {
            let id = entry?.1.value();
            let Some(delivery) = deliveries.get((sink, id))? else { continue };
            let DeliveryRow { attempts, created_us, .. } = delivery.value().decode()?;
            let Some(alert) = alert::load(&alerts, id)? else { continue };
            found.push(Due { alert, attempts, created_us });
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// When the next delivery of `sink` falls due, µs since the Unix epoch; `None`: nothing waits.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn outbox_next(&self, sink: &str) -> Result<Option<i64>, StoreError> {
        let table = self.state.read()?.open_table(DUE)?;
        match table.range((sink, i64::MIN, 0)..=(sink, i64::MAX, u64::MAX))?.next() {
            Some(entry) => Ok(Some(entry?.0.value().1)),
            None => Ok(None),
        }
    }

    /// `sink` has this alert.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when `sink` was never to get it.
    pub fn outbox_done(&self, sink: &str, alert: Uuid) -> Result<(), StoreError> {
        self.outbox_done_all(sink, &[alert])
    }

    /// `sink` has these alerts: one transaction, so one sync, for all of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when `sink` was never to get one of them.
    pub fn outbox_done_all(&self, sink: &str, alerts: &[Uuid]) -> Result<(), StoreError> {
        self.state.write(|transaction| {
            for alert in alerts {
                update(transaction, sink, *alert, |row| {
                    row.attempts = row.attempts.saturating_add(1);
                    row.state = DeliveryState::Done;
                })?;
            }
            Ok(())
        })
    }

    /// `sink` did not take the alert. It is tried again at `next_try_us`, or becomes a dead letter when it has waited for
    /// longer than the configured time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when `sink` was never to get this alert.
    pub fn outbox_failed(
        &self,
        sink: &str,
        alert: Uuid,
        error: &str,
        next_try_us: i64,
    ) -> Result<DeliveryState, StoreError> {
        let dead_after_us = i64::try_from(self.options.dead_after.as_micros()).unwrap_or(i64::MAX);
        // A clock that was set ahead ages no delivery.
        let now_us = self.believed_us();
        let kept = error.get(..error.floor_char_boundary(ERROR_BYTES)).unwrap_or_default();
        self.state.write(|transaction| {
            update(transaction, sink, alert, |row| {
                row.attempts = row.attempts.saturating_add(1);
                row.next_try_us = next_try_us;
                row.last_error = Some(kept.to_owned());
                if now_us.saturating_sub(row.created_us) >= dead_after_us {
                    row.state = DeliveryState::Dead;
                }
            })
        })
    }

    /// The deliveries of all sinks, by sink.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or a row cannot be read.
    pub fn deliveries(&self) -> Result<Vec<Delivery>, StoreError> {
        self.state_view()?.deliveries()?.collect()
    }
}

/// Changes a delivery and keeps the index of due ones in step.
fn update(
    transaction: &WriteTransaction,
    sink: &str,
    alert: Uuid,
    change: impl FnOnce(&mut DeliveryRow),
) -> Result<DeliveryState, StoreError> {
    let missing = || StoreError::NotFound { what: "delivery", id: format!("{sink}/{alert}") };
    let mut row = delivery(transaction, sink, key(alert))?.ok_or_else(missing)?;
    let before = row.state;
    let mut due = transaction.open_table(DUE)?;
    due.remove((sink, row.next_try_us, row.order))?;
    change(&mut row);
    if row.state == DeliveryState::Pending {
        due.insert((sink, row.next_try_us, row.order), key(alert))?;
    }
    transaction.open_table(DELIVERIES)?.insert((sink, key(alert)), row.encode()?)?;
    counts::shift(transaction, sink, Some(before), Some(row.state))?;
    Ok(row.state)
}

/// Behind this stands the name of a sink.
const CHECKPOINT: &str = "checkpoint_";

impl Store {
    /// Over how many entries the last checkpoint of the ledger is that `sink` took.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn checkpoint_handed(&self, sink: &str) -> Result<Option<u64>, StoreError> {
        let name = format!("{CHECKPOINT}{sink}");
        let transaction = self.state.read()?;
        let size = transaction.open_table(META)?.get(name.as_str())?.map(|size| size.value().decode()).transpose()?;
        Ok(size)
    }

    /// Notes it.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn note_checkpoint_handed(&self, sink: &str, entries: u64) -> Result<(), StoreError> {
        let name = format!("{CHECKPOINT}{sink}");
        self.state.write(|transaction| {
            transaction.open_table(META)?.insert(name.as_str(), entries.encode()?)?;
            Ok(())
        })
    }
}
