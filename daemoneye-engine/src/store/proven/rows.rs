//! Alerts and rows of coverage against what entries tell of them.

use std::cell::Cell;
use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable as _};
use serde_json::Value;
use uuid::Uuid;

use super::super::StoreError;
use super::super::alert::StoredAlert;
use super::super::state::{ALERTS, COVERAGE};
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
        let mut stored: BTreeMap<Uuid, StoredAlert> = BTreeMap::new();
        for row in transaction.open_table(ALERTS)?.iter()? {
            let (id, alert) = row?;
            stored.insert(Uuid::from_u128(id.value()), alert.value().decode()?);
        }
        for (id, fact) in &self.facts.alerts {
            match stored.remove(id) {
                Some(alert) => judge_alert(&alert, *id, fact, found),
                None if !self.had(fact.entry) || fact.time_us < self.facts.before_us => {}
                None => found.report(format!("alert {id}"), deleted(fact.entry)),
            }
        }
        for (id, alert) in stored {
            let is_excused = self.excuse(self.facts.may_have_lost_alert(alert.time_us));
            Self::inserted(format!("alert {id}"), is_excused, found);
        }
        Ok(())
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
                None if !self.had(fact.entry) || ended_us(&fact.row) < self.facts.before_us => {}
                None => found.report(format!("coverage row {id}"), deleted(fact.entry)),
            }
        }
        let first = self.facts.gaps.keys().next().copied().unwrap_or(u64::MAX);
        for (id, row) in stored {
            let is_excused = id < first || self.excuse(self.facts.may_have_lost_row(Some(id), ended_us(&row)));
            Self::inserted(format!("coverage row {id}"), is_excused, found);
        }
        Ok(())
    }

    fn judge_gap(&self, row: &Value, id: u64, fact: &GapFact, found: &mut Proven) {
        if *row == fact.row || fact.later.contains(row) {
            found.coverage = found.coverage.saturating_add(1);
        } else if self.excuse(self.facts.may_have_lost_row(None, ended_us(row))) {
            // It may have grown, and the entry that said so was lost.
            found.rows_unproven = found.rows_unproven.saturating_add(1);
        } else {
            let what = format!("it was changed: it is {row}, {} has {}", shown(fact.entry), fact.row);
            found.report(format!("coverage row {id}"), what);
        }
    }
}

fn judge_alert(stored: &StoredAlert, id: Uuid, fact: &AlertFact, found: &mut Proven) {
    let Some(record) = fact.record else {
        found.rows_unproven = found.rows_unproven.saturating_add(1);
        return;
    };
    let (place, born) = (format!("alert {id}"), stored.born());
    if blake3::hash(born.as_bytes()) != record {
        return found.report(place, format!("it was changed: it is not what {} tells of", shown(fact.entry)));
    }
    let at_birth = || serde_json::from_str::<Value>(born).ok()?.get("status")?.as_str().map(str::to_owned);
    let told = fact.status.clone().or_else(at_birth).unwrap_or_default();
    let status = stored.status.as_str();
    if status == told || fact.later.iter().any(|later| later == status) {
        found.alerts = found.alerts.saturating_add(1);
    } else {
        found.report(place, format!("its status was changed: it is {status}, the ledger says {told}"));
    }
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
