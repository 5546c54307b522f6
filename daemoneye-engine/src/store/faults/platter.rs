//! A disk that loses power, fills up and fails: what was not synced is dropped, torn at sectors and reordered, and a sync that
//! fails leaves pages behind that look clean and never reach the disk.
//!
//! Segments are written through to a real directory, because they are read where they lie; the database lives in the model
//! alone until the power comes back. One thread at a time, so that a seed always plays the same run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Database, DatabaseError, StorageBackend};

use crate::store::disk::{Disk, DiskFile};
use crate::store::overlay::Overlay;
use crate::store::state::builder;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// xorshift64*: small, and the same everywhere.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// What goes wrong, and when, in calls from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes.
    Cut(u64),
    /// One call fails.
    Error(u64),
    /// From there on nothing that needs room works.
    Full(u64),
}

/// What a call was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// A segment is begun, written, or synced.
    Create,
    Write,
    Sync,
    /// It gets its name, and the name is made durable.
    Rename,
    SyncDir,
    Remove,
    /// The database is written or synced: a transaction.
    State,
    /// Something is only looked at.
    Look,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Write(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

/// Names as one journal orders them.
#[derive(Debug)]
enum Naming {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl Naming {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Link(path, _) | Self::Rename(_, path) | Self::Unlink(path)) = self;
        path.parent() == Some(dir)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Unlink(path) => drop(names.remove(path)),
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Default)]
struct Content {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    namings: Vec<Naming>,
    fault: Option<Fault>,
    calls: u64,
    is_down: bool,
    /// What the power went at.
    cut_at: Option<Spot>,
}

impl Content {
    fn name(&mut self, change: Naming) {
        change.apply(&mut self.names);
        self.namings.push(change);
    }
}

/// The disk; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Platter(Arc<Mutex<Content>>);

#[derive(Debug)]
struct Handle {
    platter: Platter,
    inode: usize,
    /// The real file behind a segment, and how far it is written.
    real: Option<(File, usize)>,
}

impl Platter {
    /// From now on, `fault` and nothing else.
    pub(super) fn arm(&self, fault: Option<Fault>) {
        let mut content = self.0.lock().unwrap();
        (content.fault, content.calls) = (fault, 0);
    }

    /// Calls since the fault was armed.
    pub(super) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    pub(super) fn is_down(&self) -> bool {
        self.0.lock().unwrap().is_down
    }

    /// What the power went at; `None`: it is there.
    pub(super) fn cut_at(&self) -> Option<Spot> {
        self.0.lock().unwrap().cut_at
    }

    /// One call; `grows` when it needs room.
    fn call(&self, grows: bool, spot: Spot) -> io::Result<MutexGuard<'_, Content>> {
        let mut content = self.0.lock().unwrap();
        let now = content.calls;
        content.calls += 1;
        match content.fault {
            _ if content.is_down => Err(io::Error::other("no power")),
            Some(Fault::Cut(at)) if now >= at => {
                (content.is_down, content.cut_at) = (true, Some(spot));
                Err(io::Error::other("no power"))
            }
            Some(Fault::Error(at)) if now == at => Err(io::Error::other("the disk failed")),
            Some(Fault::Full(at)) if now >= at && grows => Err(ErrorKind::StorageFull.into()),
            _ => Ok(content),
        }
    }

    /// Puts a file on the disk, durably.
    pub(super) fn put(&self, path: &Path, bytes: Vec<u8>) {
        fs::write(path, &bytes).unwrap();
        let mut content = self.0.lock().unwrap();
        content.inodes.push(Inode { cached: bytes.clone(), durable: bytes, pending: Vec::new() });
        let inode = content.inodes.len() - 1;
        content.names.insert(path.to_owned(), inode);
        content.durable_names.insert(path.to_owned(), inode);
    }

    /// The power is back: what is in `dir` is what was durable, and some of the rest.
    pub(super) fn come_back(&self, dir: &Path, dice: &mut Dice) {
        let mut content = self.0.lock().unwrap();
        let namings = std::mem::take(&mut content.namings);
        let kept = usize::try_from(dice.below(namings.len() as u64 + 1)).unwrap();
        let mut names = std::mem::take(&mut content.durable_names);
        namings.iter().take(kept).for_each(|change| change.apply(&mut names));
        fs::remove_dir_all(dir).unwrap();
        fs::create_dir_all(dir.join("segments")).unwrap();
        let mut inodes = Vec::new();
        for (path, inode) in &mut names {
            let durable = survive(&content.inodes[*inode], dice);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &durable).unwrap();
            *inode = inodes.len();
            inodes.push(Inode { cached: durable.clone(), durable, pending: Vec::new() });
        }
        *content = Content { inodes, names: names.clone(), durable_names: names, ..Content::default() };
    }

    /// The same for the database alone; the segments were there before and stay.
    pub(super) fn come_back_in_place(&self, dice: &mut Dice) {
        let mut content = self.0.lock().unwrap();
        for inode in &mut content.inodes {
            let durable = survive(inode, dice);
            *inode = Inode { cached: durable.clone(), durable, pending: Vec::new() };
        }
        (content.is_down, content.fault, content.cut_at) = (false, None, None);
    }

    fn sync(&self, inode: usize, spot: Spot) -> io::Result<()> {
        let failed = match self.call(true, spot) {
            Ok(mut content) => {
                let Inode { durable, pending, .. } = &mut content.inodes[inode];
                pending.drain(..).for_each(|change| change.apply(durable));
                return Ok(());
            }
            Err(error) => error,
        };
        // The kernel tells of a failed write once and takes the pages for clean.
        let mut content = self.0.lock().unwrap();
        if !content.is_down {
            content.inodes[inode].pending.clear();
        }
        Err(failed)
    }
}

fn survive(inode: &Inode, dice: &mut Dice) -> Vec<u8> {
    let mut durable = inode.durable.clone();
    // Mostly some, sometimes nothing or everything.
    let odds = dice.below(5);
    for change in &inode.pending {
        match change {
            Change::Write(at, bytes) => {
                let mut from = 0;
                while from < bytes.len() {
                    let end = (((at + from) / SECTOR_BYTES + 1) * SECTOR_BYTES - at).min(bytes.len());
                    if dice.below(4) < odds {
                        Change::Write(at + from, bytes[from..end].to_vec()).apply(&mut durable);
                    }
                    from = end;
                }
            }
            Change::Length(_) if dice.below(4) < odds => change.apply(&mut durable),
            Change::Length(_) => {}
        }
    }
    durable
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let spot = if self.real.is_some() { Spot::Write } else { Spot::State };
        let mut content = self.platter.call(true, spot)?;
        let inode = &mut content.inodes[self.inode];
        change.apply(&mut inode.cached);
        inode.pending.push(change);
        Ok(())
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.real.as_ref().map_or(0, |(_, at)| *at);
        self.change(Change::Write(at, bytes.to_vec()))?;
        if let Some((file, at)) = &mut self.real {
            file.write_all(bytes)?;
            *at += bytes.len();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Handle {
    fn sync(&self) -> io::Result<()> {
        self.platter.sync(self.inode, Spot::Sync)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.call(false, Spot::Look)?.inodes[self.inode].cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.platter.call(false, Spot::Look)?;
        let (cached, at) = (&content.inodes[self.inode].cached, usize::try_from(offset).unwrap());
        let bytes = cached.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.platter.sync(self.inode, Spot::State)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}

impl Disk for Platter {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut content = self.call(true, Spot::Create)?;
        content.inodes.push(Inode::default());
        let inode = content.inodes.len() - 1;
        content.name(Naming::Link(path.to_owned(), inode));
        Ok(Box::new(Handle { platter: self.clone(), inode, real: Some((File::create(path)?, 0)) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut content = self.call(true, Spot::Rename)?;
        content.name(Naming::Rename(from.to_owned(), to.to_owned()));
        if from.exists() { fs::rename(from, to) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut content = self.call(false, Spot::Remove)?;
        content.name(Naming::Unlink(path.to_owned()));
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut content = self.call(true, Spot::SyncDir)?;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut content.namings).into_iter().partition(|change| change.is_in(dir));
        here.iter().for_each(|change| change.apply(&mut content.durable_names));
        content.namings = elsewhere;
        Ok(())
    }

    fn new_database(&self, path: &Path) -> Result<Database, DatabaseError> {
        if !self.0.lock().unwrap().names.contains_key(path) {
            let mut content = self.call(true, Spot::State).map_err(redb::StorageError::from)?;
            content.inodes.push(Inode::default());
            let inode = content.inodes.len() - 1;
            content.name(Naming::Link(path.to_owned(), inode));
        }
        self.database(path)
    }

    fn database(&self, path: &Path) -> Result<Database, DatabaseError> {
        let known = self.0.lock().unwrap().names.get(path).copied();
        let absent = || redb::StorageError::from(io::Error::from(ErrorKind::NotFound));
        let inode = known.ok_or_else(absent)?;
        builder().create_with_backend(Handle { platter: self.clone(), inode, real: None })
    }

    fn overlay(&self, path: &Path) -> io::Result<Overlay> {
        let (content, overlay) = (self.0.lock().unwrap(), Overlay::empty());
        if let Some(inode) = content.names.get(path) {
            overlay.write(0, &content.inodes[*inode].cached)?;
        }
        Ok(overlay)
    }
}
