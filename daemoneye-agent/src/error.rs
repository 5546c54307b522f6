//! Why the agent ends, and with which exit code.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use daemoneye_engine::replay::ReplayError;
use daemoneye_engine::store::StoreError;
use daemoneye_eventbus::BusError;
use daemoneye_lib::config::ConfigErrors;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::JailError;

/// Everything that ends a program of the agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// A socket could not be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// procmond ended too often.
    #[error(
        "procmond was started again too often and is given up (last: {last}): look at its messages above, then start the agent again"
    )]
    CollectorFailed { last: String },
    /// procmond ended with a code that says that trying again is of no use.
    #[error("procmond cannot run ({last}): correct what it names above, then start the agent again")]
    CollectorRefused { last: String },
    /// Wrong settings.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A copied data directory that is none, or cannot be read.
    #[error("cannot read the copied data directory {}: {source}; name another with --offline", dir.display())]
    CopiedStore {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A directory of ours is not there and cannot be made.
    #[error("cannot create the directory {}: {source}; choose another {flag}", dir.display())]
    Directory {
        dir: PathBuf,
        flag: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// Something that a tool was to read.
    #[error("cannot read the {what} {}: {source}; name another with {flag}", path.display())]
    Input {
        what: &'static str,
        flag: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The system refused something.
    #[error("cannot {action}{}: {source}", on(path))]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The jail is not what it must be.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// A socket path does not fit into a socket address.
    #[error("socket path {} has {length} bytes, at most {limit} fit: choose a shorter runtime_dir", path.display())]
    LimitSocketPath { path: PathBuf, length: usize, limit: usize },
    /// procmond is not where it should be.
    #[error(
        "procmond is not at {}: set procmond.path, or procmond.mode = external when it has its own service", path.display()
    )]
    MissingCollector { path: PathBuf },
    /// A checkpoint has no columns.
    #[error(
        "sinks.{sink}.checkpoints needs another sinks.{sink}.format than csv: a checkpoint does not fit the columns of alerts"
    )]
    MisuseCheckpointFormat {
        /// Which one.
        sink: &'static str,
    },
    /// `external` without a token.
    #[error("procmond.mode is external and procmond.token_file is not set: name the file that holds its token")]
    MisuseNoToken,
    /// A token that anybody can guess or read, or none.
    #[error("procmond.token_file {} {problem}: it holds exactly 32 random bytes, with mode 0400", path.display())]
    MisuseToken { path: PathBuf, problem: String },
    /// Past events that cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A rules directory that was named and cannot be read.
    #[error("cannot read the rules directory {}: {source}; name another with --rules", dir.display())]
    Rules {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Nobody registered.
    #[error(
        "no collector registered within {seconds} s on {}: look at procmond's messages, or stop a procmond that belongs to another runtime directory", socket.display()
    )]
    StartupFailed { seconds: u64, socket: PathBuf },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker ended too often.
    #[error("the worker was started again too often and is given up (last: {last}): look at its messages above")]
    WorkerFailed { last: String },
    /// The system did not start the worker.
    #[error("cannot start the worker, the program {}: {source}; install the agent there again", program.display())]
    WorkerNotStarted {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

fn on(path: &Path) -> String {
    if path.as_os_str().is_empty() { String::new() } else { format!(" {}", path.display()) }
}

impl AgentError {
    /// An error of the operating system; `path` may be empty.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// The code that the shell sees.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Bus(BusError::MisuseInUse { .. }) => Exit::InUse,
            Self::Bus(BusError::LimitPath { .. } | BusError::MisuseOpenDirectory { .. }) => Exit::Config,
            Self::Bus(BusError::Io { .. })
            | Self::Directory { .. }
            | Self::Io { .. }
            | Self::WorkerNotStarted { .. } => Exit::Unreadable,
            Self::CopiedStore { source, .. }
            | Self::Input { source, .. }
            | Self::Rules { source, .. }
            | Self::Replay(ReplayError::Io { source, .. }) => match source.kind() {
                ErrorKind::NotADirectory | ErrorKind::NotFound => Exit::NotFound,
                _ => Exit::Unreadable,
            },
            Self::Bus(_) | Self::WorkerFailed { .. } => Exit::Failure,
            Self::CollectorFailed { .. } | Self::CollectorRefused { .. } | Self::MissingCollector { .. } => {
                Exit::CollectorFailed
            }
            Self::Config(_)
            | Self::LimitSocketPath { .. }
            | Self::MisuseCheckpointFormat { .. }
            | Self::MisuseNoToken
            | Self::MisuseToken { .. } => Exit::Config,
            Self::Jail(error) => error.exit(),
            Self::Replay(ReplayError::MisuseColumns { .. } | ReplayError::MisuseDirectory { .. }) => Exit::Usage,
            Self::Replay(ReplayError::Store(error)) => error.exit(),
            Self::Replay(_) => Exit::Unreadable,
            Self::StartupFailed { .. } => Exit::StartupFailed,
            Self::Store(error) => error.exit(),
        }
    }
}
