//! The witnesses of one column, and which of them a value has.
//!
//! Values and base names are looked up by hash; needles are found all of them in one pass. What a value
//! has given is remembered: paths, users and parents come again and again.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::need::Witness;
use super::needles::Needles;
use super::values::with_separator;
use crate::detect::row::FoldedText;

/// Remembered values of one column. A busy host has some hundred paths and some thousand command lines.
const REMEMBERED: usize = 2_048;
/// Longest value that is remembered, in bytes: what is longer hardly comes again.
const REMEMBERED_BYTES: usize = 512;
/// What all columns remember together, in bytes: a busy host's paths and command lines several times over. What does not fit is
/// looked up each time.
pub(super) const ALL_REMEMBERED_BYTES: usize = 8 * 1024 * 1024;

/// Values of a column after which it is known whether remembering them is worth it: one in [`WORTH`] of them.
const ENOUGH: u32 = 2_048;
const WORTH: u32 = 8;
/// Where it is not, one value in so many is asked for, in case that changes.
const SAMPLE: u32 = 8;

/// Witnesses for which there is room from one block of rows to the next; what a few strange rows have more is given back.
const SEEN: usize = 16 * 1024;

/// Bits of one word.
const WORD: usize = 64;

/// Witnesses of a remembered value that are with it.
const FEW: usize = 3;
/// No witness: no set has so many.
const NONE: WitnessAt = WitnessAt::MAX;

/// The place of a witness in its set of rules.
pub(super) type WitnessAt = u32;

/// Texts by which something is found as a whole.
#[derive(Debug, Default)]
struct Named {
    by_text: HashMap<Box<str>, WitnessAt, RandomState>,
    /// A bit for each length that one has, the last one for all that are longer: a command line is hardly ever as long as a path that a
    /// rule asks for, and need not be hashed.
    lengths: u64,
}

/// Built once per set.
#[derive(Debug)]
pub(super) struct ColumnIndex {
    pub(super) column: usize,
    /// On every row where the column is not NULL.
    pub(super) present: Option<WitnessAt>,
    exact: Named,
    bases: Named,
    needles: Option<Needles>,
    texts: Box<[(Box<str>, WitnessAt)]>,
    hasher: RandomState,
}

/// What a thread needs for asking, kept between batches.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By hash: eight bytes, so that those of a column stay near the processor.
    slots: Vec<Slot>,
    /// What is remembered, in the order in which it came, so that a few hundred values lie together.
    known: Vec<Remembered>,
    /// Values that were asked for, and those of them that were remembered.
    asked: u32,
    known_again: u32,
    /// Hardly one of them was.
    is_new: bool,
    /// Values since one was asked for.
    passed_over: u32,
    /// Of the rows that are looked at, one behind the other; one may be there several times.
    seen: Vec<WitnessAt>,
    /// By row where its own end.
    ends: Vec<usize>,
}

/// Witnesses, each once, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The first `count` of them are found; there is room for every one and one more.
    all: Vec<WitnessAt>,
    count: usize,
    /// By witness, whether it is there: of ten thousand rules some kilobytes, which stay near the processor. The bit behind the last is
    /// always there: it stands for none.
    bits: Vec<u64>,
    of: WitnessAt,
}

/// A value is remembered when it comes a second time: most command lines never do, and would only push out those that do.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Of the remembered value's hash.
    tag: u32,
    /// Of the hash of the last value that fell here and was not the remembered one.
    passed: u16,
    /// Where the remembered one is among all, from one on; zero: none is.
    known: u16,
}

#[derive(Debug)]
struct Remembered {
    text: Box<str>,
    /// The first ones, here because most values have no more; the last one of them again where there are fewer.
    few: [WitnessAt; FEW],
    more: Box<[WitnessAt]>,
}

impl ColumnIndex {
    /// `None` when so many needles cannot be looked for.
    pub(super) fn new(column: usize, of: BTreeMap<&Witness, WitnessAt>) -> Option<Self> {
        let (mut present, mut exact, mut bases) = (None, Named::default(), Named::default());
        let mut texts = Vec::new();
        for (witness, at) in of {
            match witness {
                Witness::Base(_, name) => bases.insert(name, at),
                Witness::Exact(_, text) => exact.insert(text, at),
                Witness::Needle(_, text) => texts.push((text.clone(), at)),
                Witness::Present(_) => present = Some(at),
            }
        }
        let needles = if texts.is_empty() { None } else { Some(Needles::new(&texts)?) };
        Some(Self { column, present, exact, bases, needles, texts: texts.into(), hasher: RandomState::default() })
    }

    /// Size of what needles are found by, in bytes.
    pub(super) fn needle_bytes(&self) -> usize {
        self.needles.as_ref().map_or(0, Needles::bytes)
    }

    /// Everything that is looked for here.
    pub(super) fn witnesses(&self) -> impl Iterator<Item = (Witness, WitnessAt)> {
        let exact = self.exact.by_text.iter().map(|(text, at)| (Witness::Exact(self.column, text.clone()), *at));
        let bases = self.bases.by_text.iter().map(|(name, at)| (Witness::Base(self.column, name.clone()), *at));
        let needles = self.texts.iter().map(|(text, at)| (Witness::Needle(self.column, text.clone()), *at));
        let present = self.present.map(|at| (Witness::Present(self.column), at));
        present.into_iter().chain(exact).chain(bases).chain(needles)
    }

    /// Whether the values matter, or only that they are there.
    pub(super) fn reads_values(&self) -> bool {
        self.needles.is_some() || self.exact.lengths != 0 || self.bases.lengths != 0
    }

    /// Adds what is on every row where the column is not NULL.
    pub(super) fn there(&self, memory: &mut Memory) {
        memory.seen.extend(self.present);
    }

    /// Adds the witnesses that a value has. `folded` is asked for when the value is not remembered, and they are found in `found`, of so
    /// many; `bytes` is what all columns remember.
    pub(super) fn look<'m>(
        &self,
        text: &str,
        folded: impl FnOnce() -> Option<FoldedText<'m>>,
        memory: &mut Memory,
        (found, of): (&mut Found, WitnessAt),
        bytes: &mut usize,
    ) {
        self.there(memory);
        let find = || {
            found.clear(of);
            self.find(folded().unwrap_or_default(), found);
        };
        if text.len() > REMEMBERED_BYTES || memory.passes_over() {
            find();
            return memory.seen.extend(found.all());
        }
        if memory.slots.is_empty() {
            memory.slots.resize_with(REMEMBERED, Slot::default);
        }
        let hash = self.hasher.hash_one(text);
        let Memory { slots, known, seen, known_again, .. } = memory;
        let Some(slot) = slots.get_mut(usize::try_from(hash).unwrap_or_default() % REMEMBERED) else { return };
        let (tag, passed) = marks(hash);
        if slot.tag == tag
            && let Some(known) = slot.place().and_then(|at| known.get(at))
            && *known.text == *text
        {
            *known_again = known_again.wrapping_add(1);
            seen.extend(known.few);
            return seen.extend(&known.more);
        }
        find();
        if std::mem::replace(&mut slot.passed, passed) == passed {
            slot.remember(tag, Remembered::of(text, found.all()), known, bytes);
        }
        seen.extend(found.all());
    }

    fn find(&self, folded: FoldedText<'_>, found: &mut Found) {
        self.exact.get(folded.text).into_iter().for_each(|at| found.add(at));
        if self.bases.lengths != 0
            && let Some(base) = with_separator(folded.text)
        {
            self.bases.get(base).into_iter().for_each(|at| found.add(at));
        }
        if let Some(needles) = &self.needles {
            needles.each(folded.text.as_bytes(), folded.from, |at| found.add(at));
        }
    }
}

impl Named {
    fn insert(&mut self, text: &str, at: WitnessAt) {
        self.by_text.insert(text.into(), at);
        self.lengths |= Self::of_length(text);
    }

    fn get(&self, text: &str) -> Option<WitnessAt> {
        let has = self.lengths & Self::of_length(text) != 0;
        if has { self.by_text.get(text).copied() } else { None }
    }

    fn of_length(text: &str) -> u64 {
        1 << text.len().min(WORD.saturating_sub(1))
    }
}

impl Memory {
    /// Begins with other rows.
    pub(super) fn begin(&mut self) {
        if self.asked >= ENOUGH {
            self.is_new = self.known_again.saturating_mul(WORTH) < self.asked;
            (self.asked, self.known_again) = (0, 0);
        }
        self.seen.clear();
        self.seen.shrink_to(SEEN);
        self.ends.clear();
    }

    /// Whether the next value is not asked for, because hardly one of them comes again.
    fn passes_over(&mut self) -> bool {
        if self.is_new {
            self.passed_over = self.passed_over.wrapping_add(1);
            if !self.passed_over.is_multiple_of(SAMPLE) {
                return true;
            }
        }
        self.asked = self.asked.wrapping_add(1);
        false
    }

    /// The value is that of the row before.
    pub(super) fn again(&mut self) {
        if let Some(row) = self.ends.len().checked_sub(1) {
            let from = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            self.seen.extend_from_within(from.min(self.seen.len())..);
        }
    }

    /// Ends a row.
    pub(super) fn row(&mut self) {
        self.ends.push(self.seen.len());
    }

    /// What was seen on one of the rows.
    pub(super) fn of_row(&self, row: usize) -> &[WitnessAt] {
        let from = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(row).and_then(|end| self.seen.get(from..*end)).unwrap_or_default()
    }
}

/// What tells hashes apart that fall into one slot: of a remembered value, and of one that has come once.
fn marks(hash: u64) -> (u32, u16) {
    let [.., low, high, a, b, c, d] = hash.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([low, high]))
}

impl Slot {
    fn place(self) -> Option<usize> {
        usize::from(self.known).checked_sub(1)
    }

    fn remember(&mut self, tag: u32, fresh: Remembered, known: &mut Vec<Remembered>, bytes: &mut usize) {
        let old = self.place().and_then(|at| known.get_mut(at));
        let before = old.as_ref().map_or(0, |old| old.bytes());
        let after = bytes.saturating_sub(before).saturating_add(fresh.bytes());
        if after > ALL_REMEMBERED_BYTES {
            return;
        }
        match old {
            Some(old) => *old = fresh,
            None => {
                known.push(fresh);
                self.known = u16::try_from(known.len()).unwrap_or_default();
            }
        }
        (self.tag, *bytes) = (tag, after);
    }
}

impl Remembered {
    fn of(text: &str, witnesses: &[WitnessAt]) -> Self {
        let (few, more) = witnesses.split_at(witnesses.len().min(FEW));
        let few = std::array::from_fn(|at| few.get(at).or(few.last()).copied().unwrap_or(NONE));
        Self { text: text.into(), few, more: more.into() }
    }

    fn bytes(&self) -> usize {
        self.text.len().saturating_add(size_of_val::<[WitnessAt]>(&self.more))
    }
}

impl Found {
    /// None of so many witnesses.
    pub(super) fn clear(&mut self, of: WitnessAt) {
        for witness in self.all.iter().take(self.count) {
            if let Some(word) = self.bits.get_mut(word_of(*witness)) {
                *word = 0;
            }
        }
        self.count = 0;
        if self.of != of || self.bits.is_empty() {
            let places = usize::try_from(of).unwrap_or_default().saturating_add(1);
            self.of = of;
            self.all.resize(places, NONE);
            self.bits.clear();
            self.bits.resize(places.div_ceil(WORD), 0);
        }
        if let Some(word) = self.bits.get_mut(word_of(of)) {
            *word |= 1 << (of % u64::BITS);
        }
    }

    /// Written whether it is new or not: the processor cannot foresee which it is.
    pub(super) fn add(&mut self, witness: WitnessAt) {
        let witness = witness.min(self.of);
        if let (Some(word), Some(next)) = (self.bits.get_mut(word_of(witness)), self.all.get_mut(self.count)) {
            let before = *word;
            *word |= 1 << (witness % u64::BITS);
            *next = witness;
            self.count = self.count.wrapping_add(usize::from(*word != before));
        }
    }

    pub(super) fn has(&self, witness: WitnessAt) -> bool {
        self.has_any([witness])
    }

    /// Whether one of these is there. All are looked at: the processor cannot foresee which is.
    pub(super) fn has_any<const COUNT: usize>(&self, witnesses: [WitnessAt; COUNT]) -> bool {
        let bit = |at: WitnessAt| self.bits.get(word_of(at)).copied().unwrap_or_default() >> (at % u64::BITS) & 1;
        witnesses.into_iter().map(bit).fold(0, |any, bit| any | bit) != 0
    }

    pub(super) fn all(&self) -> &[WitnessAt] {
        self.all.get(..self.count).unwrap_or_default()
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
        for (mut bytes, grows) in [(0, 6), (ALL_REMEMBERED_BYTES - 5, 0)] {
            let (before, mut memory, mut found) = (bytes, Memory::default(), Found::default());
            for _ in 0..3 {
                memory.begin();
                index.look("x ab y", || Some("x ab y".into()), &mut memory, (&mut found, 8), &mut bytes);
                memory.row();
                assert!(memory.of_row(0).contains(&7) && memory.of_row(0).iter().all(|at| *at == 7));
            }
            assert_eq!(bytes - before, grows);
        }
    }

    #[test]
    fn a_column_of_new_values_is_sampled_until_they_come_again_and_finds_the_same() {
        let needle = Witness::Needle(0, "ab".into());
        let index = ColumnIndex::new(0, BTreeMap::from([(&needle, 0)])).unwrap();
        let (mut memory, mut found, mut bytes) = (Memory::default(), Found::default(), 0);
        let mut look = |text: &str, memory: &mut Memory| {
            memory.begin();
            index.look(text, || Some(text.into()), memory, (&mut found, 1), &mut bytes);
            memory.row();
            memory.again();
            memory.row();
            for row in 0..2 {
                assert_eq!(memory.of_row(row).contains(&0), text.contains("ab"), "{text} {row}");
            }
        };
        for at in 0..=ENOUGH {
            look(&format!("{at} {}", if at.is_multiple_of(3) { "ab" } else { "b" }), &mut memory);
        }
        assert!(memory.is_new);
        for at in 0..ENOUGH * SAMPLE * 2 {
            look(if at.is_multiple_of(2) { "x ab" } else { "x b" }, &mut memory);
        }
        assert!(!memory.is_new);
    }

    #[test]
    fn what_is_remembered_is_what_was_found_however_much() {
        let needles: Vec<Witness> = (0..5).map(|at| Witness::Needle(0, format!("n{at}").into())).collect();
        let index = ColumnIndex::new(0, needles.iter().zip(0..).collect()).unwrap();
        for text in ["", "n3", "n4 n0", "n0 n1 n2", "n4 n3 n2 n1 n0"] {
            let (mut memory, mut found, mut bytes) = (Memory::default(), Found::default(), 0);
            let expected: Vec<WitnessAt> = (0..5).filter(|at| text.contains(&format!("n{at}"))).collect();
            for _ in 0..3 {
                memory.begin();
                memory.row();
                index.look(text, || Some(text.into()), &mut memory, (&mut found, 5), &mut bytes);
                memory.row();
                let mut all: Vec<_> = memory.of_row(1).iter().copied().filter(|at| *at != NONE).collect();
                all.sort_unstable();
                all.dedup();
                assert!(all == expected && memory.of_row(0).is_empty(), "{text}");
            }
        }
    }
}
