//! A copied data directory, also one of a killed host: what the database changes stays in memory, the files are untouched.
//!
//! What the agent had not sealed yet lies in the collectors' logs, so these are read too. A directory that has nothing but
//! logs, as a standalone collector writes it, is a store without history.

use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::compute;
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use redb::backends::InMemoryBackend;

use super::backup::MANIFEST_FILE;
use super::disk::RealDisk;
use super::open::STATE_FILE;
use super::overlay::Overlay;
use super::seal::SEGMENTS_DIR;
use super::segment::SegmentFile;
use super::state::State;
use super::tail::{self, WAL_DIR};
use super::{Store, StoreError, StoreOptions, audit, damage, file, strays};

impl Store {
    /// A store of nothing that lies in memory and is gone with it. Of `options`, the directory is only a name.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be made.
    pub fn in_memory(options: StoreOptions) -> Result<Self, StoreError> {
        let state = State::over(InMemoryBackend::new(), &options.dir.join(STATE_FILE))?;
        Self::assemble(options, state, Arc::new(RealDisk), None)
    }

    /// Opens a copied data directory for reading. Every change is refused with [`StoreError::MisuseOffline`].
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when there is neither a readable `state.redb` nor a log, [`StoreError::CorruptDatabase`]
    /// and [`StoreError::CorruptNoState`] as in [`Store::open`], [`StoreError::NewerFormat`] when a newer build wrote it.
    pub fn open_offline(dir: &Path) -> Result<Self, StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::unreadable(dir))?;
        let (path, segments) = (dir.join(STATE_FILE), dir.join(SEGMENTS_DIR));
        strays::refuse_without_state(&path, &segments)?;
        let overlay = match Overlay::over(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tail::has_logs(&dir.join(WAL_DIR)) => {
                Overlay::empty()
            }
            found => found.map_err(StoreError::unreadable(&path))?,
        };
        damage::guarded(&path, || {
            let state = State::over(overlay, &path)?.offline();
            let mut store = Self::assemble(StoreOptions::new(dir), state, Arc::new(RealDisk), None)?;
            store.note_strays(&segments)?;
            store.remember_ends()?;
            store.read_tails()?;
            store.ends_us = store.last_known_us()?;
            Ok(store)
        })
    }

    /// Of a copy: what happened after this, in µs since the Unix epoch, it cannot know. `None`: the store is live, or empty.
    pub(crate) const fn ends_us(&self) -> Option<i64> {
        self.ends_us
    }

    /// The newest row or record, or when the backup was made. Times of events may lie: none is later than now.
    fn last_known_us(&self) -> Result<Option<i64>, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        // A file whose every event lies behind its date was stored while the clock stood far ahead.
        let until = |file: &SegmentFile| if file.first_us > file.dated.us() { file.last_us } else { file.dated.us() };
        let files = held.every_file().map(|file| until(file));
        let times = held.open.batches.iter().filter_map(|batch| batch.column_by_name("time"));
        let times = times.filter_map(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let newest = files.chain(times.filter_map(compute::max)).chain(self.made_us()).max();
        Ok(newest.map(|newest| newest.min(audit::now_us())))
    }

    /// When this backup was made, if it is one.
    fn made_us(&self) -> Option<i64> {
        let manifest = file::open(&self.options.dir.join(MANIFEST_FILE)).ok()?;
        serde_json::from_reader::<_, serde_json::Value>(BufReader::new(manifest)).ok()?.get("created_us")?.as_i64()
    }
}
