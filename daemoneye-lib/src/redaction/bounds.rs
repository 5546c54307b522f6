//! How far one secret may reach.
//!
//! A process chooses its own arguments, so whatever ends a secret decides what an attacker can hide behind a name such as
//! `TOKEN=`. A value ends where a shell would begin another command, a quote counts only where it opens and is closed, and
//! nothing long is hidden unless it is written in the letters of an encoding, in which no command can be given.

/// Bytes of one value: far above any password or phrase, far below a script.
const VALUE_BYTES: usize = 512;

/// Bytes of one value without blanks and separators; signed tokens with many claims have some thousands.
pub(super) const ENCODED_BYTES: usize = 8192;

/// How many bytes of `text`, the value of a known name, are hidden.
pub(super) fn reach(text: &[u8]) -> usize {
    let near = text.get(..VALUE_BYTES).unwrap_or(text);
    if is_command(near) {
        let end = near.iter().position(|byte| is_gap(*byte) || is_sign(*byte) || *byte == b'(');
        let end = end.unwrap_or(near.len());
        return end.min(separator(near));
    }
    if near.len() == text.len() {
        return near.len();
    }
    let encoded = text.iter().take(ENCODED_BYTES).take_while(|byte| is_encoded(**byte)).count();
    encoded.max(near.len())
}

/// A phrase has blanks and no signs of a shell; a password may have such signs, as long as no word could follow them.
fn is_command(text: &[u8]) -> bool {
    if text.iter().any(u8::is_ascii_whitespace) {
        return !text.iter().all(|byte| is_phrase(*byte)) || find(text, b" -").is_some();
    }
    let sign = |two: &[u8]| match two {
        [b'$', next, ..] => next.is_ascii_alphabetic() || *next == b'{',
        [byte, ..] => is_sign(*byte),
        [] => false,
    };
    separator(text) < text.len() && text.windows(2).any(sign)
}

/// What a command without blanks is written with: a path, or what a shell makes several words of.
const fn is_sign(byte: u8) -> bool {
    matches!(byte, b'$' | b'{' | b'<' | b'/')
}

/// Where a shell would begin another command.
pub(super) fn separator(text: &[u8]) -> usize {
    let sign = text.iter().position(|byte| matches!(byte, b';' | b'|' | b'&' | b'`' | b'\n'));
    [sign, find(text, b"$("), find(text, b"<("), find(text, b">(")].into_iter().flatten().min().unwrap_or(text.len())
}

pub(super) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Which quotes are open at a place of an argument: those of a shell, and those within them, as of JSON.
#[derive(Clone, Default)]
pub(super) struct Quotes {
    argument: usize,
    at: usize,
    outer: Option<u8>,
    inner: Option<u8>,
}

impl Quotes {
    /// Reads on to `at` in the argument that begins at `argument`, never back, so that the work stays proportional.
    pub(super) fn read(&mut self, bytes: &[u8], argument: usize, at: usize) {
        if self.argument != argument {
            *self = Self { argument, at: argument, ..Self::default() };
        }
        while self.at < at {
            let escaped = self.outer != Some(b'\'') && bytes.get(self.at) == Some(&b'\\');
            let byte = bytes.get(self.at.saturating_add(usize::from(escaped))).copied().unwrap_or_default();
            self.at = self.at.saturating_add(1).saturating_add(usize::from(escaped));
            if is_quote(byte) {
                self.turn(byte, escaped);
            }
        }
    }

    fn turn(&mut self, quote: u8, escaped: bool) {
        match (self.outer, self.inner) {
            (None, _) if escaped => {}
            (None, _) => self.outer = Some(quote),
            (Some(outer), _) if outer == quote && !escaped => (self.outer, self.inner) = (None, None),
            (Some(_), None) => self.inner = Some(quote),
            (Some(_), Some(inner)) => self.inner = Some(inner).filter(|inner| *inner != quote),
        }
    }

    /// Bytes between a quote that opens here and the one that closes it; `text` is what follows.
    pub(super) fn between(&self, text: &[u8], quote: u8, escaped: bool) -> Option<usize> {
        let opens = match (self.outer, self.inner) {
            (None, _) => !escaped,
            (Some(outer), None) => outer != quote || escaped,
            (Some(_), Some(_)) => false,
        };
        let mut slashes = 0usize;
        for (at, byte) in text.iter().take(VALUE_BYTES).enumerate().filter(|_| opens) {
            if *byte == b'\\' {
                slashes = slashes.saturating_add(1);
                continue;
            }
            let literal = slashes.is_multiple_of(2);
            if *byte == quote && if escaped { slashes > 0 } else { literal || quote == b'\'' } {
                return Some(if escaped { at.saturating_sub(slashes) } else { at });
            }
            if Some(*byte) == self.outer && (literal || *byte == b'\'') {
                return None;
            }
            slashes = 0;
        }
        None
    }
}

const fn is_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-' | b'.' | b'%' | b'~')
}

const fn is_phrase(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || !byte.is_ascii()
        || matches!(
            byte,
            b' ' | b'_' | b'-' | b'.' | b',' | b'!' | b'?' | b'#' | b'%' | b'*' | b'+' | b'~' | b'^' | b'@'
        )
        || byte == b'\''
}

pub(super) const fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

/// What a word ends at, wherever it stands.
pub(super) const fn is_gap(byte: u8) -> bool {
    byte.is_ascii_whitespace() || is_quote(byte) || byte == b'`'
}

/// What an argument that a shell might read ends a word at.
pub(super) const fn ends_argument(byte: u8) -> bool {
    is_gap(byte) || matches!(byte, b';' | b'&' | b'|' | b'<' | b'>')
}

/// What a word of a script or of a document ends at.
pub(super) const fn ends_word(byte: u8) -> bool {
    ends_argument(byte) || matches!(byte, b',' | b')' | b'}')
}
