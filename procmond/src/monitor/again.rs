//! A second look at what was announced. A program may delete its executable right after its start, and the next snapshot is half
//! a minute away; by then it may have ended.
//!
//! Who is still there shortly after its birth or its exec is looked at once more, off the event path and many at a time: a
//! process that has ended costs nothing, one that lives a single `readlink`. What happens later is found by the snapshots.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The longest time between an announcement and the look: a program that removes itself as its first act and runs for a second
/// is caught.
const AFTER: Duration = Duration::from_millis(750);

/// Looks that are due within this time are taken together: at most four wake-ups a second, however many processes start.
const GATHER: Duration = Duration::from_millis(250);

/// Announcements that may wait: 10,000 a second, which no host reaches; 24 bytes each.
const WAITING: usize = 8192;

/// Who is to be looked at again.
#[derive(Default)]
pub(super) struct SecondLooks {
    waiting: VecDeque<(Instant, u32)>,
    /// Found no room; a snapshot looks at them.
    pub(super) shed: u64,
}

impl SecondLooks {
    pub(super) fn add(&mut self, pid: u32, now: Instant) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back((now, pid));
        } else {
            self.shed = self.shed.saturating_add(1);
        }
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(announced, _)| *announced + AFTER)
    }

    /// Whose turn it is, each once.
    pub(super) fn take(&mut self, now: Instant) -> Vec<u32> {
        let ripe = |(announced, _): &(Instant, u32)| now.duration_since(*announced) + GATHER >= AFTER;
        let count = self.waiting.partition_point(ripe);
        let mut pids: Vec<u32> = self.waiting.drain(..count).map(|(_, pid)| pid).collect();
        pids.sort_unstable();
        pids.dedup();
        if self.waiting.is_empty() {
            // A storm is over.
            self.waiting.shrink_to(64);
        }
        pids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_taken_together_each_process_once_and_not_before_their_time() {
        let (mut looks, start) = (SecondLooks::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(looks.due(), None);
        for (pid, ms) in [(7, 0), (8, 10), (7, 20), (9, 600)] {
            looks.add(pid, at(ms));
        }
        assert_eq!(looks.due(), Some(at(750)));
        assert_eq!(looks.take(at(499)), [0; 0]);
        assert_eq!(looks.take(at(750)), [7, 8]);
        assert_eq!((looks.due(), looks.take(at(1350))), (Some(at(1350)), vec![9]));
        assert_eq!(looks.due(), None);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut looks = SecondLooks::default();
        (0..10_000).for_each(|pid| looks.add(pid, Instant::now()));
        assert_eq!((looks.waiting.len(), looks.shed), (8192, 10_000 - 8192));
    }
}
