//! Secrets that have no name: they are known by their place behind a program, or because a script feeds them to one.

use std::ops::Range;

use super::bounds::{self, is_gap, is_quote};
use super::names::Name;
use super::programs::{Also, Program};
use super::scan::Scan;

/// Words behind a program that are looked at: more than any of these commands has.
const WORDS: usize = 8;

/// Bytes before a program in which the `echo` that feeds it is looked for.
const FEED_BYTES: usize = 512;

impl Scan<'_> {
    /// What `program`, whose name ends at `from`, takes without a flag.
    pub(super) fn places(&mut self, from: usize, program: &Program) {
        let place = match program.also {
            Also::Nothing | Also::Cookies(_) | Also::Options => return,
            Also::Fed { flags, account } => return self.fed(from, flags, account),
            Also::Behind(verbs) => self.behind_verb(from, verbs),
            Also::Last { least, flag } => self.last(from, least, flag),
            Also::Share => self.behind_share(from),
        };
        if let Some(word) = place {
            self.hide_word(word, Name::Secret);
        }
    }

    fn behind_verb(&mut self, from: usize, verbs: &[(&str, usize)]) -> Option<Range<usize>> {
        let words = self.words(from);
        let verb = self.text(words.first()?);
        let (_, count) = verbs.iter().find(|(known, _)| known.as_bytes() == verb)?;
        let behind = words.get(1..count.saturating_add(1))?;
        let plain = behind.iter().all(|word| !self.text(word).starts_with(b"-"));
        behind.last().filter(|word| plain && !self.text(word).contains(&b'=')).cloned()
    }

    fn behind_share(&mut self, from: usize) -> Option<Range<usize>> {
        let words = self.words(from);
        let share = words.iter().position(|word| {
            let text = self.text(word);
            text.len() > 2 && (text.starts_with(b"//") || text.starts_with(br"\\"))
        })?;
        let word = words.get(share.saturating_add(1))?;
        let text = self.text(word);
        let is_secret = !self.is_flag(word) && !text.starts_with(b"/") && !text.starts_with(br"\\") && text != b"*";
        is_secret.then(|| word.clone())
    }

    fn last(&mut self, from: usize, least: usize, flag: Option<&str>) -> Option<Range<usize>> {
        let mut words = self.words(from);
        if flag.is_some_and(|flag| !words.iter().any(|word| has_switch(self.text(word), flag))) {
            return None;
        }
        words.retain(|word| !self.is_flag(word));
        words.pop().filter(|_| words.len().saturating_add(1) >= least)
    }

    /// `echo secret | program`.
    fn fed(&mut self, from: usize, flags: &[&str], account: bool) {
        let words = self.words(from);
        let leading = words.iter().take_while(|word| self.text(word).starts_with(b"-")).count();
        let given = |flag: &&str| {
            let short = !flag.starts_with("--");
            let asked = words.iter().take(if short { leading } else { words.len() });
            asked.into_iter().any(|word| has_switch(self.text(word), flag))
        };
        if !flags.is_empty() && !flags.iter().any(given) {
            return;
        }
        let Some(value) = self.feed(from) else { return };
        let text = self.text(&value);
        let colon = text.iter().position(|byte| *byte == b':').filter(|_| account);
        let name = colon.map_or(0, |at| at.saturating_add(1));
        self.hide_word(value.start.saturating_add(name)..value.end, Name::Secret);
    }

    /// What `echo` or `printf` writes into the pipe before the program whose name ends at `from`.
    fn feed(&self, from: usize) -> Option<Range<usize>> {
        let start = self.arguments.now.start.max(from.saturating_sub(FEED_BYTES));
        let front = self.bytes.get(start..from)?;
        let pipe = front.iter().rposition(|byte| *byte == b'|')?;
        if front.get(pipe..)?.iter().any(|byte| matches!(byte, b';' | b'&' | b'\n')) {
            return None;
        }
        let written = front.get(..pipe)?.trim_ascii_end();
        let mut at = behind_word(written, b"echo ").max(behind_word(written, b"printf "))?;
        loop {
            at = at.saturating_add(written.get(at..)?.iter().take_while(|byte| byte.is_ascii_whitespace()).count());
            let rest = written.get(at..)?;
            let word = rest.get(..rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len()))?;
            // Flags of the writer and a format are no secret.
            if word.len() == rest.len() || !(word.starts_with(b"-") || word.contains(&b'%')) {
                let text = unquoted(rest)?;
                let at = start.saturating_add(at).saturating_add(text.start);
                return Some(at..at.saturating_add(text.len()));
            }
            at = at.saturating_add(word.len());
        }
    }

    /// The words behind `from`: arguments where it ends one, otherwise those of a script up to its next command.
    fn words(&mut self, from: usize) -> Vec<Range<usize>> {
        self.arguments.seek(from);
        let mut words = Vec::new();
        if self.arguments.lengths.is_some() && (from >= self.arguments.now.end || from == 0) {
            let mut ahead = self.arguments.clone();
            while words.len() < WORDS && ahead.step() {
                words.push(ahead.now.clone());
            }
            return words;
        }
        let Range { start, end } = self.arguments.now;
        self.quotes.read(self.bytes, start, from);
        // What is read ahead here is read again by the flags.
        let quotes = self.quotes.clone();
        let mut at = from;
        while words.len() < WORDS {
            let rest = self.bytes.get(at..end).unwrap_or_default();
            let gap = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let begin = at.saturating_add(gap);
            let first = rest.get(gap).copied().unwrap_or(b';');
            if gap == 0 || matches!(first, b';' | b'|' | b'&' | b'\n' | b'<' | b'>' | b')' | b'`' | b'#') {
                break;
            }
            let word = self.value(begin, end, is_gap);
            let word = word.start..word.start.saturating_add(bounds::separator(self.text(&word)).min(word.len()));
            let closed = self.bytes.get(word.end).is_some_and(|byte| is_quote(*byte));
            at = word.end.saturating_add(usize::from(closed && word.start > begin));
            words.push(word);
        }
        self.quotes = quotes;
        words
    }

    fn text(&self, word: &Range<usize>) -> &[u8] {
        self.bytes.get(word.clone()).unwrap_or_default()
    }
}

/// Where the text behind the last `word` begins that stands alone.
fn behind_word(text: &[u8], word: &[u8]) -> Option<usize> {
    let at = text.windows(word.len()).rposition(|window| window == word)?;
    let left = at.checked_sub(1).and_then(|left| text.get(left));
    left.is_none_or(|left| !left.is_ascii_alphanumeric()).then(|| at.saturating_add(word.len()))
}

/// What stands between one pair of quotes, or words without them: behind a separator another command writes into the pipe.
fn unquoted(text: &[u8]) -> Option<Range<usize>> {
    let last = text.len().saturating_sub(1);
    let quote = text.first().copied().filter(|byte| is_quote(*byte) && last > 0 && text.last() == Some(byte));
    match quote.zip(text.get(1..last)) {
        Some((quote, inner)) if !inner.contains(&quote) => Some(1..last),
        _ => (bounds::separator(text) == text.len()).then_some(0..text.len()),
    }
}

/// Whether `word` is `flag`, or holds it among other switches of one letter: `-nb`.
fn has_switch(word: &[u8], flag: &str) -> bool {
    let letter = flag.as_bytes().get(1).copied().filter(|letter| flag.len() == 2 && *letter != b'-');
    word == flag.as_bytes()
        || letter.is_some_and(|letter| {
            word.strip_prefix(b"-")
                .is_some_and(|rest| rest.iter().all(u8::is_ascii_alphabetic) && rest.contains(&letter))
        })
}
