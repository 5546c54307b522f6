//! `'2026-01-31 12:00'` as a time: DataFusion reads a time of day with its seconds only.

use crate::schema::arrow_type;
use daemoneye_lib::columns::Kind;
use datafusion::arrow::compute::kernels::cast_utils::{
    IntervalParseConfig, IntervalUnit, parse_interval_month_day_nano_config,
};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable as _, TryCast, cast, lit};
use jiff::tz::TimeZone;
use jiff::{RoundMode, Span, Timestamp, Unit, ZonedRound};

/// Bytes of `2026-01-31 12:00`.
const TO_THE_MINUTE: usize = 16;

/// A literal that is cast to a time, with its seconds.
pub(crate) fn with_seconds(mut expr: Expr) -> Transformed<Expr> {
    let literal = match &mut expr {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
            if matches!(field.data_type(), DataType::Timestamp(..)) =>
        {
            expr.as_mut()
        }
        _ => return Transformed::no(expr),
    };
    if let Expr::Literal(
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)),
        _,
    ) = literal
        && complete(text)
    {
        return Transformed::yes(expr);
    }
    Transformed::no(expr)
}

/// A comparison with a time that nanoseconds do not reach, such as the year 9999 as an end that never comes: the planner compares
/// times with text as nanoseconds, the columns have microseconds.
pub(crate) fn far(expr: Expr, columns: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let sides = [left.as_ref(), right.as_ref()];
            let Some([left, right]) = in_microseconds(sides, columns)? else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let sides = [expr.as_ref(), low.as_ref(), high.as_ref()];
            let Some([expr, low, high]) = in_microseconds(sides, columns)? else {
                return Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high })));
            };
            let between = Between { expr: Box::new(expr), negated, low: Box::new(low), high: Box::new(high) };
            Ok(Transformed::yes(Expr::Between(between)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The sides of a comparison as microseconds, where one of them is a text that nanoseconds do not reach.
fn in_microseconds<const N: usize>(sides: [&Expr; N], columns: &DFSchema) -> Result<Option<[Expr; N]>> {
    let far = |side: &&Expr| {
        literal_time(side).is_some_and(|text| {
            let us = microseconds(text);
            us.is_some_and(|us| us.checked_mul(1_000).is_none())
        })
    };
    if !sides.iter().any(far) {
        return Ok(None);
    }
    let unit = arrow_type(Kind::Timestamp);
    let mut lessened = Vec::with_capacity(N);
    for side in sides {
        lessened.push(match side {
            _ if literal_time(side).is_some() => {
                let Expr::Cast(Cast { expr, .. }) = side else { return Ok(None) };
                cast(expr.as_ref().clone(), unit.clone())
            }
            Expr::Cast(Cast { expr, .. }) if expr.get_type(columns)? == unit => expr.as_ref().clone(),
            side if side.get_type(columns)? == unit => side.clone(),
            _ => return Ok(None),
        });
    }
    Ok(lessened.try_into().ok())
}

/// The text that is cast to a time.
fn literal_time(expr: &Expr) -> Option<&str> {
    let Expr::Cast(Cast { expr, field }) = expr else { return None };
    if !matches!(field.data_type(), DataType::Timestamp(..)) {
        return None;
    }
    let Expr::Literal(value, _) = expr.as_ref() else { return None };
    value.try_as_str().flatten()
}

/// The seconds of a length of time, with all of their fraction: DataFusion counts the nanoseconds of a length in 32 bits, and from
/// 2.147 s on it takes those that do not fit for none.
pub(crate) fn seconds_of(call: ScalarFunction, columns: &DFSchema) -> Result<Transformed<Expr>> {
    let unchanged = |call| Ok(Transformed::no(Expr::ScalarFunction(call)));
    let [Expr::Literal(part, _), length] = call.args.as_slice() else { return unchanged(call) };
    let (DataType::Duration(unit), Some(Some(part))) = (length.get_type(columns)?, part.try_as_str()) else {
        return unchanged(call);
    };
    let in_a_second = match unit {
        TimeUnit::Second => 1.0,
        TimeUnit::Millisecond => 1e3,
        TimeUnit::Microsecond => 1e6,
        TimeUnit::Nanosecond => 1e9,
    };
    match part.to_ascii_lowercase().as_str() {
        "epoch" => {
            let count = cast(cast(length.clone(), DataType::Int64), DataType::Float64);
            Ok(Transformed::yes(count / lit(in_a_second)))
        }
        part if part.starts_with("mil") || part.starts_with("mic") || part.starts_with("nano") => {
            plan_err!("{part} of a length of time: write extract(epoch FROM …), which has the fraction of its seconds")
        }
        _ => unchanged(call),
    }
}

/// Puts the seconds in where they are left out; whether they were.
pub(crate) fn complete(text: &mut String) -> bool {
    let missing = stops_at_the_minute(text);
    if missing {
        text.insert_str(TO_THE_MINUTE, ":00");
    }
    missing
}

/// The time that a literal stands for, as the planner reads it, in µs since the Unix epoch.
pub(crate) fn microseconds(text: &str) -> Option<i64> {
    let mut text = text.to_owned();
    complete(&mut text);
    let time = ScalarValue::Utf8(Some(text)).cast_to(&arrow_type(Kind::Timestamp));
    match time {
        Ok(ScalarValue::TimestampMicrosecond(us, _)) => us,
        _ => None,
    }
}

/// The time that a modifier of `datetime(…)` makes of another one; `None` when there is no such modifier, or no such time.
pub(crate) fn moved(us: i64, modifier: &str) -> Option<i64> {
    let modifier = modifier.trim().to_ascii_lowercase();
    let time = Timestamp::from_microsecond(us).ok()?.to_zoned(TimeZone::UTC);
    let moved = match modifier.strip_prefix("start of ") {
        Some("hour") => time.round(ZonedRound::new().smallest(Unit::Hour).mode(RoundMode::Floor)).ok()?,
        Some("day") => time.start_of_day().ok()?,
        Some("month") => time.first_of_month().ok()?.start_of_day().ok()?,
        Some("year") => time.first_of_year().ok()?.start_of_day().ok()?,
        Some(_) => return None,
        None => {
            let (number, unit) = modifier.split_once(' ')?;
            let number: i64 = number.strip_prefix('+').unwrap_or(number).parse().ok()?;
            let span = match unit.trim().trim_end_matches('s') {
                "second" => Span::new().try_seconds(number),
                "minute" => Span::new().try_minutes(number),
                "hour" => Span::new().try_hours(number),
                "day" => Span::new().try_days(number),
                "week" => Span::new().try_weeks(number),
                "month" => Span::new().try_months(number),
                "year" => Span::new().try_years(number),
                _ => return None,
            };
            time.checked_add(span.ok()?).ok()?
        }
    };
    Some(moved.timestamp().as_microsecond())
}

/// Whether the planner reads this as the text of an INTERVAL.
pub(crate) fn is_interval(text: &str) -> bool {
    parse_interval_month_day_nano_config(text, IntervalParseConfig::new(IntervalUnit::Second)).is_ok()
}

/// The length of an INTERVAL in µs; `None` for one whose length depends on the calendar, or that does not fit.
pub(crate) fn interval_us(text: &str) -> Option<i64> {
    let parsed = parse_interval_month_day_nano_config(text, IntervalParseConfig::new(IntervalUnit::Second)).ok()?;
    let days_us = i64::from(parsed.days).checked_mul(24 * 3600 * 1_000_000)?;
    (parsed.months == 0).then(|| days_us.checked_add(parsed.nanoseconds / 1_000)).flatten()
}

/// Whether the text is a date and a time of day without seconds, with or without an offset after it.
fn stops_at_the_minute(text: &str) -> bool {
    let Some((time, rest)) = text.split_at_checked(TO_THE_MINUTE) else { return false };
    let shaped = time.bytes().zip(b"0000-00-00 00:00".iter()).all(|(byte, like)| match like {
        b'0' => byte.is_ascii_digit(),
        b' ' => matches!(byte, b' ' | b'T' | b't'),
        like => byte == *like,
    });
    shaped && !rest.starts_with([':', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modifier_moves_a_time_as_the_planner_does() {
        let at = |text: &str| microseconds(text).unwrap();
        let noon = at("2026-03-31 12:34:56");
        for (modifier, expected) in [
            ("+1 day", "2026-04-01 12:34:56"),
            ("-30 Minutes", "2026-03-31 12:04:56"),
            ("-1 month", "2026-02-28 12:34:56"),
            ("2 weeks", "2026-04-14 12:34:56"),
            ("start of hour", "2026-03-31 12:00:00"),
            ("start of day", "2026-03-31 00:00:00"),
            ("start of month", "2026-03-01 00:00:00"),
            ("start of year", "2026-01-01 00:00:00"),
        ] {
            assert_eq!(moved(noon, modifier), Some(at(expected)), "{modifier}");
        }
        for none in ["", "+1", "+1 parsec", "start of week", "99999999999 years"] {
            assert_eq!(moved(noon, none), None, "{none}");
        }
    }

    #[test]
    fn seconds_are_missing_only_where_a_minute_ends_the_time() {
        for (text, missing) in [
            ("2026-01-31 12:00", true),
            ("2026-01-31T12:00Z", true),
            ("2026-01-31T12:00+01:00", true),
            ("2026-01-31 12:00:30", false),
            ("2026-01-31", false),
            ("31.01.2026 12:00", false),
            ("2026-01-31 12:0é", false),
            ("", false),
        ] {
            assert_eq!(stops_at_the_minute(text), missing, "{text}");
        }
    }
}
