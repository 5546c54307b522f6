//! What was not decided when it came: rows that wait for the tick, and times at which a run had no answer.

use std::collections::BTreeSet;

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
    /// A run had no answer, and no tick is there for the next try yet.
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

    /// There was no answer; it is tried again, unless it was often enough.
    pub(super) fn fail(&mut self, time: i64) {
        if self.tries < RETRIES {
            self.failed = true;
            self.again(time);
        } else if self.again.is_empty() {
            self.tries = 0;
        }
    }

    /// There is more to find at that time.
    pub(super) fn again(&mut self, time: i64) {
        self.again.insert(time);
        if self.again.len() > MOST {
            self.again.pop_first();
        }
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

    /// The times to decide at, ascending: as few as see what each row that waits would have seen, and never none.
    pub(super) fn times(&mut self, kept: &Kept, plan: &Planned, due: i64) -> Vec<i64> {
        let mut times = self.take();
        if let Some((number, reached)) = self.rows.take() {
            times.extend(kept.reached(number, reached, |scans| plan.begins_with(scans)));
        }
        let mut chosen = kept.edges(&times, &plan.scans, EDGE_RUNS.saturating_sub(self.edges));
        self.edges = self.edges.saturating_add(chosen.len());
        chosen.push(times.last().copied().unwrap_or(due));
        chosen
    }

    /// The times that are looked at again, which begins a try.
    pub(super) fn take(&mut self) -> BTreeSet<i64> {
        self.tries = if self.again.is_empty() { 0 } else { self.tries.saturating_add(1) };
        self.failed = false;
        std::mem::take(&mut self.again)
    }
}
