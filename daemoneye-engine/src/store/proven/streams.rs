//! What the ledger says of the collectors' streams, and what a stored event is that no range covers.
//!
//! A ledger may begin on a store that has history already: the one before was moved away, or was lost. What came before it can be
//! neither proven nor refuted with it, and that is said. Where such events end follows from what the collector itself wrote: where
//! its ranges begin, and how far the agent had said to have stored the stream when the two met first in this ledger.

use std::collections::HashMap;

use daemoneye_lib::ledger::{EventRange, LedgerRecord, range_in};
use serde_json::Value;

use super::found::Why;
use super::leaves::Position;
use super::restored::Lowered;

/// Stretches of a stream that its collector may have lost. Its log loses the oldest first, so what it tells of mostly follows what it
/// told before, and is one with it. What lies between more of them counts as lost, which proves nothing.
const LOST_STRETCHES: usize = 65_536;
/// Registrations of a store that had less than before: a host is restored, and its collector started until the store has caught up.
const LOWERED: usize = 4_096;
/// Why a collector's log lost records that it had: it was full, or was damaged.
const LOG_LOSSES: [&str; 2] = ["wal_bound", "wal_corrupt"];

/// What a stored event is to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A range covers its position.
    Covered,
    /// Nothing that the ledger says tells whether its collector recorded it.
    Uncovered(Why),
    /// It is on its way into the ledger.
    Pending,
    /// It cannot have come from its collector.
    PutIn(&'static str),
}

/// How far the agent had said to have stored a stream when it met the collector first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// The entry does not say.
    Unknown,
    Nothing,
    At(Position),
}

#[derive(Debug, Default)]
struct Stream {
    /// Stretches that ranges cover, in order and apart. Ranges follow each other, so there is one for each epoch and loss.
    spans: Vec<(Position, Position)>,
    /// Where the newest range ends.
    covered: Option<Position>,
    /// As the first registration says, whatever later ones say.
    met: Option<Met>,
    /// The farthest that the agent had said to have stored: a note of that which was set back makes nothing unstored.
    committed: Option<Position>,
    /// Where it said less than before, and the entry of the newest registration.
    lowered: Vec<Lowered>,
    registered: u64,
    /// Epochs of its first and newest start.
    epochs: Option<(u64, u64)>,
    /// Its last word is that it ended, all of its events covered.
    ended: bool,
    /// What its log lost before the agent had taken it, by its own word: in order and apart.
    lost: Vec<(Position, Position)>,
    /// From where to where there is more of it, for which there was no room one by one.
    lost_between: Option<(Position, Position)>,
}

/// All of them, by collector.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<String, Stream>);

impl Streams {
    /// Takes an entry of a collector. `is_late`: the store is being looked at.
    pub(super) fn take(&mut self, record: &LedgerRecord, is_late: bool) {
        let entry = &record.entry;
        let range = range_in(record);
        let tells = ["start", "stop", "registration", "coverage-gap"].contains(&entry.action.as_str());
        if range.is_none() && !tells {
            if let Some(stream) = self.0.get_mut(&entry.actor) {
                stream.ended = false;
            }
            return;
        }
        let stream = self.0.entry(entry.actor.clone()).or_default();
        stream.ended = entry.action == "stop" && stream.ends(&json(&record.payload));
        match entry.action.as_str() {
            "start" => {
                if let Some(epoch) = json(&record.payload).get("epoch").and_then(Value::as_u64) {
                    let first = stream.epochs.map_or(epoch, |(first, _)| first);
                    stream.epochs = Some((first, epoch));
                }
            }
            // Of a later one: what was stored since then is not in what is looked at.
            "registration" if !is_late => stream.meets(entry.sequence, &json(&record.payload)),
            "coverage-gap" => stream.loses(&entry.actor, &json(&record.payload)),
            _ => {}
        }
        if let Some(range) = range {
            stream.cover(&range);
        }
    }

    /// How far the agent had said to have stored it.
    pub(super) fn committed(&self, collector: &str) -> Option<Position> {
        self.0.get(collector)?.committed
    }

    /// Where the agent said to have stored less of it than before.
    pub(super) fn lowered(&self, collector: &str) -> &[Lowered] {
        self.0.get(collector).map(|stream| stream.lowered.as_slice()).unwrap_or_default()
    }

    /// Whether the agent had stored something when this ledger began.
    pub(super) fn had_history(&self) -> bool {
        self.0.values().any(|stream| matches!(stream.met, Some(Met::At(_))))
    }

    /// Whether anything of it is covered.
    pub(super) fn has_ranges(&self, collector: &str) -> bool {
        self.0.get(collector).is_some_and(|stream| !stream.spans.is_empty())
    }

    /// Whether the collector says that its log lost what stood there before the agent had taken it.
    pub(super) fn has_lost(&self, collector: &str, at: Position) -> bool {
        self.0.get(collector).is_some_and(|stream| stream.has_lost(at))
    }

    /// What an event at `at` is. `seen`: how far the stream has come into the store, by the store's own word.
    pub(super) fn standing(&self, collector: &str, at: Position, seen: Option<Position>) -> Standing {
        if collector.is_empty() || at.1 == 0 {
            return Standing::PutIn("no collector gives such a position");
        }
        self.0.get(collector).map_or(Standing::Uncovered(Why::Foreign), |stream| stream.standing(at, seen))
    }

    /// Whether an event was recorded before the first run of its collector that this ledger tells of, as far as its position says.
    pub(super) fn is_before(&self, collector: &str, epoch: u64) -> bool {
        self.0.get(collector).and_then(|stream| stream.epochs).is_none_or(|(first, _)| epoch < first)
    }
}

impl Stream {
    fn meets(&mut self, entry: u64, payload: &Value) {
        let told = payload.get("committed");
        let at = told.and_then(Value::as_str).and_then(place);
        let none = if told.is_some_and(Value::is_null) { Met::Nothing } else { Met::Unknown };
        self.met.get_or_insert(at.map_or(none, Met::At));
        let before = std::mem::replace(&mut self.registered, entry);
        if let Some(had) = self.committed.filter(|had| at < Some(*had) && self.lowered.len() < LOWERED) {
            self.lowered.push(Lowered { entry, before, at: at.unwrap_or_default(), had });
        }
        self.committed = self.committed.max(at);
    }

    fn cover(&mut self, range: &EventRange) {
        let last = (range.epoch, range.last);
        self.covered = Some(last);
        add(&mut self.spans, (range.epoch, range.first), last);
    }

    /// A full disk may take the end and not the range before it: then events that were stored wait for a range still. Entries of builds
    /// before do not say where they end. A collector that was forced to end waits for nothing: its source may tell of something behind
    /// its last range.
    fn ends(&self, payload: &Value) -> bool {
        let is_covered = match payload.get("last") {
            None | Some(Value::Null) => true,
            Some(last) => last.as_str().and_then(place).is_some_and(|last| Some(last) <= self.covered),
        };
        is_covered && payload.get("reason").and_then(Value::as_str) != Some("force shutdown")
    }

    /// What the agent was known to have stored before was not lost with the log.
    fn loses(&mut self, collector: &str, payload: &Value) {
        let text = |name: &str| payload.get(name).and_then(Value::as_str);
        let of_log = text("reason").is_some_and(|reason| LOG_LOSSES.contains(&reason));
        let Some((first, last)) = text("first").and_then(place).zip(text("last").and_then(place)) else { return };
        let first = self.committed.map_or(first, |(epoch, number)| first.max((epoch, number.saturating_add(1))));
        if !of_log || text("collector") != Some(collector) || first > last {
            return;
        }
        if self.lost.len() < LOST_STRETCHES || self.lost.last().is_some_and(|(_, end)| follows(*end, first)) {
            add(&mut self.lost, first, last);
        } else {
            let (begin, end) = self.lost_between.unwrap_or((first, last));
            self.lost_between = Some((first.min(begin), last.max(end)));
        }
    }

    fn has_lost(&self, (epoch, number): Position) -> bool {
        let between = self.lost_between.as_slice();
        if within(&self.lost, (epoch, number)) || within(between, (epoch, number)) {
            return true;
        }
        // Numbers go on over the epochs of a log, and what is gone as a whole cannot say of which it was: it is told by that of what
        // follows. A log that was begun anew has lesser numbers again.
        let later = self.lost.partition_point(|(first, _)| first.0 <= epoch);
        let goes_on = |to: u64| {
            let next = self.spans.partition_point(|(first, _)| first.0 <= epoch);
            self.spans.get(next).is_none_or(|(first, _)| first.0 > to || first.1 > number)
        };
        let tells = |(first, last): &(Position, Position)| (first.1..=last.1).contains(&number) && goes_on(first.0);
        self.lost.get(later).is_some_and(tells)
    }

    fn covers(&self, at: Position) -> bool {
        within(&self.spans, at)
    }

    fn standing(&self, at: Position, seen: Option<Position>) -> Standing {
        if self.covers(at) {
            return Standing::Covered;
        }
        match self.spans.first() {
            Some((first, _)) if at < *first => return self.older(at),
            None if self.is_known_older(at) => return Standing::Uncovered(Why::Older),
            Some(_) if Some(at) <= self.covered => {
                return Standing::PutIn("no range of the ledger covers it");
            }
            _ => {}
        }
        if Some(at) > seen {
            return Standing::PutIn("it stands behind all that its stream has brought");
        }
        if self.ended {
            return Standing::PutIn("its collector has ended, and no range of the ledger covers it");
        }
        // A full disk may have kept the start of a run from being told.
        let is_begun = self.epochs.is_none_or(|(_, newest)| at.0 <= newest.max(self.covered.unwrap_or_default().0));
        if is_begun { Standing::Pending } else { Standing::Uncovered(Why::Unbegun) }
    }

    /// Of what stands before all ranges: a new ledger covers all that the collector's log still has, so what came in before it had
    /// been stored when the agent and the collector met.
    fn older(&self, at: Position) -> Standing {
        match self.met {
            Some(Met::Nothing) => Standing::PutIn("nothing of its stream had been stored when this ledger began"),
            Some(Met::At(committed)) if at > committed && !(self.has_new_log() && at.0 == committed.0) => {
                Standing::PutIn("its stream had not been stored so far when this ledger began")
            }
            _ => Standing::Uncovered(Why::Older),
        }
    }

    /// The log was lost as well. What the agent held of it then was stored later, and nothing covers it.
    fn has_new_log(&self) -> bool {
        self.spans
            .first()
            .zip(self.epochs)
            .is_some_and(|(((epoch, number), _), (first, _))| (*epoch, *number) == (first, 1))
    }

    /// The same where nothing is covered yet.
    fn is_known_older(&self, at: Position) -> bool {
        match self.met {
            Some(Met::At(committed)) => at <= committed,
            Some(Met::Nothing) => false,
            Some(Met::Unknown) | None => self.epochs.is_none_or(|(first, _)| at.0 < first),
        }
    }
}

/// Puts a stretch among others that lie in order and apart.
fn add(spans: &mut Vec<(Position, Position)>, mut first: Position, mut last: Position) {
    let from = spans.partition_point(|(_, end)| *end < first && !follows(*end, first));
    let behind = (last.0, last.1.saturating_add(1));
    let until = spans.partition_point(|(begin, _)| *begin <= behind).max(from);
    for (begin, end) in spans.drain(from..until) {
        (first, last) = (first.min(begin), last.max(end));
    }
    spans.insert(from, (first, last));
}

fn follows(end: Position, first: Position) -> bool {
    end.0 == first.0 && end.1.saturating_add(1) >= first.1
}

fn within(spans: &[(Position, Position)], at: Position) -> bool {
    let behind = spans.partition_point(|(first, _)| *first <= at);
    behind.checked_sub(1).and_then(|span| spans.get(span)).is_some_and(|(_, last)| at <= *last)
}

/// `epoch:number`
pub(super) fn place(text: &str) -> Option<Position> {
    let (epoch, number) = text.split_once(':')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

fn json(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(epoch: u64, first: u64, last: u64) -> EventRange {
        let count = last - first + 1;
        let collector = "c".to_owned();
        EventRange { collector, epoch, first, last, count, root: [0; 32], schema: 1, events: count, others: None }
    }

    #[test]
    fn ranges_that_follow_each_other_are_one_span_in_whatever_order_they_come() {
        let mut stream = Stream::default();
        for (epoch, first, last) in [(2, 5, 9), (2, 10, 12), (3, 13, 20), (2, 30, 40), (1, 1, 4), (2, 13, 29)] {
            stream.cover(&range(epoch, first, last));
        }
        assert_eq!(stream.spans, [((1, 1), (1, 4)), ((2, 5), (2, 40)), ((3, 13), (3, 20))]);
        stream.cover(&range(2, 1, 50));
        assert_eq!(stream.spans, [((1, 1), (1, 4)), ((2, 1), (2, 50)), ((3, 13), (3, 20))]);
        assert!(stream.covers((1, 4)) && stream.covers((2, 33)) && !stream.covers((1, 5)) && !stream.covers((3, 12)));
    }

    #[test]
    fn what_is_gone_as_a_whole_is_told_by_the_epoch_behind_it_and_a_log_that_was_begun_anew_says_nothing_of_the_one_before()
     {
        let lost = |epoch: u64, next: u64| {
            let mut stream = Stream::default();
            stream.cover(&range(1, 1, 50));
            stream.cover(&range(epoch, next, 90));
            let payload =
                serde_json::json!({ "collector": "c", "reason": "wal_corrupt", "first": "7:30", "last": "7:60" });
            stream.loses("c", &payload);
            [(1, 29), (1, 30), (1, 50), (7, 60), (7, 61), (8, 40)].map(|at| stream.has_lost(at))
        };
        assert_eq!(lost(7, 51), [false, true, true, true, false, false]);
        assert_eq!(lost(7, 1), [false, false, false, true, false, false]);
    }

    #[test]
    fn what_stands_before_all_ranges_is_older_only_as_far_as_the_agent_had_stored_the_stream() {
        let standing = |registered: Option<&str>, at| {
            let mut stream = Stream::default();
            stream.meets(1, &registered.map_or(Value::Null, |text| serde_json::from_str(text).unwrap()));
            // What it says later excuses nothing.
            stream.meets(2, &serde_json::json!({ "committed": "9:99" }));
            stream.cover(&range(2, 50, 60));
            Streams(HashMap::from([("c".to_owned(), stream)])).standing("c", at, Some((9, 99)))
        };
        let is_put_in = |found| matches!(found, Standing::PutIn(_));
        assert_eq!(standing(Some(r#"{"committed":"2:30"}"#), (2, 30)), Standing::Uncovered(Why::Older));
        assert_eq!(standing(Some(r#"{"committed":"2:30"}"#), (1, 99)), Standing::Uncovered(Why::Older));
        assert!(is_put_in(standing(Some(r#"{"committed":"2:30"}"#), (2, 31))));
        assert!(is_put_in(standing(Some(r#"{"committed":null}"#), (1, 1))));
        assert!(is_put_in(standing(Some(r#"{"committed":"2:30"}"#), (1, 0))), "numbers begin at 1");
    }
}
