//! Secrets that are known by their own look, whatever stands before them.

use super::bounds::{ENCODED_BYTES, find};

/// A run of characters behind a prefix.
struct Shape {
    prefix: &'static str,
    body: fn(u8) -> bool,
    /// Bytes behind the prefix; shorter runs are something else.
    least: usize,
}

const fn shape(prefix: &'static str, body: fn(u8) -> bool, least: usize) -> Shape {
    Shape { prefix, body, least }
}

/// Prefixes and lengths as their issuers document them.
const SHAPES: &[Shape] = &[
    shape("AGE-SECRET-KEY-1", word, 50),
    shape("AIza", dashed, 35),
    shape("AKIA", word, 16),
    shape("ASIA", word, 16),
    shape("SG.", dotted, 40),
    shape("dckr_pat_", dashed, 20),
    shape("dop_v1_", word, 40),
    shape("ghp_", word, 20),
    shape("gho_", word, 20),
    shape("ghr_", word, 20),
    shape("ghs_", word, 20),
    shape("ghu_", word, 20),
    shape("github_pat_", underscored, 20),
    shape("glpat-", dashed, 16),
    shape("glsa_", underscored, 30),
    shape("hvb.", dashed, 20),
    shape("hvs.", dashed, 20),
    shape("hf_", word, 30),
    shape("hooks.slack.com/services/", webhook, 12),
    shape("npm_", word, 30),
    shape("pypi-", dashed, 50),
    shape("rk_live_", word, 16),
    shape("shpat_", word, 30),
    shape("sk-", dashed, 20),
    shape("sk_live_", word, 16),
    shape("sk_test_", word, 16),
    shape("xapp-", dashed, 10),
    shape("xoxa-", dashed, 10),
    shape("xoxb-", dashed, 10),
    shape("xoxd-", encoded, 10),
    shape("xoxe.", dotted, 10),
    shape("xoxp-", dashed, 10),
    shape("xoxr-", dashed, 10),
    shape("xoxs-", dashed, 10),
    shape("ya29.", dotted, 20),
];

const JWT: &str = "eyJ";
const BLOCK: &[u8] = b"-----BEGIN ";
const BLOCK_KIND: &[u8] = b"PRIVATE KEY-----";
const BLOCK_END: &[u8] = b"-----END ";

/// Bytes between `BEGIN` and the end of `PRIVATE KEY-----`; the longest kind is `ENCRYPTED`.
const BLOCK_KIND_BYTES: usize = 48;

/// Bytes of a block: a key of 16,384 bits has 13,000.
const BLOCK_BYTES: usize = 16 * 1024;

/// Bytes of every line of a block but the last; they have 64 to 76, and no program has so long a name.
const BLOCK_LINE_BYTES: usize = 48;

/// Every beginning, for the table that the scan looks into.
pub(super) fn beginnings() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.prefix).chain([JWT, "-----"])
}

/// Bytes of the secret that begins at the start of `text`, where `last` is the byte before it.
pub(super) fn length_of(text: &[u8], last: Option<u8>) -> Option<usize> {
    if text.starts_with(BLOCK) {
        return block(text);
    }
    if text.starts_with(JWT.as_bytes()) {
        return if last.is_some_and(dotted) { None } else { jwt(text) };
    }
    let shape = SHAPES.iter().find(|shape| text.starts_with(shape.prefix.as_bytes()))?;
    // Inside a run of the same characters it is part of another word; this also bounds the work for a long run.
    if last.is_some_and(shape.body) && !shape.prefix.contains('/') {
        return None;
    }
    let body = text.get(shape.prefix.len()..)?;
    let length = run(body, shape.body);
    (length >= shape.least).then(|| shape.prefix.len().saturating_add(length))
}

/// Lines of base64, and the end where it follows: a block that was cut has none, and a script is none.
fn block(text: &[u8]) -> Option<usize> {
    let text = text.get(..BLOCK_BYTES).unwrap_or(text);
    let kind = text.get(BLOCK.len()..text.len().min(BLOCK.len().saturating_add(BLOCK_KIND_BYTES)))?;
    let start = find(kind, BLOCK_KIND)?.saturating_add(BLOCK.len()).saturating_add(BLOCK_KIND.len());
    let (mut at, mut end) = (start, None);
    loop {
        at = at.saturating_add(line_ends(text.get(at..)?));
        let line = run(text.get(at..)?, base64);
        at = at.saturating_add(line);
        if line < BLOCK_LINE_BYTES {
            let last = at.saturating_add(line_ends(text.get(at..)?));
            // A short line could also be the path of a program.
            let path = text.get(at.saturating_sub(line)..at).is_some_and(|line| line.contains(&b'/'));
            let behind = text.get(last..)?.strip_prefix(BLOCK_END).filter(|_| end.is_some() && !path);
            let kind = behind.and_then(|rest| find(rest.get(..BLOCK_KIND_BYTES).unwrap_or(rest), BLOCK_KIND));
            let marks = BLOCK_END.len().saturating_add(BLOCK_KIND.len());
            return kind.map(|kind| last.saturating_add(kind).saturating_add(marks)).or(end);
        }
        end = Some(at);
    }
}

/// Ends of lines, also written as `\n`.
fn line_ends(text: &[u8]) -> usize {
    let mut at = 0usize;
    loop {
        at = match text.get(at..).unwrap_or_default() {
            [b'\\', b'n' | b'r', ..] => at.saturating_add(2),
            [byte, ..] if byte.is_ascii_whitespace() => at.saturating_add(1),
            _ => return at,
        };
    }
}

/// Header, claims and signature, base64url, with dots between; the first two are JSON objects.
fn jwt(text: &[u8]) -> Option<usize> {
    let length = run(text, dotted);
    let mut parts = text.get(..length)?.split(|byte| *byte == b'.');
    let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    (header.len() >= 10 && claims.starts_with(JWT.as_bytes())).then_some(length)
}

fn run(text: &[u8], body: fn(u8) -> bool) -> usize {
    text.iter().take(ENCODED_BYTES).take_while(|byte| body(**byte)).count()
}

const fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

const fn underscored(byte: u8) -> bool {
    word(byte) || byte == b'_'
}

const fn dashed(byte: u8) -> bool {
    underscored(byte) || byte == b'-'
}

const fn dotted(byte: u8) -> bool {
    dashed(byte) || byte == b'.'
}

const fn encoded(byte: u8) -> bool {
    dashed(byte) || byte == b'%'
}

const fn base64(byte: u8) -> bool {
    word(byte) || matches!(byte, b'+' | b'/' | b'=')
}

const fn webhook(byte: u8) -> bool {
    word(byte) || byte == b'/'
}
