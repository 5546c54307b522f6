//! What the logs cost: appends with group sync, replay, recovery scan, ledger batches.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use collector_core::SourceEvent;
use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use collector_core::wal::{GROUP_SYNC, SyncMode, Wal, WalOptions};
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

/// Payload of a small record: what an exit costs.
const SMALL_BYTES: usize = 64;

/// Records per second in batches of 1,000, trimmed as an agent does, so that the bound costs nothing.
fn small_records(_: &mut Criterion) {
    const BATCHES: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalOptions::new(dir.path(), "bench")).unwrap();
    let events = vec![SourceEvent::new("events.process.stop", 1, vec![7; SMALL_BYTES]); 1_000];
    let began = Instant::now();
    for _ in 0..BATCHES {
        let last = wal.append(&events).unwrap().unwrap();
        wal.trim(last).unwrap();
    }
    let rate = (BATCHES * events.len()) as f64 / began.elapsed().as_secs_f64();
    let stats = wal.stats();
    assert_eq!(stats.lost, 0);
    println!("| small records/s in batches of 1,000 | {rate:.0} | at least 1,000,000 |");
    println!("| segments that were not ready in time | {} | |", stats.unprepared);
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// An append until its record is on disk, against a write and `fdatasync` into zeros on the same disk, by turns.
fn acknowledged(_: &mut Criterion) {
    const ROUNDS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalOptions::new(dir.path().join("wal"), "bench")).unwrap();
    let mut raw = std::fs::File::create(dir.path().join("raw")).unwrap();
    raw.write_all(&vec![0; 16 * 1024 * 1024]).unwrap();
    raw.sync_all().unwrap();
    raw.rewind().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (events, record) = (batch(1), vec![7; EVENT_BYTES]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The spare is made once and not for each append; its zeros would be in the first ones' way.
    while !dir.path().join("wal/bench-00002.wal").exists() {
        std::thread::yield_now();
    }
    for _ in 0..ROUNDS {
        let began = Instant::now();
        wal.append(&events).unwrap();
        runtime.block_on(wal.synced()).unwrap();
        ours.push(began.elapsed());
        // One for one: a disk that others keep busy for a while must not weigh on one side more than on the other.
        let began = Instant::now();
        raw.write_all(&record).unwrap();
        raw.sync_data().unwrap();
        theirs.push(began.elapsed());
        // Each append finds the syncing thread idle, as the disk finds the raw write.
        std::thread::park_timeout(GROUP_SYNC);
    }
    let (ours, theirs) = (p99(ours), p99(theirs));
    println!("| ack p99 | {ours:?} | at most {:?}: twice the fdatasync p99 |", 2 * theirs);
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = small_records, acknowledged, append, durable, replay, recovery, ledger
}
criterion_main!(benches);
