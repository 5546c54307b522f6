//! What rules over several events have named already: many sets of events may end in the same one, and each is a match to them.

use std::collections::BTreeSet;

use uuid::Uuid;

/// Most that are remembered, some 16 MB: what is found lies near the end of what was read, so the oldest lines are forgotten.
const MOST: usize = 262_144;

/// Lines that were named, each with its rule.
#[derive(Debug, Default)]
pub(super) struct Printed {
    named: BTreeSet<(u64, Uuid)>,
    /// The youngest that was forgotten.
    forgotten: Option<(u64, Uuid)>,
    doubtful: u64,
}

impl Printed {
    /// Whether the rule has not named this line before, as far as that is known.
    pub(super) fn add(&mut self, line: u64, rule: Uuid) -> bool {
        self.add_within(MOST, (line, rule))
    }

    fn add_within(&mut self, most: usize, named: (u64, Uuid)) -> bool {
        if !self.named.insert(named) {
            return false;
        }
        if self.forgotten.is_some_and(|last| named <= last) {
            self.doubtful = self.doubtful.saturating_add(1);
        }
        if self.named.len() > most {
            self.forgotten = self.named.pop_first().max(self.forgotten);
        }
        true
    }

    /// How many were said to be new and may not be.
    pub(super) const fn doubtful(&self) -> u64 {
        self.doubtful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_named_once_by_each_rule_and_what_is_no_longer_known_is_counted() {
        let (mut printed, a, b) = (Printed::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        let mut add = |line, rule| printed.add_within(3, (line, rule));
        assert!(add(5, a) && add(5, b) && !add(5, a));
        assert!(add(7, a) && add(8, a), "the fourth: line 5 of a is forgotten");
        assert!(!add(5, b) && add(5, a), "it may have been named, and was");
        assert_eq!((printed.doubtful(), printed.named.len()), (1, 3));
    }
}
