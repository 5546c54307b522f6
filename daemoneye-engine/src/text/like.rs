//! A LIKE pattern: `%` any run, `_` one character, both across line ends; `\` takes the next character as it is, and stands
//! for itself at the very end.

use super::expression::{Expression, across_lines};
use super::needle::Needle;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) enum Like {
    /// Without wildcards.
    Equal(Box<str>),
    /// With a wildcard for one character.
    Expression(Box<Expression>),
    /// What stands between the wildcards for runs.
    Runs { start: Box<str>, between: Box<[Needle]>, end: Box<str> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    Many,
    One,
}

impl Like {
    /// The pattern as it is written.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let tokens = tokens(pattern);
        if tokens.contains(&Token::One) {
            return across_lines(&expression(&tokens), false).map(Box::new).map(Self::Expression);
        }
        let run = |tokens: &[Token]| -> Box<str> {
            let characters = tokens.iter().filter_map(|token| match token {
                Token::Char(character) => Some(*character),
                Token::Many | Token::One => None,
            });
            characters.collect::<String>().into()
        };
        let runs: Vec<Box<str>> = tokens.split(|token| *token == Token::Many).map(run).collect();
        Ok(match runs.as_slice() {
            [] => Self::Equal(Box::from("")),
            [only] => Self::Equal(only.clone()),
            [start, between @ .., end] => Self::Runs {
                start: start.clone(),
                between: between.iter().map(|run| Needle::new(run)).collect(),
                end: end.clone(),
            },
        })
    }

    /// The pattern with Unicode's simple folding, over a text that is not folded.
    pub(crate) fn folding(pattern: &str) -> Result<Self, String> {
        across_lines(&expression(&tokens(pattern)), true).map(Box::new).map(Self::Expression)
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equal(wanted) => text == &**wanted,
            Self::Expression(expression) => expression.is_match(text),
            Self::Runs { start, between, end } => runs(text.as_bytes(), start, between, end),
        }
    }
}

/// Each run at its first place leaves the most text to the others.
fn runs(text: &[u8], start: &str, between: &[Needle], end: &str) -> bool {
    let Some(rest) = text.strip_prefix(start.as_bytes()) else { return false };
    let Some(mut rest) = rest.strip_suffix(end.as_bytes()) else { return false };
    for run in between {
        let Some(at) = run.find(rest) else { return false };
        let behind = at.saturating_add(run.text().len());
        rest = rest.get(behind..).unwrap_or_default();
    }
    true
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        let token = match character {
            '%' => Token::Many,
            '_' => Token::One,
            '\\' => Token::Char(characters.next().unwrap_or('\\')),
            other => Token::Char(other),
        };
        if token != Token::Many || tokens.last() != Some(&Token::Many) {
            tokens.push(token);
        }
    }
    tokens
}

/// Open ends are left unanchored: `^.*` would walk the text for nothing.
fn expression(tokens: &[Token]) -> String {
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
            Token::Many => expression.push_str(".*"),
            Token::One => expression.push('.'),
        }
    }
    expression.push_str(if open_end { "" } else { "$" });
    expression
}

#[cfg(test)]
mod tests {
    use super::super::Fits;

    fn like(pattern: &str, text: &str) -> bool {
        Fits::like(pattern, false).unwrap().fits(text.into())
    }

    fn ilike(pattern: &str, text: &str) -> bool {
        Fits::like(pattern, true).unwrap().fits(text.into())
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
    fn runs_do_not_overlap() {
        assert!(like("ab%ba", "abba") && !like("ab%ba", "aba"));
        assert!(like("%ab%ab%", "abab") && !like("%ab%ab%", "aab") && !like("a%b%b", "ab"));
        assert!(like("a%%c%", "abc") && like("%a%", "bab") && !like("%a%", "bb"));
    }

    #[test]
    fn folding_is_unicode_simple_folding() {
        assert!(ilike("%CURL%", "/usr/bin/curl") && ilike("curl", "CURL"));
        assert!(ilike("k", "\u{212a}") && ilike("%s", "x\u{17f}") && ilike("STRASSE%", "strasse 1"));
        assert!(ilike("_K_", "a\u{212a}é") && ilike("É%", "épée") && !ilike("ss", "ß"));
    }
}
