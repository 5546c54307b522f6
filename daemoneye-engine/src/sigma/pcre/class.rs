//! What stands in brackets: a set of characters, calculated, because ours has set operations in it and folds Unicode.

use std::iter::Peekable;
use std::str::Chars;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::escape;

/// Ranges of characters, first and last.
type Ranges = &'static [(char, char)];

/// A letter behind a backslash that stands for several characters.
pub(super) struct Letter {
    members: Ranges,
    negated: bool,
}

impl Letter {
    pub(super) fn of(sign: char) -> Option<Self> {
        let members: Ranges = match sign.to_ascii_lowercase() {
            'd' => DIGIT,
            'h' => HORIZONTAL,
            's' => SPACE,
            'v' => VERTICAL,
            'w' => WORD,
            _ => return None,
        };
        Some(Self { members, negated: sign.is_ascii_uppercase() })
    }

    /// As it stands outside of brackets.
    pub(super) fn outside(&self) -> String {
        said(self.negated, &set(self.members), "")
    }

    fn set(&self) -> ClassUnicode {
        let mut members = set(self.members);
        if self.negated {
            members.negate();
        }
        members
    }
}

const DIGIT: Ranges = &[('0', '9')];
const HORIZONTAL: Ranges = &[
    ('\t', '\t'),
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
];
const SPACE: Ranges = &[('\t', '\r'), (' ', ' ')];
/// What `\R` takes, but for the pair of carriage return and line feed.
pub(super) const VERTICAL: Ranges = &[('\n', '\r'), ('\u{85}', '\u{85}'), ('\u{2028}', '\u{2029}')];
const WORD: Ranges = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// The names in `[:…:]`, all of ASCII.
const POSIX: &[(&str, Ranges)] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\u{7f}')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\u{1f}'), ('\u{7f}', '\u{7f}')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", SPACE),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

fn set(ranges: Ranges) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(first, last)| ClassUnicodeRange::new(*first, *last)))
}

/// One member as it is read.
enum Member {
    Char(char),
    /// A hyphen beside it is itself.
    Several(ClassUnicode),
    Property(String),
}

/// The class behind an opening bracket.
pub(super) fn read(rest: &mut Peekable<Chars<'_>>, folds: bool) -> Result<String, String> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut reading =
        Reading { rest, folds, queue: Vec::new(), members: ClassUnicode::empty(), properties: String::new() };
    if reading.rest.next_if_eq(&']').is_some() {
        reading.queue.push(']');
    }
    reading.all()?;
    let Reading { mut members, properties, .. } = reading;
    if folds {
        // Unicode's folding would bring in the Kelvin sign and the long s.
        let letters = |first, last| ClassUnicode::new([ClassUnicodeRange::new(first, last)]);
        let (mut large, mut small) = (letters('A', 'Z'), letters('a', 'z'));
        large.intersect(&members);
        small.intersect(&members);
        members.union(&moved(&large, |letter| letter.to_ascii_lowercase()));
        members.union(&moved(&small, |letter| letter.to_ascii_uppercase()));
    }
    Ok(said(negated, &members, &properties))
}

fn moved(letters: &ClassUnicode, to: impl Fn(char) -> char) -> ClassUnicode {
    ClassUnicode::new(letters.iter().map(|range| ClassUnicodeRange::new(to(range.start()), to(range.end()))))
}

struct Reading<'a, 'p> {
    rest: &'a mut Peekable<Chars<'p>>,
    folds: bool,
    /// Characters that are quoted, the next one last.
    queue: Vec<char>,
    members: ClassUnicode,
    properties: String,
}

impl Reading<'_, '_> {
    fn all(&mut self) -> Result<(), String> {
        while let Some(member) = self.member()? {
            let is_range = self.queue.is_empty() && self.rest.peek() == Some(&'-') && {
                let mut ahead = self.rest.clone();
                ahead.next();
                ahead.next().is_some_and(|sign| sign != ']')
            };
            let Member::Char(first) = member else {
                self.add(member);
                continue;
            };
            if !is_range {
                self.add(Member::Char(first));
                continue;
            }
            self.rest.next();
            match self.member()?.ok_or("re: a range in [ ] without its end")? {
                Member::Char(last) if first <= last => {
                    self.members.push(ClassUnicodeRange::new(first, last));
                }
                Member::Char(last) => return Err(format!("re: the range {first}-{last} in [ ] is out of order")),
                other => {
                    self.add(Member::Char(first));
                    self.add(Member::Char('-'));
                    self.add(other);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, member: Member) {
        match member {
            Member::Char(one) => self.members.push(ClassUnicodeRange::new(one, one)),
            Member::Several(set) => self.members.union(&set),
            Member::Property(property) => self.properties.push_str(&property),
        }
    }

    /// The next member; `None` is the closing bracket.
    fn member(&mut self) -> Result<Option<Member>, String> {
        loop {
            if let Some(quoted) = self.queue.pop() {
                return Ok(Some(Member::Char(quoted)));
            }
            let Some(sign) = self.rest.next() else { return Err("re: an unclosed character class".to_owned()) };
            match sign {
                ']' => return Ok(None),
                '[' if matches!(self.rest.peek(), Some(':' | '.' | '=')) => {
                    if let Some(named) = self.named()? {
                        return Ok(Some(Member::Several(named)));
                    }
                    return Ok(Some(Member::Char('[')));
                }
                '\\' => match self.escaped()? {
                    Some(member) => return Ok(Some(member)),
                    None => continue,
                },
                other => return Ok(Some(Member::Char(other))),
            }
        }
    }

    /// `[:alpha:]` or `[:^alpha:]`; `None`: the bracket is itself.
    fn named(&mut self) -> Result<Option<ClassUnicode>, String> {
        let mut ahead = self.rest.clone();
        let Some(mark) = ahead.next() else { return Ok(None) };
        let name: String = ahead.clone().take_while(|sign| sign.is_ascii_alphabetic() || *sign == '^').collect();
        let mut behind = ahead.skip(name.chars().count());
        if (behind.next(), behind.next()) != (Some(mark), Some(']')) {
            return Ok(None);
        }
        if mark != ':' {
            return Err(format!("re: [{mark}{name}{mark}] (a collating element) is not built"));
        }
        let known = name.strip_prefix('^').unwrap_or(&name);
        // Without case both stand for letters, and their opposites for what is none.
        let meant = if self.folds && matches!(known, "lower" | "upper") { "alpha" } else { known };
        let members = POSIX.iter().find(|(posix, _)| *posix == meant).map(|(_, members)| set(members));
        let mut members = members.ok_or_else(|| format!("re: there is no class [:{known}:]"))?;
        if known.len() < name.len() {
            members.negate();
        }
        // The mark on both sides and the bracket.
        self.rest.nth(name.chars().count() + 2);
        Ok(Some(members))
    }

    /// Behind a backslash; `None`: it says nothing.
    fn escaped(&mut self) -> Result<Option<Member>, String> {
        let Some(sign) = self.rest.next() else { return Err("re: an unclosed character class".to_owned()) };
        if let Some(letter) = Letter::of(sign) {
            return Ok(Some(Member::Several(letter.set())));
        }
        Ok(Some(match sign {
            'b' => Member::Char('\u{8}'),
            'Q' => {
                self.queue = escape::quoted(self.rest);
                self.queue.reverse();
                return Ok(None);
            }
            'E' => return Ok(None),
            'p' | 'P' => Member::Property(property(sign, self.rest)?),
            '0'..='7' => Member::Char(escape::octal(sign, self.rest)?),
            other => Member::Char(escape::character(other, self.rest)?),
        }))
    }
}

/// General categories, of one letter or two, mean the same to both; the flag `i` changes nothing about them.
pub(super) fn property(sign: char, rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let name: String = match rest.next() {
        Some('{') => rest.by_ref().take_while(|letter| *letter != '}').collect(),
        letter => letter.into_iter().collect(),
    };
    let (bare, negated) = name.strip_prefix('^').map_or((name.as_str(), sign == 'P'), |bare| (bare, sign == 'p'));
    let is_category = matches!(bare.len(), 1 | 2) && bare.starts_with(|letter: char| "LMNPSZC".contains(letter));
    if !is_category || !bare.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return Err(format!(r"re: the property \{sign}{{{name}}} is not built"));
    }
    Ok(format!(r"\{}{{{bare}}}", if negated { 'P' } else { 'p' }))
}

/// Brackets with these members.
fn said(negated: bool, members: &ClassUnicode, properties: &str) -> String {
    let mut text = String::from(if negated { "[^" } else { "[" });
    for range in members.iter() {
        push(&mut text, range.start());
        let length = u32::from(range.end()).saturating_sub(u32::from(range.start()));
        if length > 1 {
            text.push('-');
        }
        if length > 0 {
            push(&mut text, range.end());
        }
    }
    text.push_str(properties);
    text.push(']');
    text
}

/// A character as both sides of brackets take it.
pub(super) fn push(text: &mut String, character: char) {
    match character {
        '\n' => text.push_str(r"\n"),
        '\r' => text.push_str(r"\r"),
        '\t' => text.push_str(r"\t"),
        '<' | '>' | ' ' | '_' | '/' | ',' | ':' | ';' | '=' | '!' | '"' | '\'' | '@' | '%' | '`' => {
            text.push(character)
        }
        _ if character.is_alphanumeric() => text.push(character),
        _ if character.is_ascii_punctuation() => text.extend(['\\', character]),
        // Whatever cannot be seen, or combines with its neighbours.
        _ => text.push_str(&format!("\\x{{{:X}}}", u32::from(character))),
    }
}

/// `\v` in brackets.
pub(super) fn vertical() -> String {
    said(false, &set(VERTICAL), "")
}
