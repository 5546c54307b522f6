//! What a comparison of the store with the ledger found.

use std::collections::BTreeMap;

use daemoneye_lib::ledger::EventRange;
use daemoneye_lib::proto::Sequence;
use serde::Serialize;

use super::super::fsck::{Problem, list};
use super::leaves::{Position, Seen};
use super::{Removal, Restored};

/// Streams whose events no range covers and that are told apart; of more only the events are counted.
const STREAMS: usize = 64;
/// Events of each that are named.
const NAMED: usize = 8;
/// Characters of a collector's name: more than any that registers has.
const NAME_CHARS: usize = 128;
/// Alerts and rows of coverage that are older than the ledger and that are named; of more only the number is told.
const ROWS: usize = 100;

const KEEP: &str = "keep both as they are; compare with a backup, and with a checkpoint that left the host";

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// Entries of the ledger.
    pub entries: u64,
    /// Ranges of events among them.
    pub ranges: u64,
    /// Events that are exactly those that were recorded.
    pub events: u64,
    /// Events that retention took, as the ledger says.
    pub removed: u64,
    /// Events that are gone, of the unproven: the ledger tells of more stretches than are remembered, and these may be among them or not.
    pub perhaps_removed: u64,
    /// Events that are on their way: into the store, or into the ledger.
    pub pending: u64,
    /// Events that should have come into the store long ago, and of which nothing shows that they did.
    pub overdue: Vec<Missing>,
    /// Events that their collector's log lost before the agent had taken them, as the collector says.
    pub lost: Vec<Missing>,
    /// Events that cannot be judged: no range covers them, their range has no tree, or a part of it is gone without its leaves.
    pub unproven: u64,
    /// Those of them that no range covers.
    pub uncovered: Vec<Uncovered>,
    /// Such events of further streams.
    pub further_uncovered: u64,
    /// Alerts that are as they were raised and have grown since, as the ledger tells.
    pub alerts: u64,
    /// Alerts that have grown within the last minute, of which the ledger is still to hear.
    pub alerts_growing: u64,
    /// Alerts of a build that told no growth: what they were raised with is proven, and their status.
    pub alerts_unproven: u64,
    /// Alerts that are gone because all together had become too large, as the ledger tells.
    pub alerts_removed: u64,
    /// Rows of coverage that are as the ledger has them.
    pub coverage: u64,
    /// Lifetimes that are what the stop of their process says.
    pub lifetimes: u64,
    /// Lifetimes of which nobody told the end or whose events retention took, and stops of which it took the lifetime.
    pub lifetimes_unproven: u64,
    /// Alerts and rows of coverage whose entry waits for the ledger: until it has it, they are as the store says.
    pub rows_pending: u64,
    /// Entries about alerts and rows of coverage that wait for longer than the way into the ledger can take: nobody handed them over, or
    /// they are not meant to come there.
    pub rows_overdue: u64,
    /// When the first of them was written, µs since the Unix epoch, by the agent's word.
    pub rows_overdue_since_us: Option<i64>,
    /// Alerts and rows of coverage that no entry proves: of a build whose entries had no such proof, older than the ledger, or of
    /// which the entry was lost.
    pub rows_unproven: u64,
    /// Those of them that are older than the ledger, the first.
    pub older_rows: Vec<OlderRow>,
    /// Such rows that are not listed.
    pub further_older_rows: u64,
    /// When the ledger began, µs since the Unix epoch, by the collector's clock.
    pub began_us: Option<i64>,
    /// What is not there, or as it was, because the store was put back to an older copy.
    pub restored: Vec<Restored>,
    /// What retention took, entry by entry, the newest.
    pub removals: Vec<Removal>,
    /// Removals that are not listed, all older.
    pub further_removals: u64,
    /// What does not fit.
    pub problems: Vec<Problem>,
    /// Problems that are not listed.
    pub further_problems: u64,
    /// False: it was stopped before its end.
    pub finished: bool,
}

impl Proven {
    /// Whether all was looked at and nothing contradicts the ledger.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.finished && self.problems.is_empty()
    }

    pub(super) fn report(&mut self, place: impl Into<String>, what: impl Into<String>) {
        let problem = Problem { place: place.into(), what: what.into(), advice: KEEP };
        list(&mut self.problems, &mut self.further_problems, problem);
    }

    /// Takes note of an alert or a row of coverage that may be older than the ledger.
    pub(super) fn older(&mut self, place: String, time_us: i64) {
        self.rows_unproven = self.rows_unproven.saturating_add(1);
        if self.older_rows.len() < ROWS {
            self.older_rows.push(OlderRow { place, time_us });
        } else {
            self.further_older_rows = self.further_older_rows.saturating_add(1);
        }
    }
}

/// Events of a collector that the ledger covers and the store does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Collector.
    pub collector: String,
    /// The first, `epoch:number`.
    pub first: String,
    /// The last.
    pub last: String,
    /// When the first were recorded, µs since the Unix epoch.
    pub since_us: i64,
    /// How many.
    pub events: u64,
}

/// Puts further events of a range to those of its collector. `numbers`: in order.
pub(super) fn miss(all: &mut Vec<Missing>, range: &EventRange, numbers: &[u64], since_us: i64) {
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return };
    let at = |number: u64| Sequence::new(range.epoch, number).to_string();
    let events = numbers.len() as u64;
    match all.iter_mut().find(|known| known.collector == range.collector) {
        Some(known) => (known.last, known.events) = (at(*last), known.events.saturating_add(events)),
        None => {
            let collector = range.collector.clone();
            all.push(Missing { collector, first: at(*first), last: at(*last), since_us, events });
        }
    }
}

/// Events of a stream that no range covers and that do not contradict the ledger. Nothing shows that they are as they were recorded,
/// and not that they were recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncovered {
    /// Collector, by the store's own word.
    pub collector: String,
    /// Why no range does.
    pub why: Why,
    /// How many.
    pub events: u64,
    /// Those of them that are dated behind the beginning of the ledger.
    pub dated_since: u64,
    /// The least position, `epoch:number`.
    pub first: String,
    /// The greatest.
    pub last: String,
    /// The earliest time of an event, µs since the Unix epoch.
    pub from_us: i64,
    /// The latest.
    pub to_us: i64,
    /// A few of them: position and entity.
    pub named: Vec<String>,
}

/// Why no range covers an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// It was recorded long after the last entry of the ledger, which was cut off, or could not be written.
    Behind,
    /// Its collector writes no ranges into this ledger.
    Foreign,
    /// It stands before all that the ledger covers of its stream.
    Older,
    /// It is of a run of its collector that the ledger does not tell of.
    Unbegun,
}

/// An alert or a row of coverage that may be from before the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OlderRow {
    /// Which one.
    pub place: String,
    /// When it was raised, or ended.
    pub time_us: i64,
}

/// Gathers what no range covers.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    streams: BTreeMap<(String, Why), Lot>,
    further: u64,
}

#[derive(Debug)]
struct Lot {
    events: u64,
    dated_since: u64,
    at: (Position, Position),
    us: (i64, i64),
    named: Vec<String>,
}

impl Gathered {
    pub(super) fn add(&mut self, event: &Seen<'_>, why: Why, began_us: i64) {
        let key = (named(event.collector), why);
        let is_room = self.streams.len() < STREAMS || self.streams.contains_key(&key);
        if !is_room {
            self.further = self.further.saturating_add(1);
            return;
        }
        let Seen { at, time_us, .. } = *event;
        let fresh = || Lot { events: 0, dated_since: 0, at: (at, at), us: (time_us, time_us), named: Vec::new() };
        let lot = self.streams.entry(key).or_insert_with(fresh);
        lot.events = lot.events.saturating_add(1);
        lot.dated_since = lot.dated_since.saturating_add(u64::from(time_us > began_us));
        lot.at = (lot.at.0.min(at), lot.at.1.max(at));
        lot.us = (lot.us.0.min(time_us), lot.us.1.max(time_us));
        if lot.named.len() < NAMED {
            lot.named.push(format!("{} (entity {:032x})", shown(at), event.entity()));
        }
    }

    pub(super) fn tell(self, found: &mut Proven) {
        found.further_uncovered = self.further;
        found.unproven = found.unproven.saturating_add(self.further);
        for ((collector, why), lot) in self.streams {
            let Lot { events, dated_since, at, us, named } = lot;
            found.unproven = found.unproven.saturating_add(events);
            let (first, last) = (shown(at.0), shown(at.1));
            let (from_us, to_us) = us;
            let lot = Uncovered { collector, why, events, dated_since, first, last, from_us, to_us, named };
            found.uncovered.push(lot);
        }
    }
}

pub(super) fn shown(at: Position) -> String {
    Sequence::new(at.0, at.1).to_string()
}

/// A collector's name as it is told: whoever writes the store may call one as he likes.
pub(super) fn named(collector: &str) -> String {
    collector.chars().take(NAME_CHARS).flat_map(char::escape_debug).collect()
}
