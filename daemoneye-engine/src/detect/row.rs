//! The columns of one batch, each brought to its type once, so that no rule pays for it per row.

use std::borrow::Cow;
use std::cell::{Cell as Shared, OnceCell};
use std::sync::LazyLock;

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use datafusion::arrow::array::{
    Array, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use crate::text::{Letters, Text, push_folded};

pub(super) static START_KIND: LazyLock<usize> = LazyLock::new(|| place_of("start_kind"));
static TIME: LazyLock<usize> = LazyLock::new(|| place_of("time"));

/// A column's place in the table; behind its end, which reads as NULL, for one that is not there.
fn place_of(name: &str) -> usize {
    PROCESS_EVENTS.iter().position(|column| column.name == name).unwrap_or(usize::MAX)
}

/// One value that is not NULL.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Blob(&'a [u8]),
    Boolean(bool),
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    /// Microseconds since the Unix epoch.
    Timestamp(i64),
}

enum Typed<'a> {
    Blob(&'a BinaryArray),
    Boolean(&'a BooleanArray),
    Integer(&'a Int64Array),
    /// The batch has no such column, or one of another type; reads as NULL.
    Missing,
    Real(&'a Float64Array),
    Text(&'a StringArray),
    Timestamp(&'a TimestampMicrosecondArray),
}

/// A batch as the matcher sees it: columns by their place in [`PROCESS_EVENTS`].
pub(super) struct Columns<'a> {
    columns: Vec<Typed<'a>>,
    /// The text columns with their case folded, each when it is first asked for.
    folded: Vec<OnceCell<Folded>>,
    /// Whether a text column is ASCII and nothing else, each when it is first asked for.
    ascii: Vec<OnceCell<bool>>,
    /// By text column and row the letters of the text, each when it is first asked for.
    letters: Vec<OnceCell<Box<[Shared<Letters>]>>>,
    /// The bare forks, which most rules do not see.
    forks: Vec<bool>,
    rows: usize,
    lacks_some: bool,
    /// Results that did not fit, over all rules so far.
    overflows: Shared<u64>,
}

/// The texts of one column behind each other.
struct Folded {
    text: String,
    /// Where each row's text begins, and one more; `None`: where it begins in the column.
    starts: Option<Box<[i32]>>,
}

/// The folded text of one row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FoldedText<'a> {
    pub(super) text: &'a str,
    /// It and what lies behind it, which is nobody's.
    pub(super) from: &'a [u8],
}

impl<'a> From<&'a str> for FoldedText<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, from: text.as_bytes() }
    }
}

impl<'a> Columns<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        let schema = batch.schema_ref();
        let columns = PROCESS_EVENTS.iter().enumerate().map(|(at, column)| {
            // Batches come in table order, so the search by name is for foreign ones only.
            let found = match schema.fields().get(at) {
                Some(field) if field.name() == column.name => Some(at),
                _ => schema.index_of(column.name).ok(),
            };
            found.and_then(|at| batch.columns().get(at)).map_or(Typed::Missing, |array| typed(array, column.kind))
        });
        let columns: Vec<_> = columns.collect();
        let folded = columns.iter().map(|_| OnceCell::new()).collect();
        let letters = columns.iter().map(|_| OnceCell::new()).collect();
        let ascii = columns.iter().map(|_| OnceCell::new()).collect();
        let lacks_some = columns.iter().any(|column| matches!(column, Typed::Missing));
        let mut this = Self {
            lacks_some,
            columns,
            folded,
            ascii,
            letters,
            forks: Vec::new(),
            rows: batch.num_rows(),
            overflows: 0.into(),
        };
        if let Some(Typed::Text(kinds)) = this.columns.get(*START_KIND) {
            this.forks = kinds.iter().map(|kind| kind == Some("fork")).collect();
        }
        this
    }

    pub(super) fn is_fork(&self, row: usize) -> bool {
        self.forks.get(row).copied().unwrap_or(false)
    }

    /// Event time of a row, µs since the Unix epoch.
    pub(super) fn time(&self, row: usize) -> Option<i64> {
        match self.cell(*TIME, row)? {
            Cell::Timestamp(time) => Some(time),
            _ => None,
        }
    }

    pub(super) const fn overflows(&self) -> u64 {
        self.overflows.get()
    }

    /// What does not fit is NULL and counted: a query fails there, and a rule must not fail for the whole batch.
    pub(super) fn fitting(&self, result: Option<i64>) -> Option<Cell<'a>> {
        if result.is_none() {
            self.overflows.set(self.overflows.get().saturating_add(1));
        }
        result.map(Cell::Integer)
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the batch has less than the column table.
    pub(super) const fn lacks_some(&self) -> bool {
        self.lacks_some
    }

    pub(super) fn has(&self, column: usize) -> bool {
        self.columns.get(column).is_some_and(|typed| !matches!(typed, Typed::Missing))
    }

    /// The text of a text column, `None` for NULL; with `fold` also its folded form.
    pub(super) fn text(&self, column: usize, row: usize, fold: bool) -> Option<Text<'_>> {
        let Typed::Text(array) = self.columns.get(column)? else { return None };
        present(*array, row).then(|| Text {
            raw: array.value(row),
            folded: if fold {
                self.folded.get(column).and_then(|cell| cell.get_or_init(|| folded(array)).row(array, row))
            } else {
                None
            },
            letters: Letters::UNKNOWN,
        })
    }

    /// The letters of a text, as far as they are known; where it is given it is looked at.
    pub(super) fn letters(&self, column: usize, row: usize, text: Option<&str>) -> Letters {
        let Some(known) = self.letters.get(column) else { return Letters::UNKNOWN };
        let Some(text) = text else {
            return known.get().and_then(|rows| rows.get(row)).map_or(Letters::UNKNOWN, Shared::get);
        };
        let rows = known.get_or_init(|| vec![Shared::new(Letters::UNKNOWN); self.rows].into());
        let Some(letters) = rows.get(row) else { return Letters::UNKNOWN };
        if !letters.get().is_known() {
            letters.set(Letters::of(text.as_bytes()));
        }
        letters.get()
    }

    /// The folded text of a text column that is not NULL there.
    pub(super) fn folded(&self, column: usize, row: usize) -> Option<FoldedText<'_>> {
        let Typed::Text(array) = self.columns.get(column)? else { return None };
        let folded = self.folded.get(column)?.get_or_init(|| folded(array));
        let from = folded.text.as_bytes().get(folded.start(array, row)?..)?;
        Some(FoldedText { text: folded.row(array, row)?, from })
    }

    /// Whether all texts of a text column are ASCII, where all ways to fold case are one.
    pub(super) fn is_ascii(&self, column: usize) -> bool {
        let (Some(Typed::Text(array)), Some(ascii)) = (self.columns.get(column), self.ascii.get(column)) else {
            return false;
        };
        *ascii.get_or_init(|| texts(array).is_some_and(<[u8]>::is_ascii))
    }

    /// The value, or `None` for NULL.
    pub(super) fn cell(&self, column: usize, row: usize) -> Option<Cell<'a>> {
        match self.columns.get(column)? {
            Typed::Blob(array) => present(*array, row).then(|| Cell::Blob(array.value(row))),
            Typed::Boolean(array) => present(*array, row).then(|| Cell::Boolean(array.value(row))),
            Typed::Integer(array) => present(*array, row).then(|| Cell::Integer(array.value(row))),
            Typed::Missing => None,
            Typed::Real(array) => present(*array, row).then(|| Cell::Real(array.value(row))),
            Typed::Text(array) => present(*array, row).then(|| Cell::Text(Cow::Borrowed(array.value(row)))),
            Typed::Timestamp(array) => present(*array, row).then(|| Cell::Timestamp(array.value(row))),
        }
    }
}

impl Folded {
    fn row(&self, array: &StringArray, row: usize) -> Option<&str> {
        self.text.get(self.start(array, row)?..self.start(array, row.checked_add(1)?)?)
    }

    fn start(&self, array: &StringArray, row: usize) -> Option<usize> {
        let starts = self.starts.as_deref().unwrap_or_else(|| array.value_offsets());
        usize::try_from(starts.get(row)?.checked_sub(*starts.first()?)?).ok()
    }
}

fn folded(array: &StringArray) -> Folded {
    folded_at_once(array).unwrap_or_else(|| folded_each(array))
}

/// The texts of a column as they lie behind each other.
fn texts(array: &StringArray) -> Option<&[u8]> {
    let [first, last] = [array.value_offsets().first()?, array.value_offsets().last()?];
    array.value_data().get(usize::try_from(*first).ok()?..usize::try_from(*last).ok()?)
}

/// Of a column that is all ASCII, which nearly every one is, the texts lie behind each other already.
fn folded_at_once(array: &StringArray) -> Option<Folded> {
    let text = texts(array).filter(|text| text.is_ascii())?;
    let text = String::from_utf8(text.to_ascii_lowercase()).ok()?;
    Some(Folded { text, starts: None })
}

fn folded_each(array: &StringArray) -> Folded {
    let (mut all, mut starts) = (String::with_capacity(array.value_data().len()), vec![0]);
    for text in array {
        push_folded(&mut all, text.unwrap_or_default());
        // Folded text is never longer than it was, and that fitted.
        starts.push(i32::try_from(all.len()).unwrap_or(i32::MAX));
    }
    Folded { text: all, starts: Some(starts.into()) }
}

/// Also guards `value`, which panics behind the end.
fn present(array: &impl Array, row: usize) -> bool {
    row < array.len() && !array.is_null(row)
}

fn typed(array: &dyn Array, kind: Kind) -> Typed<'_> {
    let any = array.as_any();
    let typed = match kind {
        Kind::Blob => any.downcast_ref().map(Typed::Blob),
        Kind::Boolean => any.downcast_ref().map(Typed::Boolean),
        Kind::Integer => any.downcast_ref().map(Typed::Integer),
        Kind::Real => any.downcast_ref().map(Typed::Real),
        Kind::Text => any.downcast_ref().map(Typed::Text),
        Kind::Timestamp => any.downcast_ref().map(Typed::Timestamp),
    };
    typed.unwrap_or(Typed::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_folded_at_once_as_each_of_its_texts_is() {
        let ascii = StringArray::from(vec![Some("AbC"), None, Some(""), Some("/X/y Z")]);
        let other = StringArray::from(vec![Some("É\u{212a}"), None, Some("aB")]);
        for array in [ascii.slice(0, 4), ascii.slice(1, 3), ascii.slice(2, 1), ascii.slice(4, 0), other.slice(2, 1)] {
            let (once, each) = (folded_at_once(&array).unwrap(), folded_each(&array));
            for row in 0..=array.len() {
                assert_eq!(once.row(&array, row), each.row(&array, row), "{array:?} {row}");
            }
        }
        assert!(folded_at_once(&other).is_none());
        assert_eq!(folded(&other).row(&other, 0), Some("Ék"));
    }
}
