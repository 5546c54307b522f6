//! Questions about one text, compiled once: equal to, holds, begins or ends with one of some values, LIKE, a regular
//! expression, an address in a network.
//!
//! The row matcher and the functions of the SQL engine ask the same [`Fits`], so a rule and a query cannot differ. A value
//! that folds is folded here, once; a text is folded by whoever has it, because it is asked many questions.

mod expression;
mod fold;
mod letters;
mod like;
mod needle;
mod needles;
mod network;

pub(crate) use expression::Expression;
pub(crate) use fold::{Folding, folded_simple, push_folded};
pub(crate) use letters::Letters;
pub(crate) use like::Like;

use fold::folded_ascii;
use needle::Needle;
use needles::Needles;
use network::Network;
use regex::Regex;
use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

/// Values up to this many are compared one by one, which beats hashing the text.
const FEW: usize = 4;

/// The functions of rules and queries that are strict and two-valued: NULL does not fit, and is not unknown.
pub(crate) const FUNCTIONS: &[&str] = &[
    "ci_contains",
    "ci_ends",
    "ci_eq",
    "ci_like",
    "ci_starts",
    "cidr",
    "cs_contains",
    "cs_ends",
    "cs_eq",
    "cs_like",
    "cs_starts",
    "re_match",
];

/// One text as a question sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) raw: &'a str,
    /// The same after [`folded_simple`], where somebody has it.
    pub(crate) folded: Option<&'a str>,
    pub(crate) letters: Letters,
}

/// One question with its values.
#[derive(Debug)]
pub(crate) struct Fits {
    folding: Folding,
    way: Way,
}

/// How the values are asked for; several values are an OR.
#[derive(Debug)]
pub(crate) enum Way {
    Contains(Needles),
    Ends(Box<[Box<str>]>),
    Equal(Box<[Box<str>]>),
    /// Of the text as it is.
    Expression(Box<Expression>),
    Like(Box<[Like]>),
    Network(Box<[Network]>),
    OneOf(HashSet<Box<str>>),
    Starts(Box<[Box<str>]>),
}

impl Fits {
    /// The question of one of [`FUNCTIONS`], or what is wrong with which of its values; `None` for another name.
    pub(crate) fn of_function(name: &str, values: &[&str]) -> Option<Result<Self, (usize, String)>> {
        let fits = match name {
            "cidr" => Self::cidr(values),
            "re_match" => Self::re_match(values),
            _ => {
                let (folding, question) = match name.split_once('_')? {
                    ("ci", question) => (Folding::Ascii, question),
                    ("cs", question) => (Folding::None, question),
                    _ => return None,
                };
                match question {
                    "contains" => Ok(Self::contains(folding, values)),
                    "ends" => Ok(Self { folding, way: Way::Ends(all(folding, values)) }),
                    "eq" => Ok(Self::equal(folding, values)),
                    "like" => Self::likes(folding, values),
                    "starts" => Ok(Self { folding, way: Way::Starts(all(folding, values)) }),
                    _ => return None,
                }
            }
        };
        Some(fits)
    }

    pub(crate) fn equal(folding: Folding, values: &[&str]) -> Self {
        let values = all(folding, values);
        let way = if values.len() > FEW { Way::OneOf(values.into_iter().collect()) } else { Way::Equal(values) };
        Self { folding, way }
    }

    pub(crate) fn contains(folding: Folding, values: &[&str]) -> Self {
        let needles = values.iter().map(|value| Needle::new(&folding.fold(value)));
        Self { folding, way: Way::Contains(Needles::new(needles.collect())) }
    }

    pub(crate) fn starts(value: &str) -> Self {
        Self { folding: Folding::None, way: Way::Starts(all(Folding::None, &[value])) }
    }

    pub(crate) fn ends(value: &str) -> Self {
        Self { folding: Folding::None, way: Way::Ends(all(Folding::None, &[value])) }
    }

    /// LIKE, or with `fold` ILIKE, which folds as Unicode's simple folding does: a pattern beyond ASCII is left to the
    /// expressions, which know all of it.
    pub(crate) fn like(pattern: &str, fold: bool) -> Result<Self, String> {
        let (folding, like) = match (fold, pattern.is_ascii()) {
            (false, _) => (Folding::None, Like::new(pattern)?),
            (true, true) => (Folding::Simple, Like::new(&pattern.to_ascii_lowercase())?),
            (true, false) => (Folding::None, Like::folding(pattern)?),
        };
        Ok(Self { folding, way: Way::Like(Box::from([like])) })
    }

    fn likes(folding: Folding, values: &[&str]) -> Result<Self, (usize, String)> {
        let like = |(at, value): (usize, &&str)| Like::new(&folding.fold(value)).map_err(|error| (at, error));
        let likes: Result<_, _> = values.iter().enumerate().map(like).collect();
        Ok(Self { folding, way: Way::Like(likes?) })
    }

    /// A regular expression, found anywhere in the text; `flags` are of `imsx`.
    pub(crate) fn expression(pattern: &str, flags: &str) -> Result<Self, String> {
        Expression::new(pattern, flags).map(Self::sought)
    }

    /// One that is compiled already.
    pub(crate) fn of_expression(regex: Regex) -> Self {
        Self::sought(regex.into())
    }

    fn sought(expression: Expression) -> Self {
        Self { folding: Folding::None, way: Way::Expression(expression.into()) }
    }

    fn re_match(values: &[&str]) -> Result<Self, (usize, String)> {
        match values {
            [pattern] => Self::expression(pattern, "").map_err(|error| (0, error)),
            [pattern, flags] if flags.chars().all(|flag| "imsx".contains(flag)) => {
                Self::expression(pattern, flags).map_err(|error| (0, error))
            }
            [_, flags] => Err((1, format!("the flags '{flags}' of re_match are not known; known are i, m, s and x"))),
            _ => Err((2, "re_match takes a text, a regular expression and at most flags".to_owned())),
        }
    }

    fn cidr(values: &[&str]) -> Result<Self, (usize, String)> {
        let network = |(at, value): (usize, &&str)| Network::new(value).map_err(|error| (at, error));
        let networks: Result<_, _> = values.iter().enumerate().map(network).collect();
        Ok(Self { folding: Folding::None, way: Way::Network(networks?) })
    }

    /// Whether the text fits.
    pub(crate) fn fits(&self, text: Text<'_>) -> bool {
        let (asked, letters) = (self.folding.of(text), self.folding.letters(text));
        let (text, bytes) = (&*asked, asked.as_bytes());
        match &self.way {
            Way::Contains(needles) => needles.stand_in(bytes, letters),
            Way::Ends(values) => values.iter().any(|value| bytes.ends_with(value.as_bytes())),
            Way::Equal(values) => values.iter().any(|value| text == &**value),
            Way::Expression(expression) => expression.is_match(text),
            Way::Like(likes) => likes.iter().any(|like| like.matches(text)),
            Way::Network(networks) => {
                text.parse::<IpAddr>().is_ok_and(|address| networks.iter().any(|network| network.holds(address)))
            }
            Way::OneOf(values) => values.contains(text),
            Way::Starts(values) => values.iter().any(|value| bytes.starts_with(value.as_bytes())),
        }
    }

    /// Whether a folded text saves it work.
    pub(crate) fn folds(&self) -> bool {
        self.folding != Folding::None
    }

    /// Whether it looks for so many values that the letters of the text save it more than they cost.
    pub(crate) fn asks_letters(&self) -> bool {
        matches!(&self.way, Way::Contains(needles) if needles.are_several())
    }

    /// What it looks for, as the prefilter needs it.
    pub(crate) const fn way(&self) -> &Way {
        &self.way
    }
}

impl Folding {
    fn fold(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Ascii => folded_ascii(text),
            Self::Simple => folded_simple(text),
        }
    }

    /// The text folded this way, from what is there. The two ways differ only where a special letter is.
    fn of<'a>(self, text: Text<'a>) -> Cow<'a, str> {
        match (self, text.folded) {
            (Self::None, _) => Cow::Borrowed(text.raw),
            (Self::Simple, Some(folded)) => Cow::Borrowed(folded),
            // Every special letter is longer than what it folds to.
            (Self::Ascii, Some(folded)) if folded.len() == text.raw.len() => Cow::Borrowed(folded),
            (folding, _) => folding.fold(text.raw),
        }
    }
}

impl Folding {
    /// Those of the text folded this way. Simple folding makes letters of others that the text has not.
    fn letters(self, text: Text<'_>) -> Letters {
        if self == Self::Simple { Letters::UNKNOWN } else { text.letters }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(raw: &'a str) -> Self {
        Self { raw, folded: None, letters: Letters::UNKNOWN }
    }
}

fn all(folding: Folding, values: &[&str]) -> Box<[Box<str>]> {
    values.iter().map(|value| Box::from(&*folding.fold(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, text: &str, values: &[&str]) -> bool {
        let fits = Fits::of_function(name, values).unwrap().unwrap();
        let folded = folded_simple(text);
        let fresh = fits.fits(text.into());
        assert_eq!(
            fresh,
            fits.fits(Text { raw: text, folded: Some(&folded), letters: Letters::UNKNOWN }),
            "{name}({text}, {values:?})"
        );
        let letters = Letters::of(text.as_bytes());
        assert_eq!(fresh, fits.fits(Text { raw: text, folded: Some(&folded), letters }), "{name}({text}, {values:?})");
        fresh
    }

    #[test]
    fn one_of_several_values_is_enough_and_only_ascii_letters_fold() {
        assert!(ask("ci_eq", "CMD.exe", &["x", "cmd.EXE"]) && !ask("cs_eq", "CMD.exe", &["cmd.exe"]));
        assert!(ask("ci_eq", "B", &["a", "b", "c", "d", "e"]) && !ask("cs_eq", "B", &["a", "b", "c", "d", "e"]));
        assert!(ask("ci_contains", "a -ENC b", &["-enc"]) && !ask("cs_contains", "a -ENC b", &["-enc"]));
        assert!(ask("ci_starts", "C:\\Win", &["c:\\"]) && ask("ci_ends", "x\\CMD.EXE", &["\\cmd.exe"]));
        assert!(!ask("ci_eq", "É", &["é"]) && ask("cs_eq", "É", &["É"]), "only ASCII folds");
        assert!(!ask("ci_eq", "\u{212a}", &["k"]) && !ask("ci_contains", "x\u{17f}", &["s"]));
        assert!(ask("ci_contains", "\u{212a}EY", &["ey", "\u{212a}"]) && ask("ci_ends", "\u{17f}H", &["h"]));
        assert!(ask("ci_contains", "", &[""]) && ask("cs_starts", "a", &[""]));
        let many: Vec<String> = (100..140).map(|number| format!("Nr{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(ask("ci_contains", "xnR139y", &many) && !ask("ci_contains", "nr140 nr13", &many));
        assert!(ask("cs_contains", "xNr100y", &many) && !ask("cs_contains", "nr100", &many));
        let with_empty: Vec<&str> = many.iter().copied().chain([""]).collect();
        assert!(ask("cs_contains", "", &with_empty) && !ask("cs_contains", "", &many));
    }

    #[test]
    fn wildcards_and_escapes_are_those_of_like() {
        assert!(ask("ci_like", "C:\\Users\\x", &[r"c:\\users\\%"]) && ask("cs_like", "50%", &[r"50\%"]));
        assert!(
            ask("ci_like", "aXb", &["A_B"]) && ask("ci_like", "aéb", &["A_B"]) && !ask("cs_like", "aXb", &["A_B"])
        );
        assert!(ask("ci_like", "one two three", &["nothing", "ONE%TWO%ee"]) && !ask("ci_like", "aba", &["ab%ba"]));
    }

    #[test]
    fn expressions_have_case_and_take_flags() {
        assert!(ask("re_match", "xAby", &["[A]b"]) && !ask("re_match", "xaby", &["Ab"]));
        assert!(ask("re_match", "xaby", &["Ab", "i"]) && ask("re_match", "a\nb", &["a.b", "s"]));
        assert!(ask("re_match", "x\nab", &["^a|c", "m"]) && ask("re_match", "ab", &["a b # c", "x"]));
        for bad in [&["("][..], &["a", "q"], &["a", "i", "x"], &[]] {
            assert!(Fits::of_function("re_match", bad).unwrap().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn networks_hold_addresses_and_nothing_else() {
        assert!(
            ask("cidr", "10.1.2.3", &["192.168.0.0/16", "10.0.0.0/8"]) && !ask("cidr", "11.0.0.1", &["10.0.0.0/8"])
        );
        assert!(
            ask("cidr", "fe80::1", &["fe80::/10"])
                && ask("cidr", "::1", &["::1"])
                && ask("cidr", "1.2.3.4", &["0.0.0.0/0"])
        );
        assert!(
            !ask("cidr", "not an address", &["0.0.0.0/0", "::/0"]) && !ask("cidr", "::ffff:10.0.0.1", &["10.0.0.0/8"])
        );
        assert!(ask("cidr", "10.9.9.9", &["10.1.1.1/8"]), "bits behind the length do not count");
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(Fits::of_function("cidr", &[bad]).unwrap().is_err(), "{bad}");
        }
    }
}
