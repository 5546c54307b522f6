//! Functions of one value with further arguments that are known at load, as DataFusion calculates them. NULL gives NULL.

use std::borrow::Cow;

use super::row::{Cell, Columns};

/// One function with its literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Abs,
    /// What stands before the last characters where it is negative.
    Left(i64),
    /// Bytes.
    OctetLength,
    Part(DatePart),
    Reverse,
    Right(i64),
    SplitPart(Box<str>, i64),
    /// The place of the first, from 1; 0 is none.
    Strpos(Box<str>),
    /// From a place, from 1 on, so many characters.
    Substr(i64, Option<i64>),
    /// As a whole number; text that is none has no value.
    ToInteger,
    ToText,
    /// These characters, at the start and at the end.
    Trim {
        characters: Box<[char]>,
        start: bool,
        end: bool,
    },
}

/// A part of a time in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatePart {
    Day,
    /// From Sunday, 0.
    DayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Month,
    Quarter,
    Second,
    Year,
}

impl DatePart {
    /// As `date_part` takes them.
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("year", Self::Year),
        ("quarter", Self::Quarter),
        ("month", Self::Month),
        ("day", Self::Day),
        ("dow", Self::DayOfWeek),
        ("doy", Self::DayOfYear),
        ("hour", Self::Hour),
        ("minute", Self::Minute),
        ("second", Self::Second),
    ];

    fn of(self, us: i64) -> Option<i64> {
        let seconds = us.div_euclid(1_000_000);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        // The calendar of the other way ends there.
        if !(-262_143..=262_142).contains(&year) {
            return None;
        }
        Some(match self {
            Self::Day => day,
            // 1970 began on a Thursday.
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfYear => days - first_day(year) + 1,
            Self::Hour => of_day / 3_600,
            Self::Minute => of_day / 60 % 60,
            Self::Month => month,
            Self::Quarter => (month + 2) / 3,
            Self::Second => of_day % 60,
            Self::Year => year,
        })
    }
}

/// Year, month and day of a number of days since 1970: eras of 400 years that begin in March, so that the leap day is the last.
const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Days since 1970 of the first of January.
const fn first_day(year: i64) -> i64 {
    let before = year - 1;
    365 * (year - 1970) + (before.div_euclid(4) - 492) - (before.div_euclid(100) - 19) + (before.div_euclid(400) - 4)
}

impl Call {
    /// Its value for a value that is not NULL.
    pub(super) fn value<'a>(&self, of: Cell<'a>, columns: &Columns<'a>) -> Option<Cell<'a>> {
        match (self, of) {
            (Self::Abs, Cell::Integer(number)) => columns.fitting(number.checked_abs()),
            (Self::Abs, Cell::Real(number)) => Some(Cell::Real(number.abs())),
            (Self::Part(part), Cell::Timestamp(us)) => part.of(us).map(Cell::Integer),
            (Self::ToInteger, Cell::Integer(number)) => Some(Cell::Integer(number)),
            (Self::ToInteger, Cell::Boolean(value)) => Some(Cell::Integer(i64::from(value))),
            (Self::ToText, Cell::Integer(number)) => Some(Cell::Text(Cow::Owned(number.to_string()))),
            (Self::ToText, Cell::Boolean(value)) => {
                Some(Cell::Text(Cow::Borrowed(if value { "true" } else { "false" })))
            }
            (_, Cell::Text(text)) => self.of_text(text),
            _ => None,
        }
    }

    fn of_text(&self, text: Cow<'_, str>) -> Option<Cell<'static>> {
        let count = |number: usize| i64::try_from(number).ok().map(Cell::Integer);
        let part = match self {
            Self::Left(characters) => text.get(..boundary(&text, *characters))?,
            Self::Right(characters) => {
                // Of none there is nothing, and the whole without the first ones otherwise.
                if *characters == 0 { "" } else { text.get(boundary(&text, characters.checked_neg()?)..)? }
            }
            Self::OctetLength => return count(text.len()),
            Self::Reverse => return Some(Cell::Text(Cow::Owned(text.chars().rev().collect()))),
            Self::SplitPart(separator, place) => split(&text, separator, *place),
            Self::Strpos(part) => {
                return match text.find(&**part) {
                    Some(at) => count(text.get(..at)?.chars().count().saturating_add(1)),
                    None => Some(Cell::Integer(0)),
                };
            }
            Self::Substr(start, length) => sliced(&text, *start, *length),
            // The other way leaves blanks around a number out.
            Self::ToInteger => return text.trim_ascii().parse().ok().map(Cell::Integer),
            Self::ToText => &text,
            Self::Trim { characters, start, end } => {
                let text = if *start { text.trim_start_matches(&**characters) } else { &text };
                if *end { text.trim_end_matches(&**characters) } else { text }
            }
            Self::Abs | Self::Part(_) => return None,
        };
        Some(Cell::Text(Cow::Owned(part.to_owned())))
    }
}

/// The place in bytes behind so many characters, or before so many from the end.
fn boundary(text: &str, characters: i64) -> usize {
    let count = usize::try_from(characters.unsigned_abs()).unwrap_or(usize::MAX);
    let place = |(at, _): (usize, char)| at;
    match characters {
        0.. => text.char_indices().nth(count).map_or(text.len(), place),
        _ => text.char_indices().nth_back(count.saturating_sub(1)).map_or(0, place),
    }
}

fn sliced(text: &str, start: i64, length: Option<i64>) -> &str {
    let from = start.saturating_sub(1);
    let to = length.map_or(i64::MAX, |length| from.saturating_add(length)).max(0);
    let (from, to) = (boundary(text, from.max(0)), boundary(text, to));
    text.get(from..to).unwrap_or_default()
}

fn split<'a>(text: &'a str, separator: &str, place: i64) -> &'a str {
    if separator.is_empty() {
        return if place.unsigned_abs() == 1 { text } else { "" };
    }
    let skipped = usize::try_from(place.unsigned_abs().saturating_sub(1)).unwrap_or(usize::MAX);
    let part = if place > 0 { text.split(separator).nth(skipped) } else { text.rsplit(separator).nth(skipped) };
    part.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::civil::Date;
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn parts_of_a_time_are_those_of_the_calendar() {
        for (year, month, day) in
            [(1969, 12, 31), (1970, 1, 1), (2000, 2, 29), (2026, 1, 31), (2100, 3, 1), (-4, 2, 29)]
        {
            let date = Date::new(year, month, day).unwrap();
            let us = date.at(23, 59, 58, 999_000_000).to_zoned(TimeZone::UTC).unwrap().timestamp().as_microsecond();
            let part = |part: DatePart| part.of(us).unwrap();
            let found = (part(DatePart::Year), part(DatePart::Month), part(DatePart::Day));
            assert_eq!(found, (year.into(), month.into(), day.into()));
            assert_eq!(part(DatePart::DayOfYear), i64::from(date.day_of_year()), "{date}");
            assert_eq!(part(DatePart::DayOfWeek), i64::from(date.weekday().to_sunday_zero_offset()), "{date}");
            assert_eq!((part(DatePart::Hour), part(DatePart::Minute), part(DatePart::Second)), (23, 59, 58));
        }
        assert_eq!(DatePart::Year.of(i64::MAX), None);
    }
}
