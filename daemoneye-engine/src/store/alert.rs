//! Alerts as they are stored, listed and handled by operators.

use daemoneye_lib::model::{Alert, AlertStatus, Completeness, EventPointer};
use redb::{Range, ReadTransaction, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::state::{ALERTS, ALERTS_BY_STATUS, key};
use super::value::{Record, Stored};
use super::{Store, StoreError, audit, growth};

/// Source events that an alert keeps: enough to start an investigation from, the rest is a query.
pub(super) const EVENTS_KEPT: usize = 16;
pub(super) const STATUSES: [AlertStatus; 5] = [
    AlertStatus::Acknowledged,
    AlertStatus::Closed,
    AlertStatus::Open,
    AlertStatus::Reopened,
    AlertStatus::Suppressed,
];

/// An alert in `state.redb`: the JSON it was born with, and beside it what changes, so that a repeat rewrites numbers and
/// parses nothing. JSON because postcard cannot read back the free-form rows inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredAlert {
    json: String,
    pub(super) time_us: i64,
    pub(super) count: u64,
    pub(super) last_seen_us: i64,
    pub(super) status: AlertStatus,
    pub(super) events: Vec<EventPointer>,
    pub(super) completeness: Completeness,
    /// Per collector, the last event that was counted.
    raised: Vec<EventPointer>,
}

impl Record for StoredAlert {
    const NAME: &'static str = "alerts";
}

impl StoredAlert {
    pub(super) fn new(alert: &Alert, cause: &EventPointer) -> Result<Self, StoreError> {
        Ok(Self {
            json: serde_json::to_string(alert).map_err(|error| unreadable(&error))?,
            time_us: alert.time_us,
            count: alert.count,
            last_seen_us: alert.last_seen_us,
            status: alert.status,
            events: alert.events.clone(),
            completeness: alert.completeness.clone(),
            raised: vec![cause.clone()],
        })
    }

    /// The alert as it was raised.
    pub(super) fn born(&self) -> &str {
        &self.json
    }

    /// Per collector, the last event that was counted.
    pub(super) fn raised(&self) -> &[EventPointer] {
        &self.raised
    }

    pub(super) fn into_alert(self) -> Result<Alert, StoreError> {
        let born: Alert = serde_json::from_str(&self.json).map_err(|error| unreadable(&error))?;
        let Self { count, last_seen_us, status, events, completeness, .. } = self;
        Ok(Alert { count, last_seen_us, status, events, completeness, ..born })
    }

    /// The exception that hid it and its rule, without the rest of what it was born with.
    pub(super) fn hidden(&self) -> Result<Option<(Uuid, Uuid)>, StoreError> {
        #[derive(Deserialize)]
        struct Born {
            rule_id: Uuid,
            suppressed_by: Option<Uuid>,
        }
        let born: Born = serde_json::from_str(&self.json).map_err(|error| unreadable(&error))?;
        Ok(born.suppressed_by.map(|exception| (exception, born.rule_id)))
    }

    /// Whether the event at `cause` was counted before.
    pub(super) fn has_counted(&self, cause: &EventPointer) -> bool {
        self.raised.iter().any(|last| last.collector == cause.collector && last >= cause)
    }

    /// Counts one more match, once per event; `again` takes note of one that belongs to the match before it. False: it was counted.
    pub(super) fn raise(
        &mut self,
        cause: &EventPointer,
        time_us: i64,
        completeness: &Completeness,
        again: bool,
    ) -> bool {
        if self.has_counted(cause) {
            return false;
        }
        self.raised.retain(|last| last.collector != cause.collector);
        self.raised.push(cause.clone());
        self.count = self.count.saturating_add(u64::from(!again));
        self.last_seen_us = self.last_seen_us.max(time_us);
        if self.events.len() < EVENTS_KEPT {
            self.events.push(cause.clone());
        }
        for reason in &completeness.degraded {
            self.completeness.degrade(*reason);
        }
        true
    }
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::CorruptState { table: StoredAlert::NAME.to_owned(), what: error.to_string() }
}

pub(super) const fn status_key(status: AlertStatus) -> u8 {
    match status {
        AlertStatus::Open => 0,
        AlertStatus::Acknowledged => 1,
        AlertStatus::Closed => 2,
        AlertStatus::Reopened => 3,
        AlertStatus::Suppressed => 4,
    }
}

/// Which alerts to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertFilter {
    /// Only this one.
    pub id: Option<Uuid>,
    /// Only with one of these.
    pub statuses: Vec<AlertStatus>,
    /// From this event time on, µs since the Unix epoch.
    pub from_us: Option<i64>,
    /// Up to this event time, inclusive.
    pub to_us: Option<i64>,
    /// At most this many, the newest.
    pub limit: usize,
}

impl Default for AlertFilter {
    /// Everything, without a limit.
    fn default() -> Self {
        Self { id: None, statuses: STATUSES.to_vec(), from_us: None, to_us: None, limit: usize::MAX }
    }
}

pub(super) fn load(
    table: &impl ReadableTable<u128, Stored<StoredAlert>>,
    id: u128,
) -> Result<Option<Alert>, StoreError> {
    match table.get(id)? {
        Some(stored) => stored.value().decode()?.into_alert().map(Some),
        None => Ok(None),
    }
}

impl Store {
    /// Alerts, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an alert cannot be read.
    pub fn alerts(&self, filter: &AlertFilter) -> Result<Vec<Alert>, StoreError> {
        let rows = self.state_view()?.alerts(filter, true)?;
        rows.filter_map(|row| row.map(|row| row.alert).transpose()).collect()
    }

    /// One alert.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or the alert cannot be read.
    pub fn alert(&self, id: Uuid) -> Result<Option<Alert>, StoreError> {
        load(&self.state.read()?.open_table(ALERTS)?, key(id))
    }

    /// One alert as it was raised, which is what the ledger tells of.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or the alert cannot be read.
    pub fn alert_as_raised(&self, id: Uuid) -> Result<Option<String>, StoreError> {
        match self.state.read()?.open_table(ALERTS)?.get(key(id))? {
            Some(stored) => Ok(Some(stored.value().decode()?.json)),
            None => Ok(None),
        }
    }

    /// Changes what an operator has done with an alert, with an audit entry that says who and why.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such alert.
    pub fn set_alert_status(
        &self,
        id: Uuid,
        status: AlertStatus,
        actor: &str,
        reason: &str,
    ) -> Result<Alert, StoreError> {
        self.state.write(|transaction| {
            let (before, stored) = change_status(transaction, id, status)?;
            let payload = json!({"alert": id, "from": before.as_str(), "to": status.as_str(), "reason": reason});
            if audit::push(transaction, self.options.audit_entries, actor, "alert-status", &payload)?.is_none() {
                // Who did it and why is lost, and counted; what the status is now is told with the growth.
                growth::note(transaction, key(id))?;
            }
            stored.into_alert()
        })
    }
}

/// Rows of the index by status and time, the newest first.
pub(super) type Listed = std::iter::Rev<Range<'static, (u8, i64, u128), ()>>;

/// The alerts of one status in the time that is asked for.
pub(super) fn listed(
    transaction: &ReadTransaction,
    status: AlertStatus,
    filter: &AlertFilter,
) -> Result<Listed, StoreError> {
    let status = status_key(status);
    let from = (status, filter.from_us.unwrap_or(i64::MIN), u128::MIN);
    let to = (status, filter.to_us.unwrap_or(i64::MAX), u128::MAX);
    let table = transaction.open_table(ALERTS_BY_STATUS)?;
    // A range that ends before it begins has no rows, and redb would not say so.
    let range = if from > to { table.range(to..to)? } else { table.range(from..=to)? };
    Ok(range.rev())
}

fn change_status(
    transaction: &WriteTransaction,
    id: Uuid,
    status: AlertStatus,
) -> Result<(AlertStatus, StoredAlert), StoreError> {
    let mut alerts = transaction.open_table(ALERTS)?;
    let stored = match alerts.get(key(id))? {
        Some(stored) => Some(stored.value().decode()?),
        None => None,
    };
    let mut stored = stored.ok_or_else(|| StoreError::NotFound { what: "alert", id: id.to_string() })?;
    let before = std::mem::replace(&mut stored.status, status);
    alerts.insert(key(id), stored.encode()?)?;
    let mut by_status = transaction.open_table(ALERTS_BY_STATUS)?;
    by_status.remove((status_key(before), stored.time_us, key(id)))?;
    by_status.insert((status_key(status), stored.time_us, key(id)), ())?;
    Ok((before, stored))
}
