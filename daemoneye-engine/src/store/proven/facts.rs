//! What the ledger says of the store, read from end to end and verified on the way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use daemoneye_lib::ledger::range_in;
use daemoneye_lib::ledger::{Hash, LedgerError, LedgerReader, LedgerRecord, hexed};
use daemoneye_lib::model::EventPointer;
use daemoneye_lib::proto::AuditAppend;
use daemoneye_lib::segment::SegmentError;
use serde_json::Value;
use uuid::Uuid;

use super::super::growth::{GREW, Growth};
use super::super::reason;
use super::super::retention::Removed;
use super::clocks::{Ceilings, Clocks, JITTER_US};
use super::leaves::Position;
use super::removals::{Removals, limit_us};

/// How much older than the time at which it was raised an alert may be whose entry was lost: an agent that was away catches up.
const RAISED_LATE_US: i64 = 86_400_000_000;

/// An alert as an entry tells of it.
#[derive(Debug, Clone, Default)]
pub(super) struct AlertFact {
    /// The entry; `None`: it waits for the ledger still.
    pub(super) entry: Option<u64>,
    /// The last one about it.
    pub(super) newest: Option<u64>,
    /// Hash of what was raised; `None`: the entry is of a build that told none.
    pub(super) record: Option<Hash>,
    pub(super) time_us: i64,
    /// Per collector, the last event that was counted when it was raised; `None`: the entry is of a build that told no growth.
    pub(super) raised: Option<Vec<EventPointer>>,
    /// As it was told of last, and since the store was looked at.
    pub(super) growth: Option<Growth>,
    pub(super) grown_later: Vec<Growth>,
    /// What operators had done with it when the store was looked at, and what they did since.
    pub(super) status: Option<String>,
    pub(super) later: Vec<String>,
}

impl AlertFact {
    /// When it was seen last at the least: retention goes by that.
    pub(super) fn seen_us(&self) -> i64 {
        self.growth.as_ref().map_or(self.time_us, |growth| growth.last_seen_us.max(self.time_us))
    }

    fn tell_status(&mut self, entry: Option<u64>, status: Option<String>, is_late: bool) {
        if is_late {
            self.later.extend(status);
        } else {
            self.status = status;
        }
        self.newest = entry;
    }
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
    /// Alerts of which an entry tells less than one before it.
    pub(super) shrunk: Vec<(Uuid, Option<u64>)>,
    pub(super) gaps: BTreeMap<u64, GapFact>,
    pub(super) removals: Removals,
    /// Which alerts and gaps may be gone: those that were told of before an entry of retention, from before its time.
    expiries: Vec<(u64, i64)>,
    /// Entries of retention with an age that no setting allows.
    pub(super) implausible: Vec<Option<u64>>,
    losses: Vec<Loss>,
    /// Entries of the agent that nobody could keep.
    pub(super) lost: u64,
    /// What the agent says waits here until all of the collector's times behind it are known.
    ceilings: Ceilings<(Option<u64>, Told)>,
    /// Times of the newest entries.
    collector_us: i64,
    agent_us: i64,
    /// Per collector, the last position that a range covers.
    pub(super) covered: HashMap<String, Position>,
    /// How far the agent had said to have stored it.
    pub(super) committed: HashMap<String, Position>,
    /// The collectors whose last word is that they ended, all of their events covered.
    pub(super) ended: HashSet<String>,
    pub(super) clocks: Clocks,
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
    entry: Option<u64>,
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
        let facts = Facts { collector_us: i64::MIN, agent_us: i64::MIN, ..Facts::default() };
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
        self.ceilings.clock(time_us);
        self.clocks.take(entry);
        self.collector_us = time_us;
        if entry.action == "stop" && !is_forced(&record.payload) {
            self.ended.insert(entry.actor.clone());
        } else {
            self.ended.remove(&entry.actor);
        }
        // Of a later one: what was stored since then is not in what is looked at.
        if entry.action == "registration" && !self.is_late {
            let place = committed(&record.payload).map(|at| (entry.actor.clone(), at));
            self.committed.extend(place);
        }
        if let Some(range) = range_in(record) {
            self.covered.insert(range.collector, (range.epoch, range.last));
        }
    }

    /// What waits in the outbox is on its way into the ledger.
    pub(super) fn waits(&mut self, append: &AuditAppend) {
        self.note((None, append.timestamp_ms.saturating_mul(1_000)), &append.action, &append.payload);
    }

    /// What the outbox had no room for.
    pub(super) fn owes(&mut self, action: &str, payload: &Value) {
        self.note((None, self.agent_us), action, payload.to_string().as_bytes());
    }

    /// What excuses are worth, now that it is known when they were said at the latest.
    fn bound(&mut self, now_us: i64) {
        for (time_us, (entry, told)) in self.ceilings.settle(now_us) {
            match told {
                Told::Lost { count, from_us, first_row } => {
                    self.lost = self.lost.saturating_add(count);
                    self.losses.push(Loss { entry, from_us: from_us.min(time_us), to_us: time_us, first_row });
                }
                Told::Removed { why, before_us, gone } => self.removals.add((entry, time_us), why, before_us, gone),
                Told::Retention { before_us } => {
                    let limit_us = limit_us(time_us, Some(before_us));
                    if before_us > limit_us.saturating_add(JITTER_US) {
                        self.implausible.push(entry);
                    }
                    self.expiries.push((order(entry), limit_us));
                }
            }
        }
        self.expiries.sort_unstable();
        let mut most_us = i64::MIN;
        for (_, limit_us) in self.expiries.iter_mut().rev() {
            most_us = most_us.max(*limit_us);
            *limit_us = most_us;
        }
    }

    /// Whether retention may have removed what is from `time_us` and was told of last by `entry`.
    pub(super) fn is_expired(&self, entry: Option<u64>, time_us: i64) -> bool {
        let behind = self.expiries.partition_point(|(expiry, _)| *expiry < order(entry));
        self.expiries.get(behind).is_some_and(|(_, before_us)| time_us < *before_us)
    }

    fn note(&mut self, (entry, said_us): (Option<u64>, i64), action: &str, payload: &[u8]) {
        // The agent's word for when is none: it lies between what stands around it.
        let time_us = said_us.max(self.collector_us);
        let agent_us = std::mem::replace(&mut self.agent_us, time_us);
        let told = [
            "alert",
            "alert-suppressed",
            "alert-status",
            GREW,
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
                let raised = payload.get("raised").cloned().map(serde_json::from_value).and_then(Result::ok);
                let fact = AlertFact { entry, newest: entry, record, time_us, raised, ..AlertFact::default() };
                self.alerts.extend(alert().filter(|id| !self.alerts.contains_key(id)).map(|id| (id, fact)));
            }
            "alert-status" => {
                let status = payload.get("to").and_then(Value::as_str).map(str::to_owned);
                if let Some(fact) = alert().and_then(|id| self.alerts.get_mut(&id)) {
                    fact.tell_status(entry, status, self.is_late);
                }
            }
            GREW => {
                let grown = serde_json::from_value::<Growth>(payload.clone());
                let Some((id, grown)) = alert().zip(grown.ok()) else { return };
                let Some(fact) = self.alerts.get_mut(&id) else { return };
                // What waited when the store was looked at may have come into the ledger since.
                if fact.grown_later.contains(&grown) {
                    return;
                }
                if fact.grown_later.last().or(fact.growth.as_ref()).is_some_and(|before| !before.grows_to(&grown)) {
                    self.shrunk.push((id, entry));
                }
                fact.tell_status(entry, Some(grown.status.as_str().to_owned()), self.is_late);
                if self.is_late {
                    fact.grown_later.push(grown);
                } else {
                    fact.growth = Some(grown);
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
                let told = Told::Removed { why, before_us: number("before_us"), gone };
                self.ceilings.say(time_us, (entry, told));
            }
            "retention" => {
                if let Some(before_us) = number("before_us") {
                    self.ceilings.say(time_us, (entry, Told::Retention { before_us }));
                }
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
        self.ceilings.say(time_us, (entry, Told::Lost { count, from_us, first_row }));
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

    /// Whether that of a new row of coverage may be. What it is about may be long ago.
    pub(super) fn may_have_lost_row(&self, id: u64, to_us: i64) -> bool {
        let is_after = |loss: &&Loss| id >= loss.first_row;
        self.losses.iter().filter(is_after).any(|loss| to_us <= loss.to_us.saturating_add(JITTER_US))
    }

    /// Whether a row of coverage may have grown to `row` while entries were lost: only the newest one of its kind grows.
    pub(super) fn may_have_grown(&self, id: u64, fact: &GapFact, row: &Value) -> bool {
        let to_us = row.get("to_us").and_then(Value::as_i64).unwrap_or(i64::MAX);
        let kind = |row: &Value| (row.get("collector").cloned(), row.get("reason").cloned());
        let is_newest = |loss: &Loss| {
            let newer = self.gaps.range(id.saturating_add(1)..loss.first_row.max(id.saturating_add(1)));
            newer.map(|(_, newer)| &newer.row).all(|newer| kind(newer) != kind(row))
        };
        let is_after = |loss: &&Loss| order(loss.entry) >= order(fact.entry);
        let mut losses = self.losses.iter().filter(is_after);
        grows(&fact.row, row) && losses.any(|loss| to_us <= loss.to_us.saturating_add(JITTER_US) && is_newest(loss))
    }
}

/// Where an entry stands; one that waits comes behind all others.
fn order(entry: Option<u64>) -> u64 {
    entry.unwrap_or(u64::MAX)
}

/// Whether the one may have become the other by taking in more gaps.
fn grows(told: &Value, row: &Value) -> bool {
    let same = |name: &str| told.get(name) == row.get(name);
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_i64);
    let is_more = |name: &str| number(told, name) <= number(row, name);
    let at = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).and_then(place);
    // Once a part of it was not counted, none of it is.
    let counts = row.get("count").is_some_and(Value::is_null) || number(told, "count").is_some() && is_more("count");
    // A row about one file stands alone.
    let grows = row.get("reason").and_then(Value::as_str).is_some_and(|word| word != reason::SEGMENT_DAMAGED);
    grows
        && ["row", "collector", "reason", "from_us", "detail"].into_iter().all(same)
        && is_more("to_us")
        && counts
        && (at(told, "first").is_none() || same("first"))
        && at(told, "last") <= at(row, "last")
}

/// `epoch:number`
fn place(text: &str) -> Option<Position> {
    let (epoch, number) = text.split_once(':')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

/// A collector that was forced to end waits for nothing: its source may tell of something behind its last range.
fn is_forced(payload: &[u8]) -> bool {
    let reason = serde_json::from_slice::<Value>(payload).ok().and_then(|payload| payload.get("reason").cloned());
    reason.as_ref().and_then(Value::as_str) == Some("force shutdown")
}

/// What the agent had committed when it registered its collector.
fn committed(payload: &[u8]) -> Option<Position> {
    let payload: Value = serde_json::from_slice(payload).ok()?;
    place(payload.get("committed")?.as_str()?)
}
