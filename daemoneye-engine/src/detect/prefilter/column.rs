//! The witnesses of one column, and which of them a value has.
//!
//! Values and base names are looked up by hash; needles are found all of them in one pass. What a value
//! has given is remembered: paths, users and parents come again and again.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use daemoneye_lib::path_test::base_of;
use foldhash::fast::RandomState;

use super::need::Witness;
use super::needles::Needles;

/// Remembered values of one column. A busy host has some hundred paths and some thousand command lines.
const REMEMBERED: usize = 2_048;
/// Longest value that is remembered, in bytes: what is longer hardly comes again.
const REMEMBERED_BYTES: usize = 512;
/// What all columns remember together, in bytes: a busy host's paths and command lines several times over. What does not fit is
/// looked up each time.
pub(super) const ALL_REMEMBERED_BYTES: usize = 8 * 1024 * 1024;

/// The place of a witness in its set of rules.
pub(super) type WitnessAt = u32;

type Named = HashMap<Box<str>, WitnessAt, RandomState>;

/// Built once per set.
#[derive(Debug)]
pub(super) struct ColumnIndex {
    pub(super) column: usize,
    /// On every row where the column is not NULL.
    pub(super) present: Option<WitnessAt>,
    exact: Named,
    bases: Named,
    needles: Option<Needles>,
    /// By needle.
    witnesses: Box<[WitnessAt]>,
    texts: Box<[Box<str>]>,
    hasher: RandomState,
}

/// What a thread needs for asking, kept between batches.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    /// Of the last value that was looked at.
    found: Found,
}

/// Witnesses, each once, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    all: Vec<WitnessAt>,
    /// By witness, whether it is there: of ten thousand rules some kilobytes, which stay near the processor.
    bits: Vec<u64>,
}

/// A value is remembered when it comes a second time: most command lines never do, and would only push out those that do.
#[derive(Debug, Default)]
struct Slot {
    /// Hash of the last value that fell here and was not the remembered one.
    passed: u64,
    known: Option<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    text: Box<str>,
    witnesses: Box<[WitnessAt]>,
}

impl ColumnIndex {
    /// `None` when so many needles cannot be looked for.
    pub(super) fn new(column: usize, of: BTreeMap<&Witness, WitnessAt>) -> Option<Self> {
        let (mut present, mut exact, mut bases) = (None, Named::default(), Named::default());
        let (mut texts, mut witnesses) = (Vec::new(), Vec::new());
        for (witness, at) in of {
            match witness {
                Witness::Base(_, name) => drop(bases.insert(name.clone(), at)),
                Witness::Exact(_, text) => drop(exact.insert(text.clone(), at)),
                Witness::Needle(_, text) => {
                    texts.push(text.clone());
                    witnesses.push(at);
                }
                Witness::Present(_) => present = Some(at),
            }
        }
        let needles = if texts.is_empty() { None } else { Some(Needles::new(&texts)?) };
        let (witnesses, texts, hasher) = (witnesses.into(), texts.into(), RandomState::default());
        Some(Self { column, present, exact, bases, needles, witnesses, texts, hasher })
    }

    /// Size of what needles are found by, in bytes.
    pub(super) fn needle_bytes(&self) -> usize {
        self.needles.as_ref().map_or(0, Needles::bytes)
    }

    /// Everything that is looked for here.
    pub(super) fn witnesses(&self) -> impl Iterator<Item = (Witness, WitnessAt)> {
        let exact = self.exact.iter().map(|(text, at)| (Witness::Exact(self.column, text.clone()), *at));
        let bases = self.bases.iter().map(|(name, at)| (Witness::Base(self.column, name.clone()), *at));
        let needles = self.texts.iter().zip(&self.witnesses);
        let needles = needles.map(|(text, at)| (Witness::Needle(self.column, text.clone()), *at));
        let present = self.present.map(|at| (Witness::Present(self.column), at));
        present.into_iter().chain(exact).chain(bases).chain(needles)
    }

    /// Whether the values matter, or only that they are there.
    pub(super) fn reads_values(&self) -> bool {
        self.needles.is_some() || !self.exact.is_empty() || !self.bases.is_empty()
    }

    /// The witnesses that a value has, each once. `folded` is asked for when the value is not remembered; `bytes` is what all
    /// columns remember.
    pub(super) fn witnesses_of<'m>(
        &self,
        text: &str,
        folded: impl FnOnce() -> Option<&'m str>,
        memory: &'m mut Memory,
        bytes: &mut usize,
    ) -> &'m [WitnessAt] {
        if text.len() > REMEMBERED_BYTES {
            self.find(folded().unwrap_or_default(), &mut memory.found);
            return memory.found.all();
        }
        if memory.slots.is_empty() {
            memory.slots.resize_with(REMEMBERED, Slot::default);
        }
        let hash = self.hasher.hash_one(text);
        let place = usize::try_from(hash).unwrap_or_default() % REMEMBERED;
        let is_known = memory.slots.get(place).is_some_and(|slot| slot.holds(text));
        if !is_known {
            self.find(folded().unwrap_or_default(), &mut memory.found);
            if let Some(slot) = memory.slots.get_mut(place)
                && std::mem::replace(&mut slot.passed, hash) == hash
            {
                slot.remember(text, memory.found.all(), bytes);
            }
            return memory.found.all();
        }
        memory.slots.get(place).and_then(|slot| slot.known.as_ref()).map_or(&[], |known| &known.witnesses)
    }

    fn find(&self, folded: &str, found: &mut Found) {
        found.clear();
        self.exact.get(folded).into_iter().for_each(|at| found.add(*at));
        if !self.bases.is_empty() {
            self.bases.get(base_of(folded)).into_iter().for_each(|at| found.add(*at));
        }
        if let Some(needles) = &self.needles {
            needles.each(folded.as_bytes(), |needle| {
                self.witnesses.get(needle).into_iter().for_each(|at| found.add(*at))
            });
        }
    }
}

impl Slot {
    fn holds(&self, text: &str) -> bool {
        self.known.as_ref().is_some_and(|known| &*known.text == text)
    }

    fn remember(&mut self, text: &str, witnesses: &[WitnessAt], bytes: &mut usize) {
        let before = self.known.as_ref().map_or(0, Remembered::bytes);
        let known = Remembered { text: text.into(), witnesses: witnesses.into() };
        let after = bytes.saturating_sub(before).saturating_add(known.bytes());
        if after <= ALL_REMEMBERED_BYTES {
            *bytes = after;
            self.known = Some(known);
        }
    }
}

impl Remembered {
    fn bytes(&self) -> usize {
        self.text.len().saturating_add(size_of_val::<[WitnessAt]>(&self.witnesses))
    }
}

impl Found {
    pub(super) fn clear(&mut self) {
        for witness in self.all.drain(..) {
            if let Some(word) = self.bits.get_mut(word_of(witness)) {
                *word = 0;
            }
        }
    }

    pub(super) fn add(&mut self, witness: WitnessAt) {
        let word = word_of(witness);
        if word >= self.bits.len() {
            self.bits.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = self.bits.get_mut(word)
            && *word >> (witness % u64::BITS) & 1 == 0
        {
            *word |= 1 << (witness % u64::BITS);
            self.all.push(witness);
        }
    }

    pub(super) fn has(&self, witness: WitnessAt) -> bool {
        self.bits.get(word_of(witness)).is_some_and(|word| *word >> (witness % u64::BITS) & 1 != 0)
    }

    pub(super) fn all(&self) -> &[WitnessAt] {
        &self.all
    }
}

fn word_of(witness: WitnessAt) -> usize {
    usize::try_from(witness / u64::BITS).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_memory_is_found_all_the_same_and_not_remembered() {
        let needle = Witness::Needle(0, "ab".into());
        let index = ColumnIndex::new(0, BTreeMap::from([(&needle, 7)])).unwrap();
        for (mut bytes, grows) in [(0, 6 + 4), (ALL_REMEMBERED_BYTES - 9, 0)] {
            let (before, mut memory) = (bytes, Memory::default());
            for _ in 0..3 {
                assert_eq!(index.witnesses_of("x ab y", || Some("x ab y"), &mut memory, &mut bytes), [7]);
            }
            assert_eq!(bytes - before, grows);
        }
    }
}
