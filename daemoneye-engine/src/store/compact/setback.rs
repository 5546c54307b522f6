//! Merges that have failed step back, longer each time, so that one that cannot succeed keeps no other from its turn.
//!
//! It is remembered in memory only: a restart tries everything again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::history::HistoryTable;
use super::plan::Job;

/// After the first failure: one round of compaction.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// After many: a few times a day, so that what was repaired is merged without a restart.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);
/// Groups that are remembered: days and hours of two months. Beyond it the one that waits least is forgotten and tried.
const GROUPS: usize = 256;

/// What a merge is known by while its later inputs come and go: table, level and number of its first input.
pub(super) type Group = (HistoryTable, u8, u64);

#[derive(Debug, Clone, Copy)]
struct Setback {
    failures: u32,
    until: Instant,
}

/// The merges that wait.
#[derive(Debug, Default)]
pub(super) struct Setbacks(HashMap<Group, Setback>);

impl Job {
    pub(super) fn group(&self) -> Group {
        (self.table, self.level, self.inputs.first().map_or(0, |file| file.id))
    }
}

impl Setbacks {
    /// Whether it is not its turn yet.
    pub(super) fn waits(&self, group: Group, now: Instant) -> bool {
        self.0.get(&group).is_some_and(|setback| setback.until > now)
    }

    pub(super) fn failed(&mut self, group: Group, now: Instant) {
        let failures = self.0.get(&group).map_or(0, |setback| setback.failures);
        let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
        // One that was not tried again when it could have been is there no more.
        self.0.retain(|_, setback| setback.until + LONGEST_WAIT > now);
        if self.0.len() >= GROUPS
            && let Some(first) = self.0.iter().min_by_key(|(_, setback)| setback.until).map(|(group, _)| *group)
        {
            self.0.remove(&first);
        }
        self.0.insert(group, Setback { failures: failures.saturating_add(1), until: now + wait });
    }

    pub(super) fn succeeded(&mut self, group: Group) {
        self.0.remove(&group);
    }

    /// How many have failed and were not merged since.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn group(id: u64) -> Group {
        (HistoryTable::ProcessEvents, 1, id)
    }

    #[test]
    fn each_failure_waits_twice_as_long_up_to_a_bound_and_success_ends_it() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        let mut waited = Vec::new();
        let mut at = now;
        for _ in 0..12 {
            setbacks.failed(group(1), at);
            let wait = (0..).map(|minutes| FIRST_WAIT * minutes).find(|wait| !setbacks.waits(group(1), at + *wait));
            waited.push(wait.unwrap().as_secs() / 60);
            at += wait.unwrap();
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]);
        assert!(!setbacks.waits(group(2), at), "the others go on");
        setbacks.succeeded(group(1));
        assert_eq!(setbacks.len(), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_gone_is_forgotten() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        for id in 0..1_000 {
            setbacks.failed(group(id), now);
        }
        assert_eq!(setbacks.len(), GROUPS as u64);
        setbacks.failed(group(1_000), now + LONGEST_WAIT * 2);
        assert_eq!(setbacks.len(), 1);
    }
}
