//! The token that a collector shows: 32 random bytes that the agent makes for it and hands over in a file.

use constant_time_eq::constant_time_eq;

/// Bytes of a collector's token.
pub const TOKEN_BYTES: usize = 32;

/// A fresh token from the operating system's generator.
///
/// # Errors
/// The generator does not answer.
pub fn new_token() -> std::io::Result<[u8; TOKEN_BYTES]> {
    let mut token = [0; TOKEN_BYTES];
    getrandom::fill(&mut token).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(token)
}

/// Whether two tokens are the same, in a time that does not depend on where they differ. A token of another length than
/// [`TOKEN_BYTES`] is never the same, so an empty file cannot open the bus.
#[must_use]
pub fn same_token(expected: &[u8], shown: &[u8]) -> bool {
    expected.len() == TOKEN_BYTES && constant_time_eq(expected, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_same() {
        let token = new_token().unwrap();
        assert!(same_token(&token, &token));
        assert!(!same_token(&token, &token[..31]));
        assert!(!same_token(&[], &[]));
        for byte in 0..TOKEN_BYTES {
            let mut other = token;
            other[byte] ^= 1;
            assert!(!same_token(&token, &other));
        }
    }
}
