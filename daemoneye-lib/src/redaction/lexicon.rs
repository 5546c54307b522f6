//! The tables that the scan looks into: which three bytes end a name or begin a known shape, and what the programs are called.

use super::programs::{self, Programs};
use super::{names, shapes};

/// Sets of three bytes, five bits of each: upper and lower case fall together.
pub(super) struct Lexicon {
    pub(super) beginnings: Trigrams,
    pub(super) endings: Trigrams,
    pub(super) programs: Programs,
}

pub(super) struct Trigrams(Box<[u64]>);

impl Trigrams {
    fn of<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut bits = vec![0u64; 512].into_boxed_slice();
        for word in words {
            let hash = word.iter().fold(0, |hash, byte| pushed(hash, *byte));
            // A word of two bytes is met behind any other byte.
            let fronts = if word.len() < 3 { 0..32 } else { 0..1 };
            for front in fronts {
                let at = usize::from(hash | front << 10);
                if let Some(slot) = bits.get_mut(at / 64) {
                    *slot |= 1 << (at % 64);
                }
            }
        }
        Self(bits)
    }

    pub(super) fn has(&self, hash: u16) -> bool {
        let at = usize::from(hash);
        self.0.get(at / 64).is_some_and(|slot| slot >> (at % 64) & 1 == 1)
    }
}

pub(super) const fn pushed(hash: u16, byte: u8) -> u16 {
    (hash << 5 | (byte & 31) as u16) & 0x7fff
}

impl Lexicon {
    pub(super) fn new() -> Self {
        let beginnings = shapes::beginnings().chain(["://"]).map(|word| word.as_bytes().get(..3).unwrap_or_default());
        let endings = names::endings().chain(programs::names()).map(|word| {
            let bytes = word.as_bytes();
            bytes.get(bytes.len().saturating_sub(3)..).unwrap_or_default()
        });
        Self { beginnings: Trigrams::of(beginnings), endings: Trigrams::of(endings), programs: Programs::new() }
    }
}
