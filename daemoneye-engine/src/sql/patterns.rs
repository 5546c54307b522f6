//! Regular expressions: how long they may be, and what is wrong with one, in words.

/// Bytes of a regular expression, written or bound: converted rules stay below a tenth of it.
pub(crate) const MAX_PATTERN_BYTES: usize = 4 * 1024;
/// What to write instead of one that is not accepted.
pub(crate) const HINT: &str =
    r"a character that is meant itself takes a backslash: \( \[ \*; counts multiply: keep {n} small";

/// Whether a pattern can run.
pub(crate) fn compile(pattern: &str) -> Result<(), regex::Error> {
    regex::Regex::new(pattern).map(drop)
}

/// Whether it is one, for those who compile it next and tell then that it is too large: it is compiled once.
pub(crate) fn parse(pattern: &str) -> Result<(), regex::Error> {
    regex_syntax::parse(pattern).map(drop).map_err(|error| regex::Error::Syntax(error.to_string()))
}

/// What is wrong with an expression that does not compile, on one line.
pub(crate) fn words(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("the expression needs more than {limit} bytes compiled"),
        // The last line of the crate's report says what; those before it draw the place.
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}
