//! What the ledger says of the store, read from end to end and verified on the way.

use std::path::Path;

use daemoneye_lib::ledger::heartbeat::HeartbeatEntry;
use daemoneye_lib::ledger::proof::AGENT_PER_S;
use daemoneye_lib::ledger::{AuditEntry, LedgerError, LedgerReader, LedgerRecord};
use daemoneye_lib::proto::AuditAppend;
use daemoneye_lib::segment::SegmentError;
use serde_json::Value;

use super::super::Store;
use super::super::growth::GREW;
use super::super::retention::Removed;
use super::alerts::Alerts;
use super::began::Began;
use super::clocks::{Ceilings, Clocks, JITTER_US};
use super::crowds::Crowds;
use super::gaps::{GapFact, Gaps, RowKey, grows};
use super::removals::{Removals, limit_us};
use super::restored::Restorations;
use super::streams::Streams;
use super::told::{Removal, SAID, STRETCHES, Told};

/// How much older than the time at which it was raised an alert may be whose entry was lost: an agent that was away catches up.
const RAISED_LATE_US: i64 = 86_400_000_000;

/// What tells of an alert or a row of coverage.
const ROWS: [&str; 5] = ["alert", "alert-suppressed", "alert-status", GREW, "coverage"];

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) entries: u64,
    /// The store is being looked at: what an entry says from now on, it may have or not.
    pub(super) is_late: bool,
    pub(super) alerts: Alerts,
    pub(super) gaps: Gaps,
    pub(super) removals: Removals,
    /// Which alerts and gaps may be gone: those that were told of before an entry of retention, from before its time.
    expiries: Vec<(u64, i64)>,
    /// Entries of retention with an age that no setting allows.
    pub(super) implausible: Vec<Option<u64>>,
    /// Alerts that went because all together had become too large.
    pub(super) crowds: Crowds,
    losses: Vec<Loss>,
    /// Entries of the agent that nobody could keep.
    pub(super) lost: u64,
    /// What the agent says waits here until all of the collector's times behind it are known.
    ceilings: Ceilings<(Option<u64>, Told)>,
    /// Stretches in it.
    stretches: usize,
    /// Times of the newest entries.
    collector_us: i64,
    agent_us: i64,
    /// When the ledger began, by the collector's clock.
    began: Option<Began>,
    /// Entries about alerts and rows of coverage that wait for longer than the way into the ledger can take, and since when.
    pub(super) overdue: (u64, Option<i64>),
    pub(super) streams: Streams,
    pub(super) restorations: Restorations,
    pub(super) clocks: Clocks,
    /// First problem of the chain.
    pub(super) broken: Option<LedgerError>,
}

/// Entries that found no room: what they told of came behind the last one that did.
#[derive(Debug)]
struct Loss {
    entry: Option<u64>,
    from_us: i64,
    to_us: i64,
    first_row: u64,
}

/// A ledger in the middle of being read. The store only says what it has, so that the rest need not be remembered.
pub(super) struct Reading<'a> {
    reader: LedgerReader,
    pub(super) facts: Facts,
    store: &'a Store,
}

impl<'a> Reading<'a> {
    pub(super) fn open(dir: &Path, store: &'a Store) -> Result<Self, SegmentError> {
        let facts = Facts { collector_us: i64::MIN, agent_us: i64::MIN, ..Facts::default() };
        Ok(Self { reader: LedgerReader::open(dir)?, facts, store })
    }

    /// Reads what is there now.
    pub(super) fn go_on(&mut self) {
        while self.facts.broken.is_none() {
            match self.reader.advance() {
                Ok(Some(record)) => self.facts.take(&record, self.store),
                Ok(None) => break,
                Err(error) => self.facts.broken = Some(error),
            }
        }
    }

    /// What waits in the outbox is on its way into the ledger.
    pub(super) fn waits(&mut self, append: &AuditAppend) {
        let said_us = append.timestamp_ms.saturating_mul(1_000);
        let facts = &mut self.facts;
        let late_us = facts.collector_us.saturating_sub(said_us);
        if ROWS.contains(&append.action.as_str()) && late_us > self.store.longest_way_us() {
            let (count, since_us) = facts.overdue;
            facts.overdue =
                (count.saturating_add(1), Some(since_us.map_or(said_us, |since_us| since_us.min(said_us))));
        }
        facts.note((None, said_us), &append.action, &append.payload, self.store);
    }

    /// What the outbox had no room for.
    pub(super) fn owes(&mut self, action: &str, payload: &Value) {
        let said_us = self.facts.agent_us;
        self.facts.note((None, said_us), action, payload.to_string().as_bytes(), self.store);
    }
}

impl Store {
    /// The longest that an entry may wait while the collector takes entries: a full outbox, at the collector's rate.
    fn longest_way_us(&self) -> i64 {
        let seconds = self.options.audit_entries / AGENT_PER_S;
        i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX).saturating_add(JITTER_US)
    }
}

impl Facts {
    fn take(&mut self, record: &LedgerRecord, store: &Store) {
        let entry = &record.entry;
        self.entries = self.entries.saturating_add(1);
        let time_us = entry.timestamp_ms.saturating_mul(1_000);
        if entry.actor == "agent" || entry.actor.starts_with("operator:") {
            return self.note((Some(entry.sequence), time_us), &entry.action, &record.payload, store);
        }
        self.begins(record, time_us);
        self.ceilings.clock(time_us);
        self.clocks.take(entry);
        self.collector_us = time_us;
        self.streams.take(record, self.is_late);
    }

    fn begins(&mut self, record: &LedgerRecord, time_us: i64) {
        let AuditEntry { actor, action, .. } = &record.entry;
        let began = self.began.get_or_insert_with(|| Began::at(time_us));
        let beat = began.is_early().then(|| HeartbeatEntry::of(actor, action, &record.payload)).flatten();
        if let Some(beat) = beat {
            began.beats(beat.from_ms.saturating_mul(1_000), beat.to_ms.saturating_mul(1_000));
        }
        began.take(action, time_us);
    }

    /// When it began; before that nothing was told.
    pub(super) fn began_us(&self) -> i64 {
        self.began.as_ref().map_or(i64::MAX, Began::us)
    }

    /// When the collector wrote last.
    pub(super) const fn ended_us(&self) -> i64 {
        self.collector_us
    }

    /// What excuses are worth, now that it is known when they were said at the latest.
    fn bound(&mut self, now_us: i64) {
        for (time_us, (entry, told)) in self.ceilings.settle(now_us) {
            match told {
                Told::Lost { count, from_us, first_row } => {
                    self.lost = self.lost.saturating_add(count);
                    self.losses.push(Loss { entry, from_us: from_us.min(time_us), to_us: time_us, first_row });
                }
                Told::Removed(removal) => self.removals.add((entry, time_us), removal),
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

    /// What is older than this retention may have removed, whatever it is.
    pub(super) fn gone_before_us(&self) -> Option<i64> {
        // Each has the most of those behind it.
        self.expiries.first().map(|(_, before_us)| *before_us)
    }

    /// Whether retention may have removed what is from `time_us` and was told of last by `entry`.
    pub(super) fn is_expired(&self, entry: Option<u64>, time_us: i64) -> bool {
        let behind = self.expiries.partition_point(|(expiry, _)| *expiry < order(entry));
        self.expiries.get(behind).is_some_and(|(_, before_us)| time_us < *before_us)
    }

    fn note(&mut self, (entry, said_us): (Option<u64>, i64), action: &str, payload: &[u8], store: &Store) {
        // The agent's word for when is none: it lies between what stands around it.
        let time_us = said_us.max(self.collector_us);
        let agent_us = std::mem::replace(&mut self.agent_us, time_us);
        let told = [
            "alert",
            "alert-suppressed",
            "alert-status",
            GREW,
            "coverage",
            "alerts-removed",
            "events-removed",
            "outbox-renumbered",
            "retention",
            "audit-entries-lost",
        ];
        let parsed = told.contains(&action).then(|| serde_json::from_slice::<Value>(payload).ok()).flatten();
        let Some(payload) = parsed else { return };
        let number = |name: &str| payload.get(name).and_then(Value::as_i64);
        let is_there = |id| store.has_alert(id).unwrap_or(true);
        // What comes while the store is looked at is little, and need not be there.
        if !self.is_late {
            self.alerts.bound();
            self.gaps.bound(self.began_us());
        }
        match action {
            "alert" | "alert-suppressed" => {
                if self.alerts.raised(entry, &payload, is_there) {
                    self.crowds.comes(number("bytes"));
                }
            }
            "alerts-removed" => {
                let [until_us, alerts, bytes] = ["until_us", "alerts", "bytes"].map(number);
                let had_history = self.streams.had_history();
                self.crowds.goes((entry, until_us.unwrap_or(i64::MIN)), [alerts, bytes], had_history);
            }
            "alert-status" => self.alerts.handled(entry, &payload, self.is_late, is_there),
            GREW => self.alerts.grew(entry, &payload, self.is_late, is_there),
            "coverage" => {
                let began_us = self.began.as_ref().map_or(self.collector_us, Began::us);
                let told_us = self.collector_us.saturating_sub(began_us).max(0);
                let is_there = |at| store.has_gap(at).unwrap_or(true);
                self.gaps.tell(entry, payload, (told_us, self.is_late), is_there);
            }
            "events-removed" => {
                let gone = payload.get("ranges").cloned().map(serde_json::from_value::<Vec<Removed>>);
                let why = payload.get("why").and_then(Value::as_str).unwrap_or_default().to_owned();
                let mut ranges = gone.and_then(Result::ok).unwrap_or_default();
                // Of what no range of this ledger has covered yet there is nothing to excuse.
                ranges.retain(|range| range.first <= range.last && self.streams.has_ranges(&range.collector));
                let removal = Removal { why, before_us: number("before_us"), ranges, ..Removal::default() };
                self.say(time_us, entry, Told::Removed(removal));
            }
            "outbox-renumbered" => self.restorations.tell((entry, time_us), &payload),
            "retention" => {
                self.crowds.ages(number("alerts"));
                if let Some(before_us) = number("before_us") {
                    self.say(time_us, entry, Told::Retention { before_us });
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
        self.crowds.is_known = false;
        let first_row = self.gaps.next();
        self.say(time_us, entry, Told::Lost { count, from_us, first_row });
    }

    fn say(&mut self, time_us: i64, entry: Option<u64>, told: Told) {
        self.stretches = self.stretches.saturating_add(told.stretches());
        self.ceilings.say(time_us, (entry, told));
        // The newest is listed one by one as long as that will do.
        for (part, vaguely) in [(2, false), (1, false), (1, true)] {
            if self.ceilings.len() <= SAID && self.stretches <= STRETCHES {
                return;
            }
            self.put_together(part, vaguely);
        }
    }

    /// Puts the first `1 / part` of what was said together.
    fn put_together(&mut self, part: usize, vaguely: bool) {
        let count = self.ceilings.len().div_ceil(part);
        self.ceilings.fold(count, |(entry, told), (later, more)| {
            let rest = told.join(more);
            if rest.is_none() {
                *entry = later;
            }
            rest.map(|rest| (later, rest))
        });
        self.stretches = 0;
        for (_, told) in self.ceilings.said() {
            told.shorten(vaguely);
            self.stretches = self.stretches.saturating_add(told.stretches());
        }
    }

    /// Nothing more comes. `losing`: entries that find no room at this moment, of which none could tell yet.
    pub(super) fn settle(&mut self, losing: Option<u64>, now_us: i64) {
        if let Some(count) = losing {
            self.loses(None, count, self.agent_us, now_us);
        }
        self.bound(now_us);
        self.removals.settle();
        self.crowds.settle();
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
    pub(super) fn may_have_grown(&self, key: &RowKey, fact: &GapFact, row: &Value) -> bool {
        let to_us = row.get("to_us").and_then(Value::as_i64).unwrap_or(i64::MAX);
        let is_after = |loss: &&Loss| order(loss.entry) >= order(fact.entry);
        let mut losses = self.losses.iter().filter(is_after);
        let is_newest = |loss: &Loss| self.gaps.is_newest(key, loss.first_row);
        let grows = fact.row.as_ref().is_some_and(|told| grows(told, row));
        grows && losses.any(|loss| to_us <= loss.to_us.saturating_add(JITTER_US) && is_newest(loss))
    }
}

/// Where an entry stands; one that waits comes behind all others.
pub(super) fn order(entry: Option<u64>) -> u64 {
    entry.unwrap_or(u64::MAX)
}
