//! What the logs cost: appends with group sync, replay, recovery scan, ledger batches.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::time::{Duration, Instant};

use collector_core::SourceEvent;
use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use collector_core::wal::{SyncMode, Wal, WalOptions};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const EVENT_BYTES: usize = 300;

fn batch(records: usize) -> Vec<SourceEvent> {
    vec![SourceEvent::new("events.process.start", 1, vec![7; EVENT_BYTES]); records]
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal_append");
    for (name, sync) in [("group", SyncMode::Group), ("never", SyncMode::Never)] {
        for records in [1, 256] {
            let dir = tempfile::tempdir().unwrap();
            let mut options = WalOptions::new(dir.path(), "bench");
            options.sync = sync;
            let (wal, _) = Wal::open(options).unwrap();
            let events = batch(records);
            group.throughput(Throughput::Elements(records as u64));
            group.bench_function(format!("{name}/{records}"), |b| b.iter(|| wal.append(&events).unwrap()));
        }
    }
    group.finish();
}

/// Time from an append to its record being on disk.
fn durable(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalOptions::new(dir.path(), "bench")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let events = batch(1);
    c.bench_function("wal_append_until_durable", |b| {
        b.iter_custom(|rounds| {
            let began = Instant::now();
            for _ in 0..rounds {
                wal.append(&events).unwrap();
                runtime.block_on(wal.synced()).unwrap();
            }
            began.elapsed()
        });
    });
}

fn replay(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalOptions::new(dir.path(), "bench")).unwrap();
    for _ in 0..100 {
        wal.append(&batch(256)).unwrap();
    }
    let mut group = c.benchmark_group("wal_replay");
    group.throughput(Throughput::Elements(25_600));
    group.bench_function("25600_records", |b| b.iter(|| wal.replay_from(None).unwrap().count()));
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalOptions::new(dir.path(), "bench")).unwrap();
    for _ in 0..100 {
        wal.append(&batch(256)).unwrap();
    }
    drop(wal);
    c.bench_function("wal_open_25600_records", |b| {
        b.iter_batched(|| (), |()| Wal::open(WalOptions::new(dir.path(), "bench")).unwrap(), BatchSize::PerIteration);
    });
}

fn ledger(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger_append");
    for entries in [1, 256] {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(LedgerOptions::new(dir.path())).unwrap();
        let drafts = vec![Draft::now("bench", "event-range", vec![b'x'; 200]); entries];
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_function(format!("synced/{entries}"), |b| b.iter(|| ledger.append_batch(&drafts).unwrap()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = append, durable, replay, recovery, ledger
}
criterion_main!(benches);
