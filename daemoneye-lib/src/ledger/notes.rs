//! The signed files beside the entries: the newest checkpoint, the log of all of them, and the verifier keys.
//!
//! `checkpoint` is the newest note, replaced through rename before it is appended to `checkpoints.log`, where each note is followed
//! by an empty line. So what a crash may leave at the log's end is a tear of the note in `checkpoint`, and nothing else.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::NoteError;
use crate::segment::SegmentError;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Where the newest checkpoint is.
#[must_use]
pub fn checkpoint_file(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// Where all of them are.
#[must_use]
pub fn checkpoints_log(dir: &Path) -> PathBuf {
    dir.join("checkpoints.log")
}

/// Where the verifier keys are, oldest first, a line each.
#[must_use]
pub fn keys_file(dir: &Path) -> PathBuf {
    dir.join("keys")
}

/// The text of a file; `None` when there is none.
///
/// # Errors
/// It cannot be read. Bytes that are no text are replaced, and then verify nowhere.
pub fn read_text(path: &Path) -> Result<Option<String>, SegmentError> {
    Ok(read_bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, SegmentError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SegmentError::io("read", path, error)),
    }
}

/// A checkpoint as it is kept, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Where in its file it begins.
    pub offset: u64,
    /// The whole note.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
}

/// The checkpoints that a ledger keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredCheckpoints {
    /// In order of their sizes, the newest last.
    pub all: Vec<StoredCheckpoint>,
    /// Where the log's whole notes end.
    pub log_end: u64,
    /// The newest one has not reached the log.
    pub unlogged: bool,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    /// A note that is none, or has no place where it stands.
    #[error("{}, byte {offset}: {what}", .file.display())]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        what: CheckpointError,
    },
    /// The files cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl StoredCheckpoints {
    /// Reads both files. Nothing is verified but that the sizes grow.
    ///
    /// # Errors
    /// [`NotesError`].
    pub fn read(dir: &Path) -> Result<Self, NotesError> {
        let newest = read_text(&checkpoint_file(dir))?;
        let bytes = read_bytes(&checkpoints_log(dir))?.unwrap_or_default();
        // A tear may lie inside a character.
        let log = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let corrupt = |file: PathBuf, offset| move |what| NotesError::Corrupt { file, offset, what };
        let mut found = Self::default();
        let mut rest = log;
        while let Some((note, behind)) = next_note(rest) {
            let offset = (log.len() - rest.len()) as u64;
            found.take(note, offset).map_err(corrupt(checkpoints_log(dir), offset))?;
            rest = behind;
        }
        let log_end = log.len() - rest.len();
        found.log_end = log_end as u64;
        let tail = bytes.get(log_end..).unwrap_or_default();
        let nothing = || CheckpointError::Note(NoteError::CorruptNote);
        let Some(newest) = newest else {
            return if bytes.is_empty() { Ok(found) } else { Err(corrupt(checkpoint_file(dir), 0)(nothing())) };
        };
        found.unlogged = found.all.last().is_none_or(|last| last.note != newest);
        if found.unlogged {
            found.take(&newest, 0).map_err(corrupt(checkpoint_file(dir), 0))?;
        }
        let torn = found.unlogged && is_tear(tail, newest.as_bytes(), log_end);
        if tail.is_empty() || torn {
            return Ok(found);
        }
        Err(corrupt(checkpoints_log(dir), found.log_end)(nothing()))
    }

    fn take(&mut self, note: &str, offset: u64) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint::dangerous_unverified(note)?;
        if self.all.last().is_some_and(|last| last.checkpoint.size >= checkpoint.size) {
            return Err(CheckpointError::CorruptText);
        }
        self.all.push(StoredCheckpoint { offset, note: note.to_owned(), checkpoint });
        Ok(())
    }
}

/// The note at the front: text, empty line, signatures, empty line.
fn next_note(log: &str) -> Option<(&str, &str)> {
    let text = log.find("\n\n")? + 2;
    let end = text + log.get(text..)?.find("\n\n")? + 1;
    Some((log.get(..end)?, log.get(end + 1..)?))
}

/// Whether a power failure may leave this of a note that was written at `offset`: sectors of it, zeros in place of others.
fn is_tear(found: &[u8], note: &[u8], offset: usize) -> bool {
    let (mut at, whole) = (0, note.len() + 1);
    while at < found.len() {
        let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(found.len());
        let Some(part) = found.get(at..end) else { return false };
        let written = note.get(at..end.min(note.len())).unwrap_or_default();
        let same =
            part.starts_with(written) && part.get(written.len()..).is_some_and(|rest| matches!(rest, [] | [b'\n']));
        if !same && part.iter().any(|byte| *byte != 0) {
            return false;
        }
        at = end;
    }
    found.len() <= whole
}

#[cfg(test)]
mod tests {
    use super::super::note::NoteSigner;
    use super::*;

    fn note(size: u64) -> String {
        let signer = NoteSigner::new("daemoneye/m/audit", &[1; 32]).unwrap();
        Checkpoint { origin: "daemoneye/m/audit".into(), size, root: [7; 32] }.sign(&signer).unwrap()
    }

    fn sizes(dir: &Path) -> Option<Vec<u64>> {
        let found = StoredCheckpoints::read(dir).ok()?;
        Some(found.all.iter().map(|stored| stored.checkpoint.size).collect())
    }

    #[test]
    fn a_log_is_read_note_by_note_and_the_newest_may_be_torn_or_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sizes(dir.path()), Some(Vec::new()));
        let log = format!("{}\n{}\n", note(3), note(9));
        std::fs::write(checkpoints_log(dir.path()), &log).unwrap();
        assert_eq!(sizes(dir.path()), None, "the newest is gone");
        std::fs::write(checkpoint_file(dir.path()), note(9)).unwrap();
        assert_eq!(sizes(dir.path()), Some(vec![3, 9]));
        std::fs::write(checkpoint_file(dir.path()), note(12)).unwrap();
        for length in 0..note(12).len() {
            let torn = [log.as_bytes(), &note(12).as_bytes()[..length]].concat();
            std::fs::write(checkpoints_log(dir.path()), torn).unwrap();
            assert_eq!(sizes(dir.path()), Some(vec![3, 9, 12]), "{length}");
            let zeros = [log.as_bytes(), &vec![0; length]].concat();
            std::fs::write(checkpoints_log(dir.path()), zeros).unwrap();
            assert_eq!(sizes(dir.path()), Some(vec![3, 9, 12]), "{length} zeros");
        }
        std::fs::write(checkpoints_log(dir.path()), format!("{log}something")).unwrap();
        assert_eq!(sizes(dir.path()), None);
    }

    #[test]
    fn sizes_that_do_not_grow_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(checkpoints_log(dir.path()), format!("{}\n{}\n", note(9), note(9))).unwrap();
        std::fs::write(checkpoint_file(dir.path()), note(9)).unwrap();
        assert_eq!(sizes(dir.path()), None);
    }
}
