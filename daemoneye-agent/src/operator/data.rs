//! What operators ask about the stored data as a whole: how much there is, whether it is sound, a copy of it, rows of it.
//!
//! Requests that read or write all of it run one at a time and until they are done; they end when the caller leaves.

mod export;
mod vacuum;

use std::io::Read as _;
use std::sync::Arc;

use daemoneye_engine::store::{Backup, BackupFile, Store, StoreError};
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{
    DataShown, Fault, FaultKind, FilePart, OperatorResponse, Progress, operator_response::Answer,
};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Answers, Operators, internal, say};
use crate::platform;

/// Bytes of one part of a file: a quarter of the largest frame, so that two that wait stay small.
const PART_BYTES: usize = 256 * 1024;
/// Where the manifest stands in a copy.
const MANIFEST_PATH: &str = "backup-manifest.json";

impl Operators {
    pub(super) async fn data_stats(&self) -> Result<DataShown, Fault> {
        let figures = self.blocking(Store::figures).await?;
        let compaction = self.blocking(Store::compaction_state).await?;
        let mut document = json!(figures);
        if let Some(members) = document.as_object_mut() {
            members.insert("compaction".to_owned(), json!(compaction));
        }
        shown(&document, true)
    }

    pub(super) async fn data_retention(&self) -> Result<DataShown, Fault> {
        // A copy does not know for how long its host kept events, and nothing goes from it.
        self.live_only("data retention")?;
        let outlook = self.blocking(|store| store.outlook(store.believed_us())).await?;
        shown(&json!(outlook), true)
    }

    pub(super) async fn data_fsck(&self, answers: &Answers, cancel: CancellationToken) -> Result<(), Fault> {
        let _alone = alone(&self.whole_store)?;
        let told = answers.clone();
        let found = self.blocking(move |store| {
            store.fsck(&mut |done, total| {
                let progress = Answer::Progress(Progress { done, total });
                !cancel.is_cancelled() && told.blocking_send(OperatorResponse { answer: Some(progress) }).is_ok()
            })
        });
        let found = found.await?;
        say(answers, Answer::Data(shown(&json!(found), found.is_sound())?)).await;
        Ok(())
    }

    pub(super) async fn data_backup(&self, caller: &Caller, answers: &Answers) -> Result<(), Fault> {
        let worker = self.live_only("data backup (copy the directory itself: nothing changes it)")?;
        let _alone = alone(&self.whole_store)?;
        let backup = self.blocking(Store::begin_backup).await?;
        for (collector, committed) in backup.sealed() {
            worker.broker.commit(collector, *committed);
        }
        let result = json!({
            "files": backup.files().len().saturating_add(1),
            "bytes": backup.bytes(),
            "missing": backup.missing(),
        });
        // Before anything leaves: a copy that was begun may have been kept.
        worker.audit(actor(caller), "data-backup", result.clone()).await;
        let (sound, told) = (backup.missing().is_empty(), answers.clone());
        let sent =
            tokio::task::spawn_blocking(move || send(&backup, &told)).await.map_err(|error| internal(&error))?;
        if sent.map_err(|error| internal(&error))? {
            say(answers, Answer::Data(shown(&result, sound)?)).await;
        }
        Ok(())
    }
}

pub(super) fn actor(caller: &Caller) -> String {
    format!("operator:{}", platform::user_name(caller.peer.uid))
}

pub(super) fn shown(document: &Value, sound: bool) -> Result<DataShown, Fault> {
    let json = serde_json::to_string(document).map_err(|error| internal(&error))?;
    Ok(DataShown { json, sound })
}

fn alone(whole_store: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    let busy = "a backup, an export, a check or a vacuum is running: ask again when it has ended";
    Arc::clone(whole_store).try_acquire_owned().map_err(|_| Fault::new(FaultKind::ResourceExhausted, busy))
}

/// Every file in parts, the manifest last, so that a copy without one is known to be cut. False: the caller has left.
fn send(backup: &Backup, answers: &Answers) -> Result<bool, StoreError> {
    let total = backup.bytes();
    if !tell(answers, Answer::Progress(Progress { done: 0, total })) {
        return Ok(false);
    }
    for file in backup.files() {
        if !send_file(file, answers)? {
            return Ok(false);
        }
    }
    let bytes = backup.manifest().as_bytes().to_vec();
    let blake3 = blake3::hash(&bytes).as_bytes().to_vec();
    Ok(tell(answers, Answer::FilePart(FilePart { path: MANIFEST_PATH.to_owned(), bytes, last: true, blake3 })))
}

fn send_file(file: &BackupFile, answers: &Answers) -> Result<bool, StoreError> {
    let mut source = file.open()?;
    loop {
        let mut bytes = Vec::with_capacity(PART_BYTES);
        let limit = u64::try_from(PART_BYTES).unwrap_or(u64::MAX);
        let read = source.by_ref().take(limit).read_to_end(&mut bytes);
        read.map_err(|error| file.unreadable(error))?;
        let last = bytes.len() < PART_BYTES;
        let blake3 = if last { file.hash.to_vec() } else { Vec::new() };
        if !tell(answers, Answer::FilePart(FilePart { path: file.path.clone(), bytes, last, blake3 })) {
            return Ok(false);
        }
        if last {
            return Ok(true);
        }
    }
}

fn tell(answers: &Answers, answer: Answer) -> bool {
    answers.blocking_send(OperatorResponse { answer: Some(answer) }).is_ok()
}
