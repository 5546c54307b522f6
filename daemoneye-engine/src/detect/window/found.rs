//! What a rule has found already, so that the same events are one match: part of the memory that its rows count for.

use std::collections::HashMap;

/// What one of them counts for in bytes: its identity, its row and its share of the table.
const ENTRY_BYTES: usize = 64;

/// Identities of matches, each with the number of its latest row.
#[derive(Debug, Default)]
pub(super) struct Found(HashMap<u128, i64>);

impl Found {
    pub(super) fn bytes(&self) -> usize {
        self.0.len().saturating_mul(ENTRY_BYTES)
    }

    pub(super) fn contains(&self, identity: u128) -> bool {
        self.0.contains_key(&identity)
    }

    /// Those of rows before `first` cannot be found again.
    pub(super) fn forget_before(&mut self, first: i64) {
        self.0.retain(|_, latest| *latest >= first);
    }

    /// Adds one; false when there was no room, and the older half was forgotten: what of it is found again is folded by the
    /// alert's own deduplication.
    pub(super) fn add(&mut self, identity: u128, latest: i64, most_bytes: usize) -> bool {
        let fits = self.bytes().saturating_add(ENTRY_BYTES) <= most_bytes;
        if !fits {
            let mut rows: Vec<i64> = self.0.values().copied().collect();
            let middle = rows.len() / 2;
            if middle < rows.len() {
                let (_, middle, _) = rows.select_nth_unstable(middle);
                let middle = *middle;
                self.0.retain(|_, latest| *latest > middle);
            }
        }
        self.0.insert(identity, latest);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_the_older_half_is_forgotten_and_that_is_said() {
        let (mut found, room) = (Found::default(), 100 * ENTRY_BYTES);
        assert!((0..100).all(|at| found.add(at, i64::try_from(at).unwrap(), room)));
        assert!(!found.add(100, 100, room));
        assert!(!found.contains(50) && found.contains(51) && found.contains(100));
        assert!(found.bytes() <= room && found.add(101, 101, room));
    }
}
