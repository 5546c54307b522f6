//! Entries that wait to be appended to the audit ledger, which procmond writes.
//!
//! An entry is written in the transaction that causes it and removed once procmond has acknowledged it. Ids never go back,
//! so procmond can tell an entry that comes a second time after a lost acknowledgement.

use std::time::{SystemTime, UNIX_EPOCH};

use daemoneye_lib::proto::AuditAppend;
use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::{AUDIT, next};
use super::value::Record;
use super::{Store, StoreError};

const AUDIT_COUNTER: &str = "last_audit";

/// One waiting entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditRow {
    actor: String,
    action: String,
    timestamp_ms: i64,
    /// JSON.
    payload: Vec<u8>,
}

impl Record for AuditRow {
    const NAME: &'static str = "audit_outbox";
}

/// Wall clock, µs since the Unix epoch.
pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn push(
    transaction: &WriteTransaction,
    actor: &str,
    action: &str,
    payload: &Value,
) -> Result<u64, StoreError> {
    let id = next(transaction, AUDIT_COUNTER)?;
    let row = AuditRow {
        actor: actor.to_owned(),
        action: action.to_owned(),
        timestamp_ms: now_us() / 1_000,
        payload: payload.to_string().into_bytes(),
    };
    transaction.open_table(AUDIT)?.insert(id, row.encode()?)?;
    Ok(id)
}

impl Store {
    /// Queues an entry for the ledger and returns its outbox id.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_push(&self, actor: &str, action: &str, payload: &Value) -> Result<u64, StoreError> {
        self.state.write(|transaction| push(transaction, actor, action, payload))
    }

    /// The oldest waiting entries, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an entry cannot be read.
    pub fn audit_pending(&self, limit: usize) -> Result<Vec<AuditAppend>, StoreError> {
        let transaction = self.state.read()?;
        let table = transaction.open_table(AUDIT)?;
        let mut entries = Vec::new();
        for entry in table.iter()?.take(limit) {
            let (outbox_id, row) = entry?;
            let AuditRow { actor, action, timestamp_ms, payload } = row.value().decode()?;
            entries.push(AuditAppend { outbox_id: outbox_id.value(), actor, action, timestamp_ms, payload });
        }
        Ok(entries)
    }

    /// Forgets the entries up to and including `up_to`: procmond has them.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_done(&self, up_to: u64) -> Result<(), StoreError> {
        self.state.write(|transaction| {
            transaction.open_table(AUDIT)?.retain_in(..=up_to, |_, _| false)?;
            Ok(())
        })
    }
}
