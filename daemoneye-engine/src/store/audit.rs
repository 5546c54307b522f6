//! Entries that wait to be appended to the audit ledger, which procmond writes.
//!
//! An entry is written in the transaction that causes it and removed once procmond has acknowledged it. Ids never go back,
//! so procmond can tell an entry that comes a second time after a lost acknowledgement. A store that was restored from a copy, or
//! is new, gives ids that the ledger has seen already: procmond says how far it is, and what waits is numbered anew behind
//! that ([`Store::audit_heed`]). Entries that find the outbox full are
//! not kept: they are counted, coverage says so, and so does the ledger once it takes entries again. What they are about
//! happens all the same: an alert never fails because its entry found no room. What retention removed is told in any case
//! ([`super::owed`]).

use std::time::{SystemTime, UNIX_EPOCH};

use daemoneye_lib::proto::{AuditAppend, CoverageGap};
use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{AUDIT, META, next};
use super::value::{Record, Stored};
use super::{Store, StoreError, coverage, owed, reason};

const AUDIT_COUNTER: &str = "last_audit";
/// The highest id that was handed to procmond.
const HANDED: &str = "audit_handed";
/// Ids from here on are given when there are no others left, as whoever can write the counter may bring about. No ledger takes them
/// (it leaps two to the power of 32 at most, from two to the power of 62 on): it says how far it is, and what waits gets ids from there.
const FAR: u64 = 1 << 63;
/// Entries on their way to new ids, within one transaction.
const MOVING: TableDefinition<'_, u64, Stored<AuditRow>> = TableDefinition::new("audit_moving");
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
    let id = next_id(transaction)?;
    let row = AuditRow {
        actor: actor.to_owned(),
        action: action.to_owned(),
        timestamp_ms: now_us() / 1_000,
        payload: payload.to_string().into_bytes(),
    };
    transaction.open_table(AUDIT)?.insert(id, row.encode()?)?;
    Ok(Some(id))
}

/// No two entries have one: the later would stand in the place of the other.
fn next_id(transaction: &WriteTransaction) -> Result<u64, StoreError> {
    let given: Option<u64> =
        transaction.open_table(META)?.get(AUDIT_COUNTER)?.map(|given| given.value().decode()).transpose()?;
    if given == Some(u64::MAX) {
        renumber(transaction, FAR)?;
        note_handed(transaction, FAR)?;
    }
    next(transaction, AUDIT_COUNTER)
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

/// The highest id that was handed to procmond, or that it said it had. A store of a build that did not note it handed over what does
/// not wait any more.
fn handed(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    if let Some(handed) = counter(transaction, HANDED)? {
        return Ok(handed);
    }
    let first = transaction.open_table(AUDIT)?.first()?.map(|(id, _)| id.value().saturating_sub(1));
    match first {
        Some(before) => Ok(before),
        None => given(transaction),
    }
}

/// The highest id that was given out.
pub(super) fn given(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    Ok(counter(transaction, AUDIT_COUNTER)?.unwrap_or_default())
}

fn counter(transaction: &ReadTransaction, name: &str) -> Result<Option<u64>, StoreError> {
    transaction.open_table(META)?.get(name)?.map(|known| known.value().decode()).transpose()
}

fn note_handed(transaction: &WriteTransaction, handed: u64) -> Result<(), StoreError> {
    transaction.open_table(META)?.insert(HANDED, handed.encode()?)?;
    Ok(())
}

/// Gives every entry that waits an id behind `base`, in their order; how many they are.
fn renumber(transaction: &WriteTransaction, base: u64) -> Result<u64, StoreError> {
    let mut last = base;
    {
        // By way of another table: new ids may be among the old ones.
        let (mut audit, mut moving) = (transaction.open_table(AUDIT)?, transaction.open_table(MOVING)?);
        let mut at = 0_u64;
        while let Some(row) = audit.pop_first()?.map(|(_, row)| row.value().decode()).transpose()? {
            moving.insert(at, row.encode()?)?;
            at = at.saturating_add(1);
        }
        while let Some(row) = moving.pop_first()?.map(|(_, row)| row.value().decode()).transpose()? {
            last = last.saturating_add(1);
            audit.insert(last, row.encode()?)?;
        }
    }
    transaction.delete_table(MOVING)?;
    transaction.open_table(META)?.insert(AUDIT_COUNTER, last.encode()?)?;
    Ok(last.saturating_sub(base))
}

/// Forgets the entries up to and including `up_to`, and tells what was lost meanwhile.
pub(super) fn done(transaction: &WriteTransaction, room: u64, up_to: u64) -> Result<(), StoreError> {
    transaction.open_table(AUDIT)?.retain_in(..=up_to, |_, _| false)?;
    owed::settle(transaction, room)?;
    tell_lost(transaction, room)
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

    /// The oldest waiting entries, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an entry cannot be read.
    pub fn audit_waiting(&self, limit: usize) -> Result<Vec<AuditAppend>, StoreError> {
        waiting(&self.state.read()?)?.take(limit).collect()
    }

    /// The same, to be handed to procmond now. Not of a copied store, which hands nothing over.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails or an entry cannot be read.
    pub fn audit_pending(&self, limit: usize) -> Result<Vec<AuditAppend>, StoreError> {
        let entries = self.audit_waiting(limit)?;
        // Before they are sent: a lost acknowledgement must not look like ids that another store gave out.
        let last = entries.last().map_or(0, |entry| entry.outbox_id);
        if last > handed(&self.state.read()?)? {
            self.state.write(|transaction| {
                // Never back: more may have been handed over since the look.
                let known: Option<u64> = {
                    let meta = transaction.open_table(META)?;
                    meta.get(HANDED)?.map(|known| known.value().decode()).transpose()?
                };
                note_handed(transaction, last.max(known.unwrap_or_default()))
            })?;
        }
        Ok(entries)
    }

    /// Hears that the ledger has taken ids up to `head`. Where this store has not handed over all of those, they are another's, and the
    /// ledger would take what waits here for what it has: it is numbered anew, and an entry says so. Something that waited when the
    /// store was copied may be in the ledger twice then. How many entries were numbered anew; `None`: there was no need.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_heed(&self, head: u64) -> Result<Option<u64>, StoreError> {
        let transaction = self.state.read()?;
        let handed = handed(&transaction)?;
        if head <= handed {
            return Ok(None);
        }
        // Ids go on, unless there are none left there.
        let given = counter(&transaction, AUDIT_COUNTER)?.filter(|given| *given < FAR).unwrap_or_default();
        self.renumbered(head, handed, head.max(given)).map(Some)
    }

    /// Hears that the ledger, which has ids up to `head`, takes none of those that were handed over because they are too far ahead: what
    /// waits is numbered anew from there, and an entry says so. How many entries these are.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_refused(&self, head: u64) -> Result<u64, StoreError> {
        let handed = handed(&self.state.read()?)?;
        self.renumbered(head, handed, head)
    }

    fn renumbered(&self, head: u64, handed: u64, base: u64) -> Result<u64, StoreError> {
        let room = self.options.audit_entries;
        if base >= FAR {
            // They would be taken for those that it has.
            return Err(StoreError::PeerOutboxId { head });
        }
        self.state.write(|transaction| {
            let entries = renumber(transaction, base)?;
            note_handed(transaction, base)?;
            let payload = json!({ "ledger": head, "store": handed, "entries": entries });
            push(transaction, room, "agent", "outbox-renumbered", &payload)?;
            Ok(entries)
        })
    }

    /// Forgets the entries up to and including `up_to`: procmond has them. When others were lost meanwhile, an entry that says
    /// how many follows, and what retention removed meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn audit_done(&self, up_to: u64) -> Result<(), StoreError> {
        self.audit_taken(up_to, None)
    }
}
