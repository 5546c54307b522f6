//! Which rows the scans of all window rules take, found as stream rules find their candidates: the prefilter names the scans
//! that can take a row, and only those are asked.

use std::time::Instant;

use super::super::prefilter::{Candidates, Kept, Prefilter};
use super::super::row::Columns;
use super::plan::{Planned, Scans};
use super::{Window, read};

/// A row that is kept, and the scans that take it.
pub(super) type Taken = (usize, Scans);

/// The scans of a set.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    /// Rule and scan.
    scans: Vec<(usize, usize)>,
    prefilter: Prefilter,
    /// Remembers across batches; a second thread at the same time begins with nothing.
    candidates: Kept,
}

impl Sieve {
    pub(super) fn of<'a>(plans: impl Iterator<Item = &'a Planned> + Clone) -> Self {
        let conditions: Vec<_> = plans.clone().flat_map(|plan| &plan.scans).map(|scan| &scan.condition).collect();
        let scans = plans.enumerate().flat_map(|(rule, plan)| (0..plan.scans.len()).map(move |scan| (rule, scan)));
        Self { scans: scans.collect(), prefilter: Prefilter::new(conditions.into_iter()), candidates: Kept::default() }
    }

    /// Every scan is asked about every row, for holding the other to.
    pub(super) fn open(&mut self) {
        self.prefilter = Prefilter::open(self.scans.len());
    }

    /// For each rule the rows that it keeps, in order.
    pub(super) fn sift(&self, rules: &[Window], columns: &Columns<'_>) -> Vec<Vec<Taken>> {
        let mut taken = vec![Vec::new(); rules.len()];
        self.candidates.each(&self.prefilter, columns, |candidates| self.ask(rules, columns, candidates, &mut taken));
        for rows in &mut taken {
            rows.sort_unstable_by_key(|(row, _)| *row);
            rows.dedup_by(|(row, scans), (kept, all)| {
                let same = row == kept;
                if same {
                    *all = all.with(*scans);
                }
                same
            });
        }
        taken
    }

    /// The clock is read once between two scans.
    fn ask(&self, rules: &[Window], columns: &Columns<'_>, candidates: &Candidates, taken: &mut [Vec<Taken>]) {
        let mut started = Instant::now();
        for at in candidates.rules() {
            let Some((rule, scan)) = self.scans.get(at).copied() else { continue };
            let (Some(window), Some(rows)) = (rules.get(rule), taken.get_mut(rule)) else { continue };
            let scans = Scans::only(scan);
            let Some(scan) = window.plan.scans.get(scan) else { continue };
            let seen = |row: &usize| window.plan.sees_forks || !columns.is_fork(*row);
            let found = candidates.rows(at).filter(seen).filter(|row| scan.condition.holds(columns, *row));
            rows.extend(found.map(|row| (row, scans)));
            let now = Instant::now();
            read(&window.counters).took(now.saturating_duration_since(started));
            started = now;
        }
    }
}
