//! Regular expressions as Sigma has them (PCRE) in the words of our engine, which reads some signs in another way. What it reads
//! alike stays as it is; what it has no words for is refused by its name, here or where the expression is compiled.
//!
//! PCRE's `\d`, `\s`, `\w` and `\b` know ASCII only, `\<` is a character, a class holds no classes and no set operations, `$` also
//! stands before a line end that is the last character, and a `+` behind a quantifier takes what was matched for good.

use std::iter::Peekable;
use std::str::Chars;

/// The expression as `re_match` takes it.
pub(super) fn translated(pattern: &str) -> Result<String, String> {
    let mut reading = Reading { rest: pattern.chars().peekable(), out: String::with_capacity(pattern.len()) };
    reading.whole()?;
    Ok(reading.out)
}

/// The characters of a class's letter, as they stand inside brackets.
const fn members(letter: char) -> Option<&'static str> {
    match letter {
        'd' | 'D' => Some("0-9"),
        's' | 'S' => Some(r"\t\n\x0B\x0C\r "),
        'w' | 'W' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

/// What came before, as far as the next sign's meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// `{` without its end.
    Count,
    Other,
    Quantifier,
}

struct Reading<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

impl Reading<'_> {
    fn whole(&mut self) -> Result<(), String> {
        let mut before = Before::Other;
        while let Some(sign) = self.rest.next() {
            before = match sign {
                '\\' => self.escaped().map(|()| Before::Other)?,
                '[' => self.class().map(|()| Before::Other)?,
                '(' => self.group().map(|()| Before::Other)?,
                '+' | '*' if before == Before::Quantifier => {
                    return Err(format!("re: {sign} behind a quantifier (possessive) is not built"));
                }
                '+' | '*' | '?' => self.keep(sign, Before::Quantifier),
                '{' => self.keep(sign, Before::Count),
                '}' if before == Before::Count => self.keep(sign, Before::Quantifier),
                '$' if matches!(self.rest.peek(), None | Some(')' | '|')) => {
                    self.out.push_str(r"\n?$");
                    Before::Other
                }
                _ => self.keep(sign, if before == Before::Count { before } else { Before::Other }),
            };
        }
        Ok(())
    }

    fn keep(&mut self, sign: char, before: Before) -> Before {
        self.out.push(sign);
        before
    }

    /// Behind a backslash, outside of a class.
    fn escaped(&mut self) -> Result<(), String> {
        let Some(sign) = self.rest.next() else {
            self.out.push('\\');
            return Ok(());
        };
        match (sign, members(sign)) {
            (_, Some(members)) if sign.is_ascii_uppercase() => self.out.extend(["[^", members, "]"]),
            (_, Some(members)) => self.out.extend(["[", members, "]"]),
            ('b', None) => self.out.push_str(r"(?-u:\b)"),
            ('<' | '>', None) => self.out.push(sign),
            ('B' | 'u' | 'U' | 'v', None) => return Err(format!(r"re: \{sign} is not built")),
            ('p' | 'P', None) => return self.property(sign),
            _ => self.out.extend(['\\', sign]),
        }
        // The number of a character is no count.
        if sign == 'x' && self.rest.peek() == Some(&'{') {
            self.out.extend(self.rest.by_ref().take_while(|digit| *digit != '}').chain(['}']));
        }
        Ok(())
    }

    /// General categories, of one letter or two, mean the same to both.
    fn property(&mut self, sign: char) -> Result<(), String> {
        let name: String = match self.rest.next() {
            Some('{') => self.rest.by_ref().take_while(|letter| *letter != '}').collect(),
            letter => letter.into_iter().collect(),
        };
        if !(matches!(name.len(), 1 | 2) && name.starts_with(|letter: char| "LMNPSZC".contains(letter))) {
            return Err(format!(r"re: the property \{sign}{{{name}}} is not built"));
        }
        self.out.push_str(&format!(r"\{sign}{{{name}}}"));
        Ok(())
    }

    /// Behind an opening parenthesis. Flags that are ours alone would say something else there.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        let mut flags = self.rest.clone().take_while(|flag| flag.is_ascii_alphabetic() || *flag == '-');
        let named = self.rest.peek() == Some(&'P');
        match flags.find(|flag| !named && "xuRU".contains(*flag)) {
            Some(flag) => Err(format!("re: (?{flag}…) is not built")),
            None => Ok(()),
        }
    }

    /// Behind an opening bracket.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        if self.rest.next_if_eq(&']').is_some() {
            self.out.push_str(r"\]");
        }
        // A hyphen beside a class's letter is itself.
        let mut behind_letter = false;
        while let Some(sign) = self.rest.next() {
            let was = std::mem::take(&mut behind_letter);
            match sign {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => behind_letter = self.escaped_in_class()?,
                '[' if self.rest.peek() == Some(&':') => {
                    self.out.push('[');
                    for letter in self.rest.by_ref().take_while(|letter| *letter != ']') {
                        self.out.push(letter);
                    }
                    self.out.push(']');
                    behind_letter = true;
                }
                '-' if was || self.letter_follows() || self.rest.peek() == Some(&']') => self.out.push_str(r"\-"),
                '-' if self.rest.peek() == Some(&'-') => {
                    return Err("re: a range that ends with - inside [ ] is not built: write \\-".to_owned());
                }
                '[' | '&' | '~' => self.out.extend(['\\', sign]),
                _ => self.out.push(sign),
            }
        }
        // Without an end it does not compile.
        Ok(())
    }

    fn letter_follows(&self) -> bool {
        let mut ahead = self.rest.clone();
        ahead.next() == Some('\\') && ahead.next().is_some_and(|letter| members(letter).is_some())
    }

    /// Behind a backslash, inside a class: whether it is a class's letter.
    fn escaped_in_class(&mut self) -> Result<bool, String> {
        let Some(sign) = self.rest.next() else { return Ok(false) };
        match (sign, members(sign)) {
            (_, Some(members)) if sign.is_ascii_uppercase() => self.out.extend(["[^", members, "]"]),
            (_, Some(members)) => self.out.push_str(members),
            ('b', None) => self.out.push_str(r"\x08"),
            ('<' | '>', None) => self.out.push(sign),
            ('u' | 'U' | 'v', None) => return Err(format!(r"re: \{sign} is not built")),
            ('p' | 'P', None) => return self.property(sign).map(|()| true),
            _ => self.out.extend(['\\', sign]),
        }
        Ok(members(sign).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_read_alike_stays_as_it_is() {
        for same in [
            "",
            "a+?b*?c??d{2,3}?",
            "(?i:a)(?P<x>b)(?<y>c)",
            "[a-z]",
            r"\x41\\",
            "a{2}b",
            r"\{x\}+",
            "a}+",
            r"\x{41}+",
        ] {
            assert_eq!(translated(same).unwrap(), same);
        }
    }

    #[test]
    fn what_pcre_reads_otherwise_is_said_otherwise() {
        for (from, to) in [
            (r"\<a\>", "<a>"),
            (r"\d\W", "[0-9][^0-9A-Za-z_]"),
            (r"\bx", r"(?-u:\b)x"),
            ("[a&&b]", r"[a\&\&b]"),
            ("[a~~b]", r"[a\~\~b]"),
            ("[a[b]", r"[a\[b]"),
            ("[]a]", r"[\]a]"),
            (r"[\w-z]", r"[0-9A-Za-z_\-z]"),
            (r"[a-\d]", r"[a\-0-9]"),
            ("[[:alpha:]-z]", r"[[:alpha:]\-z]"),
            (r"[^\S]", r"[^[^\t\n\x0B\x0C\r ]]"),
            ("a$", r"a\n?$"),
            ("(a$|b$)c$d", r"(a\n?$|b\n?$)c$d"),
            (r"\pL\p{Lu}", r"\p{L}\p{Lu}"),
        ] {
            assert_eq!(translated(from).unwrap(), to);
            assert!(regex::Regex::new(to).is_ok(), "{to}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_its_name() {
        for (pattern, word) in [
            ("a++", "possessive"),
            ("a{2}+", "possessive"),
            ("a?+", "possessive"),
            ("[+--]", "range"),
            (r"\p{Greek}", "Greek"),
            (r"\Bx", r"\B"),
            (r"\v", r"\v"),
            ("(?x)a b", "(?x"),
            ("(?i-u:a)", "(?u"),
            ("(?R)", "(?R"),
        ] {
            let refused = translated(pattern).unwrap_err();
            assert!(refused.contains(word), "{pattern}: {refused}");
        }
    }
}
