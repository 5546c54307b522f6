//! What the ledger is still to hear of what the log lost.
//!
//! Where the records stood is told as well: they may be covered by ranges already, and without that word whoever compares a store with
//! the ledger takes them for deleted.

use daemoneye_lib::proto::{CoverageGap, Sequence};

/// Stretches that are kept until the ledger takes them: a log loses its oldest records first, so that one follows the other and they
/// are put together. Of more only the number of records is kept.
const STRETCHES: usize = 4_096;

/// Losses by reason and stretch, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Losses(Vec<CoverageGap>);

impl Losses {
    pub(crate) fn add(&mut self, gap: CoverageGap) {
        let gap = CoverageGap { detail: String::new(), ..gap };
        if let Some(known) = self.0.iter_mut().find(|known| follows(known, &gap)) {
            known.count = Some(known.count.unwrap_or_default().saturating_add(gap.count.unwrap_or_default()));
            known.last = gap.last;
        } else if self.0.len() < STRETCHES || gap.first.is_none() {
            self.0.push(gap);
        } else {
            self.add(CoverageGap { first: None, last: None, ..gap });
        }
    }

    /// Takes a gap that a record of the log tells. One that was put together from several does not say what between them is still there.
    pub(crate) fn add_told(&mut self, gap: CoverageGap) {
        let is_whole = |(first, last): (Sequence, Sequence)| {
            let count = last.number.checked_sub(first.number).and_then(|count| count.checked_add(1));
            first.epoch == last.epoch && count == gap.count
        };
        if gap.first.zip(gap.last).is_some_and(is_whole) {
            self.add(gap);
        }
    }

    /// The first so many.
    pub(crate) fn first(&self, count: usize) -> &[CoverageGap] {
        self.0.get(..count.min(self.0.len())).unwrap_or_default()
    }

    pub(crate) fn remove_first(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }
}

impl IntoIterator for Losses {
    type Item = CoverageGap;
    type IntoIter = std::vec::IntoIter<CoverageGap>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

fn follows(known: &CoverageGap, gap: &CoverageGap) -> bool {
    let next = |last: Sequence| last.number.checked_add(1).map(|number| Sequence::new(last.epoch, number));
    // Neither has a place, or one begins where the other ends.
    let fits = if gap.first.is_none() { known.first.is_none() } else { known.last.and_then(next) == gap.first };
    known.reason == gap.reason && fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, last: u64) -> CoverageGap {
        let at = |number| Some(Sequence::new(1, number));
        let reason = "wal_bound".to_owned();
        CoverageGap {
            reason,
            count: Some(last - first + 1),
            first: at(first),
            last: at(last),
            ..CoverageGap::default()
        }
    }

    #[test]
    fn losses_that_follow_each_other_are_one_and_of_too_many_the_number_is_kept() {
        let mut losses = Losses::default();
        losses.add(gap(1, 4));
        losses.add(gap(5, 9));
        assert_eq!(losses.first(9), [gap(1, 9)]);
        for at in 1..=STRETCHES as u64 {
            losses.add(gap(at * 100, at * 100));
        }
        let kept = losses.first(usize::MAX);
        assert_eq!(kept.len(), STRETCHES + 1);
        assert_eq!(kept.last().map(|gap| (gap.count, gap.first)), Some((Some(1), None)));
        assert_eq!(kept.iter().filter_map(|gap| gap.count).sum::<u64>(), 9 + STRETCHES as u64);
        losses.remove_first(STRETCHES);
        assert_eq!(losses.first(9).len(), 1);
    }

    #[test]
    fn a_gap_that_was_put_together_excuses_nothing_between() {
        let mut losses = Losses::default();
        losses.add_told(CoverageGap { count: Some(2), ..gap(1, 9) });
        losses.add_told(CoverageGap { first: Some(Sequence::new(0, 1)), ..gap(1, 9) });
        assert_eq!(losses.first(9), []);
        losses.add_told(gap(1, 9));
        assert_eq!(losses.first(9), [gap(1, 9)]);
    }
}
