//! CASE, CAST and the functions whose further arguments have to be known at load: what could fail for one event would fail for the
//! whole batch.

use daemoneye_lib::columns::Kind;
use datafusion::sql::sqlparser::ast::{
    CaseWhen, CastKind, DataType, DateTimeField, Expr, Function, Interval, Spanned as _, TrimWhereField, Value,
    ValueWithSpan,
};

use super::super::call::{Call, DatePart};
use super::super::matcher::{Comparison, Leaf, Scalar, Test};
use super::literal::{literal, text_of, unify};
use super::{Compiler, Problem, Typed, functions, kind_name};
use crate::sql;

/// Characters that TRIM takes when it names none.
const BLANK: &str = " ";

impl Compiler {
    /// A function of [`Call`], or `None` where it is none or its arguments are not these.
    pub(super) fn known_call(&mut self, name: &str, arguments: &[&Expr]) -> Option<Result<Typed, Problem>> {
        Some(match (name, arguments) {
            ("abs", [number]) => self.abs(number),
            ("btrim" | "ltrim" | "rtrim", [text]) => self.trimmed(text, None, name != "rtrim", name != "ltrim"),
            ("btrim" | "ltrim" | "rtrim", [text, characters]) => {
                self.trimmed(text, Some(characters), name != "rtrim", name != "ltrim")
            }
            ("concat_ws", [separator, parts @ ..]) if !parts.is_empty() => self.concat_ws(separator, parts),
            ("date_part", [part, time]) => {
                text_of(part, "the part of date_part").and_then(|name| self.part(name, part, time))
            }
            ("left", [text, count]) => self.counted(text, count, Call::Left),
            ("nullif", [value, other]) => self.null_if(value, other),
            ("octet_length", [text]) => self.narrow_call(text, Call::OctetLength),
            ("reverse", [text]) => self.text(text, Call::Reverse),
            ("right", [text, count]) => self.counted(text, count, Call::Right),
            ("split_part", [text, separator, place]) => self.split_part(text, separator, place),
            ("strpos", [text, part]) => self.strpos(text, part),
            ("substr", [text, start]) => self.substr(text, Some(start), None),
            ("substr", [text, start, length]) => self.substr(text, Some(start), Some(length)),
            _ => return None,
        })
    }

    /// What is spelled in words rather than called.
    pub(super) fn spelled(&mut self, expr: &Expr) -> Option<Result<Typed, Problem>> {
        Some(match expr {
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(expr, operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Cast { kind, expr: inner, data_type, .. } => self.cast(expr, kind, inner, data_type),
            Expr::Extract { field, expr: time, .. } => self.part(&field_name(field), expr, time),
            Expr::Position { expr: part, r#in: text } => self.strpos(text, part),
            Expr::Substring { expr: text, substring_from, substring_for, .. } => {
                self.substr(text, substring_from.as_deref(), substring_for.as_deref())
            }
            Expr::Trim { trim_where, trim_what, expr: text, .. } => {
                let (start, end) = match trim_where {
                    None | Some(TrimWhereField::Both) => (true, true),
                    Some(TrimWhereField::Leading) => (true, false),
                    Some(TrimWhereField::Trailing) => (false, true),
                };
                self.trimmed(text, trim_what.as_deref(), start, end)
            }
            _ => return None,
        })
    }

    /// A time and a length that is known: `datetime('2026-01-31', '-30 minutes')` is lowered to it.
    pub(super) fn later(&mut self, time: &Expr, interval: &Interval, sign: i64) -> Option<Result<Typed, Problem>> {
        let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(length), .. }) = interval.value.as_ref()
        else {
            return None;
        };
        let text = interval.leading_field.as_ref().map_or_else(|| length.clone(), |field| format!("{length} {field}"));
        Some(self.scalar(time).and_then(|typed| {
            match (typed.scalar, sql::interval_us(&text)) {
                (Scalar::Timestamp(us), Some(length_us)) => length_us
                    .checked_mul(sign)
                    .and_then(|length_us| us.checked_add(length_us))
                    .map(|us| Typed::new(Scalar::Timestamp(us), Kind::Timestamp))
                    .ok_or_else(|| Problem::of(time, "this time is out of range")),
                _ => Err(Problem::of(
                    time,
                    format!("a rule over single events cannot calculate with INTERVAL '{text}'"),
                )
                .hint("write the time itself: TIMESTAMP '2026-01-31T12:00:00Z'; months have no fixed length")),
            }
        }))
    }

    fn abs(&mut self, number: &Expr) -> Result<Typed, Problem> {
        let typed = self.scalar(number)?;
        match typed.kind {
            Some(kind @ (Kind::Integer | Kind::Real)) => Ok(Typed::new(calling(typed.scalar, Call::Abs), kind)),
            kind => Err(Problem::of(number, format!("abs takes a number, and this is {}", kind_name(kind)))),
        }
    }

    fn text(&mut self, text: &Expr, call: Call) -> Result<Typed, Problem> {
        Ok(Typed::new(calling(self.of_kind(text, Kind::Text)?, call), Kind::Text))
    }

    fn narrow_call(&mut self, text: &Expr, call: Call) -> Result<Typed, Problem> {
        let scalar = calling(self.of_kind(text, Kind::Text)?, call);
        Ok(Typed { scalar, kind: Some(Kind::Integer), narrow: true })
    }

    fn counted(&mut self, text: &Expr, count: &Expr, call: impl FnOnce(i64) -> Call) -> Result<Typed, Problem> {
        let count = number_of(count, "the number of characters")?;
        self.text(text, call(count))
    }

    fn substr(&mut self, text: &Expr, start: Option<&Expr>, length: Option<&Expr>) -> Result<Typed, Problem> {
        let start = start.map_or(Ok(1), |start| number_of(start, "the place where substr begins"))?;
        let characters = length.map(|length| number_of(length, "the length of substr")).transpose()?;
        if let (Some(length), Some(..0)) = (length, characters) {
            return Err(Problem::of(length, "the length of substr is negative"));
        }
        self.text(text, Call::Substr(start, characters))
    }

    fn split_part(&mut self, text: &Expr, separator: &Expr, place: &Expr) -> Result<Typed, Problem> {
        let separator = text_of(separator, "the separator of split_part")?;
        let number = number_of(place, "the place of split_part")?;
        if number == 0 {
            return Err(Problem::of(place, "parts are counted from 1, or from the end from -1"));
        }
        self.text(text, Call::SplitPart(separator.into(), number))
    }

    fn strpos(&mut self, text: &Expr, part: &Expr) -> Result<Typed, Problem> {
        let part = text_of(part, "what strpos looks for")?;
        self.narrow_call(text, Call::Strpos(part.into()))
    }

    fn trimmed(&mut self, text: &Expr, what: Option<&Expr>, start: bool, end: bool) -> Result<Typed, Problem> {
        let what = what.map_or(Ok(BLANK), |what| text_of(what, "what is trimmed"))?;
        self.text(text, Call::Trim { characters: what.chars().collect(), start, end })
    }

    fn concat_ws(&mut self, separator: &Expr, parts: &[&Expr]) -> Result<Typed, Problem> {
        let separator = text_of(separator, "the separator of concat_ws")?;
        let parts: Result<_, _> = parts.iter().map(|part| self.of_kind(part, Kind::Text)).collect();
        Ok(Typed::new(Scalar::JoinAll(Box::new((separator.into(), parts?))), Kind::Text))
    }

    fn null_if(&mut self, value: &Expr, other: &Expr) -> Result<Typed, Problem> {
        let (typed, other) = (self.scalar(value)?, self.scalar(other)?);
        match (typed.kind, other.kind) {
            (Some(kind @ (Kind::Integer | Kind::Text)), found) if found.is_none() || found == Some(kind) => {
                let scalar = Scalar::NullIf(Box::new(typed.scalar), Box::new(other.scalar));
                Ok(Typed { scalar, kind: Some(kind), narrow: typed.narrow })
            }
            (kind, found) => Err(Problem::of(
                value,
                format!(
                    "nullif compares texts or whole numbers, and these are {} and {}",
                    kind_name(kind),
                    kind_name(found)
                ),
            )
            .hint("use CASE WHEN a = b THEN NULL ELSE a END")),
        }
    }

    fn part(&mut self, name: &str, at: &Expr, time: &Expr) -> Result<Typed, Problem> {
        let known = DatePart::NAMES.iter().find(|(known, _)| *known == name);
        let (_, part) = known.ok_or_else(|| {
            let names: Vec<&str> = DatePart::NAMES.iter().map(|(name, _)| *name).collect();
            Problem::of(at, format!("a rule over single events knows no part {name} of a time"))
                .hint(format!("known are {}", names.join(", ")))
        })?;
        let scalar = calling(self.of_kind(time, Kind::Timestamp)?, Call::Part(*part));
        Ok(Typed { scalar, kind: Some(Kind::Integer), narrow: true })
    }

    fn case(
        &mut self,
        whole: &Expr,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<Typed, Problem> {
        let (mut kind, mut narrow, mut branches) = (None, true, Vec::with_capacity(conditions.len()));
        let mut result = |compiler: &mut Self, expr: &Expr| {
            let typed = compiler.scalar(expr)?;
            if kind.is_some() && typed.kind.is_some() && kind != typed.kind {
                let message = format!("CASE mixes {} and {}", kind_name(kind), kind_name(typed.kind));
                return Err(Problem::of(expr, message).hint("its results must be of one kind"));
            }
            kind = kind.or(typed.kind);
            narrow &= typed.narrow || typed.kind.is_none();
            Ok(typed.scalar)
        };
        for CaseWhen { condition, result: value } in conditions {
            let test = match operand {
                Some(operand) => {
                    let (a, b) = unify(self.scalar(operand)?, self.scalar(condition)?, condition)?;
                    Test::Leaf(Leaf::Compare(a.scalar, Comparison::Equal, b.scalar), true)
                }
                None => self.test(condition, true)?,
            };
            branches.push((test, result(self, value)?));
        }
        let otherwise = otherwise.map_or(Ok(Scalar::Null), |expr| result(self, expr))?;
        if kind.is_none() {
            return Err(Problem::of(whole, "every result of this CASE is NULL"));
        }
        Ok(Typed { scalar: Scalar::Case(branches.into(), Box::new(otherwise)), kind, narrow })
    }

    fn cast(&mut self, whole: &Expr, kind: &CastKind, inner: &Expr, to: &DataType) -> Result<Typed, Problem> {
        if let (Expr::Value(value), DataType::Timestamp(..)) = (inner, to) {
            let text = value.value.clone().into_string();
            let us = text.as_deref().and_then(sql::microseconds);
            return us
                .map(|us| Typed::new(Scalar::Timestamp(us), Kind::Timestamp))
                .ok_or_else(|| Problem::of(inner, "this is no time").hint("write it like '2026-01-31T12:00:00Z'"));
        }
        let typed = self.scalar(inner)?;
        let tries = *kind == CastKind::TryCast;
        let refuse = |hint: &str| {
            let from = kind_name(typed.kind);
            Err(Problem::of(whole, format!("a rule over single events cannot cast {from} to {to}")).hint(hint))
        };
        match (typed.kind, to) {
            (Some(Kind::Integer), DataType::BigInt(_))
            | (Some(Kind::Text), DataType::Text | DataType::Varchar(_) | DataType::String(_))
            | (Some(Kind::Real), DataType::Double(_) | DataType::DoublePrecision)
            | (Some(Kind::Boolean), DataType::Bool | DataType::Boolean)
            | (Some(Kind::Timestamp), DataType::Timestamp(..)) => Ok(Typed { narrow: false, ..typed }),
            (Some(Kind::Integer), DataType::Double(_) | DataType::DoublePrecision) => {
                Ok(Typed::new(Scalar::ToReal(Box::new(typed.scalar)), Kind::Real))
            }
            (Some(Kind::Integer | Kind::Boolean), DataType::Text | DataType::Varchar(_) | DataType::String(_)) => {
                Ok(Typed::new(calling(typed.scalar, Call::ToText), Kind::Text))
            }
            (Some(Kind::Boolean), DataType::BigInt(_)) => {
                Ok(Typed::new(calling(typed.scalar, Call::ToInteger), Kind::Integer))
            }
            (Some(Kind::Text), DataType::BigInt(_)) if tries => {
                Ok(Typed::new(calling(typed.scalar, Call::ToInteger), Kind::Integer))
            }
            (Some(Kind::Text), DataType::BigInt(_) | DataType::Int(_) | DataType::Integer(_)) => {
                refuse("write TRY_CAST(… AS BIGINT): text that is no number would fail the whole batch")
            }
            (Some(Kind::Integer), DataType::Int(_) | DataType::Integer(_) | DataType::SmallInt(_)) => {
                refuse("whole numbers have 64 bits here: leave the cast out")
            }
            _ => refuse("TRY_CAST(text AS BIGINT), CAST(number AS TEXT) and CAST(number AS DOUBLE) are known"),
        }
    }
}

fn calling(scalar: Scalar, call: Call) -> Scalar {
    Scalar::Call(Box::new((scalar, call)))
}

fn field_name(field: &DateTimeField) -> String {
    field.to_string().to_ascii_lowercase()
}

/// A whole number that is written out, with a sign or without; as far as 32 bits go, which no text is longer than.
fn number_of(expr: &Expr, what: &str) -> Result<i64, Problem> {
    use datafusion::sql::sqlparser::ast::UnaryOperator;
    let number = match expr {
        Expr::Nested(inner) => return number_of(inner, what),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number_of(expr, what)?.checked_neg(),
        Expr::Value(value) => match literal(value)?.scalar {
            Scalar::Integer(number) => Some(number),
            _ => None,
        },
        _ => None,
    };
    let number = number.filter(|number| i32::try_from(*number).is_ok());
    number.ok_or_else(|| {
        Problem::of(expr, format!("{what} must be a whole number that is written out, of at most 32 bits"))
    })
}

/// A call of what rules over single events do not have.
pub(super) fn refusal(function: &Function) -> Problem {
    let name = functions::name(function);
    let at = function.span().start;
    if super::known::is_known(&name) {
        return Problem::at(at, format!("{name} is called with the wrong arguments"))
            .hint("arguments are plain values, as many as the function takes");
    }
    Problem::at(at, format!("a stream rule cannot call {name}")).hint(super::known::instead(&name))
}
