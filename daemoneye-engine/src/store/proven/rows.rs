//! Alerts and rows of coverage against what entries tell of them.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use daemoneye_lib::model::Alert;
use redb::{ReadTransaction, ReadableTable as _};
use serde_json::Value;
use uuid::Uuid;

use super::super::alert::{StoredAlert, status_key};
use super::super::growth::Growth;
use super::super::state::{ALERTS, ALERTS_BY_STATUS, COVERAGE};
use super::super::{StoreError, growth};
use super::Proven;
use super::facts::{AlertFact, Facts, GapFact};

const INSERTED: &str = "no entry of the ledger tells of it: it was put into the store";

/// What is compared; only what the first `early` entries tell of has to be in the store.
pub(super) struct Rows<'a> {
    pub(super) facts: &'a Facts,
    pub(super) early: u64,
    /// Rows that were taken for those of lost entries.
    excused: Cell<u64>,
}

impl<'a> Rows<'a> {
    pub(super) const fn new(facts: &'a Facts, early: u64) -> Self {
        Self { facts, early, excused: Cell::new(0) }
    }

    /// An entry that was lost excuses one row, of its time.
    fn excuse(&self, is_of_the_time: bool) -> bool {
        let excused = self.excused.get();
        let is_excused = is_of_the_time && excused < self.facts.lost;
        self.excused.set(excused.saturating_add(u64::from(is_excused)));
        is_excused
    }

    fn had(&self, entry: Option<u64>) -> bool {
        entry.is_some_and(|entry| entry < self.early)
    }

    /// A row that no entry tells of.
    fn inserted(place: String, is_excused: bool, found: &mut Proven) {
        if is_excused {
            found.rows_unproven = found.rows_unproven.saturating_add(1);
        } else {
            found.report(place, INSERTED);
        }
    }

    pub(super) fn alerts(&self, transaction: &ReadTransaction, found: &mut Proven) -> Result<(), StoreError> {
        for (id, entry) in &self.facts.shrunk {
            let what = format!("it was changed: {} has less of it than an entry before", shown(*entry));
            found.report(format!("alert {id}"), what);
        }
        let mut stored: BTreeMap<Uuid, StoredAlert> = BTreeMap::new();
        for row in transaction.open_table(ALERTS)?.iter()? {
            let (id, alert) = row?;
            stored.insert(Uuid::from_u128(id.value()), alert.value().decode()?);
        }
        listed(transaction, &stored, found)?;
        for (id, fact) in &self.facts.alerts {
            match stored.remove(id) {
                Some(alert) => self.judge_alert(&alert, *id, fact, growth::waits(transaction, *id)?, found),
                None if !self.had(fact.entry) || self.facts.is_expired(fact.newest, fact.seen_us()) => {}
                None => found.report(format!("alert {id}"), deleted(fact.entry)),
            }
        }
        for (id, alert) in stored {
            let is_excused = self.excuse(self.facts.may_have_lost_alert(alert.time_us));
            Self::inserted(format!("alert {id}"), is_excused, found);
        }
        Ok(())
    }

    /// `waits`: it has grown since it was told of.
    fn judge_alert(&self, stored: &StoredAlert, id: Uuid, fact: &AlertFact, waits: bool, found: &mut Proven) {
        let Some(record) = fact.record else {
            found.rows_unproven = found.rows_unproven.saturating_add(1);
            return;
        };
        let (place, born) = (format!("alert {id}"), stored.born());
        let alert = serde_json::from_str::<Alert>(born).ok().filter(|_| blake3::hash(born.as_bytes()) == record);
        let Some(alert) = alert.filter(|alert| alert.time_us == stored.time_us) else {
            return found.report(place, format!("it was changed: it is not what {} tells of", shown(fact.entry)));
        };
        let status = stored.status.as_str();
        let told = fact.status.clone().unwrap_or_else(|| alert.status.as_str().to_owned());
        if status != told && !fact.later.iter().any(|later| later == status) && !self.excuse(waits) {
            return found.report(place, format!("its status was changed: it is {status}, the ledger says {told}"));
        }
        let grown = Growth::of(stored);
        // An entry of a build that told no growth says what it was raised with, and nothing of later.
        let known = fact.growth.clone().or_else(|| Some(Growth::born(alert, fact.raised.clone()?)));
        let Some(known) = known else {
            found.alerts_unproven = found.alerts_unproven.saturating_add(1);
            return;
        };
        if known.is_as_seen(&grown) || fact.grown_later.iter().any(|later| later.is_as_seen(&grown)) {
            found.alerts = found.alerts.saturating_add(1);
        } else if waits && known.grows_to(&grown) {
            found.alerts_growing = found.alerts_growing.saturating_add(1);
        } else {
            let what = format!("it was changed: it counts {}, and the ledger tells of {}", grown.count, known.count);
            found.report(place, what);
        }
    }

    pub(super) fn coverage(&self, transaction: &ReadTransaction, found: &mut Proven) -> Result<(), StoreError> {
        let mut stored = BTreeMap::new();
        for row in transaction.open_table(COVERAGE)?.iter()? {
            let (key, gap) = row?;
            let id = key.value().1;
            stored.insert(id, gap.value().decode()?.audited(id));
        }
        for (id, fact) in &self.facts.gaps {
            match stored.remove(id) {
                Some(row) => self.judge_gap(&row, *id, fact, found),
                None if !self.had(fact.entry) || self.facts.is_expired(fact.entry, ended_us(&fact.row)) => {}
                None => found.report(format!("coverage row {id}"), deleted(fact.entry)),
            }
        }
        let first = self.facts.gaps.keys().next().copied().unwrap_or(u64::MAX);
        for (id, row) in stored {
            let is_excused = id < first || self.excuse(self.facts.may_have_lost_row(id, ended_us(&row)));
            Self::inserted(format!("coverage row {id}"), is_excused, found);
        }
        Ok(())
    }

    fn judge_gap(&self, row: &Value, id: u64, fact: &GapFact, found: &mut Proven) {
        if *row == fact.row || fact.later.contains(row) {
            found.coverage = found.coverage.saturating_add(1);
        } else if self.excuse(self.facts.may_have_grown(id, fact, row)) {
            // It may have grown, and the entry that said so was lost.
            found.rows_unproven = found.rows_unproven.saturating_add(1);
        } else {
            let what = format!("it was changed: it is {row}, {} has {}", shown(fact.entry), fact.row);
            found.report(format!("coverage row {id}"), what);
        }
    }
}

/// An alert that no list shows is as good as deleted, and rows that name none crowd others out.
fn listed(
    transaction: &ReadTransaction,
    stored: &BTreeMap<Uuid, StoredAlert>,
    found: &mut Proven,
) -> Result<(), StoreError> {
    let mut indexed = HashSet::new();
    for row in transaction.open_table(ALERTS_BY_STATUS)?.iter()? {
        let (status, time_us, id) = row?.0.value();
        let id = Uuid::from_u128(id);
        let fits = |alert: &StoredAlert| (status_key(alert.status), alert.time_us) == (status, time_us);
        if stored.get(&id).is_some_and(fits) {
            indexed.insert(id);
        } else {
            found.report(format!("alert {id}"), "the lists have it with a status or time that it does not have");
        }
    }
    for id in stored.keys().filter(|id| !indexed.contains(id)) {
        found.report(format!("alert {id}"), "no list shows it: it was taken out of the index");
    }
    Ok(())
}

fn deleted(entry: Option<u64>) -> String {
    format!("{} tells of it and nothing removed it: it was deleted", shown(entry))
}

fn shown(entry: Option<u64>) -> String {
    entry.map_or_else(|| "an entry that waits for the ledger".to_owned(), |entry| format!("ledger entry {entry}"))
}

fn ended_us(row: &Value) -> i64 {
    row.get("to_us").and_then(Value::as_i64).unwrap_or(i64::MAX)
}
