//! Opening a data directory: one agent at a time, nothing guessed, leftovers of a crash removed.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use redb::ReadableTable as _;

use super::held::Held;
use super::live::Live;
use super::seal::SEGMENTS_DIR;
use super::segment::SegmentFile;
use super::state::{SEGMENTS, State};
use super::{Store, StoreError, StoreOptions};

/// The transactional part, in the data directory.
pub(super) const STATE_FILE: &str = "state.redb";
/// Held for as long as the agent runs; its content names the process.
const LOCK_FILE: &str = "agent.lock";
/// A process id fits; anything longer is not ours.
const HOLDER_BYTES: u64 = 32;

impl Store {
    /// Opens the data directory, creating it when it is not there.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another agent holds it, [`StoreError::NewerFormat`] when a newer build wrote it,
    /// [`StoreError::Unreadable`] when it cannot be read or written.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let dir = std::path::absolute(&options.dir).map_err(StoreError::unreadable(&options.dir))?;
        let options = StoreOptions { dir, ..options };
        let segments = options.dir.join(SEGMENTS_DIR);
        fs::create_dir_all(&segments).map_err(StoreError::unreadable(&segments))?;
        let lock = lock(&options.dir)?;
        let state = State::open(&options.dir.join(STATE_FILE))?;
        let store = Self::assemble(options, state, Some(lock))?;
        store.remove_unregistered(&segments)?;
        Ok(store)
    }

    pub(super) fn assemble(options: StoreOptions, state: State, lock: Option<File>) -> Result<Self, StoreError> {
        let committed = state.watermarks()?;
        let seen = committed.iter().map(|(collector, at)| (collector.clone(), *at)).collect();
        let live = Live::load(&state)?;
        let segments = registered(&state, &options.dir.join(SEGMENTS_DIR))?;
        let mut held = Held { committed, seen, live, ..Held::default() };
        held.segments = segments.into_iter().map(Arc::new).collect();
        let bad: Vec<(u64, String)> =
            held.segments.iter().filter_map(|file| file.look().err().map(|what| (file.id, what))).collect();
        for (id, what) in bad {
            held.set_aside(id, what);
        }
        Ok(Self { options, state, held: RwLock::new(held), sealing: Mutex::new(()), _lock: lock })
    }

    /// What a crash left between rename and transaction is in no watermark: the collector sends those events again.
    fn remove_unregistered(&self, dir: &Path) -> Result<(), StoreError> {
        let known: HashSet<PathBuf> =
            registered(&self.state, dir)?.into_iter().map(|segment: SegmentFile| segment.path).collect();
        for entry in fs::read_dir(dir).map_err(StoreError::unreadable(dir))? {
            let path = entry.map_err(StoreError::unreadable(dir))?.path();
            let ours = path.extension().is_some_and(|end| end == "parquet" || end == "tmp");
            if ours && !known.contains(&path) {
                tracing::info!(path = %path.display(), "removing a segment that was never registered");
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn registered(state: &State, dir: &Path) -> Result<Vec<SegmentFile>, StoreError> {
    let transaction = state.read()?;
    let mut files = Vec::new();
    for entry in transaction.open_table(SEGMENTS)?.iter()? {
        let (at, row) = entry?;
        files.push(SegmentFile::of(row.value().decode()?, at.value().2, dir));
    }
    Ok(files)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(StoreError::unreadable(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { dir: dir.to_owned(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(StoreError::Io { action: "lock", path, source }),
    }
    let named = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    named.map_err(StoreError::io("write", &path))?;
    Ok(file)
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(HOLDER_BYTES).read_to_string(&mut text) {
        Ok(_) if text.parse::<u32>().is_ok() => format!("process {text}"),
        _ => "another process".to_owned(),
    }
}
