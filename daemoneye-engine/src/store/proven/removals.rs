//! What entries say that retention took, and whether retention would have.
//!
//! Such an entry comes from the agent's outbox, which a local root can write as well, so what it says of itself excuses little. When
//! events were recorded is known from what their collector wrote around them, and when an entry came from what stands on its two
//! sides. Retention takes whole files, the oldest first, and because of their age none that is younger than the least setting.

use std::collections::HashMap;

use daemoneye_lib::config::LEAST_RETENTION_DAYS;
use serde::Serialize;

use super::super::retention::Removed;
use super::clocks::{JITTER_US, Recorded, Survivors};
use super::facts::order;
use super::leaves::Position;
use super::told;

/// What is younger was not too old on any host.
const LEAST_AGE_US: i64 = (LEAST_RETENTION_DAYS * 86_400_000_000).cast_signed();
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

/// One entry, or several that are put together.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) entry: Option<u64>,
    pub(super) time_us: i64,
    pub(super) why: String,
    /// What was younger was not too old; `None`: it was not for its age.
    limit_us: Option<i64>,
    /// Earlier entries in it.
    others: u64,
}

/// First and last of a stretch, and which fact says so.
type Stretch = (Position, Position, usize);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Removals {
    pub(super) facts: Vec<Fact>,
    /// Per collector.
    stretches: HashMap<String, Vec<Stretch>>,
    /// Of some events in these it was said; of which, there was no room to remember.
    vague: HashMap<String, Vec<Stretch>>,
}

/// Which fact says that retention took an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct By {
    pub(super) fact: usize,
    /// It says so of this event.
    pub(super) is_sure: bool,
}

impl Removals {
    pub(super) fn add(&mut self, (entry, time_us): (Option<u64>, i64), removal: told::Removal) {
        let limit_us = removal.is_for_age().then(|| limit_us(time_us, removal.before_us));
        let told::Removal { why, ranges, vague, others, .. } = removal;
        let fact = self.facts.len();
        self.facts.push(Fact { entry, time_us, why, limit_us, others });
        for (to, stretches) in [(&mut self.stretches, ranges), (&mut self.vague, vague)] {
            for Removed { collector, first, last } in stretches {
                to.entry(collector).or_default().push((first, last, fact));
            }
        }
    }

    /// Makes the stretches of a stream follow each other without overlap.
    pub(super) fn settle(&mut self) {
        for stretches in self.stretches.values_mut().chain(self.vague.values_mut()) {
            stretches.sort_unstable();
            let mut apart: Vec<Stretch> = Vec::with_capacity(stretches.len());
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
    pub(super) fn of(&self, collector: &str, at: Position) -> Option<By> {
        let sure = within(self.stretches.get(collector), at).map(|fact| By { fact, is_sure: true });
        sure.or_else(|| within(self.vague.get(collector), at).map(|fact| By { fact, is_sure: false }))
    }

    /// Why retention cannot have taken an event that ledger entry `covered` tells of; `survivors`: of its stream.
    pub(super) fn contradiction(
        &self,
        fact: usize,
        (covered, event): (u64, Recorded),
        survivors: Option<&Survivors>,
    ) -> Option<String> {
        let fact = self.facts.get(fact)?;
        let is_young = |limit_us: i64| event.earliest_us > limit_us.saturating_add(JITTER_US);
        let is_told_before = order(fact.entry) < covered;
        // A full disk may keep what was recorded from the ledger for so long that its removal comes before it.
        if is_told_before && is_young(fact.time_us) {
            return Some("it was recorded after that".to_owned());
        }
        // Where the entry stands behind it and has an earlier time, the clock was set back in between.
        let is_in_order = is_told_before || event.latest_us <= fact.time_us;
        if is_in_order && fact.limit_us.is_some_and(is_young) {
            return Some("it was too young to be removed for its age".to_owned());
        }
        survivors
            .is_some_and(|survivors| survivors.are_older(event))
            .then(|| "older events of its stream are still there, and retention takes the oldest first".to_owned())
    }

    /// The newest, and how many there are besides. `taken` has the events of each fact.
    pub(super) fn listed(self, taken: &[u64]) -> (Vec<Removal>, u64) {
        let all = self.facts.into_iter().zip(taken).filter(|(_, events)| **events > 0);
        let mut others = 0_u64;
        let mut all: Vec<Removal> = all
            .map(|(fact, events)| {
                others = others.saturating_add(fact.others);
                let Fact { entry, time_us, why, .. } = fact;
                Removal { entry, time_us, why, events: *events }
            })
            .collect();
        let further = all.len().saturating_sub(LISTED);
        all.drain(..further);
        (all, others.saturating_add(further as u64))
    }
}

fn within(stretches: Option<&Vec<Stretch>>, at: Position) -> Option<usize> {
    let stretches = stretches?;
    let behind = stretches.partition_point(|(first, ..)| *first <= at);
    let (_, last, fact) = stretches.get(behind.checked_sub(1)?)?;
    (*last >= at).then_some(*fact)
}

/// What was recorded later than this was not too old at `time_us`, whatever an entry says.
pub(super) fn limit_us(time_us: i64, before_us: Option<i64>) -> i64 {
    before_us.unwrap_or(i64::MAX).min(time_us.saturating_sub(LEAST_AGE_US))
}
