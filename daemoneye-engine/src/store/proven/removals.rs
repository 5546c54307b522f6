//! What entries say that retention took, and whether retention would have.
//!
//! Such an entry comes from the agent's outbox, which a local root can write as well, so what it says of itself excuses little. When
//! events were recorded is known from what their collector wrote around them, and when an entry came from what stands on its two
//! sides. Retention takes whole files, the oldest first, and because of their age none that is younger than the least setting.

use std::collections::HashMap;

use daemoneye_lib::config::LEAST_RETENTION_DAYS;
use serde::Serialize;

use super::super::retention::{AGE, Removed};
use super::clocks::{JITTER_US, Recorded, Survivors};
use super::leaves::Position;

/// What is younger was not too old on any host.
const LEAST_AGE_US: i64 = (LEAST_RETENTION_DAYS * 86_400_000_000).cast_signed();
/// Stretches that are remembered, some 30 MB: decades of removals.
const STRETCHES: usize = 262_144;
/// Removals that are listed, the newest: some 100 KiB. Older ones are counted.
const LISTED: usize = 500;

/// Events that retention took, as one entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// The entry; `None`: it waits for the ledger still.
    pub entry: Option<u64>,
    /// When it came, as far as the entries around it tell.
    pub time_us: i64,
    /// What it says why.
    pub why: String,
    /// Events that the ledger covers and that went.
    pub events: u64,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) entry: Option<u64>,
    pub(super) time_us: i64,
    pub(super) why: String,
    /// What was younger was not too old; `None`: it was not for its age.
    limit_us: Option<i64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Removals {
    pub(super) facts: Vec<Fact>,
    /// Per collector: first and last of a stretch, and which fact says so.
    stretches: HashMap<String, Vec<(Position, Position, usize)>>,
    /// Stretches that were told of.
    told: usize,
}

impl Removals {
    pub(super) fn add(
        &mut self,
        (entry, time_us): (Option<u64>, i64),
        why: String,
        before_us: Option<i64>,
        gone: Vec<Removed>,
    ) {
        let limit_us = (before_us.is_some() || why == AGE).then(|| limit_us(time_us, before_us));
        let fact = self.facts.len();
        self.facts.push(Fact { entry, time_us, why, limit_us });
        for Removed { collector, first, last } in gone {
            self.stretches.entry(collector).or_default().push((first, last, fact));
        }
    }

    /// Takes note of stretches, and cuts off those for which there is no room.
    pub(super) fn bound(&mut self, stretches: &mut Vec<Removed>) {
        let room = STRETCHES.saturating_sub(self.told);
        self.told = self.told.saturating_add(stretches.len());
        stretches.truncate(room);
    }

    /// Whether there were some for which there was no room.
    pub(super) const fn is_full(&self) -> bool {
        self.told > STRETCHES
    }

    /// Makes the stretches of a stream follow each other without overlap.
    pub(super) fn settle(&mut self) {
        for stretches in self.stretches.values_mut() {
            stretches.sort_unstable();
            let mut apart: Vec<(Position, Position, usize)> = Vec::with_capacity(stretches.len());
            for (first, last, fact) in stretches.drain(..) {
                let behind = apart.last().map_or(first, |(_, (epoch, number), _)| (*epoch, number.saturating_add(1)));
                let first = first.max(behind);
                if first <= last {
                    apart.push((first, last, fact));
                }
            }
            *stretches = apart;
        }
    }

    /// Which fact says that retention took the event at `at`.
    pub(super) fn of(&self, collector: &str, at: Position) -> Option<usize> {
        let stretches = self.stretches.get(collector)?;
        let behind = stretches.partition_point(|(first, ..)| *first <= at);
        let (_, last, fact) = stretches.get(behind.checked_sub(1)?)?;
        (*last >= at).then_some(*fact)
    }

    /// Why retention cannot have taken an event; `survivors`: of its stream.
    pub(super) fn contradiction(&self, fact: usize, event: Recorded, survivors: Option<&Survivors>) -> Option<String> {
        let fact = self.facts.get(fact)?;
        // One that was recorded behind its removal: the clock was set back in between.
        let is_young = |limit_us: i64| event.earliest_us > limit_us.saturating_add(JITTER_US);
        if event.latest_us <= fact.time_us && fact.limit_us.is_some_and(is_young) {
            return Some("it was too young to be removed for its age".to_owned());
        }
        survivors
            .is_some_and(|survivors| survivors.are_older(event))
            .then(|| "older events of its stream are still there, and retention takes the oldest first".to_owned())
    }

    /// The newest, and how many there are besides. `taken` has the events of each fact.
    pub(super) fn listed(self, taken: &[u64]) -> (Vec<Removal>, u64) {
        let all = self.facts.into_iter().zip(taken).filter(|(_, events)| **events > 0);
        let mut all: Vec<Removal> = all
            .map(|(Fact { entry, time_us, why, .. }, events)| Removal { entry, time_us, why, events: *events })
            .collect();
        let further = all.len().saturating_sub(LISTED);
        all.drain(..further);
        (all, further as u64)
    }
}

/// What was recorded later than this was not too old at `time_us`, whatever an entry says.
pub(super) fn limit_us(time_us: i64, before_us: Option<i64>) -> i64 {
    before_us.unwrap_or(i64::MAX).min(time_us.saturating_sub(LEAST_AGE_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_beyond_what_is_remembered_are_cut_off_and_told() {
        let stretches = |count| vec![Removed { collector: "c".to_owned(), first: (1, 1), last: (1, 1) }; count];
        let mut removals = Removals::default();
        let (mut some, mut more) = (stretches(STRETCHES - 1), stretches(3));
        removals.bound(&mut some);
        assert!(some.len() == STRETCHES - 1 && !removals.is_full());
        removals.bound(&mut more);
        assert!(more.len() == 1 && removals.is_full());
    }
}
