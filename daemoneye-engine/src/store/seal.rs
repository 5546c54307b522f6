//! From the open segment to a registered file.
//!
//! Order: encode into `<name>.parquet.tmp`, sync, rename, sync the directory, then one transaction with the segments, the
//! watermarks, the gaps and the live processes. Before that transaction the files are garbage that the next start removes and
//! the events are still in the collectors' logs; after it they may be trimmed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_lib::columns::SCHEMA_VERSION;
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{AsArray as _, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use redb::WriteTransaction;

use super::dated::Dated;
use super::disk::Disk;
use super::encode::{Encoded, Encoder, Lasts, Sink, Written};
use super::file::Verified;
use super::held::Open;
use super::history::HistoryTable;
use super::live::Changes;
use super::segment::{SegmentFile, SegmentRow, SequenceRange};
use super::state::{META, SEGMENTS, WATERMARKS};
use super::value::Record as _;
use super::{Store, StoreError, coverage, live};

/// Directory of the files, under the data directory.
pub(super) const SEGMENTS_DIR: &str = "segments";
/// Last number given to a segment.
pub(super) const SEGMENT_COUNTER: &str = "last_segment";

/// What a file becomes beside its content.
pub(super) struct Placed {
    pub(super) id: u64,
    pub(super) level: u8,
    pub(super) ranges: Vec<SequenceRange>,
    /// It is dated no later.
    pub(super) stored_us: i64,
}

impl Store {
    /// Seals the open segment and returns the new watermark of every collector in it; empty when there was nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the file or the transaction failed. Nothing is lost: the events stay in the open segment.
    pub fn seal(&self) -> Result<Vec<(String, Sequence)>, StoreError> {
        let _one_at_a_time = self.sealing.lock().map_err(|_| StoreError::LockPoisoned)?;
        self.state.check()?;
        let Some((open, changes)) = self.take_open()? else { return Ok(Vec::new()) };
        match self.register(&open, &changes) {
            Ok(files) => self.sealed(&open, files),
            Err(error) => {
                self.state.doubt(&error);
                let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
                held.live.still_dirty(&changes);
                // In doubt it stays where queries see it until `recover` knows whether it is registered.
                if !self.state.is_in_doubt() {
                    held.sealing = None;
                    held.open.prepend(&open);
                }
                Err(error)
            }
        }
    }

    fn take_open(&self) -> Result<Option<(Arc<Open>, Changes)>, StoreError> {
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        if held.open.is_empty() {
            return Ok(None);
        }
        let open = Arc::new(std::mem::take(&mut held.open));
        held.sealing = Some(Arc::clone(&open));
        let changes = held.live.changes();
        Ok(Some((open, changes)))
    }

    fn sealed(&self, open: &Open, files: Vec<SegmentFile>) -> Result<Vec<(String, Sequence)>, StoreError> {
        let marks: Vec<(String, Sequence)> =
            open.ranges.values().map(|range| (range.collector.clone(), last(range.last))).collect();
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        held.sealing = None;
        held.segments.extend(files.into_iter().map(Arc::new));
        held.committed.extend(marks.iter().cloned());
        Ok(marks)
    }

    fn register(&self, open: &Open, changes: &Changes) -> Result<Vec<SegmentFile>, StoreError> {
        let files = self.write_files(open)?;
        let registered = self.state.write(|transaction| {
            files.iter().try_for_each(|file| insert(transaction, file))?;
            let mut watermarks = transaction.open_table(WATERMARKS)?;
            for range in open.ranges.values() {
                watermarks
                    .insert(range.collector.as_str(), super::state::Position::from(last(range.last)).encode()?)?;
            }
            drop(watermarks);
            let told: Result<Vec<_>, _> =
                open.gaps.iter().map(|gap| coverage::record(transaction, &gap.gap)).collect();
            coverage::tell(transaction, self.options.audit_entries, told?)?;
            live::write(transaction, changes)
        });
        if registered.is_err() {
            files.iter().try_for_each(|file| self.unsettled(&file.path))?;
        }
        registered.map(|()| files)
    }

    /// Removes the file of a transaction that did not happen. When nobody knows whether it did, `recover` or the next start
    /// keeps or removes it.
    pub(super) fn unsettled(&self, path: &Path) -> Result<(), StoreError> {
        if self.state.is_in_doubt() {
            self.held.write().map_err(|_| StoreError::LockPoisoned)?.doubtful.push(path.to_owned());
        } else {
            self.discard(path);
        }
        Ok(())
    }

    /// One file for each table that has rows, numbered one after the other. They are encoded beside each other, which is most of
    /// the time, and written in turn: what a disk sees is always the same.
    fn write_files(&self, open: &Open) -> Result<Vec<SegmentFile>, StoreError> {
        let ended = self.partial("lifetimes");
        std::thread::scope(|scope| {
            let beside = std::thread::Builder::new().name("seal".to_owned());
            let lifetimes = beside
                .spawn_scoped(scope, || {
                    in_memory(HistoryTable::ProcessLifetimes, &ended, &open.lifetimes.to_batches()?)
                })
                .map_err(StoreError::io("start a thread for", &ended))?;
            let events = self.write_events(open);
            let lifetimes = lifetimes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let mut files: Vec<SegmentFile> = events?.into_iter().collect();
            let written = lifetimes.and_then(|encoded| {
                encoded.map(|file| self.write_lifetimes(open, &ended, file, files.len())).transpose()
            });
            files.extend(written.inspect_err(|_| files.iter().for_each(|file| self.discard(&file.path)))?);
            Ok(files)
        })
    }

    fn write_events(&self, open: &Open) -> Result<Option<SegmentFile>, StoreError> {
        if open.batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        let (partial, table) = (self.partial("events"), HistoryTable::ProcessEvents);
        let written = encode(self.disk.as_ref(), table, &partial, &open.batches);
        let ranges = open.ranges.values().cloned().collect();
        self.place(table, &partial, written.inspect_err(|_| self.discard(&partial))?, self.placed(ranges, 0)?)
            .map(Some)
    }

    fn write_lifetimes(
        &self,
        open: &Open,
        partial: &Path,
        file: Encoded,
        before: usize,
    ) -> Result<SegmentFile, StoreError> {
        let written = file.write(self.disk.as_ref()).inspect_err(|_| self.discard(partial))?;
        let placed = self.placed(open.lifetimes.ranges(), before)?;
        self.place(HistoryTable::ProcessLifetimes, partial, written, placed)
    }

    /// The place of a file that is registered together with `before` others.
    fn placed(&self, ranges: Vec<SequenceRange>, before: usize) -> Result<Placed, StoreError> {
        let id = self.last_segment()?.saturating_add(before as u64).saturating_add(1);
        Ok(Placed { id, level: 0, ranges, stored_us: self.believed_us() })
    }

    fn partial(&self, of: &str) -> PathBuf {
        self.options.dir.join(SEGMENTS_DIR).join(format!("seal-{of}.parquet.tmp"))
    }

    /// Gives a written file its number and its name. Nothing refers to it before [`insert`].
    pub(super) fn place(
        &self,
        table: HistoryTable,
        partial: &Path,
        written: Written,
        Placed { id, level, ranges, stored_us }: Placed,
    ) -> Result<SegmentFile, StoreError> {
        let path = self.segment_path(table, written.first_us, id);
        let renamed = self.disk.rename(partial, &path).map_err(StoreError::io("rename", partial));
        renamed.inspect_err(|_| self.discard(partial))?;
        self.sync_segments().inspect_err(|_| self.discard(&path))?;
        let Written { rows, bytes, hash, first_us, last_us } = written;
        Ok(SegmentFile {
            table,
            verified: Verified::written(&path),
            path,
            id,
            level,
            rows,
            bytes,
            first_us,
            last_us,
            ranges,
            hash,
            schema_version: SCHEMA_VERSION,
            dated: Dated::new(last_us, stored_us),
        })
    }

    fn segment_path(&self, table: HistoryTable, first_us: i64, id: u64) -> PathBuf {
        self.options.dir.join(SEGMENTS_DIR).join(format!("{}-{first_us:016}-{id:08}.parquet", table.name()))
    }

    /// A rename or a deletion survives a power cut only once its directory is synced.
    pub(super) fn sync_segments(&self) -> Result<(), StoreError> {
        let dir = self.options.dir.join(SEGMENTS_DIR);
        self.disk.sync_dir(&dir).map_err(StoreError::io("sync", &dir))
    }

    /// Removes a file that nothing refers to; when that fails, the next start does it.
    pub(super) fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an unfinished file stays until the next start");
        }
    }

    /// The last number given to a segment; 0 when none was ever registered.
    pub(super) fn last_segment(&self) -> Result<u64, StoreError> {
        match self.state.read()?.open_table(META)?.get(SEGMENT_COUNTER)? {
            Some(value) => value.value().decode(),
            None => Ok(0),
        }
    }
}

/// Registers a file.
pub(super) fn insert(transaction: &WriteTransaction, file: &SegmentFile) -> Result<(), StoreError> {
    let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let row = SegmentRow {
        file: name,
        level: file.level,
        rows: file.rows,
        bytes: file.bytes,
        first_us: file.first_us,
        last_us: file.last_us,
        ranges: file.ranges.clone(),
        hash: file.hash,
        schema_version: file.schema_version,
        dated_us: file.dated.us(),
    };
    transaction.open_table(SEGMENTS)?.insert((file.table.name(), file.first_us, file.id), row.encode()?)?;
    transaction.open_table(META)?.insert(SEGMENT_COUNTER, file.id.encode()?)?;
    Ok(())
}

const fn last((epoch, number): (u64, u64)) -> Sequence {
    Sequence::new(epoch, number)
}

/// Writes and syncs `path`, its rows by time.
fn encode(disk: &dyn Disk, table: HistoryTable, path: &Path, batches: &[RecordBatch]) -> Result<Written, StoreError> {
    let mut encoder = Encoder::create(disk, table, path, rows(batches), Lasts::Hours)?;
    write_sorted(&mut encoder, batches)?;
    encoder.finish()
}

/// The same without the disk; `None` without rows.
fn in_memory(table: HistoryTable, path: &Path, batches: &[RecordBatch]) -> Result<Option<Encoded>, StoreError> {
    if rows(batches) == 0 {
        return Ok(None);
    }
    let mut encoder = Encoder::in_memory(table, path, rows(batches), Lasts::Hours)?;
    write_sorted(&mut encoder, batches)?;
    encoder.encoded().map(Some)
}

fn rows(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

fn write_sorted<W: Sink>(encoder: &mut Encoder<W>, batches: &[RecordBatch]) -> Result<(), StoreError> {
    if is_sorted(batches) {
        return batches.iter().try_for_each(|batch| encoder.write(batch));
    }
    match batches.first() {
        Some(first) => encoder.write(&by_time(&concat_batches(&first.schema(), batches)?)?),
        None => Ok(()),
    }
}

/// Events of several collectors, and those that a snapshot dates back, arrive out of order.
fn is_sorted(batches: &[RecordBatch]) -> bool {
    let columns = batches.iter().filter_map(|batch| batch.column_by_name("time"));
    let times = columns.filter_map(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    times.flat_map(|array| array.values().iter()).is_sorted()
}

/// The same rows; those of one instant stay as they arrived.
pub(super) fn by_time(batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
    let Some(times) = batch.column_by_name("time") else { return Ok(batch.clone()) };
    let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else { return Ok(batch.clone()) };
    let mut order: Vec<u32> = (0..).take(batch.num_rows()).collect();
    order.sort_by_key(|row| usize::try_from(*row).ok().and_then(|row| times.values().get(row)));
    Ok(take_record_batch(batch, &UInt32Array::from(order))?)
}
