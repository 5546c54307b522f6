//! What a backslash means, outside of brackets and, for single characters, inside too.

use std::iter::Peekable;
use std::str::Chars;

use super::Reading;
use super::class::{self, Letter};
use super::pieces::Piece;

impl Reading<'_> {
    /// Behind a backslash, outside of a class.
    pub(super) fn escaped(&mut self) -> Result<(), String> {
        let Some(sign) = self.rest.next() else { return Err(r"re: \ stands at the end".to_owned()) };
        if let Some(letter) = Letter::of(sign) {
            self.push(Piece::One(letter.outside()));
            return Ok(());
        }
        match sign {
            'b' => self.push(Piece::Empty(r"(?-u:\b)".to_owned())),
            'A' => self.push(Piece::Empty(r"\A".to_owned())),
            'z' => self.push(Piece::Empty(r"\z".to_owned())),
            'Z' => self.push(Piece::End),
            'N' if self.rest.peek() == Some(&'{') => return Err(r"re: \N{…} is not built".to_owned()),
            'N' => self.push(Piece::One(r"[^\n]".to_owned())),
            'R' => self.push(Piece::LineBreak),
            // Where the match begins is not asked.
            'K' => {}
            'Q' => quoted(&mut self.rest).into_iter().for_each(|sign| self.char(sign)),
            'E' => {}
            'p' | 'P' => {
                let property = class::property(sign, &mut self.rest)?;
                self.push(Piece::One(property));
            }
            '1'..='7' if self.rest.peek().is_some_and(|next| next.is_digit(8)) => {
                let further = digits(&mut self.rest, 2, 8);
                return Err(format!(
                    r"re: \{sign}{further} is octal where there are fewer groups, and a backreference else: write \o{{{sign}{further}}}"
                ));
            }
            '1'..='9' => return Err(format!(r"re: a backreference (\{sign}) is not built")),
            'g' | 'k' => return Err(format!(r"re: \{sign} (a backreference or subroutine) is not built")),
            other => {
                let character = character(other, &mut self.rest)?;
                self.char(character);
            }
        }
        Ok(())
    }
}

/// Up to `\E` or the end, each as it stands.
pub(super) fn quoted(rest: &mut Peekable<Chars<'_>>) -> Vec<char> {
    let mut signs = Vec::new();
    while let Some(sign) = rest.next() {
        if sign == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        signs.push(sign);
    }
    signs
}

/// The one character that an escape stands for.
pub(super) fn character(sign: char, rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    Ok(match sign {
        'a' => '\u{7}',
        'e' => '\u{1b}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'c' => match rest.next() {
            Some(key @ ' '..='~') => char::from(u8::try_from(key.to_ascii_uppercase()).unwrap_or(0) ^ 0x40),
            _ => return Err(r"re: \c without its character".to_owned()),
        },
        'x' if rest.next_if_eq(&'{').is_some() => number(r"\x{…}", &braced(rest)?, 16)?,
        'x' => number(r"\x", &digits(rest, 2, 16), 16)?,
        'o' if rest.next_if_eq(&'{').is_some() => number(r"\o{…}", &braced(rest)?, 8)?,
        '0' => number(r"\0", &digits(rest, 2, 8), 8)?,
        // PCRE has no words for them, or others at every version.
        other if other.is_ascii_alphanumeric() => return Err(format!(r"re: \{other} is not built")),
        other => other,
    })
}

/// In a class digits are never a backreference.
pub(super) fn octal(first: char, rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let further = digits(rest, 2, 8);
    number(r"\ddd", &format!("{first}{further}"), 8)
}

fn digits(rest: &mut Peekable<Chars<'_>>, most: usize, radix: u32) -> String {
    let mut found = String::new();
    while found.len() < most
        && let Some(digit) = rest.next_if(|sign| sign.is_digit(radix))
    {
        found.push(digit);
    }
    found
}

fn braced(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut found = String::new();
    for sign in rest.by_ref() {
        if sign == '}' {
            return if found.is_empty() { Err("re: a number without digits".to_owned()) } else { Ok(found) };
        }
        found.push(sign);
    }
    Err("re: { without }".to_owned())
}

/// Without a digit it is NUL.
fn number(what: &str, digits: &str, radix: u32) -> Result<char, String> {
    let code = if digits.is_empty() { Some(0) } else { u32::from_str_radix(digits, radix).ok() };
    code.and_then(char::from_u32).ok_or_else(|| format!("re: {what} {digits} is no character"))
}
