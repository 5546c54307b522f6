//! Secrets out of command lines, before anything is written down.
//!
//! What follows a known secret flag, variable or header, what stands as `user:secret@` in a URL and what has a known shape
//! becomes `[redacted:xxxxxxxx]`: the first eight hex digits of a keyed BLAKE3 of the secret under the host's key. The same
//! secret reads the same everywhere on the host, so joins still work, and without the key it cannot be guessed from the
//! token. BLAKE3's keyed mode is a MAC by itself and is linked already, so no HMAC is added to the trusted code.
//!
//! A process chooses its arguments, so a secret ends early rather than late: a command that is dressed up as one stays
//! visible (`bounds`). Paths of executables are never touched.

mod accounts;
mod bounds;
mod documents;
mod flags;
mod lexicon;
mod names;
mod places;
mod programs;
mod scan;
mod shapes;

use std::fmt;

use lexicon::Lexicon;
use scan::Scan;

/// What a token begins with.
const TOKEN_START: &str = "[redacted:";

/// Hex digits of a token: enough to tell the secrets of one host apart, too few to be an oracle.
const TOKEN_DIGITS: usize = 8;

/// Bytes of a token.
const TOKEN_BYTES: usize = TOKEN_START.len() + TOKEN_DIGITS + 1;

/// A replacement may uncover another candidate beside it; each pass leaves fewer.
const PASSES: usize = 4;

/// Replaces secrets by tokens that only this host can make.
pub struct Redactor {
    key: [u8; 32],
    lexicon: Lexicon,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// A redactor with the host's key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key, lexicon: Lexicon::new() }
    }

    /// Replaces the secrets of one command line, its arguments joined by one space. `arg_lengths` are the arguments' bytes
    /// and stay right; without them every space may end an argument. Lengths that do not fit the line are dropped when
    /// something is replaced. `executable` is the path of the program, which knows its own short flags. Returns whether
    /// anything was replaced.
    pub fn command_line(&self, executable: Option<&str>, line: &mut String, arg_lengths: &mut Vec<u32>) -> bool {
        if !Scan::is_suspect(line, executable, &self.lexicon) {
            return false;
        }
        let mut changed = false;
        for _ in 0..PASSES {
            if !self.pass(executable, line, arg_lengths) {
                break;
            }
            changed = true;
        }
        changed
    }

    fn pass(&self, executable: Option<&str>, line: &mut String, arg_lengths: &mut Vec<u32>) -> bool {
        let fits = lengths_fit(line, arg_lengths);
        let secrets = Scan::new(line, fits.then_some(arg_lengths), executable, &self.lexicon).secrets(&self.lexicon);
        if secrets.is_empty() {
            return false;
        }
        if !fits {
            arg_lengths.clear();
        }
        let mut out = String::with_capacity(line.len());
        let mut done = 0;
        let mut arguments = Ends { lengths: arg_lengths.iter_mut(), end: 0, now: None };
        for secret in secrets {
            out.push_str(line.get(done..secret.start).unwrap_or_default());
            out.push_str(&self.token(line.get(secret.clone()).unwrap_or_default()));
            arguments.resize(secret.end, secret.len());
            done = secret.end;
        }
        out.push_str(line.get(done..).unwrap_or_default());
        *line = out;
        true
    }

    fn token(&self, secret: &str) -> String {
        let digits = blake3::keyed_hash(&self.key, secret.as_bytes()).to_hex();
        format!("{TOKEN_START}{}]", digits.get(..TOKEN_DIGITS).unwrap_or_default())
    }
}

/// Walks the arguments' lengths along with the secrets inside them.
struct Ends<'a> {
    lengths: std::slice::IterMut<'a, u32>,
    /// Where the argument at hand ends in the old line.
    end: usize,
    now: Option<&'a mut u32>,
}

impl Ends<'_> {
    /// A secret of `bytes` that ends at `at` has become a token.
    fn resize(&mut self, at: usize, bytes: usize) {
        while (self.now.is_none() || self.end < at)
            && let Some(length) = self.lengths.next()
        {
            let start = if self.now.is_none() { 0 } else { self.end.saturating_add(1) };
            self.end = start.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX));
            self.now = Some(length);
        }
        if let Some(length) = &mut self.now {
            let new =
                usize::try_from(**length).unwrap_or(usize::MAX).saturating_sub(bytes).saturating_add(TOKEN_BYTES);
            **length = u32::try_from(new).unwrap_or(u32::MAX);
        }
    }
}

/// Whether the lengths are those of the line's arguments.
fn lengths_fit(line: &str, lengths: &[u32]) -> bool {
    let mut end = 0usize;
    for (place, length) in lengths.iter().enumerate() {
        let start = if place == 0 { 0 } else { end.saturating_add(1) };
        if place > 0 && line.as_bytes().get(end) != Some(&b' ') {
            return false;
        }
        end = start.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX));
        if !line.is_char_boundary(end) {
            return false;
        }
    }
    !lengths.is_empty() && end == line.len()
}

fn is_token(bytes: &[u8]) -> bool {
    bytes.len() == TOKEN_BYTES
        && bytes
            .strip_prefix(TOKEN_START.as_bytes())
            .and_then(|rest| rest.strip_suffix(b"]"))
            .is_some_and(|digits| digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests;
