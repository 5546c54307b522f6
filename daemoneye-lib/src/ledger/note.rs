//! C2SP signed notes (c2sp.org/signed-note) with Ed25519 signatures, and the keys that sign and verify them.
//!
//! A note is a text that ends in a newline, an empty line, and lines `— <key name> <base64 of key id ‖ signature>`. A key's id is
//! the first 4 bytes of SHA-256 over its name, a newline, 0x01 and the public key; a verifier key (vkey) is
//! `<name>+<id in hex>+<base64 of 0x01 ‖ public key>`. Any tool that knows these formats verifies what is written here.

use std::fmt;
use std::str::FromStr;

use ed25519_compact::{KeyPair, PublicKey, SecretKey, Seed, Signature};
use sha2::{Digest as _, Sha256};

use super::base64;

/// The algorithm byte of Ed25519.
const ED25519: u8 = 1;
/// Longest note that is read, in bytes: a checkpoint takes 300; this bounds what a foreign file makes a reader do.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Most signature lines that are read; a log has one key, a witnessed one a handful.
pub const MAX_SIGNATURES: usize = 100;
const DASH: &str = "\u{2014} ";

/// Why a text is not a note, a name not a key, or a note not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the format of a verifier key.
    #[error("this is not a verifier key; it reads <name>+<8 hex digits>+<base64>")]
    CorruptKey,
    /// Not the format of a signed note.
    #[error("this is not a signed note")]
    CorruptNote,
    /// The signature does not fit the text.
    #[error("the signature does not fit; the note was changed or another key signed it")]
    CorruptSignature,
    /// A name with a space, a plus or a control character.
    #[error("a key's name is not empty and has no space, plus or control character")]
    MisuseName,
    /// Nothing was ever written to what holds it.
    #[error("the seed of a key is not all zeros")]
    MisuseSeed,
    /// The text has control characters or no newline at its end.
    #[error("a note's text ends in a newline and has no other control characters")]
    MisuseText,
    /// No line is of this key.
    #[error("the note is not signed with this key")]
    PeerUnsigned,
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

fn is_text(text: &str) -> bool {
    text.ends_with('\n') && !text.contains(|c: char| c != '\n' && c.is_ascii_control())
}

/// What verifies the notes of one signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: PublicKey,
}

impl VerifierKey {
    fn id(&self) -> [u8; 4] {
        let mut hasher = Sha256::new();
        for part in [self.name.as_bytes(), b"\n", &[ED25519], self.key.as_slice()] {
            hasher.update(part);
        }
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        [a, b, c, d]
    }

    /// The signer's name: a ledger's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = std::iter::once(ED25519).chain(*self.key).collect();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), base64::encode(&key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    /// A vkey as it is printed; another spelling of the same key is refused.
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, rest) = text.split_once('+').ok_or(NoteError::CorruptKey)?;
        let (_, key) = rest.split_once('+').ok_or(NoteError::CorruptKey)?;
        let key = base64::decode(key).ok_or(NoteError::CorruptKey)?;
        let key = key.strip_prefix(&[ED25519]).and_then(|key| PublicKey::from_slice(key).ok());
        let key = key.filter(|key| key.validate().is_ok()).ok_or(NoteError::CorruptKey)?;
        let key = Self { name: name.to_owned(), key };
        if is_name(name) && key.to_string() == text { Ok(key) } else { Err(NoteError::CorruptKey) }
    }
}

/// What signs notes. Its secret is erased from memory when it is dropped and shown by nothing.
#[derive(Clone)]
pub struct NoteSigner {
    verifier: VerifierKey,
    key: SecretKey,
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NoteSigner").field(&self.verifier).finish()
    }
}

impl NoteSigner {
    /// Signs as `name` with the key that grows from this seed.
    ///
    /// # Errors
    /// [`NoteError::MisuseName`], [`NoteError::MisuseSeed`].
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::MisuseName);
        }
        // The type wipes nothing by itself. It is handed over by value: what that leaves on the stack is out of reach.
        let mut copy = Seed::new(*seed);
        let pair = KeyPair::try_from_seed(copy);
        copy.wipe_mut();
        let KeyPair { pk, sk } = pair.map_err(|_| NoteError::MisuseSeed)?;
        Ok(Self { verifier: VerifierKey { name: name.to_owned(), key: pk }, key: sk })
    }

    /// What verifies its notes.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The whole note.
    ///
    /// # Errors
    /// [`NoteError::MisuseText`].
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        if !is_text(text) {
            return Err(NoteError::MisuseText);
        }
        let signature: Vec<u8> = self.verifier.id().into_iter().chain(*self.key.sign(text.as_bytes(), None)).collect();
        Ok(format!("{text}\n{DASH}{} {}\n", self.verifier.name, base64::encode(&signature)))
    }
}

/// A note that has been read and not yet been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: [u8; 4],
    signature: Vec<u8>,
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES || !is_text(note) {
            return Err(NoteError::CorruptNote);
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::CorruptNote)?;
        let signatures = lines.split_terminator('\n').map(NoteSignature::parse).collect::<Option<Vec<_>>>();
        match signatures {
            Some(signatures) if (1..=MAX_SIGNATURES).contains(&signatures.len()) => {
                Ok(Self { text: format!("{text}\n"), signatures })
            }
            _ => Err(NoteError::CorruptNote),
        }
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let signature = base64::decode(signature)?;
        let (id, signature) = signature.split_first_chunk()?;
        (is_name(name) && !signature.is_empty()).then(|| Self {
            name: name.to_owned(),
            id: *id,
            signature: signature.to_vec(),
        })
    }
}

impl Note {
    /// What a key of its own signed: the text. Lines of other keys (witnesses) are passed over.
    ///
    /// # Errors
    /// [`NoteError`]: no line is of this key, or one is wrong.
    pub fn verified(&self, key: &VerifierKey) -> Result<&str, NoteError> {
        let ours: Vec<&NoteSignature> =
            self.signatures.iter().filter(|line| line.name == key.name && line.id == key.id()).collect();
        if ours.is_empty() {
            return Err(NoteError::PeerUnsigned);
        }
        for line in ours {
            let signature = Signature::from_slice(&line.signature).map_err(|_| NoteError::CorruptSignature)?;
            let fits = key.key.verify(self.text.as_bytes(), &signature);
            fits.map_err(|_| NoteError::CorruptSignature)?;
        }
        Ok(&self.text)
    }

    /// The text, which nobody has verified.
    #[must_use]
    pub fn dangerous_unverified_text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> NoteSigner {
        NoteSigner::new("daemoneye/host/audit", &[7; 32]).unwrap()
    }

    #[test]
    fn a_note_is_verified_by_its_key_and_every_changed_byte_is_found() {
        let note = signer().sign("a\nb\n").unwrap();
        let parsed: Note = note.parse().unwrap();
        assert_eq!(parsed.verified(signer().verifier()), Ok("a\nb\n"));
        assert_eq!(parsed.dangerous_unverified_text(), "a\nb\n");
        for bit in 0..note.len() * 8 {
            let mut bytes = note.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = String::from_utf8(bytes).ok().and_then(|text| text.parse::<Note>().ok());
            let verified = changed.is_some_and(|note| note.verified(signer().verifier()).is_ok());
            assert!(!verified, "bit {bit}");
        }
    }

    #[test]
    fn a_seed_of_zeros_is_refused() {
        assert_eq!(NoteSigner::new("n", &[0; 32]).map(drop), Err(NoteError::MisuseSeed));
    }

    #[test]
    fn the_example_of_the_specification_verifies() {
        // golang.org/x/mod/sumdb/note, the first example of its documentation.
        let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let parsed: Note = note.parse().unwrap();
        assert!(parsed.verified(&key).is_ok());
        assert_eq!(parsed.verified(signer().verifier()), Err(NoteError::PeerUnsigned));
    }

    #[test]
    fn a_vkey_goes_through_its_text_and_another_spelling_is_refused() {
        let text = signer().verifier().to_string();
        assert_eq!(text.parse::<VerifierKey>().as_ref(), Ok(signer().verifier()));
        for bad in ["", "a", "a+b", "a+00000000+AQ==", &text.to_uppercase(), &format!("{text}\n"), &format!(" {text}")]
        {
            assert_eq!(bad.parse::<VerifierKey>(), Err(NoteError::CorruptKey), "{bad:?}");
        }
    }

    #[test]
    fn another_signature_of_another_key_does_not_disturb_and_a_wrong_one_of_ours_does() {
        let ours = signer().sign("text\n").unwrap();
        let witness = NoteSigner::new("witness", &[8; 32]).unwrap();
        let theirs = witness.sign("text\n").unwrap();
        let their_line = theirs.split_once("\n\n").unwrap().1;
        let both: Note = format!("{ours}{their_line}").parse().unwrap();
        assert_eq!(both.verified(signer().verifier()), Ok("text\n"));
        assert_eq!(both.verified(witness.verifier()), Ok("text\n"));
        let other = signer().sign("other\n").unwrap();
        let other_line = other.split_once("\n\n").unwrap().1;
        let twice: Note = format!("{ours}{other_line}").parse().unwrap();
        assert_eq!(twice.verified(signer().verifier()), Err(NoteError::CorruptSignature));
    }

    #[test]
    fn what_is_not_a_note_and_names_that_would_confuse_one_are_refused() {
        for bad in [
            "",
            "\n",
            "text\n",
            "text\n\n",
            "text\n\n- a AAAA\n",
            "te\rxt\n\n\u{2014} a AAAAAAA=\n",
            "x\n\n\u{2014} a AAAAAA==\n",
        ] {
            assert_eq!(bad.parse::<Note>(), Err(NoteError::CorruptNote), "{bad:?}");
        }
        assert_eq!("x".repeat(MAX_NOTE_BYTES + 1).parse::<Note>(), Err(NoteError::CorruptNote));
        for bad in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
            assert_eq!(NoteSigner::new(bad, &[0; 32]).unwrap_err(), NoteError::MisuseName, "{bad:?}");
        }
        assert_eq!(signer().sign("no newline"), Err(NoteError::MisuseText));
        assert_eq!(signer().sign("a\tb\n"), Err(NoteError::MisuseText));
    }

    #[test]
    fn nothing_shows_the_secret() {
        let shown = format!("{:?}", signer());
        assert!(!shown.contains("7, 7") && !shown.contains("0707"), "{shown}");
    }
}
