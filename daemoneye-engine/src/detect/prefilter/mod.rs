//! Which rules can match which rows, found without evaluating a rule.
//!
//! Each rule is filed under witnesses of which one is on every row that it matches, each with further ones that are there with it.
//! The columns of a batch are looked up and scanned for all witnesses of all rules at once; a rule is a candidate on the rows
//! that have one of its own and what goes with it. A rule whose condition has none is a candidate everywhere. Candidates are then
//! evaluated, but for the parts that being one proves: so a needle, a value and a base name are there exactly where they are found.

mod bits;
mod clue;
mod column;
mod frequency;
mod need;
mod needles;
mod paths;
mod proof;
mod values;
mod weights;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use self::clue::{Clue, Clues, when_true};
use self::column::{ColumnIndex, Found, Memory, WitnessAt};
use self::need::Witness;
pub(super) use self::paths::paths_when_true;
use self::proof::Proof;
use self::weights::{Tally, Weights};
use super::matcher::Test;
use super::row::Columns;

/// Rows of which one column is looked at before the next: long enough that what one row waits for from memory another's work covers, and
/// short enough that their texts are still near when they are evaluated.
const BLOCK: usize = 256;
/// Candidates are evaluated when there are this many: one megabyte, and many rows for each rule that is brought into the cache.
const AT_ONCE: usize = 128 * 1024;
/// One row in so many of a batch is counted: a prime, so that a beat in the events is not what is seen.
const COUNTED: u32 = 7;
/// Marks the end of a list of rows.
const END: u32 = u32::MAX;

/// No set of witnesses.
const NO_SET: u32 = u32::MAX;
/// Witnesses that a filed rule names itself: most sets have no more.
const THERE: usize = 3;

/// The place of a rule in its set.
type RuleAt = u32;

/// The witnesses of one set of rules.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    columns: Vec<ColumnIndex>,
    /// How many there are. Those that rules are filed under come first.
    witnesses: WitnessAt,
    /// Rules by witness: where those of each begin in `filed`, and one more.
    starts: Vec<u32>,
    filed: Vec<Filed>,
    /// By filed rule: a set of witnesses of which one is on the row as well.
    seconds: Vec<u32>,
    /// Of each set of witnesses where it ends in `sets`.
    set_ends: Vec<u32>,
    sets: Vec<WitnessAt>,
    /// Rules that are candidates on every row.
    open: Vec<RuleAt>,
    rules: usize,
    /// By rule; behind the end nothing is proven.
    proofs: Vec<Proof>,
    /// By which witnesses were chosen.
    weights: Weights,
}

/// A rule under one of its witnesses, and others of which one is on the row too: that is looked at for each rule under each witness
/// of each row, so it is here and small. Where there are more of them the rule is filed several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Filed {
    rule: RuleAt,
    there: [WitnessAt; THERE],
}

/// The candidates of some rows, and what is remembered from rows before them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    memories: Vec<Memory>,
    remembered_bytes: usize,
    tally: Tally,
    /// Of the row that is looked at.
    found: Found,
    /// By rule: the first of its rows in `rows`.
    heads: Vec<u32>,
    rows: Vec<Link>,
    /// How many a row of the last block had: where they are many, blocks are so short that none is looked at in vain.
    a_row: usize,
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
        let mut filed = Vec::with_capacity(conditions.len());
        for (rule, condition) in (0..).zip(conditions) {
            match when_true(condition, &this.weights) {
                Clues::Any(of_rule) => {
                    clues.push((rule, of_rule));
                    filed.push(condition);
                }
                Clues::Open => this.open.push(rule),
            }
        }
        let (witnesses, finders) = this.index(&clues);
        let mut filing = Filing { filed: vec![Vec::new(); finders], known: HashMap::new() };
        for (rule, clues) in &clues {
            this.file(*rule, clues, &witnesses, &mut filing);
        }
        for mut of_witness in filing.filed {
            this.starts.push(u32::try_from(this.filed.len()).unwrap_or(u32::MAX));
            of_witness.sort_unstable();
            of_witness.dedup();
            this.filed.extend(of_witness.iter().map(|(filed, _)| *filed));
            this.seconds.extend(of_witness.iter().map(|(_, second)| *second));
        }
        this.starts.push(u32::try_from(this.filed.len()).unwrap_or(u32::MAX));
        this.open.sort_unstable();
        this.open.dedup();
        this.proofs.resize(this.rules, Proof::default());
        for ((rule, clues), condition) in clues.iter().zip(filed) {
            let proof = this.proofs.get_mut(place_of(*rule)).filter(|_| this.open.binary_search(rule).is_err());
            if let Some(proof) = proof {
                *proof = Proof::of(condition, clues, |witness| witnesses.contains_key(witness));
            }
        }
        this
    }

    /// Gives every witness its place and every column its index; those of a column that cannot have one have no place. Also tells
    /// how many rules may be filed under.
    fn index<'c>(&mut self, clues: &'c [(RuleAt, Vec<Clue>)]) -> (HashMap<&'c Witness, WitnessAt>, usize) {
        let mut columns: BTreeMap<usize, BTreeMap<&Witness, WitnessAt>> = BTreeMap::new();
        let (mut next, mut finders): (WitnessAt, WitnessAt) = (0, 0);
        let all = || clues.iter().flat_map(|(_, clues)| clues);
        let further = all().flat_map(|clue| &clue.further).flat_map(|further| further.witnesses.iter());
        let witnesses = all().map(|clue| (&clue.witness, true)).chain(further.map(|witness| (witness, false)));
        for (witness, finds) in witnesses {
            columns.entry(witness.column()).or_default().entry(witness).or_insert_with(|| {
                let at = next;
                next = next.saturating_add(1);
                at
            });
            if finds {
                finders = next;
            }
        }
        self.witnesses = next;
        let mut places = HashMap::new();
        for (column, witnesses) in columns {
            if let Some(index) = ColumnIndex::new(column, witnesses.clone()) {
                self.columns.push(index);
                places.extend(witnesses);
            }
        }
        (places, usize::try_from(finders).unwrap_or(usize::MAX))
    }

    fn file<'c>(
        &mut self,
        rule: RuleAt,
        clues: &'c [Clue],
        witnesses: &HashMap<&Witness, WitnessAt>,
        filing: &mut Filing<'c>,
    ) {
        for clue in clues {
            let place = witnesses.get(&clue.witness).copied();
            let filed = place.and_then(|at| Some((at, filing.filed.get_mut(usize::try_from(at).ok()?)?)));
            let Some((at, filed)) = filed else {
                self.open.push(rule);
                return;
            };
            // What cannot be looked for rules nothing out.
            let mut further = clue.further.iter().filter_map(|further| {
                let places = further.witnesses.iter().map(|witness| witnesses.get(witness).copied());
                Some((&further.witnesses, places.collect::<Option<Vec<_>>>()?))
            });
            let first = further.next().map_or_else(|| vec![at], |(_, places)| places);
            let second = further
                .next()
                .map_or(NO_SET, |(set, places)| *filing.known.entry(set).or_insert_with(|| self.set(&places)));
            for some in first.chunks(THERE) {
                let there = std::array::from_fn(|one| some.get(one).or(some.first()).copied().unwrap_or(at));
                filed.push((Filed { rule, there }, second));
            }
        }
    }

    /// The place of a new set of witnesses.
    fn set(&mut self, witnesses: &[WitnessAt]) -> u32 {
        self.sets.extend(witnesses);
        self.set_ends.push(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        u32::try_from(self.set_ends.len().saturating_sub(1)).unwrap_or(NO_SET)
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
        candidates.tally.begin(usize::try_from(self.witnesses).unwrap_or(usize::MAX));
        let mut row = first;
        while row < columns.rows() && candidates.rows.len() < AT_ONCE {
            let room = AT_ONCE.saturating_sub(candidates.rows.len());
            let length = room.checked_div(candidates.a_row).unwrap_or(BLOCK).clamp(1, BLOCK);
            let block = row..columns.rows().min(row.saturating_add(length));
            let before = candidates.rows.len();
            for (place, index) in self.columns.iter().enumerate() {
                candidates.look(place, index, columns, block.clone(), self.witnesses);
            }
            for in_block in 0..block.len() {
                let Ok(at) = u32::try_from(row) else { break };
                push(
                    &mut candidates.heads,
                    &mut candidates.rows,
                    &mut candidates.touched,
                    self.open.iter().copied(),
                    at,
                );
                candidates.gather(in_block, self.witnesses);
                self.rules_of(candidates, at);
                row = row.saturating_add(1);
                if candidates.rows.len() >= AT_ONCE {
                    break;
                }
            }
            let done = row.saturating_sub(block.start);
            if done == 0 {
                break;
            }
            candidates.a_row = candidates.rows.len().saturating_sub(before).div_ceil(done);
        }
        candidates.touched.sort_unstable();
        row
    }

    /// The rules that have a witness on the row, and what goes with it.
    fn rules_of(&self, candidates: &mut Candidates, at: u32) {
        let Candidates { found, heads, rows, touched, tally, .. } = candidates;
        if at.is_multiple_of(COUNTED) {
            tally.row(found.all());
        }
        for witness in found.all() {
            let filed = self.filed_under(*witness).filter(|(filed, _)| found.has_any(filed.there));
            let there = filed.filter(|(_, second)| *second == NO_SET || self.has_one(*second, found));
            push(heads, rows, touched, there.map(|(filed, _)| filed.rule), at);
        }
    }

    /// The parts of a rule's condition that hold on the rows of a batch where it is a candidate, as [`Test::holds_beside`] takes them.
    pub(super) fn proven(&self, rule: usize, columns: &Columns<'_>) -> u64 {
        self.proofs.get(rule).map_or(0, |proof| proof.parts(columns))
    }

    fn filed_under(&self, witness: WitnessAt) -> impl Iterator<Item = (&Filed, u32)> {
        let witness = usize::try_from(witness).unwrap_or(usize::MAX);
        let range = match self.starts.get(witness..witness.saturating_add(2)) {
            Some([from, to]) => usize::try_from(*from).unwrap_or(usize::MAX)..usize::try_from(*to).unwrap_or_default(),
            _ => 0..0,
        };
        let seconds = self.seconds.get(range.clone()).unwrap_or_default();
        self.filed.get(range).unwrap_or_default().iter().zip(seconds.iter().copied())
    }

    fn has_one(&self, set: u32, found: &Found) -> bool {
        let set = usize::try_from(set).unwrap_or(usize::MAX);
        let end = |at: usize| self.set_ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or_default();
        let from = set.checked_sub(1).map_or(0, end);
        self.sets.get(from..end(set)).unwrap_or_default().iter().any(|witness| found.has(*witness))
    }
}

/// What is gathered while rules are filed.
struct Filing<'c> {
    filed: Vec<Vec<(Filed, u32)>>,
    /// Sets that have a place.
    known: HashMap<&'c Arc<[Witness]>, u32>,
}

impl Candidates {
    fn clear(&mut self, rules: usize, columns: usize) {
        for rule in self.touched.drain(..) {
            if let Some(head) = self.heads.get_mut(place_of(rule)) {
                *head = END;
            }
        }
        self.rows.clear();
        self.heads.resize(rules, END);
        self.memories.resize_with(columns, Memory::default);
    }

    /// Looks at the values that one column has on some rows.
    fn look(&mut self, place: usize, index: &ColumnIndex, columns: &Columns<'_>, rows: Range<usize>, of: WitnessAt) {
        let Some(memory) = self.memories.get_mut(place) else { return };
        memory.begin();
        let mut last = None;
        for row in rows {
            if index.reads_values() {
                let text = columns.text(index.column, row, false).map(|text| text.raw);
                match text {
                    Some(text) if last == Some(text) => memory.again(),
                    Some(text) => {
                        let folded = || columns.folded(index.column, row);
                        index.look(text, folded, memory, (&mut self.found, of), &mut self.remembered_bytes);
                    }
                    None => {}
                }
                last = text;
            } else if columns.cell(index.column, row).is_some() {
                index.there(memory);
            }
            memory.row();
        }
    }

    /// All that was seen of one of those rows.
    fn gather(&mut self, row: usize, of: WitnessAt) {
        self.found.clear(of);
        for memory in &self.memories {
            memory.of_row(row).iter().for_each(|at| self.found.add(*at));
        }
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

fn place_of(rule: RuleAt) -> usize {
    usize::try_from(rule).unwrap_or(usize::MAX)
}

fn push(
    heads: &mut [u32],
    rows: &mut Vec<Link>,
    touched: &mut Vec<RuleAt>,
    rules: impl Iterator<Item = RuleAt>,
    row: u32,
) {
    for rule in rules {
        let Some(head) = heads.get_mut(place_of(rule)) else { continue };
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
