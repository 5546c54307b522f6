//! Several values of which a text has to hold one.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::needle::Needle;

/// Values up to this many are looked for one by one, each faster than an automaton walks the text.
const FEW: usize = 16;

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

    pub(super) fn stand_in(&self, text: &[u8]) -> bool {
        match &self.together {
            Some(together) => together.is_match(text),
            None => self.each.iter().any(|needle| needle.find(text).is_some()),
        }
    }
}
