//! Literals, parameters and the fields of a date.

use super::{Step, Walker};
use datafusion::sql::sqlparser::ast::{DateTimeField, Expr, Value, ValueWithSpan};

/// Parameters of a statement: the highest `$n`.
const MAX_PARAMETERS: usize = 256;

impl Walker {
    /// Numbers, plain strings, blobs, booleans, NULL and `$n`. Strings have one spelling, so that a reader of the audit log
    /// sees what was compared.
    pub(super) fn value(&mut self, value: &ValueWithSpan) -> Step {
        let ValueWithSpan { value, span } = value;
        self.seen(*span);
        match value {
            Value::Number(..)
            | Value::SingleQuotedString(_)
            | Value::HexStringLiteral(_)
            | Value::Boolean(_)
            | Value::Null => Ok(()),
            Value::Placeholder(name) => self.parameter(name),
            Value::DollarQuotedString(_) => self.refuse("a dollar-quoted string is not accepted", "write '…'"),
            Value::EscapedStringLiteral(_) | Value::UnicodeStringLiteral(_) => {
                self.refuse("a string with escapes is not accepted", "write '…' with the characters themselves")
            }
            Value::DoubleQuotedString(_) => self.refuse("a double-quoted string is not accepted", "write '…'"),
            Value::NationalStringLiteral(_)
            | Value::QuoteDelimitedStringLiteral(_)
            | Value::NationalQuoteDelimitedStringLiteral(_)
            | Value::TripleSingleQuotedString(_)
            | Value::TripleDoubleQuotedString(_)
            | Value::SingleQuotedByteStringLiteral(_)
            | Value::DoubleQuotedByteStringLiteral(_)
            | Value::TripleSingleQuotedByteStringLiteral(_)
            | Value::TripleDoubleQuotedByteStringLiteral(_)
            | Value::SingleQuotedRawStringLiteral(_)
            | Value::DoubleQuotedRawStringLiteral(_)
            | Value::TripleSingleQuotedRawStringLiteral(_)
            | Value::TripleDoubleQuotedRawStringLiteral(_) => {
                self.refuse("a string with a prefix is not accepted", "write '…'")
            }
        }
    }

    fn parameter(&mut self, name: &str) -> Step {
        match name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()) {
            Some(number) if (1..=MAX_PARAMETERS).contains(&number) => {
                self.parameters = self.parameters.max(number);
                Ok(())
            }
            _ => self.refuse(format!("{name} is not a parameter"), format!("parameters are $1 to ${MAX_PARAMETERS}")),
        }
    }

    /// The parts of a time that EXTRACT and INTERVAL may name.
    pub(super) fn date_field(&self, whole: &Expr, field: &DateTimeField) -> Step {
        match field {
            DateTimeField::Year
            | DateTimeField::Years
            | DateTimeField::Quarter
            | DateTimeField::Month
            | DateTimeField::Months
            | DateTimeField::Week(None)
            | DateTimeField::Weeks
            | DateTimeField::Day
            | DateTimeField::Days
            | DateTimeField::Hour
            | DateTimeField::Hours
            | DateTimeField::Minute
            | DateTimeField::Minutes
            | DateTimeField::Second
            | DateTimeField::Seconds
            | DateTimeField::Millisecond
            | DateTimeField::Milliseconds
            | DateTimeField::Microsecond
            | DateTimeField::Microseconds
            | DateTimeField::Dow
            | DateTimeField::Doy
            | DateTimeField::Epoch => Ok(()),
            other => self.refuse_node(
                whole,
                format!("{other} of a time is not accepted"),
                "use year, month, week, day, hour, minute, second, dow, doy or epoch",
            ),
        }
    }
}
