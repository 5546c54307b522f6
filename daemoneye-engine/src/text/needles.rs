//! Several values of which a text has to hold one.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::letters::Letters;
use super::needle::Needle;

/// Values up to this many are looked for one by one, each faster than an automaton walks the text.
const FEW: usize = 16;

/// Values up to this many are told by the letters of the text, where they are known, faster than an automaton walks it.
const MANY: usize = 64;
/// Fewer values are looked for in less time than the letters of the text are told.
const SEVERAL: usize = 3;

/// The values, each as it is looked for by itself.
#[derive(Debug)]
pub(crate) struct Needles {
    each: Box<[Needle]>,
    /// All of them in one walk over the text: a thousand walks would cost a rule its budget.
    together: Option<Box<AhoCorasick>>,
}

impl Needles {
    pub(super) fn new(each: Box<[Needle]>) -> Self {
        let together = (each.len() > FEW).then(|| {
            let values = each.iter().map(Needle::text);
            // Without an automaton, which only more than 2^31 states could prevent, they are looked for one by one.
            AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(values).ok()
        });
        Self { each, together: together.flatten().map(Box::new) }
    }

    /// Each value.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.each.iter().map(Needle::text)
    }

    pub(super) fn are_several(&self) -> bool {
        (SEVERAL..=MANY).contains(&self.each.len())
    }

    pub(super) fn stand_in(&self, text: &[u8], letters: Letters) -> bool {
        match &self.together {
            Some(together) if self.each.len() > MANY || !letters.is_known() => together.is_match(text),
            _ => self.each.iter().any(|needle| needle.may_stand_in(letters) && needle.find(text).is_some()),
        }
    }
}
