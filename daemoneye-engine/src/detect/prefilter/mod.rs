//! Which rules can match which rows, found without evaluating a rule.
//!
//! Each rule is filed under witnesses of which one is on every row that it matches, each with further ones that are there with it.
//! The columns of a batch are looked up and scanned for all witnesses of all rules at once; a rule is a candidate on the rows
//! that have one of its own and what goes with it. A rule whose condition has none is a candidate everywhere. Candidates are then evaluated, so this saves work and never decides.

mod clue;
mod column;
mod frequency;
mod need;
mod needles;
mod paths;
mod values;
mod weights;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use self::clue::{Clue, Clues, MAX_FURTHER, when_true};
use self::column::{ColumnIndex, Found, Memory, WitnessAt};
use self::need::Witness;
pub(super) use self::paths::paths_when_true;
use self::weights::{Tally, Weights};
use super::matcher::Test;
use super::row::Columns;

/// Candidates are evaluated when there are this many: one megabyte, and many rows for each rule that is brought into the cache.
const AT_ONCE: usize = 128 * 1024;
/// One row in so many of a batch is counted: a prime, so that a beat in the events is not what is seen.
const COUNTED: u32 = 7;
/// Marks the end of a list of rows.
const END: u32 = u32::MAX;

/// No set of witnesses.
const NO_SET: u32 = u32::MAX;
/// Multiplies the place of a witness into a hash, whose upper bits are used: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Leaves as many of the upper bits as tell those of a [`Marks`] apart.
const MARKS_SHIFT: u32 = u64::BITS - Marks::BITS.ilog2();

/// The place of a rule in its set.
type RuleAt = u32;

/// The witnesses of one set of rules.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    columns: Vec<ColumnIndex>,
    /// Rules by witness: where those of each begin in `filed`, and one more.
    starts: Vec<u32>,
    filed: Vec<Filed>,
    /// Of each set of witnesses where it ends in `sets`.
    set_ends: Vec<u32>,
    sets: Vec<WitnessAt>,
    /// Rules that are candidates on every row.
    open: Vec<RuleAt>,
    rules: usize,
    /// By which witnesses were chosen.
    weights: Weights,
}

/// A rule under one of its witnesses, and the sets of which each has one on the row too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Filed {
    rule: RuleAt,
    sets: [u32; MAX_FURTHER],
    /// Of all witnesses of each set: a row with none of these marks has none of them, and nothing else need be looked at.
    marks: [Marks; MAX_FURTHER],
}

/// Some witnesses, a bit each; several may share one.
type Marks = u64;

/// The candidates of some rows, and what is remembered from rows before them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    memories: Vec<Memory>,
    remembered_bytes: usize,
    tally: Tally,
    row: Row,
    /// By rule: the first of its rows in `rows`.
    heads: Vec<u32>,
    rows: Vec<Link>,
    /// The rules that have rows.
    touched: Vec<RuleAt>,
}

/// What is remembered between batches. Who comes while another works with it begins with nothing.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Candidates>);

impl Kept {
    /// Hands over the candidates of every row, those of some rows at a time.
    pub(super) fn each(&self, prefilter: &Prefilter, columns: &Columns<'_>, mut take: impl FnMut(&Candidates)) {
        let mut fresh = Candidates::default();
        let mut kept = match self.0.try_lock() {
            Ok(kept) => Some(kept),
            // What a panic left is overwritten before it is read.
            Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => None,
        };
        let candidates = kept.as_deref_mut().unwrap_or(&mut fresh);
        let mut row = 0;
        while row < columns.rows() {
            let next = prefilter.find(columns, row, candidates);
            if next == row {
                break;
            }
            row = next;
            take(candidates);
        }
    }
}

/// The witnesses that one row has, and their marks.
#[derive(Debug, Default)]
struct Row {
    found: Found,
    marks: Marks,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    row: u32,
    next: u32,
}

impl Prefilter {
    /// Conditions in the order of the set's rules.
    pub(super) fn new<'a>(conditions: impl ExactSizeIterator<Item = &'a Test>) -> Self {
        Self::weighed(conditions, Weights::default())
    }

    fn weighed<'a>(conditions: impl ExactSizeIterator<Item = &'a Test>, weights: Weights) -> Self {
        let mut this = Self { rules: conditions.len(), weights, ..Self::default() };
        let mut clues: Vec<(RuleAt, Vec<Clue>)> = Vec::with_capacity(conditions.len());
        for (rule, condition) in (0..).zip(conditions) {
            match when_true(condition, &this.weights) {
                Clues::Any(of_rule) => clues.push((rule, of_rule)),
                Clues::Open => this.open.push(rule),
            }
        }
        let witnesses = this.index(clues.iter().flat_map(|(_, clues)| clues));
        let mut filing = Filing { filed: vec![Vec::new(); witnesses.len()], known: HashMap::new() };
        for (rule, clues) in &clues {
            this.file(*rule, clues, &witnesses, &mut filing);
        }
        for mut of_witness in filing.filed {
            this.starts.push(u32::try_from(this.filed.len()).unwrap_or(u32::MAX));
            of_witness.sort_unstable();
            of_witness.dedup();
            this.filed.append(&mut of_witness);
        }
        this.starts.push(u32::try_from(this.filed.len()).unwrap_or(u32::MAX));
        this.open.sort_unstable();
        this.open.dedup();
        this
    }

    /// Gives every witness its place and every column its index; those of a column that cannot have one have no place.
    fn index<'c>(&mut self, clues: impl Iterator<Item = &'c Clue>) -> HashMap<&'c Witness, WitnessAt> {
        let mut columns: BTreeMap<usize, BTreeMap<&Witness, WitnessAt>> = BTreeMap::new();
        for clue in clues {
            let further = clue.further.iter().flat_map(|further| further.witnesses.iter());
            for witness in std::iter::once(&clue.witness).chain(further) {
                columns.entry(witness.column()).or_default().entry(witness).or_default();
            }
        }
        let (mut places, mut next) = (HashMap::new(), 0);
        for (column, mut witnesses) in columns {
            let first = next;
            for at in witnesses.values_mut() {
                *at = next;
                next = next.saturating_add(1);
            }
            match ColumnIndex::new(column, witnesses.clone()) {
                Some(index) => {
                    self.columns.push(index);
                    places.extend(witnesses);
                }
                None => next = first,
            }
        }
        places
    }

    fn file<'c>(
        &mut self,
        rule: RuleAt,
        clues: &'c [Clue],
        witnesses: &HashMap<&Witness, WitnessAt>,
        filing: &mut Filing<'c>,
    ) {
        for clue in clues {
            let place = witnesses.get(&clue.witness).and_then(|at| usize::try_from(*at).ok());
            let Some(filed) = place.and_then(|place| filing.filed.get_mut(place)) else {
                self.open.push(rule);
                return;
            };
            let (mut sets, mut marks) = ([NO_SET; MAX_FURTHER], [Marks::MAX; MAX_FURTHER]);
            for ((set, marks), further) in sets.iter_mut().zip(&mut marks).zip(&clue.further) {
                let known = filing.known.entry(&further.witnesses);
                (*set, *marks) = *known.or_insert_with(|| {
                    let places = further.witnesses.iter().map(|witness| witnesses.get(witness).copied());
                    // What cannot be looked for rules nothing out.
                    places.collect::<Option<Vec<_>>>().map_or((NO_SET, Marks::MAX), |places| self.set(&places))
                });
            }
            filed.push(Filed { rule, sets, marks });
        }
    }

    /// The place of a new set of witnesses, and their marks.
    fn set(&mut self, witnesses: &[WitnessAt]) -> (u32, Marks) {
        let all = witnesses.iter().fold(0, |all, witness| all | mark(*witness));
        self.sets.extend(witnesses);
        self.set_ends.push(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        (u32::try_from(self.set_ends.len().saturating_sub(1)).unwrap_or(NO_SET), all)
    }

    /// Every rule on every row, for holding the other to.
    pub(super) fn open(rules: usize) -> Self {
        Self { open: (0..).take(rules).collect(), rules, ..Self::default() }
    }

    /// Size of what needles are found by, in bytes.
    pub(super) fn needle_bytes(&self) -> usize {
        self.columns.iter().map(ColumnIndex::needle_bytes).sum()
    }

    /// The same rules under what is rarest by what was counted since; `None` when nothing is far more frequent than it was
    /// taken for.
    pub(super) fn reweighed<'a>(
        &self,
        kept: &Kept,
        conditions: impl ExactSizeIterator<Item = &'a Test>,
    ) -> Option<Self> {
        let witnesses = self.columns.iter().flat_map(ColumnIndex::witnesses);
        let mut candidates = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let weights = candidates.tally.corrected(&self.weights, witnesses)?;
        drop(candidates);
        Some(Self::weighed(conditions, weights))
    }

    /// These rules by the weights of another set; `None` when it has none of its own.
    pub(super) fn weighed_as<'a>(other: &Self, conditions: impl ExactSizeIterator<Item = &'a Test>) -> Option<Self> {
        (!other.weights.is_empty()).then(|| Self::weighed(conditions, other.weights.clone()))
    }

    /// Finds the candidates of rows from `first` on, in place of those found before, and tells the row that it stopped at.
    pub(super) fn find(&self, columns: &Columns<'_>, first: usize, candidates: &mut Candidates) -> usize {
        candidates.clear(self.rules, self.columns.len());
        candidates.tally.begin(self.starts.len());
        let mut row = first;
        while row < columns.rows() && candidates.rows.len() < AT_ONCE {
            let Ok(at) = u32::try_from(row) else { break };
            push(&mut candidates.heads, &mut candidates.rows, &mut candidates.touched, self.open.iter().copied(), at);
            candidates.row.clear();
            for (place, index) in self.columns.iter().enumerate() {
                candidates.look(place, index, columns, row);
            }
            self.rules_of(candidates, at);
            row = row.saturating_add(1);
        }
        candidates.touched.sort_unstable();
        row
    }

    /// The rules that have a witness on the row, and what goes with it.
    fn rules_of(&self, candidates: &mut Candidates, at: u32) {
        let Candidates { row, heads, rows, touched, tally, .. } = candidates;
        if at.is_multiple_of(COUNTED) {
            tally.row(row.found.all());
        }
        for witness in row.found.all() {
            let marked =
                |filed: &&Filed| filed.marks.iter().all(|marks| *marks == Marks::MAX || marks & row.marks != 0);
            let filed = self.filed_under(*witness).iter().filter(marked);
            let there = filed.filter(|filed| filed.sets.iter().all(|set| *set == NO_SET || self.has_one(*set, row)));
            push(heads, rows, touched, there.map(|filed| filed.rule), at);
        }
    }

    fn filed_under(&self, witness: WitnessAt) -> &[Filed] {
        let witness = usize::try_from(witness).unwrap_or(usize::MAX);
        let Some([from, to]) = self.starts.get(witness..witness.saturating_add(2)) else { return &[] };
        let range = usize::try_from(*from).unwrap_or(usize::MAX)..usize::try_from(*to).unwrap_or_default();
        self.filed.get(range).unwrap_or_default()
    }

    fn has_one(&self, set: u32, row: &Row) -> bool {
        let set = usize::try_from(set).unwrap_or(usize::MAX);
        let end = |at: usize| self.set_ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or_default();
        let from = set.checked_sub(1).map_or(0, end);
        self.sets.get(from..end(set)).unwrap_or_default().iter().any(|witness| row.found.has(*witness))
    }
}

/// What is gathered while rules are filed.
struct Filing<'c> {
    filed: Vec<Vec<Filed>>,
    /// Sets that have a place.
    known: HashMap<&'c Arc<[Witness]>, (u32, Marks)>,
}

impl Row {
    fn clear(&mut self) {
        self.found.clear();
        self.marks = 0;
    }

    fn add(&mut self, witnesses: &[WitnessAt]) {
        for witness in witnesses {
            self.found.add(*witness);
            self.marks |= mark(*witness);
        }
    }
}

const fn mark(witness: WitnessAt) -> Marks {
    1 << ((witness as u64).wrapping_mul(SPREAD) >> MARKS_SHIFT)
}

impl Candidates {
    fn clear(&mut self, rules: usize, columns: usize) {
        for rule in self.touched.drain(..) {
            if let Some(head) = self.heads.get_mut(usize::try_from(rule).unwrap_or(usize::MAX)) {
                *head = END;
            }
        }
        self.rows.clear();
        self.heads.resize(rules, END);
        self.memories.resize_with(columns, Memory::default);
    }

    fn look(&mut self, place: usize, index: &ColumnIndex, columns: &Columns<'_>, row: usize) {
        if index.reads_values() {
            let Some(text) = columns.text(index.column, row, false) else { return };
            let Some(memory) = self.memories.get_mut(place) else { return };
            let folded = || columns.text(index.column, row, true).and_then(|text| text.folded);
            self.row.add(index.witnesses_of(text.raw, folded, memory, &mut self.remembered_bytes));
        } else if columns.cell(index.column, row).is_none() {
            return;
        }
        self.row.add(index.present.as_slice());
    }

    /// Rules on rows.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.rows.len()).unwrap_or(u64::MAX)
    }

    /// The rules that have rows, in order.
    pub(super) fn rules(&self) -> impl Iterator<Item = usize> {
        self.touched.iter().filter_map(|rule| usize::try_from(*rule).ok())
    }

    /// A rule's rows, the last one first.
    pub(super) fn rows(&self, rule: usize) -> impl Iterator<Item = usize> {
        let mut at = self.heads.get(rule).copied().unwrap_or(END);
        std::iter::from_fn(move || {
            let link = self.rows.get(usize::try_from(at).ok()?)?;
            at = link.next;
            usize::try_from(link.row).ok()
        })
    }
}

fn push(
    heads: &mut [u32],
    rows: &mut Vec<Link>,
    touched: &mut Vec<RuleAt>,
    rules: impl Iterator<Item = RuleAt>,
    row: u32,
) {
    for rule in rules {
        let Some(head) = heads.get_mut(usize::try_from(rule).unwrap_or(usize::MAX)) else { continue };
        let last = usize::try_from(*head).ok().and_then(|head| rows.get(head));
        match last {
            Some(link) if link.row == row => continue,
            Some(_) => {}
            None => touched.push(rule),
        }
        let Ok(next) = u32::try_from(rows.len()) else { return };
        rows.push(Link { row, next: *head });
        *head = next;
    }
}

impl Witness {
    const fn column(&self) -> usize {
        match self {
            Self::Base(column, _) | Self::Exact(column, _) | Self::Needle(column, _) | Self::Present(column) => {
                *column
            }
        }
    }
}
