//! Texts against patterns, as functions that look at the clock while they go: a batch of long texts and a large pattern
//! takes minutes, in which the engine's own operators do not come back.
//!
//! They take the place of `~`, of LIKE with a pattern from a column, and of LIKE that looks for more than a fixed text, on the plan
//! and after types are settled. A regular expression is compiled once for the query; DataFusion compiles it for each batch, and
//! rewrites simple ones into LIKE and `=`, of which two rewrites change the answer (a backslash reaches LIKE unescaped, `.*` over NULL becomes FALSE).

use super::allowance::Allowance;
use super::memo::Memo;
use super::patterns::{self, MAX_PATTERN_BYTES};
use super::sieve::Piece;
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, BooleanBufferBuilder, BooleanBuilder, StringViewArray,
};
use datafusion::arrow::compute::{cast, concat, ilike, like, nilike, nlike};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::as_string_array;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, Like, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use regex::{Regex, RegexBuilder};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows between two looks at the clock: a look costs as much as matching one short text.
pub(super) const ROWS_A_LOOK: usize = 32;
/// A compiled expression is held while the query runs, so it is paid for: bytes of its program, of the states that it makes
/// as it runs, tried from small to large. The last is what the crate allows by itself.
const SIZES: [(usize, usize); 3] = [(64 << 10, 256 << 10), (1 << 20, 1 << 20), (10 << 20, 2 << 20)];
/// `regexp_like(text, pattern)` is `text ~ pattern`.
const REGEXP_LIKE: &str = "regexp_like";
/// Bytes of a LIKE pattern that is run as a regular expression: longer ones are not what a person looks for.
const LIKE_BYTES: usize = 256;
/// What may stand in its third argument, each letter once or more: those of the crate that name a way of matching.
const FLAGS: &str = "imsxU";

/// The expression with our function in the place of `~`, or of LIKE with a pattern that is not known before.
pub(crate) fn settled(expr: Expr, allowance: &Arc<Allowance>) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let Some((negated, folded)) = expression(op) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            match literal(&right) {
                Some(pattern) => matching(*left, *right, &pattern, negated, folded, allowance),
                // NULL: whoever asks gets NULL.
                None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            }
        }
        Expr::ScalarFunction(call) if call.name() == REGEXP_LIKE => match flagged(&call.args) {
            Some((text, written, pattern)) => matching(text, written, &pattern, false, false, allowance),
            // NULL, or flags that the function refuses itself.
            None => Ok(Transformed::no(Expr::ScalarFunction(call))),
        },
        Expr::Like(like) => liked(like, allowance),
        other => Ok(Transformed::no(other)),
    }
}

/// Whether the operator is a regular expression: negated, and without regard to case.
const fn expression(op: Operator) -> Option<(bool, bool)> {
    match op {
        Operator::RegexMatch => Some((false, false)),
        Operator::RegexIMatch => Some((false, true)),
        Operator::RegexNotMatch => Some((true, false)),
        Operator::RegexNotIMatch => Some((true, true)),
        _ => None,
    }
}

/// The text, the pattern as it stands in the statement, and the pattern with its flags in it.
fn flagged(args: &[Expr]) -> Option<(Expr, Expr, String)> {
    let (text, written, flags) = match args {
        [text, written] => (text, written, String::new()),
        [text, written, flags] => (text, written, literal(flags)?),
        _ => return None,
    };
    let pattern = literal(written)?;
    let pattern = match flags.as_str() {
        "" => pattern,
        flags if flags.chars().all(|flag| FLAGS.contains(flag)) => format!("(?{flags}){pattern}"),
        _ => return None,
    };
    Some((text.clone(), written.clone(), pattern))
}

pub(super) fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Cast(Cast { expr, .. }) => literal(expr),
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

fn matching(
    text: Expr,
    written: Expr,
    pattern: &str,
    negated: bool,
    folded: bool,
    allowance: &Arc<Allowance>,
) -> Result<Transformed<Expr>> {
    allowance.time()?;
    let regex = compiled(pattern, folded, allowance)?;
    let piece = if folded { None } else { Piece::of_expression(pattern).map(Box::new) };
    let kind = Kind::Expression { regex, negated, piece };
    Ok(Transformed::yes(call(kind, text, written, allowance)))
}

pub(super) fn compiled(pattern: &str, folded: bool, allowance: &Allowance) -> Result<Regex> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return plan_err!("a pattern of more than {MAX_PATTERN_BYTES} bytes");
    }
    for (program, states) in SIZES {
        match RegexBuilder::new(pattern).case_insensitive(folded).size_limit(program).dfa_size_limit(states).build() {
            Ok(regex) => {
                return match allowance.memory(program.saturating_add(states)) {
                    Ok(()) => Ok(regex),
                    Err(_) => plan_err!("the patterns of the statement need too much memory together"),
                };
            }
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => return plan_err!("the pattern does not compile: {}", patterns::words(&error)),
        }
    }
    plan_err!("the pattern does not compile: it needs too much memory")
}

/// A literal pattern stays LIKE, with the backslash as what escapes in it; DataFusion runs no other.
fn liked(like: Like, allowance: &Arc<Allowance>) -> Result<Transformed<Expr>> {
    let Like { negated, expr, pattern, escape_char, case_insensitive } = like;
    if let Some(text) = literal(&pattern) {
        let Some(escape) = escape_char.filter(|escape| *escape != '\\') else {
            // Many of them may together need more than there is; LIKE needs nothing.
            if let (false, Some(sought)) = (case_insensitive, within(&text))
                && let Ok(regex) = compiled(&sought, false, allowance)
            {
                let kind = Kind::Expression { regex, negated, piece: Piece::of_like(&text).map(Box::new) };
                return Ok(Transformed::yes(call(kind, *expr, *pattern, allowance)));
            }
            let like = Like { negated, expr, pattern, escape_char, case_insensitive };
            return Ok(Transformed::no(Expr::Like(like)));
        };
        let pattern = Box::new(retyped(*pattern, with_backslashes(&text, escape)?));
        return Ok(Transformed::yes(Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive })));
    }
    if escape_char.is_some_and(|escape| escape != '\\') {
        return plan_err!("ESCAPE goes with a pattern that is a string literal or a parameter");
    }
    Ok(Transformed::yes(call(Kind::Like { negated, folded: case_insensitive }, *expr, *pattern, allowance)))
}

/// The literal with another text and of the same type, which may be what it is cast to.
fn retyped(literal: Expr, text: String) -> Expr {
    match literal {
        Expr::Cast(mut cast) => {
            cast.expr = Box::new(retyped(*cast.expr, text));
            Expr::Cast(cast)
        }
        Expr::Literal(ScalarValue::Utf8View(_), of) => Expr::Literal(ScalarValue::Utf8View(Some(text)), of),
        _ => Expr::Literal(ScalarValue::Utf8(Some(text)), None),
    }
}

/// A regular expression for a LIKE pattern that begins with `%` and is more than one fixed text: DataFusion runs those as an
/// anchored expression, which reads every text to its end. `None` for the others, and for what escapes or is long.
fn within(pattern: &str) -> Option<String> {
    if pattern.len() > LIKE_BYTES || pattern.contains('\\') {
        return None;
    }
    let inner = pattern.strip_prefix('%')?.trim_start_matches('%');
    let (mut sought, mut fixed, mut rest) = (String::from("(?s)"), true, inner.chars().peekable());
    while let Some(next) = rest.next() {
        match next {
            '%' if rest.peek().is_none() => return (!fixed).then_some(sought),
            '%' => sought.push_str(".*"),
            '_' => sought.push('.'),
            other => sought.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
        fixed &= !matches!(next, '%' | '_');
    }
    sought.push_str(r"\z");
    (!fixed).then_some(sought)
}

/// The pattern with another escape character, as one with backslashes.
fn with_backslashes(pattern: &str, escape: char) -> Result<String> {
    let mut text = String::with_capacity(pattern.len().saturating_mul(2));
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        if next == escape {
            let Some(escaped) = rest.next() else {
                return plan_err!("the LIKE pattern ends with its ESCAPE character");
            };
            text.extend(['\\', escaped]);
        } else if next == '\\' {
            text.push_str(r"\\");
        } else {
            text.push(next);
        }
    }
    Ok(text)
}

fn call(kind: Kind, text: Expr, pattern: Expr, allowance: &Arc<Allowance>) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    let udf = Matches { kind, allowance: Arc::clone(allowance), memos: Mutex::default(), signature };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(udf)), vec![text, pattern]))
}

/// An expression, and what stands in everything that it matches.
type Sought<'a> = (&'a Regex, Option<&'a Piece>);

#[derive(Debug)]
enum Kind {
    Expression { regex: Regex, negated: bool, piece: Option<Box<Piece>> },
    Like { negated: bool, folded: bool },
}

impl Kind {
    fn identity(&self) -> (&str, bool, bool) {
        match self {
            Self::Expression { regex, negated, .. } => (regex.as_str(), *negated, true),
            Self::Like { negated, folded } => ("", *negated, *folded),
        }
    }
}

/// A text and a pattern; the pattern of a regular expression is repeated as an argument so that EXPLAIN shows it.
#[derive(Debug)]
struct Matches {
    kind: Kind,
    allowance: Arc<Allowance>,
    /// One for each thread that is at work on it.
    memos: Mutex<Vec<Memo>>,
    signature: Signature,
}

impl PartialEq for Matches {
    /// Each that was written is itself only: what it compiled to cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Matches {}

impl Hash for Matches {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.identity().hash(state);
    }
}

impl ScalarUDFImpl for Matches {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Expression { negated: false, .. } => "matches",
            Kind::Expression { negated: true, .. } => "matches_not",
            Kind::Like { negated: false, .. } => "like",
            Kind::Like { negated: true, .. } => "not_like",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [text, pattern] = args.args.as_slice() else { return internal_err!("{} takes two values", self.name()) };
        match &self.kind {
            Kind::Expression { regex, negated, piece } => {
                let text = text.to_array(args.number_rows)?;
                let as_it_is = text.data_type() == &DataType::Utf8View;
                let text = if as_it_is { text } else { plain(text)? };
                self.expression(&text, (regex, piece.as_deref()), *negated)
            }
            Kind::Like { negated, folded } => {
                let (text, pattern) = (texts(text, args.number_rows)?, texts(pattern, args.number_rows)?);
                self.like(&text, &pattern, *negated, *folded)
            }
        }
    }
}

impl Matches {
    fn expression(&self, text: &ArrayRef, sought: Sought<'_>, negated: bool) -> Result<ColumnarValue> {
        let found = match text.as_string_view_opt() {
            Some(views) => self.remembered(views, sought, negated)?,
            None => self.found(as_string_array(text)?.iter(), sought.0, negated)?,
        };
        Ok(ColumnarValue::Array(Arc::new(found)))
    }

    /// A dictionary gives the rows that share a value the same place in the same buffer: each place is looked at once.
    fn remembered(&self, views: &StringViewArray, (regex, piece): Sought<'_>, negated: bool) -> Result<BooleanArray> {
        self.allowance.time()?;
        let mut memo = self.memo(views, piece);
        let mut found = BooleanBufferBuilder::new(views.len());
        let mut asked = 0;
        for (row, view) in views.views().iter().enumerate() {
            let matches = views.is_valid(row)
                && memo.get_or(*view, || {
                    asked += 1;
                    regex.is_match(views.value(row))
                });
            found.append(matches != negated);
            if asked == ROWS_A_LOOK {
                asked = 0;
                self.allowance.time()?;
            }
        }
        self.memos.lock().unwrap_or_else(PoisonError::into_inner).push(memo);
        Ok(BooleanArray::new(found.finish(), views.nulls().cloned()))
    }

    /// The one that has come to these buffers, or one that nobody is at work with.
    fn memo(&self, views: &StringViewArray, piece: Option<&Piece>) -> Memo {
        let buffers = views.data_buffers();
        let mut memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        let knows = memos.iter().position(|memo| memo.knows(buffers));
        let free = (knows.is_some() || !memos.is_empty()).then(|| memos.remove(knows.unwrap_or(0)));
        drop(memos);
        let mut memo = free.unwrap_or_default();
        memo.turn_to(buffers, piece, views.len());
        memo
    }

    fn found<'a>(
        &self,
        texts: impl Iterator<Item = Option<&'a str>>,
        regex: &Regex,
        negated: bool,
    ) -> Result<BooleanArray> {
        let mut found = BooleanBuilder::with_capacity(texts.size_hint().0);
        for (row, text) in texts.enumerate() {
            if row.is_multiple_of(ROWS_A_LOOK) {
                self.allowance.time()?;
            }
            found.append_option(text.map(|text| regex.is_match(text) != negated));
        }
        Ok(found.finish())
    }

    fn like(&self, text: &ArrayRef, pattern: &ArrayRef, negated: bool, folded: bool) -> Result<ColumnarValue> {
        let kernel = match (negated, folded) {
            (false, false) => like,
            (false, true) => ilike,
            (true, false) => nlike,
            (true, true) => nilike,
        };
        let mut parts: Vec<ArrayRef> = Vec::new();
        for from in (0..text.len()).step_by(ROWS_A_LOOK) {
            self.allowance.time()?;
            let rows = ROWS_A_LOOK.min(text.len().saturating_sub(from));
            let found: BooleanArray = kernel(&text.slice(from, rows), &pattern.slice(from, rows))?;
            parts.push(Arc::new(found));
        }
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            return Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(Vec::<bool>::new()))));
        }
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

/// One value for each row, as plain text.
pub(super) fn texts(value: &ColumnarValue, rows: usize) -> Result<ArrayRef, DataFusionError> {
    plain(value.to_array(rows)?)
}

fn plain(array: ArrayRef) -> Result<ArrayRef> {
    Ok(if array.data_type() == &DataType::Utf8 { array } else { cast(&array, &DataType::Utf8)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::StringArray;

    #[test]
    fn a_like_pattern_that_is_searched_for_finds_what_like_finds() {
        let patterns = [
            "%unit_42%",
            "%a%b%",
            "%_",
            "%%a_c",
            "%.c_",
            "%a%\u{e9}_%",
            "%(_)%",
            "%_%",
            "a_b",
            "%plain%",
            "%",
            "%a\\_b%",
        ];
        let texts = [
            "",
            "a",
            "unit_42",
            "src/unit_420.c\nx",
            "unitx42",
            "a1b",
            "ab",
            "xa\nb",
            "abc",
            "x.cc",
            "a\u{e9}\u{e9}",
            "(y)",
        ];
        let searched = |pattern: &str| within(pattern).map(|sought| Regex::new(&sought).unwrap());
        for pattern in patterns {
            let Some(regex) = searched(pattern) else { continue };
            let all = StringArray::from_iter_values(texts);
            let found = like(&all, &StringArray::new_scalar(pattern)).unwrap();
            for (text, expected) in texts.iter().zip(found.iter()) {
                assert_eq!(Some(regex.is_match(text)), expected, "{text:?} LIKE {pattern:?}");
            }
        }
        let left = ["a_b", "%plain%", "%", "%a\\_b%"];
        assert!(left.iter().all(|pattern| within(pattern).is_none()), "LIKE itself is better at these");
    }
}
