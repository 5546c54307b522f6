//! BLAKE3 of a file on the disk, read a little at a time. What a hash says of a segment is decided here for everybody: starts,
//! queries, merges, the slow check, `fsck` and backups.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::file::{self, Stamp};
use super::segment::{SegmentFile, is_damage};

/// Read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Read between two looks at whether anybody waits for the hash still: some hundredths of a second.
const LOOK_BYTES: u64 = 4 * 1024 * 1024;
/// What is wrong with a file whose hash is another one.
pub(super) const CHANGED: &str = "its bytes have changed";

/// A file in the middle of being hashed.
#[derive(Debug)]
pub(super) struct Hashing {
    file: File,
    /// Of the file, from before the first byte was read.
    stamp: Stamp,
    hasher: blake3::Hasher,
}

/// What one step of it brought.
#[derive(Debug)]
pub(super) struct Step {
    /// Bytes that it read.
    pub(super) bytes: u64,
    /// The hash, at the end of the file.
    pub(super) hash: Option<[u8; 32]>,
}

impl Hashing {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = file::open(path)?;
        Ok(Self { stamp: Stamp::of(&file.metadata()?), file, hasher: blake3::Hasher::new() })
    }

    /// Reads `bytes` more, or to the end.
    pub(super) fn step(&mut self, bytes: u64) -> io::Result<Step> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut done: u64 = 0;
        while done < bytes {
            let room = usize::try_from(bytes.saturating_sub(done)).unwrap_or(usize::MAX).min(chunk.len());
            match chunk.get_mut(..room).map_or(Ok(0), |room| self.file.read(room))? {
                0 => return Ok(Step { bytes: done, hash: Some(*self.hasher.finalize().as_bytes()) }),
                read => {
                    self.hasher.update(chunk.get(..read).unwrap_or_default());
                    done = done.saturating_add(read as u64);
                }
            }
        }
        Ok(Step { bytes: done, hash: None })
    }

    fn rest(&mut self) -> io::Result<[u8; 32]> {
        loop {
            if let Some(hash) = self.step(u64::MAX)?.hash {
                return Ok(hash);
            }
        }
    }
}

/// The hash of a whole file.
pub(super) fn hash(path: &Path) -> io::Result<[u8; 32]> {
    Hashing::open(path)?.rest()
}

impl SegmentFile {
    /// Whether a file with this hash is the registered one; as long as it looks as it did when it was read, that is believed.
    pub(super) fn judge(&self, hash: &[u8; 32], read: &Hashing) -> Result<(), String> {
        let is_same = hash == &self.hash;
        self.verified.set(is_same.then_some(read.stamp));
        if is_same { Ok(()) } else { Err(CHANGED.to_owned()) }
    }

    /// Whether its bytes were compared, or written by this agent, and nothing has touched it since.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.holds(&self.path)
    }

    /// Reads all of it and compares the hash; an error that says what is wrong with it, or that it cannot be read now.
    pub(super) fn compare(&self) -> io::Result<Result<(), String>> {
        let read = || Hashing::open(&self.path).and_then(|mut hashing| Ok((hashing.rest()?, hashing)));
        match read() {
            Ok((hash, read)) => Ok(self.judge(&hash, &read)),
            Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The same for as long as `going`; `None`: until then it was not read to its end, or it cannot be read now.
    pub(super) fn compare_while(&self, going: &dyn Fn() -> bool) -> Option<Result<(), String>> {
        let judged = || -> io::Result<Option<Result<(), String>>> {
            let mut hashing = Hashing::open(&self.path)?;
            while going() {
                if let Some(hash) = hashing.step(LOOK_BYTES)?.hash {
                    return Ok(Some(self.judge(&hash, &hashing)));
                }
            }
            Ok(None)
        };
        match judged() {
            Ok(judged) => judged,
            Err(error) if is_damage(&error) => Some(Err(error.to_string())),
            Err(_) => None,
        }
    }
}
