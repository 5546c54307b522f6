//! The past of rules that have seen no event: read from the store once, while others go on, and then what has come meanwhile.

use std::collections::BTreeSet;

use daemoneye_lib::columns::PROCESS_EVENTS;
use daemoneye_lib::model::{Completeness, Degraded};

use super::super::clock::Clock;
use super::super::row::Columns;
use super::{EAGER_US, Sight, Taken, Window, Windows};
use crate::store::{PastRead, Store};

/// Which rules get their past, and how much of it they have.
#[derive(Debug, Default)]
pub struct Filling {
    rules: Vec<usize>,
    read: PastRead,
}

impl Windows {
    /// Gives the rules that have seen no event those of the past that they would have kept. Nothing is decided by that: what
    /// there was to find in it was found when it came, or is found with the next event.
    pub(in crate::detect) fn fill(&self, store: &Store, clock: &Clock) -> Filling {
        let new = self.rules.iter().enumerate().filter(|(_, window)| window.is_new());
        let mut filling = Filling { rules: new.map(|(at, _)| at).collect(), read: PastRead::default() };
        self.catch_up(store, clock, &mut filling);
        filling
    }

    /// The same for what the store has got since.
    pub(in crate::detect) fn catch_up(&self, store: &Store, clock: &Clock, filling: &mut Filling) {
        let new: Vec<&Window> = filling.rules.iter().filter_map(|at| self.rules.get(*at)).collect();
        let snapshot = store.snapshot();
        let sealed = snapshot.segments.iter().map(|file| file.last_us).max();
        let open = snapshot.open.iter().filter_map(|batch| Sight::latest(&Columns::of(batch))).max();
        let (Some(back_us), Some(latest)) = (new.iter().map(|window| window.plan.back_us()).max(), sealed.max(open))
        else {
            return;
        };
        let latest = clock.believed(latest);
        let mut columns: BTreeSet<&str> = BTreeSet::from(["start_kind"]);
        let kept = new.iter().flat_map(|window| &window.columns);
        columns.extend(kept.filter_map(|at| Some(PROCESS_EVENTS.get(*at)?.name)));
        let columns: Vec<&str> = columns.into_iter().collect();
        let from_us = latest.saturating_sub(back_us).saturating_sub(EAGER_US);
        let whole = store.past(from_us, &columns, &mut filling.read, |batch| {
            let (seen, complete) = (Columns::of(batch), Completeness::complete());
            let sight = Sight::of(batch, &seen, &complete, clock);
            let taken = self.sieve.sift(&self.rules, &seen);
            for (window, taken) in filling.rules.iter().filter_map(|at| Some((self.rules.get(*at)?, taken.get(*at)?)))
            {
                // Files overlap in time, and rules look back over less than all of it.
                let own = latest.saturating_sub(window.plan.back_us()).saturating_sub(EAGER_US);
                let young = |(row, _): &Taken| sight.time(*row).is_none_or(|time| time >= own);
                let taken: Vec<Taken> = taken.iter().copied().filter(young).collect();
                self.with_state(window, None, |state, work| state.fill(work, &sight, &taken));
            }
        });
        new.iter().for_each(|window| self.with_state(window, None, |state, work| state.sort(work)));
        if !whole {
            self.lack(Degraded::DataUnreadable, latest);
        }
    }
}
