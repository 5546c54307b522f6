//! The one writer of segment files, for the WAL and the ledger; the format stands in `daemoneye_lib::segment`.
//!
//! An append is one positional write into space that was zero-filled and synced before, so it neither grows a file nor waits for
//! the directory. The next segment is prepared by a thread of its own; when it is late, the segment grows instead of the append
//! waiting.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemoneye_lib::segment::{DurableNote, HEADER_BYTES, Kind, SegmentHeader, SegmentName};

use crate::disk::{Disk, DiskDir, DiskFile};
use crate::error::CollectorError;

/// Zeros written at once while a segment is prepared: large enough to keep the disk busy, small enough for 16 MB of memory.
const ZERO_CHUNK_BYTES: usize = 256 * 1024;
/// How long an end waits for a thread that works on the disk: a busy one takes far less, and a program that does not end is killed.
const END: Duration = Duration::from_secs(3);
/// Pause between two looks whether it has ended.
const END_LOOK: Duration = Duration::from_millis(1);
/// Smallest segment: a header and one small record.
pub(crate) const MIN_SEGMENT_BYTES: u64 = 1024;

/// Where and how a log is written.
#[derive(Clone)]
pub(crate) struct LogOptions {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// `dir`, open.
    pub(crate) directory: Arc<dyn DiskDir>,
    pub(crate) name: SegmentName,
    pub(crate) kind: Kind,
    /// Of the files.
    pub(crate) mode: u32,
    pub(crate) segment_bytes: u64,
}

impl LogOptions {
    pub(crate) fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(self.name.file(segment))
    }

    fn temporary(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{}.tmp", self.name.file(segment)))
    }

    /// Removes what an interrupted preparation left.
    pub(crate) fn clean(&self) -> Result<(), CollectorError> {
        let entries = std::fs::read_dir(&self.dir).map_err(|e| CollectorError::io("list", &self.dir, e))?;
        for entry in entries.flatten() {
            let ours = entry.file_name().to_str().and_then(|f| self.name.number(f.strip_suffix(".tmp")?)).is_some();
            if ours {
                self.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), CollectorError> {
        self.disk.remove(path).map_err(|e| CollectorError::io("remove", path, e))
    }

    /// A zero-filled, synced segment under a temporary name.
    fn prepare(&self, segment: u64) -> std::io::Result<Arc<dyn DiskFile>> {
        let temporary = self.temporary(segment);
        let file = self.disk.create(&temporary, self.mode)?;
        let filled = fill_with_zeros(file.as_ref(), self.segment_bytes).and_then(|()| file.sync());
        if let Err(error) = filled {
            // The room it took is wanted more than the error of giving it back.
            self.disk.remove(&temporary).ok();
            return Err(error);
        }
        Ok(file)
    }

    fn publish(&self, segment: u64) -> std::io::Result<()> {
        self.disk.rename(&self.temporary(segment), &self.path(segment))?;
        self.directory.sync()
    }
}

/// Where the writer notes how far the log is synced.
pub(crate) struct SyncNote {
    file: Arc<dyn DiskFile>,
}

impl SyncNote {
    /// Opens or creates it; without one the newest records are judged by their successors alone.
    pub(crate) fn open(log: &LogOptions) -> Option<Self> {
        let path = DurableNote::path(&log.dir, &log.name);
        let opened = log.disk.open(&path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => log.disk.create(&path, log.mode),
            _ => Err(error),
        });
        let file =
            opened.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "no note of what is synced"));
        Some(Self { file: file.ok()? })
    }

    /// Only after a sync that succeeded. It is not synced itself: that would cost a second one for each.
    pub(crate) fn write(&self, epoch: u64, number: u64) {
        if let Err(error) = self.file.write_at(&DurableNote { epoch, number }.encode(), 0) {
            tracing::debug!(%error, "what is synced cannot be noted");
        }
    }
}

fn fill_with_zeros(file: &dyn DiskFile, bytes: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut at = 0;
    while at < bytes {
        let chunk = usize::try_from(bytes - at).unwrap_or(ZERO_CHUNK_BYTES).min(ZERO_CHUNK_BYTES);
        file.write_at(zeros.get(..chunk).unwrap_or_default(), at)?;
        at += chunk as u64;
    }
    Ok(())
}

enum Spare {
    Idle,
    Wanted(u64),
    Preparing(u64),
    Ready(u64, Arc<dyn DiskFile>),
    Closed,
}

/// Prepares one segment ahead.
struct SpareMaker {
    shared: Arc<(Mutex<Spare>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing inside panics between two writes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SpareMaker {
    fn start(options: LogOptions) -> Result<Self, CollectorError> {
        let shared = Arc::new((Mutex::new(Spare::Idle), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let dir = options.dir.clone();
        let thread = std::thread::Builder::new()
            .name("segment-spare".to_owned())
            .spawn(move || Self::work(&theirs, &options))
            .map_err(|e| CollectorError::io("start the preparing thread for", &dir, e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn work(shared: &(Mutex<Spare>, Condvar), options: &LogOptions) {
        let (slot, changed) = shared;
        let mut state = lock(slot);
        loop {
            match *state {
                Spare::Closed => return,
                Spare::Wanted(segment) => {
                    *state = Spare::Preparing(segment);
                    drop(state);
                    let prepared = options.prepare(segment);
                    state = lock(slot);
                    *state = Self::settle(&state, segment, prepared, options);
                }
                Spare::Idle | Spare::Preparing(_) | Spare::Ready(..) => {
                    state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// What becomes of a prepared file: the writer may have gone on without it meanwhile.
    fn settle(now: &Spare, segment: u64, prepared: std::io::Result<Arc<dyn DiskFile>>, options: &LogOptions) -> Spare {
        let still_wanted = matches!(now, Spare::Preparing(n) if *n == segment);
        match prepared {
            Ok(file) if still_wanted => match options.publish(segment) {
                Ok(()) => return Spare::Ready(segment, file),
                Err(error) => tracing::warn!(%error, segment, "a prepared segment cannot be renamed"),
            },
            Ok(_) => {
                options.disk.remove(&options.temporary(segment)).ok();
            }
            Err(error) => tracing::warn!(%error, segment, "a segment cannot be prepared ahead"),
        }
        match now {
            Spare::Closed => Spare::Closed,
            Spare::Wanted(other) => Spare::Wanted(*other),
            _ => Spare::Idle,
        }
    }

    fn want(&self, segment: u64) {
        let (slot, changed) = &*self.shared;
        let mut state = lock(slot);
        if !matches!(*state, Spare::Closed) {
            *state = Spare::Wanted(segment);
            changed.notify_one();
        }
    }

    fn take(&self, segment: u64) -> Option<Arc<dyn DiskFile>> {
        let mut state = lock(&self.shared.0);
        match std::mem::replace(&mut *state, Spare::Idle) {
            Spare::Ready(number, file) if number == segment => Some(file),
            Spare::Closed => {
                *state = Spare::Closed;
                None
            }
            _ => None,
        }
    }
}

impl Drop for SpareMaker {
    fn drop(&mut self) {
        *lock(&self.shared.0) = Spare::Closed;
        self.shared.1.notify_one();
        // What a thread that is left behind prepares has a temporary name, which the next start removes.
        if let Some(thread) = self.thread.take() {
            join_in_time(thread);
        }
    }
}

/// `false`: the thread hangs, most likely in a call of the disk, and is left behind.
pub(crate) fn join_in_time(thread: JoinHandle<()>) -> bool {
    let began = Instant::now();
    while !thread.is_finished() {
        if began.elapsed() >= END {
            tracing::warn!(thread = thread.thread().name(), "the disk does not answer; the end does not wait for it");
            return false;
        }
        std::thread::park_timeout(END_LOOK);
    }
    thread.join().ok();
    true
}

/// A segment that is full.
pub(crate) struct Closed {
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Appends records to the newest segment and begins the next one.
pub(crate) struct SegmentLog {
    options: LogOptions,
    spares: SpareMaker,
    file: Arc<dyn DiskFile>,
    number: u64,
    epoch: u64,
    offset: u64,
    capacity: u64,
    crc: u32,
    /// Header that goes out with the first record.
    pending: Vec<u8>,
    /// A failed write may have left bytes up to here; the next one covers them.
    dirty_end: u64,
    /// The directory may not know this segment after a power failure.
    unsynced_dir: bool,
    /// Segments that had to grow because the spare was late.
    pub(crate) unprepared: u64,
}

impl SegmentLog {
    /// Begins segment `number`; its header is on disk when this returns, so the epoch cannot be given twice.
    pub(crate) fn begin(
        options: LogOptions,
        number: u64,
        epoch: u64,
        first: u64,
        crc: u32,
    ) -> Result<Self, CollectorError> {
        if options.segment_bytes < MIN_SEGMENT_BYTES {
            let text =
                format!("a segment of {} bytes is too small; at least {MIN_SEGMENT_BYTES}", options.segment_bytes);
            return Err(CollectorError::MisuseOptions(text));
        }
        let path = options.path(number);
        let failed = |e| CollectorError::io("create", &path, e);
        let file = options.prepare(number).map_err(failed)?;
        options.publish(number).map_err(failed)?;
        let header = SegmentHeader { kind: options.kind, previous_crc: crc, epoch, segment: number, first };
        file.write_at(&header.encode(), 0).map_err(failed)?;
        file.sync().map_err(|e| CollectorError::SyncFailed { path: options.path(number), message: e.to_string() })?;
        let spares = SpareMaker::start(options.clone())?;
        spares.want(number + 1);
        let (capacity, offset) = (options.segment_bytes, HEADER_BYTES as u64);
        Ok(Self {
            options,
            spares,
            file,
            number,
            epoch,
            offset,
            capacity,
            crc,
            pending: Vec::new(),
            dirty_end: 0,
            unsynced_dir: false,
            unprepared: 0,
        })
    }

    /// Number of the segment that is written.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Where the next record goes.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Checksum of the last record.
    pub(crate) const fn crc(&self) -> u32 {
        self.crc
    }

    /// Bytes that still fit.
    pub(crate) const fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.offset)
    }

    /// Bytes of records that an empty segment takes.
    pub(crate) const fn largest(&self) -> u64 {
        self.options.segment_bytes - HEADER_BYTES as u64
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// The directory, when it has to be synced as well before a record counts as durable.
    pub(crate) fn take_unsynced_dir(&mut self) -> Option<Arc<dyn DiskDir>> {
        std::mem::replace(&mut self.unsynced_dir, false).then(|| Arc::clone(&self.options.directory))
    }

    /// Returns when everything written to this segment is on disk.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        self.file.sync()?;
        self.take_unsynced_dir().map_or(Ok(()), |directory| directory.sync())
    }

    /// The open directory of its segments.
    pub(crate) fn directory(&self) -> Arc<dyn DiskDir> {
        Arc::clone(&self.options.directory)
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.options.path(self.number)
    }

    /// One write call for a batch of encoded records that fit; on error nothing counts as written.
    pub(crate) fn write(&mut self, records: &[u8], crc: u32) -> Result<(), CollectorError> {
        let start = self.offset - self.pending.len() as u64;
        let end = self.offset + records.len() as u64;
        let covered;
        let bytes = if self.pending.is_empty() && end >= self.dirty_end {
            records
        } else {
            let mut all = self.pending.clone();
            all.extend_from_slice(records);
            let length = usize::try_from(end.max(self.dirty_end) - start).unwrap_or(all.len());
            all.resize(length.max(all.len()), 0);
            covered = all;
            &covered
        };
        if let Err(error) = self.file.write_at(bytes, start) {
            self.dirty_end = self.dirty_end.max(start + bytes.len() as u64);
            return Err(CollectorError::io("write to", &self.path(), error));
        }
        self.pending.clear();
        self.dirty_end = 0;
        self.offset = end;
        self.crc = crc;
        Ok(())
    }

    /// Goes to the next segment; its header is written together with its first record.
    pub(crate) fn rotate(&mut self, first: u64) -> Result<Closed, CollectorError> {
        let number = self.number + 1;
        let file = match self.spares.take(number) {
            Some(file) => file,
            None => {
                self.unprepared += 1;
                let path = self.options.path(number);
                let created = self.options.disk.create(&path, self.options.mode).or_else(|error| match error.kind() {
                    // Prepared and renamed, but the directory's sync failed: it is a spare all the same.
                    std::io::ErrorKind::AlreadyExists => self.options.disk.open(&path),
                    _ => Err(error),
                });
                self.unsynced_dir = true;
                created.map_err(|e| CollectorError::io("create", &path, e))?
            }
        };
        let header = SegmentHeader {
            kind: self.options.kind,
            previous_crc: self.crc,
            epoch: self.epoch,
            segment: number,
            first,
        };
        self.pending = header.encode().to_vec();
        self.number = number;
        self.offset = HEADER_BYTES as u64;
        self.dirty_end = 0;
        self.spares.want(number + 1);
        Ok(Closed { file: std::mem::replace(&mut self.file, file) })
    }
}
