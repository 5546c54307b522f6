//! Alerts and rows of coverage against what entries tell of them.

use std::cell::Cell;

use daemoneye_lib::model::Alert;
use redb::{ReadOnlyTable, ReadTransaction};
use serde_json::Value;
use uuid::Uuid;

use super::super::alert::{StoredAlert, status_key};
use super::super::growth::Growth;
use super::super::state::{ALERTS, ALERTS_BY_STATUS, COVERAGE};
use super::super::value::Stored;
use super::super::{Store, StoreError, growth};
use super::alerts::AlertFact;
use super::facts::Facts;
use super::found::Proven;
use super::gaps::{GapFact, RowKey, ended_us, may_become};
use super::lots::Lot;

const CAME_BACK: &str = "it was not in the store a moment before: it was put into it";
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

    /// A row that no entry tells of. `us`: when it was raised, or ended.
    fn unknown(place: String, us: i64, is_older: bool, is_excused: impl FnOnce() -> bool, found: &mut Proven) {
        if is_older {
            found.older(place, us);
        } else if is_excused() {
            found.rows_unproven = found.rows_unproven.saturating_add(1);
        } else {
            found.report(place, INSERTED);
        }
    }

    pub(super) fn alerts(&self, transaction: &ReadTransaction, found: &mut Proven) -> Result<(), StoreError> {
        let restored = &self.facts.restorations;
        for (id, entry, _) in
            self.facts.alerts.shrunk.iter().filter(|(_, entry, before)| !restored.has(*before, *entry))
        {
            let what = format!("it was changed: {} has less of it than an entry before", shown(*entry));
            found.report(format!("alert {id}"), what);
        }
        let (alerts, index) = (transaction.open_table(ALERTS)?, transaction.open_table(ALERTS_BY_STATUS)?);
        listed(&alerts, &index, found)?;
        for row in alerts.range(0..)? {
            let (id, alert) = row?;
            let (id, alert) = (id.value(), alert.value().decode()?);
            let uuid = Uuid::from_u128(id);
            if index.get((status_key(alert.status), alert.time_us, id))?.is_none() {
                found.report(format!("alert {uuid}"), "no list shows it: it was taken out of the index");
            }
            if let Some(fact) = self.facts.alerts.facts.get(&uuid) {
                fact.is_stored.set(true);
                self.judge_alert(&alert, uuid, fact, growth::waits(transaction, uuid)?, found);
                continue;
            }
            let is_excused = || self.excuse(self.facts.may_have_lost_alert(alert.time_us));
            Self::unknown(format!("alert {uuid}"), alert.time_us, self.is_older(&alert), is_excused, found);
        }
        let mut perhaps = 0_u64;
        for (id, fact) in self.facts.alerts.facts.iter().filter(|(_, fact)| !fact.is_stored.get()) {
            if !self.had(fact.entry) || self.facts.is_expired(fact.newest, fact.seen_us) {
                continue;
            }
            if self.facts.crowds.took(fact.newest, fact.time_us, found.alerts_removed) {
                found.alerts_removed = found.alerts_removed.saturating_add(1);
            } else if self.facts.crowds.perhaps_took(fact.newest, fact.time_us, perhaps) {
                perhaps = perhaps.saturating_add(1);
            } else if !restored.took_row(fact.entry) {
                found.report(format!("alert {id}"), deleted(fact.entry));
            }
        }
        found.rows_unproven = found.rows_unproven.saturating_add(perhaps);
        self.facts.alerts.lots.iter().for_each(|lot| self.judge_lot(lot, found));
        Ok(())
    }

    /// Alerts that are gone. Whether retention took those that it did not take all of, nobody can tell any more.
    fn judge_lot(&self, lot: &Lot, found: &mut Proven) {
        let Lot { rows, newest, seen_us, time_us } = *lot;
        if self.facts.is_expired(Some(newest), seen_us) {
            return;
        }
        let behind = found.alerts_removed.saturating_add(rows).saturating_sub(1);
        if self.facts.crowds.took(Some(newest), time_us, behind) {
            found.alerts_removed = found.alerts_removed.saturating_add(rows);
        } else {
            found.rows_unproven = found.rows_unproven.saturating_add(rows);
        }
    }

    /// Whether an alert that no entry tells of may have been raised before this ledger began: by its time, and by the events that it
    /// names, of which none is of a run that this ledger tells of. Every alert of ours names one.
    fn is_older(&self, alert: &StoredAlert) -> bool {
        let born = serde_json::from_str::<Alert>(alert.born()).ok();
        let is_before = |born: &Alert| {
            let mut events = born.events.iter();
            let is_caused = !born.events.is_empty();
            is_caused
                && born.time_us == alert.time_us
                && events.all(|at| self.facts.streams.is_before(&at.collector, at.epoch))
        };
        alert.time_us < self.facts.began_us() && born.as_ref().is_some_and(is_before)
    }

    /// `waits`: it has grown since it was told of.
    fn judge_alert(&self, stored: &StoredAlert, id: Uuid, fact: &AlertFact, waits: bool, found: &mut Proven) {
        let Some(told) = fact.told.as_deref() else {
            return found.report(format!("alert {id}"), CAME_BACK);
        };
        let Some(record) = told.record else {
            found.rows_unproven = found.rows_unproven.saturating_add(1);
            return;
        };
        let (place, born) = (format!("alert {id}"), stored.born());
        let hash = *blake3::hash(born.as_bytes()).as_bytes();
        // Raised again, from the same events with others around them, after the store was put back.
        if hash != record && told.again.contains(&hash) && self.facts.restorations.took_row(fact.entry) {
            return;
        }
        let alert = serde_json::from_str::<Alert>(born).ok().filter(|_| hash == record);
        let Some(alert) = alert.filter(|alert| alert.time_us == stored.time_us) else {
            return found.report(place, format!("it was changed: it is not what {} tells of", shown(fact.entry)));
        };
        let status = stored.status.as_str();
        let said = told.status.clone().unwrap_or_else(|| alert.status.as_str().to_owned());
        let is_said = status == said || told.later.iter().any(|later| later == status);
        let restored = &self.facts.restorations;
        let is_restored = !is_said && restored.took_row(fact.newest);
        // The entry that said so found no room.
        let is_excused = !is_said && !is_restored && self.excuse(waits);
        if !is_said && !is_restored && !is_excused {
            return found.report(place, format!("its status was changed: it is {status}, the ledger says {said}"));
        }
        let grown = Growth::of(stored);
        // An entry of a build that told no growth says what it was raised with, and nothing of later.
        let known = told.growth.clone().or_else(|| Some(Growth::born(alert, told.raised.clone()?)));
        let count = match known {
            None => &mut found.alerts_unproven,
            Some(known)
                if known.is_as_seen(&grown) || told.grown_later.iter().any(|later| later.is_as_seen(&grown)) =>
            {
                if fact.entry.is_some() { &mut found.alerts } else { &mut found.rows_pending }
            }
            Some(known) if waits && known.grows_to(&grown) => &mut found.alerts_growing,
            // It is as it was when the store was copied.
            Some(known) if grown.grows_to(&known) && (is_restored || restored.took_row(fact.newest)) => return,
            Some(known) => {
                let what =
                    format!("it was changed: it counts {}, and the ledger tells of {}", grown.count, known.count);
                return found.report(place, what);
            }
        };
        let count = if is_excused { &mut found.rows_unproven } else { count };
        *count = count.saturating_add(u64::from(!is_restored));
    }

    pub(super) fn coverage(&self, transaction: &ReadTransaction, found: &mut Proven) -> Result<(), StoreError> {
        let (gaps, restored) = (&self.facts.gaps, &self.facts.restorations);
        for (id, entry, _) in gaps.shrunk.iter().filter(|(_, entry, before)| !restored.has(*before, *entry)) {
            let what = format!("it was changed: {} says what cannot have become of it", shown(*entry));
            found.report(format!("coverage row {id}"), what);
        }
        for row in transaction.open_table(COVERAGE)?.range((i64::MIN, 0)..)? {
            let (at, gap) = row?;
            let (from_us, id) = at.value();
            let row = gap.value().decode()?.audited(id);
            let place = format!("coverage row {id}");
            let key = RowKey::of(&row).filter(|_| row.get("from_us").and_then(Value::as_i64) == Some(from_us));
            let Some(key) = key else {
                found.report(place, "it is filed under another time than its own: it was changed");
                continue;
            };
            if let Some(fact) = gaps.facts.get(&key) {
                fact.is_stored.set(true);
                self.judge_gap(&row, &key, fact, found);
                continue;
            }
            let to_us = ended_us(&row);
            let is_older = gaps.may_be_older(&key, to_us, self.facts.began_us());
            let is_excused = || !gaps.has_number(id) && self.excuse(self.facts.may_have_lost_row(id, to_us));
            Self::unknown(place, to_us, is_older, is_excused, found);
        }
        for (key, fact) in gaps.facts.iter().filter(|(_, fact)| !fact.is_stored.get()) {
            let is_gone = self.had(fact.entry) && !self.facts.is_expired(fact.entry, fact.to_us);
            if is_gone && !restored.took_row(fact.entry) {
                found.report(format!("coverage row {}", key.id), deleted(fact.entry));
            }
        }
        let lots = gaps.together.lots.iter();
        let unproven = lots.filter(|lot| !self.facts.is_expired(Some(lot.newest), lot.seen_us)).map(|lot| lot.rows);
        let unproven = unproven.fold(gaps.forgotten, u64::saturating_add);
        found.rows_unproven = found.rows_unproven.saturating_add(unproven);
        Ok(())
    }

    fn judge_gap(&self, row: &Value, key: &RowKey, fact: &GapFact, found: &mut Proven) {
        let place = format!("coverage row {}", key.id);
        let Some(told) = &fact.row else { return found.report(place, CAME_BACK) };
        if row == told || fact.later.contains(row) {
            let count = if fact.entry.is_some() { &mut found.coverage } else { &mut found.rows_pending };
            *count = count.saturating_add(1);
        } else if may_become(row, told) && self.facts.restorations.took_row(fact.entry) {
            // It is as it was when the store was copied.
        } else if self.excuse(self.facts.may_have_grown(key, fact, row)) {
            // It may have grown, and the entry that said so was lost.
            found.rows_unproven = found.rows_unproven.saturating_add(1);
        } else {
            found.report(place, format!("it was changed: it is {row}, {} has {told}", shown(fact.entry)));
        }
    }
}

/// The newest entry that is the first one of an alert or of a row of coverage that is stored; 0 where there is none.
pub(super) fn newest(transaction: &ReadTransaction, facts: &Facts) -> Result<u64, StoreError> {
    let mut newest = 0_u64;
    for row in transaction.open_table(ALERTS)?.range(0..)? {
        let fact = facts.alerts.facts.get(&Uuid::from_u128(row?.0.value()));
        newest = newest.max(fact.and_then(|fact| fact.entry).unwrap_or_default());
    }
    for row in transaction.open_table(COVERAGE)?.range((i64::MIN, 0)..)? {
        let (at, gap) = row?;
        let key = RowKey::of(&gap.value().decode()?.audited(at.value().1));
        let fact = key.and_then(|key| facts.gaps.facts.get(&key));
        // One that came while the outbox was full is told of late, and a copy may have it before.
        let first = fact.filter(|_| facts.lost == 0).and_then(|fact| fact.first);
        newest = newest.max(first.unwrap_or_default());
    }
    Ok(newest)
}

impl Store {
    /// Whether an alert is stored.
    pub(super) fn has_alert(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.state.read()?.open_table(ALERTS)?.get(id.as_u128())?.is_some())
    }

    /// Whether a row of coverage is.
    pub(super) fn has_gap(&self, at: (i64, u64)) -> Result<bool, StoreError> {
        Ok(self.state.read()?.open_table(COVERAGE)?.get(at)?.is_some())
    }
}

/// Rows of the index that name no alert crowd others out.
fn listed(
    alerts: &ReadOnlyTable<u128, Stored<StoredAlert>>,
    index: &ReadOnlyTable<(u8, i64, u128), ()>,
    found: &mut Proven,
) -> Result<(), StoreError> {
    for row in index.range::<(u8, i64, u128)>(..)? {
        let (status, time_us, id) = row?.0.value();
        let fits = match alerts.get(id)? {
            Some(alert) => {
                let alert = alert.value().decode()?;
                (status_key(alert.status), alert.time_us) == (status, time_us)
            }
            None => false,
        };
        if !fits {
            let place = format!("alert {}", Uuid::from_u128(id));
            found.report(place, "the lists have it with a status or time that it does not have");
        }
    }
    Ok(())
}

fn deleted(entry: Option<u64>) -> String {
    format!("{} tells of it and nothing removed it: it was deleted", shown(entry))
}

fn shown(entry: Option<u64>) -> String {
    entry.map_or_else(|| "an entry that waits for the ledger".to_owned(), |entry| format!("ledger entry {entry}"))
}
