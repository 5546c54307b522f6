//! The signed files beside the entries: the newest checkpoint, the log of all of them, and the verifier keys.
//!
//! `checkpoint` is the newest note, replaced through rename before it is appended to `checkpoints.log`, where each note is followed
//! by an empty line. So what a crash may leave at the log's end is a tear of the note in `checkpoint`, and nothing else.

mod behind;

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Take};
use std::path::{Path, PathBuf};

pub use self::behind::notes_behind;
use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::{MAX_NOTE_BYTES, NoteError};
use crate::segment::{SegmentError, open_regular, read_regular};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The log's end that is read, in bytes: the newest note, a tear of it and the note before, of 300 bytes each, many times over.
const LOG_END_BYTES: u64 = 16 * 1024;
/// What is read of the newest note and of the file of keys: ten thousand rotations.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// What begins the signatures of a note.
const SIGNED: &[u8] = "\n\n\u{2014} ".as_bytes();

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
    Ok(read_regular(path, MAX_TEXT_BYTES)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
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

/// The newest checkpoint that a ledger keeps, and where the log of all of them ends. Reads the same few kilobytes however long the
/// log is: the writer does this at each start, within a bound of its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredCheckpoints {
    /// The newest one.
    pub newest: Option<StoredCheckpoint>,
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
    /// Reads the newest checkpoint and the log's end. Nothing is verified but that they fit together.
    ///
    /// # Errors
    /// [`NotesError`].
    pub fn read(dir: &Path) -> Result<Self, NotesError> {
        let (checkpoint, log) = (checkpoint_file(dir), checkpoints_log(dir));
        let (begin, bytes) = read_end(&log, LOG_END_BYTES)?;
        let corrupt = |file: PathBuf, offset, what| NotesError::Corrupt { file, offset, what };
        let nothing = || CheckpointError::Note(NoteError::CorruptNote);
        let Some(newest) = read_text(&checkpoint)? else {
            return if bytes.is_empty() { Ok(Self::default()) } else { Err(corrupt(checkpoint, 0, nothing())) };
        };
        let said = Checkpoint::dangerous_unverified(&newest).map_err(|what| corrupt(checkpoint.clone(), 0, what))?;
        let whole = WholeNotes::of(&bytes, begin == 0).ok_or_else(|| corrupt(log.clone(), begin, nothing()))?;
        let log_end = begin + whole.end as u64;
        let unlogged = whole.last.as_ref().is_none_or(|(note, _)| *note != newest);
        if unlogged && whole.last.is_some_and(|(_, last)| last.size >= said.size) {
            return Err(corrupt(checkpoint, 0, CheckpointError::CorruptText));
        }
        let tail = bytes.get(whole.end..).unwrap_or_default();
        let torn = unlogged && is_tear(tail, newest.as_bytes(), log_end);
        if !torn && !tail.is_empty() {
            return Err(corrupt(log, log_end, nothing()));
        }
        Ok(Self { newest: Some(StoredCheckpoint { offset: 0, note: newest, checkpoint: said }), log_end, unlogged })
    }
}

/// The log's last bytes and where they begin.
fn read_end(log: &Path, most: u64) -> Result<(u64, Vec<u8>), SegmentError> {
    let failed = |error| SegmentError::io("read", log, error);
    let mut file = match open_regular(log) {
        Err(SegmentError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok((0, Vec::new())),
        opened => opened?,
    };
    let begin = file.metadata().map_err(failed)?.len().saturating_sub(most);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))
        .and_then(|_| file.take(most.saturating_mul(2)).read_to_end(&mut bytes))
        .map_err(failed)?;
    Ok((begin, bytes))
}

/// The whole notes at the end of a log.
struct WholeNotes {
    end: usize,
    last: Option<(String, Checkpoint)>,
}

impl WholeNotes {
    /// `None`: there is no place at which a note begins.
    fn of(bytes: &[u8], from_the_first: bool) -> Option<Self> {
        let mut end = if from_the_first { 0 } else { first_begin(bytes)? };
        let mut last: Option<(String, Checkpoint)> = None;
        // A tear may lie inside a character.
        let text = bytes.get(end..)?.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let mut rest = text;
        while let Some((note, behind)) = next_note(rest) {
            let Ok(checkpoint) = Checkpoint::dangerous_unverified(note) else { break };
            if last.as_ref().is_some_and(|(_, last)| last.size >= checkpoint.size) {
                break;
            }
            last = Some((note.to_owned(), checkpoint));
            rest = behind;
        }
        end += text.len() - rest.len();
        Some(Self { end, last })
    }
}

/// Behind the first empty line that follows a signature.
fn first_begin(bytes: &[u8]) -> Option<usize> {
    let signature = bytes.windows(SIGNED.len()).position(|window| window == SIGNED)? + SIGNED.len();
    let end = bytes.get(signature..)?.windows(2).position(|window| window == b"\n\n")?;
    Some(signature + end + 2)
}

/// The notes of a log one after the other, and the newest one behind them: a note's memory, however many there are.
#[derive(Debug)]
pub struct CheckpointWalk {
    log: PathBuf,
    checkpoint: PathBuf,
    reader: Option<BufReader<Take<File>>>,
    offset: u64,
    size: Option<u64>,
    unlogged: Option<StoredCheckpoint>,
}

impl CheckpointWalk {
    /// Those that were there when `stored` was read.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn begin(dir: &Path, stored: StoredCheckpoints) -> Result<Self, NotesError> {
        let (log, checkpoint) = (checkpoints_log(dir), checkpoint_file(dir));
        let reader = match stored.log_end {
            0 => None,
            end => {
                let file = open_regular(&log)?;
                Some(BufReader::new(file.take(end)))
            }
        };
        let unlogged = stored.newest.filter(|_| stored.unlogged);
        Ok(Self { log, checkpoint, reader, offset: 0, size: None, unlogged })
    }

    /// The next one and the file that it is in.
    ///
    /// # Errors
    /// [`NotesError`]: it is none, or not over more entries than the one before.
    pub fn advance(&mut self) -> Result<Option<(PathBuf, StoredCheckpoint)>, NotesError> {
        let offset = self.offset;
        let (file, stored) = match self.next_logged()? {
            Some(note) => {
                let corrupt = |what| NotesError::Corrupt { file: self.log.clone(), offset, what };
                let checkpoint = Checkpoint::dangerous_unverified(&note).map_err(corrupt)?;
                (self.log.clone(), StoredCheckpoint { offset, note, checkpoint })
            }
            None => match self.unlogged.take() {
                Some(newest) => (self.checkpoint.clone(), newest),
                None => return Ok(None),
            },
        };
        if self.size.is_some_and(|size| size >= stored.checkpoint.size) {
            return Err(NotesError::Corrupt { file, offset: stored.offset, what: CheckpointError::CorruptText });
        }
        self.size = Some(stored.checkpoint.size);
        Ok(Some((file, stored)))
    }

    fn next_logged(&mut self) -> Result<Option<String>, NotesError> {
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        let mut bytes = Vec::new();
        // Text, an empty line, signatures, an empty line.
        for _ in 0..2 {
            loop {
                let room = (MAX_NOTE_BYTES as u64).saturating_sub(bytes.len() as u64);
                let read = reader.by_ref().take(room).read_until(b'\n', &mut bytes);
                match read.map_err(|error| SegmentError::io("read", &self.log, error))? {
                    0 | 1 => break,
                    _ => {}
                }
            }
        }
        if bytes.is_empty() {
            self.reader = None;
            return Ok(None);
        }
        let note = bytes.strip_suffix(b"\n\n").and_then(|_| bytes.split_last()).map(|(_, note)| note.to_vec());
        let note = note.and_then(|note| String::from_utf8(note).ok());
        let what = CheckpointError::Note(NoteError::CorruptNote);
        let corrupt = NotesError::Corrupt { file: self.log.clone(), offset: self.offset, what };
        self.offset += bytes.len() as u64;
        note.ok_or(corrupt).map(Some)
    }
}

/// The note at the front: text, empty line, signatures, empty line.
fn next_note(log: &str) -> Option<(&str, &str)> {
    let text = log.find("\n\n")? + 2;
    let end = text + log.get(text..)?.find("\n\n")? + 1;
    Some((log.get(..end)?, log.get(end + 1..)?))
}

/// Whether a power failure may leave this of a note that was written at `offset`: sectors of it, zeros in place of others.
fn is_tear(found: &[u8], note: &[u8], offset: u64) -> bool {
    let offset = usize::try_from(offset % SECTOR_BYTES as u64).unwrap_or(0);
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
        let mut walk = CheckpointWalk::begin(dir, StoredCheckpoints::read(dir).ok()?).ok()?;
        let mut sizes = Vec::new();
        while let Some((_, stored)) = walk.advance().ok()? {
            sizes.push(stored.checkpoint.size);
        }
        Some(sizes)
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

    #[test]
    fn a_long_log_is_walked_note_by_note_and_of_its_end_a_tear_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let whole: String = (1..=400).map(|size| format!("{}\n", note(size))).collect();
        let newest = note(401);
        std::fs::write(checkpoint_file(dir.path()), &newest).unwrap();
        assert!(whole.len() as u64 > 3 * LOG_END_BYTES);
        for torn in 0..=newest.len() {
            std::fs::write(
                checkpoints_log(dir.path()),
                format!("{whole}{newest}").as_bytes().split_at(whole.len() + torn).0,
            )
            .unwrap();
            let found = StoredCheckpoints::read(dir.path()).unwrap();
            assert_eq!((found.log_end, found.unlogged), (whole.len() as u64, true), "{torn}");
        }
        assert_eq!(sizes(dir.path()), Some((1..=401).collect()));
        std::fs::write(checkpoints_log(dir.path()), format!("{whole}{newest}\n")).unwrap();
        assert!(!StoredCheckpoints::read(dir.path()).unwrap().unlogged);
        assert_eq!(sizes(dir.path()), Some((1..=401).collect()));
        let changed = whole.replacen("\n7\n", "\n5\n", 1);
        std::fs::write(checkpoints_log(dir.path()), format!("{changed}{newest}\n")).unwrap();
        assert!(StoredCheckpoints::read(dir.path()).is_ok(), "the writer reads the end only");
        assert_eq!(sizes(dir.path()), None, "whoever verifies reads all of it");
    }
}
