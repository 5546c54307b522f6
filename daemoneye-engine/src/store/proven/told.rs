//! What the agent's entries say that excuses a missing row, kept until it is known when they were said.
//!
//! There is no end of it on a host that removes each minute for years. So the older half of it is put together when it is too much: it
//! is then said where the last of it stands. That excuses nothing more than whoever writes such an entry could have said there.

use super::super::retention::{AGE, Removed};
use super::leaves::Position;

/// Stretches that are remembered, some 30 MB: adjoining ones are one, so that is a collector that was started anew so often, or forged.
pub(super) const STRETCHES: usize = 262_144;
/// Entries that are remembered one by one, some 20 MB, and the times of the clock between them: a month of one each minute.
pub(super) const SAID: usize = 131_072;

/// What an excuse is made of.
#[derive(Debug)]
pub(super) enum Told {
    Lost { count: u64, from_us: i64, first_row: u64 },
    Removed(Removal),
    Retention { before_us: i64 },
}

/// Events that retention took.
#[derive(Debug, Default)]
pub(super) struct Removal {
    pub(super) why: String,
    pub(super) before_us: Option<i64>,
    pub(super) ranges: Vec<Removed>,
    /// Some of these, and nobody remembers which.
    pub(super) vague: Vec<Removed>,
    /// Earlier removals in it.
    pub(super) others: u64,
}

impl Told {
    /// Takes in what was said later; gives it back where it is something else.
    pub(super) fn join(&mut self, later: Self) -> Option<Self> {
        match (self, later) {
            (Self::Lost { count, from_us, first_row }, Self::Lost { count: more, from_us: from, first_row: row }) => {
                (*count, *from_us, *first_row) = (count.saturating_add(more), from.min(*from_us), row.min(*first_row));
            }
            (Self::Retention { before_us }, Self::Retention { before_us: later_us }) => {
                *before_us = later_us.max(*before_us);
            }
            (Self::Removed(removal), Self::Removed(later)) if removal.is_for_age() == later.is_for_age() => {
                removal.join(later);
            }
            (_, later) => return Some(later),
        }
        None
    }

    /// How many stretches it has.
    pub(super) const fn stretches(&self) -> usize {
        match self {
            Self::Removed(removal) => removal.ranges.len().saturating_add(removal.vague.len()),
            Self::Lost { .. } | Self::Retention { .. } => 0,
        }
    }

    /// Makes them as few as say the same, and, `vaguely`, one for each collector.
    pub(super) fn shorten(&mut self, vaguely: bool) {
        let Self::Removed(Removal { ranges, vague, .. }) = self else { return };
        if vaguely {
            vague.append(ranges);
        }
        for (ranges, joins) in [(ranges, false), (vague, true)] {
            ranges.sort_unstable();
            ranges.dedup_by(|next, before| {
                let follows = next.collector == before.collector && (joins || follows(before.last, next.first));
                if follows {
                    before.last = next.last.max(before.last);
                }
                follows
            });
            ranges.shrink_to_fit();
        }
    }
}

impl Removal {
    pub(super) fn is_for_age(&self) -> bool {
        self.before_us.is_some() || self.why == AGE
    }

    fn join(&mut self, later: Self) {
        let Self { why, before_us, mut ranges, mut vague, others } = later;
        // One without it is for its age all the same, whatever that was.
        self.before_us = self.before_us.zip(before_us).map(|(before, later)| later.max(before));
        self.why = why;
        self.ranges.append(&mut ranges);
        self.vague.append(&mut vague);
        self.others = self.others.saturating_add(others).saturating_add(1);
    }
}

/// Numbers go on when a collector is started anew.
const fn follows(end: Position, first: Position) -> bool {
    let next = end.1.saturating_add(1);
    if first.0 == end.0 { first.1 <= next } else { first.1 == next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(why: &str, before_us: Option<i64>, first: Position, last: Position) -> Told {
        let ranges = vec![Removed { collector: "c".to_owned(), first, last }];
        Told::Removed(Removal { why: why.to_owned(), before_us, ranges, ..Removal::default() })
    }

    #[test]
    fn stretches_that_adjoin_are_one_over_starts_of_the_collector_too() {
        let mut told = removal("age", Some(5), (1, 1), (1, 9));
        for (first, last) in [((1, 10), (1, 20)), ((2, 21), (2, 30)), ((2, 32), (2, 40))] {
            assert!(told.join(removal("older", Some(7), first, last)).is_none());
        }
        assert!(told.join(removal("size", None, (2, 41), (2, 50))).is_some(), "another cause");
        told.shorten(false);
        let Told::Removed(removal) = &told else { panic!("{told:?}") };
        let spans: Vec<_> = removal.ranges.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(spans, [((1, 1), (2, 30)), ((2, 32), (2, 40))]);
        assert_eq!((removal.before_us, removal.why.as_str(), removal.others), (Some(7), "older", 3));
        told.shorten(true);
        let Told::Removed(removal) = &told else { panic!("{told:?}") };
        assert_eq!((removal.ranges.len(), removal.vague.len(), told.stretches()), (0, 1, 1));
    }
}
