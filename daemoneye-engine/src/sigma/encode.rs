//! Modifiers that encode a value as it would stand in a command line: UTF-16, Base64 at each of three offsets, and the spellings
//! of a Windows option.

use super::text::{Pattern, Token};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes of one character of UTF-16 in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wide {
    Big,
    Little,
    /// Little, behind a byte order mark.
    Marked,
}

pub(super) fn utf16(text: &str, order: Wide) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(|unit| match order {
        Wide::Big => unit.to_be_bytes(),
        Wide::Little | Wide::Marked => unit.to_le_bytes(),
    });
    let mark: &[u8] = if order == Wide::Marked { &[0xFF, 0xFE] } else { &[] };
    mark.iter().copied().chain(units).collect()
}

pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for (place, shift) in [18_u32, 12, 6, 0].into_iter().enumerate() {
            let index = usize::try_from((bits >> shift) & 63).unwrap_or(0);
            let digit = ALPHABET.get(index).copied().map_or('=', char::from);
            text.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// What is the same of the encoded value wherever it begins: one text for each offset within three bytes. `None`: at one of them no
/// digit is the value's alone.
pub(super) fn base64_at_offsets(bytes: &[u8]) -> Option<Vec<String>> {
    let at = |offset: usize| {
        let shifted: Vec<u8> = std::iter::repeat_n(b' ', offset).chain(bytes.iter().copied()).collect();
        let whole = base64(&shifted);
        // Digits that hold bits of what stands before or behind the value.
        let (before, behind) = ([0, 2, 3].get(offset).copied()?, [0, 3, 2].get(shifted.len() % 3).copied()?);
        whole.get(before..whole.len().saturating_sub(behind)).filter(|own| !own.is_empty()).map(str::to_owned)
    };
    (0..3).map(at).collect()
}

/// A value whose options begin with any of their signs: a dash or slash that does not stand behind a word character and stands before
/// one.
pub(super) fn windash(pattern: &Pattern) -> Pattern {
    let is_word = |token: Option<&Token>| matches!(token, Some(Token::Char(character)) if character.is_alphanumeric() || *character == '_');
    let tokens = &pattern.0;
    let begins = |at: usize| {
        let dash = matches!(tokens.get(at), Some(Token::Char('-' | '/')));
        dash && !is_word(at.checked_sub(1).and_then(|before| tokens.get(before))) && is_word(tokens.get(at + 1))
    };
    let spelled = tokens.iter().enumerate().map(|(at, token)| if begins(at) { Token::Dash } else { *token });
    Pattern(spelled.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn every_offset_is_found_in_the_encoding_of_a_longer_text() {
        let needle = "/bin/bash";
        let shifts = base64_at_offsets(needle.as_bytes()).unwrap();
        assert_eq!(shifts, ["L2Jpbi9iYXNo", "9iaW4vYmFza", "vYmluL2Jhc2"]);
        for before in ["", "x", "xy", "xyz", "wxyz"] {
            for behind in ["", "1", "12"] {
                let whole = base64(format!("{before}{needle}{behind}").as_bytes());
                assert!(shifts.iter().any(|shift| whole.contains(shift)), "{before:?} {behind:?}");
            }
        }
    }

    #[test]
    fn one_byte_has_no_digit_of_its_own_at_one_offset() {
        assert_eq!(base64_at_offsets(b"a"), None);
        assert_eq!(base64_at_offsets(b""), None);
        assert!(base64_at_offsets(b"ab").is_some_and(|shifts| shifts.iter().all(|shift| !shift.is_empty())));
    }

    #[test]
    fn an_option_has_five_spellings_and_a_dash_in_a_word_has_one() {
        let of = |text: &str| windash(&Pattern::parse(text, false)).spelled().len();
        assert_eq!((of("-a"), of("*-a"), of(" /a -b")), (5, 5, 25));
        assert_eq!((of("a-b"), of("- a")), (1, 1));
    }
}
