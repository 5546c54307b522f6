//! A value of a result as text for a person, a CSV field, or JSON; and a `--param` as a value.

use daemoneye_lib::proto::{Value, value::Kind};
use jiff::Timestamp;

use crate::error::CliError;

/// Text, empty for NULL. Timestamps are RFC 3339 UTC with microseconds.
pub(crate) fn text(value: &Value) -> String {
    match &value.kind {
        None => String::new(),
        Some(Kind::Boolean(value)) => value.to_string(),
        Some(Kind::Integer(value)) => value.to_string(),
        Some(Kind::Real(value)) => value.to_string(),
        Some(Kind::Text(value)) => value.clone(),
        Some(Kind::TimestampUs(us)) => timestamp(*us),
        Some(Kind::Blob(bytes)) => bytes.iter().fold(String::from("0x"), |hex, byte| format!("{hex}{byte:02x}")),
    }
}

/// JSON; what JSON cannot hold (NaN, infinity) is null.
pub(crate) fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None => serde_json::Value::Null,
        Some(Kind::Boolean(value)) => (*value).into(),
        Some(Kind::Integer(value)) => (*value).into(),
        Some(Kind::Real(value)) => (*value).into(),
        Some(_) => text(value).into(),
    }
}

/// RFC 3339 UTC with microseconds; a time outside jiff's years as its number.
pub(crate) fn timestamp(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |time| format!("{time:.6}"))
}

/// `7d`, `12h`, `30m` before now, or a time: µs since the Unix epoch.
pub(crate) fn instant(text: &str, now: i64) -> Result<i64, CliError> {
    let wrong = || {
        let text = format!("{text:?} is no time: give 7d, 12h or 30m (before now), or one like 2026-01-31T12:00:00Z");
        CliError::Usage(text)
    };
    let unit = [("d", 86_400_i64), ("h", 3_600), ("m", 60), ("s", 1)];
    let found = unit.iter().find_map(|(end, seconds)| Some((text.strip_suffix(end)?.parse::<u32>().ok()?, *seconds)));
    if let Some((count, seconds)) = found {
        let back = i64::from(count).checked_mul(seconds).and_then(|seconds| seconds.checked_mul(1_000_000));
        return back.and_then(|back| now.checked_sub(back)).ok_or_else(wrong);
    }
    text.parse::<Timestamp>().map(|time| time.as_microsecond()).map_err(|_| wrong())
}

/// Control and direction characters as escapes: a process may be named so that it rewrites the operator's terminal.
pub(crate) fn harmless(text: &str) -> String {
    let dangerous = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(dangerous) {
        return text.to_owned();
    }
    text.chars().map(|c| if dangerous(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// The same of a text of several lines.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.split('\n')
        .map(|line| line.split('\t').map(harmless).collect::<Vec<_>>().join("\t"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One line for standard error, whatever stands in it.
macro_rules! say {
    ($($text:tt)*) => { eprintln!("{}", $crate::value::harmless(&format!($($text)*))) };
}
pub(crate) use say;

/// The values that `--param`s stand for.
pub(crate) fn parameters(texts: &[String]) -> Result<Vec<Value>, CliError> {
    (1_usize..).zip(texts).map(|(number, text)| parameter(text).ok_or_else(|| too_large(number, text))).collect()
}

fn too_large(number: usize, text: &str) -> CliError {
    CliError::Usage(format!(
        "--param {text}: ${number} is no number that can be held; whole numbers reach from {} to {}, and '{text}' in quotes is text",
        i64::MIN,
        i64::MAX
    ))
}

/// The value that a `--param` stands for, by its look; `None`: it looks like a number and would become another one.
fn parameter(text: &str) -> Option<Value> {
    let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let kind = match (quoted, text) {
        (Some(inner), _) => Some(Kind::Text(inner.to_owned())),
        (None, "null" | "NULL") => None,
        (None, "true") => Some(Kind::Boolean(true)),
        (None, "false") => Some(Kind::Boolean(false)),
        (None, _) => Some(number(text)?),
    };
    Some(Value { kind })
}

/// Text that is no number is text.
fn number(text: &str) -> Option<Kind> {
    // Words such as "inf" and "nan" parse as floats but are meant as text.
    let real = text.parse::<f64>().ok().filter(|_| text.ends_with(|c: char| c.is_ascii_digit()));
    let Some(real) = real else { return Some(Kind::Text(text.to_owned())) };
    let is_whole = text.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit());
    if is_whole { text.parse().ok().map(Kind::Integer) } else { real.is_finite().then_some(Kind::Real(real)) }
}

/// A text cell.
pub(crate) fn of_text(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::Text(text.into())) }
}

/// A number cell; what does not fit is the largest that does.
pub(crate) fn of_number(number: impl TryInto<i64>) -> Value {
    Value { kind: Some(Kind::Integer(number.try_into().unwrap_or(i64::MAX))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::exit::Exit;

    #[test]
    fn a_time_is_a_span_before_now_or_a_time() {
        let now = 1_769_860_800_000_000;
        assert_eq!(instant("7d", now).unwrap(), now - 7 * 86_400_000_000);
        assert_eq!(instant("30m", now).unwrap(), now - 1_800_000_000);
        assert_eq!(instant("2026-01-31T12:00:00Z", 0).unwrap(), now);
        for wrong in ["", "7", "-1d", "7 days", "yesterday", "4294967296d"] {
            assert_eq!(instant(wrong, now).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_number_that_cannot_be_held_is_refused_and_not_changed() {
        for text in ["9223372036854775808", "-9223372036854775809", "18446744073709551615", "1e400"] {
            let refused = parameters(&["1".to_owned(), text.to_owned()]).unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage);
            assert!(refused.to_string().contains(&format!("--param {text}: $2")), "{refused}");
        }
        let quoted = parameters(&["'18446744073709551615'".to_owned()]).unwrap();
        assert_eq!(quoted, [of_text("18446744073709551615")]);
    }

    #[test]
    fn a_parameter_is_taken_by_its_look_and_quotes_force_text() {
        let kind = |text: &str| parameter(text).unwrap().kind;
        assert_eq!(kind("42"), Some(Kind::Integer(42)));
        assert_eq!(kind("-7"), Some(Kind::Integer(-7)));
        assert_eq!(kind("9223372036854775807"), Some(Kind::Integer(i64::MAX)));
        assert_eq!(kind("1.5"), Some(Kind::Real(1.5)));
        assert_eq!(kind("true"), Some(Kind::Boolean(true)));
        assert_eq!(kind("null"), None);
        assert_eq!(kind("nan"), Some(Kind::Text("nan".into())));
        assert_eq!(kind("'42'"), Some(Kind::Text("42".into())));
        assert_eq!(kind("sshd"), Some(Kind::Text("sshd".into())));
    }

    #[test]
    fn machines_read_rfc_3339_in_utc() {
        let value = Value { kind: Some(Kind::TimestampUs(1_769_860_800_000_001)) };
        assert_eq!(text(&value), "2026-01-31T12:00:00.000001Z");
        assert_eq!(text(&Value { kind: Some(Kind::Blob(vec![4, 255])) }), "0x04ff");
        assert!(json(&Value { kind: Some(Kind::Real(f64::NAN)) }).is_null());
    }

    #[test]
    fn a_hostile_name_cannot_write_to_the_terminal() {
        assert_eq!(harmless("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(harmless("exe\u{202e}txt"), "exe\\u{202e}txt");
        assert_eq!(harmless("Grüße"), "Grüße");
    }
}
