//! What was not decided when it came: rows that wait for the tick, and times at which a run had no answer.

use std::collections::BTreeSet;

use super::gate::Look;
use super::kept::Kept;
use super::plan::Planned;
use super::{EDGE_RUNS, RETRIES};

/// Times at which one rule is decided again, at most: each is a run that failed within the time of one batch.
const MOST: usize = 64;

/// What waits for the next tick of one rule.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The number of the first row, and the time that events had reached with it.
    rows: Option<(i64, i64)>,
    /// Times to decide at again; of a rule that awaits something, the one from which its look back begins.
    again: BTreeSet<i64>,
    /// How often that was tried.
    tries: u32,
    /// A run had no answer or no time, and no tick is there for the next try yet.
    pub(super) failed: bool,
    /// Runs beyond the first of a tick in this span.
    edges: usize,
}

impl Waiting {
    /// A row is decided at the tick.
    pub(super) fn row(&mut self, number: i64, reached_us: i64) {
        self.rows.get_or_insert((number, reached_us));
    }

    /// What is decided at the next tick is decided at that time only.
    pub(super) fn only(&mut self, time: i64) {
        self.again = BTreeSet::from([time]);
    }

    /// A new span begins.
    pub(super) const fn renew(&mut self) {
        self.edges = 0;
    }

    /// There was no answer; it is tried again, unless it was often enough. How many times are given up for it.
    pub(super) fn fail(&mut self, time: i64) -> u64 {
        if self.tries < RETRIES {
            self.failed = true;
            return self.again(time);
        }
        if self.again.is_empty() {
            self.tries = 0;
        }
        0
    }

    /// There is more to find at that time. How many times are given up for it.
    pub(super) fn again(&mut self, time: i64) -> u64 {
        self.again.insert(time);
        let is_full = self.again.len() > MOST;
        if is_full {
            self.again.pop_first();
        }
        u64::from(is_full)
    }

    /// There is no time to look at that time, and will be. How many times are given up for it.
    pub(super) fn look_later(&mut self, time: i64) -> u64 {
        self.failed = true;
        self.again(time)
    }

    /// The first time that is looked at again.
    pub(super) fn first(&self) -> Option<i64> {
        self.again.first().copied()
    }

    /// No time counts as later than `to_us`.
    pub(super) fn clamp(&mut self, to_us: i64) {
        self.again = std::mem::take(&mut self.again).into_iter().map(|time| time.min(to_us)).collect();
        self.rows = self.rows.map(|(number, reached)| (number, reached.min(to_us)));
    }

    /// The moments to decide at, ascending: as few as see what each row that waits would have seen, and the last of all. With a gate
    /// they are of the groups that are not seen by the next one.
    pub(super) fn looks(&mut self, kept: &Kept, plan: &Planned, due: i64, has_gate: bool) -> (Vec<Look>, i64) {
        let mut times = self.take();
        if let Some((number, reached)) = self.rows.take() {
            times.extend(kept.reached(number, reached, |scans| plan.begins_with(scans)));
        }
        let of_all = || kept.edges(&times, plan).into_iter().map(|now| (now, None)).collect();
        let of_groups = if has_gate { kept.edges_of_groups(&times, plan) } else { None };
        (of_groups.unwrap_or_else(of_all), times.last().copied().unwrap_or(due))
    }

    /// Whether there is a run left in this span beyond the first of a tick; it is taken.
    pub(super) const fn edge(&mut self) -> bool {
        let is_left = self.edges < EDGE_RUNS;
        if is_left {
            self.edges += 1;
        }
        is_left
    }

    /// The times that are looked at again, which begins a try.
    pub(super) fn take(&mut self) -> BTreeSet<i64> {
        self.tries = if self.again.is_empty() { 0 } else { self.tries.saturating_add(1) };
        self.failed = false;
        std::mem::take(&mut self.again)
    }
}
