//! Hashes in JSON: 64 hex digits, lower case and nothing else, so that a changed bit of the text is a changed hash.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

use super::Hash;
use crate::hex;

/// The hash that the digits are.
#[must_use]
pub fn parse(text: &str) -> Option<Hash> {
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_lower { hex::decode(text)?.try_into().ok() } else { None }
}

pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(hash))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom("a hash is 64 lower-case hex digits"))
}
