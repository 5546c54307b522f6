//! What the previous scan saw, so that the next one reads little. Losing this table costs one scan of full reads, nothing
//! else; the truth about lifecycles is the tracker's.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::read::Glance;

/// Known processes read in full again per second of interval, in turn: at about 80 µs each this is under one percent of a
/// CPU, and 500 processes are all read within five seconds.
const REREADS_PER_SECOND: u64 = 100;

/// Re-reads per scan at the shortest intervals, so that the turn always comes round.
const REREADS_MIN: u64 = 16;

/// Re-reads per scan at the longest intervals, so that one scan stays under 50 ms of them.
const REREADS_MAX: u64 = 500;

/// Of every process, so in few bytes: of each number the lower half, which two processes of one pid do not share.
#[derive(Debug)]
struct Known {
    start_ticks: u32,
    /// Digest of what must not change without a full read.
    mark: u32,
    cpu_ticks: u32,
    cycle: u32,
}

impl Known {
    const fn of(glance: &Glance, cycle: u32) -> Self {
        let (start_ticks, mark, cpu_ticks) = (low(glance.start_ticks), low(glance.mark), low(glance.cpu_ticks));
        Self { start_ticks, mark, cpu_ticks, cycle }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
const fn low(number: u64) -> u32 {
    number as u32
}

#[derive(Debug, Default)]
pub(super) struct KnownProcesses {
    by_pid: HashMap<u32, Known>,
    cycle: u32,
    scanned: Option<Instant>,
    /// The last pid whose turn it was.
    turn: u32,
}

/// One walk over the process table.
#[derive(Debug)]
pub(super) struct Cycle {
    number: u32,
    elapsed: Option<Duration>,
    due: [Range<usize>; 2],
}

impl Cycle {
    /// Whether it is the turn of the process at this place of the list.
    pub(super) fn is_due(&self, at: usize) -> bool {
        self.due.iter().any(|range| range.contains(&at))
    }
}

impl KnownProcesses {
    /// Begins a walk over `pids`, which are in ascending order.
    pub(super) fn begin(&mut self, now: Instant, pids: &[u32]) -> Cycle {
        let elapsed = self.scanned.map(|before| now.saturating_duration_since(before));
        self.scanned = Some(now);
        self.cycle = self.cycle.saturating_add(1);
        let elapsed_ms = elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let budget = elapsed_ms.saturating_mul(REREADS_PER_SECOND).saturating_div(1000);
        let budget = usize::try_from(budget.clamp(REREADS_MIN, REREADS_MAX)).unwrap_or(usize::MAX);
        let first = pids.partition_point(|pid| *pid <= self.turn);
        let end = first.saturating_add(budget).min(pids.len());
        let wrapped = budget.saturating_sub(end.saturating_sub(first)).min(first);
        let last = if wrapped > 0 { wrapped } else { end };
        self.turn = last.checked_sub(1).and_then(|last| pids.get(last)).copied().unwrap_or(0);
        Cycle { number: self.cycle, elapsed, due: [first..end, 0..wrapped] }
    }

    /// Whether the process under this pid is known and nothing asks for a full read.
    pub(super) fn is_same(&self, pid: u32, glance: &Glance) -> bool {
        // An ended process has neither image nor owner any more; that is no change worth a read.
        self.by_pid.get(&pid).is_some_and(|known| {
            known.start_ticks == low(glance.start_ticks) && (glance.ended || known.mark == low(glance.mark))
        })
    }

    /// Percent of one CPU since the previous scan; `None` at the first sight of a process.
    pub(super) fn cpu_usage(&self, pid: u32, glance: &Glance, cycle: &Cycle, ticks_per_second: u64) -> Option<f64> {
        let known = self.by_pid.get(&pid).filter(|known| known.start_ticks == low(glance.start_ticks))?;
        let seconds = cycle.elapsed?.as_secs_f64();
        let ticks = low(glance.cpu_ticks).saturating_sub(known.cpu_ticks);
        let rate = f64::from(u32::try_from(ticks_per_second).unwrap_or(u32::MAX));
        (seconds > 0.0 && rate > 0.0).then(|| f64::from(ticks) / rate / seconds * 100.0)
    }

    pub(super) fn seen(&mut self, pid: u32, glance: &Glance, cycle: &Cycle) {
        if let Some(known) = self.by_pid.get_mut(&pid) {
            known.cycle = cycle.number;
            known.cpu_ticks = low(glance.cpu_ticks);
        }
    }

    pub(super) fn insert(&mut self, pid: u32, glance: &Glance, cycle: &Cycle) {
        self.by_pid.insert(pid, Known::of(glance, cycle.number));
    }

    /// Drops what this walk did not meet.
    pub(super) fn finish(&mut self, cycle: &Cycle) {
        self.by_pid.retain(|_, known| known.cycle == cycle.number);
    }

    pub(super) fn forget(&mut self, pids: &[u32]) {
        for pid in pids {
            self.by_pid.remove(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_of_every_process_comes_round() {
        let pids: Vec<u32> = (1..=50).map(|n| n * 3).collect();
        let mut known = KnownProcesses::default();
        let mut met = vec![0; pids.len()];
        for _ in 0..4 {
            let cycle = known.begin(Instant::now(), &pids);
            for (at, times) in met.iter_mut().enumerate() {
                *times += usize::from(cycle.is_due(at));
            }
        }
        assert!(met.iter().all(|times| *times >= 1), "{met:?}");
        assert_eq!(met.iter().sum::<usize>(), 64, "{met:?}");
    }

    #[test]
    fn a_short_list_is_due_as_a_whole_each_time() {
        let mut known = KnownProcesses::default();
        for _ in 0..5 {
            let cycle = known.begin(Instant::now(), &[5, 6, 7]);
            assert!((0..3).all(|at| cycle.is_due(at)));
        }
        assert!(!known.begin(Instant::now(), &[]).is_due(0));
    }
}
