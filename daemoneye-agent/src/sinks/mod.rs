//! Where alerts go. A sink is one file here, made by [`make`] from the settings and fed from the outbox by a task of its
//! own, so a sink that hangs or fails delays nobody else. At least once: the alert's id is the idempotency key.

pub(crate) mod breaker;
mod checkpoints;
pub(crate) mod delivery;
mod file;
pub(crate) mod format;
mod stdout;

use async_trait::async_trait;
use daemoneye_lib::model::Alert;

use crate::settings::Settings;

/// Why an alert was not delivered this time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    /// The file or stream refused.
    #[error("cannot write to {what}: {source}")]
    Io {
        /// Name or path.
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// The alert could not be put into words.
    #[error("the alert cannot be written as JSON: {0}")]
    CorruptAlert(#[from] serde_json::Error),
    /// It took longer than a delivery may.
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
}

/// One way out.
#[async_trait]
pub(crate) trait AlertSink: Send + Sync {
    /// The name of its outbox.
    fn name(&self) -> &'static str;

    /// Delivers one alert; when it returns without error, the alert has left our hands durably.
    async fn send(&mut self, alert: &Alert) -> Result<(), SinkError>;

    /// Whether it asks for the ledger's checkpoints too.
    fn takes_checkpoints(&self) -> bool {
        false
    }

    /// Takes a checkpoint of the ledger, a whole signed note.
    async fn checkpoint(&mut self, _note: &str) -> Result<(), SinkError> {
        Ok(())
    }

    /// Whether a delivery would work now.
    async fn health_check(&mut self) -> Result<(), SinkError>;
}

/// The sinks that the settings switch on.
pub(crate) fn make(settings: &Settings) -> Vec<Box<dyn AlertSink>> {
    let mut sinks: Vec<Box<dyn AlertSink>> = Vec::new();
    if let Some(format) = settings.stdout {
        sinks.push(Box::new(stdout::Stdout::new(format, settings.stdout_checkpoints)));
    }
    if let Some(file) = &settings.file {
        sinks.push(Box::new(file::File::new(file.path.clone(), file.format, file.checkpoints)));
    }
    sinks
}

#[cfg(test)]
pub(crate) mod sample {
    use daemoneye_lib::model::{Alert, AlertStatus, Completeness, Severity};
    use uuid::Uuid;

    pub(crate) fn alert(number: u128) -> Alert {
        let process = serde_json::json!({"name": ".hidden", "pid": 42, "command_line": "/tmp/.hidden 30"});
        Alert {
            id: Uuid::from_u128(number),
            time_us: 1_700_000_000_000_000,
            severity: Severity::High,
            title: "hidden executable".into(),
            description: String::new(),
            rule_id: Uuid::from_u128(7),
            rule_version: 1,
            rule_hash: String::new(),
            pack: String::new(),
            tags: vec!["attack.t1564.001".into()],
            process: process.as_object().cloned().unwrap_or_default(),
            row: serde_json::Map::new(),
            events: Vec::new(),
            dedup_key: String::new(),
            count: 1,
            first_seen_us: 0,
            last_seen_us: 0,
            completeness: Completeness::complete(),
            engine: "test".into(),
            host: "host".into(),
            status: AlertStatus::Open,
            suppressed_by: None,
        }
    }
}
