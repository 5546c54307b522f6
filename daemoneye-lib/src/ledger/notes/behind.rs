//! The newest notes of a ledger, for whoever hands them on.

use std::path::Path;

use super::{StoredCheckpoint, first_begin, next_note, read_end};
use crate::ledger::checkpoint::Checkpoint;
use crate::segment::SegmentError;

/// The log's end that is looked at, in bytes: some 900 notes, half a day of them on a quiet host.
const END_BYTES: u64 = 256 * 1024;

/// The notes over more than `size` entries that a ledger keeps, oldest first; without a size only the newest. Of more than the log's
/// end has, the newest: each vouches for all before it. One that is still being written comes with the next call.
///
/// # Errors
/// The files cannot be read.
pub fn notes_behind(dir: &Path, size: Option<u64>) -> Result<Vec<StoredCheckpoint>, SegmentError> {
    let (begin, bytes) = read_end(&super::checkpoints_log(dir), END_BYTES)?;
    let from = if begin == 0 { 0 } else { first_begin(&bytes).unwrap_or(bytes.len()) };
    let text = bytes.get(from..).and_then(|bytes| bytes.utf8_chunks().next()).map_or("", |chunk| chunk.valid());
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((note, behind)) = next_note(rest) {
        let offset = begin.saturating_add(from.saturating_add(text.len().saturating_sub(rest.len())) as u64);
        rest = behind;
        let Ok(checkpoint) = Checkpoint::dangerous_unverified(note) else { break };
        found.push(StoredCheckpoint { offset, note: note.to_owned(), checkpoint });
    }
    // A ledger that was begun anew begins with less.
    let newest = found.last().map(|stored| stored.checkpoint.size);
    match size.filter(|size| newest.is_some_and(|newest| newest >= *size)) {
        Some(size) => found.retain(|stored| stored.checkpoint.size > size),
        None => drop(found.drain(..found.len().saturating_sub(1))),
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::note::NoteSigner;

    fn note(size: u64) -> String {
        let origin = "daemoneye/4f/audit";
        let signer = NoteSigner::new(origin, &[1; 32]).unwrap();
        Checkpoint { origin: origin.into(), size, root: [3; 32] }.sign(&signer).unwrap()
    }

    #[test]
    fn all_notes_behind_a_size_are_told_and_of_a_long_log_those_of_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = |size| -> Vec<u64> {
            notes_behind(dir.path(), size).unwrap().iter().map(|stored| stored.checkpoint.size).collect()
        };
        assert_eq!(sizes(None), [0; 0], "there is no log yet");
        let write = |to: u64| {
            let log: String = (1..=to).map(|size| format!("{}\n", note(size))).collect();
            std::fs::write(super::super::checkpoints_log(dir.path()), format!("{log}{}", &note(to + 1)[..40]))
                .unwrap();
        };
        write(9);
        assert_eq!((sizes(None), sizes(Some(6)), sizes(Some(9))), (vec![9], vec![7, 8, 9], vec![]));
        assert_eq!(sizes(Some(50)), [9], "a ledger that was begun anew");
        write(3_000);
        let end = sizes(Some(1));
        assert!(end.len() > 500 && end.last() == Some(&3_000) && end.is_sorted(), "{}", end.len());
    }
}
