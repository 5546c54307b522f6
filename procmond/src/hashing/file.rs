//! One file, from its identity to its hash.

use std::io::{ErrorKind, Read};

use sha2::{Digest, Sha256};

use super::{HashStatus, HashWish};

/// Bytes of one read: large enough that system calls do not count, small enough that the rate is kept evenly.
pub(super) const CHUNK_BYTES: usize = 128 * 1024;

/// Tells one content of one file from the next, as far as the file system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds of the last write.
    pub modified: (i64, u32),
    /// Seconds and nanoseconds of the last change of anything.
    pub changed: (i64, u32),
}

impl FileKey {
    /// Whether both are the same but for the device, of which some file systems show another one than the kernel keeps.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { device: other.device, ..*self } == *other
    }

    /// As [`Self::is_like`], and the mode, the owner or the links may differ.
    pub(super) fn is_written_like(&self, other: &Self) -> bool {
        Self { changed: other.changed, ..*self }.is_like(other)
    }
}

/// A file that was looked at, not opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) key: FileKey,
    pub(super) regular: bool,
}

/// A file that waits for its turn.
pub(super) trait Waiting: Send {
    /// Opens it for reading; may hang.
    fn open(&self) -> Result<Box<dyn Opened>, HashStatus>;

    /// Whether the process that it was asked for runs this very file still.
    fn still_runs(&self) -> bool;
}

/// An open file.
pub(super) trait Opened: Read {
    /// Its identity now.
    fn key(&self) -> Result<FileKey, HashStatus>;
}

/// Where executables come from.
pub(super) trait Source: Send + Sync {
    /// Whether a process still runs what is wished for, as far as the kernel tells it without any file system.
    fn runs(&self, _wish: &HashWish) -> Result<(), HashStatus> {
        Ok(())
    }

    /// Looks at the executable of a process; some file systems do not answer even that.
    fn find(&self, wish: &HashWish) -> Result<Found, HashStatus>;

    /// Takes hold of it, so that it can still be read when the process is gone, and tells its identity as the file system
    /// shows it. With `pinned` false it is only noted down, which costs no descriptor.
    fn hold(&self, key: FileKey, wish: &HashWish, pinned: bool) -> Result<(FileKey, Box<dyn Waiting>), HashStatus>;

    /// Called once by each thread that hashes.
    fn enter(&self) {}
}

/// Reads all of a file; hands back its hash and the identity that it may be remembered under. `pace` is asked before each chunk
/// and may end the work.
///
/// A program may change the mode or the links of its own file as often as it likes, and nothing but the time of change moves.
/// That time cannot be set by hand as that of the last write can, so where it moved the file is read twice and the process has
/// to run it still: the kernel lets nobody write to a file that runs.
pub(super) fn hash(
    waiting: &dyn Waiting,
    wanted: FileKey,
    pace: &mut dyn FnMut(u64) -> Result<(), HashStatus>,
) -> Result<(Option<FileKey>, [u8; 32]), HashStatus> {
    let first = read(waiting, wanted, pace)?;
    if first.before.is_like(&wanted) && first.after == first.before {
        return Ok((Some(first.after), first.hash));
    }
    let second = read(waiting, wanted, pace)?;
    if second.hash != first.hash || !waiting.still_runs() {
        return Err(HashStatus::Changed);
    }
    Ok(((second.after == second.before).then_some(second.after), second.hash))
}

/// One read from the beginning to the end.
struct Whole {
    before: FileKey,
    after: FileKey,
    hash: [u8; 32],
}

fn read(
    waiting: &dyn Waiting,
    wanted: FileKey,
    pace: &mut dyn FnMut(u64) -> Result<(), HashStatus>,
) -> Result<Whole, HashStatus> {
    let mut file = waiting.open()?;
    let before = file.key()?;
    if !before.is_written_like(&wanted) {
        return Err(HashStatus::Changed);
    }
    let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(before.size).unwrap_or(CHUNK_BYTES).max(1))];
    let (mut hasher, mut left) = (Sha256::new(), before.size);
    loop {
        pace(left.min(CHUNK_BYTES as u64))?;
        let read = match file.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_refused) => return Err(HashStatus::Unreadable),
        };
        if read == 0 {
            break;
        }
        left = left.checked_sub(read as u64).ok_or(HashStatus::Changed)?;
        hasher.update(chunk.get(..read).unwrap_or_default());
    }
    let after = file.key()?;
    if left > 0 || !after.is_written_like(&wanted) {
        return Err(HashStatus::Changed);
    }
    Ok(Whole { before, after, hash: hasher.finalize().into() })
}
