//! Which rules can match which rows, found without evaluating a rule.
//!
//! Each rule is filed under witnesses of which one is on every row that it matches. The columns of a batch are looked up and
//! scanned for all witnesses of all rules at once; a rule is a candidate on the rows that have one of its own. A rule whose
//! condition has none is a candidate everywhere. Candidates are then evaluated, so this saves work and never decides.

mod column;
mod frequency;
mod need;
mod values;

use std::collections::BTreeMap;

use self::column::{ColumnIndex, Memory, RuleAt};
use self::need::{Need, Witness, when_true};
use super::matcher::Test;
use super::row::Columns;

/// Candidates are evaluated when there are this many: one megabyte, and many rows for each rule that is brought into the cache.
const AT_ONCE: usize = 128 * 1024;
/// Marks the end of a list of rows.
const END: u32 = u32::MAX;

/// The witnesses of one set of rules.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    columns: Vec<ColumnIndex>,
    /// Rules that are candidates on every row.
    open: Vec<RuleAt>,
    rules: usize,
}

/// The candidates of some rows, and what is remembered from rows before them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    memories: Vec<Memory>,
    /// By rule: the first of its rows in `rows`.
    heads: Vec<u32>,
    rows: Vec<Link>,
    /// The rules that have rows.
    touched: Vec<RuleAt>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    row: u32,
    next: u32,
}

impl Prefilter {
    /// Conditions in the order of the set's rules.
    pub(super) fn new<'a>(conditions: impl ExactSizeIterator<Item = &'a Test>) -> Self {
        let mut this = Self { rules: conditions.len(), ..Self::default() };
        let mut columns: BTreeMap<usize, BTreeMap<Witness, Vec<RuleAt>>> = BTreeMap::new();
        for (rule, condition) in (0..).zip(conditions) {
            match when_true(condition) {
                Need::Any(witnesses) => {
                    for witness in witnesses {
                        columns.entry(witness.column()).or_default().entry(witness).or_default().push(rule);
                    }
                }
                Need::Open => this.open.push(rule),
            }
        }
        for (column, witnesses) in columns {
            let all: Vec<RuleAt> = witnesses.values().flatten().copied().collect();
            match ColumnIndex::new(column, witnesses) {
                Some(index) => this.columns.push(index),
                None => this.open.extend(all),
            }
        }
        this.open.sort_unstable();
        this.open.dedup();
        this
    }

    /// Every rule on every row, for holding the other to.
    pub(super) fn open(rules: usize) -> Self {
        Self { columns: Vec::new(), open: (0..).take(rules).collect(), rules }
    }

    /// Size of the automata in bytes.
    pub(super) fn automata_bytes(&self) -> usize {
        self.columns.iter().map(ColumnIndex::automaton_bytes).sum()
    }

    /// Finds the candidates of rows from `first` on, in place of those found before, and tells the row that it stopped at.
    pub(super) fn find(&self, columns: &Columns<'_>, first: usize, candidates: &mut Candidates) -> usize {
        candidates.clear(self.rules, self.columns.len());
        let mut row = first;
        while row < columns.rows() && candidates.rows.len() < AT_ONCE {
            let Ok(at) = u32::try_from(row) else { break };
            candidates.push(&self.open, at);
            for (place, index) in self.columns.iter().enumerate() {
                candidates.look(place, index, columns, row, at);
            }
            row = row.saturating_add(1);
        }
        candidates.touched.sort_unstable();
        row
    }
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

    fn look(&mut self, place: usize, index: &ColumnIndex, columns: &Columns<'_>, row: usize, at: u32) {
        if index.reads_values() {
            let Some(text) = columns.text(index.column, row, false) else { return };
            let Some(memory) = self.memories.get_mut(place) else { return };
            let folded = || columns.text(index.column, row, true).and_then(|text| text.folded);
            let rules = index.rules_of(text.raw, folded, memory);
            push(&mut self.heads, &mut self.rows, &mut self.touched, rules, at);
        } else if columns.cell(index.column, row).is_none() {
            return;
        }
        self.push(&index.present, at);
    }

    fn push(&mut self, rules: &[RuleAt], row: u32) {
        push(&mut self.heads, &mut self.rows, &mut self.touched, rules, row);
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

fn push(heads: &mut [u32], rows: &mut Vec<Link>, touched: &mut Vec<RuleAt>, rules: &[RuleAt], row: u32) {
    for rule in rules {
        let Some(head) = heads.get_mut(usize::try_from(*rule).unwrap_or(usize::MAX)) else { continue };
        let last = usize::try_from(*head).ok().and_then(|head| rows.get(head));
        match last {
            Some(link) if link.row == row => continue,
            Some(_) => {}
            None => touched.push(*rule),
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
