//! Text that is no Unicode: bytes that are no UTF-8, and halves of surrogate pairs in escapes, as Windows' own texts may have them.

use std::borrow::Cow;

/// What stands in their place.
const REPLACEMENT: &str = "\\ufffd";

/// The line with U+FFFD in their place; `None`: it has none.
pub(super) fn mended(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    match without_halves(&text) {
        Some(mended) => Some(mended),
        None if matches!(text, Cow::Owned(_)) => Some(text.into_owned()),
        None => None,
    }
}

/// The text with each escape of half a pair replaced; `None`: it has none.
fn without_halves(text: &str) -> Option<String> {
    let (mut mended, mut kept, mut at) = (String::new(), 0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at.saturating_add(found);
        let length = match unit_at(text, escape) {
            Some(0xd800..=0xdbff) if matches!(unit_at(text, escape.saturating_add(6)), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                mended.push_str(text.get(kept..escape)?);
                mended.push_str(REPLACEMENT);
                kept = escape.saturating_add(6);
                6
            }
            _ => 2,
        };
        // Behind a backslash there may stand a character of several bytes, which no escape has: what follows is no JSON.
        at = text.ceil_char_boundary(escape.saturating_add(length).min(text.len()));
    }
    mended.push_str(text.get(kept..)?);
    (kept > 0).then_some(mended)
}

/// The code unit of the escape that begins here.
fn unit_at(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at.checked_add(6)?)?.strip_prefix("\\u")?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
