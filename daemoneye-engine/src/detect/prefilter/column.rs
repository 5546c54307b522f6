//! The witnesses of one column, and which rules each of them makes a candidate.
//!
//! Values and base names are looked up by hash; needles are found by one automaton, all of them in one pass. What a value
//! has given is remembered: paths, users and parents come again and again.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use aho_corasick::Anchored;
use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use foldhash::fast::RandomState;

use super::need::Witness;
use super::values::base_of;

/// Remembered values of one column. A busy host has some hundred paths and some thousand command lines.
const REMEMBERED: usize = 2_048;
/// Longest value that is remembered, in bytes: bounds the memory to a megabyte a column.
const REMEMBERED_BYTES: usize = 512;

/// The place of a rule in its set.
pub(super) type RuleAt = u32;

type Named = HashMap<Box<str>, Box<[RuleAt]>, RandomState>;

/// Built once per set.
#[derive(Debug)]
pub(super) struct ColumnIndex {
    pub(super) column: usize,
    /// Rules for every row where the column is not NULL.
    pub(super) present: Box<[RuleAt]>,
    exact: Named,
    bases: Named,
    needles: Option<NFA>,
    /// Rules by needle.
    rules: Box<[Box<[RuleAt]>]>,
    hasher: RandomState,
}

/// What a thread needs for asking, kept between batches.
#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    /// By needle: the last value that had it, so that a text full of one needle counts it once.
    stamps: Vec<u32>,
    stamp: u32,
    hits: Vec<RuleAt>,
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
    rules: Box<[RuleAt]>,
}

impl ColumnIndex {
    /// `None` when an automaton of so many needles cannot be built.
    pub(super) fn new(column: usize, witnesses: BTreeMap<Witness, Vec<RuleAt>>) -> Option<Self> {
        let (mut present, mut exact, mut bases) = (Box::default(), Named::default(), Named::default());
        let (mut needles, mut rules): (Vec<Box<str>>, Vec<Box<[RuleAt]>>) = Default::default();
        for (witness, of) in witnesses {
            match witness {
                Witness::Base(_, name) => drop(bases.insert(name, of.into())),
                Witness::Exact(_, text) => drop(exact.insert(text, of.into())),
                Witness::Needle(_, text) => {
                    needles.push(text);
                    rules.push(of.into());
                }
                Witness::Present(_) => present = of.into(),
            }
        }
        let patterns = needles.iter().map(|needle| needle.as_bytes());
        let needles =
            if needles.is_empty() { None } else { Some(NFA::builder().prefilter(false).build(patterns).ok()?) };
        Some(Self { column, present, exact, bases, needles, rules: rules.into(), hasher: RandomState::default() })
    }

    /// Size of the automaton in bytes.
    pub(super) fn automaton_bytes(&self) -> usize {
        self.needles.as_ref().map_or(0, aho_corasick::automaton::Automaton::memory_usage)
    }

    /// Whether the values matter, or only that they are there.
    pub(super) fn reads_values(&self) -> bool {
        self.needles.is_some() || !self.exact.is_empty() || !self.bases.is_empty()
    }

    /// The rules that a value makes candidates, each once. `folded` is asked for when the value is not remembered.
    pub(super) fn rules_of<'m>(
        &self,
        text: &str,
        folded: impl FnOnce() -> Option<&'m str>,
        memory: &'m mut Memory,
    ) -> &'m [RuleAt] {
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
            let Some(slot) = memory.slots.get_mut(place) else { return &memory.hits };
            if std::mem::replace(&mut slot.passed, hash) == hash {
                slot.known = Some(Remembered { text: text.into(), rules: memory.hits.as_slice().into() });
            }
            return &memory.hits;
        }
        memory.slots.get(place).and_then(|slot| slot.known.as_ref()).map_or(&[], |known| &known.rules)
    }

    fn find(&self, folded: &str, memory: &mut Memory) {
        memory.hits.clear();
        memory.hits.extend(self.exact.get(folded).into_iter().flatten());
        memory.hits.extend(self.bases.get(base_of(folded)).into_iter().flatten());
        if let Some(needles) = &self.needles {
            self.find_needles(needles, folded, memory);
        }
        memory.hits.sort_unstable();
        memory.hits.dedup();
    }

    fn find_needles(&self, needles: &NFA, folded: &str, memory: &mut Memory) {
        let Ok(mut state) = needles.start_state(Anchored::No) else { return };
        memory.next_stamp(self.rules.len());
        for byte in folded.bytes() {
            state = needles.next_state(Anchored::No, state, byte);
            if !needles.is_match(state) {
                continue;
            }
            for at in 0..needles.match_len(state) {
                let needle = needles.match_pattern(state, at).as_usize();
                if memory.is_new(needle) {
                    memory.hits.extend(self.rules.get(needle).into_iter().flatten());
                }
            }
        }
    }
}

impl Slot {
    fn holds(&self, text: &str) -> bool {
        self.known.as_ref().is_some_and(|known| &*known.text == text)
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
