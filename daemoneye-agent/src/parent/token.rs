//! The 32 bytes by which a collector proves that this agent started it. They travel in a file that only its owner may read,
//! never in an argument list or the environment, where every user of the machine could see them.

use std::io::Write as _;
use std::path::Path;

use crate::platform;

/// Length of a token: 256 bits cannot be guessed.
pub(crate) const TOKEN_BYTES: usize = 32;

/// Makes a new token and puts it in place at once, so that nobody can read half of one.
pub(crate) fn create(path: &Path) -> std::io::Result<()> {
    let mut token = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut token).map_err(|error| std::io::Error::other(error.to_string()))?;
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = platform::create_private(&fresh, 0o400)?;
    file.write_all(&token)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// What is wrong with a token that somebody else made.
pub(crate) fn problem(path: &Path) -> Option<String> {
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) => return Some(format!("cannot be read ({error})")),
    };
    if !about.is_file() {
        return Some("is no file".to_owned());
    }
    if about.len() != TOKEN_BYTES as u64 {
        return Some(format!("has {} bytes", about.len()));
    }
    platform::open_to_others(&about).map(|mode| format!("has mode {mode:04o}, so that every user may use it"))
}

/// Whether a whole token stands there that this user may read and not everybody.
pub(crate) fn stands(path: &Path) -> bool {
    problem(path).is_none() && std::fs::read(path).is_ok_and(|token| token.len() == TOKEN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_private_and_never_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("procmond.token");
        assert!(!stands(&path));
        create(&path).unwrap();
        assert!(stands(&path));
        assert!(platform::mode_is(&path, 0o400));
        let first = std::fs::read(&path).unwrap();
        create(&path).unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), first);
    }
}
