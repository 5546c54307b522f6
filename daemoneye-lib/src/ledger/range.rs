//! What an `event-range` entry says about a stretch of a collector's stream, and how it is put together record by record.
//!
//! The records of a range follow each other without a hole. Its root is that of a tree over its process events alone, so that whoever
//! has the stored rows needs nothing else; what is no event (a coverage gap, something of another domain) has a root of its own,
//! and its numbers are told, so that a missing event is known from a number that never was one.

use serde::{Deserialize, Serialize};

use super::event::{Content, RANGE_HASH, leaf};
use super::tree::Frontier;
use super::{Hash, hexed};
use crate::columns::SCHEMA_VERSION;
use crate::proto::Sequence;

/// Records of one range: what is held to verify one that is not whole, and what retention may have to keep the leaves of.
pub const MAX_RANGE_RECORDS: u64 = 65_536;
/// Runs of other records in one range: some 4 KiB of an entry.
const RUNS: usize = 256;

/// The payload of an `event-range` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRange {
    /// Whose stream.
    pub collector: String,
    /// Its epoch.
    pub epoch: u64,
    /// Number of the first record.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
    /// Records.
    pub count: u64,
    /// Root of the tree over the events. Without a schema: BLAKE3 over the hashes of all payloads, which nobody can compute again from
    /// the store.
    #[serde(with = "hexed")]
    pub root: Hash,
    /// Version of the column table; 0: the entry is of a build that made no tree.
    #[serde(default)]
    pub schema: u32,
    /// Events in the tree.
    #[serde(default)]
    pub events: u64,
    /// The records that are no events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<OtherRecords>,
}

/// The records of a range that are no process events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherRecords {
    /// Root of the tree over them.
    #[serde(with = "hexed")]
    pub root: Hash,
    /// Their numbers: first and last of each run.
    pub runs: Vec<(u64, u64)>,
}

impl EventRange {
    /// Reads an entry's payload; `None` when it is none.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let range: Self = serde_json::from_slice(payload).ok()?;
        range.is_bounded().then_some(range)
    }

    /// Whether it is one that [`RangeBuilder`] makes: a foreign one must not make a reader walk for ever.
    fn is_bounded(&self) -> bool {
        let span = self.last.checked_sub(self.first);
        let others = self.others.as_ref().map_or(&[][..], |others| others.runs.as_slice());
        let is_within = |(from, to): &(u64, u64)| self.first <= *from && from <= to && *to <= self.last;
        // A build that made no tree had no bound.
        !self.has_tree()
            || (span.is_some_and(|span| span < MAX_RANGE_RECORDS)
                && others.len() <= RUNS
                && others.iter().all(is_within))
    }

    /// The entry's payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Position of the last record.
    #[must_use]
    pub const fn end(&self) -> Sequence {
        Sequence::new(self.epoch, self.last)
    }

    /// Whether single events can be shown to be in it.
    #[must_use]
    pub const fn has_tree(&self) -> bool {
        self.schema > 0
    }

    /// The numbers of its events.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let others = self.others.iter().flat_map(|others| others.runs.iter());
        let is_other = move |number: &u64| others.clone().any(|(from, to)| (from..=to).contains(&number));
        (self.first..=self.last).filter(move |number| !is_other(number))
    }
}

/// A range in the making.
#[derive(Debug, Clone)]
struct Open {
    first: Sequence,
    last: Sequence,
    events: Frontier,
    others: Frontier,
    runs: Vec<(u64, u64)>,
}

impl Open {
    fn new(at: Sequence) -> Self {
        let empty = Frontier::new(RANGE_HASH);
        Self { first: at, last: at, events: empty.clone(), others: empty, runs: Vec::new() }
    }

    fn takes(&self, at: Sequence) -> bool {
        let follows = at.epoch == self.last.epoch && at.number.checked_sub(1) == Some(self.last.number);
        follows && at.number - self.first.number < MAX_RANGE_RECORDS && self.runs.len() < RUNS
    }

    fn add(&mut self, at: Sequence, content: Content) {
        self.last = at;
        match content {
            Content::Event(hash) => self.events.push(leaf(at.number, &hash), |_, _, _| {}),
            Content::Other(hash) => {
                self.others.push(leaf(at.number, &hash), |_, _, _| {});
                match self.runs.last_mut() {
                    Some((_, to)) if to.checked_add(1) == Some(at.number) => *to = at.number,
                    _ => self.runs.push((at.number, at.number)),
                }
            }
        }
    }

    fn close(self, collector: &str) -> EventRange {
        let others = OtherRecords { root: self.others.root(), runs: self.runs };
        EventRange {
            collector: collector.to_owned(),
            epoch: self.last.epoch,
            first: self.first.number,
            last: self.last.number,
            count: self.events.size() + self.others.size(),
            root: self.events.root(),
            schema: SCHEMA_VERSION,
            events: self.events.size(),
            others: (!others.runs.is_empty()).then_some(others),
        }
    }
}

/// Collects ranges record by record.
#[derive(Debug, Clone)]
pub struct RangeBuilder {
    collector: String,
    open: Option<Open>,
    closed: Vec<EventRange>,
}

impl RangeBuilder {
    /// For the stream of `collector`.
    #[must_use]
    pub fn new(collector: impl Into<String>) -> Self {
        Self { collector: collector.into(), open: None, closed: Vec::new() }
    }

    /// The next record.
    pub fn add(&mut self, at: Sequence, content: Content) {
        if let Some(full) = self.open.take_if(|open| !open.takes(at)) {
            self.closed.push(full.close(&self.collector));
        }
        self.open.get_or_insert_with(|| Open::new(at)).add(at, content);
    }

    /// The ranges since the last call; empty when there was no record.
    pub fn take(&mut self) -> Vec<EventRange> {
        self.closed.extend(self.open.take().map(|open| open.close(&self.collector)));
        std::mem::take(&mut self.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u8) -> Content {
        Content::Event([n; 32])
    }

    #[test]
    fn a_range_that_nobody_would_write_is_none() {
        let mut builder = RangeBuilder::new("procmond");
        (1..=3).for_each(|n| builder.add(Sequence::new(1, n), event(1)));
        let range = builder.take().pop().unwrap();
        assert_eq!(EventRange::read(&range.payload()), Some(range.clone()));
        let endless = EventRange { last: u64::MAX, ..range.clone() };
        let backward = EventRange { last: 0, ..range.clone() };
        let others = OtherRecords { root: [0; 32], runs: vec![(0, u64::MAX)] };
        let outside = EventRange { others: Some(others), ..range };
        for wrong in [endless, backward, outside] {
            assert_eq!(EventRange::read(&wrong.payload()), None);
        }
    }

    #[test]
    fn a_range_ends_where_the_stream_has_a_hole_or_an_epoch_begins() {
        let mut builder = RangeBuilder::new("c");
        for (epoch, number) in [(1, 4), (1, 5), (1, 7), (2, 8)] {
            builder.add(Sequence::new(epoch, number), event(1));
        }
        let told: Vec<_> = builder.take().iter().map(|r| (r.epoch, r.first, r.last, r.count)).collect();
        assert_eq!(told, [(1, 4, 5, 2), (1, 7, 7, 1), (2, 8, 8, 1)]);
        assert!(builder.take().is_empty());
    }

    #[test]
    fn what_is_no_event_is_told_by_number_and_changes_the_root_of_the_others_alone() {
        let range = |other: u8| {
            let mut builder = RangeBuilder::new("c");
            for number in 1..=6 {
                let is_other = [2, 3, 5].contains(&number);
                let content = if is_other { Content::Other([other; 32]) } else { event(9) };
                builder.add(Sequence::new(1, number), content);
            }
            builder.take().remove(0)
        };
        let (one, two) = (range(1), range(2));
        assert_eq!((one.count, one.events, one.root), (6, 3, two.root));
        assert_eq!(one.numbers().collect::<Vec<_>>(), [1, 4, 6]);
        let runs = |range: &EventRange| range.others.as_ref().map(|others| (others.root, others.runs.clone()));
        assert_eq!(runs(&one).unwrap().1, [(2, 3), (5, 5)]);
        assert_ne!(runs(&one), runs(&two));
        assert_eq!(EventRange::read(&one.payload()), Some(one));
    }

    #[test]
    fn an_entry_without_a_tree_is_read_as_one() {
        let root = "00".repeat(32);
        let old = format!(r#"{{"collector":"c","epoch":1,"first":2,"last":3,"count":2,"root":"{root}"}}"#);
        assert!(EventRange::read(old.as_bytes()).is_some_and(|range| !range.has_tree()));
    }
}
