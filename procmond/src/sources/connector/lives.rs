//! What the connector has learnt about living processes, so that an end carries the identity of the process that ended.
//!
//! Bounded; a process that finds no room, or that was there before, is looked up in `/proc` instead. Losing all of it costs
//! such look-ups and nothing else.

use std::collections::HashMap;

/// Processes kept: at about 64 bytes each, 2 MiB. More at once are rare, and only slower.
const LIVES_MAX: usize = 32 * 1024;

/// Who a process runs as, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Option<u32>,
    pub(super) euid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Life {
    /// When its fork was announced, ns of the monotonic clock; 0 for one that was there before.
    pub(super) born_ns: u64,
    pub(super) ticks: Option<u64>,
    pub(super) parent: Option<u32>,
    pub(super) owner: Owner,
    /// It has had further threads, so its leader's end need not be its own.
    pub(super) threaded: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lives {
    by_pid: HashMap<u32, Life>,
}

impl Lives {
    /// A process was born; its owner is its parent's until the kernel says otherwise.
    pub(super) fn born(&mut self, pid: u32, parent: u32, at_ns: u64) {
        let owner = self.by_pid.get(&parent).map(|life| life.owner).unwrap_or_default();
        if let Some(life) = self.life(pid) {
            *life = Life { born_ns: at_ns, parent: Some(parent), owner, ..Life::default() };
        }
    }

    /// What is known, empty for a process not met before; `None` without room.
    pub(super) fn life(&mut self, pid: u32) -> Option<&mut Life> {
        if self.by_pid.len() >= LIVES_MAX && !self.by_pid.contains_key(&pid) {
            return None;
        }
        Some(self.by_pid.entry(pid).or_default())
    }

    pub(super) fn known(&self, pid: u32) -> Life {
        self.by_pid.get(&pid).copied().unwrap_or_default()
    }

    /// Drops the process that ended at this moment, unless the pid has gone to a later one.
    pub(super) fn ended(&mut self, pid: u32, at_ns: u64) {
        if self.by_pid.get(&pid).is_some_and(|life| life.born_ns <= at_ns) {
            self.by_pid.remove(&pid);
        }
    }

    /// After a loss nothing says whether a pid still belongs to the same process.
    pub(super) fn forget(&mut self) {
        self.by_pid.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_its_parents_owner_and_a_pid_taken_again_is_a_new_life() {
        let mut lives = Lives::default();
        lives.life(7).unwrap().owner.uid = Some(1000);
        lives.born(8, 7, 50);
        lives.life(8).unwrap().ticks = Some(3);
        assert_eq!((lives.known(8).owner.uid, lives.known(8).parent), (Some(1000), Some(7)));
        lives.born(8, 1, 60);
        assert_eq!((lives.known(8).ticks, lives.known(8).owner.uid), (None, None));
        lives.ended(8, 55);
        assert_eq!(lives.known(8).born_ns, 60, "the end of the one before");
        lives.ended(8, 61);
        assert_eq!(lives.known(8).born_ns, 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut lives = Lives::default();
        for pid in 0..40_000 {
            lives.born(pid, 1, 1);
        }
        assert_eq!(lives.by_pid.len(), LIVES_MAX);
        assert!(lives.life(39_999).is_none() && lives.life(5).is_some());
    }
}
