//! The SDK's runtime as the settings ask for it, and the settings themselves for the ledger: they name paths, never secrets.

use std::path::Path;

use collector_core::ledger::TreeOptions;
use collector_core::wal::SyncMode;
use collector_core::{CollectorError, Runtime, RuntimeBuilder};
use daemoneye_lib::config::Config;
use daemoneye_lib::ledger::tree::TreeHash;
use daemoneye_lib::redaction::Redactor;
use procmond::hashing::{self, HashOptions};
use procmond::jail::KEYS_DIR;
use procmond::secrets::{self, KeyError};

/// Everything but source, its interval, tasks and bus.
pub(crate) fn runtime(id: &str, config: &Config) -> Result<RuntimeBuilder, CollectorError> {
    let sync: SyncMode = config.text("wal.sync").parse()?;
    let note: serde_json::Map<String, serde_json::Value> =
        config.entries().into_iter().map(|entry| (entry.key.to_owned(), entry.value.into())).collect();
    Ok(Runtime::builder(id, "process", config.path("data_dir"))
        .begin_timeout(config.duration_ms("begin_timeout_ms"))
        .heartbeat_interval(config.duration_ms("heartbeat_interval_ms"))
        .buffer_bytes(config.integer("buffer_bytes"))
        .wal(config.integer("wal.segment_bytes"), config.integer("wal.max_bytes"), sync)
        .ledger_segment_bytes(config.integer("ledger.segment_bytes"))
        .ledger_heartbeat(config.duration_ms("ledger.heartbeat_ms"))
        .ledger_tree(tree(id, config))
        .config_note(serde_json::Value::Object(note)))
}

/// Who signs the ledger: a seed of this directory, or one that the service manager hands over.
fn tree(id: &str, config: &Config) -> TreeOptions {
    TreeOptions {
        hash: TreeHash::of_word(config.text("ledger.tree_hash")).unwrap_or(TreeHash::Sha256),
        machine: machine(),
        actor: id.to_owned(),
        keys_dir: config.path("data_dir").join(KEYS_DIR),
        credential: config.optional_path("ledger.seed_file"),
    }
}

/// The id that the installation gave this machine; on one without, the ledger's name says so, and its key tells it from others.
fn machine() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = id.trim();
    let known =
        !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if known { id.to_owned() } else { "unnamed".to_owned() }
}

/// What takes secrets out of command lines, unless somebody has turned it off.
pub(crate) fn redactor(config: &Config) -> Result<Option<Redactor>, KeyError> {
    if config.text("redaction") == "off" {
        return Ok(None);
    }
    secrets::host_key(&config.path("data_dir")).map(|key| Some(Redactor::new(key)))
}

/// How executables are hashed, where they can be: a recorded process table has none.
pub(crate) fn hashing(config: &Config) -> Option<HashOptions> {
    let wanted = config.boolean("hashing.enabled") && config.path("proc_root") == Path::new("/proc");
    (wanted && hashing::AVAILABLE).then(|| HashOptions {
        max_file_bytes: config.integer("hashing.max_file_bytes"),
        bytes_per_second: config.integer("hashing.bytes_per_second"),
        ..HashOptions::default()
    })
}
