//! Ingest from the bytes of the bus to rows whose watermark is committed, and alerts from matches to their transaction.
#![expect(clippy::expect_used, reason = "a benchmark that cannot run should stop")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::{EventBatch, decode};
use daemoneye_engine::store::{Answer, RuleMatch, Store, StoreOptions};
use daemoneye_lib::model::{Completeness, DetectionRule, RuleKind, RuleState, Severity};
use daemoneye_lib::proto::Record;
use tempfile::TempDir;
use uuid::Uuid;

/// What one connection sends at once.
const RUN: usize = 256;
/// Four segments of the default size; a few runs where nothing is measured.
fn wanted() -> usize {
    if std::env::args().any(|argument| argument == "--bench") { 65_536 } else { 4 * RUN }
}

const START_US: i64 = 1_760_000_000_000_000;

fn open() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory for the store");
    let options = StoreOptions { sinks: vec!["file".to_owned()], ..StoreOptions::new(dir.path()) };
    let store = Store::open(options).expect("an empty directory opens");
    (dir, store)
}

fn ingest(store: &Store, runs: &[Vec<Record>]) {
    for records in runs {
        let batch = decode("procmond", records).expect("the records are in order");
        store.append(batch).expect("the open segment has room");
        if store.seal_due() {
            store.seal().expect("the disk works");
        }
    }
    store.seal().expect("the disk works");
}

fn rule() -> DetectionRule {
    DetectionRule {
        id: Uuid::from_u128(1),
        version: 1,
        hash: String::new(),
        name: "everything".to_owned(),
        description: String::new(),
        author: String::new(),
        references: Vec::new(),
        severity: Severity::Low,
        category: String::new(),
        tags: Vec::new(),
        status: String::new(),
        false_positives: Vec::new(),
        sql: String::new(),
        dedup: Vec::new(),
        dedup_window_s: 300,
        state: RuleState::Active,
        kind: RuleKind::Stream,
        pack: String::new(),
        file: String::new(),
    }
}

fn matches(events: &EventBatch) -> Vec<RuleMatch> {
    let rule = Arc::new(rule());
    let one = |row| RuleMatch {
        rule: Arc::clone(&rule),
        batch: std::sync::Arc::new(events.batch.clone()),
        row,
        answer: Answer::Row(serde_json::Map::new()),
        completeness: Completeness::complete(),
    };
    (0..events.batch.num_rows()).map(one).collect()
}

fn database_operations(c: &mut Criterion) {
    let mut generator = Generator::new(1, START_US);
    let wanted = wanted();
    let runs: Vec<Vec<Record>> = (0..wanted / RUN).map(|_| generator.records(RUN)).collect();
    let mut group = c.benchmark_group("database_operations");
    group.sample_size(10).throughput(Throughput::Elements(wanted as u64));
    group.bench_function("bus_bytes_to_columns", |b| {
        let rows = |run: &Vec<Record>| decode("procmond", run).map_or(0, |events| events.batch.num_rows());
        b.iter(|| black_box(runs.iter().map(rows).sum::<usize>()));
    });
    group.bench_function("bus_bytes_to_committed_rows", |b| {
        let work = |(dir, store): (TempDir, Store)| {
            ingest(&store, &runs);
            (dir, store)
        };
        b.iter_batched(open, work, BatchSize::PerIteration);
    });
    let events = runs.first().map(|run| decode("procmond", run)).expect("there is a run").expect("it is in order");
    group.throughput(Throughput::Elements(RUN as u64));
    group.bench_function("matches_to_committed_alerts", |b| {
        let work = |(dir, store): (TempDir, Store)| {
            let raised = store.commit_matches(matches(&events)).expect("the disk works");
            (dir, store, raised)
        };
        b.iter_batched(open, work, BatchSize::PerIteration);
    });
    group.finish();
    let (_dir, store) = open();
    ingest(&store, &runs);
    let bytes = store.snapshot().segments.iter().map(|file| file.bytes).sum::<u64>();
    println!("on disk, before compaction: {} bytes an event", bytes / wanted as u64);
}

criterion_group!(benches, database_operations);
criterion_main!(benches);
