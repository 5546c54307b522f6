//! Which groups of a rule that counts can be true, without a run of its plan.
//!
//! Of a busy rule hardly any group is near its number, and of those that have reached it most have it still at the next moment that is
//! looked at. The gate counts the rows that are kept, which are all that the plan could count, so it lets a run through for every
//! group that may be true; what it says is not true any more may still be. What was shed, let go of or read from history it knows as
//! the plan does: it remembers nothing of its own but how many rows each group has.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZero;
use std::ops::Range;

use super::TICK_US;
use super::threshold::{Threshold, Values};

/// What a row counts for beside itself, in bytes: its mark, and a group of its own.
pub(super) const MARK_BYTES: usize = 128;

/// A group, by the hash of what the rule groups by: 128 bits of a hash of which nobody finds two that are the same.
pub(super) type Group = u128;

/// What the gate knows of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) group: Group,
    /// The hash of its value in the column that is counted; `None`: NULL.
    pub(super) value: Option<NonZero<u128>>,
    /// The plan sees it from and until the times at which the gate does.
    pub(super) is_sure: bool,
}

/// A moment at which to look, and at whose rows; `None`: at those of every group that may be true then.
pub(super) type Look = (i64, Option<HashSet<Group>>);

/// How many rows the groups of one rule have.
#[derive(Debug)]
pub(super) struct Gate {
    least: usize,
    rows: HashMap<Group, usize>,
    /// Groups that have enough, whatever their times.
    ripe: usize,
}

/// A row as moments see it: from one of them, by its place, up to another.
struct Span {
    from: usize,
    to: usize,
    value: Option<NonZero<u128>>,
}

/// What is seen of one group at one moment.
#[derive(Default)]
struct Tally {
    rows: usize,
    valued: usize,
    values: HashMap<NonZero<u128>, usize>,
}

/// A row: the time at which it counts, and its mark.
type Row = (i64, Mark);

impl Gate {
    pub(super) fn of(threshold: &Threshold) -> Self {
        Self { least: threshold.least(), rows: HashMap::new(), ripe: 0 }
    }

    /// A row is kept.
    pub(super) fn add(&mut self, mark: &Mark) {
        let rows = self.rows.entry(mark.group).or_default();
        *rows = rows.saturating_add(1);
        self.ripe = self.ripe.saturating_add(usize::from(*rows == self.least));
    }

    /// A row is let go of.
    pub(super) fn remove(&mut self, mark: &Mark) {
        let Entry::Occupied(mut rows) = self.rows.entry(mark.group) else { return };
        self.ripe = self.ripe.saturating_sub(usize::from(*rows.get() == self.least));
        if *rows.get() <= 1 {
            rows.remove();
        } else {
            *rows.get_mut() = rows.get().saturating_sub(1);
        }
    }

    /// The groups that may be true at a time.
    pub(super) fn open(&self, threshold: &Threshold, rows: impl Iterator<Item = Row>, now: i64) -> HashSet<Group> {
        let groups = self.ripe(threshold, rows, now, now);
        let is_open = |rows: &[Row]| !ranges(&seen(threshold, rows, &[now]), threshold).is_empty();
        groups.into_iter().filter(|(_, rows)| is_open(rows)).map(|(group, _)| group).collect()
    }

    /// The times, but the last, at which a group may be true that may not be at the next one, for each group the last of a second; of a
    /// rule of which a further row may end what was true, those at which any may be.
    pub(super) fn edges(
        &self,
        threshold: &Threshold,
        rows: impl Iterator<Item = Row>,
        times: &BTreeSet<i64>,
    ) -> Vec<Look> {
        let times: Vec<i64> = times.iter().copied().collect();
        let ([first, .., last], Some(end)) = (times.as_slice(), times.len().checked_sub(1)) else { return Vec::new() };
        let groups = self.ripe(threshold, rows, *first, *last);
        if !threshold.grows {
            let open = groups.values().flat_map(|rows| ranges(&seen(threshold, rows, &times), threshold));
            let edges = each(open.collect()).filter(|at| *at < end);
            return edges.filter_map(|at| Some((*times.get(at)?, None))).collect();
        }
        let mut edges: BTreeMap<usize, HashSet<Group>> = BTreeMap::new();
        for (group, rows) in groups {
            for at in leaves(threshold, &rows, &times).into_iter().filter(|at| *at < end) {
                edges.entry(at).or_default().insert(group);
            }
        }
        edges.into_iter().filter_map(|(at, groups)| Some((*times.get(at)?, Some(groups)))).collect()
    }

    /// The rows of the groups that have enough of them, oldest first, so far as they count at a time from `first` to `last`.
    fn ripe(
        &self,
        threshold: &Threshold,
        rows: impl Iterator<Item = Row>,
        first: i64,
        last: i64,
    ) -> HashMap<Group, Vec<Row>> {
        let mut groups: HashMap<Group, Vec<Row>> = HashMap::new();
        if self.ripe == 0 {
            return groups;
        }
        let from = first.saturating_sub(threshold.back_us);
        for (time, mark) in rows.filter(|(time, _)| (from..=last).contains(time)) {
            if self.rows.get(&mark.group).is_some_and(|rows| *rows >= self.least) {
                groups.entry(mark.group).or_default().push((time, mark));
            }
        }
        groups.retain(|_, rows| rows.len() >= self.least);
        groups.values_mut().for_each(|rows| rows.sort_by_key(|(time, _)| *time));
        groups
    }
}

/// The places of the times at which a group may be true, and not at the next one, as a row goes out of sight between them.
fn leaves(threshold: &Threshold, rows: &[Row], times: &[i64]) -> BTreeSet<usize> {
    let (seen, sure) = (seen(threshold, rows, times), sure(threshold, rows, times));
    let open = ranges(&seen, threshold);
    if open.is_empty() {
        return BTreeSet::new();
    }
    let stays = if threshold.whole { ranges(&sure, threshold) } else { Vec::new() };
    let ends = seen.iter().chain(&sure).filter_map(|span| span.to.checked_sub(1));
    let ends = ends.filter(|at| is_in(&open, *at) && !is_in(&stays, at.saturating_add(1)));
    if threshold.whole { last_of_seconds(ends.collect(), &stays, times) } else { ends.collect() }
}

/// Of these places the last of each second at which enough is seen for sure, and those behind it; none if it is so still at the end of
/// the second. A group that comes and goes is found once in a second.
fn last_of_seconds(places: BTreeSet<usize>, stays: &[Range<usize>], times: &[i64]) -> BTreeSet<usize> {
    let second = |time: &i64| time.div_euclid(TICK_US);
    let (mut last, mut told) = (BTreeSet::new(), None);
    for at in places.into_iter().rev() {
        let Some(of) = times.get(at).map(second) else { continue };
        let end = times.partition_point(|time| second(time) <= of).saturating_sub(1);
        if told != Some(of) && !(at < end && is_in(stays, end)) {
            last.insert(at);
        }
        if is_in(stays, at) {
            told = Some(of);
        }
    }
    last
}

/// The rows as they are seen at most: up to the time at which they are as old as the rule looks back.
fn seen(threshold: &Threshold, rows: &[Row], times: &[i64]) -> Vec<Span> {
    let span = |(time, mark): &Row| {
        let until = time.saturating_add(threshold.back_us);
        span(times.partition_point(|now| now < time), times.partition_point(|now| *now <= until), mark)
    };
    rows.iter().map(span).collect()
}

/// The rows as they are seen at least: before that time.
fn sure(threshold: &Threshold, rows: &[Row], times: &[i64]) -> Vec<Span> {
    let span = |(time, mark): &Row| {
        let until = time.saturating_add(threshold.back_us);
        span(times.partition_point(|now| now < time), times.partition_point(|now| *now < until), mark)
    };
    rows.iter().filter(|(_, mark)| mark.is_sure).map(span).collect()
}

fn span(from: usize, to: usize, mark: &Mark) -> Span {
    Span { from, to: to.max(from), value: mark.value }
}

/// The places at which enough of a group is seen. Its spans begin and end in the order of time.
fn ranges(spans: &[Span], threshold: &Threshold) -> Vec<Range<usize>> {
    let (mut tally, mut found, mut since) = (Tally::default(), Vec::new(), None);
    let (mut coming, mut going) = (spans.iter().peekable(), spans.iter().peekable());
    while let Some(end) = going.peek().map(|span| span.to) {
        let at = coming.peek().map_or(end, |span| span.from.min(end));
        while let Some(span) = coming.next_if(|span| span.from == at) {
            tally.add(span.value);
        }
        while let Some(span) = going.next_if(|span| span.to == at) {
            tally.remove(span.value);
        }
        match (since, tally.meets(threshold)) {
            (None, true) => since = Some(at),
            (Some(from), false) => {
                found.push(from..at);
                since = None;
            }
            _ => {}
        }
    }
    found
}

/// The places in any of these ranges, ascending, each once.
fn each(mut ranges: Vec<Range<usize>>) -> impl Iterator<Item = usize> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut next = 0;
    ranges.into_iter().flat_map(move |range| {
        let from = range.start.max(next);
        next = next.max(range.end);
        from..range.end
    })
}

/// Whether a place is in one of the ranges, which ascend.
fn is_in(ranges: &[Range<usize>], at: usize) -> bool {
    let after = ranges.partition_point(|range| range.end <= at);
    ranges.get(after).is_some_and(|range| range.contains(&at))
}

impl Tally {
    fn add(&mut self, value: Option<NonZero<u128>>) {
        self.rows = self.rows.saturating_add(1);
        if let Some(value) = value {
            self.valued = self.valued.saturating_add(1);
            let same = self.values.entry(value).or_default();
            *same = same.saturating_add(1);
        }
    }

    fn remove(&mut self, value: Option<NonZero<u128>>) {
        self.rows = self.rows.saturating_sub(1);
        if let Some(value) = value
            && let Entry::Occupied(mut same) = self.values.entry(value)
        {
            self.valued = self.valued.saturating_sub(1);
            if *same.get() <= 1 {
                same.remove();
            } else {
                *same.get_mut() = same.get().saturating_sub(1);
            }
        }
    }

    fn meets(&self, threshold: &Threshold) -> bool {
        let has = |values: &Values| {
            let there = if values.distinct { self.values.len() } else { self.valued };
            there >= values.least
        };
        self.rows >= threshold.rows && threshold.values.as_ref().is_none_or(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Group, time, value (0: NULL), whether it is sure.
    type Made = (u8, i64, u8, bool);

    fn marked(rows: &[Made]) -> Vec<Row> {
        let mark = |group: u8, value: u8, is_sure: bool| Mark {
            group: group.into(),
            value: NonZero::new(value.into()),
            is_sure,
        };
        rows.iter().map(|(group, time, value, is_sure)| (*time, mark(*group, *value, *is_sure))).collect()
    }

    fn gate(threshold: &Threshold, rows: &[Row]) -> Gate {
        let mut gate = Gate::of(threshold);
        let gone = Mark { group: 1, value: None, is_sure: true };
        (0..3).for_each(|_| gate.add(&gone));
        rows.iter().for_each(|(_, mark)| gate.add(mark));
        (0..3).for_each(|_| gate.remove(&gone));
        gate
    }

    /// By counting anew: whether enough rows of a group are seen, at most or for sure.
    fn is_enough(threshold: &Threshold, rows: &[Made], group: u8, now: i64, at_least: bool) -> bool {
        let oldest = now - threshold.back_us;
        let of: Vec<&Made> = rows
            .iter()
            .filter(|row| row.0 == group && row.1 <= now)
            .filter(|row| if at_least { row.3 && row.1 > oldest } else { row.1 >= oldest })
            .collect();
        let values = || of.iter().map(|row| row.2).filter(|value| *value > 0);
        let has = |wanted: &Values| {
            let there = if wanted.distinct { values().collect::<BTreeSet<_>>().len() } else { values().count() };
            there >= wanted.least
        };
        of.len() >= threshold.rows && threshold.values.as_ref().is_none_or(has)
    }

    fn threshold() -> impl Strategy<Value = Threshold> {
        let values = prop::option::of((any::<bool>(), 1_usize..4));
        (1_usize..5, values, any::<bool>(), any::<bool>(), 0_i64..12).prop_map(
            |(rows, values, whole, grows, back_us)| {
                let values = values.map(|(distinct, least)| Values { column: 0, distinct, least });
                Threshold { by: vec![0], rows, values, whole, grows: grows || whole, back_us }
            },
        )
    }

    fn rows() -> impl Strategy<Value = Vec<Made>> {
        prop::collection::vec((1_u8..4, 0_i64..30, 0_u8..4, prop::bool::weighted(0.8)), 0..30)
    }

    proptest! {
        #[test]
        fn it_names_the_groups_that_counting_anew_names(threshold in threshold(), rows in rows(), now in -2_i64..40) {
            let made = marked(&rows);
            let found = gate(&threshold, &made).open(&threshold, made.iter().copied(), now);
            let expected = (1..4_u8).filter(|group| is_enough(&threshold, &rows, *group, now, false));
            prop_assert_eq!(found, expected.map(Group::from).collect());
        }

        #[test]
        fn an_edge_is_where_a_group_may_be_lost(threshold in threshold(), rows in rows(), times in prop::collection::btree_set(0_i64..40, 0..20)) {
            // Four times a second.
            const QUARTER: i64 = TICK_US / 4;
            let threshold = Threshold { back_us: threshold.back_us * QUARTER, ..threshold };
            let rows: Vec<Made> = rows.into_iter().map(|row| (row.0, row.1 * QUARTER, row.2, row.3)).collect();
            let times: BTreeSet<i64> = times.into_iter().map(|time| time * QUARTER).collect();
            let made = marked(&rows);
            let found = gate(&threshold, &made).edges(&threshold, made.iter().copied(), &times);
            let pairs = || times.iter().zip(times.iter().skip(1));
            let is_open = |group: &u8, now: i64| is_enough(&threshold, &rows, *group, now, false);
            let stays = |group: &u8, now: i64| threshold.whole && is_enough(&threshold, &rows, *group, now, true);
            let is_lost = |group: &u8, now: i64, next: i64| {
                let goes = |row: &Made| {
                    let until = row.1 + threshold.back_us;
                    row.0 == *group && ((now..next).contains(&until) || (row.3 && until == next))
                };
                is_open(group, now) && !stays(group, next) && rows.iter().any(goes)
            };
            let mut expected: Vec<Look> = Vec::new();
            for (now, next) in pairs() {
                let second = *now / TICK_US;
                let is_later = |group: &u8| {
                    let later = |(at, next): (&i64, &i64)| {
                        at > now && at / TICK_US == second && is_lost(group, *at, *next) && stays(group, *at)
                    };
                    let end = times.range(..(second + 1) * TICK_US).next_back().unwrap();
                    threshold.whole && (pairs().any(later) || (end > now && stays(group, *end)))
                };
                if !threshold.grows {
                    expected.extend((1..4).any(|group| is_open(&group, *now)).then_some((*now, None)));
                    continue;
                }
                let lost = (1..4_u8).filter(|group| is_lost(group, *now, *next) && !is_later(group));
                let lost: HashSet<Group> = lost.map(Group::from).collect();
                expected.extend((!lost.is_empty()).then_some((*now, Some(lost))));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
