//! The agent's settings as values: the settings table of `daemoneye_lib::config`, read once, with the paths that follow
//! from it.

use std::path::PathBuf;
use std::time::Duration;

use daemoneye_lib::config::Config;

use crate::error::AgentError;
use crate::sinks::format::Format;

/// Longest path of a Unix socket in bytes; the kernel has room for 108 with the end mark.
const SOCKET_PATH_LIMIT: usize = 107;

/// Everything that a start needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) rules: Vec<PathBuf>,
    pub(crate) procmond: Procmond,
    pub(crate) store: Store,
    pub(crate) query: Query,
    pub(crate) alerts: Alerts,
    pub(crate) stdout: Option<Format>,
    pub(crate) file: Option<FileSink>,
    pub(crate) log_level: String,
    pub(crate) log_format: String,
    /// The table with values and origins, as `config show` answers it.
    pub(crate) config: Config,
}

/// How procmond is run and recognised.
#[derive(Debug, Clone)]
pub(crate) struct Procmond {
    /// Started by the parent; otherwise it has its own service unit.
    pub(crate) spawn: bool,
    pub(crate) path: PathBuf,
    /// The user that it runs as; none: the agent's own or root.
    pub(crate) uid: Option<u32>,
    token_file: Option<PathBuf>,
    pub(crate) snapshot_interval_ms: u64,
    pub(crate) registration_timeout: Duration,
    pub(crate) heartbeat_interval_ms: u64,
    pub(crate) restart_limit: usize,
}

/// Bounds of the open segment, and retention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store {
    pub(crate) seal_rows: usize,
    pub(crate) seal_bytes: usize,
    pub(crate) seal_after: Duration,
    pub(crate) retention: Duration,
}

/// Limits of queries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    pub(crate) memory_bytes: usize,
    pub(crate) deadline: Duration,
    pub(crate) row_cap: u64,
    pub(crate) concurrent: usize,
}

/// Folding of alerts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alerts {
    pub(crate) dedup_window: Duration,
    pub(crate) rate_per_rule_per_minute: u64,
    pub(crate) rate_per_minute: u64,
}

/// The file sink.
#[derive(Debug, Clone)]
pub(crate) struct FileSink {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
}

impl Settings {
    /// Reads the merged configuration; its values have passed the settings table already.
    pub(crate) fn read(config: Config) -> Result<Self, AgentError> {
        let data_dir = absolute(config.path("data_dir"));
        let settings = Self {
            runtime_dir: absolute(config.path("runtime_dir")),
            rules: config.paths("rules").into_iter().map(absolute).collect(),
            procmond: Procmond::read(&config),
            store: Store {
                seal_rows: size(&config, "store.seal_rows"),
                seal_bytes: size(&config, "store.seal_bytes"),
                seal_after: config.duration_ms("store.seal_ms"),
                retention: Duration::from_secs(config.integer("store.retention_days").saturating_mul(86_400)),
            },
            query: Query {
                memory_bytes: size(&config, "query.memory_bytes"),
                deadline: config.duration_ms("query.deadline_ms"),
                row_cap: config.integer("query.row_cap"),
                concurrent: size(&config, "query.concurrent"),
            },
            alerts: Alerts {
                dedup_window: Duration::from_secs(config.integer("alerts.dedup_window_s")),
                rate_per_rule_per_minute: config.integer("alerts.rate_per_rule_per_minute"),
                rate_per_minute: config.integer("alerts.rate_per_minute"),
            },
            stdout: config.boolean("sinks.stdout.enabled").then(|| Format::named(config.text("sinks.stdout.format"))),
            file: config.boolean("sinks.file.enabled").then(|| FileSink {
                path: absolute(config.path("sinks.file.path")),
                format: Format::named(config.text("sinks.file.format")),
            }),
            log_level: config.text("log.level").to_owned(),
            log_format: config.text("log.format").to_owned(),
            data_dir,
            config,
        };
        settings.check()
    }

    /// What the table cannot know: paths that depend on each other and on the platform.
    fn check(self) -> Result<Self, AgentError> {
        for socket in [self.bus_socket(), self.cli_socket()] {
            let length = socket.as_os_str().len();
            if length > SOCKET_PATH_LIMIT {
                return Err(AgentError::LimitSocketPath { path: socket, length, limit: SOCKET_PATH_LIMIT });
            }
        }
        if !self.procmond.spawn && self.procmond.token_file.is_none() {
            return Err(AgentError::MisuseNoToken);
        }
        Ok(self)
    }

    /// Where collectors connect.
    pub(crate) fn bus_socket(&self) -> PathBuf {
        self.runtime_dir.join("bus.sock")
    }

    /// Where operators connect.
    pub(crate) fn cli_socket(&self) -> PathBuf {
        self.runtime_dir.join("cli.sock")
    }

    /// The token that procmond must show.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.procmond.token_file.clone().unwrap_or_else(|| self.runtime_dir.join("procmond.token"))
    }

    /// Names of the sinks that get an outbox.
    pub(crate) fn sink_names(&self) -> Vec<String> {
        let stdout = self.stdout.as_ref().map(|_| "stdout".to_owned());
        let file = self.file.as_ref().map(|_| "file".to_owned());
        stdout.into_iter().chain(file).collect()
    }
}

impl Procmond {
    fn read(config: &Config) -> Self {
        Self {
            spawn: config.text("procmond.mode") == "spawn",
            path: config.optional_path("procmond.path").map(absolute).unwrap_or_else(beside_us),
            uid: config.optional_integer("procmond.uid").and_then(|uid| u32::try_from(uid).ok()),
            token_file: config.optional_path("procmond.token_file").map(absolute),
            snapshot_interval_ms: config.integer("procmond.snapshot_interval_ms"),
            registration_timeout: config.duration_ms("procmond.registration_timeout_ms"),
            heartbeat_interval_ms: config.integer("procmond.heartbeat_interval_ms"),
            restart_limit: size(config, "procmond.restart_limit"),
        }
    }
}

/// Relative paths are meant from where the agent was started; its children may be elsewhere.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn beside_us() -> PathBuf {
    let name = format!("procmond{}", std::env::consts::EXE_SUFFIX);
    std::env::current_exe().map_or_else(|_| PathBuf::from(&name), |agent| agent.with_file_name(&name))
}

fn size(config: &Config, key: &str) -> usize {
    usize::try_from(config.integer(key)).unwrap_or(usize::MAX)
}
