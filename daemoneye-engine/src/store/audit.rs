//! Entries that wait to be appended to the audit ledger, which procmond writes.
//!
//! An entry is written in the transaction that causes it and removed once procmond has acknowledged it. Ids never go back,
//! so procmond can tell an entry that comes a second time after a lost acknowledgement. A store that was restored from a copy, or
//! is new, gives ids that the ledger has seen already: procmond says how far it is, and what waits is numbered anew behind
//! that ([`Store::audit_heed`]). Entries that find the outbox full are
//! not kept: they are counted, coverage says so, and so does the ledger once it takes entries again. What they are about
//! happens all the same: an alert never fails because its entry found no room. What retention removed is told in any case
//! ([`super::owed`]).

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use daemoneye_lib::proto::{AuditAppend, CoverageGap};
use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{AUDIT, META, next};
use super::value::Record;
use super::{Store, StoreError, coverage, owed, reason};

const AUDIT_COUNTER: &str = "last_audit";
/// Entries that found no room, ever.
pub(super) const LOST_COUNTER: &str = "audit_lost";
/// Entries that found no room since procmond last took some; there is no such counter while there is room.
const LOST_NOW_COUNTER: &str = "audit_lost_now";

/// One waiting entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditRow {
    actor: String,
    action: String,
    timestamp_ms: i64,
    /// JSON.
    pub(super) payload: Vec<u8>,
}

impl Record for AuditRow {
    const NAME: &'static str = "audit_outbox";
}

/// Wall clock, µs since the Unix epoch.
pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Queues an entry and returns its id; `None`: `room` entries wait already, so it was counted instead.
pub(super) fn push(
    transaction: &WriteTransaction,
    room: u64,
    actor: &str,
    action: &str,
    payload: &Value,
) -> Result<Option<u64>, StoreError> {
    if transaction.open_table(AUDIT)?.len()? >= room {
        lose(transaction)?;
        return Ok(None);
    }
    let id = next(transaction, AUDIT_COUNTER)?;
    let row = AuditRow {
        actor: actor.to_owned(),
        action: action.to_owned(),
        timestamp_ms: now_us() / 1_000,
        payload: payload.to_string().into_bytes(),
    };
    transaction.open_table(AUDIT)?.insert(id, row.encode()?)?;
    Ok(Some(id))
}

/// The entries that wait as one transaction sees them, oldest first, read as they are asked for.
pub(super) fn waiting(
    transaction: &ReadTransaction,
) -> Result<impl Iterator<Item = Result<AuditAppend, StoreError>> + use<>, StoreError> {
    Ok(transaction.open_table(AUDIT)?.range(0..)?.map(|entry| {
        let (outbox_id, row) = entry?;
        let AuditRow { actor, action, timestamp_ms, payload } = row.value().decode()?;
        Ok(AuditAppend { outbox_id: outbox_id.value(), actor, action, timestamp_ms, payload })
    }))
}

/// Entries that find no room at this moment, of which the ledger has not heard.
pub(super) fn losing(transaction: &ReadTransaction) -> Result<Option<u64>, StoreError> {
    let meta = transaction.open_table(META)?;
    meta.get(LOST_NOW_COUNTER)?.map(|lost| lost.value().decode()).transpose()
}

/// One gap for all entries until procmond takes some again, however far apart they are.
fn lose(transaction: &WriteTransaction) -> Result<(), StoreError> {
    next(transaction, LOST_COUNTER)?;
    let first = next(transaction, LOST_NOW_COUNTER)? == 1;
    let now_us = now_us();
    let gap = CoverageGap {
        collector: "agent".to_owned(),
        reason: reason::AUDIT_FULL.to_owned(),
        from_us: now_us,
        to_us: now_us,
        count: Some(1),
        detail: "entries for the audit ledger found the outbox full and are not kept".to_owned(),
        ..CoverageGap::default()
    };
    let row = if first { coverage::record(transaction, &gap) } else { coverage::prolong(transaction, &gap) };
    // The ledger hears of the row when it takes entries again.
    row.map(drop)
}

/// Says how many entries found no room, as soon as that and the row of coverage about them do: else the telling would be lost as well.
fn tell_lost(transaction: &WriteTransaction, room: u64) -> Result<(), StoreError> {
    let free = room.saturating_sub(transaction.open_table(AUDIT)?.len()?);
    if free < room.min(2) {
        return Ok(());
    }
    let lost: u64 = match transaction.open_table(META)?.remove(LOST_NOW_COUNTER)? {
        Some(lost) => lost.value().decode()?,
        None => return Ok(()),
    };
    push(transaction, room, "agent", "audit-entries-lost", &json!({ "count": lost }))?;
    coverage::tell_newest(transaction, room, ("agent", reason::AUDIT_FULL))
}

/// The highest id that was given out.
pub(super) fn last(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    let last = transaction.open_table(META)?.get(AUDIT_COUNTER)?.map(|last| last.value().decode()).transpose()?;
    Ok(last.unwrap_or_default())
}

/// Gives every entry that waits an id behind `head`, in their order; how many they are.
fn renumber(transaction: &WriteTransaction, head: u64) -> Result<u64, StoreError> {
    let mut meta = transaction.open_table(META)?;
    let counter = meta.get(AUDIT_COUNTER)?.map(|last| last.value().decode()).transpose()?.unwrap_or_default();
    let base = head.max(counter);
    let mut audit = transaction.open_table(AUDIT)?;
    let entries = audit.len()?;
    let mut last = base;
    for _ in 0..entries {
        let row = match audit.pop_first()? {
            Some((_, row)) => row.value().decode()?,
            None => break,
        };
        last = last.saturating_add(1);
        audit.insert(last, row.encode()?)?;
    }
    meta.insert(AUDIT_COUNTER, last.encode()?)?;
    Ok(entries)
}

impl Store {
    /// Queues an entry for the ledger and returns its outbox id; `None`: the outbox is full, and the entry was counted instead.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_push(&self, actor: &str, action: &str, payload: &Value) -> Result<Option<u64>, StoreError> {
        let room = self.options.audit_entries;
        self.state.write(|transaction| push(transaction, room, actor, action, payload))
    }

    /// The oldest waiting entries, at most `limit`, to be handed to procmond.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an entry cannot be read.
    pub fn audit_pending(&self, limit: usize) -> Result<Vec<AuditAppend>, StoreError> {
        let entries: Vec<AuditAppend> = waiting(&self.state.read()?)?.take(limit).collect::<Result<_, _>>()?;
        // Before they are sent: a lost acknowledgement must not look like ids that another store gave out.
        self.handed.fetch_max(entries.last().map_or(0, |entry| entry.outbox_id), Ordering::SeqCst);
        Ok(entries)
    }

    /// Hears that the ledger has taken ids up to `head`. Where this store had not given out all of those, they are another's, and the
    /// ledger would take what waits here for what it has: it is numbered anew, and an entry says so. Something that waited when the
    /// store was copied may be in the ledger twice then. How many entries were numbered anew; `None`: there was no need.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_heed(&self, head: u64) -> Result<Option<u64>, StoreError> {
        let handed = self.handed.load(Ordering::SeqCst);
        if head <= handed {
            return Ok(None);
        }
        let room = self.options.audit_entries;
        let entries = self.state.write(|transaction| {
            let entries = renumber(transaction, head)?;
            let payload = json!({ "ledger": head, "store": handed, "entries": entries });
            push(transaction, room, "agent", "outbox-renumbered", &payload)?;
            Ok(entries)
        })?;
        self.handed.fetch_max(head, Ordering::SeqCst);
        Ok(Some(entries))
    }

    /// Forgets the entries up to and including `up_to`: procmond has them. When others were lost meanwhile, an entry that says
    /// how many follows, and what retention removed meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_done(&self, up_to: u64) -> Result<(), StoreError> {
        self.state.write(|transaction| {
            transaction.open_table(AUDIT)?.retain_in(..=up_to, |_, _| false)?;
            let room = self.options.audit_entries;
            owed::settle(transaction, room)?;
            tell_lost(transaction, room)
        })
    }
}
