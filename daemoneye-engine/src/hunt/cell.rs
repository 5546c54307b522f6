//! One value of a line, and what it is as text or as a number.

use std::borrow::Cow;

use daemoneye_lib::columns::Kind;

use crate::sigma::leaf::parse_integer;

/// One value of a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Boolean(bool),
    Integer(i64),
    /// A list or an object, which no column holds.
    Nested,
    Real(f64),
    Text(Cow<'a, str>),
}

/// Whether two fields for one column say different things there; a list or an object says nothing.
pub(super) fn differ(kind: Kind, one: &Cell<'_>, other: &Cell<'_>) -> bool {
    match (text(one), text(other)) {
        (Some(one), Some(other)) if one == other => false,
        (Some(_), Some(_)) if kind == Kind::Integer => integer(one).is_none() || integer(one) != integer(other),
        (Some(_), Some(_)) => true,
        _ => false,
    }
}

pub(super) fn text<'c>(cell: &'c Cell<'_>) -> Option<Cow<'c, str>> {
    match cell {
        Cell::Text(text) => Some(Cow::Borrowed(text)),
        Cell::Integer(number) => Some(Cow::Owned(number.to_string())),
        Cell::Real(number) => Some(Cow::Owned(format!("{number:?}"))),
        Cell::Boolean(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        Cell::Nested => None,
    }
}

/// A whole number that is written with a fraction of nothing, as some exporters write every number.
fn whole(number: f64) -> Option<i64> {
    // Beyond 2^53 neighbours are the same number.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let is_whole = number.fract() == 0.0 && number.abs() <= MOST;
    is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

pub(super) fn integer(cell: &Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Integer(number) => Some(*number),
        Cell::Real(number) => whole(*number),
        Cell::Text(text) => parse_integer(text).or_else(|| whole(text.trim().parse().ok()?)),
        _ => None,
    }
}
