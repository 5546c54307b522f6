//! Expressions that have a value.

use daemoneye_lib::columns::Kind;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, UnaryOperator};

use super::super::matcher::{Arithmetic, Scalar};
use super::literal::{literal, time};
use super::select::window_rule;
use super::{Compiler, Problem, Typed, functions, kind_name};
use crate::sql::arithmetic::DOES_NOT_FIT;

impl Compiler {
    /// Compiles an expression for its value.
    pub(super) fn scalar(&mut self, expr: &Expr) -> Result<Typed, Problem> {
        self.spend(expr.span().start)?;
        match expr {
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Nested(inner) => self.scalar(inner),
            Expr::Value(value) => literal(value),
            Expr::TypedString(typed) => {
                let text = typed.value.value.clone().into_string();
                let known = typed.data_type.to_string().starts_with("TIMESTAMP");
                text.filter(|_| known).and_then(|text| time(&text)).map_or_else(
                    || Err(unknown(expr).hint("write TIMESTAMP '2026-01-31T12:00:00Z'")),
                    |micros| Ok(Typed::new(Scalar::Timestamp(micros), Kind::Timestamp)),
                )
            }
            Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner } => self.number(inner),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => self.negated(expr, inner),
            Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } => self.joined(left, right),
            Expr::BinaryOp { left, op: op @ (BinaryOperator::Plus | BinaryOperator::Minus), right }
                if matches!(right.as_ref(), Expr::Interval(_)) =>
            {
                let sign = if *op == BinaryOperator::Plus { 1 } else { -1 };
                let Expr::Interval(interval) = right.as_ref() else { return Err(unknown(expr)) };
                self.later(left, interval, sign).unwrap_or_else(|| Err(unknown(expr)))
            }
            Expr::BinaryOp { left, op, right } if arithmetic(op).is_some() => self.arithmetic(expr, left, op, right),
            Expr::Function(function) if !functions::is_predicate(function) => self.call(function),
            other if is_condition(other) => {
                let (yes, no) = (self.test(other, true)?, self.test(other, false)?);
                Ok(Typed::new(Scalar::Truth { yes: Box::new(yes), no: Box::new(no) }, Kind::Boolean))
            }
            other => self.spelled(other).unwrap_or_else(|| Err(unknown(other))),
        }
    }

    /// Compiles an expression that has to be of `kind`.
    pub(super) fn of_kind(&mut self, expr: &Expr, kind: Kind) -> Result<Scalar, Problem> {
        let typed = self.scalar(expr)?;
        match typed.kind {
            Some(found) if found != kind => Err(Problem::of(
                expr,
                format!("{} is needed here, and this is {}", kind_name(Some(kind)), kind_name(typed.kind)),
            )),
            _ => Ok(typed.scalar),
        }
    }

    fn number(&mut self, expr: &Expr) -> Result<Typed, Problem> {
        let typed = self.scalar(expr)?;
        match typed.kind {
            Some(Kind::Integer | Kind::Real) => Ok(typed),
            kind => Err(Problem::of(expr, format!("a sign stands before {}", kind_name(kind)))),
        }
    }

    fn negated(&mut self, whole: &Expr, expr: &Expr) -> Result<Typed, Problem> {
        let typed = self.number(expr)?;
        match (typed.scalar, typed.kind) {
            (Scalar::Integer(value), _) => constant(value.checked_neg(), whole),
            (Scalar::Real(value), _) => Ok(Typed::new(Scalar::Real(-value), Kind::Real)),
            (scalar, Some(Kind::Integer)) => {
                Ok(Typed { scalar: Scalar::Negate(Box::new(scalar)), kind: typed.kind, narrow: typed.narrow })
            }
            _ => Err(Problem::of(expr, "only whole numbers are calculated with in a rule")),
        }
    }

    fn joined(&mut self, left: &Expr, right: &Expr) -> Result<Typed, Problem> {
        let (left, right) = (self.of_kind(left, Kind::Text)?, self.of_kind(right, Kind::Text)?);
        Ok(Typed::new(Scalar::Join(Box::new(left), Box::new(right)), Kind::Text))
    }

    fn arithmetic(&mut self, whole: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Typed, Problem> {
        let Some(arithmetic) = arithmetic(op) else { return Err(unknown(whole)) };
        let (a, b) = (self.whole(left)?, self.whole(right)?);
        if a.narrow && b.narrow {
            return Err(Problem::of(left, "two lengths cannot be calculated with each other")
                .hint("compare each with a number"));
        }
        let divides = matches!(arithmetic, Arithmetic::Divide | Arithmetic::Remainder);
        if divides && !matches!(b.scalar, Scalar::Integer(by) if by != 0 && by != -1) {
            return Err(Problem::of(right, "a rule divides by a number other than 0 and -1 only")
                .hint("a division that can fail would fail for the whole batch"));
        }
        match (a.scalar, b.scalar) {
            (Scalar::Integer(a), Scalar::Integer(b)) => constant(arithmetic.apply(a, b), whole),
            (a, b) => Ok(Typed::new(Scalar::Arithmetic(Box::new(a), arithmetic, Box::new(b)), Kind::Integer)),
        }
    }

    fn whole(&mut self, expr: &Expr) -> Result<Typed, Problem> {
        let typed = self.scalar(expr)?;
        match typed.kind {
            Some(Kind::Integer) => Ok(typed),
            kind => Err(Problem::of(
                expr,
                format!("only whole numbers are calculated with in a rule, and this is {}", kind_name(kind)),
            )),
        }
    }
}

/// What is calculated once, at load. Left to run, a result that does not fit would be NULL in every event, which nobody means.
fn constant(result: Option<i64>, whole: &Expr) -> Result<Typed, Problem> {
    result.map(|value| Typed::new(Scalar::Integer(value), Kind::Integer)).ok_or_else(|| {
        Problem::of(whole, format!("{} {DOES_NOT_FIT}", shortened(whole))).hint(format!(
            "whole numbers go from {} to {}",
            i64::MIN,
            i64::MAX
        ))
    })
}

const fn arithmetic(op: &BinaryOperator) -> Option<Arithmetic> {
    match op {
        BinaryOperator::Divide => Some(Arithmetic::Divide),
        BinaryOperator::Minus => Some(Arithmetic::Subtract),
        BinaryOperator::Modulo => Some(Arithmetic::Remainder),
        BinaryOperator::Multiply => Some(Arithmetic::Multiply),
        BinaryOperator::Plus => Some(Arithmetic::Add),
        _ => None,
    }
}

/// Whether [`Compiler::test`] decides it by itself, rather than by its value.
pub(super) fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::Between { .. }
        | Expr::ILike { .. }
        | Expr::InList { .. }
        | Expr::IsDistinctFrom(..)
        | Expr::IsFalse(_)
        | Expr::IsNotDistinctFrom(..)
        | Expr::IsNotFalse(_)
        | Expr::IsNotNull(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsUnknown(_)
        | Expr::Like { .. }
        | Expr::RLike { .. }
        | Expr::UnaryOp { op: UnaryOperator::Not, .. } => true,
        Expr::BinaryOp { op, .. } => arithmetic(op).is_none() && *op != BinaryOperator::StringConcat,
        Expr::Function(function) => functions::is_predicate(function),
        _ => false,
    }
}

/// The refusal of a node that is not known here, by its text.
pub(super) fn unknown(expr: &Expr) -> Problem {
    if matches!(expr, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }) {
        return window_rule(expr.span().start, "a subquery");
    }
    let hint = "known are columns, literals, AND, OR, NOT, comparisons, IN, BETWEEN, LIKE, ILIKE, REGEXP, IS, CASE, CAST, \
                + - * / %, || and the functions of rules";
    Problem::of(expr, format!("a stream rule cannot contain {}", shortened(expr))).hint(hint)
}

/// Enough of its text to know it by.
fn shortened(expr: &Expr) -> String {
    expr.to_string().chars().take(60).collect()
}
