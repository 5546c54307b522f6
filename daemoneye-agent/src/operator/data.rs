//! What operators ask about the stored data as a whole: how much there is, whether it is sound, a copy of it, rows of it.
//!
//! Requests that read or write all of it run one at a time and until they are done; they end when the caller leaves or does not
//! take what they give.

mod export;
pub(super) mod reader;
mod vacuum;

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_engine::store::{Backup, BackupFile, Store, StoreError};
use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{DataShown, Fault, FaultKind, FilePart, Progress, operator_response::Answer};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::reader::{Ended, hand_over, show, stopped};
use super::{Answers, Operators, failed, internal, say};
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
        let alone = alone(&self.whole_store)?;
        let told = answers.clone();
        let found = self.blocking(move |store| {
            store.fsck(&mut |done, total| !cancel.is_cancelled() && show(&told, Progress { done, total }))
        });
        let found = found.await?;
        drop(alone);
        say(answers, Answer::Data(shown(&json!(found), found.is_sound())?)).await;
        Ok(())
    }

    pub(super) async fn data_backup(&self, caller: &Caller, answers: &Answers) -> Result<(), Fault> {
        let worker = self.live_only("data backup (copy the directory itself: nothing changes it)")?;
        let alone = alone(&self.whole_store)?;
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
        let (sound, out) = (backup.missing().is_empty(), Out { answers: answers.clone(), wait: self.reader_wait });
        let sent = tokio::task::spawn_blocking(move || send(&backup, &out)).await.map_err(|error| internal(&error))?;
        drop(alone);
        match sent {
            Ok(()) => drop(say(answers, Answer::Data(shown(&result, sound)?)).await),
            Err(Cut::Ended(Ended::Left)) => {}
            Err(Cut::Ended(Ended::Stopped)) => return Err(stopped("backup", self.reader_wait)),
            Err(Cut::Unread(error)) => return Err(failed(&error)),
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

pub(super) fn alone(whole_store: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    let busy = "a backup, an export, a check, a comparison or a vacuum is running: ask again when it has ended";
    Arc::clone(whole_store).try_acquire_owned().map_err(|_| Fault::new(FaultKind::ResourceExhausted, busy))
}

/// Why a copy did not leave to its end.
#[derive(Debug)]
enum Cut {
    Ended(Ended),
    Unread(StoreError),
}

/// The way out of a thread that may wait.
struct Out {
    answers: Answers,
    wait: Duration,
}

impl Out {
    fn part(&self, part: FilePart) -> Result<(), Cut> {
        Handle::current().block_on(hand_over(&self.answers, Answer::FilePart(part), self.wait)).map_err(Cut::Ended)
    }
}

/// Every file in parts, the manifest last, so that a copy without one is known to be cut.
fn send(backup: &Backup, out: &Out) -> Result<(), Cut> {
    show(&out.answers, Progress { done: 0, total: backup.bytes() });
    backup.files().iter().try_for_each(|file| send_file(file, out))?;
    let bytes = backup.manifest().as_bytes().to_vec();
    let blake3 = blake3::hash(&bytes).as_bytes().to_vec();
    out.part(FilePart { path: MANIFEST_PATH.to_owned(), bytes, last: true, blake3 })
}

fn send_file(file: &BackupFile, out: &Out) -> Result<(), Cut> {
    let mut source = file.open().map_err(Cut::Unread)?;
    loop {
        let mut bytes = Vec::with_capacity(PART_BYTES);
        let limit = u64::try_from(PART_BYTES).unwrap_or(u64::MAX);
        let read = source.by_ref().take(limit).read_to_end(&mut bytes);
        read.map_err(|error| Cut::Unread(file.unreadable(error)))?;
        let last = bytes.len() < PART_BYTES;
        let blake3 = if last { file.hash.to_vec() } else { Vec::new() };
        out.part(FilePart { path: file.path.clone(), bytes, last, blake3 })?;
        if last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
