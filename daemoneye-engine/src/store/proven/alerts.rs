//! Alerts as entries tell of them.
//!
//! A ledger tells of far more alerts than a store has: of one that is not stored any more only what retention goes by is kept, and of
//! many of them that together.

use std::cell::Cell;
use std::collections::HashMap;

use daemoneye_lib::ledger::{Hash, hexed};
use daemoneye_lib::model::EventPointer;
use serde_json::Value;
use uuid::Uuid;

use super::super::growth::Growth;
use super::facts::order;
use super::lots::{Lot, Lots};

/// Alerts that are not stored any more and are remembered one by one, some 10 MB: a host whose rule matches everything removes as many
/// in two hours. Of more, the older half is put together.
const GONE: usize = 65_536;

/// Later tellings of one alert as new that are remembered: more than anybody restores a host.
const AGAIN: usize = 16;

/// An alert as an entry tells of it.
#[derive(Debug, Default)]
pub(super) struct AlertFact {
    /// The entry; `None`: it waits for the ledger still.
    pub(super) entry: Option<u64>,
    /// The last one about it.
    pub(super) newest: Option<u64>,
    /// Time of the event that raised it.
    pub(super) time_us: i64,
    /// When it was seen last at the least: retention goes by that.
    pub(super) seen_us: i64,
    /// It was found in the store.
    pub(super) is_stored: Cell<bool>,
    /// What it is; `None`: it was not stored any more when its entry was read.
    pub(super) told: Option<Box<AlertTold>>,
}

/// What entries say of an alert.
#[derive(Debug, Default)]
pub(super) struct AlertTold {
    /// Hash of what was raised; `None`: the entry is of a build that told none.
    pub(super) record: Option<Hash>,
    /// Per collector, the last event that was counted when it was raised; `None`: the entry is of a build that told no growth.
    pub(super) raised: Option<Vec<EventPointer>>,
    /// The same of later entries that tell of it as new: a store that was put back to a copy sees what raised it again.
    pub(super) again: Vec<Hash>,
    /// As it was told of last, and since the store was looked at.
    pub(super) growth: Option<Growth>,
    pub(super) grown_later: Vec<Growth>,
    /// What operators had done with it when the store was looked at, and what they did since.
    pub(super) status: Option<String>,
    pub(super) later: Vec<String>,
}

impl AlertTold {
    fn status(&mut self, status: Option<String>, is_late: bool) {
        if is_late {
            self.later.extend(status);
        } else {
            self.status = status;
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    pub(super) facts: HashMap<Uuid, AlertFact>,
    /// Alerts of which an entry tells less than one before it, that entry and the one before, the first of them.
    pub(super) shrunk: Vec<(Uuid, Option<u64>, Option<u64>)>,
    gone: usize,
    /// Those that are gone and not remembered one by one.
    pub(super) lots: Lots,
}

impl Alerts {
    /// Takes the entry of a new one. `is_there`: it is stored. Whether it was told of for the first time.
    pub(super) fn raised(&mut self, entry: Option<u64>, payload: &Value, is_there: impl Fn(Uuid) -> bool) -> bool {
        let Some(id) = alert(payload) else { return false };
        let record = payload.get("record").and_then(Value::as_str).and_then(hexed::parse);
        if let Some(known) = self.facts.get_mut(&id) {
            if let (Some(told), Some(record)) = (&mut known.told, record)
                && told.again.len() < AGAIN
            {
                told.again.push(record);
            }
            return false;
        }
        let time_us = payload.get("time_us").and_then(Value::as_i64).unwrap_or_default();
        let mut fact = AlertFact { entry, newest: entry, time_us, seen_us: time_us, ..AlertFact::default() };
        if is_there(id) {
            let raised = payload.get("raised").cloned().map(serde_json::from_value).and_then(Result::ok);
            fact.told = Some(Box::new(AlertTold { record, raised, ..AlertTold::default() }));
        } else {
            self.gone = self.gone.saturating_add(1);
        }
        self.facts.insert(id, fact);
        true
    }

    /// Puts the older half of those that are gone together when they are too many.
    pub(super) fn bound(&mut self) {
        if self.gone < GONE {
            return;
        }
        let Self { facts, gone, lots, .. } = self;
        let all = facts.iter().filter(|(_, fact)| fact.told.is_none());
        let mut oldest: Vec<(u64, Uuid)> = all.map(|(id, fact)| (order(fact.newest), *id)).collect();
        oldest.sort_unstable();
        oldest.truncate(GONE / 2);
        *gone = gone.saturating_sub(oldest.len());
        let take = |(newest, id): (u64, Uuid)| {
            let fact = facts.remove(&id)?;
            Some(Lot::one(newest, fact.seen_us, fact.time_us))
        };
        lots.put(oldest.into_iter().filter_map(take));
    }

    /// One that was put together with others is not known by its id any more: what is told of it later stands for itself.
    fn again(&mut self, id: Uuid, entry: Option<u64>, seen_us: i64, is_there: impl Fn(Uuid) -> bool) {
        if self.lots.is_empty() || self.facts.contains_key(&id) || is_there(id) {
            return;
        }
        self.gone = self.gone.saturating_add(1);
        self.facts.insert(id, AlertFact { entry, newest: entry, time_us: i64::MIN, seen_us, ..AlertFact::default() });
    }

    /// What an operator did with one.
    pub(super) fn handled(
        &mut self,
        entry: Option<u64>,
        payload: &Value,
        is_late: bool,
        is_there: impl Fn(Uuid) -> bool,
    ) {
        let Some(id) = alert(payload) else { return };
        self.again(id, entry, i64::MIN, is_there);
        let Some(fact) = self.facts.get_mut(&id) else { return };
        fact.newest = entry;
        if let Some(told) = &mut fact.told {
            told.status(payload.get("to").and_then(Value::as_str).map(str::to_owned), is_late);
        }
    }

    /// What repeats made of one.
    pub(super) fn grew(
        &mut self,
        entry: Option<u64>,
        payload: &Value,
        is_late: bool,
        is_there: impl Fn(Uuid) -> bool,
    ) {
        let grown = serde_json::from_value::<Growth>(payload.clone());
        let Some((id, grown)) = alert(payload).zip(grown.ok()) else { return };
        self.again(id, entry, grown.last_seen_us, is_there);
        let Some(fact) = self.facts.get_mut(&id) else { return };
        let is_known = |told: &AlertTold| told.grown_later.contains(&grown);
        // What waited when the store was looked at may have come into the ledger since.
        if fact.told.as_deref().is_some_and(is_known) {
            return;
        }
        let newest = std::mem::replace(&mut fact.newest, entry);
        fact.seen_us = fact.seen_us.max(grown.last_seen_us);
        let Some(told) = &mut fact.told else { return };
        let before = told.grown_later.last().or(told.growth.as_ref());
        if self.shrunk.len() < super::LISTED && before.is_some_and(|before| !before.grows_to(&grown)) {
            self.shrunk.push((id, entry, newest));
        }
        told.status(Some(grown.status.as_str().to_owned()), is_late);
        if is_late {
            // More than come in that time.
            if told.grown_later.len() < super::LISTED {
                told.grown_later.push(grown);
            }
        } else {
            told.growth = Some(grown);
        }
    }
}

fn alert(payload: &Value) -> Option<Uuid> {
    payload.get("alert")?.as_str()?.parse().ok()
}
