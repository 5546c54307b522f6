//! The tracker's checkpoint file: the state, and the last record of the log that it reflects.
//!
//! ```text
//! offset 0  magic "DEYETRK\0"      offset 20 number, u64 (0 with epoch 0: no record yet)
//! offset 8  version, u32            offset 28 length of the state, u64
//! offset 12 epoch, u64              offset 36 BLAKE3 over bytes 0..36 and the state, 32 bytes
//!                                   offset 68 the state (tracker/state.rs)
//! ```
//! Integers are little-endian. The file is written beside its name, synced, renamed, and the directory synced: a crash
//! leaves the old one or the new one, never half of either.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use daemoneye_lib::proto::Sequence;

const MAGIC: &[u8; 8] = b"DEYETRK\0";
const VERSION: u32 = 2;

/// The oldest version that is read: its states have no images, and are otherwise the same.
const OLDEST: u32 = 1;
const HEADER_BYTES: usize = 36;
const HASH_BYTES: usize = 32;

/// Largest file that is read, in bytes: eight times the tracker's own bound.
const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Why a checkpoint cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file is not what was written.
    #[error("the checkpoint {path} is damaged ({what}); the state is rebuilt from the log", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {operation} {path}: {source}; check who owns it and whether the disk has room", path = .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error("the checkpoint {path} has version {version}, this program knows {VERSION}; install the newer program or move the file away", path = .path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// A checkpoint as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last record that the state reflects; `None` when there was none.
    pub last: Option<Sequence>,
    /// For [`crate::tracker::Tracker::import`].
    pub state: Vec<u8>,
}

/// Replaces the checkpoint at `path` by a state that reflects the log up to `last`.
///
/// # Errors
/// [`CheckpointError::Io`]; the old checkpoint still stands then.
pub fn write(path: &Path, last: Option<Sequence>, state: &[u8]) -> Result<(), CheckpointError> {
    let temporary = path.with_extension("checkpoint.tmp");
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { operation, path, source }
    };
    let mut file = collector_core::private_file(&temporary).map_err(failed("create", &temporary))?;
    fill(&mut file, last, state).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("rename", &temporary))?;
    // Where a directory cannot be opened as a file, the platform orders renames itself.
    match path.parent().map(File::open) {
        Some(Ok(directory)) => directory.sync_all().map_err(failed("sync", path)),
        _ => Ok(()),
    }
}

fn fill(file: &mut File, last: Option<Sequence>, state: &[u8]) -> io::Result<()> {
    let mut header = header(last, state.len() as u64);
    let hash = hash(&header, state);
    header.extend_from_slice(hash.as_bytes());
    file.write_all(&header)?;
    file.write_all(state)?;
    file.sync_all()
}

/// Reads the checkpoint at `path`; `None` when there is none.
///
/// # Errors
/// [`CheckpointError`] when it cannot be read or is not whole.
pub fn read(path: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let corrupt = |what| CheckpointError::Corrupt { path: path.to_owned(), what };
    let unreadable = |source| CheckpointError::Io { operation: "read", path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(meta) if meta.len() > FILE_BYTES => return Err(corrupt("it is larger than any checkpoint")),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| corrupt("it ends early"))?;
    let (stored, state) = rest.split_at_checked(HASH_BYTES).ok_or_else(|| corrupt("it ends early"))?;
    if !header.starts_with(MAGIC) {
        return Err(corrupt("it is no checkpoint"));
    }
    let version = number(header, 8..12);
    if !(u64::from(OLDEST)..=u64::from(VERSION)).contains(&version) {
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(CheckpointError::UnsupportedVersion { path: path.to_owned(), version });
    }
    if number(header, 28..36) != state.len() as u64 || hash(header, state).as_bytes() != stored {
        return Err(corrupt("its hash does not fit"));
    }
    let (epoch, number) = (number(header, 12..20), number(header, 20..28));
    let last = (epoch != 0 || number != 0).then(|| Sequence::new(epoch, number));
    Ok(Some(Checkpoint { last, state: state.to_vec() }))
}

fn header(last: Option<Sequence>, state_bytes: u64) -> Vec<u8> {
    let last = last.unwrap_or_default();
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    for field in [last.epoch, last.number, state_bytes] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    header
}

fn hash(header: &[u8], state: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(state);
    hasher.finalize()
}

/// A little-endian number at a place of the header.
fn number(header: &[u8], at: std::ops::Range<usize>) -> u64 {
    header.get(at).unwrap_or_default().iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        super::write(path, checkpoint.last, &checkpoint.state)
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { last: Some(Sequence::new(3, 0x0102_0304_0506)), state: b"state".to_vec() }
    }

    #[test]
    fn what_was_written_is_read_back_and_the_last_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tracker.checkpoint");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &Checkpoint { last: None, state: Vec::new() }).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().last, None);
        write(&path, &checkpoint()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(checkpoint()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tracker.checkpoint");
        write(&path, &checkpoint()).unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(read(&path).is_err(), "cut at {end}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tracker.checkpoint");
        write(&path, &checkpoint()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 3;
        fs::write(&path, bytes).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("version 3"));
    }
}
