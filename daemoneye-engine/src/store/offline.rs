//! A copied data directory, also one of a killed host: the database works on a copy in memory, the files stay untouched.

use std::fs;
use std::path::Path;

use redb::StorageBackend as _;
use redb::backends::InMemoryBackend;

use super::open::STATE_FILE;
use super::state::State;
use super::{Store, StoreError, StoreOptions};

impl Store {
    /// Opens a copied data directory for reading. Every change is refused with [`StoreError::MisuseOffline`].
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when there is no readable `state.redb`, [`StoreError::NewerFormat`] when a newer build
    /// wrote it.
    pub fn open_offline(dir: &Path) -> Result<Self, StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::unreadable(dir))?;
        let path = dir.join(STATE_FILE);
        let bytes = fs::read(&path).map_err(StoreError::unreadable(&path))?;
        let backend = InMemoryBackend::new();
        let filled = backend.set_len(bytes.len() as u64).and_then(|()| backend.write(0, &bytes));
        filled.map_err(StoreError::io("copy", &path))?;
        drop(bytes);
        let state = State::over(backend, &path)?.offline();
        Self::assemble(StoreOptions::new(dir), state, None)
    }
}
