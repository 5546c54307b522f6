//! Thread group leaders that have ended while other threads may still run.
//!
//! The kernel announces the end of each thread and never that of a process. A leader's end is that of its process unless
//! other threads live on, or one of them executes a program and takes the leader's place. Whoever has had threads is
//! therefore held here until `/proc` shows it gone.

/// Ends held at once; a further one is handed out at once, and reconciliation corrects it if it was none.
const HELD_MAX: usize = 1024;

/// After the last thread's announcement it takes this long until `/proc` shows the end.
const SETTLED_NS: u64 = 2_000_000;

/// How often a leader without news is looked at; news may have been lost.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) pid: u32,
    pub(super) ticks: Option<u64>,
    /// When the last of its threads ended, as far as is known.
    pub(super) at_ns: u64,
    pub(super) wait_status: u32,
    look_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Leaders {
    held: Vec<Leader>,
}

impl Leaders {
    /// Holds an end back; `false` without room.
    pub(super) fn hold(&mut self, pid: u32, ticks: Option<u64>, at_ns: u64, wait_status: u32) -> bool {
        let room = self.held.len() < HELD_MAX;
        if room {
            let look_ns = at_ns.saturating_add(SETTLED_NS);
            self.held.push(Leader { pid, ticks, at_ns, wait_status, look_ns });
        }
        room
    }

    /// A further thread has ended; the one that ends a process on purpose has its status, the others end with 0.
    pub(super) fn thread_ended(&mut self, pid: u32, at_ns: u64, wait_status: u32) {
        for leader in self.held.iter_mut().filter(|leader| leader.pid == pid) {
            leader.at_ns = at_ns;
            leader.look_ns = at_ns.saturating_add(SETTLED_NS);
            if wait_status != 0 {
                leader.wait_status = wait_status;
            }
        }
    }

    /// One of its threads has executed a program: the process lives.
    pub(super) fn replaced(&mut self, pid: u32) {
        self.held.retain(|leader| leader.pid != pid);
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.held.iter().map(|leader| leader.look_ns).min()
    }

    /// Takes out those that are due and have `ended`.
    pub(super) fn take_ended(&mut self, now_ns: u64, mut ended: impl FnMut(&Leader) -> bool) -> Vec<Leader> {
        let due = |leader: &mut Leader| {
            if leader.look_ns > now_ns {
                return false;
            }
            leader.look_ns = now_ns.saturating_add(LOOK_EVERY_NS);
            ended(leader)
        };
        self.held.extract_if(.., due).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_looked_at_after_its_last_thread_and_then_once_a_second() {
        let mut leaders = Leaders::default();
        assert!(leaders.hold(7, Some(1), 1_000, 0));
        leaders.thread_ended(7, 5_000, 0x300);
        assert_eq!(leaders.due_ns(), Some(5_000 + SETTLED_NS));
        let now = 5_000 + SETTLED_NS;
        assert!(leaders.take_ended(now, |_| false).is_empty());
        assert_eq!(leaders.due_ns(), Some(now + LOOK_EVERY_NS));
        let ended = leaders.take_ended(now + LOOK_EVERY_NS, |_| true);
        assert_eq!(
            ended.iter().map(|leader| (leader.pid, leader.at_ns, leader.wait_status)).collect::<Vec<_>>(),
            [(7, 5_000, 0x300)]
        );
        assert_eq!(leaders.due_ns(), None);
    }

    #[test]
    fn a_leader_whose_thread_executes_a_program_has_not_ended() {
        let mut leaders = Leaders::default();
        leaders.hold(7, Some(1), 1_000, 9);
        leaders.replaced(7);
        assert!(leaders.take_ended(u64::MAX, |_| true).is_empty());
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut leaders = Leaders::default();
        assert_eq!((0..2_000).filter(|pid| leaders.hold(*pid, None, 1, 0)).count(), HELD_MAX);
    }
}
