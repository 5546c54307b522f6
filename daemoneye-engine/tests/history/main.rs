//! History over months: many small segments become few large ones, and every event stays in every answer exactly once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop there")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::{EventBatch, decode};
use daemoneye_engine::store::{Snapshot, Store, StoreError, StoreOptions};
use daemoneye_lib::proto::{CoverageGap, EventType};
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

mod changed;
mod compaction;
mod kills;
mod model;
mod readers;
mod retention;

/// 2026-01-31, the beginning of a day.
const T0: i64 = 1_769_817_600_000_000;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { compaction_bytes_per_s: 0, ..StoreOptions::new(dir) }
}

/// Another test starts programs: each has this one's files, and their locks, for the instant before it is itself.
fn open(dir: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(options(dir)) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// A collector whose events come when the test says so.
struct Collector {
    name: &'static str,
    generator: Generator,
    /// Whether processes end: that makes a file of lifetimes beside each of events.
    ends: bool,
}

impl Collector {
    /// One whose processes live on, for tests that count files.
    fn new(name: &'static str, seed: u64) -> Self {
        Self { name, generator: Generator::new(seed, T0), ends: false }
    }

    fn with_ends(name: &'static str, seed: u64) -> Self {
        Self { ends: true, ..Self::new(name, seed) }
    }

    /// The next `count` events, the first at `from_us`, `step_us` apart.
    fn events(&mut self, count: usize, from_us: i64, step_us: i64) -> EventBatch {
        let mut records = self.generator.records(count);
        for (record, n) in records.iter_mut().zip(0_i64..) {
            let mut event = daemoneye_lib::proto::ProcessEvent::decode(record.payload.clone()).unwrap();
            event.time_us = from_us + n * step_us;
            if event.event_type() == EventType::Stop && !self.ends {
                event.event_type = EventType::Modify.into();
            }
            record.time_us = event.time_us;
            record.payload = event.encode_to_vec().into();
        }
        decode(self.name, &records).unwrap()
    }
}

fn seal(store: &Store, batch: EventBatch) {
    store.append(batch).unwrap();
    store.seal().unwrap();
}

/// Does every merge that is due at `now_us`.
fn compact(store: &Store, now_us: i64) -> usize {
    let stop = CancellationToken::new();
    std::iter::from_fn(|| store.compact(now_us, &stop).unwrap()).count()
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect()
}

fn batches(snapshot: &Snapshot) -> Vec<RecordBatch> {
    snapshot.segments.iter().flat_map(|file| read(&file.path)).chain(snapshot.open.iter().cloned()).collect()
}

/// Every row as (collector, epoch, number), with all its columns as text, and how often it is there.
fn rows(snapshot: &Snapshot) -> BTreeMap<(String, i64, i64, [u8; 32]), usize> {
    rows_of(&batches(snapshot))
}

fn rows_of(batches: &[RecordBatch]) -> BTreeMap<(String, i64, i64, [u8; 32]), usize> {
    let mut rows = BTreeMap::new();
    for batch in batches {
        let collectors = batch.column_by_name("collector").unwrap().as_string::<i32>().clone();
        let epochs = batch.column_by_name("epoch").unwrap().as_primitive::<Int64Type>().clone();
        let numbers = batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().clone();
        for row in 0..batch.num_rows() {
            let mut hasher = blake3::Hasher::new();
            for column in batch.columns() {
                let value = datafusion::arrow::util::display::array_value_to_string(column, row).unwrap();
                hasher.update(value.as_bytes()).update(&[u8::from(column.is_null(row))]);
            }
            let at = (
                collectors.value(row).to_owned(),
                epochs.value(row),
                numbers.value(row),
                *hasher.finalize().as_bytes(),
            );
            *rows.entry(at).or_insert(0) += 1;
        }
    }
    rows
}

/// Who lived according to events, each with whether its end is among them.
type Lived = BTreeMap<String, bool>;

/// Adds what the events of `batch` say, in their order.
fn live_through(lived: &mut Lived, batch: &RecordBatch) {
    let text = |name| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
    for (entity, kind) in text("entity_id").iter().zip(text("event_type").iter()) {
        *lived.entry(entity.unwrap().to_owned()).or_insert(false) |= kind == Some("stop");
    }
}

/// Every row of `process_lifetimes`: each entity must be there once, and ended where its end was told.
fn assert_lifetimes(store: &Store, lived: &Lived) {
    let snapshot = store.snapshot_with_lifetimes();
    let mut found = Lived::new();
    let sealed = snapshot.lifetimes.iter().flat_map(|file| read(&file.path));
    for batch in sealed.chain(snapshot.open_lifetimes.clone().rows().map(Result::unwrap)) {
        let entities = batch.column_by_name("entity_id").unwrap().as_string::<i32>();
        let stops = batch.column_by_name("stop_time").unwrap();
        for (row, entity) in entities.iter().enumerate() {
            let before = found.insert(entity.unwrap().to_owned(), stops.is_valid(row));
            assert_eq!(before, None, "{} has two rows", entity.unwrap());
        }
    }
    assert!(found == *lived, "{} lifetimes, {} are due", found.len(), lived.len());
}

/// The files in `segments/`, unfinished ones too.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn listed(snapshot: &Snapshot) -> Vec<PathBuf> {
    snapshot.segments.iter().chain(&snapshot.lifetimes).map(|file| file.path.clone()).collect()
}

/// The files that the store lists, which must be what lies there.
fn assert_only_listed_files(store: &Store, dir: &Path) {
    let mut listed = listed(&store.snapshot());
    listed.sort();
    assert!(files(dir) == listed, "{} files, {} listed", files(dir).len(), listed.len());
}

/// Every file holds what is registered of it, by time.
fn assert_registered_exactly(snapshot: &Snapshot) {
    for file in snapshot.segments.iter().chain(&snapshot.lifetimes) {
        let batches = read(&file.path);
        let times: Vec<i64> = batches
            .iter()
            .flat_map(|b| {
                b.column_by_name("time").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
            })
            .collect();
        assert!(times.is_sorted(), "{}", file.path.display());
        assert_eq!((times.first(), times.last()), (Some(&file.first_us), Some(&file.last_us)));
        assert_eq!((times.len() as u64, fs::metadata(&file.path).unwrap().len()), (file.rows, file.bytes));
        assert_eq!(blake3::hash(&fs::read(&file.path).unwrap()).as_bytes(), &file.hash);
        assert_eq!(file.ranges.iter().map(|range| range.rows).sum::<u64>(), file.rows);
    }
}
