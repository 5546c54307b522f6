//! Alerts and rows of coverage that are gone, put together where they are too many to be remembered one by one.
//!
//! Retention's word covers all that was told of before it and is older. So of those that the ledger told of one after the other the
//! newest word and the latest time are enough: what excuses these excuses each of them, and a host that removes for years stays proven.

/// Lots that are kept, some 4 MB; of more, each two become one.
const LOTS: usize = 65_536;
/// Rows of a lot at first. They lie side by side in the ledger, so they go at about one time.
const ROWS: u64 = 64;

/// Rows that the ledger told of one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lot {
    pub(super) rows: u64,
    /// The newest entry about any of them.
    pub(super) newest: u64,
    /// When any was seen last, or ended: retention goes by that.
    pub(super) seen_us: i64,
    /// When the latest was raised.
    pub(super) time_us: i64,
}

impl Lot {
    pub(super) const fn one(newest: u64, seen_us: i64, time_us: i64) -> Self {
        Self { rows: 1, newest, seen_us, time_us }
    }

    fn join(&mut self, more: Self) {
        self.rows = self.rows.saturating_add(more.rows);
        self.newest = self.newest.max(more.newest);
        self.seen_us = self.seen_us.max(more.seen_us);
        self.time_us = self.time_us.max(more.time_us);
    }
}

/// All of them, in the order of their entries.
#[derive(Debug)]
pub(super) struct Lots {
    lots: Vec<Lot>,
    /// Rows that one takes.
    most: u64,
}

impl Default for Lots {
    fn default() -> Self {
        Self { lots: Vec::new(), most: ROWS }
    }
}

impl Lots {
    /// Takes what the ledger told of, in its order.
    pub(super) fn put(&mut self, rows: impl IntoIterator<Item = Lot>) {
        for row in rows {
            match self.lots.last_mut() {
                Some(lot) if lot.rows < self.most => lot.join(row),
                _ => self.lots.push(row),
            }
            if self.lots.len() > LOTS {
                self.halve();
            }
        }
    }

    fn halve(&mut self) {
        self.most = self.most.saturating_mul(2);
        let all = std::mem::take(&mut self.lots);
        self.lots = all
            .chunks(2)
            .filter_map(|two| {
                let (first, rest) = two.split_first()?;
                let mut lot = *first;
                rest.iter().for_each(|more| lot.join(*more));
                Some(lot)
            })
            .collect();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.lots.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lot> {
        self.lots.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_rows_there_are_there_are_no_more_lots_than_fit_and_none_is_forgotten() {
        let mut lots = Lots::default();
        let rows = LOTS as u64 * ROWS * 3;
        lots.put((0..rows).map(|entry| Lot::one(entry, entry.cast_signed(), 7)));
        assert!(lots.lots.len() <= LOTS && lots.iter().map(|lot| lot.rows).sum::<u64>() == rows);
        assert!(lots.lots.is_sorted_by_key(|lot| lot.newest));
        assert_eq!(lots.lots.last().map(|lot| (lot.newest, lot.time_us)), Some((rows - 1, 7)));
    }
}
