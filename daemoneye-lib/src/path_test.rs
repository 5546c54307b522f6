//! Questions about the path of an executable that the agent may leave to a collector, so that it does what is expensive only where a
//! rule can match.
//!
//! A test may hold where no rule matches and never the other way round: both sides fold case, whatever the rule does.

use std::borrow::Cow;
use std::fmt;

use crate::proto::{PathQuestion, PathTest};

/// Folds to `k`.
pub const KELVIN: char = '\u{212a}';
/// Folds to `s`.
pub const LONG_S: char = '\u{17f}';

/// A letter after simple folding as far as that reaches ASCII.
#[must_use]
pub const fn folded_letter(letter: char) -> char {
    match letter {
        KELVIN => 'k',
        LONG_S => 's',
        other => other.to_ascii_lowercase(),
    }
}

/// What stands behind the last separator of either kind.
#[must_use]
pub fn base_of(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// A path as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedPath<'a>(Cow<'a, str>);

impl<'a> FoldedPath<'a> {
    /// Folds a path.
    #[must_use]
    pub fn new(path: &'a str) -> Self {
        let is_folded = path.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        Self(if is_folded { Cow::Borrowed(path) } else { Cow::Owned(path.chars().map(folded_letter).collect()) })
    }
}

impl PathTest {
    /// A test of a text that is folded already.
    #[must_use]
    pub fn new(question: PathQuestion, text: &str) -> Self {
        Self { question: question.into(), text: text.to_owned() }
    }

    /// Whether a path passes. A question that is not known here rules nothing out.
    #[must_use]
    pub fn passes(&self, path: &FoldedPath<'_>) -> bool {
        match self.question() {
            PathQuestion::BaseName => base_of(&path.0) == self.text,
            PathQuestion::Contains => path.0.contains(&self.text),
            PathQuestion::Equals => path.0 == self.text,
            PathQuestion::Unspecified => true,
        }
    }
}

impl fmt::Display for PathTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = match self.question() {
            PathQuestion::BaseName => "has the base name",
            PathQuestion::Contains => "contains",
            PathQuestion::Equals => "is",
            PathQuestion::Unspecified => "has something to do with",
        };
        write!(f, "executable_path {question} {:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_folds_the_path_and_what_nobody_knows_rules_nothing_out() {
        let passes = |question, text: &str, path: &str| PathTest::new(question, text).passes(&FoldedPath::new(path));
        assert!(
            passes(PathQuestion::Contains, "/tmp/", "/var/TMP/x") && !passes(PathQuestion::Contains, "/tmp/", "/tmp")
        );
        assert!(passes(PathQuestion::Equals, "/opt/\u{e4}sk", "/opt/\u{e4}\u{17f}\u{212a}"));
        assert!(!passes(PathQuestion::Equals, "/opt/a", "/opt/a2"));
        assert!(
            passes(PathQuestion::BaseName, "sshd", "/a b/SSHD")
                && passes(PathQuestion::BaseName, "x.exe", "C:\\x.exe")
        );
        assert!(!passes(PathQuestion::BaseName, "shd", "/usr/sbin/sshd"));
        assert!(passes(PathQuestion::Unspecified, "x", "/bin/true"));
        let strange = PathTest { question: 99, text: "x".to_owned() };
        assert!(strange.passes(&FoldedPath::new("/bin/true")));
    }
}
