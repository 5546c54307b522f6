//! A disk that loses power: what was not synced is dropped, torn at sectors and reordered.
//!
//! Files are written through to a real directory, because readers open them there; beside it the model keeps what the platter
//! holds. Background threads touch the disk only while the test lets them, so that a seed always plays the same run.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use collector_core::{Disk, DiskDir, DiskFile, RealDisk};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
const DEADLINE: Duration = Duration::from_secs(20);

/// xorshift64*: small, and the same everywhere.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(length) => content.resize(*length, 0),
        }
    }
}

enum Naming {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

fn rename_in(names: &mut BTreeMap<PathBuf, usize>, change: &Naming) {
    match change {
        Naming::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
        Naming::Rename(from, to) => {
            let inode = names.remove(from).unwrap();
            names.insert(to.clone(), inode);
        }
        Naming::Unlink(path) => drop(names.remove(path)),
    }
}

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    namings: Vec<Naming>,
    /// Calls until the power goes.
    left: u64,
    down: bool,
    /// Whose turn it is besides the test itself.
    turn: &'static str,
    /// Background threads that wait for their turn.
    waiting: Vec<&'static str>,
    /// The newest segment with records in it, and the newest spare that stands or was refused.
    newest: u64,
    spare: u64,
    refuse: Vec<u64>,
}

pub(crate) struct LossyDisk {
    state: Mutex<State>,
    changed: Condvar,
}

struct LossyFile {
    disk: Arc<LossyDisk>,
    inode: usize,
    path: PathBuf,
    real: Arc<dyn DiskFile>,
}

pub(crate) const SYNCER: &str = "wal-sync";
const SPARE: &str = "segment-spare";

fn thread() -> &'static str {
    match std::thread::current().name() {
        Some(SYNCER) => SYNCER,
        Some(SPARE) => SPARE,
        _ => "",
    }
}

fn dead() -> Error {
    Error::other("no power")
}

/// `procmond-00007.wal.tmp` is 7; what is no segment is 0.
fn number(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    if !name.contains('-') {
        return 0;
    }
    name.split(['-', '.']).find_map(|part| part.parse().ok()).unwrap_or(0)
}

impl LossyDisk {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new() })
    }

    /// One call: waits for the thread's turn, then counts towards the power failure.
    fn call(&self) -> Result<MutexGuard<'_, State>> {
        let me = thread();
        let mut state = self.state.lock().unwrap();
        if !me.is_empty() {
            state.waiting.push(me);
            self.changed.notify_all();
            state = self.changed.wait_while(state, |s| s.turn != me && !s.down).unwrap();
            state.waiting.retain(|other| *other != me);
        }
        if state.down {
            return Err(dead());
        }
        Ok(state)
    }

    /// Behind each call, which may be the last one.
    fn tick(&self, state: &mut State) -> Result<()> {
        state.left = state.left.saturating_sub(1);
        state.down = state.left == 0;
        self.changed.notify_all();
        if state.down { Err(dead()) } else { Ok(()) }
    }

    fn wait(&self, turn: &'static str, condition: impl Fn(&State) -> bool) {
        let mut state = self.state.lock().unwrap();
        state.turn = turn;
        self.changed.notify_all();
        let (mut state, late) =
            self.changed.wait_timeout_while(state, DEADLINE, |s| !s.down && !condition(s)).unwrap();
        assert!(!late.timed_out(), "the log's threads do not come forward");
        state.turn = "";
    }

    /// Lets the spare be made.
    pub(crate) fn make_spare(&self) {
        self.wait(SPARE, |s| s.spare > s.newest);
    }

    /// Returns when the syncing thread stands in front of its next call.
    pub(crate) fn await_syncer(&self) {
        self.wait("", |s| s.waiting.contains(&SYNCER));
    }

    /// Lets the syncing thread work until its note.
    pub(crate) fn sync_round(&self) {
        self.wait(SYNCER, |s| s.turn != SYNCER);
    }

    pub(crate) fn is_down(&self) -> bool {
        self.state.lock().unwrap().down
    }

    /// The program ends here and now; the page cache stays.
    pub(crate) fn kill(&self) {
        self.state.lock().unwrap().down = true;
        self.changed.notify_all();
    }

    /// What is in the directory after the power failure; `keep` keeps everything, as after a crash of the program alone.
    pub(crate) fn come_back(&self, dir: &Path, dice: &mut Dice, keep: bool) {
        let mut state = self.state.lock().unwrap();
        let kept_names = if keep { state.namings.len() as u64 } else { dice.below(state.namings.len() as u64 + 1) };
        let mut names = std::mem::take(&mut state.durable_names);
        // A journal keeps the order of names; contents it does not order.
        for change in state.namings.drain(..).take(usize::try_from(kept_names).unwrap()) {
            rename_in(&mut names, &change);
        }
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        let mut inodes = Vec::new();
        for (path, inode) in &mut names {
            let content = survive(&state.inodes[*inode], dice, keep);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &content).unwrap();
            *inode = inodes.len();
            inodes.push(Inode { durable: content, pending: Vec::new() });
        }
        *state = State { inodes, names: names.clone(), durable_names: names, ..State::default() };
    }

    /// Power for so many calls; spares with these numbers find the disk full.
    pub(crate) fn power(&self, calls: u64, refuse: Vec<u64>) {
        let mut state = self.state.lock().unwrap();
        (state.left, state.refuse, state.down) = (calls, refuse, false);
    }
}

fn survive(inode: &Inode, dice: &mut Dice, keep: bool) -> Vec<u8> {
    let mut content = inode.durable.clone();
    // Mostly some, sometimes nothing or everything.
    let odds = if keep { 4 } else { dice.below(5) };
    for change in &inode.pending {
        match change {
            Change::Write { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let end = ((at + from) / SECTOR_BYTES + 1) * SECTOR_BYTES - at;
                    let sector = &bytes[from..end.min(bytes.len())];
                    if dice.below(4) < odds {
                        Change::Write { at: at + from, bytes: sector.to_vec() }.apply(&mut content);
                    }
                    from = end;
                }
            }
            Change::Truncate(_) if dice.below(4) < odds => change.apply(&mut content),
            Change::Truncate(_) => {}
        }
    }
    content
}

impl DiskFile for LossyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut state = self.disk.call()?;
        let at = usize::try_from(offset).unwrap();
        state.inodes[self.inode].pending.push(Change::Write { at, bytes: bytes.to_vec() });
        self.real.write_at(bytes, offset)?;
        let extension = self.path.extension().unwrap_or_default();
        if offset == 0 && extension != "durable" && thread() != SPARE && bytes.iter().any(|b| *b != 0) {
            state.newest = state.newest.max(number(&self.path));
        }
        if extension == "durable" && thread() == SYNCER {
            state.turn = "";
        }
        self.disk.tick(&mut state)
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.disk.call()?;
        let inode = &mut state.inodes[self.inode];
        for change in std::mem::take(&mut inode.pending) {
            change.apply(&mut inode.durable);
        }
        self.disk.tick(&mut state)
    }

    fn truncate(&self, length: u64) -> Result<()> {
        let mut state = self.disk.call()?;
        state.inodes[self.inode].pending.push(Change::Truncate(usize::try_from(length).unwrap()));
        self.real.truncate(length)?;
        self.disk.tick(&mut state)
    }
}

/// The trait's methods take `&self`; files need the disk itself.
pub(crate) struct Handle(pub(crate) Arc<LossyDisk>);

impl Handle {
    fn naming(&self, state: &mut State, change: Naming) -> Result<()> {
        rename_in(&mut state.names, &change);
        state.namings.push(change);
        self.0.tick(state)
    }
}

impl Disk for Handle {
    fn create(&self, path: &Path, mode: u32) -> Result<Arc<dyn DiskFile>> {
        let mut state = self.0.call()?;
        if thread() == SPARE && state.refuse.contains(&number(path)) {
            state.spare = state.spare.max(number(path));
            self.0.changed.notify_all();
            return Err(Error::from(ErrorKind::StorageFull));
        }
        let real = RealDisk.create(path, mode)?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        self.naming(&mut state, Naming::Link(path.to_owned(), inode))?;
        Ok(Arc::new(LossyFile { disk: Arc::clone(&self.0), inode, path: path.to_owned(), real }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let mut state = self.0.call()?;
        let real = RealDisk.open(path)?;
        let inode = state.names[path];
        self.0.tick(&mut state)?;
        Ok(Arc::new(LossyFile { disk: Arc::clone(&self.0), inode, path: path.to_owned(), real }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.0.call()?;
        RealDisk.rename(from, to)?;
        self.naming(&mut state, Naming::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.0.call()?;
        RealDisk.remove(path)?;
        self.naming(&mut state, Naming::Unlink(path.to_owned()))
    }

    fn open_dir(&self, _dir: &Path) -> Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(Self(Arc::clone(&self.0))))
    }
}

impl DiskDir for Handle {
    fn sync(&self) -> Result<()> {
        let mut state = self.0.call()?;
        for change in std::mem::take(&mut state.namings) {
            rename_in(&mut state.durable_names, &change);
        }
        if thread() == SPARE {
            state.spare = state.names.keys().map(|path| number(path)).max().unwrap_or(0);
        }
        self.0.tick(&mut state)
    }
}
