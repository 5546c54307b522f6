//! The SDK's runtime as the settings ask for it, and the settings themselves for the ledger: they name paths, never secrets.

use collector_core::wal::SyncMode;
use collector_core::{CollectorError, Runtime, RuntimeBuilder};
use daemoneye_lib::config::Config;

/// Everything but source, tasks and bus.
pub(crate) fn runtime(id: &str, config: &Config) -> Result<RuntimeBuilder, CollectorError> {
    let sync: SyncMode = config.text("wal.sync").parse()?;
    let note: serde_json::Map<String, serde_json::Value> =
        config.entries().into_iter().map(|entry| (entry.key.to_owned(), entry.value.into())).collect();
    Ok(Runtime::builder(id, "process", config.path("data_dir"))
        .interval(config.duration_ms("snapshot_interval_ms"))
        .begin_timeout(config.duration_ms("begin_timeout_ms"))
        .heartbeat_interval(config.duration_ms("heartbeat_interval_ms"))
        .buffer_bytes(config.integer("buffer_bytes"))
        .wal(config.integer("wal.segment_bytes"), config.integer("wal.max_bytes"), sync)
        .ledger_segment_bytes(config.integer("ledger.segment_bytes"))
        .config_note(serde_json::Value::Object(note)))
}
