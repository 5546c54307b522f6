//! Answers to the agent's tasks; only those that are announced come here. The enumeration is answered from the tracker's state, in pages, so that
//! it agrees with the event stream at a known position; a selection of columns decides what is worth its price from now on.

use std::sync::Arc;

use async_trait::async_trait;
use collector_core::{SourceError, Tasks};
use daemoneye_lib::proto::{DetectionResult, DetectionTask, HashResult, ProcessFilter, ProcessRecord, TaskType};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hashing;
use crate::monitor::{ProcessMonitor, Wanted};

/// Bytes of records in one page before it is sent. One more record (at most 256 KiB) still keeps it under the frame (1 MiB).
const PAGE_BYTES: usize = 256 * 1024;

/// The tasks of a process monitor.
pub struct ProcessTasks {
    monitor: Arc<ProcessMonitor>,
}

impl ProcessTasks {
    /// Tasks answered by `monitor`.
    #[must_use]
    pub const fn new(monitor: Arc<ProcessMonitor>) -> Self {
        Self { monitor }
    }

    async fn enumerate(
        &self,
        task: DetectionTask,
        pages: &mpsc::Sender<DetectionResult>,
        cancel: &CancellationToken,
    ) -> Result<(), SourceError> {
        let view = self.monitor.view().await?;
        let filter = task.process_filter.unwrap_or_default();
        let page = |processes, more| DetectionResult {
            task_id: task.task_id.clone(),
            success: true,
            processes,
            as_of: view.as_of,
            more,
            ..DetectionResult::default()
        };
        let (mut records, mut bytes) = (Vec::new(), 0usize);
        for record in
            view.members.iter().filter_map(|member| member.record()).filter(|record| selects(&filter, record))
        {
            if cancel.is_cancelled() {
                return Ok(());
            }
            if bytes >= PAGE_BYTES {
                send(pages, page(std::mem::take(&mut records), true)).await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(record.encoded_len());
            records.push(record);
        }
        send(pages, page(records, false)).await
    }

    fn select(&self, task: DetectionTask) -> DetectionResult {
        let mut selection = task.selection.unwrap_or_default();
        let (rehearsal, path) = (selection.rehearsal.take(), std::mem::take(&mut selection.rehearsal_path));
        let wanted = Wanted::from(selection);
        let left_empty = wanted.left_empty().iter().map(ToString::to_string).collect();
        let hash = rehearsal.as_ref().filter(|_| wanted.has(&path)).map(|executable| HashResult {
            algorithm: hashing::ALGORITHM.to_owned(),
            hash: hashing::digest(executable),
            ..HashResult::default()
        });
        if rehearsal.is_none() {
            self.monitor.select(wanted);
        }
        DetectionResult { task_id: task.task_id, success: true, left_empty, hash, ..DetectionResult::default() }
    }
}

#[async_trait]
impl Tasks for ProcessTasks {
    async fn execute(
        &self,
        task: DetectionTask,
        pages: mpsc::Sender<DetectionResult>,
        cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        match task.task_type() {
            TaskType::SelectColumns => send(&pages, self.select(task)).await,
            _ => self.enumerate(task, &pages, &cancel).await,
        }
    }
}

async fn send(pages: &mpsc::Sender<DetectionResult>, page: DetectionResult) -> Result<(), SourceError> {
    pages.send(page).await.map_err(|_closed| SourceError::Stopped)
}

/// Whether a filter selects a process; every part that is given has to.
fn selects(filter: &ProcessFilter, record: &ProcessRecord) -> bool {
    let prefixed = |prefix: &String| record.executable_path.as_ref().is_some_and(|path| path.starts_with(prefix));
    (filter.names.is_empty() || filter.names.contains(&record.name))
        && (filter.pids.is_empty() || filter.pids.contains(&record.pid))
        && filter.executable_prefix.as_ref().is_none_or(prefixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_selects_what_meets_all_of_its_parts() {
        let record =
            ProcessRecord { pid: 7, name: "a".into(), executable_path: Some("/opt/a".into()), ..Default::default() };
        let selected = |names: &[&str], pids: &[u32], prefix: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let filter = ProcessFilter { names, pids: pids.to_vec(), executable_prefix: prefix.map(str::to_owned) };
            selects(&filter, &record)
        };
        assert!(selected(&[], &[], None) && selected(&["b", "a"], &[7], Some("/opt/")));
        assert!(!selected(&["b"], &[7], None) && !selected(&["a"], &[8], None) && !selected(&[], &[], Some("/usr")));
    }
}
