//! Opening a data directory: one agent at a time, nothing guessed, no history begun beside one that is there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use redb::{ReadTransaction, ReadableTable as _};

use super::clock::Clock;
use super::compact::Compaction;
use super::disk::{Disk, RealDisk};
use super::held::Held;
use super::history::HistoryTable;
use super::live::Live;
use super::seal::SEGMENTS_DIR;
use super::segment::{SegmentFile, SegmentRow};
use super::state::{SEGMENTS, State};
use super::value::Record as _;
use super::{Store, StoreError, StoreOptions, damage, lifetimes, strays};

/// The transactional part, in the data directory.
pub(super) const STATE_FILE: &str = "state.redb";
/// Held for as long as the agent runs; its content names the process.
const LOCK_FILE: &str = "agent.lock";
/// A process id fits; anything longer is not ours.
const HOLDER_BYTES: u64 = 32;

impl Store {
    /// Opens the data directory, creating it when it is not there. On a disk without room it is opened all the same: what is
    /// stored can be read, nothing can be written, and [`Store::recover`] succeeds once there is room.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another agent holds it, [`StoreError::NewerFormat`] when a newer build wrote it,
    /// [`StoreError::CorruptDatabase`] when `state.redb` is damaged, [`StoreError::CorruptNoState`] when it is lost and its
    /// segments are there, [`StoreError::Unreadable`] when the directory cannot be read or written.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(RealDisk), options)
    }

    pub(super) fn open_on(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = std::path::absolute(&options.dir).map_err(StoreError::unreadable(&options.dir))?;
        let options = StoreOptions { dir, ..options };
        let segments = options.dir.join(SEGMENTS_DIR);
        fs::create_dir_all(&options.dir).map_err(StoreError::unreadable(&options.dir))?;
        let lock = lock(&options.dir)?;
        let path = options.dir.join(STATE_FILE);
        strays::refuse_without_state(&path, &segments)?;
        let begins = strays::is_without_state(&path);
        let state = match damage::guarded(&path, || ready(disk.as_ref(), &options.dir, begins)) {
            Err(error) if error.is_full() => damage::guarded(&path, || State::aside(disk.as_ref(), &path))?,
            opened => opened?,
        };
        damage::guarded(&path, || {
            let mut store = Self::assemble(options, state, disk, Some(lock))?;
            let settled = if store.state.is_in_doubt() { Ok(()) } else { store.settle_start() };
            match settled {
                // It is in doubt already where writing failed; elsewhere nothing has happened yet.
                Err(error) if error.is_full() => store.state.doubt_all(),
                other => other?,
            }
            store.unsettled.store(store.state.is_in_doubt(), Ordering::SeqCst);
            store.begins = begins;
            store.remember_ends()?;
            Ok(store)
        })
    }

    /// What a start does with what the last agent left.
    pub(super) fn settle_start(&self) -> Result<(), StoreError> {
        self.tidy(&self.options.dir.join(SEGMENTS_DIR))?;
        self.tell_damage()
    }

    /// Whether it waits for room since it was opened.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::SeqCst)
    }

    /// So that nobody who ended before this start ends or lives again.
    pub(super) fn remember_ends(&self) -> Result<(), StoreError> {
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let ends = lifetimes::recent(&held.segments);
        held.live.remember(ends);
        Ok(())
    }

    pub(super) fn assemble(
        options: StoreOptions,
        state: State,
        disk: Arc<dyn Disk>,
        lock: Option<File>,
    ) -> Result<Self, StoreError> {
        state.walk()?;
        let committed = state.watermarks()?;
        let seen = committed.iter().map(|(collector, at)| (collector.clone(), *at)).collect();
        let live = Live::load(&state)?;
        let segments = registered(&state.read()?, &options.dir.join(SEGMENTS_DIR))?;
        let clock = if state.is_offline() { Clock::default() } else { Clock::load(&state)? };
        let mut held = Held { committed, seen, live, ..Held::default() };
        held.segments = segments.into_iter().map(Arc::new).collect();
        let bad: Vec<(u64, String)> =
            held.segments.iter().filter_map(|file| file.look().err().map(|what| (file.id, what))).collect();
        for (id, what) in bad {
            held.set_aside(id, what);
        }
        let store = Self {
            ledger: Mutex::new(options.ledger.clone()),
            options,
            state,
            disk,
            held: RwLock::new(held),
            sealing: Mutex::new(()),
            compaction: Compaction::default(),
            clock,
            folded: Mutex::default(),
            unsettled: AtomicBool::new(false),
            begins: false,
            ends_us: None,
            _lock: lock,
        };
        store.remember_damage()?;
        Ok(store)
    }
}

/// The database of the data directory `dir`, made when it is not there and `begins` allows it.
pub(super) fn ready(disk: &dyn Disk, dir: &Path, begins: bool) -> Result<State, StoreError> {
    let (path, segments) = (dir.join(STATE_FILE), dir.join(SEGMENTS_DIR));
    fs::create_dir_all(&segments).map_err(StoreError::unreadable(&segments))?;
    if begins && strays::is_without_state(&path) {
        create(disk, &path)?;
    }
    State::open(disk, &path)
}

/// Makes a new database whole under another name first: a power cut in the middle would leave one that is none, and the next
/// start would refuse it as damaged.
fn create(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let new = path.with_extension("redb.new");
    match disk.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::unreadable(&new)(error)),
        _ => {}
    }
    drop(State::create(disk, &new)?);
    disk.rename(&new, path).map_err(StoreError::io("rename", &new))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir).map_err(StoreError::io("sync", dir))
}

pub(super) fn registered(transaction: &ReadTransaction, dir: &Path) -> Result<Vec<SegmentFile>, StoreError> {
    let mut files = Vec::new();
    for entry in transaction.open_table(SEGMENTS)?.iter()? {
        let (at, row) = entry?;
        let (table, _, id) = at.value();
        let Some(table) = HistoryTable::named(table) else {
            let what = format!("there is no table {table}");
            return Err(StoreError::CorruptState { table: SegmentRow::NAME.to_owned(), what });
        };
        files.push(SegmentFile::of(table, row.value().decode()?, id, dir));
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
    match named.map_err(StoreError::io("write", &path)) {
        // The name is for people; the lock holds without it.
        Err(error) if error.is_full() => {}
        other => other?,
    }
    Ok(file)
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(HOLDER_BYTES).read_to_string(&mut text) {
        Ok(_) if text.parse::<u32>().is_ok() => format!("process {text}"),
        _ => "another process".to_owned(),
    }
}
