//! Several values of which a text has to hold one.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use memchr::memmem::Finder;

/// Values up to this many are looked for one by one, each faster than an automaton walks the text.
const FEW: usize = 16;

/// The values, each as it is looked for by itself.
#[derive(Debug)]
pub(crate) struct Needles {
    each: Box<[Finder<'static>]>,
    /// All of them in one walk over the text: a thousand walks would cost a rule its budget.
    together: Option<AhoCorasick>,
}

impl Needles {
    pub(super) fn new(each: Box<[Finder<'static>]>) -> Self {
        let together = (each.len() > FEW).then(|| {
            let values = each.iter().map(Finder::needle);
            // Without an automaton, which only more than 2^31 states could prevent, they are looked for one by one.
            AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(values).ok()
        });
        Self { each, together: together.flatten() }
    }

    /// Each value.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.each.iter().map(Finder::needle)
    }

    pub(super) fn stand_in(&self, text: &[u8]) -> bool {
        match &self.together {
            Some(together) => together.is_match(text),
            None => self.each.iter().any(|finder| finder.find(text).is_some()),
        }
    }
}
