//! Bytes as hex digits: twenty lines instead of a crate that would run with procmond's privileges.

/// Lower-case digits, two for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16);
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).filter_map(digit).collect()
}

/// The bytes of these digits, of either case; `None` for anything else.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks();
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4) | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_become_the_bytes_that_they_came_from() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!((encode(&[0x0a, 0xf0]).as_str(), encode(&[]).as_str()), ("0af0", ""));
        assert_eq!((decode("0AF0"), decode("")), (Some(vec![0x0a, 0xf0]), Some(Vec::new())));
        for wrong in ["0", "0g", "+1", "é", "0x00"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
