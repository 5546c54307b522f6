//! Short flags of programs whose short flags take a password.

use std::ops::Range;

use super::bounds::{Quotes, ends_word};
use super::names::Name;
use super::programs::{Also, Program};
use super::scan::{Arguments, Scan};

/// Flags of curl that take no value and so may stand before `-u`.
const SWITCHES: &[u8] = b"#0146fgiIjklLnNOqRsSv";

impl Scan<'_> {
    /// `-p secret` and `-psecret`, from each known program to the next.
    pub(super) fn short_flags(&mut self) {
        let programs = std::mem::take(&mut self.programs);
        self.arguments = Arguments::new(self.arguments.lengths, self.line);
        self.quotes = Quotes::default();
        self.decided = 0;
        let ends = programs.iter().skip(1).map(|(at, _)| *at).chain([self.bytes.len()]);
        for ((from, program), end) in programs.iter().zip(ends) {
            self.places(*from, program);
            let mut at = *from;
            while at < end {
                let rest = self.bytes.get(at..end).unwrap_or_default();
                let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                let word = at..at.saturating_add(length);
                if matches!(rest.first(), Some(b'-' | b'/')) {
                    self.arguments.seek(word.end);
                    self.short_flag(program, word);
                }
                at = at.saturating_add(length).saturating_add(1);
            }
        }
    }

    fn short_flag(&mut self, program: &Program, word: Range<usize>) {
        let text = self.bytes.get(word.clone()).unwrap_or_default();
        let cookies = if let Also::Cookies(flags) = program.also { flags } else { &[] };
        let pairs = program.pairs.iter().map(|flag| (flag, true));
        for (flag, pair) in program.secrets.iter().chain(cookies).map(|flag| (flag, false)).chain(pairs) {
            let Some(length) = flag_length(text, flag, pair || cookies.contains(flag)) else { continue };
            let glued = length < text.len();
            if !(if glued { program.glued } else { program.apart }) {
                continue;
            }
            let from = word.start.saturating_add(length);
            let value = if glued { Some(self.whole_or_word(word.start, from)) } else { self.behind(from) };
            let Some(value) = value.filter(|value| !self.is_flag(value)) else { return };
            if cookies.contains(flag) {
                return self.cookies(value.start, value.end);
            }
            if matches!(program.also, Also::Options) {
                return self.options(value, program.mark);
            }
            let start = if pair {
                let text = self.bytes.get(value.clone()).unwrap_or_default();
                let Some(mark) = text.iter().position(|byte| *byte == program.mark) else { return };
                value.start.saturating_add(mark).saturating_add(1)
            } else {
                value.start
            };
            let now = &self.arguments.now;
            if self.arguments.lengths.is_some() && (value.start > now.end || word.start == now.start) {
                self.hide(start..value.end, Name::Secret);
            } else {
                self.hide_word(start..value.end, Name::Secret);
            }
            return;
        }
    }

    /// `user=name%secret` in a list.
    fn options(&mut self, list: Range<usize>, mark: u8) {
        let mut at = list.start;
        for item in self.bytes.get(list).unwrap_or_default().split(|byte| *byte == b',') {
            let named = item.starts_with(b"user=") || item.starts_with(b"username=");
            if let Some(mark) = item.iter().position(|byte| *byte == mark).filter(|_| named) {
                self.hide_word(at.saturating_add(mark).saturating_add(1)..at.saturating_add(item.len()), Name::Secret);
            }
            at = at.saturating_add(item.len()).saturating_add(1);
        }
    }

    /// The value behind a flag that ends at `at`.
    fn behind(&mut self, at: usize) -> Option<Range<usize>> {
        if at >= self.arguments.now.end {
            return self.arguments.after();
        }
        Some(self.value(at.saturating_add(1), self.arguments.now.end, ends_word))
    }

    /// The rest of the argument when the flag at `flag` is all of it, and of the word otherwise.
    fn whole_or_word(&mut self, flag: usize, from: usize) -> Range<usize> {
        let end = self.arguments.now.end;
        if self.arguments.lengths.is_some() && flag == self.arguments.now.start {
            return from..end;
        }
        self.value(from, end, ends_word)
    }
}

/// Bytes of `flag` at the start of `text`, with its `=`.
fn flag_length(text: &[u8], flag: &str, may_join: bool) -> Option<usize> {
    // Short flags may stand together: `-su name:secret`.
    let alone = |byte: &u8| SWITCHES.contains(byte);
    let together = if may_join && flag.len() == 2 && text.starts_with(b"-") {
        text.iter().skip(1).take_while(|byte| alone(byte)).count()
    } else {
        0
    };
    let name = flag.as_bytes().get(1..)?;
    let behind = text.get(together.saturating_add(1)..)?.strip_prefix(name)?;
    let long = flag.starts_with("--") && !behind.is_empty() && !behind.starts_with(b"=");
    let fits = text.first() == flag.as_bytes().first() && !long;
    let length = text.len().saturating_sub(behind.len());
    fits.then(|| length.saturating_add(usize::from(behind.starts_with(b"="))))
}
