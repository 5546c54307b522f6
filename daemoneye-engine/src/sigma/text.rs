//! Sigma's strings: text with wildcards as tokens, so that a modifier adds a wildcard to the list and never to the text.
//!
//! Read from left to right: a backslash before `*`, `?` or a backslash takes that character as it is; before anything else it is
//! itself. A percent sign is a mark only where placeholders are expanded, and a backslash takes it as it is there too.

use super::pcre::{self, Piece};

/// Characters that begin an option: hyphen, slash, en dash, em dash, horizontal bar.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// One piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// Any run, also an empty one.
    Any,
    Char(char),
    /// One of the signs that begin an option.
    Dash,
    /// Exactly one character.
    One,
    /// A percent sign that may begin or end the name of a placeholder.
    Percent,
}

/// A value as its tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) Vec<Token>);

/// What a pattern asks of a text, in the cheapest form that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Contains(String),
    EndsWith(String),
    Equal(String),
    /// A regular expression over the tokens.
    Expression,
    /// A pattern of LIKE.
    Like(String),
    /// Any text.
    Present,
    StartsWith(String),
}

impl Pattern {
    /// A value as it stands in a rule.
    pub(super) fn parse(text: &str, placeholders: bool) -> Self {
        let (mut tokens, mut characters) = (Vec::with_capacity(text.len()), text.chars().peekable());
        while let Some(character) = characters.next() {
            let escapes = |next: &char| matches!(next, '*' | '?' | '\\') || (placeholders && *next == '%');
            let token = match character {
                '*' => Token::Any,
                '?' => Token::One,
                '%' if placeholders => Token::Percent,
                '\\' => Token::Char(characters.next_if(escapes).unwrap_or('\\')),
                other => Token::Char(other),
            };
            tokens.push(token);
        }
        Self(tokens)
    }

    /// Text without wildcards; percent signs are marks where placeholders are expanded.
    pub(super) fn literal(text: &str, placeholders: bool) -> Self {
        let token = |character| if placeholders && character == '%' { Token::Percent } else { Token::Char(character) };
        Self(text.chars().map(token).collect())
    }

    /// With a wildcard before it, behind it, or both.
    pub(super) fn surrounded(self, before: bool, behind: bool) -> Self {
        let lead = before.then_some(Token::Any);
        let tail = behind.then_some(Token::Any);
        Self(lead.into_iter().chain(self.0).chain(tail).collect())
    }

    /// The text, if there is no wildcard in it.
    pub(super) fn plain(&self) -> Option<String> {
        self.0
            .iter()
            .map(|token| match token {
                Token::Char(character) => Some(*character),
                Token::Percent => Some('%'),
                Token::Any | Token::Dash | Token::One => None,
            })
            .collect()
    }

    /// Whether one of its characters is such a one.
    pub(super) fn has(&self, is: impl Fn(char) -> bool) -> bool {
        self.0.iter().any(|token| matches!(token, Token::Char(character) if is(*character)))
    }

    /// How many signs of options it has that are one of several.
    pub(super) fn dashes(&self) -> usize {
        self.0.iter().filter(|token| **token == Token::Dash).count()
    }

    /// Every way to write the signs of its options.
    pub(super) fn spelled(&self) -> Vec<Self> {
        let mut variants = vec![Vec::with_capacity(self.0.len())];
        for token in &self.0 {
            if *token == Token::Dash {
                let with = |variant: &Vec<Token>, dash| variant.iter().copied().chain([Token::Char(dash)]).collect();
                variants = variants.iter().flat_map(|variant| DASHES.map(|dash| with(variant, dash))).collect();
            } else {
                variants.iter_mut().for_each(|variant| variant.push(*token));
            }
        }
        variants.into_iter().map(Self).collect()
    }

    /// As a regular expression over a whole text; `folds`: without the case of ASCII letters.
    pub(super) fn expression(&self, folds: bool) -> Result<String, String> {
        let tokens = self.0.as_slice();
        let (is_open, tokens) = match tokens {
            [Token::Any, rest @ ..] => (true, rest),
            all => (false, all),
        };
        let (is_open_behind, tokens) = match tokens {
            [rest @ .., Token::Any] => (true, rest),
            all => (false, all),
        };
        let any = || Piece::One("(?s:.)".to_owned());
        let mut pieces = Vec::with_capacity(tokens.len());
        pieces.extend((!is_open).then(|| Piece::Empty(r"\A".to_owned())));
        for token in tokens {
            match token {
                Token::Any => pieces.extend([any(), Piece::Quantifier("*".to_owned(), true)]),
                Token::Char(character) => {
                    pieces.push(Piece::Char(*character, folds && character.is_ascii_alphabetic()))
                }
                Token::Dash => {
                    pieces.push(Piece::One(format!("[{}]", DASHES.iter().collect::<String>().replace('-', r"\-"))))
                }
                Token::One => pieces.push(any()),
                Token::Percent => pieces.push(Piece::Char('%', false)),
            }
        }
        pieces.extend((!is_open_behind).then(|| Piece::Empty(r"\z".to_owned())));
        pcre::said(&pieces)
    }

    pub(super) fn shape(&self) -> Shape {
        let mut tokens = self.0.clone();
        tokens.dedup_by(|next, before| *next == Token::Any && *before == Token::Any);
        if self.dashes() > 0 {
            return Shape::Expression;
        }
        let plain = |tokens: &[Token]| Self(tokens.to_vec()).plain();
        match tokens.as_slice() {
            [Token::Any] => Shape::Present,
            [Token::Any, inner @ .., Token::Any] if plain(inner).is_some() => {
                Shape::Contains(plain(inner).unwrap_or_default())
            }
            [Token::Any, rest @ ..] if plain(rest).is_some() => Shape::EndsWith(plain(rest).unwrap_or_default()),
            [rest @ .., Token::Any] if plain(rest).is_some() => Shape::StartsWith(plain(rest).unwrap_or_default()),
            all => plain(all).map_or_else(|| Shape::Like(like(all)), Shape::Equal),
        }
    }
}

fn like(tokens: &[Token]) -> String {
    let mut pattern = String::with_capacity(tokens.len());
    for token in tokens {
        match token {
            Token::Any => pattern.push('%'),
            // A dash that is one of several is left to an expression.
            Token::Dash | Token::One => pattern.push('_'),
            Token::Percent => pattern.push_str("\\%"),
            Token::Char(character @ ('%' | '_' | '\\')) => pattern.extend(['\\', *character]),
            Token::Char(character) => pattern.push(*character),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        Pattern::parse(text, false).shape()
    }

    #[test]
    fn backslashes_are_read_from_left_to_right() {
        for (written, meant) in [
            (r"C:\a", r"C:\a"),
            (r"C:\\a", r"C:\a"),
            (r"\\\a", r"\\a"),
            (r"\\\\a", r"\\a"),
            (r"a\*b", "a*b"),
            (r"a\?b", "a?b"),
            (r"a\", r"a\"),
            (r"a\\\*", r"a\*"),
        ] {
            assert_eq!(shape(written), Shape::Equal(meant.to_owned()), "{written}");
        }
        assert_eq!(shape(r"a\\*"), Shape::StartsWith(r"a\".to_owned()));
    }

    #[test]
    fn wildcards_at_the_ends_are_the_cheap_searches() {
        assert_eq!(shape("*"), Shape::Present);
        assert_eq!(shape("**"), Shape::Present);
        assert_eq!(shape("*a*"), Shape::Contains("a".to_owned()));
        assert_eq!(shape("*a"), Shape::EndsWith("a".to_owned()));
        assert_eq!(shape("a*"), Shape::StartsWith("a".to_owned()));
        assert_eq!(shape(r"a?b_%\\c*"), Shape::Like(r"a_b\_\%\\c%".to_owned()));
        let nothing = Pattern::parse("", false).surrounded(true, true);
        assert_eq!(nothing.shape(), Shape::Present);
    }
}
