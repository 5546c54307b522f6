//! What repeats and operators change of an alert after it was raised, for the ledger.
//!
//! A repeat only notes that its alert has grown, in its own transaction. Once a minute, and at a stop, each noted alert is told as it
//! is then: so a flood of repeats is one entry a minute for each alert, and what found no room in the outbox is told later. Until it
//! is told, the store may have more of an alert than the ledger, never less.

use daemoneye_lib::model::{Alert, AlertStatus, Completeness, EventPointer};
use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::alert::StoredAlert;
use super::state::{ALERTS, AUDIT, GROWN};
use super::{Store, StoreError, audit};

/// Alerts that one transaction tells: some milliseconds, for which new alerts wait.
const TOLD_AT_ONCE: usize = 512;
/// The entry's action.
pub(super) const GREW: &str = "alert-grown";

/// What changes of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Growth {
    pub(super) count: u64,
    pub(super) last_seen_us: i64,
    pub(super) status: AlertStatus,
    events: Vec<EventPointer>,
    completeness: Completeness,
    /// Per collector, the last event that was counted.
    raised: Vec<EventPointer>,
}

impl Growth {
    pub(super) fn of(stored: &StoredAlert) -> Self {
        let mut raised = stored.raised().to_vec();
        raised.sort_unstable();
        Self {
            count: stored.count,
            last_seen_us: stored.last_seen_us,
            status: stored.status,
            events: stored.events.clone(),
            completeness: stored.completeness.clone(),
            raised,
        }
    }

    /// Of an alert that was just raised.
    pub(super) fn born(alert: Alert, raised: Vec<EventPointer>) -> Self {
        let Alert { count, last_seen_us, status, events, completeness, .. } = alert;
        Self { count, last_seen_us, status, events, completeness, raised }
    }

    /// Whether the one may have become the other by repeats.
    pub(super) fn grows_to(&self, later: &Self) -> bool {
        let counted = |at: &EventPointer| later.raised.iter().any(|last| last.collector == at.collector && last >= at);
        self.count <= later.count
            && self.last_seen_us <= later.last_seen_us
            && later.events.starts_with(&self.events)
            && self.completeness.degraded.iter().all(|reason| later.completeness.degraded.contains(reason))
            && self.raised.iter().all(counted)
    }

    /// Whether all but what operators do is the same.
    pub(super) fn is_as_seen(&self, other: &Self) -> bool {
        *self == Self { status: self.status, ..other.clone() }
    }

    fn audited(&self, id: u128) -> Result<Value, StoreError> {
        let mut payload = json!({ "alert": Uuid::from_u128(id) });
        let unreadable = |error: serde_json::Error| StoreError::CorruptState {
            table: "alerts".to_owned(),
            what: error.to_string(),
        };
        if let (Some(members), Value::Object(growth)) =
            (payload.as_object_mut(), serde_json::to_value(self).map_err(unreadable)?)
        {
            members.extend(growth);
        }
        Ok(payload)
    }
}

/// Notes, in the transaction that changes it, that the ledger has to hear of an alert.
pub(super) fn note(transaction: &WriteTransaction, id: u128) -> Result<(), StoreError> {
    transaction.open_table(GROWN)?.insert(id, ())?;
    Ok(())
}

/// The same of one that has gone.
pub(super) fn forget(transaction: &WriteTransaction, id: u128) -> Result<(), StoreError> {
    transaction.open_table(GROWN)?.remove(id)?;
    Ok(())
}

/// Whether an alert has changed since the ledger was told of it.
pub(super) fn waits(transaction: &ReadTransaction, id: Uuid) -> Result<bool, StoreError> {
    Ok(transaction.open_table(GROWN)?.get(id.as_u128())?.is_some())
}

impl Store {
    /// Tells the ledger of every alert that has grown since it was told of last, as far as the outbox has room.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an alert cannot be read.
    pub fn tell_growth(&self) -> Result<u64, StoreError> {
        let (mut told, mut after) = (0_u64, 0);
        loop {
            let ids: Vec<u128> = {
                let table = self.state.read()?.open_table(GROWN)?;
                let ids = table.range(after..)?.take(TOLD_AT_ONCE);
                ids.map(|row| row.map(|(id, _)| id.value())).collect::<Result<_, _>>().map_err(StoreError::from)?
            };
            let Some(last) = ids.last() else { return Ok(told) };
            let room = self.options.audit_entries;
            let some = self.state.write(|transaction| tell(transaction, room, &ids))?;
            told = told.saturating_add(some);
            let Some(next) = last.checked_add(1).filter(|_| some == ids.len() as u64) else { return Ok(told) };
            after = next;
        }
    }
}

/// How many of them it told, or found gone.
fn tell(transaction: &WriteTransaction, room: u64, ids: &[u128]) -> Result<u64, StoreError> {
    let mut told = 0_u64;
    for id in ids {
        if transaction.open_table(AUDIT)?.len()? >= room {
            break;
        }
        let stored = match transaction.open_table(ALERTS)?.get(id)? {
            Some(stored) => Some(stored.value().decode()?),
            None => None,
        };
        if let Some(stored) = stored {
            audit::push(transaction, room, "agent", GREW, &Growth::of(&stored).audited(*id)?)?;
        }
        forget(transaction, *id)?;
        told = told.saturating_add(1);
    }
    Ok(told)
}
