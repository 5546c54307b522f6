//! The agent's settings as values: the settings table of `daemoneye_lib::config`, read once, with the paths that follow
//! from it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use daemoneye_lib::config::{self, Config, PROCMOND, Places, Sources};
use daemoneye_lib::jail::Required;

use crate::error::AgentError;
use crate::sinks::format::Format;

/// Longest path of a Unix socket in bytes; the kernel has room for 108 with the end mark.
const SOCKET_PATH_LIMIT: usize = 107;

/// Settings of the started procmond that stand in the agent's table too; an unset one is left to procmond.
const PASSED_ON: &[&str] =
    &["hashing.enabled", "hashing.scope", "redaction", "sandbox.required", "snapshot_interval_ms", "source"];

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
    /// The ledger's checkpoints go there as well.
    pub(crate) stdout_checkpoints: bool,
    pub(crate) file: Option<FileSink>,
    pub(crate) sandbox_required: Required,
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
    /// Where one with its own service writes the ledger.
    pub(crate) audit_dir: Option<PathBuf>,
    /// The environment of the procmond that is started: its settings, and where its files lie.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Variables of this program's environment that a setting of the agent stands above.
    pub(crate) overruled: Vec<String>,
    /// What the procmond that is started makes of them; none for one that has its own service.
    pub(crate) config: Option<Config>,
    /// `None`: what procmond itself takes.
    pub(crate) snapshot_interval_ms: Option<u64>,
    pub(crate) registration_timeout: Duration,
    pub(crate) heartbeat_interval_ms: u64,
    pub(crate) restart_limit: usize,
}

/// Bounds of the open segment, retention and compaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store {
    pub(crate) seal_rows: usize,
    pub(crate) seal_bytes: usize,
    pub(crate) seal_after: Duration,
    pub(crate) retention: Duration,
    pub(crate) retention_bytes: u64,
    pub(crate) compaction_bytes_per_s: u64,
}

/// Limits of queries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    pub(crate) memory_bytes: usize,
    pub(crate) scratch_bytes: u64,
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
    pub(crate) retention_bytes: u64,
}

/// The file sink.
#[derive(Debug, Clone)]
pub(crate) struct FileSink {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// The ledger's checkpoints go there as well.
    pub(crate) checkpoints: bool,
}

impl Settings {
    /// Reads the merged configuration; its values have passed the settings table already.
    pub(crate) fn read(config: Config, environment: &[(OsString, OsString)]) -> Result<Self, AgentError> {
        let data_dir = absolute(config.path("data_dir"));
        let settings = Self {
            runtime_dir: absolute(config.path("runtime_dir")),
            rules: config.paths("rules").into_iter().map(absolute).collect(),
            procmond: Procmond::read(&config, environment),
            store: Store {
                seal_rows: size(&config, "store.seal_rows"),
                seal_bytes: size(&config, "store.seal_bytes"),
                seal_after: config.duration_ms("store.seal_ms"),
                retention: Duration::from_secs(config.integer("store.retention_days").saturating_mul(86_400)),
                retention_bytes: config.integer("store.retention_bytes"),
                compaction_bytes_per_s: config.integer("store.compaction_bytes_per_s"),
            },
            query: Query {
                memory_bytes: size(&config, "query.memory_bytes"),
                scratch_bytes: config.integer("query.scratch_bytes"),
                deadline: config.duration_ms("query.deadline_ms"),
                row_cap: config.integer("query.row_cap"),
                concurrent: size(&config, "query.concurrent"),
            },
            alerts: Alerts {
                dedup_window: Duration::from_secs(config.integer("alerts.dedup_window_s")),
                rate_per_rule_per_minute: config.integer("alerts.rate_per_rule_per_minute"),
                rate_per_minute: config.integer("alerts.rate_per_minute"),
                retention_bytes: config.integer("alerts.retention_bytes"),
            },
            stdout: config.boolean("sinks.stdout.enabled").then(|| Format::named(config.text("sinks.stdout.format"))),
            stdout_checkpoints: config.boolean("sinks.stdout.checkpoints"),
            file: config.boolean("sinks.file.enabled").then(|| FileSink {
                path: absolute(config.path("sinks.file.path")),
                format: Format::named(config.text("sinks.file.format")),
                checkpoints: config.boolean("sinks.file.checkpoints"),
            }),
            sandbox_required: Required::of_setting(config.text("sandbox.required")),
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
        if self.file.as_ref().is_some_and(|file| file.checkpoints && file.format == Format::Csv) {
            return Err(AgentError::MisuseCheckpointFormat { sink: "file" });
        }
        if self.stdout_checkpoints && self.stdout == Some(Format::Csv) {
            return Err(AgentError::MisuseCheckpointFormat { sink: "stdout" });
        }
        Ok(self)
    }

    /// Refuses to start without a rules directory that was named, before anything is made.
    pub(crate) fn find_rules(&self) -> Result<(), AgentError> {
        self.rules.iter().try_for_each(|dir| {
            let found = std::fs::read_dir(dir).map(drop);
            found.map_err(|source| AgentError::Rules { dir: dir.clone(), source })
        })
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
    fn read(config: &Config, environment: &[(OsString, OsString)]) -> Self {
        let spawn = config.text("procmond.mode") == "spawn";
        let (environment, overruled) = environment_for(config, environment);
        let sources = Sources {
            places: Places::of_environment(&environment),
            environment: environment.clone(),
            ..Sources::default()
        };
        Self {
            spawn,
            // Mistakes in it are procmond's to tell, and end its start.
            config: spawn.then(|| config::load(&PROCMOND, &sources).ok()).flatten(),
            path: config.optional_path("procmond.path").map(absolute).unwrap_or_else(beside_us),
            uid: config.optional_integer("procmond.uid").and_then(|uid| u32::try_from(uid).ok()),
            token_file: config.optional_path("procmond.token_file").map(absolute),
            audit_dir: config.optional_path("procmond.audit_dir").map(absolute),
            environment,
            overruled,
            snapshot_interval_ms: config.optional_integer("procmond.snapshot_interval_ms"),
            registration_timeout: config.duration_ms("procmond.registration_timeout_ms"),
            heartbeat_interval_ms: config.integer("procmond.heartbeat_interval_ms"),
            restart_limit: size(config, "procmond.restart_limit"),
        }
    }
}

/// The environment of a procmond that is started from `ours`, and what of ours it does not get. Its own variables are its to
/// check, the unknown ones too; its configuration files lie under the home directory; nothing else is its business.
fn environment_for(config: &Config, ours: &[(OsString, OsString)]) -> (Vec<(OsString, OsString)>, Vec<String>) {
    let text = |key: &str, value: &str| (PROCMOND.variable(key), value.to_owned());
    let mut set = vec![
        text("data_dir", &absolute(config.path("data_dir")).to_string_lossy()),
        text("heartbeat_interval_ms", &config.integer("procmond.heartbeat_interval_ms").to_string()),
        text("standalone", "false"),
    ];
    set.extend(passed_on(config));
    let given = |name: &str| ours.iter().any(|(other, _)| other == name);
    let overruled = set.iter().map(|(name, _)| name.clone()).filter(|name| given(name)).collect();
    let logged = ["log.level", "log.format"].map(|key| text(key, config.text(key)));
    set.extend(logged.into_iter().filter(|(name, _)| !given(name)));

    let is_set = |name: &OsString| set.iter().any(|(other, _)| name == other.as_str());
    let is_its = |name: &OsString| name == "HOME" || name.to_string_lossy().starts_with(PROCMOND.prefix);
    let mut environment: Vec<(OsString, OsString)> =
        ours.iter().filter(|(name, _)| is_its(name) && !is_set(name)).cloned().collect();
    environment.extend(set.into_iter().map(|(name, value)| (name.into(), value.into())));
    (environment, overruled)
}

fn passed_on(config: &Config) -> Vec<(String, String)> {
    let set = config.entries().into_iter().filter(|entry| !entry.value.is_empty());
    let own = set.filter_map(|entry| Some((entry.key.strip_prefix("procmond.")?, entry.value)));
    own.filter(|(key, _)| PASSED_ON.contains(key)).map(|(key, value)| (PROCMOND.variable(key), value)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::config::AGENT;

    #[test]
    fn what_is_set_for_procmond_reaches_it_and_nothing_else_does() {
        let flags = [
            ("data_dir", "/d"),
            ("runtime_dir", "/r"),
            ("procmond.source", "proc-connector"),
            ("procmond.hashing.enabled", "false"),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let config = config::load(&AGENT, &Sources { flags, ..Sources::default() }).unwrap();
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            passed_on(&config),
            [named("PROCMOND_SOURCE", "proc-connector"), named("PROCMOND_HASHING__ENABLED", "false")]
        );
        for key in PASSED_ON {
            let (ours, theirs) = (AGENT.setting(&format!("procmond.{key}")).unwrap(), PROCMOND.setting(key).unwrap());
            assert_eq!((ours.kind, ours.unit), (theirs.kind, theirs.unit), "{key}");
        }
    }
    #[test]
    fn variables_of_procmond_reach_it_unless_a_setting_of_the_agent_stands_above_them() {
        let flags = [("data_dir", "/d"), ("runtime_dir", "/r"), ("procmond.source", "procfs")];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let config = config::load(&AGENT, &Sources { flags, ..Sources::default() }).unwrap();
        let ours = [
            ("HOME", "/h"),
            ("PATH", "/bin"),
            ("PROCMOND_DATA_DIR", "/elsewhere"),
            ("PROCMOND_LOG__LEVEL", "debug"),
            ("PROCMOND_SOURCE", "ebpf"),
            ("PROCMOND_SOURCEE", "ebpf"),
            ("PROCMOND_WAL__SYNC", "always"),
        ];
        let ours = ours.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let (environment, overruled) = environment_for(&config, &ours);
        assert_eq!(overruled, ["PROCMOND_DATA_DIR", "PROCMOND_SOURCE"]);
        let value =
            |name: &str| environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.to_str().unwrap());
        assert_eq!(value("HOME"), Some("/h"));
        assert_eq!(value("PATH"), None);
        assert_eq!(value("PROCMOND_DATA_DIR"), Some("/d"));
        assert_eq!(value("PROCMOND_LOG__LEVEL"), Some("debug"));
        assert_eq!(value("PROCMOND_LOG__FORMAT"), Some("human"));
        assert_eq!(value("PROCMOND_SOURCE"), Some("procfs"));
        assert_eq!(value("PROCMOND_SOURCEE"), Some("ebpf"), "procmond refuses what it does not know");
        assert_eq!(value("PROCMOND_WAL__SYNC"), Some("always"));
    }
}
