//! Alerts as entries tell of them.
//!
//! A ledger tells of far more alerts than a store has: of one that is not stored any more only what retention goes by is kept.

use std::cell::Cell;
use std::collections::HashMap;

use daemoneye_lib::ledger::{Hash, hexed};
use daemoneye_lib::model::EventPointer;
use serde_json::Value;
use uuid::Uuid;

use super::super::growth::Growth;

/// Alerts that are not stored any more and are remembered: some 100 MB. Of more nobody knows whether retention took them.
const GONE: usize = 1_000_000;

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
    /// Alerts of which an entry tells less than one before it, the first of them.
    pub(super) shrunk: Vec<(Uuid, Option<u64>)>,
    gone: usize,
    /// Those that are not remembered.
    pub(super) forgotten: u64,
}

impl Alerts {
    /// Takes the entry of a new one. `is_there`: it is stored. Whether it was told of for the first time.
    pub(super) fn raised(&mut self, entry: Option<u64>, payload: &Value, is_there: impl Fn(Uuid) -> bool) -> bool {
        let Some(id) = alert(payload).filter(|id| !self.facts.contains_key(id)) else { return false };
        let time_us = payload.get("time_us").and_then(Value::as_i64).unwrap_or_default();
        let mut fact = AlertFact { entry, newest: entry, time_us, seen_us: time_us, ..AlertFact::default() };
        if is_there(id) {
            let record = payload.get("record").and_then(Value::as_str).and_then(hexed::parse);
            let raised = payload.get("raised").cloned().map(serde_json::from_value).and_then(Result::ok);
            fact.told = Some(Box::new(AlertTold { record, raised, ..AlertTold::default() }));
        } else if self.gone < GONE {
            self.gone = self.gone.saturating_add(1);
        } else {
            self.forgotten = self.forgotten.saturating_add(1);
            return true;
        }
        self.facts.insert(id, fact);
        true
    }

    /// What an operator did with one.
    pub(super) fn handled(&mut self, entry: Option<u64>, payload: &Value, is_late: bool) {
        let Some(fact) = alert(payload).and_then(|id| self.facts.get_mut(&id)) else { return };
        fact.newest = entry;
        if let Some(told) = &mut fact.told {
            told.status(payload.get("to").and_then(Value::as_str).map(str::to_owned), is_late);
        }
    }

    /// What repeats made of one.
    pub(super) fn grew(&mut self, entry: Option<u64>, payload: &Value, is_late: bool) {
        let grown = serde_json::from_value::<Growth>(payload.clone());
        let Some((id, grown)) = alert(payload).zip(grown.ok()) else { return };
        let Some(fact) = self.facts.get_mut(&id) else { return };
        let is_known = |told: &AlertTold| told.grown_later.contains(&grown);
        // What waited when the store was looked at may have come into the ledger since.
        if fact.told.as_deref().is_some_and(is_known) {
            return;
        }
        (fact.newest, fact.seen_us) = (entry, fact.seen_us.max(grown.last_seen_us));
        let Some(told) = &mut fact.told else { return };
        let before = told.grown_later.last().or(told.growth.as_ref());
        if self.shrunk.len() < super::LISTED && before.is_some_and(|before| !before.grows_to(&grown)) {
            self.shrunk.push((id, entry));
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
