//! What the ledger says of the store, read from end to end and verified on the way.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use daemoneye_lib::ledger::{EventRange, Hash, LedgerError, LedgerReader, LedgerRecord, hexed};
use daemoneye_lib::proto::AuditAppend;
use daemoneye_lib::segment::SegmentError;
use serde_json::Value;
use uuid::Uuid;

use super::super::retention::Removed;
use super::leaves::Position;

/// An alert as an entry tells of it.
#[derive(Debug, Clone)]
pub(super) struct AlertFact {
    /// The entry; `None`: it waits for the ledger still.
    pub(super) entry: Option<u64>,
    /// Hash of what was raised; `None`: the entry is of a build that told none.
    pub(super) record: Option<Hash>,
    pub(super) time_us: i64,
    /// What operators had done with it when the store was looked at, and what they did since.
    pub(super) status: Option<String>,
    pub(super) later: Vec<String>,
}

/// A row of coverage as the last entry about it tells.
#[derive(Debug, Clone)]
pub(super) struct GapFact {
    pub(super) entry: Option<u64>,
    pub(super) row: Value,
    /// What entries say that came while the store was looked at.
    pub(super) later: Vec<Value>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) entries: u64,
    /// The store is being looked at: what an entry says from now on, it may have or not.
    pub(super) is_late: bool,
    pub(super) alerts: HashMap<Uuid, AlertFact>,
    pub(super) gaps: BTreeMap<u64, GapFact>,
    /// What retention took, per collector.
    removed: HashMap<String, Vec<(Position, Position)>>,
    /// Alerts and gaps from before it may be gone.
    pub(super) before_us: i64,
    /// Entries of the agent that nobody could keep.
    pub(super) lost: u64,
    /// Per collector, the last position that a range covers.
    pub(super) covered: HashMap<String, Position>,
    /// First problem of the chain.
    pub(super) broken: Option<LedgerError>,
}

/// A ledger in the middle of being read.
pub(super) struct Reading {
    reader: LedgerReader,
    pub(super) facts: Facts,
}

impl Reading {
    pub(super) fn open(dir: &Path) -> Result<Self, SegmentError> {
        let facts = Facts { before_us: i64::MIN, ..Facts::default() };
        Ok(Self { reader: LedgerReader::open(dir)?, facts })
    }

    /// Reads what is there now.
    pub(super) fn go_on(&mut self) {
        while self.facts.broken.is_none() {
            match self.reader.advance() {
                Ok(Some(record)) => self.facts.take(&record),
                Ok(None) => break,
                Err(error) => self.facts.broken = Some(error),
            }
        }
    }
}

impl Facts {
    fn take(&mut self, record: &LedgerRecord) {
        let entry = &record.entry;
        self.entries = self.entries.saturating_add(1);
        if entry.action == "event-range" {
            if let Some(range) = EventRange::read(&record.payload) {
                self.covered.insert(range.collector, (range.epoch, range.last));
            }
        } else if entry.actor == "agent" || entry.actor.starts_with("operator:") {
            self.note(Some(entry.sequence), &entry.action, &record.payload);
        }
    }

    /// What waits in the outbox is on its way into the ledger.
    pub(super) fn waits(&mut self, append: &AuditAppend) {
        self.note(None, &append.action, &append.payload);
    }

    fn note(&mut self, entry: Option<u64>, action: &str, payload: &[u8]) {
        let told = [
            "alert",
            "alert-suppressed",
            "alert-status",
            "coverage",
            "events-removed",
            "retention",
            "audit-entries-lost",
        ];
        let parsed = told.contains(&action).then(|| serde_json::from_slice::<Value>(payload).ok()).flatten();
        let Some(payload) = parsed else { return };
        let number = |name: &str| payload.get(name).and_then(Value::as_i64);
        let alert = || payload.get("alert").and_then(Value::as_str).and_then(|id| id.parse::<Uuid>().ok());
        match action {
            "alert" | "alert-suppressed" => {
                let record = payload.get("record").and_then(Value::as_str).and_then(hexed::parse);
                let time_us = number("time_us").unwrap_or_default();
                let fact = AlertFact { entry, record, time_us, status: None, later: Vec::new() };
                self.alerts.extend(alert().filter(|id| !self.alerts.contains_key(id)).map(|id| (id, fact)));
            }
            "alert-status" => {
                let status = payload.get("to").and_then(Value::as_str).map(str::to_owned);
                match alert().and_then(|id| self.alerts.get_mut(&id)) {
                    Some(fact) if self.is_late => fact.later.extend(status),
                    Some(fact) => fact.status = status,
                    None => {}
                }
            }
            "coverage" => {
                let Some(id) = number("row").and_then(|row| u64::try_from(row).ok()) else { return };
                match self.gaps.get_mut(&id) {
                    Some(fact) if self.is_late => fact.later.push(payload),
                    _ => drop(self.gaps.insert(id, GapFact { entry, row: payload, later: Vec::new() })),
                }
            }
            "events-removed" => {
                let ranges = payload.get("ranges").cloned().map(serde_json::from_value::<Vec<Removed>>);
                for Removed { collector, first, last } in ranges.and_then(Result::ok).unwrap_or_default() {
                    self.removed.entry(collector).or_default().push((first, last));
                }
            }
            "retention" => self.before_us = self.before_us.max(number("before_us").unwrap_or(i64::MIN)),
            _ => {
                self.lost = self.lost.saturating_add(number("count").and_then(|n| u64::try_from(n).ok()).unwrap_or(1))
            }
        }
    }

    /// Makes what retention took one sorted list for each collector.
    pub(super) fn settle(&mut self) {
        for ranges in self.removed.values_mut() {
            ranges.sort_unstable();
            ranges.dedup_by(|next, before| {
                let follows = next.0.0 == before.1.0 && next.0.1 <= before.1.1.saturating_add(1);
                if follows {
                    before.1 = before.1.max(next.1);
                }
                follows
            });
        }
    }

    /// Whether retention took the event at `at`.
    pub(super) fn is_removed(&self, collector: &str, at: Position) -> bool {
        let Some(ranges) = self.removed.get(collector) else { return false };
        let behind = ranges.partition_point(|(first, _)| *first <= at);
        behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| *last >= at)
    }
}
