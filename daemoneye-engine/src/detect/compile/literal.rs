//! Literals, and how two values are brought to one kind before they are compared.

use daemoneye_lib::columns::Kind;
use datafusion::sql::sqlparser::ast::{Expr, Value, ValueWithSpan};
use jiff::Timestamp;

use super::super::matcher::Scalar;
use super::{Problem, Typed, kind_name};

/// A literal as the parser gave it.
pub(super) fn literal(value: &ValueWithSpan) -> Result<Typed, Problem> {
    let refuse = |message: String| Problem::at(value.span.start, message);
    Ok(match &value.value {
        Value::Boolean(value) => Typed::new(Scalar::Boolean(*value), Kind::Boolean),
        Value::Null => Typed { scalar: Scalar::Null, kind: None, narrow: false },
        Value::Number(digits, false) => {
            return number(digits).ok_or_else(|| refuse(format!("{digits} is out of range")));
        }
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
            Typed::new(Scalar::Text(text.as_str().into()), Kind::Text)
        }
        Value::Placeholder(name) => {
            return Err(refuse(format!("a rule has no parameters, so {name} has no value")));
        }
        other => {
            return Err(refuse(format!("the literal {other} is not known in rules"))
                .hint("write numbers, 'text', TRUE, FALSE or NULL"));
        }
    })
}

fn number(digits: &str) -> Option<Typed> {
    if let Ok(integer) = digits.parse() {
        return Some(Typed::new(Scalar::Integer(integer), Kind::Integer));
    }
    // A larger integer would become an unsigned or decimal one in SQL, which no column has.
    if !digits.contains(['.', 'e', 'E']) {
        return None;
    }
    let real: f64 = digits.parse().ok()?;
    real.is_finite().then(|| Typed::new(Scalar::Real(real), Kind::Real))
}

/// The text of a literal, for patterns and flags, which must be known at load.
pub(super) fn text_of<'a>(expr: &'a Expr, what: &str) -> Result<&'a str, Problem> {
    match expr {
        Expr::Nested(inner) => text_of(inner, what),
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text),
            ..
        }) => Ok(text),
        other => Err(Problem::of(other, format!("{what} must be a text literal")).hint("write it as '…'")),
    }
}

/// Brings both sides of a comparison to one kind.
pub(super) fn unify(left: Typed, right: Typed, at: &Expr) -> Result<(Typed, Typed), Problem> {
    match (left.kind, right.kind) {
        (Some(Kind::Blob), _) | (_, Some(Kind::Blob)) => {
            Err(Problem::of(at, "bytes cannot be compared in a rule").hint("use IS NULL or IS NOT NULL"))
        }
        (Some(a), Some(b)) if a == b => Ok((left, right)),
        (None, _) | (_, None) => Ok((left, right)),
        (Some(Kind::Integer), Some(Kind::Real)) => Ok((to_real(left), right)),
        (Some(Kind::Real), Some(Kind::Integer)) => Ok((left, to_real(right))),
        (Some(Kind::Timestamp), Some(Kind::Text)) => Ok((left, to_time(&right, at)?)),
        (Some(Kind::Text), Some(Kind::Timestamp)) => Ok((to_time(&left, at)?, right)),
        (a, b) => Err(Problem::of(at, format!("{} cannot be compared with {}", kind_name(a), kind_name(b)))
            .hint("text stands in 'quotes', numbers and TRUE or FALSE stand without")),
    }
}

fn to_real(typed: Typed) -> Typed {
    Typed::new(Scalar::ToReal(Box::new(typed.scalar)), Kind::Real)
}

fn to_time(typed: &Typed, at: &Expr) -> Result<Typed, Problem> {
    let parsed = match &typed.scalar {
        Scalar::Text(text) => time(text),
        _ => None,
    };
    parsed.map(|micros| Typed::new(Scalar::Timestamp(micros), Kind::Timestamp)).ok_or_else(|| {
        Problem::of(at, "a time is compared with text that is not a time")
            .hint("write it like '2026-01-31T12:00:00Z', with at most six decimals")
    })
}

/// Whole microseconds only, and only years that fit nanoseconds: other readings of the same text would round or fail.
pub(super) fn time(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    let exact = time.subsec_nanosecond() % 1_000 == 0;
    let years = (Timestamp::UNIX_EPOCH.as_second()..9_223_372_036).contains(&time.as_second());
    (exact && years).then(|| time.as_microsecond())
}
