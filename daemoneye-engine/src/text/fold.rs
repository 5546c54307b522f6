//! Two ways to fold case. ASCII's is the functions'. Unicode's simple folding, as far as it reaches ASCII, is ILIKE's: besides
//! the capital letters only the Kelvin sign and the long s fold into it.

use std::borrow::Cow;

use daemoneye_lib::path_test::{KELVIN, LONG_S, folded_letter};

/// How a question treats case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folding {
    Ascii,
    None,
    Simple,
}

/// Whether the text has one of the two letters by which the ways differ.
pub(super) fn is_special(text: &str) -> bool {
    !text.is_ascii() && text.contains([KELVIN, LONG_S])
}

/// ASCII letters small, and nothing else.
pub(super) fn folded_ascii(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// As [`folded_ascii`], and `k` and `s` for the letters that fold to them. A text that equals, holds or ends with another
/// does so after folding too, because each letter folds by itself.
pub(crate) fn folded_simple(text: &str) -> Cow<'_, str> {
    if is_special(text) {
        return Cow::Owned(text.chars().map(folded_letter).collect());
    }
    folded_ascii(text)
}

/// Appends a text as [`folded_simple`] has it, without building it first.
pub(crate) fn push_folded(all: &mut String, text: &str) {
    if is_special(text) {
        return all.push_str(&folded_simple(text));
    }
    let start = all.len();
    all.push_str(text);
    if let Some(added) = all.get_mut(start..) {
        added.make_ascii_lowercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_what_is_folded() {
        let mut all = String::from("Before");
        for text in ["AbÉ", "", "\u{212a}A", "x\u{17f}"] {
            push_folded(&mut all, text);
        }
        assert_eq!(all, "BeforeabÉkaxs");
    }

    #[test]
    fn the_two_ways_differ_by_two_letters() {
        assert_eq!((folded_ascii("AbÉ"), folded_simple("AbÉ")), ("abÉ".into(), "abÉ".into()));
        assert_eq!(folded_ascii("\u{212a}\u{17f}A"), "\u{212a}\u{17f}a");
        assert_eq!(folded_simple("\u{212a}\u{17f}A"), "ksa");
    }

    #[test]
    fn no_other_letter_folds_into_ascii() {
        let ascii = regex::Regex::new("(?i)^[a-z]$").unwrap();
        for letter in '\u{80}'..=char::MAX {
            let mut text = [0; 4];
            let text = letter.encode_utf8(&mut text);
            assert_eq!(ascii.is_match(text), is_special(text), "{letter}");
        }
    }
}
