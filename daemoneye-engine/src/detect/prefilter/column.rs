//! The witnesses of one column, and which of them a value has.
//!
//! Values and base names are looked up by hash; needles are found by one automaton, all of them in one pass. What a value
//! has given is remembered: paths, users and parents come again and again.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use aho_corasick::Anchored;
use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use daemoneye_lib::path_test::base_of;
use foldhash::fast::RandomState;

use super::need::Witness;

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
    needles: Option<NFA>,
    /// By needle.
    witnesses: Box<[WitnessAt]>,
    texts: Box<[Box<str>]>,
    hasher: RandomState,
}

/// What a thread needs for asking, kept between batches.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    /// By needle: the last value that had it, so that a text full of one needle counts it once.
    stamps: Vec<u32>,
    stamp: u32,
    hits: Vec<WitnessAt>,
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
    /// `None` when an automaton of so many needles cannot be built.
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
        let patterns = texts.iter().map(|text| text.as_bytes());
        let needles =
            if texts.is_empty() { None } else { Some(NFA::builder().prefilter(false).build(patterns).ok()?) };
        let (witnesses, texts, hasher) = (witnesses.into(), texts.into(), RandomState::default());
        Some(Self { column, present, exact, bases, needles, witnesses, texts, hasher })
    }

    /// Size of the automaton in bytes.
    pub(super) fn automaton_bytes(&self) -> usize {
        self.needles.as_ref().map_or(0, aho_corasick::automaton::Automaton::memory_usage)
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
            self.find(folded().unwrap_or_default(), memory);
            return &memory.hits;
        }
        if memory.slots.is_empty() {
            memory.slots.resize_with(REMEMBERED, Slot::default);
        }
        let hash = self.hasher.hash_one(text);
        let place = usize::try_from(hash).unwrap_or_default() % REMEMBERED;
        let is_known = memory.slots.get(place).is_some_and(|slot| slot.holds(text));
        if !is_known {
            self.find(folded().unwrap_or_default(), memory);
            if let Some(slot) = memory.slots.get_mut(place)
                && std::mem::replace(&mut slot.passed, hash) == hash
            {
                slot.remember(text, &memory.hits, bytes);
            }
            return &memory.hits;
        }
        memory.slots.get(place).and_then(|slot| slot.known.as_ref()).map_or(&[], |known| &known.witnesses)
    }

    fn find(&self, folded: &str, memory: &mut Memory) {
        memory.hits.clear();
        memory.hits.extend(self.exact.get(folded));
        if !self.bases.is_empty() {
            memory.hits.extend(self.bases.get(base_of(folded)));
        }
        if let Some(needles) = &self.needles {
            self.find_needles(needles, folded, memory);
        }
    }

    fn find_needles(&self, needles: &NFA, folded: &str, memory: &mut Memory) {
        let Ok(mut state) = needles.start_state(Anchored::No) else { return };
        memory.next_stamp(self.witnesses.len());
        for byte in folded.bytes() {
            state = needles.next_state(Anchored::No, state, byte);
            if !needles.is_match(state) {
                continue;
            }
            for at in 0..needles.match_len(state) {
                let needle = needles.match_pattern(state, at).as_usize();
                if memory.is_new(needle) {
                    memory.hits.extend(self.witnesses.get(needle));
                }
            }
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

impl Memory {
    fn next_stamp(&mut self, needles: usize) {
        self.stamps.resize(needles, 0);
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
    }

    fn is_new(&mut self, needle: usize) -> bool {
        let stamp = self.stamp;
        self.stamps.get_mut(needle).is_some_and(|last| std::mem::replace(last, stamp) != stamp)
    }
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
