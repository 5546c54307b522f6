//! How much is stored, by table, level and column, and what retention takes next.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::parquet::file::reader::{FileReader as _, SerializedFileReader};
use redb::ReadableTable as _;
use serde::Serialize;

use super::seal::SEGMENTS_DIR;
use super::state::SEGMENTS;
use super::{Store, StoreError, damage, file};

/// Segments that an outlook lists.
const NEXT_LISTED: usize = 10;

/// The segments of one table and level.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LevelFigures {
    /// SQL table.
    pub table: String,
    /// 0: as sealed; higher ones are merged.
    pub level: u8,
    /// Files.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes for each row.
    pub bytes_per_row: f64,
    /// Earliest event time, µs since the Unix epoch.
    pub from_us: i64,
    /// Latest event time, µs since the Unix epoch.
    pub to_us: i64,
}

/// One column of one table over all segments.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ColumnFigures {
    /// SQL table.
    pub table: String,
    /// The column.
    pub column: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Bytes on disk for each row.
    pub bytes_per_row: f64,
}

/// What `data stats` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StoreFigures {
    /// By table and level.
    pub segments: Vec<LevelFigures>,
    /// By table, the largest column first.
    pub columns: Vec<ColumnFigures>,
    /// Segments that no query reads, whose columns are in no figure: set aside as damaged, or without a footer that can be read.
    /// `data fsck` says why.
    pub unreadable_segments: u64,
    /// Rows in memory only.
    pub open_rows: u64,
    /// Length of `state.redb`.
    pub state_bytes: u64,
    /// Segments and `state.redb` together.
    pub bytes: u64,
    /// Collector and the position up to which its events are in segments.
    pub watermarks: Vec<Watermark>,
}

/// How far a collector's events are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Watermark {
    /// Its id.
    pub collector: String,
    /// Epoch and number.
    pub committed: String,
}

/// A segment that goes next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// The file.
    pub segment: String,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// Earliest event time, µs since the Unix epoch.
    pub from_us: i64,
    /// Latest event time, µs since the Unix epoch.
    pub to_us: i64,
    /// When its age makes it go, µs since the Unix epoch.
    pub goes_us: i64,
}

/// What retention will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Age at which segments go, in seconds.
    pub retention_s: u64,
    /// Bytes of all segments above which the oldest go.
    pub retention_bytes: u64,
    /// Segments that are stored.
    pub segments: u64,
    /// Bytes of them.
    pub segment_bytes: u64,
    /// Of these, segments that the next run takes.
    pub due_segments: u64,
    /// The first that go, by the time at which they do.
    pub next: Vec<Leaving>,
}

impl Store {
    /// How much is stored. Reads the footer of every segment.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn figures(&self) -> Result<StoreFigures, StoreError> {
        // Held, so that no file goes while its footer is read.
        let _pinned = self.every_file()?;
        let aside = self.held.read().map_err(|_| StoreError::LockPoisoned)?.damaged_segments();
        let stats = self.stats()?;
        let (mut levels, mut columns) = (BTreeMap::new(), BTreeMap::new());
        let mut rows_of: BTreeMap<String, u64> = BTreeMap::new();
        let mut figures =
            StoreFigures { open_rows: stats.open_rows, state_bytes: stats.state_bytes, ..StoreFigures::default() };
        let dir = self.options.dir.join(SEGMENTS_DIR);
        for entry in self.state.read()?.open_table(SEGMENTS)?.iter()? {
            let (at, row) = entry?;
            let (table, row) = (at.value().0.to_owned(), row.value().decode()?);
            let level: &mut LevelFigures = levels.entry((table.clone(), row.level)).or_default();
            add(level, &table, row.level, (row.rows, row.bytes), (row.first_us, row.last_us));
            let rows = row.rows;
            let path = dir.join(&row.file);
            let is_aside = aside.iter().any(|damaged| damaged.path == path);
            let found = if is_aside { None } else { columns_of(&path) };
            match found {
                Some(found) => {
                    let sum = rows_of.entry(table.clone()).or_default();
                    *sum = sum.saturating_add(rows);
                    for (name, bytes, plain_bytes) in found {
                        let column: &mut (u64, u64) = columns.entry((table.clone(), name)).or_default();
                        *column = (column.0.saturating_add(bytes), column.1.saturating_add(plain_bytes));
                    }
                }
                None => figures.unreadable_segments = figures.unreadable_segments.saturating_add(1),
            }
        }
        figures.segments = levels.into_values().collect();
        figures.columns = columns
            .into_iter()
            .map(|((table, column), (bytes, plain_bytes))| {
                let bytes_per_row = share(bytes, rows_of.get(&table).copied().unwrap_or_default());
                ColumnFigures { table, column, bytes, plain_bytes, bytes_per_row }
            })
            .collect();
        figures
            .columns
            .sort_by(|a, b| a.table.cmp(&b.table).then(b.bytes.cmp(&a.bytes)).then(a.column.cmp(&b.column)));
        figures.bytes = figures.segments.iter().fold(stats.state_bytes, |sum, level| sum.saturating_add(level.bytes));
        let mark = |(collector, at): (String, daemoneye_lib::proto::Sequence)| Watermark {
            collector,
            committed: at.to_string(),
        };
        figures.watermarks = self.state.watermarks()?.into_iter().map(mark).collect();
        Ok(figures)
    }

    /// What retention takes next, as of the believed time `now_us`.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails.
    pub fn outlook(&self, now_us: i64) -> Result<Outlook, StoreError> {
        let victims = self.victims(now_us)?;
        let next = victims.files.iter().take(NEXT_LISTED).map(|file| Leaving {
            segment: file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            rows: file.rows,
            bytes: file.bytes,
            from_us: file.first_us,
            to_us: file.last_us,
            goes_us: victims.goes_us(file),
        });
        Ok(Outlook {
            retention_s: self.options.retention.as_secs(),
            retention_bytes: self.options.retention_bytes,
            segments: victims.files.len() as u64,
            segment_bytes: victims.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes)),
            due_segments: victims.due as u64,
            next: next.collect(),
        })
    }
}

fn add(figures: &mut LevelFigures, table: &str, level: u8, (rows, bytes): (u64, u64), (from_us, to_us): (i64, i64)) {
    let is_first = figures.segments == 0;
    table.clone_into(&mut figures.table);
    figures.level = level;
    figures.segments = figures.segments.saturating_add(1);
    figures.rows = figures.rows.saturating_add(rows);
    figures.bytes = figures.bytes.saturating_add(bytes);
    figures.bytes_per_row = share(figures.bytes, figures.rows);
    figures.from_us = if is_first { from_us } else { figures.from_us.min(from_us) };
    figures.to_us = if is_first { to_us } else { figures.to_us.max(to_us) };
}

/// To one digit: more would be noise.
fn share(bytes: u64, rows: u64) -> f64 {
    let tenths = bytes.saturating_mul(10).checked_div(rows).unwrap_or_default();
    // Exact far beyond what fits on a disk.
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

/// Name, bytes and bytes before compression of each column; `None` when the file cannot be read.
fn columns_of(path: &Path) -> Option<Vec<(String, u64, u64)>> {
    // Its hash is not looked at here, so its footer is foreign bytes to the decoder.
    let opened = || Ok(file::open(path).ok().and_then(|file| SerializedFileReader::new(file).ok()));
    let reader = damage::guarded(path, opened).ok().flatten()?;
    let chunks = reader.metadata().row_groups().iter().flat_map(|group| group.columns());
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    let one = |chunk: &datafusion::parquet::file::metadata::ColumnChunkMetaData| {
        let name = chunk.column_path().parts().first().cloned().unwrap_or_default();
        (name, size(chunk.compressed_size()), size(chunk.uncompressed_size()))
    };
    Some(chunks.map(one).collect())
}
