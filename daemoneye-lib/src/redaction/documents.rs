//! Values that are made of several: cookies, arrays of JSON, and what is a form or only looks like one.

use super::bounds::{ENCODED_BYTES, ends_argument, ends_word, is_quote};
use super::names::Name;
use super::scan::{Scan, is_name};

/// Bytes of a value with `&` in it that is looked at as a whole.
const WHOLE_BYTES: usize = 512;

impl Scan<'_> {
    /// `a=b; c=d`: what a shell reads as one assignment after the other hides no command.
    pub(super) fn cookies(&mut self, from: usize, end: usize) {
        let text = self.bytes.get(from..end).unwrap_or_default();
        let text = text.get(..ENCODED_BYTES).unwrap_or(text);
        let mut end = 0usize;
        loop {
            let rest = text.get(end..).unwrap_or_default();
            let gap = if end == 0 { 0 } else { 2 };
            let Some(pair) = rest.get(gap..).filter(|_| end == 0 || rest.starts_with(b"; ")) else { break };
            let stop = |byte: &u8| ends_word(*byte) || matches!(byte, b'$' | b'(' | b'{');
            let pair = pair.get(..pair.iter().position(stop).unwrap_or(pair.len())).unwrap_or_default();
            let value = pair.iter().position(|byte| *byte == b'=').and_then(|at| pair.get(at.saturating_add(1)..));
            if value.is_none_or(|value| value.starts_with(b"/")) {
                break;
            }
            end = end.saturating_add(gap).saturating_add(pair.len());
        }
        self.push(from..self.line.floor_char_boundary(from.saturating_add(end)));
    }

    /// Whether the `&` in a value is a part of it: in no script, in no form (`a=1&b=2`), and one word to its end.
    pub(super) fn is_whole(&self, value: usize) -> bool {
        let text = self.bytes.get(value..self.arguments.now.end).unwrap_or_default();
        if self.arguments.lengths.is_none() || self.in_script() || text.len() > WHOLE_BYTES || text.starts_with(b"&") {
            return false;
        }
        let field = |part: &[u8]| {
            let name = part.iter().take_while(|byte| is_name(**byte)).count();
            name > 0 && part.get(name) == Some(&b'=')
        };
        text.contains(&b'&')
            && !text.iter().any(|byte| *byte != b'&' && ends_argument(*byte))
            && !text.split(|byte| *byte == b'&').skip(1).any(field)
    }

    pub(super) fn opens_array(&self, value: usize) -> bool {
        let rest = self.bytes.get(value..self.arguments.now.end).unwrap_or_default();
        rest.get(blanks(rest)..).is_some_and(|rest| rest.starts_with(b"["))
    }

    /// `["secret", "secret"]`.
    pub(super) fn array(&mut self, value: usize) {
        let end = self.arguments.now.end.min(value.saturating_add(ENCODED_BYTES));
        let mut at = value;
        loop {
            let rest = self.bytes.get(at..end).unwrap_or_default();
            at = at.saturating_add(rest.iter().take_while(|byte| matches!(byte, b' ' | b'[' | b',')).count());
            let rest = self.bytes.get(at..end).unwrap_or_default();
            let mark = rest.iter().take_while(|byte| **byte == b'\\').count().saturating_add(1);
            if !rest.get(mark.saturating_sub(1)).is_some_and(|byte| is_quote(*byte)) {
                return;
            }
            let item = self.value(at, end, ends_word);
            at = item.end.saturating_add(mark);
            self.hide_word(item, Name::Secret);
        }
    }
}

/// Bytes of the blanks at the start of `text`, as a shell's words may have them: `Name:\ value`.
pub(super) fn blanks(text: &[u8]) -> usize {
    let mut at = 0usize;
    loop {
        at = match text.get(at..).unwrap_or_default() {
            [b'\\', b' ', ..] => at.saturating_add(2),
            [b' ', ..] => at.saturating_add(1),
            _ => return at,
        };
    }
}
