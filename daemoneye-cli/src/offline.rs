//! An agent of our own over a copied data directory, in a private runtime directory. The copy stays untouched.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use daemoneye_eventbus::OperatorClient;
use daemoneye_lib::allocator;
use daemoneye_lib::exit::Exit;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::agent;
use crate::error::CliError;

/// Opening a large store reads its state once; a disk that needs longer than this is broken.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two attempts to connect while it starts.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What of its log is shown when it ends early, in bytes from the end.
const SHOWN_LOG_BYTES: usize = 4_096;

/// A data directory has one of these. Which others it can do without, and why not, the agent knows.
const PARTS: [&str; 3] = ["state.redb", "segments", "wal"];

/// Ends when it is dropped.
pub(crate) struct OfflineAgent {
    child: Child,
    /// Holds the socket and the log; only this user may enter.
    runtime: TempDir,
}

impl OfflineAgent {
    /// Starts it over `store`, or over one with nothing in it, and waits until it answers. `ledger`: where the store's lies, when not
    /// in it.
    pub(crate) async fn start(
        store: Option<&Path>,
        ledger: Option<&Path>,
    ) -> Result<(Self, OperatorClient), CliError> {
        store.map_or(Ok(()), find)?;
        let runtime = tempfile::Builder::new().prefix("de-").tempdir().map_err(io("create a runtime directory"))?;
        let store = match store {
            Some(store) => store.to_owned(),
            None => empty_store(runtime.path()).map_err(io("create an empty store"))?,
        };
        let log = std::fs::File::create(runtime.path().join("log")).map_err(io("create a log file"))?;
        let program = program();
        let mut command = Command::new(&program);
        // Ctrl-C in a terminal is for every process of the group, and it means the statement.
        #[cfg(unix)]
        command.process_group(0);
        let child = command
            .arg("serve")
            .arg("--offline")
            .arg(store)
            .arg("--runtime-dir")
            .arg(runtime.path())
            .args(ledger.into_iter().flat_map(|dir| [OsStr::new("--procmond-audit-dir"), dir.as_os_str()]))
            // Killed, this program can neither end the agent nor remove the directory; the closed pipe tells the agent to.
            .arg("--transient")
            // Which it would begin again for.
            .envs(allocator::unset())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(io(&format!("start {}; install it beside daemoneye-cli or in PATH", program.display())))?;
        let mut agent = Self { child, runtime };
        let client = agent.connected().await?;
        Ok((agent, client))
    }

    async fn connected(&mut self) -> Result<OperatorClient, CliError> {
        let socket = self.runtime.path().join("cli.sock");
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let error = match agent::connect(&socket, agent::CONNECT_DEADLINE).await {
                Ok(client) => return Ok(client),
                Err(error @ (CliError::AgentHung { .. } | CliError::AgentUnreachable { .. })) => error,
                Err(other) => return Err(other),
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(CliError::OfflineAgent { message: self.log(), exit: exit(status) });
            }
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn log(&self) -> String {
        let bytes = std::fs::read(self.runtime.path().join("log")).unwrap_or_default();
        let from = bytes.len().saturating_sub(SHOWN_LOG_BYTES);
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).trim_end().to_owned()
    }

    /// Ends it. It keeps nothing, so nothing is lost by ending it at once.
    pub(crate) async fn stop(mut self) {
        // Fails only when it has ended already.
        self.child.kill().await.unwrap_or_default();
    }
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> CliError {
    let what = what.to_owned();
    move |source| CliError::Io { what, source }
}

/// Before an agent is started for nothing. What cannot be looked at is left to it, and to what it says of it.
pub(crate) fn find(store: &Path) -> Result<(), CliError> {
    if is_store(store) {
        return Ok(());
    }
    let text = format!(
        "{} is no data directory: there is neither state.redb nor segments nor wal in it; name a copied one",
        store.display()
    );
    Err(CliError::NotFound(text))
}

/// Whether there is any part of a store.
fn is_store(dir: &Path) -> bool {
    PARTS.iter().any(|part| !matches!(dir.join(part).try_exists(), Ok(false)))
}

/// A directory without a state file is refused as no store; an empty file is a store of nothing.
fn empty_store(runtime: &Path) -> std::io::Result<PathBuf> {
    let store = runtime.join("store");
    std::fs::create_dir(&store)?;
    std::fs::write(store.join("state.redb"), [])?;
    Ok(store)
}

/// Beside this program, else whatever PATH has.
pub(crate) fn program() -> PathBuf {
    let name = format!("daemoneye-agent{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(&name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

fn exit(status: ExitStatus) -> Exit {
    Some(exit_of(status)).filter(|exit| *exit != Exit::Ok).unwrap_or(Exit::Failure)
}

/// The exit code of the agent program as one of ours.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    let same = |exit: &&Exit| status.code() == Some(i32::from(exit.code()));
    Exit::ALL.iter().find(same).copied().unwrap_or(Exit::Failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_any_part_of_a_store_is_left_to_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(find(dir.path()), Err(CliError::NotFound(_))));
        for part in PARTS {
            let store = dir.path().join(format!("only-{part}"));
            std::fs::create_dir_all(store.join(part)).unwrap();
            assert!(find(&store).is_ok(), "{part}");
        }
        assert!(matches!(find(&dir.path().join("none")), Err(CliError::NotFound(_))));
    }
}
