//! All that a row must have for a condition to hold, as far as it is cheap to look at: of several clues one is there, each a
//! witness and further sets of which one witness is there with it.
//!
//! The first witness finds the row; the further ones save evaluating the rule where its other parts cannot hold.

use std::sync::Arc;

use super::need::{MAX_WITNESSES, Need, Witness, of_leaf};
use super::weights::Weights;
use crate::detect::matcher::{Comparison, Leaf, Test};

/// Most further sets of one clue: two more parts of an AND rule out nearly all that the first lets through.
const MAX_FURTHER: usize = 2;
/// Most witnesses of a further set: more are looked at for longer than an evaluation takes.
const MAX_SET: usize = 32;
/// A set that so many rows of a million have rules nothing out.
const TOO_COMMON: u64 = 500_000;

/// A set of which one witness is there, and the share of rows that have it, per million.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Further {
    cost: u64,
    pub(super) witnesses: Arc<[Witness]>,
}

/// One way for a condition to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clue {
    pub(super) witness: Witness,
    cost: u64,
    pub(super) further: Vec<Further>,
}

/// What a condition needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clues {
    /// One of these; none: it never holds.
    Any(Vec<Clue>),
    Open,
}

impl Clues {
    pub(super) fn of(need: Need, weights: &Weights) -> Self {
        match need {
            Need::Any(witnesses) => {
                let clue = |witness: Witness| Clue { cost: weights.cost(&witness), witness, further: Vec::new() };
                Self::Any(witnesses.into_iter().map(clue).collect())
            }
            Need::Open => Self::Open,
        }
    }

    /// Estimated share of rows that have one, per million.
    fn cost(&self) -> u64 {
        match self {
            Self::Any(clues) => clues.iter().map(|clue| clue.cost).fold(0, u64::saturating_add),
            Self::Open => u64::MAX,
        }
    }

    /// All hold: the rarest finds the row, and the next ones are there too.
    pub(super) fn all(parts: impl Iterator<Item = Self>) -> Self {
        let mut parts: Vec<(u64, Self)> = parts.map(|part| (part.cost(), part)).collect();
        parts.sort_by_key(|(cost, _)| *cost);
        let mut parts = parts.into_iter();
        let Some((_, Self::Any(mut clues))) = parts.next() else { return Self::Open };
        let further: Vec<Further> = parts.filter_map(|(cost, part)| part.further(cost)).take(MAX_FURTHER).collect();
        for clue in &mut clues {
            let fresh = further.iter().filter(|further| !further.witnesses.contains(&clue.witness));
            clue.further.extend(fresh.cloned());
            clue.further.sort_by_key(|further| further.cost);
            clue.further.truncate(MAX_FURTHER);
        }
        Self::Any(clues)
    }

    fn further(self, cost: u64) -> Option<Further> {
        let Self::Any(clues) = self else { return None };
        let is_useful = cost < TOO_COMMON && clues.len() <= MAX_SET;
        is_useful.then(|| Further { cost, witnesses: clues.into_iter().map(|clue| clue.witness).collect() })
    }

    /// One of them holds, and nobody knows which.
    fn any(parts: impl Iterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::Any(clues) => all.extend(clues),
                Self::Open => return Self::Open,
            }
        }
        if all.len() > MAX_WITNESSES { Self::Open } else { Self::Any(all) }
    }
}

/// What a row where the test holds must have.
pub(super) fn when_true(test: &Test, weights: &Weights) -> Clues {
    match test {
        Test::All(tests) => Clues::all(tests.iter().map(|test| when_true(test, weights))),
        Test::Always => Clues::Open,
        Test::Any(tests) => Clues::any(tests.iter().map(|test| when_true(test, weights))),
        Test::Leaf(leaf, wanted) => of_leaf(leaf, *wanted, weights),
        Test::Never => Clues::Any(Vec::new()),
        Test::Not(test) => when_false(test, weights),
    }
}

/// What a row where the test does not hold must have.
fn when_false(test: &Test, weights: &Weights) -> Clues {
    match test {
        Test::All(tests) => Clues::any(tests.iter().map(|test| when_false(test, weights))),
        Test::Always => Clues::Any(Vec::new()),
        Test::Any(tests) => Clues::all(tests.iter().map(|test| when_false(test, weights))),
        // NULL does not hold either, unless the leaf is never NULL.
        Test::Leaf(
            leaf @ (Leaf::Compare(_, Comparison::Distinct, _) | Leaf::Present(_) | Leaf::Strict(..)),
            wanted,
        ) => of_leaf(leaf, !wanted, weights),
        Test::Leaf(..) | Test::Never => Clues::Open,
        Test::Not(test) => when_true(test, weights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::prefilter::need::testing::{condition, place};

    #[test]
    fn the_other_parts_of_an_and_are_looked_for_where_the_first_is() {
        let held = "ci_contains(command_line, 'sekurlsa') AND ci_ends(executable_path, '\\cmd.exe', '\\powershell.exe') \
                    AND name = 'cmd.exe' AND pid > 4";
        let Clues::Any(clues) = when_true(&condition(held), &Weights::default()) else { panic!() };
        let [clue] = clues.as_slice() else { panic!("{clues:?}") };
        assert_eq!(clue.witness, Witness::Exact(place("name"), "cmd.exe".into()));
        let columns: Vec<_> =
            clue.further.iter().map(|set| (set.witnesses[0].column(), set.witnesses.len())).collect();
        assert_eq!(columns, [(place("command_line"), 1), (place("executable_path"), 2)]);
    }

    #[test]
    fn each_branch_of_an_or_has_its_own_and_what_a_negation_takes_out_is_none() {
        let held = "((ci_eq(name, 'aaaa') AND ci_eq(user, 'u')) OR ci_eq(name, 'bbbb')) AND NOT ci_eq(cwd, '/x') \
                    AND ci_contains(command_line, 'everyday') IS NOT TRUE";
        let Clues::Any(clues) = when_true(&condition(held), &Weights::default()) else { panic!() };
        assert_eq!(clues.iter().map(|clue| clue.further.len()).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn an_expression_and_a_pattern_have_all_their_runs() {
        for held in ["re_match(name, 'abcde[0-9]+sekurlsa')", "name ILIKE '%abcde%sekurlsa%'"] {
            let Clues::Any(clues) = when_true(&condition(held), &Weights::default()) else { panic!("{held}") };
            let [clue] = clues.as_slice() else { panic!("{clues:?}") };
            let needle = |text: &str| Witness::Needle(place("name"), text.into());
            assert_eq!(clue.witness, needle("sekurlsa"), "{held}");
            let further: Vec<_> = clue.further.iter().map(|set| set.witnesses.to_vec()).collect();
            assert_eq!(further, [vec![needle("abcde")]], "{held}");
        }
    }
}
