//! Regular expressions are those of the `regex` crate: linear time, no look-around.

use crate::sql::expression_words;
use regex::{Regex, RegexBuilder};

/// Compiled size of one expression in bytes; a page of alternatives needs some 100 KiB. Keeps 1,000 rules in memory.
const REGEX_BYTES: usize = 1024 * 1024;

/// An expression with flags of `imsx`. They are written into it, so that who reads the expression sees them.
pub(crate) fn expression(pattern: &str, flags: &str) -> Result<Regex, String> {
    if flags.is_empty() { build(pattern) } else { build(&format!("(?{flags}){pattern}")) }
}

/// An expression whose `.` is any character.
pub(super) fn across_lines(pattern: &str, fold: bool) -> Result<Regex, String> {
    expression(pattern, if fold { "is" } else { "s" })
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
        let error = expression(r"(\w{500}){500}", "").unwrap_err();
        assert!(error.contains("bytes compiled"), "{error}");
        assert!(expression("(", "").unwrap_err().contains("unclosed group"));
    }
}
