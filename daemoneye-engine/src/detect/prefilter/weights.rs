//! What is taken for the share of rows that have a witness: what this host was seen to have where that is far above the guess,
//! else the guess.
//!
//! It decides what is looked for and never what matches, so counting may lose some, and two sets with other weights find the same.

use std::collections::HashMap;

use super::column::WitnessAt;
use super::frequency::{MILLION, expected};
use super::need::Witness;

/// Rows after which a share is believed: what [`WORTH`] stands for is then on ten of them.
const ENOUGH_ROWS: u64 = 5_000;
/// So many times the share that was taken for true is no accident.
const FAR_ABOVE: u64 = 8;
/// Share of rows, per million, below which a witness costs less than choosing anew would save.
const WORTH: u64 = 2_000;
/// Most witnesses with a share of their own: more are not on so many rows of a host.
const MOST: usize = 4_096;

/// Shares of rows that were counted, per million.
#[derive(Debug, Clone, Default)]
pub(super) struct Weights(HashMap<Witness, u64>);

impl Weights {
    /// Share of rows that have it, per million.
    pub(super) fn cost(&self, witness: &Witness) -> u64 {
        self.0.get(witness).copied().unwrap_or_else(|| expected(witness))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what was counted of a witness when it is far above what was taken for true; whether it was.
    fn correct(&mut self, witness: Witness, share: u64) -> bool {
        let is_news = share >= WORTH && share >= self.cost(&witness).saturating_mul(FAR_ABOVE) && self.0.len() < MOST;
        if is_news {
            self.0.insert(witness, share);
        }
        is_news
    }
}

/// On how many rows the witnesses of a set were.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: u64,
    by_witness: Vec<u32>,
}

impl Tally {
    pub(super) fn begin(&mut self, witnesses: usize) {
        self.by_witness.resize(witnesses, 0);
    }

    pub(super) fn row(&mut self, witnesses: &[WitnessAt]) {
        self.rows = self.rows.saturating_add(1);
        for witness in witnesses {
            if let Some(count) = self.by_witness.get_mut(usize::try_from(*witness).unwrap_or(usize::MAX)) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// The weights as they should be after these rows; `None` while there are few, or when they are no surprise. Counting begins
    /// again.
    pub(super) fn corrected(
        &mut self,
        weights: &Weights,
        witnesses: impl Iterator<Item = (Witness, WitnessAt)>,
    ) -> Option<Weights> {
        if self.rows < ENOUGH_ROWS {
            return None;
        }
        let Self { rows, by_witness } = std::mem::take(self);
        let mut corrected = weights.clone();
        let mut is_news = false;
        for (witness, at) in witnesses {
            let count = u64::from(by_witness.get(usize::try_from(at).unwrap_or(usize::MAX)).copied().unwrap_or(0));
            let share = count.saturating_mul(MILLION).checked_div(rows).unwrap_or(0);
            is_news |= corrected.correct(witness, share);
        }
        is_news.then_some(corrected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_far_above_the_guess_is_taken_and_only_after_enough_rows() {
        let witness = |text: &str| Witness::Needle(0, text.into());
        let all = || ["unheard of", "ab", "seldom seen"].iter().map(|text| witness(text)).zip(0..);
        let mut tally = Tally::default();
        tally.begin(3);
        let mut weights = Weights::default();
        for row in 0..2 * ENOUGH_ROWS {
            assert!(row >= ENOUGH_ROWS || tally.corrected(&weights, all()).is_none());
            tally.row(if row % 1_000 == 0 { &[0, 1, 2] } else { &[0, 1] });
        }
        let guessed: Vec<u64> = all().map(|(witness, _)| weights.cost(&witness)).collect();
        weights = tally.corrected(&weights, all()).unwrap();
        let counted: Vec<u64> = all().map(|(witness, _)| weights.cost(&witness)).collect();
        assert_eq!(counted, [MILLION, guessed[1], guessed[2]], "the second is common anyway, the third rare enough");
        for _ in 0..ENOUGH_ROWS {
            tally.begin(3);
            tally.row(&[0]);
        }
        assert!(tally.corrected(&weights, all()).is_none(), "it is no surprise any more");
    }
}
