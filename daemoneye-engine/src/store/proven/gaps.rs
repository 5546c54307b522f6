//! Rows of coverage as entries tell of them.
//!
//! A row is known by its number and by what never changes of it, so that another one under a known number is another row.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;

use super::super::reason;
use super::facts::order;
use super::lots::{Lot, Lots};
use super::streams::place;

/// Rows that are not stored any more and are remembered one by one: some 20 MB, a month of one each minute. Of more, the older half is
/// put together.
const GONE: usize = 65_536;
/// Stretches of the numbers of those, and their kinds. Numbers follow each other, and there are some twenty kinds for each collector:
/// only forged rows have more. Of those that come then nobody knows whether retention took them.
const NUMBERS: usize = 65_536;
const KINDS: usize = 4_096;

/// What a row is known by, its number first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub(super) id: u64,
    from_us: i64,
    collector: String,
    reason: String,
}

impl RowKey {
    /// Of a row as the ledger has it.
    pub(super) fn of(row: &Value) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let (id, from_us) = (row.get("row")?.as_u64()?, row.get("from_us")?.as_i64()?);
        Some(Self { id, from_us, collector: text("collector")?, reason: text("reason")? })
    }

    /// The least one with this number.
    const fn least(id: u64) -> Self {
        Self { id, from_us: i64::MIN, collector: String::new(), reason: String::new() }
    }
}

/// A row as the last entry about it tells.
#[derive(Debug)]
pub(super) struct GapFact {
    pub(super) entry: Option<u64>,
    /// The first entry about it.
    pub(super) first: Option<u64>,
    /// `None`: it was not stored any more when it was told of first.
    pub(super) row: Option<Value>,
    /// When it ended: retention goes by that.
    pub(super) to_us: i64,
    /// What entries say that came while the store was looked at.
    pub(super) later: Vec<Value>,
    /// It was found in the store.
    pub(super) is_stored: Cell<bool>,
    /// When it was told of first, behind the beginning of the ledger, by the collector's clock.
    told_us: i64,
}

/// Rows that are gone, put together.
#[derive(Debug, Default)]
pub(super) struct Together {
    pub(super) lots: Lots,
    /// Their numbers: in order and apart.
    numbers: Vec<(u64, u64)>,
    /// The highest number of each kind.
    kinds: BTreeMap<(String, String), u64>,
}

impl Together {
    fn is_full(&self) -> bool {
        self.numbers.len() > NUMBERS || self.kinds.len() > KINDS
    }

    fn put(&mut self, rows: Vec<(RowKey, GapFact)>) {
        self.lots.put(rows.iter().map(|(_, fact)| Lot::one(order(fact.entry), fact.to_us, fact.to_us)));
        for (key, _) in rows {
            self.numbers.push((key.id, key.id));
            let newest = self.kinds.entry((key.collector, key.reason)).or_default();
            *newest = key.id.max(*newest);
        }
        self.numbers.sort_unstable();
        self.numbers.dedup_by(|next, before| {
            let follows = next.0 <= before.1.saturating_add(1);
            if follows {
                before.1 = next.1.max(before.1);
            }
            follows
        });
    }

    fn has_number(&self, id: u64) -> bool {
        let behind = self.numbers.partition_point(|(first, _)| *first <= id);
        behind.checked_sub(1).and_then(|at| self.numbers.get(at)).is_some_and(|(_, last)| id <= *last)
    }

    fn next(&self) -> u64 {
        self.numbers.last().map_or(0, |(_, last)| last.saturating_add(1))
    }

    /// Of what came behind `first_row` nobody asks, and then what came before it is not known.
    fn has_newer(&self, key: &RowKey, first_row: u64) -> bool {
        let newest = self.kinds.get(&(key.collector.clone(), key.reason.clone()));
        newest.is_some_and(|newest| *newest > key.id && *newest < first_row)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pub(super) facts: BTreeMap<RowKey, GapFact>,
    /// Rows of which an entry tells less than one before it, that entry and the one before, the first of them.
    pub(super) shrunk: Vec<(u64, Option<u64>, Option<u64>)>,
    pub(super) together: Together,
    gone: usize,
    /// Those that are not remembered.
    pub(super) forgotten: u64,
}

impl Gaps {
    /// Takes an entry. `told_us`: how long behind the beginning of the ledger, by the collector's clock; `is_late`: the store is being looked at; `is_there`: a row is stored.
    pub(super) fn tell(
        &mut self,
        entry: Option<u64>,
        row: Value,
        (told_us, is_late): (i64, bool),
        is_there: impl Fn((i64, u64)) -> bool,
    ) {
        let Some(key) = RowKey::of(&row) else { return };
        let to_us = ended_us(&row);
        let Some(fact) = self.facts.get_mut(&key) else {
            let row = is_there((key.from_us, key.id)).then_some(row);
            if row.is_none() && self.gone >= GONE && self.together.is_full() {
                self.forgotten = self.forgotten.saturating_add(1);
                return;
            }
            self.gone = self.gone.saturating_add(usize::from(row.is_none()));
            let is_stored = Cell::new(false);
            let fact = GapFact { entry, first: entry, row, to_us, later: Vec::new(), is_stored, told_us };
            self.facts.insert(key, fact);
            return;
        };
        fact.to_us = to_us;
        let Some(told) = fact.row.as_mut() else {
            fact.entry = entry;
            return;
        };
        // What waited when the store was looked at may have come into the ledger since.
        if is_late && (*told == row || fact.later.contains(&row)) {
            return;
        }
        if !may_become(fact.later.last().unwrap_or(told), &row) && self.shrunk.len() < super::LISTED {
            self.shrunk.push((key.id, entry, fact.entry));
        }
        if is_late {
            // More than come in that time.
            if fact.later.len() < super::LISTED {
                fact.later.push(row);
            }
        } else {
            (fact.entry, *told) = (entry, row);
        }
    }

    /// Puts the older half of those that are gone together when they are too many, but for the first that was made since `began_us`:
    /// what is older than the ledger is told by it.
    pub(super) fn bound(&mut self, began_us: i64) {
        if self.gone < GONE || self.together.is_full() {
            return;
        }
        let first = self.facts.keys().find(|key| key.from_us >= began_us);
        let all = self.facts.iter().filter(|(key, fact)| fact.row.is_none() && Some(*key) != first);
        let mut oldest: Vec<(u64, RowKey)> = all.map(|(key, fact)| (order(fact.entry), key.clone())).collect();
        oldest.sort_unstable();
        oldest.truncate(GONE / 2);
        self.gone = self.gone.saturating_sub(oldest.len());
        let take = |(_, key)| self.facts.remove_entry(&key);
        self.together.put(oldest.into_iter().filter_map(take).collect());
    }

    /// The number behind the last one that was told of.
    pub(super) fn next(&self) -> u64 {
        let next = self.facts.last_key_value().map_or(0, |(key, _)| key.id.saturating_add(1));
        next.max(self.together.next())
    }

    /// Whether a row of this number was told of, whatever it is about.
    pub(super) fn has_number(&self, id: u64) -> bool {
        let is_known = self.facts.range(RowKey::least(id)..).next().is_some_and(|(key, _)| key.id == id);
        is_known || self.together.has_number(id)
    }

    /// Whether a row that no entry tells of may be from before this ledger, which began at `began_us`: numbers are given once and grow,
    /// so it has a lesser one than every row that was made since, and it ended before the first of those was told of.
    pub(super) fn may_be_older(&self, key: &RowKey, to_us: i64, began_us: i64) -> bool {
        let made_since = self.facts.iter().find(|(known, _)| known.from_us >= began_us);
        let (first, behind_us) = made_since.map_or((u64::MAX, 0), |(known, fact)| (known.id, fact.told_us));
        let until_us = began_us.saturating_add(behind_us);
        key.id > 0 && key.id < first && to_us <= until_us && !self.has_number(key.id)
    }

    /// Whether a row is the newest of its kind among those that were told of before the number `first_row`.
    pub(super) fn is_newest(&self, key: &RowKey, first_row: u64) -> bool {
        let begin = key.id.saturating_add(1);
        let mut newer = self.facts.range(RowKey::least(begin)..RowKey::least(first_row.max(begin)));
        newer.all(|(newer, _)| (&newer.collector, &newer.reason) != (&key.collector, &key.reason))
            && !self.together.has_newer(key, first_row)
    }
}

/// When a row ended.
pub(super) fn ended_us(row: &Value) -> i64 {
    row.get("to_us").and_then(Value::as_i64).unwrap_or(i64::MAX)
}

/// Whether a row may have become the other while nobody told: the entry that said so was lost.
pub(super) fn grows(told: &Value, row: &Value) -> bool {
    let at = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).and_then(place);
    let same = |name: &str| told.get(name) == row.get(name);
    // A row about one file stands alone.
    let grows = row.get("reason").and_then(Value::as_str).is_some_and(|word| word != reason::SEGMENT_DAMAGED);
    grows
        && may_become(told, row)
        && (at(told, "first").is_none() || same("first"))
        && at(told, "last") <= at(row, "last")
}

/// Whether a row may have become the other by taking in more gaps.
pub(super) fn may_become(told: &Value, row: &Value) -> bool {
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_i64);
    let is_more = |name: &str| number(told, name) <= number(row, name);
    // Once a part of it was not counted, none of it is.
    let counts = row.get("count").is_some_and(Value::is_null) || number(told, "count").is_some() && is_more("count");
    RowKey::of(told) == RowKey::of(row) && told.get("detail") == row.get("detail") && is_more("to_us") && counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(id: u64, from_us: i64, to_us: i64) -> Value {
        json!({ "row": id, "collector": "c", "reason": "r", "from_us": from_us, "to_us": to_us, "count": 1, "detail": "" })
    }

    #[test]
    fn a_row_is_older_when_it_ended_before_and_has_a_lesser_number_than_all_that_were_made_since() {
        let mut gaps = Gaps::default();
        let tell = |gaps: &mut Gaps, row, told_us| gaps.tell(Some(1), row, (told_us, false), |_| true);
        // The ledger begins at 100. Row 3 is from before and grows.
        tell(&mut gaps, row(3, 50, 150), 50);
        tell(&mut gaps, row(9, 160, 170), 80);
        let is_older = |id, to_us| gaps.may_be_older(&RowKey::of(&row(id, 10, to_us)).unwrap(), to_us, 100);
        assert!(is_older(1, 20) && is_older(5, 20) && is_older(8, 180));
        assert!(!is_older(0, 20), "numbers begin at 1");
        assert!(!is_older(3, 20), "it is the number of another row");
        assert!(!is_older(10, 20) && !is_older(8, 181));
    }

    #[test]
    fn rows_that_are_gone_are_put_together_and_their_numbers_stay_known() {
        let mut gaps = Gaps::default();
        let many = GONE as u64 * 3;
        for id in 1..=many {
            gaps.bound(5);
            gaps.tell(Some(id), row(id, id.cast_signed(), id.cast_signed()), (1, false), |_| id == 9);
        }
        let together: u64 = gaps.together.lots.iter().map(|lot| lot.rows).sum();
        assert!(gaps.facts.len() <= GONE + 2 && gaps.facts.len() as u64 + together == many && gaps.forgotten == 0);
        // 9 is stored, and 5 is the first that was made since.
        assert_eq!(gaps.together.numbers.len(), 3);
        assert!((1..=many).all(|id| gaps.has_number(id)) && !gaps.has_number(0) && !gaps.has_number(many + 1));
        assert_eq!(gaps.next(), many + 1);
        let key = |id| RowKey::of(&row(id, 1, 1)).unwrap();
        assert!(!gaps.is_newest(&key(9), many + 1) && gaps.is_newest(&key(many), many + 1));
        assert!(!gaps.may_be_older(&key(9), 1, 5) && !gaps.may_be_older(&key(many + 1), 1, 5));
    }

    #[test]
    fn rows_with_numbers_that_nobody_gives_are_remembered_as_far_as_they_fit() {
        let mut gaps = Gaps::default();
        let many = (GONE + 2 * NUMBERS) as u64;
        for id in 1..=many {
            gaps.bound(0);
            gaps.tell(Some(id), row(id * 2, 1, 1), (1, false), |_| false);
        }
        let together: u64 = gaps.together.lots.iter().map(|lot| lot.rows).sum();
        assert!(gaps.facts.len() <= GONE && gaps.together.numbers.len() <= NUMBERS + GONE && gaps.forgotten > 0);
        assert_eq!(gaps.facts.len() as u64 + together + gaps.forgotten, many);
    }
}
