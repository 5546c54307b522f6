//! Text patterns, compiled once per rule: LIKE, ILIKE and regular expressions.
//!
//! `%` and `_` cross line ends, `\` takes the next character as it is. ILIKE and `~*` fold case as Unicode's simple folding
//! does (so the Kelvin sign is a `k`), which is what DataFusion does; the ASCII shortcuts are taken only where both sides are
//! ASCII and cannot differ. Regular expressions are those of the `regex` crate: linear time, no look-around.

use crate::sql::expression_words;
use regex::{Regex, RegexBuilder};

/// Compiled size of one expression in bytes; a page of alternatives needs some 100 KiB. Keeps 1,000 rules in memory.
const REGEX_BYTES: usize = 1024 * 1024;

/// A compiled pattern.
#[derive(Debug)]
pub(super) enum TextPattern {
    Equal(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// ASCII text whose case does not matter; the expression decides for text beyond ASCII.
    Folded(Shape, Box<str>, Regex),
    Expression(Regex),
}

/// Where the fixed part of a pattern has to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Equal,
    Prefix,
    Suffix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

impl TextPattern {
    /// The pattern of LIKE, or with `fold` of ILIKE.
    pub(super) fn like(pattern: &str, fold: bool) -> Result<Self, String> {
        let tokens = tokens(pattern);
        let expression = || build(&like_expression(&tokens), fold, true);
        let Some((shape, text)) = simple(&tokens) else { return Ok(Self::Expression(expression()?)) };
        Ok(match (shape, fold) {
            (shape, true) if text.is_ascii() => Self::Folded(shape, text.into(), expression()?),
            (_, true) => Self::Expression(expression()?),
            (Shape::Equal, false) => Self::Equal(text.into()),
            (Shape::Prefix, false) => Self::Prefix(text.into()),
            (Shape::Suffix, false) => Self::Suffix(text.into()),
        })
    }

    /// A regular expression, found anywhere in the text.
    pub(super) fn expression(pattern: &str, fold: bool) -> Result<Self, String> {
        build(pattern, fold, false).map(Self::Expression)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equal(wanted) => text == &**wanted,
            Self::Prefix(wanted) => text.starts_with(&**wanted),
            Self::Suffix(wanted) => text.ends_with(&**wanted),
            Self::Folded(shape, wanted, _) if text.is_ascii() => folded(*shape, text, wanted),
            Self::Folded(_, _, expression) | Self::Expression(expression) => expression.is_match(text),
        }
    }
}

fn folded(shape: Shape, text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    let part = match shape {
        Shape::Equal => Some(text),
        Shape::Prefix => text.get(..wanted.len()),
        Shape::Suffix => text.len().checked_sub(wanted.len()).and_then(|from| text.get(from..)),
    };
    part.is_some_and(|part| part.eq_ignore_ascii_case(wanted))
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        let token = match character {
            '%' => Token::Many,
            '_' => Token::One,
            // A backslash at the very end stands for itself.
            '\\' => Token::Char(characters.next().unwrap_or('\\')),
            other => Token::Char(other),
        };
        if token != Token::Many || tokens.last() != Some(&Token::Many) {
            tokens.push(token);
        }
    }
    tokens
}

/// `text`, `text%` and `%text`; everything else needs the expression, which is also the fastest search inside a text.
fn simple(tokens: &[Token]) -> Option<(Shape, String)> {
    let (shape, fixed) = match tokens {
        [Token::Many, fixed @ ..] if !fixed.is_empty() => (Shape::Suffix, fixed),
        [fixed @ .., Token::Many] => (Shape::Prefix, fixed),
        fixed => (Shape::Equal, fixed),
    };
    let text: Option<String> = fixed
        .iter()
        .map(|token| match token {
            Token::Char(character) => Some(*character),
            Token::One | Token::Many => None,
        })
        .collect();
    text.map(|text| (shape, text))
}

/// Open ends are left unanchored: `^.*` would walk the text for nothing.
fn like_expression(tokens: &[Token]) -> String {
    let (open_start, tokens) = match tokens {
        [Token::Many, rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (open_end, tokens) = match tokens {
        [rest @ .., Token::Many] => (true, rest),
        all => (open_start && tokens.is_empty(), all),
    };
    let mut expression = String::from(if open_start { "" } else { "^" });
    for token in tokens {
        match token {
            Token::Char(character) => expression.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
            Token::One => expression.push('.'),
            Token::Many => expression.push_str(".*"),
        }
    }
    expression.push_str(if open_end { "" } else { "$" });
    expression
}

fn build(pattern: &str, fold: bool, across_lines: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(fold)
        .dot_matches_new_line(across_lines)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .build()
        .map_err(|error| expression_words(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, text: &str) -> bool {
        TextPattern::like(pattern, false).unwrap().matches(text)
    }

    fn ilike(pattern: &str, text: &str) -> bool {
        TextPattern::like(pattern, true).unwrap().matches(text)
    }

    #[test]
    fn wildcards_cross_line_ends_and_backslashes_escape_them() {
        assert!(like("a%b", "a\nb") && like("a_b", "a\nb"));
        assert!(like(r"100\%", "100%") && !like(r"100\%", "1000"));
        assert!(like(r"a\_b", "a_b") && !like(r"a\_b", "axb"));
        assert!(like(r"C:\\x%", r"C:\x1") && !like(r"C:\\x%", r"C:\\x1"));
        assert!(like("tail\\", "tail\\"), "a backslash at the end stands for itself");
        assert!(like("%", "") && like("%%", "x") && like("", "") && !like("", "x"));
        assert!(like("%.hidden", "/tmp/.hidden") && !like("%.hidden", "/tmp/.hidden2"));
        assert!(!like("_", "ab") && like("_", "é"), "an underscore is one character, not one byte");
    }

    #[test]
    fn folding_is_unicode_simple_folding() {
        assert!(ilike("%CURL%", "/usr/bin/curl") && ilike("curl", "CURL"));
        assert!(ilike("k", "\u{212a}") && ilike("%s", "x\u{17f}") && ilike("STRASSE%", "strasse 1"));
        assert!(ilike("É%", "épée") && !ilike("ss", "ß"));
    }

    #[test]
    fn a_huge_expression_is_refused() {
        let error = TextPattern::expression(r"(\w{500}){500}", false).unwrap_err();
        assert!(error.contains("bytes compiled"), "{error}");
        assert!(TextPattern::expression("(", false).unwrap_err().contains("unclosed group"));
    }
}
