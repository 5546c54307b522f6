//! One walk over a command line that finds where secrets stand.
//!
//! At each end of a word the last three bytes are looked up in a table, and so are any three bytes for the beginning of a
//! known shape; only a hit is looked at closely. Work stays proportional to the length of the line, whatever a process
//! writes into it.
//!
//! Any argument may be a script to the program that gets it (`sh -c`, `ssh host`, `awk`), so all are read word by word. Only
//! what a flag announces may be a whole argument, and what is substituted (`X_TOKEN=$(curl …)`) stays for the rules to see.

use std::ops::Range;

use super::bounds::{self, ENCODED_BYTES, Quotes, ends_argument, ends_word, is_gap, is_quote};
use super::documents::blanks;
use super::lexicon::{Lexicon, pushed};
use super::names::{self, Name};
use super::programs::Program;
use super::{TOKEN_BYTES, TOKEN_START, is_token, shapes};

/// Bytes of a clause of SQL between `IDENTIFIED` and the secret.
const CLAUSE_BYTES: usize = 64;

/// Where the arguments stand.
#[derive(Clone)]
pub(super) struct Arguments<'a> {
    pub(super) lengths: Option<&'a [u32]>,
    next: usize,
    /// The argument at hand, the one before it, and its place.
    pub(super) now: Range<usize>,
    before: Range<usize>,
}

impl<'a> Arguments<'a> {
    pub(super) const fn new(lengths: Option<&'a [u32]>, line: &str) -> Self {
        match lengths {
            Some(_) => Self { lengths, next: 0, now: 0..0, before: 0..0 },
            None => Self { lengths, next: 0, now: 0..line.len(), before: 0..0 },
        }
    }

    /// Moves on to the argument that holds `at` or ends there.
    pub(super) fn seek(&mut self, at: usize) {
        while (self.next == 0 || self.now.end < at) && self.step() {}
    }

    /// Moves on by one argument; whether there was one.
    pub(super) fn step(&mut self) -> bool {
        let Some(after) = self.after() else { return false };
        self.next = self.next.saturating_add(1);
        self.before = std::mem::replace(&mut self.now, after);
        true
    }

    /// The argument behind the one at hand.
    pub(super) fn after(&self) -> Option<Range<usize>> {
        let length = usize::try_from(*self.lengths?.get(self.next)?).ok()?;
        let start = if self.next == 0 { 0 } else { self.now.end.saturating_add(1) };
        Some(start..start.saturating_add(length))
    }
}

pub(super) struct Scan<'a> {
    pub(super) line: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) arguments: Arguments<'a>,
    /// Everything before is decided.
    pub(super) decided: usize,
    pub(super) quotes: Quotes,
    pub(super) program: Option<&'static Program>,
    /// From where on which program's flags are looked for.
    pub(super) programs: Vec<(usize, &'static Program)>,
    found: Vec<Range<usize>>,
}

impl<'a> Scan<'a> {
    /// `lengths` are the arguments', where they are known and fit the line.
    pub(super) fn new(line: &'a str, lengths: Option<&'a [u32]>, executable: Option<&str>, lexicon: &Lexicon) -> Self {
        let program = executable.and_then(|path| lexicon.programs.at(path));
        // The path of the executable as its own first argument is a path, whatever it is called.
        let path = executable.filter(|path| line.strip_prefix(path).is_some_and(|rest| rest.starts_with(' ')));
        Self {
            line,
            bytes: line.as_bytes(),
            arguments: Arguments::new(lengths, line),
            decided: path.map_or(0, str::len),
            quotes: Quotes::default(),
            program,
            programs: program.map(|program| (0, program)).into_iter().collect(),
            found: Vec::new(),
        }
    }

    /// Whether a closer look is worth anything: nearly every line ends here.
    pub(super) fn is_suspect(line: &str, executable: Option<&str>, lexicon: &Lexicon) -> bool {
        let mut hash = 0;
        for (at, byte) in line.bytes().enumerate() {
            if is_break(byte) && lexicon.endings.has(hash) && announces(line, at, lexicon) {
                return true;
            }
            hash = pushed(hash, byte);
            if lexicon.beginnings.has(hash) {
                return true;
            }
        }
        (lexicon.endings.has(hash) && announces(line, line.len(), lexicon))
            || line.contains('@')
            || executable.and_then(|path| lexicon.programs.at(path)).is_some()
    }

    /// The secrets, in order, apart from each other.
    pub(super) fn secrets(mut self, lexicon: &Lexicon) -> Vec<Range<usize>> {
        let mut hash = 0;
        for (at, byte) in self.line.bytes().chain([b' ']).enumerate() {
            if is_break(byte) && at >= self.decided && lexicon.endings.has(hash) {
                self.word_ends(at, lexicon);
            }
            hash = pushed(hash, byte);
            if lexicon.beginnings.has(hash)
                && let Some(start) = at.checked_sub(2).filter(|start| *start >= self.decided)
            {
                self.shape_begins(start);
            }
            if byte == b'@' && at >= self.decided {
                self.account_ends(at);
            }
        }
        self.short_flags();
        merged(self.found)
    }

    fn word_ends(&mut self, at: usize, lexicon: &Lexicon) {
        let front = self.bytes.get(self.decided..at).unwrap_or_default();
        let length = front.iter().rev().take_while(|byte| is_name(**byte)).count();
        let from = at.saturating_sub(length);
        let name = self.bytes.get(from..at).unwrap_or_default();
        // `http:` begins a URL; the program stands alone.
        let byte = self.bytes.get(at);
        let (ends, command_ends) = (byte.is_none_or(|byte| is_gap(*byte)), byte == Some(&b';'));
        if let Some(program) = lexicon.programs.named(name).filter(|program| ends || command_ends && program.is_fed())
        {
            self.program = Some(program);
            self.programs.push((at, program));
        }
        if command_ends {
            return;
        }
        let Some(kind) = names::classify(name) else { return };
        self.arguments.seek(at);
        let Some((separator, value)) = self.separator(at) else {
            let stands_alone = self.left(from).is_none_or(|left| left.is_ascii_whitespace() || is_quote(left));
            let bare = kind == Name::Bearer || self.program.is_some_and(|program| program.bare);
            if stands_alone && (name.starts_with(b"-") || bare) && !matches!(kind, Name::Parameter | Name::Several) {
                self.follows(at, kind);
            } else if kind == Name::Secret || kind == Name::Identified {
                self.clause(from, at, kind);
            }
            return;
        };
        match separator {
            _ if kind == Name::Identified => {}
            b':' if self.opens_array(value) => self.array(value),
            _ if kind == Name::Several => {}
            b'=' => self.assigned(from, value, kind),
            b'>' if self.left(from) == Some(b'<') => self.hide_until(value, kind, ends_word),
            b':' if kind != Name::Parameter => self.header(from, value, kind),
            _ => {}
        }
    }

    /// `IDENTIFIED [WITH plugin] BY 'secret'`, `WITH PASSWORD 'secret'` and `SET PASSWORD = 'secret'` of SQL.
    fn clause(&mut self, from: usize, at: usize, kind: Name) {
        let Range { start, end } = self.arguments.now;
        let name = self.bytes.get(from..at).unwrap_or_default();
        let text =
            self.bytes.get(at..end.min(at.saturating_add(CLAUSE_BYTES))).unwrap_or_default().to_ascii_lowercase();
        let gap = if kind == Name::Identified {
            let Some(by) = bounds::find(&text, b" by ") else { return };
            let named = text.get(by..).is_some_and(|text| text.starts_with(b" by password "));
            by.saturating_add(if named { 13 } else { 4 })
        } else {
            let front = self.bytes.get(start.max(from.saturating_sub(10))..from).unwrap_or_default();
            let front = front.to_ascii_lowercase();
            let announced = front.ends_with(b"with ") || front.ends_with(b"encrypted ") || name == b"PASSWORD";
            let gap = text.iter().take_while(|byte| matches!(byte, b' ' | b'=' | b'n')).count();
            if !announced || text.get(gap) != Some(&b'\'') {
                return;
            }
            gap
        };
        self.hide_until(at.saturating_add(gap), Name::Secret, ends_word);
    }

    /// The separator between a name that ends at `at` and its value, and where the value begins.
    fn separator(&self, at: usize) -> Option<(u8, usize)> {
        let end = self.arguments.now.end;
        let skip = |from: usize, some: fn(u8) -> bool| {
            let rest = self.bytes.get(from..end).unwrap_or_default();
            from.saturating_add(rest.iter().take_while(|byte| some(**byte)).count())
        };
        // The key of a JSON object, perhaps with its quotes escaped.
        let quoted = skip(at, |byte| byte == b'\\' || is_quote(byte));
        let next = if quoted > at { skip(quoted, |byte| byte == b' ') } else { at };
        let separator = *self.bytes.get(next..end)?.first()?;
        let arrow = separator == b'=' && quoted > at && self.bytes.get(next.saturating_add(1)) == Some(&b'>');
        let value = next.saturating_add(1).saturating_add(usize::from(arrow));
        matches!(separator, b'=' | b':' | b'>').then_some((separator, value))
    }

    /// `NAME=value`.
    fn assigned(&mut self, from: usize, value: usize, kind: Name) {
        let left = self.left(from);
        if kind == Name::Parameter && !matches!(left, Some(b'?' | b'&')) {
            return;
        }
        match left {
            _ if kind == Name::Cookie => self.cookies(value, self.arguments.now.end),
            Some(b'?' | b'&') => self.hide_until(value, kind, |byte| byte == b'#' || ends_argument(byte)),
            Some(b',') => self.hide_until(value, kind, |byte| byte == b',' || ends_argument(byte)),
            // Only a flag makes all the rest a value; a shell reads `NAME=value command`.
            None | Some(b'=' | b'/') if self.arguments.lengths.is_some() && self.is_flagged() => {
                self.hide(value..self.arguments.now.end, kind);
            }
            None | Some(b'=' | b'/') if self.is_whole(value) => self.hide_until(value, kind, |_| false),
            None | Some(b'=' | b'/' | b';') if self.arguments.lengths.is_some() => {
                self.hide_until(value, kind, ends_argument);
            }
            _ => self.hide_until(value, kind, ends_word),
        }
    }

    /// Whether the argument at hand is a flag and no script.
    fn is_flagged(&self) -> bool {
        let argument = self.bytes.get(self.arguments.now.start..).unwrap_or_default();
        argument.starts_with(b"-") && !self.in_script()
    }

    /// `Name: value`, as a header, in JSON or in YAML.
    fn header(&mut self, from: usize, value: usize, kind: Name) {
        let (left, end) = (self.left(from), self.arguments.now.end);
        let fits = left.is_none_or(|left| is_gap(left) || matches!(left, b'{' | b',' | b'/' | b'\\'));
        let rest = self.bytes.get(value..end).unwrap_or_default();
        if !fits || rest.starts_with(b"//") {
            return;
        }
        let value = value.saturating_add(blanks(rest));
        let value = if kind == Name::Authorization { self.behind_scheme(value) } else { value };
        let quoted = self.bytes.get(value).is_some_and(|byte| is_quote(*byte) || *byte == b'\\');
        let name = self.bytes.get(from..).unwrap_or_default();
        if !quoted && [&b"Cookie:"[..], b"cookie:"].iter().any(|known| name.starts_with(known)) {
            self.cookies(value, end);
        } else if left.is_none_or(is_quote) && !quoted {
            self.hide_until(value, kind, ends_argument);
        } else {
            self.hide_until(value, kind, ends_word);
        }
    }

    /// `Authorization: scheme secret`.
    fn behind_scheme(&self, value: usize) -> usize {
        let rest = self.bytes.get(value..self.arguments.now.end).unwrap_or_default();
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        let gap = blanks(rest.get(length..).unwrap_or_default());
        let secret = rest.get(length.saturating_add(gap)..).and_then(<[u8]>::first);
        if gap > 0 && secret.is_some_and(|byte| !ends_argument(*byte)) {
            return value.saturating_add(length).saturating_add(gap);
        }
        value
    }

    /// `--name value`.
    fn follows(&mut self, at: usize, kind: Name) {
        let end = self.arguments.now.end;
        let value = if at >= end {
            let Some(next) = self.arguments.after() else { return };
            next
        } else {
            let gap = self.bytes.get(at..end).unwrap_or_default();
            let gap = gap.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if gap == 0 {
                return;
            }
            self.value(at.saturating_add(gap), end, ends_word)
        };
        if self.is_flag(&value) {
            return;
        }
        if kind == Name::Cookie {
            return self.cookies(value.start, value.end);
        }
        if at >= end { self.hide(value, kind) } else { self.hide_word(value, kind) }
    }

    /// A value that begins with a dash is the next flag, unless it looks drawn at random.
    pub(super) fn is_flag(&self, value: &Range<usize>) -> bool {
        let value = self.bytes.get(value.clone()).unwrap_or_default();
        let drawn = value.len() >= 12
            && value.iter().any(u8::is_ascii_digit)
            && value.iter().any(u8::is_ascii_uppercase)
            && !value.contains(&b'=');
        value.starts_with(b"-") && !drawn
    }

    fn shape_begins(&mut self, start: usize) {
        self.arguments.seek(start);
        let end = self.arguments.now.end;
        let text = self.bytes.get(start..end).unwrap_or_default();
        if let Some(behind) = text.strip_prefix(b"://") {
            self.url(start, start.saturating_add(3), behind);
        } else if let Some(length) = shapes::length_of(text, self.left(start)) {
            self.push(start..start.saturating_add(length));
        }
    }

    /// The byte before `from` in the same argument.
    pub(super) fn left(&self, from: usize) -> Option<u8> {
        if from <= self.arguments.now.start {
            return None;
        }
        self.bytes.get(from.checked_sub(1)?).copied()
    }

    pub(super) fn in_script(&self) -> bool {
        let flag = self.bytes.get(self.arguments.before.clone()).unwrap_or_default();
        flag.len() <= 4 && flag.starts_with(b"-") && flag.ends_with(b"c")
    }

    /// The value at `from`: what stands between quotes that open there and are closed, otherwise one word.
    pub(super) fn value(&mut self, from: usize, end: usize, stop: fn(u8) -> bool) -> Range<usize> {
        let end = end.min(from.saturating_add(ENCODED_BYTES));
        let text = self.bytes.get(from..end).unwrap_or_default();
        let escapes = text.iter().take_while(|byte| **byte == b'\\').count();
        let Some(quote) = text.get(escapes).copied().filter(|byte| is_quote(*byte)) else {
            return from..from.saturating_add(text.iter().position(|byte| stop(*byte)).unwrap_or(text.len()));
        };
        self.quotes.read(self.bytes, self.arguments.now.start, from);
        let text = text.get(escapes.saturating_add(1)..).unwrap_or_default();
        let from = from.saturating_add(escapes).saturating_add(1);
        let length = self.quotes.between(text, quote, escapes > 0).unwrap_or_else(|| {
            let word = text.iter().position(|byte| ends_word(*byte)).unwrap_or(text.len());
            let word = text.get(..word).unwrap_or_default();
            word.iter().rposition(|byte| escapes == 0 || *byte != b'\\').map_or(0, |last| last.saturating_add(1))
        });
        from..from.saturating_add(length)
    }

    fn hide_until(&mut self, from: usize, kind: Name, stop: fn(u8) -> bool) {
        let gap = self.bytes.get(from..self.arguments.now.end).unwrap_or_default();
        let gap = gap.iter().take_while(|byte| **byte == b' ').count();
        // `"key": "value"` and `key = value` have room before the value, `KEY= command` has no value.
        let quoted =
            self.bytes.get(from.saturating_add(gap)).copied().is_some_and(|byte| is_quote(byte) || byte == b'\\');
        let from = if quoted { from.saturating_add(gap) } else { from };
        if !self.is_path(from, kind) {
            let value = self.value(from, self.arguments.now.end, stop);
            self.hide_word(value, kind);
        }
    }

    fn is_path(&self, from: usize, kind: Name) -> bool {
        matches!(kind, Name::SecretOrPath | Name::Cookie)
            && matches!(self.bytes.get(from), Some(b'/' | b'~' | b'.' | b'@'))
    }

    /// A secret does not begin inside a token: its colon is none of a name and a password.
    fn behind_token(&self, start: usize) -> usize {
        let token = start.checked_sub(TOKEN_START.len()).map(|from| from..from.saturating_add(TOKEN_BYTES));
        match token.filter(|token| self.bytes.get(token.clone()).is_some_and(is_token)) {
            Some(token) => token.end,
            None => start,
        }
    }

    /// A word of what may be a script: what it substitutes stays.
    pub(super) fn hide_word(&mut self, range: Range<usize>, kind: Name) {
        let text = self.bytes.get(range.clone()).unwrap_or_default();
        let literal = range.start.checked_sub(1).and_then(|at| self.bytes.get(at)) == Some(&b'\'');
        let script = self.arguments.lengths.is_some() && self.in_script();
        let substituted = if script && !literal && text.starts_with(b"$") {
            Some(0)
        } else {
            text.windows(2).position(|two| matches!(two, b"$(" | b"${" | [b'`', _]))
        };
        self.hide(range.start..substituted.map_or(range.end, |at| range.start.saturating_add(at)), kind);
    }

    /// The value of a known name, as far as one may reach.
    pub(super) fn hide(&mut self, range: Range<usize>, kind: Name) {
        let start = self.behind_token(range.start.max(self.decided));
        let text = self.bytes.get(start..range.end).unwrap_or_default();
        if !self.is_path(start, kind) && !text.get(..TOKEN_BYTES).is_some_and(is_token) {
            self.push(start..self.line.floor_char_boundary(start.saturating_add(bounds::reach(text))));
        }
    }

    pub(super) fn push(&mut self, range: Range<usize>) {
        if range.start < range.end && self.line.get(range.clone()).is_some() {
            self.decided = range.end;
            self.found.push(range);
        }
    }
}

fn merged(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match apart.last_mut().filter(|last| range.start < last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => apart.push(range),
        }
    }
    apart
}

/// Whether the name that ends at `at` means something: three letters fall together with those of many other words.
fn announces(line: &str, at: usize, lexicon: &Lexicon) -> bool {
    let front = line.as_bytes().get(..at).unwrap_or_default();
    let length = front.iter().rev().take_while(|byte| is_name(**byte)).count();
    let name = front.get(at.saturating_sub(length)..).unwrap_or_default();
    lexicon.programs.named(name).is_some() || names::classify(name).is_some()
}

pub(super) const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// What may stand behind a name.
const fn is_break(byte: u8) -> bool {
    is_gap(byte) || matches!(byte, b'=' | b':' | b';' | b'\\' | b'>')
}
