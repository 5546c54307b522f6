//! Base64 as signed notes use it: the standard alphabet, padded, one spelling for each value.
//!
//! Forty lines instead of a crate that would run with the collector's privileges.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn symbol(sextet: u32) -> char {
    ALPHABET.get((sextet & 63) as usize).map_or('A', |byte| char::from(*byte))
}

/// The text for these bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |n: usize| chunk.get(n).copied().map_or(0, u32::from);
        let group = at(0) << 16 | at(1) << 8 | at(2);
        text.extend([symbol(group >> 18), symbol(group >> 12)]);
        text.push(if chunk.len() > 1 { symbol(group >> 6) } else { '=' });
        text.push(if chunk.len() > 2 { symbol(group) } else { '=' });
    }
    text
}

/// The bytes of a text; `None` when it is not exactly what [`encode`] would give.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let unpadded = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len());
    for chunk in unpadded.as_bytes().chunks(4) {
        let mut group = 0;
        for symbol in chunk {
            let sextet = ALPHABET.iter().position(|known| known == symbol)?;
            group = group << 6 | u32::try_from(sextet).ok()?;
        }
        let [_, first, second, third] = (group << (6 * (4 - chunk.len()))).to_be_bytes();
        bytes.extend([first, second, third].iter().take(chunk.len().saturating_sub(1)));
    }
    (encode(&bytes) == text).then_some(bytes)
}

/// 32 bytes.
pub(super) fn decode_hash(text: &str) -> Option<super::Hash> {
    decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_standard_go_both_ways() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, text) in vectors {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn another_spelling_of_a_value_is_refused() {
        for text in ["Zg", "Zg=", "Zh==", "Zm9=", "Zm9v=", "Zm9v\n", "Z", "====", "Zm9v====", "Z-_=", "Zg==Zg=="] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
