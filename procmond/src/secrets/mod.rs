//! The host's key for redaction: 32 random bytes in a file that only its owner may read.
//!
//! It makes the same secret read the same on this host and on no other. It never leaves this process: nothing logs it, sends
//! it or puts it into an error. A key that others could have read is refused, because with it tokens can be guessed back.

#[cfg(unix)]
#[path = "unix.rs"]
mod platform;

#[cfg(not(unix))]
#[path = "portable.rs"]
mod platform;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The file below the data directory.
pub const KEY_FILE: &str = "redaction.key";

const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is no key.
    #[error("{path} does not hold a key of {KEY_BYTES} bytes; remove it, and a new one is made (tokens of before will read otherwise)", path = .path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
    },
    /// Others may read it, or could put another in its place.
    #[error("{path} is not a file that only its owner may use; find out who read it, then remove it or run: chmod 600 {path}", path = .path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {operation} {path}: {source}; check who owns it and whether the disk has room, or set redaction = off", path = .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes ({0}); without them no key can be made")]
    Random(getrandom::Error),
}

/// The key of the host, made at the first start.
///
/// # Errors
/// [`KeyError`]; a key that is damaged or exposed is never replaced by itself.
pub fn host_key(data_dir: &Path) -> Result<[u8; KEY_BYTES], KeyError> {
    let path = data_dir.join(KEY_FILE);
    let opened = match collector_core::open_private(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(data_dir, &path)?;
            collector_core::open_private(&path)
        }
        opened => opened,
    };
    let Some(file) = opened.map_err(failed("open", &path))? else { return Err(KeyError::Exposed { path }) };
    let mut bytes = Vec::with_capacity(KEY_BYTES);
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed("read", &path))?;
    bytes.try_into().map_err(|_other_length| KeyError::Corrupt { path })
}

/// Written beside its name and linked there, so that a crash leaves no half of a key and a key that stands is never replaced.
fn make(data_dir: &Path, path: &Path) -> Result<(), KeyError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(KeyError::Random)?;
    platform::create_dir(data_dir).map_err(failed("create", data_dir))?;
    let temporary = path.with_extension("key.tmp");
    let mut file = collector_core::private_file(&temporary).map_err(failed("create", &temporary))?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    let linked = match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed("create", path)(error)),
        _ => Ok(()),
    };
    fs::remove_file(&temporary).map_err(failed("remove", &temporary))?;
    // Where a directory cannot be opened as a file, the platform orders links itself.
    if let Ok(directory) = File::open(data_dir) {
        directory.sync_all().map_err(failed("sync", data_dir))?;
    }
    linked
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError + use<> {
    let path = path.to_owned();
    move |source| KeyError::Io { operation, path, source }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let key = host_key(&data_dir).unwrap();
        assert_ne!(key, [0; 32]);
        assert_eq!(host_key(&data_dir).unwrap(), key);
        assert_eq!(fs::read(data_dir.join(KEY_FILE)).unwrap(), key);
        let mode = fs::metadata(data_dir.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = host_key(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = host_key(dir.path()).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { .. }) && error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), key);
    }

    #[test]
    fn a_link_and_a_short_file_are_no_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        symlink("/dev/zero", &path).unwrap();
        assert!(matches!(host_key(dir.path()), Err(KeyError::Io { .. })));
        fs::remove_file(&path).unwrap();
        collector_core::private_file(&path).unwrap().write_all(b"short").unwrap();
        assert!(matches!(host_key(dir.path()), Err(KeyError::Corrupt { .. })));
    }
}
