//! An instant as exporters write it.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cell::Cell;

/// 2000-01-01 and 2100-01-01 in seconds. A number between them in seconds is outside of them in every other unit.
const FIRST_S: i64 = 946_684_800;
const END_S: i64 = 4_102_444_800;
/// Units of numbers: how many of them are a second.
const UNITS: [i64; 4] = [1, 1_000, 1_000_000, 1_000_000_000];

/// RFC 3339, Sysmon's time of day in UTC without saying so, or a number since 1970 whose size tells its unit; in µs.
pub(super) fn time(cell: &Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Integer(number) => of_integer(*number),
        Cell::Real(number) => of_real(*number),
        Cell::Text(text) => of_text(text),
        Cell::Boolean(_) | Cell::Nested => None,
    }
}

fn of_integer(number: i64) -> Option<i64> {
    let is_in = |unit: &i64| (FIRST_S..END_S).contains(&number.div_euclid(*unit));
    let unit = UNITS.into_iter().find(is_in)?;
    i64::try_from(i128::from(number) * 1_000_000 / i128::from(unit)).ok()
}

/// With a fraction; more than µs is not in it.
fn of_real(number: f64) -> Option<i64> {
    let units = [1.0, 1e3, 1e6, 1e9];
    let instant = |unit: f64| SignedDuration::try_from_secs_f64(number / unit).ok();
    let instant = units.into_iter().filter_map(instant).find(|since| (FIRST_S..END_S).contains(&since.as_secs()))?;
    i64::try_from(instant.as_micros()).ok()
}

fn of_text(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant.as_microsecond());
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_microsecond());
    }
    let integer = || text.parse().ok().and_then(of_integer);
    integer().or_else(|| text.parse().ok().and_then(of_real))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_769_860_800_500_000;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let integer = |number| time(&Cell::Integer(number));
        assert_eq!(integer(1_769_860_800), Some(1_769_860_800_000_000));
        for number in [1_769_860_800_500, AT, 1_769_860_800_500_000_999] {
            assert_eq!(integer(number), Some(AT), "{number}");
            assert_eq!(time(&Cell::Text(number.to_string().into())), Some(AT), "{number}");
        }
        assert_eq!(time(&Cell::Real(1_769_860_800.5)), Some(AT));
        assert_eq!(time(&Cell::Text("1769860800.5".into())), Some(AT));
        for number in [i64::MIN, -1, 0, 1, 946_684_799, 4_102_444_800, 20_260_131_120_000, i64::MAX] {
            assert_eq!(integer(number), None, "{number}");
        }
        assert!([f64::NAN, f64::INFINITY, 0.0, 1e300].iter().all(|number| time(&Cell::Real(*number)).is_none()));
    }

    #[test]
    fn a_text_says_its_instant_or_is_in_utc() {
        for text in ["2026-01-31T12:00:00.5Z", "2026-01-31T13:00:00.5+01:00", "2026-01-31 12:00:00.500"] {
            assert_eq!(time(&Cell::Text(text.into())), Some(AT), "{text}");
        }
        for text in ["31/01/2026 12:00:00", "", "-", "noon"] {
            assert_eq!(time(&Cell::Text(text.into())), None, "{text}");
        }
    }
}
