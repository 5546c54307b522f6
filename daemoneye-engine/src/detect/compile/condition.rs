//! Expressions that are TRUE, FALSE or NULL, compiled to the question "is it TRUE?" or "is it FALSE?".

use std::collections::HashSet;

use daemoneye_lib::columns::Kind;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, UnaryOperator, ValueWithSpan};

use super::super::matcher::{Comparison, Leaf, Scalar, Test};
use super::literal::{text_of, unify};
use super::scalar::{is_condition, unknown};
use super::{Compiler, Problem, Typed, kind_name};
use crate::text::{Fits, Folding};

impl Compiler {
    /// Compiles "`expr` has the truth value `wanted`".
    pub(super) fn test(&mut self, expr: &Expr, wanted: bool) -> Result<Test, Problem> {
        self.spend(expr.span().start)?;
        match expr {
            Expr::Nested(inner) => self.test(inner, wanted),
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => self.test(inner, !wanted),
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                self.junction(expr, op, wanted)
            }
            Expr::IsTrue(inner) => Ok(asked(self.test(inner, true)?, wanted)),
            Expr::IsNotTrue(inner) => Ok(asked(self.test(inner, true)?, !wanted)),
            Expr::IsFalse(inner) => Ok(asked(self.test(inner, false)?, wanted)),
            Expr::IsNotFalse(inner) => Ok(asked(self.test(inner, false)?, !wanted)),
            Expr::IsUnknown(inner) => self.unknown(inner, wanted),
            Expr::IsNotUnknown(inner) => self.unknown(inner, !wanted),
            Expr::IsNull(inner) => Ok(Test::Leaf(Leaf::Present(self.scalar(inner)?.scalar), !wanted)),
            Expr::IsNotNull(inner) => Ok(Test::Leaf(Leaf::Present(self.scalar(inner)?.scalar), wanted)),
            Expr::InList { expr: subject, list, negated } => self.in_list(subject, list, wanted != *negated),
            Expr::Between { expr: subject, negated, low, high } => {
                let wanted = wanted != *negated;
                let low = self.compare(subject, Comparison::GreaterOrEqual, low, wanted)?;
                let high = self.compare(subject, Comparison::LessOrEqual, high, wanted)?;
                Ok(joined(vec![low, high], wanted))
            }
            other => self.leaf(other, wanted),
        }
    }

    fn leaf(&mut self, expr: &Expr, wanted: bool) -> Result<Test, Problem> {
        match expr {
            Expr::BinaryOp { left, op, right } if comparison(op).is_some() => {
                let Some(comparison) = comparison(op) else { return Err(unknown(expr)) };
                self.compare(left, comparison, right, wanted)
            }
            Expr::IsDistinctFrom(left, right) => self.compare(left, Comparison::Distinct, right, wanted),
            Expr::IsNotDistinctFrom(left, right) => self.compare(left, Comparison::Distinct, right, !wanted),
            Expr::Like { negated, any: false, expr: subject, pattern, escape_char } => {
                self.like(subject, pattern, escape_char.as_ref(), false, wanted != *negated)
            }
            Expr::ILike { negated, any: false, expr: subject, pattern, escape_char } => {
                self.like(subject, pattern, escape_char.as_ref(), true, wanted != *negated)
            }
            Expr::RLike { negated, expr: subject, pattern, .. } => {
                let text = text_of(pattern, "a regular expression")?;
                Ok(Test::Leaf(self.expression(subject, pattern, text, "")?, wanted != *negated))
            }
            Expr::BinaryOp { left, op, right } if expression(op).is_some() => {
                let Some((fold, negated)) = expression(op) else { return Err(unknown(expr)) };
                let text = text_of(right, "a regular expression")?;
                Ok(Test::Leaf(self.expression(left, right, text, if fold { "i" } else { "" })?, wanted != negated))
            }
            Expr::Function(function) if super::functions::is_predicate(function) => {
                Ok(Test::Leaf(self.predicate(function)?, wanted))
            }
            other if is_condition(other) => Err(unknown(other)),
            other => self.boolean(other, wanted),
        }
    }

    /// A column, literal or function of kind boolean.
    fn boolean(&mut self, expr: &Expr, wanted: bool) -> Result<Test, Problem> {
        let typed = self.scalar(expr)?;
        match (typed.kind, typed.scalar) {
            (_, Scalar::Boolean(value)) => Ok(if value == wanted { Test::Always } else { Test::Never }),
            (None, _) => Ok(Test::Never),
            (Some(Kind::Boolean), scalar) => Ok(Test::Leaf(Leaf::Boolean(scalar), wanted)),
            (kind, _) => {
                Err(Problem::of(expr, format!("a condition must be true or false, and this is {}", kind_name(kind)))
                    .hint("compare it with something"))
            }
        }
    }

    /// Flat chains come as trees as deep as the chain is long, so they are walked with a loop.
    fn junction(&mut self, expr: &Expr, wanted_op: &BinaryOperator, wanted: bool) -> Result<Test, Problem> {
        let (mut rest, mut tests) = (expr, Vec::new());
        loop {
            match rest {
                Expr::BinaryOp { left, op, right } if op == wanted_op => {
                    tests.push(self.test(right, wanted)?);
                    rest = left;
                }
                first => {
                    tests.push(self.test(first, wanted)?);
                    break;
                }
            }
        }
        tests.reverse();
        Ok(joined(tests, (*wanted_op == BinaryOperator::And) == wanted))
    }

    fn unknown(&mut self, expr: &Expr, wanted: bool) -> Result<Test, Problem> {
        let known = Test::Any(vec![self.test(expr, true)?, self.test(expr, false)?]);
        Ok(asked(known, !wanted))
    }

    fn compare(&mut self, left: &Expr, op: Comparison, right: &Expr, wanted: bool) -> Result<Test, Problem> {
        let (a, b) = unify(self.scalar(left)?, self.scalar(right)?, left)?;
        Ok(match (op, a, b) {
            (Comparison::Equal, Typed { scalar: Scalar::Text(text), .. }, other)
            | (Comparison::Equal, other, Typed { scalar: Scalar::Text(text), .. }) => is(other.scalar, &text, wanted),
            (Comparison::NotEqual, Typed { scalar: Scalar::Text(text), .. }, other)
            | (Comparison::NotEqual, other, Typed { scalar: Scalar::Text(text), .. }) => {
                is(other.scalar, &text, !wanted)
            }
            (op, a, b) => Test::Leaf(Leaf::Compare(a.scalar, op, b.scalar), wanted),
        })
    }

    fn like(
        &mut self,
        subject: &Expr,
        pattern: &Expr,
        escape: Option<&ValueWithSpan>,
        fold: bool,
        wanted: bool,
    ) -> Result<Test, Problem> {
        if let Some(escape) = escape
            && escape.value.clone().into_string().as_deref() != Some("\\")
        {
            return Err(Problem::at(escape.span.start, "the escape character of LIKE is the backslash")
                .hint("write ESCAPE '\\' or leave it out"));
        }
        let text = text_of(pattern, "the pattern of LIKE")?;
        let subject = self.of_kind(subject, Kind::Text)?;
        let fits = Fits::like(text, fold).map_err(|error| Problem::of(pattern, error))?;
        Ok(Test::Leaf(Leaf::Fits(subject, fits), wanted))
    }

    /// Text in literals becomes one look-up; anything else is the OR of its comparisons, which is what IN means.
    fn in_list(&mut self, subject: &Expr, list: &[Expr], wanted: bool) -> Result<Test, Problem> {
        let (mut texts, mut with_null, mut others) = (HashSet::new(), false, Vec::new());
        for item in list {
            let typed = self.scalar(item)?;
            match (typed.scalar, typed.kind) {
                (Scalar::Text(text), _) => drop(texts.insert(text)),
                (Scalar::Null, _) => with_null = true,
                _ => others.push(item),
            }
        }
        let typed = self.scalar(subject)?;
        if list.is_empty() {
            // Of an empty list: nothing is in it, not even NULL.
            return Ok(if wanted { Test::Never } else { Test::Always });
        }
        if others.is_empty() && matches!(typed.kind, Some(Kind::Text)) {
            return Ok(Test::Leaf(Leaf::OneOf { subject: typed.scalar, texts, with_null }, wanted));
        }
        let tests: Result<Vec<_>, _> =
            list.iter().map(|item| self.compare(subject, Comparison::Equal, item, wanted)).collect();
        Ok(joined(tests?, !wanted))
    }
}

/// Equality with a literal.
fn is(subject: Scalar, text: &str, wanted: bool) -> Test {
    Test::Leaf(Leaf::Fits(subject, Fits::equal(Folding::None, &[text])), wanted)
}

/// All of them, or any of them. What is joined the same way inside one of them stands beside the others: so the parts of an AND are known
/// one by one.
fn joined(tests: Vec<Test>, all: bool) -> Test {
    let mut flat = Vec::with_capacity(tests.len());
    for test in tests {
        match test {
            Test::All(inner) if all => flat.extend(inner),
            Test::Any(inner) if !all => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.pop() {
        Some(only) if flat.is_empty() => only,
        Some(last) => {
            flat.push(last);
            // They stay as long as the rule does.
            flat.shrink_to_fit();
            if all { Test::All(flat) } else { Test::Any(flat) }
        }
        None if all => Test::Always,
        None => Test::Never,
    }
}

/// IS TRUE and its kin are never NULL, so the other question is the plain opposite.
fn asked(test: Test, wanted: bool) -> Test {
    if wanted { test } else { Test::Not(Box::new(test)) }
}

const fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    match op {
        BinaryOperator::Eq => Some(Comparison::Equal),
        BinaryOperator::Gt => Some(Comparison::Greater),
        BinaryOperator::GtEq => Some(Comparison::GreaterOrEqual),
        BinaryOperator::Lt => Some(Comparison::Less),
        BinaryOperator::LtEq => Some(Comparison::LessOrEqual),
        BinaryOperator::NotEq => Some(Comparison::NotEqual),
        _ => None,
    }
}

/// (fold case, negated) of the operators `~`, `~*`, `!~` and `!~*`.
const fn expression(op: &BinaryOperator) -> Option<(bool, bool)> {
    match op {
        BinaryOperator::PGRegexIMatch => Some((true, false)),
        BinaryOperator::PGRegexMatch => Some((false, false)),
        BinaryOperator::PGRegexNotIMatch => Some((true, true)),
        BinaryOperator::PGRegexNotMatch => Some((false, true)),
        _ => None,
    }
}
