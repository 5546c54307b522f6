//! How rows of history become a Parquet file: which column is encoded how, and writing that hashes and syncs as it goes.
//!
//! Rows come sorted by time, so that the statistics of row groups and pages cut a range of time out of a file. What has
//! no order worth knowing (identities, hashes, names) gets a Bloom filter instead of statistics.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use daemoneye_lib::columns::SCHEMA_VERSION;
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use datafusion::parquet::schema::types::ColumnPath;

use super::StoreError;
use super::disk::{Disk, DiskFile};
use super::history::HistoryTable;

/// Rows of a row group: what a Bloom filter excludes at once, and what a lookup decodes where one does not exclude it (docs/adr/0013).
const GROUP_ROWS: usize = 65_536;
/// Encoded bytes of a row group, for rows that are larger than usual; bounds the memory of the writer.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Rows of a page: what the page index excludes at once.
const PAGE_ROWS: usize = 16_384;
/// Values that are kept once a row group: two identities of 32 digits for every second row of it.
const DICTIONARY_BYTES: usize = 4 * 1024 * 1024;
/// One answer in a hundred that a row group may hold a value which it does not.
const FALSE_POSITIVES: f64 = 0.01;
/// Written bytes after which they are synced, so that no other file's sync has to wait for all of them at the end.
const SYNC_EVERY_BYTES: u64 = 8 * 1024 * 1024;

/// Columns that are looked up by one value.
const BLOOM: &[&str] = &["entity_id", "executable_hash", "name"];
/// Numbers that grow along the file, or lie close together: differences are smaller than a dictionary. Of 300,000 generated
/// events, `pid` takes 1.6 bytes instead of 2.4; `start_time`, which repeats, would take more.
const GROWING: &[&str] = &["time", "pid", "ppid", "session", "runtime_ms", "namespace_pid", "seq"];
/// Columns that zstd makes much smaller than LZ4, which unpacks four times as fast and costs nothing to begin with: all others have
/// LZ4 (docs/adr/0014).
const DENSE: &[&str] = &["ancestry", "arg_lengths", "start_time", "stop_time"];
/// Random digits, whose only repetition is the length before each: LZ4 finds nothing, and a zstd that looks harder finds pieces of
/// four digits that happen to be alike, which cost more than they save. 32,768 identities: 573 KB with level 1, 600 KB with level 3,
/// which also takes half as long again to unpack.
const RANDOM: &[&str] = &["entity_id", "parent_entity_id"];
const RANDOM_LEVEL: i32 = 1;
/// Columns whose smallest and largest value in a row group say nothing about the rest.
const WITHOUT_ORDER: &[&str] = &[
    "entity_id",
    "parent_entity_id",
    "parent_command_line",
    "ancestry",
    "command_line",
    "arg_lengths",
    "executable_hash",
    "modified_fields",
    "truncated",
];

/// Whether files have the smallest and largest value of this column.
pub(crate) fn has_order(column: &str) -> bool {
    !WITHOUT_ORDER.contains(&column)
}

/// How long a file is meant to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasts {
    /// Until it is merged.
    Hours,
    /// Until retention removes it.
    Months,
}

impl Lasts {
    /// zstd's level: 3 is its own default; against 9 on process events 4 % larger, five times faster. What is soon read and written
    /// once more is packed with less care.
    const fn zstd_level(self) -> i32 {
        match self {
            Self::Hours => 1,
            Self::Months => 3,
        }
    }
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) hash: [u8; 32],
    pub(super) first_us: i64,
    pub(super) last_us: i64,
}

/// A Parquet file that is being written, to the disk or into memory.
pub(super) struct Encoder<W: Sink = Hashing> {
    path: PathBuf,
    writer: ArrowWriter<W>,
    rows: u64,
    times: Option<(i64, i64)>,
}

impl<W: Sink> Encoder<W> {
    /// For about `rows` rows.
    fn into(sink: W, table: HistoryTable, path: &Path, rows: u64, lasts: Lasts) -> Result<Self, StoreError> {
        let properties = properties(table, rows, lasts).map_err(|error| failed(path, error))?;
        let writer = ArrowWriter::try_new(sink, table.schema(), Some(properties));
        let writer = writer.map_err(|error| failed(path, error))?;
        Ok(Self { path: path.to_owned(), writer, rows: 0, times: None })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let written = self.writer.write(batch);
        written.map_err(|error| refused(&self.path, self.writer.inner_mut(), error))?;
        self.rows = self.rows.saturating_add(batch.num_rows() as u64);
        if let Some((first, last)) = time_range(batch) {
            let (earliest, latest) = self.times.unwrap_or((first, last));
            self.times = Some((earliest.min(first), latest.max(last)));
        }
        Ok(())
    }
}

impl Encoder {
    /// For about `rows` rows.
    pub(super) fn create(
        disk: &dyn Disk,
        table: HistoryTable,
        path: &Path,
        rows: u64,
        lasts: Lasts,
    ) -> Result<Self, StoreError> {
        Self::into(Hashing::create(disk, path)?, table, path, rows, lasts)
    }

    /// Bytes that have left for the file so far; they leave a row group at a time.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.inner().bytes
    }

    /// Completes and syncs the file.
    pub(super) fn finish(self) -> Result<Written, StoreError> {
        let Self { path, mut writer, rows, times } = self;
        // Not `into_inner`, which tells a full disk as a failure of Parquet.
        let finished = writer.finish();
        finished.map_err(|error| refused(&path, writer.inner_mut(), error))?;
        writer.inner().finish(&path, rows, times)
    }
}

impl Encoder<Vec<u8>> {
    /// For a file that will be at `path`, for about `rows` rows.
    pub(super) fn in_memory(table: HistoryTable, path: &Path, rows: u64, lasts: Lasts) -> Result<Self, StoreError> {
        Self::into(Vec::new(), table, path, rows, lasts)
    }

    /// Completes it; nothing is on the disk.
    pub(super) fn encoded(self) -> Result<Encoded, StoreError> {
        let Self { path, writer, rows, times } = self;
        let bytes = writer.into_inner().map_err(|error| failed(&path, error))?;
        Ok(Encoded { path, bytes, rows, times })
    }
}

/// A whole file in memory.
pub(super) struct Encoded {
    path: PathBuf,
    bytes: Vec<u8>,
    rows: u64,
    times: Option<(i64, i64)>,
}

impl Encoded {
    /// Writes and syncs it.
    pub(super) fn write(self, disk: &dyn Disk) -> Result<Written, StoreError> {
        let Self { path, bytes, rows, times } = self;
        let mut sink = Hashing::create(disk, &path)?;
        let written = sink.write_all(&bytes).and_then(|()| sink.flush());
        written.map_err(StoreError::io("write", &path))?;
        sink.finish(&path, rows, times)
    }
}

/// Where an encoder writes to.
pub(super) trait Sink: Write + Send {
    /// What the system said to the last bytes, if it has refused them.
    fn refusal(&mut self) -> Option<io::Error> {
        None
    }
}

impl Sink for Vec<u8> {}

/// Parquet makes a text of what the system said to a Bloom filter, in which a full disk is not told from a fault.
fn refused(path: &Path, sink: &mut impl Sink, error: ParquetError) -> StoreError {
    match sink.refusal() {
        Some(source) => StoreError::Io { action: "write", path: path.to_owned(), source },
        None => failed(path, error),
    }
}

fn failed(path: &Path, error: ParquetError) -> StoreError {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(source) => StoreError::Io { action: "write", path: path.to_owned(), source: *source },
            Err(other) => StoreError::Segment { path: path.to_owned(), source: ParquetError::External(other) },
        },
        source => StoreError::Segment { path: path.to_owned(), source },
    }
}

fn time_range(batch: &RecordBatch) -> Option<(i64, i64)> {
    let times = batch.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    min(times).zip(max(times))
}

fn properties(table: HistoryTable, rows: u64, lasts: Lasts) -> Result<WriterProperties, ParquetError> {
    let version = KeyValue::new("daemoneye.schema_version".to_owned(), SCHEMA_VERSION.to_string());
    let builder = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_dictionary_enabled(true)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by(format!("daemoneye {}", daemoneye_lib::BUILD))
        .set_key_value_metadata(Some(vec![version]));
    let schema = table.schema();
    let columns = schema.fields().iter().map(|column| column.name().as_str());
    let builder = columns.clone().fold(builder, |builder, name| encoded(builder, name, rows));
    let packed = columns.filter_map(|name| Some((name, packing(name, lasts)?)));
    let packed =
        packed.fold(builder, |builder, (name, by)| builder.set_column_compression(ColumnPath::from(name), by));
    Ok(packed.build())
}

/// How this column is packed; `None`: as most are.
fn packing(name: &str, lasts: Lasts) -> Option<Compression> {
    let zstd = |level| ZstdLevel::try_new(level).ok().map(Compression::ZSTD);
    match name {
        name if RANDOM.contains(&name) => zstd(RANDOM_LEVEL),
        name if DENSE.contains(&name) => zstd(lasts.zstd_level()),
        // Differences take as few bits as they need already.
        name if GROWING.contains(&name) => Some(Compression::UNCOMPRESSED),
        _ => None,
    }
}

/// How this column differs from the rest.
fn encoded(builder: WriterPropertiesBuilder, name: &str, rows: u64) -> WriterPropertiesBuilder {
    let path = || ColumnPath::from(name);
    let mut builder = builder;
    if BLOOM.contains(&name) {
        // Sized for nothing but different values, then folded to what is in the row group.
        builder = builder.set_column_bloom_filter_max_ndv(path(), rows.clamp(1, GROUP_ROWS as u64));
        builder = builder.set_column_bloom_filter_fpp(path(), FALSE_POSITIVES);
    }
    if GROWING.contains(&name) {
        builder = builder.set_column_dictionary_enabled(path(), false);
        builder = builder.set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
    }
    if WITHOUT_ORDER.contains(&name) {
        builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::None);
    }
    builder
}

/// Hashes what passes, so that the file need not be read again.
pub(super) struct Hashing {
    file: io::BufWriter<Box<dyn DiskFile>>,
    hasher: blake3::Hasher,
    bytes: u64,
    synced: u64,
    refusal: Option<io::Error>,
}

impl Sink for Hashing {
    fn refusal(&mut self) -> Option<io::Error> {
        self.refusal.take()
    }
}

impl Hashing {
    fn create(disk: &dyn Disk, path: &Path) -> Result<Self, StoreError> {
        let file = disk.create(path).map_err(StoreError::io("create", path))?;
        Ok(Self { file: io::BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0, synced: 0, refusal: None })
    }

    /// Syncs what has been flushed.
    fn finish(&self, path: &Path, rows: u64, times: Option<(i64, i64)>) -> Result<Written, StoreError> {
        self.file.get_ref().sync().map_err(StoreError::io("sync", path))?;
        let (first_us, last_us) = times.unwrap_or_default();
        Ok(Written { rows, bytes: self.bytes, hash: *self.hasher.finalize().as_bytes(), first_us, last_us })
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes.saturating_sub(self.synced) >= SYNC_EVERY_BYTES {
            self.file.flush()?;
            self.file.get_ref().sync()?;
            self.synced = self.bytes;
        }
        Ok(bytes.len())
    }

    /// Keeps what the system said: whoever writes hands it on, or makes a text of it.
    fn keeping<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome {
            let same = error.raw_os_error().map(io::Error::from_raw_os_error);
            self.refusal = Some(same.unwrap_or_else(|| io::Error::new(error.kind(), error.to_string())));
        }
        outcome
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.take(bytes);
        self.keeping(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.keeping(flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Full {
        fn refusal(&mut self) -> Option<io::Error> {
            Some(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn a_full_disk_is_one_whatever_parquet_says_of_it() {
        let told = || ParquetError::General("Could not write bloom filter bit set: no space".to_owned());
        let path = Path::new("segment");
        assert!(refused(path, &mut Full, told()).is_full());
        assert!(!refused(path, &mut Vec::new(), told()).is_full());
    }

    #[test]
    fn columns_that_differ_from_the_rest_are_columns_of_a_table() {
        let tables = [HistoryTable::ProcessEvents, HistoryTable::ProcessLifetimes].map(HistoryTable::schema);
        let is_column = |name: &str| tables.iter().any(|table| table.field_with_name(name).is_ok());
        for name in [BLOOM, DENSE, GROWING, RANDOM, WITHOUT_ORDER].concat() {
            assert!(is_column(name), "{name}");
        }
    }
}
