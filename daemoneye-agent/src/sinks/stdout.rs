//! The terminal of `daemoneye-agent run`, or whatever its standard output is.

use async_trait::async_trait;
use daemoneye_lib::model::Alert;
use tokio::io::AsyncWriteExt as _;

use super::format::Format;
use super::{AlertSink, SinkError};

/// Standard output.
pub(crate) struct Stdout {
    format: Format,
    out: tokio::io::Stdout,
    headed: bool,
    checkpoints: bool,
}

impl Stdout {
    pub(crate) fn new(format: Format, checkpoints: bool) -> Self {
        Self { format, out: tokio::io::stdout(), headed: false, checkpoints }
    }
}

fn failed(source: std::io::Error) -> SinkError {
    SinkError::Io { what: "standard output".to_owned(), source }
}

#[async_trait]
impl AlertSink for Stdout {
    fn name(&self) -> &'static str {
        "stdout"
    }

    async fn send(&mut self, alert: &Alert) -> Result<(), SinkError> {
        let mut text = if self.headed { String::new() } else { self.format.heading() };
        text.push_str(&self.format.render(alert)?);
        self.out.write_all(text.as_bytes()).await.map_err(failed)?;
        self.out.flush().await.map_err(failed)?;
        self.headed = true;
        Ok(())
    }

    fn takes_checkpoints(&self) -> bool {
        self.checkpoints
    }

    async fn checkpoint(&mut self, note: &str) -> Result<(), SinkError> {
        let line = format!("{}\n", serde_json::json!({ "checkpoint": note }));
        self.out.write_all(line.as_bytes()).await.map_err(failed)?;
        self.out.flush().await.map_err(failed)
    }

    async fn health_check(&mut self) -> Result<(), SinkError> {
        self.out.flush().await.map_err(failed)
    }
}
