//! A rule's condition as it runs: questions with two answers over one row.
//!
//! SQL has three truth values and a row matches only where the condition is TRUE. Each test here asks "is this part TRUE" or
//! "is this part FALSE", chosen when the rule is compiled: NOT swaps the question and De Morgan carries it down, so only the
//! leaves know NULL, and AND and OR stop at the first answer.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use super::call::Call;
use super::row::{Cell, Columns};
use crate::text::Fits;

/// A question about a row.
#[derive(Debug)]
pub(super) enum Test {
    All(Vec<Test>),
    Always,
    Any(Vec<Test>),
    /// Whether the leaf has this truth value; NULL is neither.
    Leaf(Leaf, bool),
    Never,
    Not(Box<Test>),
}

/// A predicate that is TRUE, FALSE or NULL.
#[derive(Debug)]
pub(super) enum Leaf {
    /// A value of kind boolean.
    Boolean(Scalar),
    Compare(Scalar, Comparison, Scalar),
    /// Text in a set of literals; `with_null` when NULL is in the list.
    OneOf {
        subject: Scalar,
        texts: HashSet<Box<str>>,
        with_null: bool,
    },
    Fits(Scalar, Fits),
    /// Two-valued: IS NOT NULL.
    Present(Scalar),
    Search(Scalar, Search, Scalar),
    /// Two-valued: NULL does not fit.
    Strict(Scalar, Fits),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Two-valued: IS DISTINCT FROM.
    Distinct,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    Contains,
    EndsWith,
    StartsWith,
}

/// Something with a value per row. The compiler has made sure that kinds fit; where they would not, the value is NULL. What is large
/// lies elsewhere: a rule set has tens of thousands of these, nearly all columns and texts.
#[derive(Debug)]
pub(super) enum Scalar {
    Arithmetic(Box<Scalar>, Arithmetic, Box<Scalar>),
    Boolean(bool),
    /// By its place in the column table.
    Column(usize),
    Coalesce(Box<[Scalar]>),
    /// A function with its literals.
    Call(Box<(Scalar, Call)>),
    /// The result of the first test that holds.
    Case(Box<[(Test, Scalar)]>, Box<Scalar>),
    /// `concat`: NULL counts as empty.
    Concat(Box<[Scalar]>),
    /// ASCII letters small.
    Fold(Box<Scalar>),
    Integer(i64),
    /// `||`: NULL if one side is.
    Join(Box<Scalar>, Box<Scalar>),
    /// `concat_ws`: NULL is left out.
    JoinAll(Box<(Box<str>, Vec<Scalar>)>),
    Length(Box<Scalar>),
    Lower(Box<Scalar>),
    Negate(Box<Scalar>),
    Null,
    /// NULL where both are the same.
    NullIf(Box<Scalar>, Box<Scalar>),
    Real(f64),
    Text(Box<str>),
    Timestamp(i64),
    ToReal(Box<Scalar>),
    /// A condition used as a value.
    Truth {
        yes: Box<Test>,
        no: Box<Test>,
    },
    Upper(Box<Scalar>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    /// By a literal that is neither 0 nor −1, so it cannot fail.
    Divide,
    Multiply,
    Remainder,
    Subtract,
}

impl Test {
    pub(super) fn holds(&self, columns: &Columns<'_>, row: usize) -> bool {
        match self {
            Self::All(tests) => tests.iter().all(|test| test.holds(columns, row)),
            Self::Always => true,
            Self::Any(tests) => tests.iter().any(|test| test.holds(columns, row)),
            Self::Leaf(leaf, wanted) => leaf.truth(columns, row) == Some(*wanted),
            Self::Never => false,
            Self::Not(test) => !test.holds(columns, row),
        }
    }

    /// The parts of which all must hold.
    pub(super) fn parts(&self) -> &[Self] {
        match self {
            Self::All(parts) => parts,
            other => std::slice::from_ref(other),
        }
    }

    /// Whether it holds where some of its parts do: those whose bits `proven` has.
    pub(super) fn holds_beside(&self, proven: u64, columns: &Columns<'_>, row: usize) -> bool {
        let proven = |at: usize| u32::try_from(at).ok().and_then(|at| proven.checked_shr(at)).unwrap_or(0) & 1 != 0;
        self.parts().iter().enumerate().all(|(at, part)| proven(at) || part.holds(columns, row))
    }
}

impl Leaf {
    fn truth(&self, columns: &Columns<'_>, row: usize) -> Option<bool> {
        match self {
            Self::Boolean(scalar) => scalar.boolean(columns, row),
            Self::Compare(left, Comparison::Distinct, right) => {
                Some(!same(left.value(columns, row), right.value(columns, row)))
            }
            Self::Compare(left, comparison, right) => {
                let ordering = order(&left.value(columns, row)?, &right.value(columns, row)?)?;
                Some(comparison.accepts(ordering))
            }
            Self::OneOf { subject, texts, with_null } => {
                let found = texts.contains(&*subject.text(columns, row)?);
                (found || !with_null).then_some(found)
            }
            Self::Fits(subject, fits) => subject.fits(fits, columns, row),
            Self::Present(scalar) => Some(scalar.value(columns, row).is_some()),
            Self::Search(text, search, needle) => {
                let (text, needle) = (text.text(columns, row)?, needle.text(columns, row)?);
                Some(match search {
                    Search::Contains => text.contains(&*needle),
                    Search::EndsWith => text.ends_with(&*needle),
                    Search::StartsWith => text.starts_with(&*needle),
                })
            }
            Self::Strict(subject, fits) => Some(subject.fits(fits, columns, row) == Some(true)),
        }
    }
}

impl Comparison {
    const fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Distinct | Self::NotEqual => ordering.is_ne(),
            Self::Equal => ordering.is_eq(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// Reals in IEEE's total order after −0 became 0, as DataFusion has them: NaN equals itself and is above all numbers.
fn order(left: &Cell<'_>, right: &Cell<'_>) -> Option<Ordering> {
    match (left, right) {
        (Cell::Boolean(left), Cell::Boolean(right)) => Some(left.cmp(right)),
        (Cell::Integer(left), Cell::Integer(right)) | (Cell::Timestamp(left), Cell::Timestamp(right)) => {
            Some(left.cmp(right))
        }
        (Cell::Real(left), Cell::Real(right)) => Some((left + 0.0).total_cmp(&(right + 0.0))),
        (Cell::Text(left), Cell::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        _ => None,
    }
}

fn same(left: Option<Cell<'_>>, right: Option<Cell<'_>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => order(&left, &right) == Some(Ordering::Equal),
        (None, None) => true,
        _ => false,
    }
}

impl Scalar {
    /// The value, or `None` for NULL.
    pub(super) fn value<'a>(&'a self, columns: &Columns<'a>, row: usize) -> Option<Cell<'a>> {
        match self {
            Self::Arithmetic(left, arithmetic, right) => {
                let (left, right) = (left.integer(columns, row)?, right.integer(columns, row)?);
                columns.fitting(arithmetic.apply(left, right))
            }
            Self::Boolean(value) => Some(Cell::Boolean(*value)),
            Self::Column(column) => columns.cell(*column, row),
            Self::Coalesce(choices) => choices.iter().find_map(|choice| choice.value(columns, row)),
            Self::Call(called) => {
                let (of, call) = &**called;
                call.value(of.value(columns, row)?, columns)
            }
            Self::Case(branches, otherwise) => {
                let found = branches.iter().find(|(test, _)| test.holds(columns, row));
                found.map_or(&**otherwise, |(_, value)| value).value(columns, row)
            }
            Self::Concat(parts) => {
                let parts = parts.iter().filter_map(|part| part.text(columns, row));
                Some(Cell::Text(Cow::Owned(parts.collect())))
            }
            Self::Fold(text) => Some(Cell::Text(Cow::Owned(text.text(columns, row)?.to_ascii_lowercase()))),
            Self::Integer(value) => Some(Cell::Integer(*value)),
            Self::Join(left, right) => {
                let (left, right) = (left.text(columns, row)?, right.text(columns, row)?);
                Some(Cell::Text(left + right))
            }
            Self::JoinAll(joined) => {
                let (separator, parts) = &**joined;
                let parts: Vec<_> = parts.iter().filter_map(|part| part.text(columns, row)).collect();
                Some(Cell::Text(Cow::Owned(parts.join(separator))))
            }
            Self::Length(text) => {
                let length = text.text(columns, row)?.chars().count();
                i64::try_from(length).ok().map(Cell::Integer)
            }
            Self::Lower(text) => Some(Cell::Text(Cow::Owned(text.text(columns, row)?.to_lowercase()))),
            Self::Negate(number) => columns.fitting(number.integer(columns, row)?.checked_neg()),
            Self::Null => None,
            Self::NullIf(of, other) => {
                let of = of.value(columns, row)?;
                let same = other.value(columns, row).is_some_and(|other| order(&of, &other) == Some(Ordering::Equal));
                (!same).then_some(of)
            }
            Self::Real(value) => Some(Cell::Real(*value)),
            Self::Text(text) => Some(Cell::Text(Cow::Borrowed(text))),
            Self::Timestamp(value) => Some(Cell::Timestamp(*value)),
            Self::ToReal(number) => Some(Cell::Real(real(number.integer(columns, row)?))),
            Self::Truth { yes, no } => match (yes.holds(columns, row), no.holds(columns, row)) {
                (true, _) => Some(Cell::Boolean(true)),
                (false, true) => Some(Cell::Boolean(false)),
                (false, false) => None,
            },
            Self::Upper(text) => Some(Cell::Text(Cow::Owned(text.text(columns, row)?.to_uppercase()))),
        }
    }

    /// `None` for NULL.
    fn fits(&self, fits: &Fits, columns: &Columns<'_>, row: usize) -> Option<bool> {
        match self {
            Self::Column(column) => {
                let mut text = columns.text(*column, row, fits.folds())?;
                text.letters = columns.letters(*column, row, fits.asks_letters().then_some(text.raw));
                Some(fits.fits(text))
            }
            other => other.text(columns, row).map(|text| fits.fits((&*text).into())),
        }
    }

    fn text<'a>(&'a self, columns: &Columns<'a>, row: usize) -> Option<Cow<'a, str>> {
        match self.value(columns, row)? {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self, columns: &Columns<'_>, row: usize) -> Option<i64> {
        match self.value(columns, row)? {
            Cell::Integer(value) => Some(value),
            _ => None,
        }
    }

    fn boolean(&self, columns: &Columns<'_>, row: usize) -> Option<bool> {
        match self.value(columns, row)? {
            Cell::Boolean(value) => Some(value),
            _ => None,
        }
    }
}

impl Arithmetic {
    /// `None`: the result does not fit.
    pub(super) const fn apply(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Divide => left.checked_div(right),
            Self::Multiply => left.checked_mul(right),
            Self::Remainder => left.checked_rem(right),
            Self::Subtract => left.checked_sub(right),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "SQL compares an integer with a real as two reals; DataFusion casts alike"
)]
const fn real(value: i64) -> f64 {
    value as f64
}
