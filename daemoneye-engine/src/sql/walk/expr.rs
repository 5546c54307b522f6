//! Expressions: every kind by name.

use super::super::patterns::{self, MAX_PATTERN_BYTES};
use super::super::times;
use super::{Step, Walker};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastFormat, CastKind, CeilFloorKind, DataType, DateTimeField, Expr, Ident, Interval,
    Query, TypedString, UnaryOperator, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::keywords::Keyword;

/// Patterns of one statement that are compiled to tell the place of a mistake: one can take tens of milliseconds, and the check
/// has no deadline. Mistakes in later ones are told when the query runs, without their place.
const COMPILED_PATTERNS: usize = 16;

impl Walker {
    pub(super) fn expr(&mut self, expr: &Expr) -> Step {
        // A flat chain of a thousand ORs is a thousand levels deep to the left: walk it as the list that it is.
        let mut chain = vec![expr];
        while let Some(expr) = chain.pop() {
            if let Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } = expr {
                chain.push(right);
                chain.push(left);
            } else {
                self.deeper(|walker| walker.node(expr))?;
            }
        }
        Ok(())
    }

    fn exprs(&mut self, exprs: &[Expr]) -> Step {
        exprs.iter().try_for_each(|expr| self.expr(expr))
    }

    fn node(&mut self, expr: &Expr) -> Step {
        match expr {
            Expr::Identifier(ident) => {
                self.referred(1);
                self.ident(ident)
            }
            Expr::CompoundIdentifier(parts) => self.column(expr, parts),
            Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Nested(inner) => self.expr(inner),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.expr(left)?;
                self.expr(right)
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::RLike { .. } => self.predicate(expr),
            Expr::UnaryOp { op, expr: inner } => self.unary(expr, *op, inner),
            Expr::Cast { kind, expr: inner, data_type, array, format } => {
                self.cast(expr, kind, data_type, *array, format.as_ref())?;
                self.expr(inner)
            }
            Expr::Ceil { expr: inner, field } | Expr::Floor { expr: inner, field } if is_plain(field) => {
                self.expr(inner)
            }
            Expr::Extract { .. } | Expr::Position { .. } | Expr::Substring { .. } | Expr::Trim { .. } => {
                self.spelled(expr)
            }
            Expr::Value(value) => self.value(value),
            Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax }) => {
                self.absent(*uses_odbc_syntax, "{d '…'}", "write TIMESTAMP '…'")?;
                if !matches!(data_type, DataType::Date | DataType::Timestamp(..)) {
                    return self.refuse_node(
                        expr,
                        format!("{data_type} '…' is not accepted"),
                        "use TIMESTAMP '…' or DATE '…'",
                    );
                }
                if !matches!(value.value, Value::SingleQuotedString(_)) {
                    return self.refuse_node(
                        expr,
                        format!("{data_type} takes a string literal"),
                        "bind the time itself: column > $1",
                    );
                }
                self.value(value)
            }
            Expr::Function(function) => self.function(function),
            Expr::Case { case_token, end_token: _, operand, conditions, else_result } => {
                self.seen(case_token.0.span);
                self.optional(operand.as_deref())?;
                for CaseWhen { condition, result } in conditions {
                    self.expr(condition)?;
                    self.expr(result)?;
                }
                self.optional(else_result.as_deref())
            }
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => self.scalar(subquery),
            Expr::Interval(interval) => self.interval(expr, interval),
            refused => self.not_ours(refused),
        }
    }

    /// Comparisons with a list, a range or a pattern.
    fn predicate(&mut self, expr: &Expr) -> Step {
        match expr {
            Expr::InList { expr, list, negated: _ } => {
                self.expr(expr)?;
                self.exprs(list)
            }
            Expr::InSubquery { expr, subquery, negated: _ } => {
                self.expr(expr)?;
                self.scalar(subquery)
            }
            Expr::Between { expr, negated: _, low, high } => {
                self.expr(expr)?;
                self.expr(low)?;
                self.expr(high)
            }
            Expr::Like { negated: _, any, expr, pattern, escape_char }
            | Expr::ILike { negated: _, any, expr, pattern, escape_char } => {
                self.expr(expr)?;
                self.absent_at(Keyword::ANY, *any, "LIKE ANY", "use OR")?;
                self.expr(pattern)?;
                self.escape(escape_char.as_ref())
            }
            Expr::RLike { negated: _, expr, pattern, regexp: _ } => {
                self.expr(expr)?;
                self.pattern(pattern)
            }
            refused => self.not_ours(refused),
        }
    }

    /// Functions with a syntax of their own.
    fn spelled(&mut self, expr: &Expr) -> Step {
        match expr {
            Expr::Extract { field, syntax: _, expr: inner } => {
                self.expr(inner)?;
                self.date_field(expr, field)
            }
            Expr::Position { expr, r#in } => {
                self.expr(expr)?;
                self.expr(r#in)
            }
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                self.expr(expr)?;
                self.optional(substring_from.as_deref())?;
                self.optional(substring_for.as_deref())
            }
            Expr::Trim { trim_where: _, trim_what, expr, trim_characters } => {
                self.absent(trim_characters.is_some(), "TRIM with a list", "use TRIM(BOTH 'x' FROM text)")?;
                self.optional(trim_what.as_deref())?;
                self.expr(expr)
            }
            refused => self.not_ours(refused),
        }
    }

    /// The kinds that we know and do not accept, each with what does it here. No wildcard: a new kind must be decided.
    #[rustfmt::skip]
    fn not_ours(&self, expr: &Expr) -> Step {
        let (what, hint) = match expr {
            Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } => ("a path into a value", "there are no lists, maps or documents"),
            Expr::IsNormalized { .. } => ("IS NORMALIZED", "compare the text"),
            Expr::InUnnest { .. } => ("IN UNNEST", "use IN (…)"),
            Expr::SimilarTo { .. } => ("SIMILAR TO", "use LIKE or REGEXP"),
            Expr::AnyOp { .. } => ("ANY", "use IN (…)"),
            Expr::AllOp { .. } => ("ALL", "use NOT IN (…)"),
            Expr::Convert { .. } => ("CONVERT", "use CAST"),
            Expr::AtTimeZone { .. } => ("AT TIME ZONE", "times are UTC"),
            Expr::Ceil { .. } | Expr::Floor { .. } => ("CEIL and FLOOR with a scale or a unit", "use round(x, 2), or date_trunc('hour', time)"),
            Expr::Overlay { .. } => ("OVERLAY", "use replace or concat"),
            Expr::Collate { .. } => ("COLLATE", "use lower(x), or ILIKE"),
            Expr::Prefixed { .. } => ("a prefixed value", "write a plain literal"),
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => ("ROLLUP, CUBE and GROUPING SETS", "use several queries with UNION ALL"),
            Expr::Tuple(_) => ("a row value", "compare the columns one by one with AND"),
            Expr::Struct { .. } | Expr::Named { .. } | Expr::Dictionary(_) | Expr::Map(_) | Expr::Array(_) => ("a list, map or struct", "use plain values"),
            Expr::MatchAgainst { .. } => ("MATCH AGAINST", "use LIKE or REGEXP"),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => ("* inside an expression", "name a column"),
            Expr::OuterJoin(_) => ("(+)", "use LEFT JOIN"),
            Expr::Prior(_) => ("PRIOR", "use ancestry"),
            Expr::Lambda(_) => ("a lambda", "use plain expressions"),
            Expr::MemberOf(_) => ("MEMBER OF", "use IN (…)"),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::IsFalse(_) | Expr::IsNotFalse(_) | Expr::IsTrue(_)
            | Expr::IsNotTrue(_) | Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsUnknown(_) | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) | Expr::InList { .. } | Expr::InSubquery { .. }
            | Expr::Between { .. } | Expr::BinaryOp { .. } | Expr::Like { .. } | Expr::ILike { .. } | Expr::RLike { .. }
            | Expr::UnaryOp { .. } | Expr::Cast { .. } | Expr::Extract { .. } | Expr::Position { .. } | Expr::Substring { .. }
            | Expr::Trim { .. } | Expr::Nested(_) | Expr::Value(_) | Expr::TypedString(_) | Expr::Function(_) | Expr::Case { .. }
            | Expr::Exists { .. } | Expr::Subquery(_) | Expr::Interval(_) => ("this form", "write it otherwise"),
        };
        self.refuse_node(expr, format!("{what} is not accepted"), hint)
    }

    /// A query where a value stands: it counts as what its column stands for.
    fn scalar(&mut self, query: &Query) -> Step {
        self.subquery(query)?;
        self.referred(self.produced);
        Ok(())
    }

    fn optional(&mut self, expr: Option<&Expr>) -> Step {
        expr.map_or(Ok(()), |expr| self.expr(expr))
    }

    /// A name. `@x` would be looked up as a variable.
    pub(super) fn ident(&mut self, ident: &Ident) -> Step {
        self.seen(ident.span);
        if ident.value.starts_with('@') {
            return self.refuse("variables do not exist here", "bind values as $1, $2, …");
        }
        Ok(())
    }

    /// Columns that the expression under way stands for, beside those it has.
    pub(super) fn referred(&mut self, columns: usize) {
        self.references = self.references.saturating_add(columns);
    }

    fn column(&mut self, whole: &Expr, parts: &[Ident]) -> Step {
        self.referred(1);
        let [table, column] = parts else {
            return self.refuse_node(whole, format!("{whole} has too many parts"), "write table.column or column");
        };
        self.ident(table)?;
        self.ident(column)
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Step {
        match op {
            BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::StringConcat
            | BinaryOperator::Gt
            | BinaryOperator::Lt
            | BinaryOperator::GtEq
            | BinaryOperator::LtEq
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::BitwiseAnd
            | BinaryOperator::BitwiseOr => {
                self.expr(left)?;
                self.expr(right)
            }
            BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch => {
                self.expr(left)?;
                self.pattern(right)
            }
            // The operators of other databases: geometry, documents, full text. All of them have a plain spelling.
            other => {
                self.refuse_node(left, format!("the operator {other} is not accepted"), "use LIKE, REGEXP, = or AND")
            }
        }
    }

    fn unary(&mut self, whole: &Expr, op: UnaryOperator, inner: &Expr) -> Step {
        match op {
            UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => self.expr(inner),
            UnaryOperator::AtDashAt
            | UnaryOperator::BangNot
            | UnaryOperator::BitwiseNot
            | UnaryOperator::DoubleAt
            | UnaryOperator::Hash
            | UnaryOperator::PGAbs
            | UnaryOperator::PGCubeRoot
            | UnaryOperator::PGPostfixFactorial
            | UnaryOperator::PGPrefixFactorial
            | UnaryOperator::PGSquareRoot
            | UnaryOperator::QuestionDash
            | UnaryOperator::QuestionPipe => {
                self.refuse_node(whole, format!("the operator {op} is not accepted"), "use NOT or -")
            }
        }
    }

    /// A regular expression: a literal or a parameter, of bounded size. The engine runs it in linear time.
    pub(super) fn pattern(&mut self, pattern: &Expr) -> Step {
        let Expr::Value(ValueWithSpan { value, span: _ }) = pattern else {
            return self.refuse_node(
                pattern,
                "a pattern must be a string literal or a parameter",
                "write it out, or bind it as $1",
            );
        };
        if let Some(text) = value.clone().into_string() {
            if text.len() > MAX_PATTERN_BYTES {
                return self.refuse_node(
                    pattern,
                    format!("a pattern of more than {MAX_PATTERN_BYTES} bytes"),
                    "use IN (…) or several patterns",
                );
            }
            self.patterns = self.patterns.saturating_add(1);
            if self.patterns <= COMPILED_PATTERNS
                && let Err(error) = (self.try_pattern)(&text)
            {
                return self.refuse_node(
                    pattern,
                    format!("the pattern does not compile: {}", patterns::words(&error)),
                    patterns::HINT,
                );
            }
        }
        self.expr(pattern)
    }

    fn cast(
        &mut self,
        whole: &Expr,
        kind: &CastKind,
        to: &DataType,
        array: bool,
        format: Option<&CastFormat>,
    ) -> Step {
        match kind {
            CastKind::Cast | CastKind::TryCast | CastKind::DoubleColon => {}
            CastKind::SafeCast => return self.refuse_node(whole, "SAFE_CAST is not accepted", "use TRY_CAST"),
        }
        self.absent(array, "CAST to an array", "there are no arrays")?;
        self.absent(format.is_some(), "CAST with FORMAT", "use date_trunc or date_part")?;
        if plain_type(to) {
            return Ok(());
        }
        self.refuse_node(
            whole,
            format!("the type {to} is not accepted"),
            "use TEXT, BIGINT, INTEGER, DOUBLE, BOOLEAN, TIMESTAMP or DATE",
        )
    }

    fn interval(&mut self, whole: &Expr, interval: &Interval) -> Step {
        let Interval { value, leading_field, leading_precision, last_field, fractional_seconds_precision } = interval;
        let options = leading_precision.is_some() || last_field.is_some() || fractional_seconds_precision.is_some();
        self.absent(options, "an INTERVAL with a precision or a range", "write INTERVAL '30 minutes'")?;
        let Expr::Value(
            literal @ ValueWithSpan { value: Value::Number(length, _) | Value::SingleQuotedString(length), span: _ },
        ) = value.as_ref()
        else {
            return self.refuse_node(whole, "INTERVAL takes a literal", "write INTERVAL '30 minutes'");
        };
        self.value(literal)?;
        let text = match leading_field {
            None => length.clone(),
            Some(field) => {
                self.date_field(whole, field)?;
                format!("{length} {field}")
            }
        };
        if times::is_interval(&text) {
            return Ok(());
        }
        self.refuse_node(
            whole,
            format!("'{text}' is no interval, or one that is too long"),
            "write INTERVAL '30 minutes', '2 days' or '1 month'; days and months go up to 2147483647",
        )
    }

    fn escape(&mut self, escape: Option<&ValueWithSpan>) -> Step {
        let Some(escape) = escape else { return Ok(()) };
        self.value(escape)?;
        match &escape.value {
            Value::SingleQuotedString(text) if text.len() == 1 => Ok(()),
            _ => self.refuse("ESCAPE takes one ASCII character", "write LIKE '100!%' ESCAPE '!'"),
        }
    }
}

/// The types that a value of ours can have.
fn plain_type(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Text
            | DataType::Varchar(None)
            | DataType::String(None)
            | DataType::SmallInt(None)
            | DataType::Int(None)
            | DataType::Integer(None)
            | DataType::BigInt(None)
            | DataType::Real
            | DataType::Double(_)
            | DataType::DoublePrecision
            | DataType::Bool
            | DataType::Boolean
            | DataType::Date
            | DataType::Timestamp(..)
    )
}

/// `floor(x)`, not `floor(x, 1)` nor `floor(time TO DAY)`.
const fn is_plain(field: &CeilFloorKind) -> bool {
    matches!(field, CeilFloorKind::DateTimeField(DateTimeField::NoDateTime))
}
