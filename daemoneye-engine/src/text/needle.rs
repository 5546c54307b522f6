//! One text that is looked for in others, in a few dozen bytes: a rule set has tens of thousands of them, and a searcher of `memchr`
//! has 288.
//!
//! Found are the places of the two bytes that the fewest texts have, and there the rest is compared. Of long needles and texts, and on other
//! processors, it is the places of one of the bytes; where that stands too often to be quick, the search goes on by an algorithm whose
//! time is linear.

use memchr::arch::all::packedpair::{HeuristicFrequencyRank, Pair};
use memchr::{memchr, memmem};

use super::letters::Letters;

/// Places at which the rest may differ before the other search is worth its preparation of some 100 ns.
const WRONG: usize = 16;
/// Longest needle that is looked for by two of its bytes, and longest text: what all places together can cost stays small.
const SHORT: usize = 64;
const LONG: usize = 4_096;

/// Bytes of paths and command lines, the most frequent first; small letters, as most texts are asked folded. `memchr`'s own table has
/// the separators of paths among the rarest.
const FREQUENT: &[u8] = b"\\/ e.stinrocamldpuw-hf:3\"2bgvyx1k0";

/// How frequent a byte is.
struct InPaths;

impl HeuristicFrequencyRank for InPaths {
    fn rank(&self, byte: u8) -> u8 {
        let place = FREQUENT.iter().position(|known| *known == byte.to_ascii_lowercase());
        place.and_then(|place| u8::try_from(place).ok()).map_or(0, |place| u8::MAX.saturating_sub(place))
    }
}

/// The text, and where its rarest bytes stand.
#[derive(Debug)]
pub(crate) struct Needle {
    text: Box<[u8]>,
    rarest: u8,
    second: u8,
    letters: Letters,
}

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        // `None` of one byte, or of none.
        let pair = Pair::with_ranker(text.as_bytes(), InPaths);
        let (rarest, second) = pair.map_or((0, 0), |pair| (pair.index1(), pair.index2()));
        Self { text: text.as_bytes().into(), rarest, second, letters: Letters::of(text.as_bytes()) }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether it can stand in a text of these letters.
    pub(super) const fn may_stand_in(&self, letters: Letters) -> bool {
        letters.may_hold(self.letters)
    }

    /// Where it stands first.
    pub(super) fn find(&self, text: &[u8]) -> Option<usize> {
        if self.text.len() > text.len() {
            return None;
        }
        by_pair(self, text).unwrap_or_else(|| self.find_by_rarest(text))
    }

    fn find_by_rarest(&self, text: &[u8]) -> Option<usize> {
        let (rarest, second) = (usize::from(self.rarest), usize::from(self.second));
        let (Some(rare), Some(other)) = (self.text.get(rarest), self.text.get(second)) else { return Some(0) };
        let last = text.len().checked_sub(self.text.len())?;
        let rares = text.get(..last.saturating_add(rarest).saturating_add(1))?;
        let (mut from, mut wrong) = (0_usize, 0_usize);
        while wrong < WRONG {
            let rest = rares.get(from.saturating_add(rarest)..)?;
            let start = from.saturating_add(memchr(*rare, rest)?);
            let stands = text.get(start..).filter(|text| text.get(second) == Some(other));
            if stands.is_some_and(|text| text.starts_with(&self.text)) {
                return Some(start);
            }
            from = start.saturating_add(1);
            wrong = wrong.saturating_add(1);
        }
        let found = memmem::find(text.get(from..)?, &self.text)?;
        Some(from.saturating_add(found))
    }
}

/// Looks for both bytes at sixteen places at once; `None`: not for such a needle or text.
#[cfg(target_arch = "x86_64")]
#[inline]
fn by_pair(needle: &Needle, text: &[u8]) -> Option<Option<usize>> {
    use memchr::arch::x86_64::sse2::packedpair::Finder;
    // Longer ones could make each place dear, and longer texts many places.
    if needle.text.len() > SHORT || text.len() > LONG {
        return None;
    }
    let pair = Pair::with_indices(&needle.text, needle.rarest, needle.second)?;
    let finder = Finder::with_pair(&needle.text, pair)?;
    (text.len() >= finder.min_haystack_len()).then(|| finder.find(text, &needle.text))
}

#[cfg(not(target_arch = "x86_64"))]
const fn by_pair(_: &Needle, _: &[u8]) -> Option<Option<usize>> {
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_found_behind_many_places_that_only_look_like_it() {
        let needle = Needle::new("aaaaaaab");
        let text = format!("{}aaaaaaab", "aaaaaab".repeat(5 * WRONG));
        assert_eq!(needle.find(text.as_bytes()), Some(35 * WRONG));
        assert_eq!(needle.find("aaaaaab".repeat(5 * WRONG).as_bytes()), None);
        assert_eq!(Needle::new("").find(b""), Some(0));
    }

    proptest! {
        #[test]
        fn it_is_found_where_the_text_has_it_first(needle in "[ab/]{0,5}", text in "[ab/é]{0,80}") {
            prop_assert_eq!(Needle::new(&needle).find(text.as_bytes()), text.find(&needle));
        }

        #[test]
        fn a_long_one_too(start in 0_usize..40, length in 0_usize..300, text in "[ab]{300,400}") {
            let needle: String = text.chars().skip(start).take(length).collect();
            prop_assert_eq!(Needle::new(&needle).find(text.as_bytes()), text.find(&needle));
        }
    }
}
