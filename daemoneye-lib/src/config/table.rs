//! The settings themselves, as data. Documentation, `config show`, environment names and checks derive from these tables.

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number between two bounds, both included.
    Integer(u64, u64),
    /// A file or directory.
    Path,
    /// A list of directories; as a variable separated like `PATH`.
    Paths,
    /// One or more of these words, separated by commas.
    Words(&'static [&'static str]),
}

impl Kind {
    /// What the setting takes, for error messages and documentation.
    #[must_use]
    pub fn describe(self, unit: &str) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Integer(min, max) if unit.is_empty() => format!("a whole number from {min} to {max}"),
            Self::Integer(min, max) => format!("a whole number of {unit} from {min} to {max}"),
            Self::Path => "a path".to_owned(),
            Self::Paths => "a list of paths".to_owned(),
            Self::Words(words) => format!("words of {}, separated by commas", words.join(", ")),
        }
    }
}

/// What holds when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// A boolean.
    Boolean(bool),
    /// The data directory of this user or host.
    DataDir,
    /// An integer.
    Integer(u64),
    /// The runtime directory of this user or host.
    RuntimeDir,
    /// A word or path.
    Text(&'static str),
    /// Another path setting's value, with a name below it.
    Under(&'static str, &'static str),
    /// No value; the doc says what the program then does.
    Unset,
}

impl Fallback {
    /// The default in words.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::DataDir => "/var/lib/daemoneye (root), ~/.local/share/daemoneye".to_owned(),
            Self::Integer(value) => value.to_string(),
            Self::RuntimeDir => "/run/daemoneye (root), $XDG_RUNTIME_DIR/daemoneye".to_owned(),
            Self::Text(text) => text.to_owned(),
            Self::Under(key, name) => format!("<{key}>/{name}"),
            Self::Unset => String::new(),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Dotted key, as it nests in a file.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub fallback: Fallback,
    /// Unit; empty where there is none.
    pub unit: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// One program's settings.
#[derive(Debug)]
pub struct Component {
    /// Name of the program and of its configuration directory.
    pub name: &'static str,
    /// Prefix of its environment variables.
    pub prefix: &'static str,
    /// Every setting.
    pub settings: &'static [Setting],
}

impl Component {
    /// The setting called `key`.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&'static Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// Its environment variable: `store.seal_rows` is `DAEMONEYE_AGENT_STORE__SEAL_ROWS`.
    #[must_use]
    pub fn variable(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.replace('.', "__").to_uppercase())
    }

    /// How messages name its flag: `store.seal_rows` is `--store-seal-rows`.
    #[must_use]
    pub fn flag(key: &str) -> String {
        format!("--{}", key.replace(['.', '_'], "-"))
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

const fn setting(key: &'static str, kind: Kind, fallback: Fallback, unit: &'static str, doc: &'static str) -> Setting {
    Setting { key, kind, fallback, unit, doc }
}

const fn integer(
    key: &'static str,
    default: u64,
    range: (u64, u64),
    unit: &'static str,
    doc: &'static str,
) -> Setting {
    setting(key, Kind::Integer(range.0, range.1), Fallback::Integer(default), unit, doc)
}

const fn choice(
    key: &'static str,
    words: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> Setting {
    setting(key, Kind::Choice(words), Fallback::Text(default), "", doc)
}

const fn boolean(key: &'static str, default: bool, doc: &'static str) -> Setting {
    setting(key, Kind::Boolean, Fallback::Boolean(default), "", doc)
}

const fn path(key: &'static str, fallback: Fallback, doc: &'static str) -> Setting {
    setting(key, Kind::Path, fallback, "", doc)
}

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
/// What the agent only hands to the procmond that it starts.
const fn passed_on(key: &'static str, kind: Kind, doc: &'static str) -> Setting {
    setting(key, kind, Fallback::Unset, "", doc)
}

const LOG_LEVEL: Setting = choice("log.level", LEVELS, "info", "least urgent level that is logged to standard error");
const LOG_FORMAT: Setting = choice("log.format", &["human", "json"], "human", "shape of the log lines");
const DATA_DIR: Setting = path("data_dir", Fallback::DataDir, "where everything that must survive a restart lies");
const RUNTIME_DIR: Setting = path("runtime_dir", Fallback::RuntimeDir, "where the sockets and the token lie");

/// Sources of processes, best first behind `auto`.
const SOURCES: &[&str] = &["auto", "ebpf", "proc-connector", "procfs", "sysinfo"];
const ON_OFF: &[&str] = &["on", "off"];
const LAYERS: Kind = Kind::Words(&[
    "auto",
    "none",
    "capabilities",
    "landlock",
    "network-namespace",
    "no-new-privs",
    "not-dumpable",
    "seccomp",
    "user",
]);

const SANDBOX_REQUIRED: Setting = setting(
    "sandbox.required",
    LAYERS,
    Fallback::Text("auto"),
    "",
    "layers of the jail without which the program does not run; auto: all that this system offers to this user",
);

/// `procmond`.
pub static PROCMOND: Component = Component {
    name: "procmond",
    prefix: "PROCMOND_",
    settings: &[
        DATA_DIR,
        boolean(
            "standalone",
            false,
            "capture without an agent; only with --follow are events printed to standard output",
        ),
        choice("source", SOURCES, "auto", "how processes are captured; auto: the first of the others that works here"),
        path("proc_root", Fallback::Text("/proc"), "where the proc file system is mounted"),
        setting(
            "snapshot_interval_ms",
            Kind::Integer(100, 3_600_000),
            Fallback::Unset,
            "milliseconds",
            "time between two snapshots; unset: 30,000 beside a source of the kernel, 5,000 without one",
        ),
        integer(
            "begin_timeout_ms",
            60_000,
            (100, 3_600_000),
            "milliseconds",
            "how long to wait for the agent's leave to begin before capturing without it",
        ),
        integer("heartbeat_interval_ms", 30_000, (100, 3_600_000), "milliseconds", "time between two heartbeats"),
        integer(
            "buffer_bytes",
            10 * MIB,
            (64 * KIB, GIB),
            "bytes",
            "events held for the bus before replay takes over",
        ),
        integer("wal.segment_bytes", 16 * MIB, (64 * KIB, GIB), "bytes", "size at which a log file is closed"),
        integer(
            "wal.max_bytes",
            GIB,
            (MIB, 1024 * GIB),
            "bytes",
            "size of the whole log above which the oldest is shed",
        ),
        choice(
            "wal.sync",
            &["group", "always", "never"],
            "group",
            "when records reach the disk: within 10 ms, at once, or when the system likes",
        ),
        integer("ledger.segment_bytes", 4 * MIB, (64 * KIB, GIB), "bytes", "size at which a ledger file is closed"),
        integer(
            "ledger.heartbeat_ms",
            60_000,
            (1_000, 60_000),
            "milliseconds",
            "time between two heartbeat entries of the ledger, each of which is signed; below the time between two snapshots silence cannot be shown, unless a source of the kernel announces events",
        ),
        choice(
            "ledger.tree_hash",
            &["sha256", "blake3"],
            "sha256",
            "hash of a new ledger's tree; outside tools verify sha256, and a ledger keeps the one it began with",
        ),
        path(
            "ledger.seed_file",
            Fallback::Unset,
            "32 bytes that the service manager hands over as the signing key; without it one is made in the data directory",
        ),
        choice("redaction", ON_OFF, "on", "replace secrets in command lines by tokens before they are written"),
        boolean("hashing.enabled", true, "hash the executable of every process"),
        choice(
            "hashing.scope",
            SCOPES,
            "all",
            "hash always, so that history has it, or only while a rule in force of the agent reads a hash",
        ),
        integer(
            "hashing.max_file_bytes",
            512 * MIB,
            (1, 1024 * GIB),
            "bytes",
            "size above which an executable is not hashed",
        ),
        integer("hashing.bytes_per_second", 64 * MIB, (MIB, 1024 * GIB), "bytes", "what hashing may read in a second"),
        SANDBOX_REQUIRED,
        LOG_LEVEL,
        LOG_FORMAT,
    ],
};

/// The shortest time for which a store keeps what fits into it: what went younger was not too old on any host.
pub const LEAST_RETENTION_DAYS: u64 = 1;
/// Fewer bytes of alerts are never too many: some minutes of what the rate limit lets through.
pub const LEAST_ALERT_BYTES: u64 = 64 * MIB;

/// What executables are hashed for.
const SCOPES: &[&str] = &["all", "rules"];

/// `daemoneye-agent`.
pub static AGENT: Component = Component {
    name: "daemoneye-agent",
    prefix: "DAEMONEYE_AGENT_",
    settings: &[
        DATA_DIR,
        RUNTIME_DIR,
        setting(
            "rules",
            Kind::Paths,
            Fallback::Unset,
            "",
            "directories with rule files, later ones override; unset: /usr/share/daemoneye/rules and /etc/daemoneye/rules.d where they exist",
        ),
        choice("procmond.mode", &["spawn", "external"], "spawn", "start procmond, or expect another to start it"),
        path("procmond.path", Fallback::Unset, "the procmond to start; unset: the one beside this program"),
        setting(
            "procmond.uid",
            Kind::Integer(0, 0xffff_fffe),
            Fallback::Unset,
            "",
            "user id that an external procmond must have; unset: this program's own or root",
        ),
        path("procmond.token_file", Fallback::Unset, "file with the token of an external procmond"),
        path(
            "procmond.audit_dir",
            Fallback::Unset,
            "directory in which an external procmond writes the ledger; unset: the one that it tells, which this program's jail may keep closed",
        ),
        setting(
            "procmond.snapshot_interval_ms",
            Kind::Integer(100, 3_600_000),
            Fallback::Unset,
            "milliseconds",
            "time between two snapshots; unset: procmond's own, 30,000 beside a source of the kernel, 5,000 without one",
        ),
        passed_on(
            "procmond.source",
            Kind::Choice(SOURCES),
            "how procmond captures processes; unset: procmond's own, auto",
        ),
        passed_on(
            "procmond.redaction",
            Kind::Choice(ON_OFF),
            "whether procmond replaces secrets in command lines; unset: procmond's own, on",
        ),
        passed_on(
            "procmond.hashing.enabled",
            Kind::Boolean,
            "whether procmond hashes executables; unset: procmond's own, true",
        ),
        passed_on(
            "procmond.hashing.scope",
            Kind::Choice(SCOPES),
            "whether procmond hashes always or only for rules; unset: procmond's own, all",
        ),
        passed_on(
            "procmond.sandbox.required",
            LAYERS,
            "layers of the jail without which procmond does not run; unset: procmond's own, auto",
        ),
        integer(
            "procmond.registration_timeout_ms",
            60_000,
            (100, 3_600_000),
            "milliseconds",
            "how long procmond may take to register",
        ),
        integer(
            "procmond.heartbeat_interval_ms",
            30_000,
            (100, 3_600_000),
            "milliseconds",
            "time between two heartbeats of procmond",
        ),
        integer("procmond.restart_limit", 10, (0, 1_000), "", "restarts in a row before the agent gives up"),
        integer(
            "store.seal_rows",
            16_384,
            (1, 1_000_000),
            "rows",
            "rows at which the open segment is written to disk",
        ),
        integer(
            "store.seal_bytes",
            8 * MIB,
            (64 * KIB, GIB),
            "bytes",
            "memory at which the open segment is written to disk",
        ),
        integer(
            "store.seal_ms",
            60_000,
            (10, 3_600_000),
            "milliseconds",
            "age at which the open segment is written to disk",
        ),
        integer("store.retention_days", 30, (LEAST_RETENTION_DAYS, 36_500), "days", "age at which history is deleted"),
        integer(
            "store.retention_bytes",
            2 * GIB,
            (16 * MIB, 1024 * GIB),
            "bytes",
            "size of all stored events and lifetimes together above which the oldest are deleted",
        ),
        integer(
            "store.compaction_bytes_per_s",
            16 * MIB,
            (0, 64 * GIB),
            "bytes per second",
            "what merging stored events may read and write; 0: as much as it can",
        ),
        integer(
            "query.memory_bytes",
            64 * MIB,
            (MIB, 1024 * GIB),
            "bytes",
            "memory that all queries share; operators are granted five eighths of it, the rest is what they do not ask for",
        ),
        integer(
            "query.scratch_bytes",
            256 * MIB,
            (0, 1024 * GIB),
            "bytes",
            "disk that all queries share when memory is short; 0: none",
        ),
        integer("query.deadline_ms", 30_000, (1, 3_600_000), "milliseconds", "longest time a query may take"),
        integer("query.row_cap", 1_000_000, (1, 1_000_000_000), "rows", "most rows a query may return"),
        integer("query.concurrent", 2, (1, 64), "", "queries that run at the same time"),
        integer(
            "alerts.dedup_window_s",
            300,
            (0, 86_400),
            "seconds",
            "time in which repeats raise the count of the alert that stands",
        ),
        integer(
            "alerts.rate_per_rule_per_minute",
            600,
            (1, 1_000_000),
            "",
            "alerts of one rule in a minute; more are folded into one",
        ),
        integer(
            "alerts.rate_per_minute",
            6_000,
            (1, 1_000_000),
            "",
            "alerts of all rules in a minute; more are folded into one per rule",
        ),
        integer(
            "alerts.retention_bytes",
            256 * MIB,
            (LEAST_ALERT_BYTES, 1024 * GIB),
            "bytes",
            "size of all stored alerts above which they are deleted: suppressed and closed ones first, then the oldest",
        ),
        boolean("sinks.stdout.enabled", true, "print alerts to standard output"),
        choice("sinks.stdout.format", &["human", "json", "csv"], "human", "shape of printed alerts"),
        boolean(
            "sinks.stdout.checkpoints",
            false,
            "print the ledger's checkpoints to standard output too, as JSON; not in the shape csv",
        ),
        boolean("sinks.file.enabled", true, "append alerts to a file"),
        path("sinks.file.path", Fallback::Under("data_dir", "alerts.jsonl"), "the file that alerts are appended to"),
        choice("sinks.file.format", &["json", "csv"], "json", "shape of alerts in the file"),
        boolean("sinks.file.checkpoints", false, "append the ledger's checkpoints to the file too, as JSON"),
        SANDBOX_REQUIRED,
        LOG_LEVEL,
        LOG_FORMAT,
    ],
};

/// `daemoneye-cli`.
pub static CLI: Component = Component {
    name: "daemoneye-cli",
    prefix: "DAEMONEYE_CLI_",
    settings: &[
        RUNTIME_DIR,
        DATA_DIR,
        choice("format", &["table", "json", "jsonl", "csv", "line"], "table", "shape of results"),
        integer("deadline_ms", 30_000, (1_000, 300_000), "milliseconds", "how long to wait for the agent's answer"),
        SANDBOX_REQUIRED,
        choice("log.level", LEVELS, "warn", "least urgent level that is logged to standard error"),
    ],
};

/// Every program's table.
pub static COMPONENTS: &[&Component] = &[&PROCMOND, &AGENT, &CLI];
