//! What the limits of alerts held back, by rule: a rule that matches everything is stopped by them, and somebody has to hear of it.
//!
//! By event time, as the limits are. Kept in memory: the summaries of the minutes are stored, and a rule that is still too wide
//! is told anew within a minute of a start.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use uuid::Uuid;

use super::Store;

const MINUTE_US: i64 = 60_000_000;
/// What is told is the last hour; a rule that was not held for as long is held anew.
const TOLD_MINUTES: i64 = 60;

/// Which limit a match was above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    OfAllRules,
    OfTheRule,
}

/// What of one rule became no alert of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    /// The rule.
    pub rule: Uuid,
    /// Matches since the store was opened.
    pub matches: u64,
    /// Those of the hour before the time that was asked for.
    pub last_hour: u64,
    /// Event time of the first since which no hour passed without one, µs since the Unix epoch.
    pub since_us: i64,
    /// In that hour it was above its own limit, and not only above that of all rules together.
    pub by_its_own: bool,
}

/// By rule.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<Uuid, Count>);

#[derive(Debug, Default)]
struct Count {
    matches: u64,
    since_us: i64,
    /// The last hour of them: how many, and whether one of them was above the rule's own limit.
    minutes: BTreeMap<i64, (u64, bool)>,
}

impl Counts {
    pub(super) fn take(&mut self, rule: Uuid, time_us: i64, limit: Limit) {
        let minute = time_us.div_euclid(MINUTE_US);
        let count = self.0.entry(rule).or_default();
        count.matches = count.matches.saturating_add(1);
        let latest = count.minutes.last_key_value().map(|(latest, _)| *latest);
        match latest {
            Some(latest) if minute.saturating_sub(latest) <= TOLD_MINUTES => {
                count.since_us = count.since_us.min(time_us);
            }
            _ => count.since_us = time_us,
        }
        let (matches, by_its_own) = count.minutes.entry(minute).or_default();
        *matches = matches.saturating_add(1);
        *by_its_own |= limit == Limit::OfTheRule;
        let oldest = latest.map_or(minute, |latest| latest.max(minute)).saturating_sub(TOLD_MINUTES);
        count.minutes.retain(|minute, _| *minute >= oldest);
    }

    fn at(&self, now_us: i64) -> Vec<Folded> {
        let oldest = now_us.div_euclid(MINUTE_US).saturating_sub(TOLD_MINUTES);
        let of = |(rule, count): (&Uuid, &Count)| {
            let (mut last_hour, mut by_its_own) = (0_u64, false);
            for (_, (matches, own)) in count.minutes.range(oldest.saturating_add(1)..) {
                last_hour = last_hour.saturating_add(*matches);
                by_its_own |= own;
            }
            Folded { rule: *rule, matches: count.matches, last_hour, since_us: count.since_us, by_its_own }
        };
        self.0.iter().map(of).collect()
    }
}

impl Store {
    /// What the limits of alerts held back of each rule since the store was opened, as of a time in µs since the Unix epoch.
    #[must_use]
    pub fn folded(&self, now_us: i64) -> Vec<Folded> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner).at(now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_is_told_and_a_pause_begins_anew() {
        let (rule, mut counts) = (Uuid::from_u128(1), Counts::default());
        let minute = |number: i64| number * MINUTE_US;
        counts.take(rule, minute(10), Limit::OfTheRule);
        counts.take(rule, minute(10) + 1, Limit::OfTheRule);
        counts.take(rule, minute(50), Limit::OfAllRules);
        let told = |counts: &Counts, at: i64| {
            let folded = counts.at(minute(at))[0];
            (folded.matches, folded.last_hour, folded.since_us, folded.by_its_own)
        };
        assert_eq!(told(&counts, 50), (3, 3, minute(10), true));
        assert_eq!(told(&counts, 70), (3, 1, minute(10), false));
        assert_eq!(told(&counts, 200), (3, 0, minute(10), false));
        // Late ones count for their own minute.
        counts.take(rule, minute(40), Limit::OfTheRule);
        assert_eq!(told(&counts, 70), (4, 2, minute(10), true));
        counts.take(rule, minute(300), Limit::OfTheRule);
        assert_eq!(told(&counts, 300), (5, 1, minute(300), true));
    }
}
