//! A query reads only files whose bytes are those that were registered: a changed byte may decode, and give another answer.
//!
//! A file is hashed before it is first read, and again when it no longer looks as it did then. That is work for a thread of its
//! own: it may take as long as a disk takes for all of history, and few threads read for queries.

use super::super::super::completeness::Lack;
use super::super::super::niceness::lower;
use super::QueryView;
use crate::store::SegmentFile;
use daemoneye_lib::model::Degraded;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Those of `files` that can be read. Of others the answer says why they are missing from it.
pub(super) async fn of(view: &QueryView, files: Vec<Arc<SegmentFile>>) -> Vec<Arc<SegmentFile>> {
    let unknown: Vec<Arc<SegmentFile>> = files.iter().filter(|file| !file.is_verified()).cloned().collect();
    if unknown.is_empty() {
        return files;
    }
    let (told, compared) = oneshot::channel();
    let (store, over) = (Arc::clone(&view.store), view.over());
    let work = move || {
        lower();
        let whole = store.check_files(&unknown, &|| !over());
        let whole = whole.inspect_err(|error| tracing::warn!(%error, "files cannot be set aside"));
        // Nobody waits any more when the query has ended.
        told.send(whole.map(|(whole, _)| whole).unwrap_or_default()).unwrap_or_default();
    };
    let started = std::thread::Builder::new().name("sql-hash".to_owned()).spawn(work);
    let whole = if started.is_ok() { compared.await.unwrap_or_default() } else { Vec::new() };
    let is_over = view.over();
    let readable = |file: &Arc<SegmentFile>| {
        let is_readable = whole.iter().any(|whole| whole.id == file.id) || file.is_verified();
        if is_readable {
            return true;
        }
        if is_over() {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            let what = format!("segment {name} was not compared with its hash in time");
            view.note(Lack::new(Degraded::TimedOut, what).during(file.first_us, file.last_us));
        } else {
            view.note_unreadable(&file.path, file.rows, file.first_us, file.last_us);
        }
        false
    };
    files.into_iter().filter(readable).collect()
}
