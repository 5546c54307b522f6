//! Regular expressions as Sigma has them (PCRE) in the words of our engine. What can be said exactly is; what cannot is refused by
//! its name, here or where the expression is compiled.
//!
//! PCRE without its Unicode mode: `\d`, `\s`, `\w`, `\b` and the flag `i` know ASCII only. Texts are looked at by characters, not by
//! bytes. Only whether there is a match counts, so `\K`, greed and the numbers of groups mean nothing. Flags are worked into the pieces, since ours
//! fold Unicode and theirs hold for parts of an expression.

mod anchors;
mod class;
mod escape;
mod pieces;

use std::iter::Peekable;
use std::str::Chars;

pub(super) use self::pieces::{Piece, said};

/// The expression as `re_match` takes it; `flags` are of `ims`.
pub(super) fn translated(pattern: &str, flags: &str) -> Result<String, String> {
    let has = |flag| flags.contains(flag);
    let flags = Flags { fold: has('i'), lines: has('m'), dot_all: has('s') };
    let mut reading = Reading { rest: pattern.chars().peekable(), pieces: Vec::new(), flags, outer: Vec::new() };
    reading.whole()?;
    said(&anchors::settled(reading.pieces)?)
}

/// What holds for the signs that follow in the same group.
#[derive(Debug, Clone, Copy)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_all: bool,
}

struct Reading<'a> {
    rest: Peekable<Chars<'a>>,
    pieces: Vec<Piece>,
    flags: Flags,
    /// Those of the groups around.
    outer: Vec<Flags>,
}

impl Reading<'_> {
    fn whole(&mut self) -> Result<(), String> {
        while let Some(sign) = self.rest.next() {
            match sign {
                '\\' => self.escaped()?,
                '[' => {
                    let class = class::read(&mut self.rest, self.flags.fold)?;
                    self.push(Piece::One(class));
                }
                '(' => self.opened()?,
                ')' => {
                    self.flags = self.outer.pop().ok_or("re: a closing parenthesis that nothing opened")?;
                    self.push(Piece::Close);
                }
                '|' => self.push(Piece::Or),
                '.' => self.push(Piece::One(if self.flags.dot_all { "(?s:.)" } else { "." }.to_owned())),
                '^' if self.flags.lines => self.push(Piece::LineStart),
                '^' => self.push(Piece::Empty(r"\A".to_owned())),
                '$' if self.flags.lines => self.push(Piece::Empty("(?m:$)".to_owned())),
                '$' => self.push(Piece::End),
                '*' | '+' | '?' => self.quantified(sign.to_string(), sign != '+')?,
                '{' => self.counted()?,
                other => self.char(other),
            }
        }
        if self.outer.is_empty() { Ok(()) } else { Err("re: an unclosed group".to_owned()) }
    }

    fn push(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }

    fn char(&mut self, sign: char) {
        let folds = self.flags.fold && sign.is_ascii_alphabetic();
        self.push(Piece::Char(sign, folds));
    }

    /// `min_is_none`: it lets what stands before it be absent.
    fn quantified(&mut self, text: String, min_is_none: bool) -> Result<(), String> {
        match self.pieces.last() {
            None | Some(Piece::Open | Piece::Or) => return Err(format!("re: {text} stands behind nothing")),
            Some(Piece::Quantifier(..)) => {
                return Err(format!("re: {text} behind a quantifier (possessive, with +) is not built"));
            }
            Some(Piece::Empty(_) | Piece::End | Piece::LineStart) => {
                return Err(format!("re: {text} behind an anchor is not built"));
            }
            Some(_) => {}
        }
        let lazy = if self.rest.next_if_eq(&'?').is_some() { "?" } else { "" };
        self.push(Piece::Quantifier(text + lazy, min_is_none));
        Ok(())
    }

    /// Behind `{`: a count, or the character where what follows is none.
    fn counted(&mut self) -> Result<(), String> {
        let inside: String = self.rest.clone().take_while(|sign| *sign != '}').collect();
        let closes = self.rest.clone().nth(inside.chars().count()) == Some('}');
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let (least, most) = inside.split_once(',').unwrap_or((&inside, "0"));
        if !closes || !inside.contains(|sign: char| sign.is_ascii_digit()) {
            self.char('{');
        } else if is_number(least) && (most.is_empty() || is_number(most)) {
            self.rest.nth(inside.chars().count());
            self.quantified(format!("{{{inside}}}"), least.bytes().all(|digit| digit == b'0'))?;
        } else if inside.chars().all(|sign| sign.is_ascii_digit() || matches!(sign, ',' | ' ' | '\t')) {
            // Characters to PCRE before 10.43, a count since.
            return Err(format!("re: {{{inside}}} is read differently by versions of PCRE: write {{0,n}}, or \\{{"));
        } else {
            self.char('{');
        }
        Ok(())
    }

    /// Behind an opening parenthesis.
    fn opened(&mut self) -> Result<(), String> {
        if self.rest.peek() == Some(&'*') {
            return Err("re: (*…) (a verb) is not built".to_owned());
        }
        let outer = self.flags;
        if self.rest.next_if_eq(&'?').is_none() {
            return self.group(outer);
        }
        let mut ahead = self.rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('#'), _) => {
                let closed = self.rest.by_ref().any(|sign| sign == ')');
                if closed { Ok(()) } else { Err("re: a comment (?# without its end".to_owned()) }
            }
            (Some('<'), Some('=' | '!')) => Err("re: look-behind (?<…) is not built".to_owned()),
            (Some('=' | '!'), _) => Err("re: look-ahead (?=…) is not built".to_owned()),
            (Some('>'), _) => Err("re: an atomic group (?>…) is not built".to_owned()),
            (Some('|'), _) => Err("re: a group (?|…) whose branches share numbers is not built".to_owned()),
            (Some('('), _) => Err("re: a condition (?(…)…) is not built".to_owned()),
            (Some('P'), Some('=')) => Err("re: a backreference (?P=…) is not built".to_owned()),
            (Some('P'), Some('<')) => {
                self.rest.next();
                self.named('>', outer)
            }
            (Some('<'), _) => self.named('>', outer),
            (Some('\''), _) => self.named('\'', outer),
            (Some('P' | '&' | 'R' | '0'..='9' | '+'), _) | (Some('-'), Some('0'..='9')) => {
                let what: String = self.rest.clone().take(1).collect();
                Err(format!("re: (?{what}…) (a subroutine) is not built"))
            }
            _ => self.flagged(outer),
        }
    }

    fn group(&mut self, outer: Flags) -> Result<(), String> {
        self.outer.push(outer);
        self.push(Piece::Open);
        Ok(())
    }

    /// The name says nothing about what matches.
    fn named(&mut self, end: char, outer: Flags) -> Result<(), String> {
        self.rest.next();
        let name: String = self.rest.by_ref().take_while(|sign| *sign != end).collect();
        if name.is_empty() || !name.chars().all(|sign| sign.is_alphanumeric() || sign == '_') {
            return Err(format!("re: {name:?} is no name of a group"));
        }
        self.group(outer)
    }

    /// `(?i)` for the rest of the group, or `(?i:…)` for one of its own.
    fn flagged(&mut self, outer: Flags) -> Result<(), String> {
        let (mut flags, mut on) = (outer, true);
        loop {
            match self.rest.next() {
                Some('i') => flags.fold = on,
                Some('m') => flags.lines = on,
                Some('s') => flags.dot_all = on,
                Some('-') if on => on = false,
                Some(':') => {
                    self.flags = flags;
                    return self.group(outer);
                }
                Some(')') => {
                    self.flags = flags;
                    return Ok(());
                }
                Some(flag) => return Err(format!("re: (?{flag}…) is not built")),
                None => return Err("re: an unclosed group".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
