//! Regular expressions are those of the `regex` crate: linear time, no look-around.

use std::sync::OnceLock;

use crate::sql::expression_words;
use regex::{Regex, RegexBuilder};

/// Compiled size of one expression in bytes; a page of alternatives needs some 100 KiB. Keeps 1,000 rules in memory.
const REGEX_BYTES: usize = 1024 * 1024;

/// One expression, compiled when a text is first asked about: that takes tens of kilobytes, and most rules are never candidates on a host.
#[derive(Debug)]
pub(crate) struct Expression {
    pattern: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Expression {
    /// With flags of `imsx`. They are written into it, so that who reads the expression sees them. What is wrong with it is told now.
    pub(crate) fn new(pattern: &str, flags: &str) -> Result<Self, String> {
        let pattern: Box<str> = if flags.is_empty() { pattern.into() } else { format!("(?{flags}){pattern}").into() };
        build(&pattern)?;
        Ok(Self { pattern, compiled: OnceLock::new() })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.pattern
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        // It has compiled before, so it does again.
        let compiled = self.compiled.get_or_init(|| build(&self.pattern).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

impl From<Regex> for Expression {
    fn from(regex: Regex) -> Self {
        Self { pattern: regex.as_str().into(), compiled: OnceLock::from(Some(regex)) }
    }
}

/// An expression whose `.` is any character.
pub(super) fn across_lines(pattern: &str, fold: bool) -> Result<Expression, String> {
    Expression::new(pattern, if fold { "is" } else { "s" })
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .build()
        .map_err(|error| expression_words(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_expression_is_refused() {
        let error = Expression::new(r"(\w{500}){500}", "").unwrap_err();
        assert!(error.contains("bytes compiled"), "{error}");
        assert!(Expression::new("(", "").unwrap_err().contains("unclosed group"));
    }
}
