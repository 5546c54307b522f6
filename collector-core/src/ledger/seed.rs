//! The seed of the key that signs checkpoints: 32 bytes in a file that only the collector may read.
//!
//! It never leaves this process: nothing logs it, sends it or puts it into an error, and memory is wiped behind it. A new seed
//! waits in `audit.seed.next` until the ledger names its key; then it is renamed over the old one, which is gone with that. One that
//! comes as a credential of the service manager is only read.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use daemoneye_lib::ledger::note::NoteSigner;
use zeroize::Zeroizing;

use crate::platform;

const SEED_BYTES: usize = 32;
const SEED: &str = "audit.seed";
const NEXT: &str = "audit.seed.next";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeedError {
    #[error("{} does not hold a seed of {SEED_BYTES} bytes; put the right one back", .0.display())]
    Corrupt(PathBuf),
    #[error("{} is not a file that only its owner may read; find out who read it, then run: chmod 400 and audit rotate-key", .0.display())]
    Exposed(PathBuf),
    #[error("cannot {operation} {}: {source}; check who owns it and whether the disk has room", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key comes from a credential; change that, it cannot be rotated here")]
    MisuseCredential,
    #[error("{} is not a file that is closed to others; anybody may have read the seed: make a new one, chmod o= it, and restart", .0.display())]
    Open(PathBuf),
    #[error("the operating system gives no random bytes ({0}); without them no key can be made")]
    Random(getrandom::Error),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SeedError + use<> {
    let path = path.to_owned();
    move |source| SeedError::Io { operation, path, source }
}

/// Where the seed is.
#[derive(Debug, Clone)]
pub(super) struct Seeds {
    pub(super) dir: PathBuf,
    /// A file that the service manager made for this run.
    pub(super) credential: Option<PathBuf>,
}

impl Seeds {
    /// Where a seed lies that is made here.
    pub(super) fn file(dir: &Path) -> PathBuf {
        dir.join(SEED)
    }

    /// The key that signs as `name`, if there is one.
    pub(super) fn current(&self, name: &str) -> Result<Option<NoteSigner>, SeedError> {
        match &self.credential {
            Some(path) => read(path, name, false),
            None => read(&self.dir.join(SEED), name, true),
        }
    }

    /// The key that a rotation made and did not finish with.
    pub(super) fn next(&self, name: &str) -> Result<Option<NoteSigner>, SeedError> {
        read(&self.dir.join(NEXT), name, true)
    }

    /// Makes a new key beside the current one.
    pub(super) fn make_next(&self, name: &str) -> Result<NoteSigner, SeedError> {
        if self.credential.is_some() {
            return Err(SeedError::MisuseCredential);
        }
        platform::create_dir(&self.dir, 0o700).map_err(failed("create", &self.dir))?;
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        getrandom::fill(seed.as_mut()).map_err(SeedError::Random)?;
        let path = self.dir.join(NEXT);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            _ => {}
        }
        let mut file = platform::create_file(&path, 0o400).map_err(failed("create", &path))?;
        file.write_all(seed.as_ref()).and_then(|()| file.sync_all()).map_err(failed("write", &path))?;
        self.sync_dir()?;
        signer(&path, name, &seed)
    }

    /// Puts the new key in the old one's place.
    pub(super) fn adopt_next(&self) -> Result<(), SeedError> {
        let path = self.dir.join(SEED);
        fs::rename(self.dir.join(NEXT), &path).map_err(failed("replace", &path))?;
        self.sync_dir()
    }

    /// Removes a new key that the ledger never named.
    pub(super) fn drop_next(&self) {
        fs::remove_file(self.dir.join(NEXT)).ok();
    }

    /// Makes what was renamed outlast a power failure.
    pub(super) fn sync_dir(&self) -> Result<(), SeedError> {
        platform::Dir::open(&self.dir).and_then(|dir| dir.sync()).map_err(failed("sync", &self.dir))
    }
}

fn signer(path: &Path, name: &str, seed: &[u8; SEED_BYTES]) -> Result<NoteSigner, SeedError> {
    NoteSigner::new(name, seed).map_err(|_| SeedError::Corrupt(path.to_owned()))
}

fn read(path: &Path, name: &str, own: bool) -> Result<Option<NoteSigner>, SeedError> {
    let file = match platform::open_no_follow(path) {
        Ok(file) => file,
        Err(error) if own && error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    // A credential belongs to the service manager, and its group may be the service's.
    match own {
        true if !platform::is_private(&metadata) => return Err(SeedError::Exposed(path.to_owned())),
        false if !platform::is_closed(&metadata) => return Err(SeedError::Open(path.to_owned())),
        _ => {}
    }
    seed_of(file, path)?
        .map_or_else(|| Err(SeedError::Corrupt(path.to_owned())), |seed| signer(path, name, &seed).map(Some))
}

fn seed_of(file: File, path: &Path) -> Result<Option<Zeroizing<[u8; SEED_BYTES]>>, SeedError> {
    let mut bytes = Zeroizing::new([0; SEED_BYTES + 1]);
    let (mut have, mut file) = (0, file);
    while let Some(room) = bytes.get_mut(have..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path)(error)),
        }
    }
    let seed = bytes.first_chunk::<SEED_BYTES>().filter(|_| have == SEED_BYTES);
    Ok(seed.map(|seed| Zeroizing::new(*seed)))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn seeds(dir: &Path) -> Seeds {
        Seeds { dir: dir.join("keys"), credential: None }
    }

    #[test]
    fn a_seed_is_made_beside_the_old_one_and_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let seeds = seeds(dir.path());
        assert!(seeds.current("n").unwrap().is_none() && seeds.next("n").unwrap().is_none());
        let first = seeds.make_next("n").unwrap();
        seeds.adopt_next().unwrap();
        assert_eq!(seeds.current("n").unwrap().unwrap().verifier(), first.verifier());
        let second = seeds.make_next("n").unwrap();
        assert_ne!(second.verifier(), first.verifier());
        assert_eq!(seeds.next("n").unwrap().unwrap().verifier(), second.verifier());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode(&seeds.dir), mode(&seeds.dir.join(SEED)), mode(&seeds.dir.join(NEXT))),
            (0o700, 0o400, 0o400)
        );
        seeds.adopt_next().unwrap();
        assert_eq!(seeds.current("n").unwrap().unwrap().verifier(), second.verifier());
        assert_eq!(fs::read_dir(&seeds.dir).unwrap().count(), 1, "the old seed is gone");
    }

    #[test]
    fn a_seed_that_others_may_read_a_link_and_a_short_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let seeds = seeds(dir.path());
        seeds.make_next("n").unwrap();
        let next = seeds.dir.join(NEXT);
        fs::set_permissions(&next, fs::Permissions::from_mode(0o440)).unwrap();
        assert!(matches!(seeds.next("n"), Err(SeedError::Exposed(_))));
        fs::remove_file(&next).unwrap();
        symlink("/dev/zero", &next).unwrap();
        assert!(matches!(seeds.next("n"), Err(SeedError::Io { .. })));
        fs::remove_file(&next).unwrap();
        for length in [0, 31, 33] {
            fs::write(&next, vec![1; length]).unwrap();
            fs::set_permissions(&next, fs::Permissions::from_mode(0o400)).unwrap();
            let error = seeds.next("n").unwrap_err();
            assert!(matches!(error, SeedError::Corrupt(_)) && !error.to_string().contains("1, 1"), "{error}");
            fs::remove_file(&next).unwrap();
        }
    }

    #[test]
    fn a_seed_of_zeros_as_a_power_failure_leaves_it_is_named_and_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let seeds = seeds(dir.path());
        seeds.make_next("n").unwrap();
        let next = seeds.dir.join(NEXT);
        fs::remove_file(&next).unwrap();
        fs::write(&next, [0; SEED_BYTES]).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(matches!(seeds.next("n"), Err(SeedError::Corrupt(_))));
    }

    #[test]
    fn a_credential_is_read_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credential");
        let seeds = Seeds { credential: Some(path.clone()), ..seeds(dir.path()) };
        assert!(matches!(seeds.current("n"), Err(SeedError::Io { .. })));
        fs::write(&path, [3; SEED_BYTES]).unwrap();
        for (mode, open) in [(0o444, true), (0o402, true), (0o640, false), (0o400, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(matches!(seeds.current("n"), Err(SeedError::Open(_))), open, "{mode:o}");
        }
        assert!(seeds.current("n").unwrap().is_some());
        assert!(matches!(seeds.make_next("n"), Err(SeedError::MisuseCredential)));
    }
}
