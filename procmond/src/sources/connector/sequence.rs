//! What the kernel could not hand over, counted from the gaps of the sequence that each CPU keeps.
//!
//! A CPU's first message tells where its count stands, so a loss before it is not seen; a loss shows with the next message
//! of the same CPU.

/// CPUs that are kept apart: the largest count that a kernel can be built for.
const CPUS_MAX: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Sequences {
    next: Vec<Option<u32>>,
    lost: u64,
}

impl Sequences {
    /// Takes note of a message; returns whether some were lost before it.
    pub(super) fn take(&mut self, cpu: u32, sequence: u32) -> bool {
        let Ok(cpu) = usize::try_from(cpu) else { return false };
        if cpu >= CPUS_MAX {
            return false;
        }
        if self.next.len() <= cpu {
            self.next.resize(cpu.saturating_add(1), None);
        }
        let Some(next) = self.next.get_mut(cpu) else { return false };
        let missing = next.map_or(0, |next| sequence.wrapping_sub(next));
        *next = Some(sequence.wrapping_add(1));
        // Half the range back: the count began anew, as it does when the subscription of a kernel before 6.6 is reset.
        if missing > u32::MAX / 2 {
            return false;
        }
        self.lost = self.lost.saturating_add(u64::from(missing));
        missing > 0
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_for_each_cpu_alone_and_across_the_wrap() {
        let mut sequences = Sequences::default();
        assert!(!sequences.take(1, 40), "the first message of a CPU");
        assert!(!sequences.take(0, u32::MAX - 1));
        assert!(!sequences.take(1, 41));
        assert!(sequences.take(0, 2), "u32::MAX, 0 and 1 are missing");
        assert!(sequences.take(1, 45));
        assert_eq!(sequences.lost(), 6);
    }

    #[test]
    fn a_count_that_begins_anew_is_no_loss_and_no_cpu_number_makes_it_grow() {
        let mut sequences = Sequences::default();
        sequences.take(0, 1000);
        assert!(!sequences.take(0, 3));
        assert!(!sequences.take(u32::MAX, 7));
        assert_eq!((sequences.lost(), sequences.next.len()), (0, 1));
    }
}
