//! A database that is read from its file and changed in memory only: of a copied data directory, whose files stay as they are,
//! and of one whose disk has no room at the start.
//!
//! It holds the blocks that were written, so it takes no memory for a file of any size that is only read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::file;

/// What is kept of a write, in bytes: redb's page.
const BLOCK: usize = 4_096;
const BLOCK_BYTES: u64 = BLOCK as u64;

#[derive(Debug)]
struct Content {
    /// `None`: there is no file yet.
    file: Option<File>,
    /// As much of the file as was never cut off.
    file_bytes: u64,
    bytes: u64,
    written: BTreeMap<u64, Vec<u8>>,
}

/// The file and what was changed.
#[derive(Debug)]
pub(super) struct Overlay(Mutex<Content>);

impl Overlay {
    /// Over the file at `path`.
    pub(super) fn over(path: &Path) -> io::Result<Self> {
        let file = file::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self(Mutex::new(Content { file: Some(file), file_bytes: bytes, bytes, written: BTreeMap::new() })))
    }

    /// Over nothing.
    pub(super) const fn empty() -> Self {
        Self(Mutex::new(Content { file: None, file_bytes: 0, bytes: 0, written: BTreeMap::new() }))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A block is changed as a whole, so no panic leaves half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// A block as it is now; zeros beyond the end.
    fn block(&mut self, number: u64) -> io::Result<Vec<u8>> {
        if let Some(written) = self.written.get(&number) {
            return Ok(written.clone());
        }
        let start = number.saturating_mul(BLOCK_BYTES);
        let length = usize::try_from(self.file_bytes.saturating_sub(start)).unwrap_or(BLOCK).min(BLOCK);
        let mut block = vec![0; BLOCK];
        if let (Some(file), Some(there)) = (&mut self.file, block.get_mut(..length))
            && length > 0
        {
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(there)?;
        }
        Ok(block)
    }

    /// Calls `visit` with each block that the range touches: its number, where in it and in the range, how many bytes.
    fn each(
        &mut self,
        offset: u64,
        length: usize,
        mut visit: impl FnMut(&mut Self, u64, usize, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset.saturating_add(done as u64);
            let inside = usize::try_from(at % BLOCK_BYTES).unwrap_or_default();
            let bytes = BLOCK.saturating_sub(inside).min(length.saturating_sub(done));
            visit(self, at / BLOCK_BYTES, inside, done..done.saturating_add(bytes))?;
            done = done.saturating_add(bytes);
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut content = self.content();
        if offset.saturating_add(out.len() as u64) > content.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.each(offset, out.len(), |content, number, inside, range| {
            let block = content.block(number)?;
            let from = block.get(inside..inside.saturating_add(range.len()));
            if let (Some(to), Some(from)) = (out.get_mut(range), from) {
                to.copy_from_slice(from);
            }
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.content();
        if bytes < content.bytes {
            // What is cut off is zero when it comes back.
            content.file_bytes = content.file_bytes.min(bytes);
            let (last, inside) = (bytes / BLOCK_BYTES, usize::try_from(bytes % BLOCK_BYTES).unwrap_or_default());
            drop(content.written.split_off(&last.saturating_add(u64::from(inside > 0))));
            if let Some(cut) = content.written.get_mut(&last).and_then(|block| block.get_mut(inside..)) {
                cut.fill(0);
            }
        }
        content.bytes = bytes;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content();
        let end = offset.saturating_add(bytes.len() as u64);
        content.each(offset, bytes.len(), |content, number, inside, range| {
            let mut block = content.block(number)?;
            let to = block.get_mut(inside..inside.saturating_add(range.len()));
            if let (Some(to), Some(from)) = (to, bytes.get(range)) {
                to.copy_from_slice(from);
            }
            content.written.insert(number, block);
            Ok(())
        })?;
        content.bytes = content.bytes.max(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Length(u64),
        Write(u64, Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..40_000_u64).prop_map(Step::Length),
            (0..30_000_u64, 1..9_000_usize, any::<u8>()).prop_map(|(at, bytes, of)| Step::Write(at, vec![of; bytes])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_reads_as_a_changed_file_would_and_the_file_stays(steps in prop::collection::vec(step(), 0..12)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.redb");
            let before: Vec<u8> = (0..20_001_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
            std::fs::write(&path, &before).unwrap();
            let (overlay, model) = (Overlay::over(&path).unwrap(), InMemoryBackend::new());
            model.set_len(before.len() as u64).unwrap();
            model.write(0, &before).unwrap();
            for step in steps {
                for backend in [&overlay as &dyn StorageBackend, &model] {
                    match &step {
                        Step::Length(bytes) => backend.set_len(*bytes).unwrap(),
                        Step::Write(at, bytes) => {
                            let end = at + bytes.len() as u64;
                            backend.set_len(backend.len().unwrap().max(end)).unwrap();
                            backend.write(*at, bytes).unwrap();
                        }
                    }
                }
            }
            let length = model.len().unwrap();
            prop_assert_eq!(overlay.len().unwrap(), length);
            let read = |backend: &dyn StorageBackend| {
                let mut all = vec![0; usize::try_from(length).unwrap()];
                backend.read(0, &mut all).map(|()| all)
            };
            prop_assert_eq!(read(&overlay).unwrap(), read(&model).unwrap());
            prop_assert!(overlay.read(length, &mut [0]).is_err());
            prop_assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }
}
