//! What a collector knows of its own clock: how far it has been, and which times came more than once because it was set back.
//!
//! Each heartbeat repeats all of it, so that one of them tells of every pass that came before it, however long ago: whoever has only
//! the last pass of a time sees that there was another.

use serde::{Deserialize, Serialize};

/// Steps back below this are not kept, ms: the clock of a host is slewed, and a heartbeat and its entry are not of one moment. Less than
/// the shortest time between two heartbeats, so a proof that reaches one of them further shows such a step itself.
const TOLERANCE_MS: i64 = 1_000;
/// Times that are kept apart. With more of them the two that are nearest become one: what lies between counts as come twice.
const STRETCHES: usize = 16;

/// What the clock of a ledger's collector has been through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerClock {
    /// How far it has been, ms since the Unix epoch.
    pub highest_ms: i64,
    /// First and last ms of each time that came more than once, oldest first, apart from each other.
    pub twice: Vec<(i64, i64)>,
}

impl Default for LedgerClock {
    fn default() -> Self {
        Self { highest_ms: i64::MIN, twice: Vec::new() }
    }
}

impl LedgerClock {
    /// It shows this time now, and how long it has been running is not known: after a start.
    pub fn shows(&mut self, now_ms: i64) {
        if now_ms.saturating_add(TOLERANCE_MS) < self.highest_ms {
            self.came_twice(now_ms, self.highest_ms);
        }
        self.highest_ms = self.highest_ms.max(now_ms);
    }

    /// It went from one time to another while `took_ms` passed. When in between it was set back is not known, so all that may have come
    /// twice counts as such.
    pub fn ran(&mut self, from_ms: i64, to_ms: i64, took_ms: i64) {
        let reached_ms = from_ms.saturating_add(took_ms);
        if to_ms.saturating_add(TOLERANCE_MS) < reached_ms {
            self.came_twice(to_ms.saturating_sub(took_ms), reached_ms.max(self.highest_ms));
        }
        self.highest_ms = self.highest_ms.max(from_ms);
        // Many short steps back are one long one.
        self.shows(to_ms);
    }

    /// Takes in what another one of the same clock went through.
    pub fn join(&mut self, other: &Self) {
        other.twice.iter().for_each(|(from_ms, to_ms)| self.came_twice(*from_ms, *to_ms));
        self.highest_ms = self.highest_ms.max(other.highest_ms);
    }

    /// The parts of a time that came more than once, both ends included.
    pub fn twice_in(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (i64, i64)> {
        let parts = self.twice.iter().map(move |(from, to)| ((*from).max(from_ms), (*to).min(to_ms)));
        parts.filter(|(from, to)| from <= to)
    }

    fn came_twice(&mut self, from_ms: i64, to_ms: i64) {
        let (mut from_ms, mut to_ms) = (from_ms, to_ms);
        self.twice.retain(|(from, to)| {
            let is_apart = *to < from_ms || *from > to_ms;
            if !is_apart {
                (from_ms, to_ms) = (from_ms.min(*from), to_ms.max(*to));
            }
            is_apart
        });
        let place = self.twice.partition_point(|(from, _)| *from < from_ms);
        self.twice.insert(place, (from_ms, to_ms));
        if self.twice.len() > STRETCHES {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let holes = self.twice.iter().zip(self.twice.iter().skip(1)).map(|(one, next)| next.0.saturating_sub(one.1));
        let Some((place, _)) = holes.enumerate().min_by_key(|(_, hole)| *hole) else { return };
        let (_, to_ms) = self.twice.remove(place.saturating_add(1));
        if let Some(joined) = self.twice.get_mut(place) {
            joined.1 = to_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_clock_that_goes_on_or_is_slewed_or_set_forward_has_no_time_twice() {
        let mut clock = LedgerClock::default();
        clock.shows(HOUR);
        clock.ran(HOUR, HOUR + 60_000, 60_900);
        clock.ran(HOUR + 60_000, 9 * HOUR, 60_000);
        clock.shows(9 * HOUR - 900);
        assert_eq!(clock, LedgerClock { highest_ms: 9 * HOUR, twice: Vec::new() });
    }

    #[test]
    fn what_came_before_a_clock_was_set_back_came_twice_whether_it_ran_or_not() {
        let mut clock = LedgerClock::default();
        clock.shows(HOUR);
        clock.ran(HOUR, 3 * HOUR, 2 * HOUR);
        // Back by an hour, some time in the minute.
        clock.ran(3 * HOUR, 2 * HOUR + 60_000, 60_000);
        assert_eq!(clock.twice, [(2 * HOUR, 3 * HOUR + 60_000)]);
        clock.ran(2 * HOUR + 60_000, 5 * HOUR, 3 * HOUR - 60_000);
        clock.shows(4 * HOUR);
        assert_eq!(clock.twice, [(2 * HOUR, 3 * HOUR + 60_000), (4 * HOUR, 5 * HOUR)]);
        assert_eq!(
            clock.twice_in(HOUR, 4 * HOUR).collect::<Vec<_>>(),
            [(2 * HOUR, 3 * HOUR + 60_000), (4 * HOUR, 4 * HOUR)]
        );
        // By less than the interval, so that its end is still behind its begin.
        clock.ran(5 * HOUR, 5 * HOUR + 20_000, 60_000);
        assert_eq!(clock.twice.last(), Some(&(4 * HOUR, 5 * HOUR + 60_000)));
        clock.shows(0);
        assert_eq!(clock.twice, [(0, 5 * HOUR + 60_000)]);
    }

    #[test]
    fn short_steps_back_add_up() {
        let mut clock = LedgerClock::default();
        clock.shows(HOUR);
        for step in 0..4 {
            clock.ran(HOUR - 800 * step, HOUR - 800 * (step + 1), 100);
        }
        assert_eq!(clock.twice, [(HOUR - 3_200, HOUR)]);
    }

    #[test]
    fn what_two_of_them_went_through_is_joined() {
        let twice = |highest_ms, twice: &[(i64, i64)]| LedgerClock { highest_ms, twice: twice.to_vec() };
        let mut clock = twice(9 * HOUR, &[(HOUR, 2 * HOUR), (7 * HOUR, 9 * HOUR)]);
        clock.join(&twice(8 * HOUR, &[(3 * HOUR, 4 * HOUR), (6 * HOUR, 8 * HOUR)]));
        assert_eq!(clock, twice(9 * HOUR, &[(HOUR, 2 * HOUR), (3 * HOUR, 4 * HOUR), (6 * HOUR, 9 * HOUR)]));
    }

    #[test]
    fn of_more_times_than_are_kept_the_nearest_become_one_and_none_is_forgotten() {
        let mut clock = LedgerClock::default();
        let steps = i64::try_from(STRETCHES).unwrap() + 4;
        for step in 1..=steps {
            let at_ms = step * step * HOUR;
            clock.shows(at_ms);
            clock.shows(at_ms - 5_000);
        }
        assert_eq!(clock.twice.len(), STRETCHES);
        assert!(clock.twice.is_sorted_by(|one, next| one.1 < next.0), "{clock:?}");
        assert!((1..=steps).all(|step| clock.twice_in(step * step * HOUR, step * step * HOUR).count() == 1));
    }
}
