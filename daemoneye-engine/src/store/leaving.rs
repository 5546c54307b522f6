//! Files that are not listed any more and still lie on the disk, because a query reads them.
//!
//! The transaction that takes a segment out of the list puts its file on another one, so that after a crash in between
//! nobody takes it for history that was lost from the list. It leaves that one when its deletion is on disk.

use std::io;
use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::segment::SegmentFile;
use super::state::LEAVING;
use super::value::Record;
use super::{Store, StoreError};

/// A file that may go; its name is relative, as in the list of segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeavingRow {
    file: String,
}

impl Record for LeavingRow {
    const NAME: &'static str = "segments_leaving";
}

/// Notes the files of segments that this transaction takes out of the list.
pub(super) fn insert(transaction: &WriteTransaction, files: &[Arc<SegmentFile>]) -> Result<(), StoreError> {
    let mut leaving = transaction.open_table(LEAVING)?;
    for file in files {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        leaving.insert(file.id, LeavingRow { file: name }.encode()?)?;
    }
    Ok(())
}

impl Store {
    /// Deletes what no snapshot holds any more.
    pub(super) fn delete_leaving(&self) -> Result<(), StoreError> {
        // Nobody can get hold of a file that is not listed, so the unread ones are deleted without the lock.
        let unread: Vec<Arc<SegmentFile>> = {
            let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
            held.leaving.extract_if(.., |file| Arc::get_mut(file).is_some()).collect()
        };
        let (gone, left): (Vec<_>, Vec<_>) = unread.into_iter().partition(|file| delete(self.disk.as_ref(), file));
        self.held.write().map_err(|_| StoreError::LockPoisoned)?.leaving.extend(left);
        let gone: Vec<u64> = gone.iter().map(|file| file.id).collect();
        self.forget_leaving(&gone)
    }

    /// The files that are on the list at a start: nobody reads them.
    pub(super) fn leaving(&self) -> Result<Vec<(u64, String)>, StoreError> {
        let transaction = self.state.read()?;
        let mut files = Vec::new();
        for entry in transaction.open_table(LEAVING)?.iter()? {
            let (id, row) = entry?;
            files.push((id.value(), row.value().decode()?.file));
        }
        Ok(files)
    }

    /// Takes deleted files off the list, once their deletion is on disk.
    pub(super) fn forget_leaving(&self, ids: &[u64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.sync_segments()?;
        self.state.write(|transaction| {
            let mut leaving = transaction.open_table(LEAVING)?;
            for id in ids {
                leaving.remove(id)?;
            }
            Ok(())
        })
    }
}

/// Deletes the file; true when it is gone.
fn delete(disk: &dyn Disk, file: &SegmentFile) -> bool {
    match disk.remove(&file.path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(path = %file.path.display(), %error, "cannot delete a segment that is not listed any more");
            false
        }
    }
}
