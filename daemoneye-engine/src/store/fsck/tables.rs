//! `state.redb`: each value decodes, each reference leads somewhere, each index has what it is an index of.

use std::collections::{BTreeMap, HashMap, HashSet};

use daemoneye_lib::proto::ProcessRecord;
use prost::Message as _;
use redb::{Key, ReadTransaction, ReadableTable as _, TableDefinition, TableHandle as _};
use uuid::Uuid;

use super::super::alert::{StoredAlert, status_key};
use super::super::commit::key_hash;
use super::super::counts;
use super::super::outbox::{DeliveryRow, DeliveryState};
use super::super::state::{
    ALERTS, ALERTS_BY_KEY, ALERTS_BY_STATUS, AUDIT, COVERAGE, COVERAGE_NEWEST, DELIVERIES, DELIVERY_COUNTS, DUE,
    GROWN, LEAVING, LEDGERS, LIFETIMES, META, OWED, RATES, RULE_LISTS, RULE_VERSIONS, RULES, SCANS, SEGMENTS, SYSTEM,
    WATERMARKS, key,
};
use super::super::value::{Record, Stored};
use super::super::{Store, StoreError, damage};
use super::Fsck;

const RESTORE: &str = "restore state.redb from a backup";
const STOPPED: &str = "stop the agent, copy the data directory, then restore state.redb from a backup";

/// Tables that belong together.
type Part = fn(&ReadTransaction, &mut Fsck) -> Result<(), StoreError>;

/// What of an alert its references need.
struct Known {
    status: u8,
    time_us: i64,
    /// Of its key.
    hash: u128,
}

/// (sink, alert), when it is due and in which order.
type Waiting = (String, i64, u64, u128);

impl Store {
    /// Every table in one transaction. Damage in one does not hide what is wrong with another.
    pub(super) fn check_tables(&self, found: &mut Fsck) -> Result<(), StoreError> {
        let transaction = self.state.read()?;
        let path = self.options.dir.join(super::super::open::STATE_FILE);
        let parts: [(&str, Part); 4] =
            [("alerts", alerts), ("alert_deliveries", deliveries), ("coverage", coverage), ("values", values)];
        for (name, part) in parts {
            // A panic of redb on a damaged page is an answer as well.
            if let Err(error) = damage::guarded(&path, || part(&transaction, found)) {
                found.report(format!("state.redb, {name}"), error.to_string(), STOPPED);
            }
        }
        Ok(())
    }
}

/// Decodes every value of a table and hands it on.
fn each<K: Key + 'static, T: Record>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, Stored<T>>,
    found: &mut Fsck,
    mut take: impl FnMut(K::SelfType<'_>, T, &mut Fsck),
) -> Result<(), StoreError> {
    found.tables = found.tables.saturating_add(1);
    for entry in transaction.open_table(table)?.iter()? {
        let (at, value) = entry?;
        found.values = found.values.saturating_add(1);
        match value.value().decode() {
            Ok(value) => take(at.value(), value, found),
            Err(error) => {
                let place = format!("state.redb, {} {:?}", table.name(), at.value());
                found.report(place, said(error), RESTORE);
            }
        }
    }
    Ok(())
}

fn alerts(transaction: &ReadTransaction, found: &mut Fsck) -> Result<(), StoreError> {
    let mut known: HashMap<u128, Known> = HashMap::new();
    each(transaction, ALERTS, found, |id, stored: StoredAlert, found| {
        let status = status_key(stored.status);
        match stored.into_alert() {
            Ok(alert) if key(alert.id) == id => {
                let hash = key_hash(&alert.dedup_key);
                known.insert(id, Known { status, time_us: alert.time_us, hash });
            }
            Ok(alert) => found.report(place("alerts", id), format!("it holds alert {}", alert.id), RESTORE),
            Err(error) => found.report(place("alerts", id), said(error), RESTORE),
        }
    })?;
    let mut indexed = HashSet::new();
    found.tables = found.tables.saturating_add(2);
    for entry in transaction.open_table(ALERTS_BY_STATUS)?.iter()? {
        let (status, time_us, id) = entry?.0.value();
        found.values = found.values.saturating_add(1);
        indexed.insert(id);
        if known.get(&id).is_none_or(|alert| (alert.status, alert.time_us) != (status, time_us)) {
            found.report(place("alerts_by_status", id), "no alert has this status and time", RESTORE);
        }
    }
    let mut keys = HashSet::new();
    for entry in transaction.open_table(ALERTS_BY_KEY)?.iter()? {
        let (at, id) = entry?;
        let ((hash, time_us), id) = (at.value(), id.value());
        found.values = found.values.saturating_add(1);
        keys.insert((hash, time_us));
        if known.get(&id).is_none_or(|alert| (alert.hash, alert.time_us) != (hash, time_us)) {
            found.report(place("alerts_by_key", id), "no alert has this key and time", RESTORE);
        }
    }
    found.tables = found.tables.saturating_add(1);
    for entry in transaction.open_table(GROWN)?.iter()? {
        let id = entry?.0.value();
        found.values = found.values.saturating_add(1);
        if !known.contains_key(&id) {
            found.report(place("alerts_grown", id), "there is no such alert", RESTORE);
        }
    }
    for id in known.keys().filter(|id| !indexed.contains(id)) {
        found.report(place("alerts", *id), "the index by status does not have it, so no list shows it", RESTORE);
    }
    for (id, _) in known.iter().filter(|(_, alert)| !keys.contains(&(alert.hash, alert.time_us))) {
        found.report(
            place("alerts", *id),
            "the index by key does not have it, so its next match is an alert",
            RESTORE,
        );
    }
    Ok(())
}

fn deliveries(transaction: &ReadTransaction, found: &mut Fsck) -> Result<(), StoreError> {
    let alerts = transaction.open_table(ALERTS)?;
    let mut waiting: HashSet<Waiting> = HashSet::new();
    let mut counted: BTreeMap<(String, u8), u64> = BTreeMap::new();
    let mut failed = None;
    each(transaction, DELIVERIES, found, |(sink, id), row: DeliveryRow, found| {
        let count = counted.entry((sink.to_owned(), counts::number(row.state))).or_default();
        *count = count.saturating_add(1);
        if row.state == DeliveryState::Pending {
            waiting.insert((sink.to_owned(), row.next_try_us, row.order, id));
        }
        match alerts.get(id) {
            Ok(Some(_)) => {}
            Ok(None) => found.report(
                place("alert_deliveries", id),
                format!("{sink} is to get an alert that is not there"),
                RESTORE,
            ),
            Err(error) => failed = Some(error),
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    found.tables = found.tables.saturating_add(1);
    for entry in transaction.open_table(DUE)?.iter()? {
        let (at, id) = entry?;
        let ((sink, next_try_us, order), id) = (at.value(), id.value());
        found.values = found.values.saturating_add(1);
        if !waiting.remove(&(sink.to_owned(), next_try_us, order, id)) {
            found.report(place("alert_deliveries_due", id), format!("nothing waits for {sink} at this time"), RESTORE);
        }
    }
    for (sink, _, _, id) in waiting {
        found.report(place("alert_deliveries", id), format!("it waits for {sink} and is never due"), RESTORE);
    }
    each(transaction, DELIVERY_COUNTS, found, |(sink, state), count: u64, found| {
        let real = counted.remove(&(sink.to_owned(), state)).unwrap_or_default();
        if real != count {
            let place = format!("state.redb, alert_delivery_counts {sink}");
            found.report(place, format!("it counts {count} deliveries, there are {real}"), RESTORE);
        }
    })?;
    for ((sink, _), real) in counted {
        let place = format!("state.redb, alert_delivery_counts {sink}");
        found.report(place, format!("it does not count {real} deliveries"), RESTORE);
    }
    Ok(())
}

fn coverage(transaction: &ReadTransaction, found: &mut Fsck) -> Result<(), StoreError> {
    let mut known = HashSet::new();
    each(transaction, COVERAGE, found, |at, _, _| {
        known.insert(at);
    })?;
    found.tables = found.tables.saturating_add(1);
    for entry in transaction.open_table(COVERAGE_NEWEST)?.iter()? {
        let (kind, at) = entry?;
        found.values = found.values.saturating_add(1);
        if !known.contains(&at.value()) {
            let (collector, reason) = kind.value();
            let place = format!("state.redb, coverage_newest {collector} {reason}");
            found.report(place, "it names a gap that is not there", RESTORE);
        }
    }
    Ok(())
}

/// The tables that refer to nothing.
fn values(transaction: &ReadTransaction, found: &mut Fsck) -> Result<(), StoreError> {
    each(transaction, META, found, |_, _, _| {})?;
    each(transaction, SEGMENTS, found, |_, _, _| {})?;
    each(transaction, LEAVING, found, |_, _, _| {})?;
    each(transaction, WATERMARKS, found, |_, _, _| {})?;
    each(transaction, RATES, found, |_, _, _| {})?;
    each(transaction, LEDGERS, found, |_, _, _| {})?;
    each(transaction, OWED, found, |_, _, _| {})?;
    each(transaction, SYSTEM, found, |_, _, _| {})?;
    each(transaction, SCANS, found, |_, _, _| {})?;
    each(transaction, LIFETIMES, found, |entity, lifetime, found| {
        let what = match ProcessRecord::decode(lifetime.record.as_slice()) {
            Ok(process) if process.entity_id == entity.to_be_bytes() => return,
            Ok(_) => "it holds another process".to_owned(),
            Err(error) => error.to_string(),
        };
        found.report(format!("state.redb, process_lifetimes_open {entity:032x}"), what, RESTORE);
    })?;
    let mut rules = HashSet::new();
    each(transaction, RULES, found, |id, rule, found| {
        rules.insert(id);
        if key(rule.id) != id {
            found.report(place("detection_rules", id), format!("it holds rule {}", rule.id), RESTORE);
        }
    })?;
    each(transaction, RULE_VERSIONS, found, |(id, version), text, found| {
        if (key(text.rule), text.version) != (id, version) {
            let what = format!("it holds version {} of rule {}", text.version, text.rule);
            found.report(place("rule_versions", id), what, RESTORE);
        } else if !rules.contains(&id) {
            found.report(place("rule_versions", id), "there is no such rule", RESTORE);
        }
    })?;
    each(transaction, RULE_LISTS, found, |_, _, _| {})?;
    each(transaction, AUDIT, found, |id, row, found| {
        if let Err(error) = serde_json::from_slice::<serde_json::Value>(&row.payload) {
            found.report(format!("state.redb, audit_outbox {id}"), error.to_string(), RESTORE);
        }
    })
}

/// Without the remedy, which stands beside it.
fn said(error: StoreError) -> String {
    match error {
        StoreError::CorruptState { what, .. } => what,
        other => other.to_string(),
    }
}

fn place(table: &str, id: u128) -> String {
    format!("state.redb, {table} {}", Uuid::from_u128(id))
}
