//! What an event costs on the disk, before and after compaction, by column; and what compaction costs.
//! Rows by `DAEMONEYE_BENCH_ROWS` (1,000,000; 20,000 where nothing is measured).
//!
//! Run with `cargo bench -p daemoneye-engine -p daemoneye-eventbus --bench history`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to measure")]

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Instant;

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::{Store, StoreOptions};
use datafusion::parquet::file::reader::FileReader as _;
use datafusion::parquet::file::serialized_reader::SerializedFileReader;
use tokio_util::sync::CancellationToken;

/// 2026-01-31T00:00:00Z.
const START_US: i64 = 1_769_817_600_000_000;
/// Records of one bus message.
const RUN: usize = 1_024;

fn wanted() -> usize {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let rows = std::env::var("DAEMONEYE_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok());
    rows.unwrap_or(if measured { 1_000_000 } else { 20_000 })
}

/// The highest resident size of this process so far, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn fill(store: &Store, rows: usize) {
    let mut generator = Generator::new(1, START_US);
    let mut left = rows;
    while left > 0 {
        let records = generator.records(left.min(RUN));
        left -= records.len();
        store.append(decode("procmond", &records).unwrap()).unwrap();
        if store.seal_due() {
            store.seal().unwrap();
        }
    }
    store.seal().unwrap();
}

/// Bytes by what they are for.
fn sizes(store: &Store) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    let mut add = |what: String, bytes: u64| *sizes.entry(what).or_insert(0) += bytes;
    for segment in store.snapshot().segments {
        let reader = SerializedFileReader::new(File::open(&segment.path).unwrap()).unwrap();
        let mut left = segment.bytes;
        for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let data = u64::try_from(column.compressed_size()).unwrap();
            let bloom = u64::try_from(column.bloom_filter_length().unwrap_or(0)).unwrap();
            let index = column.column_index_length().unwrap_or(0) + column.offset_index_length().unwrap_or(0);
            let index = u64::try_from(index).unwrap();
            add(column.column_path().string(), data);
            add("(Bloom filters)".to_owned(), bloom);
            add("(page index)".to_owned(), index);
            left -= data + bloom + index;
        }
        add("(footer)".to_owned(), left);
    }
    sizes
}

fn per_event(bytes: u64, rows: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "printed with two decimals")]
    let (bytes, rows) = (bytes as f64, rows as f64);
    bytes / rows
}

fn main() {
    let rows = wanted();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { compaction_bytes_per_s: 0, ..StoreOptions::new(dir.path()) }).unwrap();
    fill(&store, rows);
    let before = sizes(&store);
    let (began, peak_before) = (Instant::now(), peak_kib());
    let done = store.vacuum(START_US, &CancellationToken::new()).unwrap();
    let (took, peak_after) = (began.elapsed(), peak_kib());
    let after = sizes(&store);
    println!(
        "{rows} events, {} files before, {} after, merged in {took:.1?}",
        done.segments_before, done.segments_after
    );
    if let Some((before, after)) = peak_before.zip(peak_after) {
        println!("peak of memory: {} MiB before, {} MiB after compaction", before / 1024, after / 1024);
    }
    println!("| bytes an event | before | after compaction |\n|---|---|---|");
    let total = |sizes: &BTreeMap<String, u64>| per_event(sizes.values().sum(), rows);
    println!("| all | {:.2} | {:.2} |", total(&before), total(&after));
    let mut lines: Vec<(&String, &u64)> = after.iter().collect();
    lines.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    for (what, bytes) in lines {
        let before = before.get(what).copied().unwrap_or(0);
        println!("| `{what}` | {:.2} | {:.2} |", per_event(before, rows), per_event(*bytes, rows));
    }
}
