//! From the open segment to a registered file.
//!
//! Order: encode into `<name>.parquet.tmp`, sync, rename, sync the directory, then one transaction with the segment, the
//! watermarks, the gaps and the live processes. Before that transaction the file is garbage that the next start removes and
//! the events are still in the collectors' logs; after it they may be trimmed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::columns::SCHEMA_VERSION;
use daemoneye_lib::proto::Sequence;
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use redb::WriteTransaction;

use super::held::Open;
use super::live::Changes;
use super::segment::{PROCESS_EVENTS, SegmentFile, SegmentRow};
use super::state::{META, SEGMENTS, WATERMARKS};
use super::value::Record as _;
use super::{Store, StoreError, coverage, live};
use crate::schema::process_events_schema;

/// zstd's own default; 3 against 9 on process events: 4 % larger, five times faster.
const ZSTD_LEVEL: i32 = 3;
/// Directory of the files, under the data directory.
pub(super) const SEGMENTS_DIR: &str = "segments";
/// Last number given to a segment.
pub(super) const SEGMENT_COUNTER: &str = "last_segment";

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
            Ok(file) => self.sealed(&open, file),
            Err(error) => {
                let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
                held.sealing = None;
                held.open.prepend(&open);
                held.live.still_dirty(&changes);
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

    fn sealed(&self, open: &Open, file: Option<SegmentFile>) -> Result<Vec<(String, Sequence)>, StoreError> {
        let marks: Vec<(String, Sequence)> =
            open.ranges.values().map(|range| (range.collector.clone(), last(range.last))).collect();
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        held.sealing = None;
        held.segments.extend(file.map(Arc::new));
        held.committed.extend(marks.iter().cloned());
        Ok(marks)
    }

    fn register(&self, open: &Open, changes: &Changes) -> Result<Option<SegmentFile>, StoreError> {
        let file = if open.rows == 0 { None } else { Some(self.write_file(open)?) };
        let registered = self.state.write(|transaction| {
            if let Some(file) = &file {
                insert(transaction, file)?;
            }
            let mut watermarks = transaction.open_table(WATERMARKS)?;
            for range in open.ranges.values() {
                watermarks
                    .insert(range.collector.as_str(), super::state::Position::from(last(range.last)).encode()?)?;
            }
            drop(watermarks);
            for gap in &open.gaps {
                coverage::record(transaction, &gap.gap)?;
            }
            live::write(transaction, changes)
        });
        // After a commit that failed nobody knows whether it happened: the file stays, and the next start keeps or removes it.
        if let (Err(_), Some(file), false) = (&registered, &file, self.state.is_in_doubt()) {
            discard(&file.path);
        }
        registered.map(|()| file)
    }

    fn write_file(&self, open: &Open) -> Result<SegmentFile, StoreError> {
        let dir = self.options.dir.join(SEGMENTS_DIR);
        let id = self.next_segment()?;
        let (first_us, last_us) = time_range(&open.batches);
        let path = dir.join(format!("{PROCESS_EVENTS}-{first_us:016}-{id:08}.parquet"));
        let partial = path.with_extension("parquet.tmp");
        let (bytes, hash) = encode(&partial, &open.batches).inspect_err(|_| discard(&partial))?;
        fs::rename(&partial, &path).map_err(StoreError::io("rename", &partial))?;
        sync_dir(&dir)?;
        Ok(SegmentFile {
            path,
            id,
            rows: open.rows as u64,
            bytes,
            first_us,
            last_us,
            ranges: open.ranges.values().cloned().collect(),
            hash,
            schema_version: SCHEMA_VERSION,
        })
    }

    fn next_segment(&self) -> Result<u64, StoreError> {
        Ok(self.last_segment()?.saturating_add(1))
    }

    /// The last number given to a segment; 0 when none was ever registered.
    pub(super) fn last_segment(&self) -> Result<u64, StoreError> {
        match self.state.read()?.open_table(META)?.get(SEGMENT_COUNTER)? {
            Some(value) => value.value().decode(),
            None => Ok(0),
        }
    }
}

fn insert(transaction: &WriteTransaction, file: &SegmentFile) -> Result<(), StoreError> {
    let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let row = SegmentRow {
        file: name,
        level: 0,
        rows: file.rows,
        bytes: file.bytes,
        first_us: file.first_us,
        last_us: file.last_us,
        ranges: file.ranges.clone(),
        hash: file.hash,
        schema_version: file.schema_version,
    };
    transaction.open_table(SEGMENTS)?.insert((PROCESS_EVENTS, file.first_us, file.id), row.encode()?)?;
    transaction.open_table(META)?.insert(SEGMENT_COUNTER, file.id.encode()?)?;
    Ok(())
}

/// Removes a file that nothing refers to; when that fails, the next start does it.
fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a file of a failed seal stays until the next start");
    }
}

const fn last((epoch, number): (u64, u64)) -> Sequence {
    Sequence::new(epoch, number)
}

fn time_range(batches: &[RecordBatch]) -> (i64, i64) {
    let times = || {
        let columns = batches.iter().filter_map(|batch| batch.column_by_name("time"));
        columns.filter_map(|array| array.as_primitive_opt::<TimestampMicrosecondType>())
    };
    let (first, last) = (times().filter_map(min).min(), times().filter_map(max).max());
    (first.unwrap_or_default(), last.unwrap_or_default())
}

fn properties() -> Result<WriterProperties, ParquetError> {
    let version = KeyValue::new("daemoneye.schema_version".to_owned(), SCHEMA_VERSION.to_string());
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(format!("daemoneye {}", daemoneye_lib::BUILD))
        .set_key_value_metadata(Some(vec![version]))
        .build())
}

/// Writes and syncs `path`; returns its length and BLAKE3.
fn encode(path: &Path, batches: &[RecordBatch]) -> Result<(u64, [u8; 32]), StoreError> {
    let failed = |error: ParquetError| match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(source) => StoreError::Io { action: "write", path: path.to_owned(), source: *source },
            Err(other) => StoreError::Segment { path: path.to_owned(), source: ParquetError::External(other) },
        },
        source => StoreError::Segment { path: path.to_owned(), source },
    };
    let file = File::create(path).map_err(StoreError::io("create", path))?;
    let sink = Hashing { file: io::BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0 };
    let mut writer =
        ArrowWriter::try_new(sink, process_events_schema(), Some(properties().map_err(failed)?)).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    let sink = writer.into_inner().map_err(failed)?;
    let (bytes, hash) = (sink.bytes, *sink.hasher.finalize().as_bytes());
    let file = sink.file.into_inner().map_err(|error| StoreError::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(StoreError::io("sync", path))?;
    Ok((bytes, hash))
}

/// A rename survives a power cut only once its directory is synced; only Unix can open one for that.
fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))?;
    }
    Ok(())
}

/// Hashes what passes, so that the file need not be read again.
struct Hashing {
    file: io::BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
