//! The time that events have reached, and the clock that none of them is ahead of.
//!
//! Events are judged by their own times, so that a replay decides the same. One that is ahead of the clock would carry all later ones
//! into its past; it counts as of now.

use std::sync::atomic::{AtomicI64, Ordering};

use super::RuleSet;
use super::row::Columns;
use super::window::GRACE_US;
use crate::store::RuleMatch;

/// How far events may be ahead of the clock, µs: they are dated by the same one and a moment before.
const AHEAD_US: i64 = 2_000_000;

/// The clock that no event is ahead of; a replay has none.
#[derive(Debug)]
pub(super) struct Clock {
    now_us: AtomicI64,
    /// What the host's own clock says, which may be ahead of what is believed for a while.
    host_us: AtomicI64,
    /// The time that events have reached.
    reached_us: AtomicI64,
    /// How far behind an event may come and is not late.
    grace_us: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            now_us: AtomicI64::new(i64::MAX),
            host_us: AtomicI64::new(i64::MAX),
            reached_us: AtomicI64::new(i64::MIN),
            grace_us: GRACE_US,
        }
    }
}

impl RuleSet {
    /// For events that come in the order of their times: one that does not is late, without a grace period.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.clock = Clock::in_order();
        self
    }

    /// What comes now is of this time, such as that of the next file: a rule that looks back over less than the step decides what waited,
    /// and nothing of before counts for it any more. For others it is late.
    #[must_use]
    pub fn go_back(&self, to_us: i64) -> Vec<RuleMatch> {
        let mut matches = Vec::new();
        self.windows.go_back(to_us, &mut matches);
        self.clock.reached_us.store(i64::MIN, Ordering::Relaxed);
        matches
    }
}

impl Clock {
    /// For events that someone has put in order: what still comes behind others is late.
    pub(super) fn in_order() -> Self {
        Self { grace_us: 0, ..Self::default() }
    }

    pub(super) const fn is_in_order(&self) -> bool {
        self.grace_us == 0
    }

    /// Whether an event's time is late where others have reached `reached`.
    pub(super) const fn is_late(&self, time: i64, reached: i64) -> bool {
        time < reached.saturating_sub(self.grace_us)
    }

    pub(super) fn set(&self, now_us: i64, host_us: i64) {
        self.host_us.store(host_us, Ordering::Relaxed);
        self.now_us.store(now_us, Ordering::Relaxed);
    }

    /// The latest time that is believed, and what a later one counts as.
    pub(super) fn most(&self) -> Option<(i64, i64)> {
        let now = self.now_us.load(Ordering::Relaxed);
        (now != i64::MAX).then(|| (now.saturating_add(AHEAD_US), now))
    }

    /// Whether an event's time cannot be true. One that the host's clock is ahead with is no wonder.
    pub(super) fn is_ahead(&self, time: i64) -> bool {
        time > self.host_us.load(Ordering::Relaxed).saturating_add(AHEAD_US)
    }

    /// A time of an event as it counts.
    pub(super) fn believed(&self, time: i64) -> i64 {
        self.most().filter(|(most, _)| time > *most).map_or(time, |(_, now)| now)
    }

    /// Goes on from where another set's events were.
    pub(super) fn continue_from(&self, other: &Self) {
        self.set(other.now_us.load(Ordering::Relaxed), other.host_us.load(Ordering::Relaxed));
        self.reached_us.fetch_max(other.reached_us.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Takes note of the times of a batch; of each row whether it came after the grace period.
    pub(super) fn pass(&self, columns: &Columns<'_>) -> Vec<bool> {
        let before = self.believed(self.reached_us.load(Ordering::Relaxed));
        let mut reached = before;
        let late = (0..columns.rows()).map(|row| {
            let time = columns.time(row);
            reached = reached.max(time.map_or(i64::MIN, |time| self.believed(time)));
            time.is_some_and(|time| self.is_late(time, reached))
        });
        let late = late.collect();
        self.reached_us.store(reached, Ordering::Relaxed);
        late
    }
}
