//! Users with their secrets: `scheme://user:secret@host`, and `user:secret@host` where it looks like one.

use super::bounds::{self, ends_word, is_gap};
use super::is_token;
use super::names::Name;
use super::scan::{Scan, is_name};

/// How far behind the first `/` of a URL the `@` of a password that holds slashes is looked for.
const SLASHED_PASSWORD_BYTES: usize = 256;

/// How far before its `@` the user of `user:secret@host` is looked for.
const ACCOUNT_BYTES: usize = 160;

/// What stands before a colon and is no user.
const NO_USERS: &[&[u8]] = &[b"acct", b"file", b"git", b"im", b"mailto", b"npm", b"pkg", b"sip", b"sips", b"xmpp"];

/// Bytes of a user name in `https://name@host` from which on it is a token: names are shorter.
const TOKEN_AS_USER_BYTES: usize = 20;

impl Scan<'_> {
    /// `user:secret@host` without a scheme, where it looks like one; `at` is where the `@` stands.
    pub(super) fn account_ends(&mut self, at: usize) {
        self.arguments.seek(at);
        let mark = self.program.map_or(b':', |program| if program.mark == b'/' { b'/' } else { b':' });
        let from = self.arguments.now.start.max(at.saturating_sub(ACCOUNT_BYTES)).max(self.decided);
        let front = self.bytes.get(from..at).unwrap_or_default();
        let start = front.iter().rposition(|byte| ends_word(*byte) || matches!(byte, b'(' | b'{' | b'='));
        let word = front.get(start.map_or(0, |start| start.saturating_add(1))..).unwrap_or_default();
        let Some(user) = word.split(|byte| *byte == mark).next().filter(|user| user.len() < word.len()) else {
            return;
        };
        let secret = word.get(user.len().saturating_add(1)..).unwrap_or_default();
        let rest = self.bytes.get(at.saturating_add(1)..self.arguments.now.end).unwrap_or_default();
        let host = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')));
        let (host, behind) = rest.split_at(host.unwrap_or(rest.len()));
        let name = |byte: &u8| is_name(*byte) || matches!(byte, b'/' | b'\\');
        let fits = user.iter().any(u8::is_ascii_alphabetic)
            && user.iter().all(name)
            && !NO_USERS.contains(&user)
            && !secret.contains(&b'/')
            && secret.iter().any(|byte| !byte.is_ascii_alphabetic() && !matches!(byte, b'.' | b'-' | b'_'))
            && (host.iter().any(u8::is_ascii_alphabetic) || host.iter().filter(|byte| **byte == b'.').count() == 3)
            && !host.starts_with(b"sha256")
            && !host.starts_with(b"sha512")
            && behind.first().is_none_or(|byte| *byte == b':' || *byte == b'/' || ends_word(*byte));
        if fits {
            self.hide(at.saturating_sub(secret.len())..at, Name::Secret);
        }
    }

    /// `scheme://user:secret@host`; `start` is where the `://` stands.
    pub(super) fn url(&mut self, start: usize, from: usize, text: &[u8]) {
        let stop = |byte: u8| is_gap(byte) || matches!(byte, b'<' | b'>' | b'\\');
        let authority = text.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#') || stop(*byte));
        let authority = text.get(..authority.unwrap_or(text.len())).unwrap_or_default();
        let at = authority.iter().rposition(|byte| *byte == b'@').or_else(|| {
            // A password may hold a slash; a port is digits only.
            let colon = authority.iter().position(|byte| *byte == b':')?;
            let behind = authority.get(colon.saturating_add(1)..)?;
            let near = text.get(..text.len().min(authority.len().saturating_add(SLASHED_PASSWORD_BYTES)))?;
            let near = near.get(..near.iter().position(|byte| stop(*byte)).unwrap_or(near.len()))?;
            let port = !behind.is_empty() && behind.iter().all(u8::is_ascii_digit);
            near.iter().rposition(|byte| *byte == b'@').filter(|at| !port && *at > colon)
        });
        let Some(user) = at.and_then(|at| text.get(..at)) else { return };
        let end = from.saturating_add(user.len());
        if is_token(user) {
            return;
        }
        let web =
            self.bytes.get(..start).is_some_and(|scheme| scheme.ends_with(b"http") || scheme.ends_with(b"https"));
        match user.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let secret = user.get(colon.saturating_add(1)..).unwrap_or_default();
                let start = end.saturating_sub(secret.len());
                self.hide(start..start.saturating_add(bounds::separator(secret)), Name::Secret);
            }
            None if web && user.len() >= TOKEN_AS_USER_BYTES && bounds::separator(user) == user.len() => {
                self.hide(from..end, Name::Secret);
            }
            None => {}
        }
    }
}
