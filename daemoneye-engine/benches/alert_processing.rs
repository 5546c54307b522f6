//! From an event to its alert in a sink's hands: the match, the transaction that holds alert and outbox, the repetition that is
//! folded, and the delivery that is ticked off. Every commit waits for the disk.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use daemoneye_engine::detect::{RuleSet, rules};
use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::{self, EventBatch};
use daemoneye_engine::store::{RuleMatch, Store, StoreOptions};
use daemoneye_lib::model::Completeness;
use tempfile::TempDir;

/// 2026-01-31T12:00:00Z.
const START_US: i64 = 1_769_860_800_000_000;
/// Alerts of a burst: one bus message's worth.
const BURST: usize = 256;
const SINK: &str = "file";
/// Matches every start, so that the burst is full.
const RULE: &str = r#"{"id": "00000000-0000-4000-8000-000000000001", "name": "every start", "severity": "low",
    "sql": "SELECT pid, name, command_line FROM process_events WHERE event_type = 'start'"}"#;

fn open() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { sinks: vec![SINK.to_owned()], ..StoreOptions::new(dir.path()) };
    let store = Store::open(options).unwrap();
    (dir, store)
}

fn rule_set() -> RuleSet {
    let (set, refusals) = RuleSet::compile(vec![rules::parse(Path::new("bench/rule.yaml"), RULE).unwrap()]);
    assert!(refusals.is_empty(), "{refusals:?}");
    set
}

fn events(count: usize) -> EventBatch {
    ingest::decode("procmond", &Generator::new(1, START_US).records(count)).unwrap()
}

fn matches(set: &RuleSet, count: usize) -> Vec<RuleMatch> {
    // Half of the generated events are starts.
    let mut found = set.evaluate(&events(count * 4), &Completeness::complete());
    found.truncate(count);
    assert_eq!(found.len(), count, "the generated events have fewer starts");
    found
}

/// A sink's round: take what is due, hand it over, tick it off.
fn deliver(store: &Store) -> usize {
    let due = store.outbox_due(SINK, i64::MAX, BURST).unwrap();
    let lines: usize = due.iter().map(|due| serde_json::to_vec(&due.alert).unwrap().len()).sum();
    let ids: Vec<_> = due.iter().map(|due| due.alert.id).collect();
    store.outbox_done_all(SINK, &ids).unwrap();
    lines
}

fn alert_processing(c: &mut Criterion) {
    let set = rule_set();
    let mut group = c.benchmark_group("alert_processing");
    group.sample_size(20);
    for count in [1, BURST] {
        let found = matches(&set, count);
        let fresh = || (open(), found.clone());
        let raised = || {
            let (dir, store) = open();
            store.commit_matches(found.clone()).unwrap();
            (dir, store)
        };
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("match to committed alert/{count}"), |b| {
            let work = |((dir, store), found): ((TempDir, Store), Vec<RuleMatch>)| {
                let alerts = store.commit_matches(found).unwrap();
                (dir, store, alerts)
            };
            b.iter_batched(fresh, work, BatchSize::PerIteration);
        });
        group.bench_function(format!("outbox to delivered/{count}"), |b| {
            let work = |(dir, store): (TempDir, Store)| {
                let lines = deliver(&store);
                (dir, store, lines)
            };
            b.iter_batched(raised, work, BatchSize::PerIteration);
        });
    }
    replayed(&mut group, &set);
    group.finish();
}

/// After a crash the same matches come again and must raise nothing.
fn replayed(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>, set: &RuleSet) {
    let (_dir, store) = open();
    let found = matches(set, BURST);
    store.commit_matches(found.clone()).unwrap();
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(format!("replayed match/{BURST}"), |b| {
        b.iter_batched(
            || found.clone(),
            |found| assert!(store.commit_matches(found).unwrap().is_empty(), "a replay raised an alert"),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, alert_processing);
criterion_main!(benches);
