//! procmond as the parent sees it: the command that starts it, and whether one that outlived an earlier agent still works on
//! this data directory.
//!
//! The lock of the write-ahead log decides, not a pid file: whoever holds it collects, and a second procmond would refuse to
//! start anyway.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::token;
use crate::error::AgentError;
use crate::platform;
use crate::settings::Settings;

/// Without them procmond would begin a second time to have them: its heap gives back what it does not need.
const HEAP: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Whether a live collector holds the write-ahead log under `data_dir`. Where that belongs to an account of its own, only the
/// lock of the ledger beside it can be asked, which the group may read and which the same collector holds all the time.
pub(crate) fn is_collecting(data_dir: &Path) -> bool {
    let opened = File::open(data_dir.join("wal").join("lock")).or_else(|error| match error.kind() {
        ErrorKind::PermissionDenied => File::open(data_dir.join("audit").join("lock")),
        _ => Err(error),
    });
    let Ok(lock) = opened else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Refuses to start without the program, or without a token that is one, before anything runs.
pub(crate) fn check(settings: &Settings) -> Result<(), AgentError> {
    let path = &settings.procmond.path;
    if !settings.procmond.spawn {
        let path = settings.token_file();
        return token::problem(&path).map_or(Ok(()), |problem| Err(AgentError::MisuseToken { path, problem }));
    }
    if !path.is_file() {
        return Err(AgentError::MissingCollector { path: path.clone() });
    }
    for name in &settings.procmond.overruled {
        tracing::warn!("{name} has no effect on the procmond that the agent starts: the agent's own setting counts");
    }
    Ok(())
}

/// The command that starts procmond. The token of an agent that was killed is kept: a procmond of it may still be about to take
/// the log, and would be refused for ever with a token that is no more.
pub(crate) fn command(settings: &Settings) -> Result<Command, AgentError> {
    let token = settings.token_file();
    if !token::stands(&token) {
        token::create(&token).map_err(|source| AgentError::io("write the token file", &token, source))?;
    }
    let mut command = Command::new(&settings.procmond.path);
    command
        // Among the arguments too, which everybody may read: it tells two instances apart where the environment is closed, because
        // the program is not dumpable.
        .arg("--data-dir")
        .arg(&settings.data_dir)
        .env_clear()
        .env("DAEMONEYE_BROKER_SOCKET", settings.bus_socket())
        .env("DAEMONEYE_BROKER_TOKEN_FILE", token)
        .envs(HEAP)
        .envs(settings.procmond.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    platform::own_group(&mut command);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_seen_and_a_stale_lock_file_is_not_mistaken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_collecting(dir.path()));
        std::fs::create_dir(dir.path().join("wal")).unwrap();
        let lock = File::create(dir.path().join("wal").join("lock")).unwrap();
        assert!(!is_collecting(dir.path()));
        lock.lock().unwrap();
        assert!(is_collecting(dir.path()));
        lock.unlock().unwrap();
        assert!(!is_collecting(dir.path()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_collector_with_an_account_of_its_own_is_seen_by_whoever_may_only_read_its_ledger() {
        use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
        use std::os::unix::fs::{PermissionsExt, chown};

        let dir = tempfile::tempdir().unwrap();
        let locks = ["wal", "audit"].map(|name| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            File::create(dir.path().join(name).join("lock")).unwrap()
        });
        // The account of the collector is somebody else where this may be arranged, and nobody may enter its log anyway.
        let wal = dir.path().join("wal");
        let mode = if chown(&wal, Some(60_578), None).is_ok() { 0o700 } else { 0 };
        std::fs::set_permissions(&wal, PermissionsExt::from_mode(mode)).unwrap();
        let seen = || is_collecting(dir.path());
        // Of this thread alone: what makes root read everything.
        let ordinary = |look: &(dyn Fn() -> bool + Sync)| {
            std::thread::scope(|scope| {
                let looking = scope.spawn(|| {
                    let held = capabilities(None).unwrap();
                    let all = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
                    set_capabilities(None, CapabilitySets { effective: held.effective - all, ..held }).unwrap();
                    look()
                });
                looking.join().unwrap()
            })
        };
        assert!(!ordinary(&seen), "nobody holds it");
        locks.iter().for_each(|lock| lock.lock().unwrap());
        assert!(ordinary(&seen));
        locks.iter().for_each(|lock| lock.unlock().unwrap());
        assert!(!ordinary(&seen), "it has ended");
    }
}
