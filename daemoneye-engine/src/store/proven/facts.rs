//! What the ledger says of the store, read from end to end and verified on the way.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use daemoneye_lib::ledger::range_in;
use daemoneye_lib::ledger::{Hash, LedgerError, LedgerReader, LedgerRecord, hexed};
use daemoneye_lib::proto::AuditAppend;
use daemoneye_lib::segment::SegmentError;
use serde_json::Value;
use uuid::Uuid;

use super::super::retention::Removed;
use super::leaves::Position;
use super::removals::{JITTER_US, Removals, limit_us};

/// How much older than the time at which it was raised an alert may be whose entry was lost: an agent that was away catches up.
const RAISED_LATE_US: i64 = 86_400_000_000;

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
    pub(super) removals: Removals,
    /// Alerts and gaps from before it may be gone.
    pub(super) before_us: i64,
    /// Entries of retention with an age that no setting allows.
    pub(super) implausible: Vec<Option<u64>>,
    losses: Vec<Loss>,
    /// Entries of the agent that nobody could keep.
    pub(super) lost: u64,
    /// What the agent says waits here until a collector's entry behind it bounds when that was.
    unbounded: Vec<(Option<u64>, i64, Told)>,
    /// Times of the newest entries.
    collector_us: i64,
    agent_us: i64,
    /// Per collector, the last position that a range covers.
    pub(super) covered: HashMap<String, Position>,
    /// First problem of the chain.
    pub(super) broken: Option<LedgerError>,
}

/// What an excuse is made of.
#[derive(Debug)]
enum Told {
    Lost { count: u64, from_us: i64, first_row: u64 },
    Removed { why: String, before_us: Option<i64>, gone: Vec<Removed> },
    Retention { before_us: i64 },
}

/// Entries that found no room: what they told of came behind the last one that did.
#[derive(Debug)]
struct Loss {
    from_us: i64,
    to_us: i64,
    first_row: u64,
}

/// A ledger in the middle of being read.
pub(super) struct Reading {
    reader: LedgerReader,
    pub(super) facts: Facts,
}

impl Reading {
    pub(super) fn open(dir: &Path) -> Result<Self, SegmentError> {
        let facts = Facts { before_us: i64::MIN, collector_us: i64::MIN, agent_us: i64::MIN, ..Facts::default() };
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
        let time_us = entry.timestamp_ms.saturating_mul(1_000);
        if entry.actor == "agent" || entry.actor.starts_with("operator:") {
            return self.note((Some(entry.sequence), time_us), &entry.action, &record.payload);
        }
        self.bound(time_us);
        self.collector_us = time_us;
        if let Some(range) = range_in(record) {
            self.covered.insert(range.collector, (range.epoch, range.last));
        }
    }

    /// What waits in the outbox is on its way into the ledger.
    pub(super) fn waits(&mut self, append: &AuditAppend) {
        self.note((None, append.timestamp_ms.saturating_mul(1_000)), &append.action, &append.payload);
    }

    /// What was said since the collector's last entry was said before `us`.
    fn bound(&mut self, us: i64) {
        for (entry, time_us, told) in std::mem::take(&mut self.unbounded) {
            let time_us = time_us.min(us);
            match told {
                Told::Lost { count, from_us, first_row } => {
                    self.lost = self.lost.saturating_add(count);
                    self.losses.push(Loss { from_us: from_us.min(time_us), to_us: time_us, first_row });
                }
                Told::Removed { why, before_us, gone } => self.removals.add((entry, time_us), why, before_us, gone),
                Told::Retention { before_us } => {
                    let limit_us = limit_us(time_us, Some(before_us));
                    if before_us > limit_us.saturating_add(JITTER_US) {
                        self.implausible.push(entry);
                    }
                    self.before_us = self.before_us.max(limit_us);
                }
            }
        }
    }

    fn note(&mut self, (entry, said_us): (Option<u64>, i64), action: &str, payload: &[u8]) {
        // The agent's word for when is none: it lies between what stands around it.
        let time_us = said_us.max(self.collector_us);
        let agent_us = std::mem::replace(&mut self.agent_us, time_us);
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
                let gone = payload.get("ranges").cloned().map(serde_json::from_value::<Vec<Removed>>);
                let why = payload.get("why").and_then(Value::as_str).unwrap_or_default().to_owned();
                let gone = gone.and_then(Result::ok).unwrap_or_default();
                self.unbounded.push((entry, time_us, Told::Removed { why, before_us: number("before_us"), gone }));
            }
            "retention" => {
                let told = number("before_us").map(|before_us| Told::Retention { before_us });
                self.unbounded.extend(told.map(|told| (entry, time_us, told)));
            }
            _ => {
                let count = number("count").and_then(|count| u64::try_from(count).ok()).unwrap_or(1);
                self.loses(entry, count, agent_us, time_us);
            }
        }
    }

    /// The outbox was full behind the agent's entry of `from_us`.
    fn loses(&mut self, entry: Option<u64>, count: u64, from_us: i64, time_us: i64) {
        let first_row = self.gaps.last_key_value().map_or(0, |(id, _)| id.saturating_add(1));
        self.unbounded.push((entry, time_us, Told::Lost { count, from_us, first_row }));
    }

    /// Nothing more comes. `losing`: entries that find no room at this moment, of which none could tell yet.
    pub(super) fn settle(&mut self, losing: Option<u64>, now_us: i64) {
        if let Some(count) = losing {
            self.loses(None, count, self.agent_us, now_us);
        }
        self.bound(now_us);
        self.removals.settle();
    }

    /// Whether the entry of an alert of that time may be one that found no room.
    pub(super) fn may_have_lost_alert(&self, time_us: i64) -> bool {
        let from_us = |loss: &Loss| loss.from_us.saturating_sub(RAISED_LATE_US);
        self.losses.iter().any(|loss| time_us >= from_us(loss) && time_us <= loss.to_us.saturating_add(JITTER_US))
    }

    /// Whether that of a row of coverage may be; `new`: none tells of it at all. What it is about may be long ago.
    pub(super) fn may_have_lost_row(&self, new: Option<u64>, to_us: i64) -> bool {
        let is_after = |loss: &&Loss| new.is_none_or(|id| id >= loss.first_row);
        self.losses.iter().filter(is_after).any(|loss| to_us <= loss.to_us.saturating_add(JITTER_US))
    }
}
