//! Eight queries over generated events: the yardstick of the store's design page. Rows by `DAEMONEYE_BENCH_ROWS` (100,000;
//! 5,000 where nothing is measured).
//!
//! Run with `cargo bench -p daemoneye-engine -p daemoneye-eventbus --bench query`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to measure")]

use criterion::{Criterion, criterion_group, criterion_main};
use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest;
use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits};
use daemoneye_engine::store::{Store, StoreOptions};
use daemoneye_lib::proto::{QueryRequest, value::Kind};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// 2026-01-31T12:00:00Z.
const START_US: i64 = 1_769_860_800_000_000;
/// Records of one bus message.
const RUN: usize = 1_024;

struct Filled {
    _dir: TempDir,
    engine: QueryEngine,
    runtime: Runtime,
}

impl Filled {
    fn new(rows: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let mut generator = Generator::new(1, START_US);
        let mut left = rows;
        while left > 0 {
            let records = generator.records(left.min(RUN));
            left -= records.len();
            store.append(ingest::decode("procmond", &records).unwrap()).unwrap();
            if store.seal_due() {
                store.seal().unwrap();
            }
        }
        let limits =
            QueryLimits { memory_bytes: 1 << 30, deadline: Duration::from_mins(10), ..QueryLimits::default() };
        let engine = QueryEngine::new(Arc::new(store), limits, Arc::new(NoCollectors)).unwrap();
        Self { _dir: dir, engine, runtime: Runtime::new().unwrap() }
    }

    /// All rows of the answer, as text where they are text.
    fn ask(&self, sql: &str) -> Vec<Vec<Option<Kind>>> {
        self.runtime.block_on(async {
            let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
            let mut run = self.engine.query(request, CancellationToken::new()).await.unwrap();
            let mut rows = Vec::new();
            while let Some(page) = run.next_page().await.unwrap() {
                rows.extend(page.rows.into_iter().map(|row| row.values.into_iter().map(|value| value.kind).collect()));
            }
            assert!(run.done().completeness.unwrap().degraded.is_empty(), "{sql} was cut");
            rows
        })
    }

    fn text(&self, sql: &str) -> String {
        match self.ask(sql).into_iter().flatten().next() {
            Some(Some(Kind::Text(text))) => text,
            other => unreachable!("{sql} answered {other:?}"),
        }
    }
}

fn queries(criterion: &mut Criterion) {
    let usual = if std::env::args().any(|argument| argument == "--bench") { 100_000 } else { 5_000 };
    let rows = std::env::var("DAEMONEYE_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(usual);
    let filled = Filled::new(rows);
    let entity = filled.text("SELECT entity_id FROM process_events ORDER BY time DESC LIMIT 1");
    let hash = filled.text("SELECT executable_hash FROM process_events WHERE name = 'openssl' LIMIT 1");
    let all = "FROM process_events";
    let suite = [
        ("point_by_entity", format!("SELECT * {all} WHERE entity_id = '{entity}'")),
        ("count_by_hash", format!("SELECT count(*) {all} WHERE executable_hash = '{hash}'")),
        (
            "time_slice",
            format!(
                "SELECT time, pid, name {all} WHERE time >= '2026-01-31T12:05:00Z' AND time < '2026-01-31T12:06:00Z'"
            ),
        ),
        ("like_command_line", format!("SELECT count(*) {all} WHERE command_line LIKE '%unit_42%'")),
        ("regexp_command_line", format!("SELECT count(*) {all} WHERE command_line REGEXP 'unit_[0-9]+7\\.c'")),
        ("group_by_parent", format!("SELECT parent_name, count(*), max(memory_usage) {all} GROUP BY parent_name")),
        (
            "parent_child_join",
            format!(
                "SELECT count(*) {all} AS c JOIN process_events AS p ON c.parent_entity_id = p.entity_id \
                 WHERE c.event_type = 'start' AND p.event_type = 'start' AND p.name = 'bash'"
            ),
        ),
        (
            "top_n_by_memory",
            format!("SELECT time, pid, name, memory_usage {all} ORDER BY memory_usage DESC, time LIMIT 20"),
        ),
    ];
    let mut group = criterion.benchmark_group(format!("query over {rows} events"));
    group.sample_size(20);
    for (name, sql) in &suite {
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(filled.ask(sql))));
    }
    group.finish();
}

criterion_group!(benches, queries);
criterion_main!(benches);
