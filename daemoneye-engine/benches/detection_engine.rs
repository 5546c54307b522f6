//! What rules cost per event: the built-in pack, and 1,000 generated rules of the shape that converted rule sets have.
//! Criterion's throughput is events a second; its inverse is the cost of one event.
//!
//! Run with `cargo bench -p daemoneye-engine -p daemoneye-eventbus --bench detection_engine`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to measure")]

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemoneye_engine::detect::{LoadedRule, RuleSet, rules};
use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest::{self, EventBatch};
use daemoneye_lib::model::Completeness;
use serde_json::json;

/// 2026-01-31T12:00:00Z.
const START_US: i64 = 1_769_860_800_000_000;
/// Events of one batch.
const EVENTS: usize = 1_024;
/// Generated rules; a few where nothing is measured.
fn wanted() -> usize {
    if std::env::args().any(|argument| argument == "--bench") { 1_000 } else { 10 }
}

/// Names that rules look for and ordinary hosts do not have; a number makes each rule's own.
const WORDS: &[&str] = &["mimikat", "beacon", "rclone", "chisel", "ngrok", "linpeas", "pspy", "frp"];

fn events(count: usize) -> EventBatch {
    ingest::decode("procmond", &Generator::new(1, START_US).records(count)).unwrap()
}

/// A suffix of the path, some alternatives of the command line, and an exception: what most converted rules are made of.
fn generated(at: usize) -> LoadedRule {
    let word = |offset: usize| format!("{}{at}", WORDS.iter().cycle().nth(at + offset).unwrap());
    let sql = format!(
        "SELECT pid, name, command_line FROM process_events WHERE event_type = 'start' AND (executable_path LIKE '%/{}' \
         OR executable_path ILIKE '%/{}' OR name IN ('{}', '{}')) AND (command_line LIKE '%--{}%' OR command_line ILIKE \
         '%{} -x%' OR command_line ~ '-(e|c)\\s+{}\\b') AND NOT (parent_executable_path LIKE '/opt/{}/%' OR user = '{}')",
        word(0),
        word(1),
        word(2),
        word(3),
        word(4),
        word(5),
        word(6),
        word(7),
        word(8),
    );
    let id = format!("00000000-0000-4000-8000-{at:012}");
    let yaml = json!({"id": id, "name": format!("generated {at}"), "severity": "info", "sql": sql});
    rules::parse(Path::new("generated/rule.yaml"), &yaml.to_string()).unwrap()
}

fn set(rules: Vec<LoadedRule>) -> RuleSet {
    let (set, refusals) = RuleSet::compile(rules);
    assert!(refusals.is_empty(), "{refusals:?}");
    set
}

fn evaluation(criterion: &mut Criterion) {
    let pack = rules::load_dirs(&[PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules")]).rules;
    let (batch, one) = (events(EVENTS), events(1));
    let complete = Completeness::complete();
    let wanted = wanted();
    let sets = [
        ("12 built-in rules".to_owned(), set(pack.into_iter().take(12).collect())),
        (format!("{wanted} generated rules"), set((0..wanted).map(generated).collect())),
    ];
    let mut group = criterion.benchmark_group("detection_engine");
    for (name, set) in &sets {
        group.throughput(Throughput::Elements(u64::try_from(EVENTS).unwrap()));
        group.bench_function(format!("{name}, batch of {EVENTS}"), |bench| {
            bench.iter(|| black_box(set.evaluate(black_box(&batch), &complete)));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name}, one event"), |bench| {
            bench.iter(|| black_box(set.evaluate(black_box(&one), &complete)));
        });
    }
    group.finish();
}

fn loading(criterion: &mut Criterion) {
    criterion
        .bench_function("detection_engine/parse and compile one rule", |bench| bench.iter(|| generated(black_box(7))));
}

criterion_group!(benches, evaluation, loading);
criterion_main!(benches);
