//! One file, appended to, 0600. An alert counts as delivered when it is synced to disk. The file is opened again when it was
//! rotated away or removed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use daemoneye_lib::model::Alert;

use super::format::Format;
use super::{AlertSink, SinkError};
use crate::platform;

/// The alert file.
pub(crate) struct File {
    path: PathBuf,
    format: Format,
    checkpoints: bool,
    open: Option<std::fs::File>,
}

impl File {
    pub(crate) const fn new(path: PathBuf, format: Format, checkpoints: bool) -> Self {
        Self { path, format, checkpoints, open: None }
    }

    async fn append(&mut self, heading: String, text: String) -> Result<(), SinkError> {
        let open = self.take_open();
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || append(&path, open, &heading, &text)).await;
        let failed = self.failed();
        self.open = Some(written.map_err(std::io::Error::other).and_then(|result| result).map_err(failed)?);
        Ok(())
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> SinkError + 'static {
        let what = self.path.display().to_string();
        move |source| SinkError::Io { what, source }
    }

    /// Takes the handle out, so that a failure in the middle of a write leads to a fresh start.
    fn take_open(&mut self) -> Option<std::fs::File> {
        self.open.take().filter(|file| platform::is_same_file(&self.path, file))
    }
}

/// Appends to the open file, or opens it anew. Blocking.
fn append(path: &Path, open: Option<std::fs::File>, heading: &str, text: &str) -> std::io::Result<std::fs::File> {
    let fresh = open.is_none();
    let mut file = match open {
        Some(file) => file,
        None => platform::open_append(path)?,
    };
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(text.len() + heading.len() + 1);
    if length == 0 {
        bytes.extend_from_slice(heading.as_bytes());
    } else if fresh && !ends_with_line_end(path)? {
        // A crash left half a line: it must not swallow this one.
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(text.as_bytes());
    file.write_all(&bytes)?;
    file.sync_data()?;
    Ok(file)
}

fn ends_with_line_end(path: &Path) -> std::io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[async_trait]
impl AlertSink for File {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn send(&mut self, alert: &Alert) -> Result<(), SinkError> {
        let text = self.format.render(alert)?;
        self.append(self.format.heading(), text).await
    }

    fn takes_checkpoints(&self) -> bool {
        self.checkpoints
    }

    async fn checkpoint(&mut self, note: &str) -> Result<(), SinkError> {
        self.append(String::new(), format!("{}\n", serde_json::json!({ "checkpoint": note }))).await
    }

    async fn health_check(&mut self) -> Result<(), SinkError> {
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || platform::open_append(&path)).await;
        let failed = self.failed();
        opened.map_err(std::io::Error::other).and_then(|result| result).map(drop).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::sample;

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_rotated_file_is_opened_again_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        let mut sink = File::new(path.clone(), Format::Json, false);
        sink.send(&sample::alert(1)).await.unwrap();
        sink.send(&sample::alert(2)).await.unwrap();
        std::fs::rename(&path, dir.path().join("alerts.1")).unwrap();
        sink.send(&sample::alert(3)).await.unwrap();
        assert_eq!(lines(&dir.path().join("alerts.1")).len(), 2);
        assert_eq!(lines(&path).len(), 1);
        assert!(platform::mode_is(&path, 0o600));
    }

    #[tokio::test]
    async fn half_a_line_of_a_crash_does_not_swallow_the_next_alert() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        std::fs::write(&path, "{\"id\":\"half").unwrap();
        File::new(path.clone(), Format::Json, false).send(&sample::alert(1)).await.unwrap();
        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(serde_json::from_str::<Alert>(&lines[1]).unwrap(), sample::alert(1));
    }

    #[tokio::test]
    async fn a_csv_file_has_one_heading_over_two_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.csv");
        for number in 0..2 {
            File::new(path.clone(), Format::Csv, false).send(&sample::alert(number)).await.unwrap();
        }
        assert_eq!(lines(&path).len(), 3);
    }

    #[tokio::test]
    async fn a_checkpoint_is_a_line_of_its_own_between_alerts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        let mut sink = File::new(path.clone(), Format::Json, true);
        sink.send(&sample::alert(1)).await.unwrap();
        sink.checkpoint("daemoneye/m/audit\n7\n").await.unwrap();
        let lines = lines(&path);
        assert_eq!(lines[1..], [r#"{"checkpoint":"daemoneye/m/audit\n7\n"}"#]);
        assert!(sink.takes_checkpoints() && !File::new(path, Format::Json, false).takes_checkpoints());
    }

    #[tokio::test]
    async fn an_unwritable_path_is_named() {
        let mut sink = File::new(PathBuf::from("/proc/never/alerts.jsonl"), Format::Json, false);
        let error = sink.send(&sample::alert(1)).await.unwrap_err();
        assert!(error.to_string().contains("/proc/never/alerts.jsonl"), "{error}");
        assert!(sink.health_check().await.is_err());
    }
}
