//! The eight queries, in three dialects, and what they take through the engine as the agent runs it: the guard, the plan, the
//! niced thread, the limits of the default configuration, and rows as the operator's socket carries them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits, Scratch};
use daemoneye_engine::store::Store;
use daemoneye_lib::proto::{QueryRequest, value::Kind};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::events::{Events, START_US};

/// Rounds before any is counted, and those that are.
const WARM: usize = 2;
const ROUNDS: usize = 9;
/// Rounds of a query that is looked at by itself.
const MANY_ROUNDS: usize = 101;
/// A query that takes longer is asked fewer times.
const LONG: Duration = Duration::from_secs(2);
const ROUNDS_IF_LONG: usize = 3;
/// As in the default configuration.
const SCRATCH_BYTES: u64 = 256 * 1024 * 1024;
const DAY_US: i64 = 86_400_000_000;
const MINUTE_US: i64 = 60_000_000;

/// One query.
pub(crate) struct Query {
    pub(crate) name: &'static str,
    pub(crate) ours: String,
    pub(crate) sqlite: String,
    pub(crate) duckdb: String,
}

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) p50: Duration,
    pub(crate) rows: Vec<Value>,
    /// Why the answer is not all of it; empty when it is.
    pub(crate) lacks: String,
}

/// An engine over a store, with the agent's limits.
pub(crate) struct Asker {
    pub(crate) engine: QueryEngine,
    pub(crate) runtime: Runtime,
}

impl Asker {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        let scratch = Scratch { dir: store.dir().join("scratch"), quota_bytes: SCRATCH_BYTES };
        let limits = QueryLimits { scratch: Some(scratch), ..QueryLimits::default() };
        let engine = QueryEngine::new(Arc::clone(store), limits, Arc::new(NoCollectors)).unwrap();
        Self { engine, runtime: Runtime::new().unwrap() }
    }

    /// All rows, and what the answer lacks.
    pub(crate) fn ask(&self, sql: &str) -> (Vec<Vec<Option<Kind>>>, String) {
        self.runtime.block_on(async {
            let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
            let mut run = self.engine.query(request, CancellationToken::new()).await.unwrap();
            let mut rows = Vec::new();
            while let Some(page) = run.next_page().await.unwrap() {
                rows.extend(page.rows.into_iter().map(|row| row.values.into_iter().map(|value| value.kind).collect()));
            }
            (rows, run.done().completeness.unwrap().degraded.join(", "))
        })
    }

    fn text(&self, sql: &str) -> String {
        match self.ask(sql).0.into_iter().flatten().next() {
            Some(Some(Kind::Text(text))) => text,
            other => unreachable!("{sql} answered {other:?}"),
        }
    }
}

/// A condition on time, in our dialect and DuckDB's, and in SQLite's, where it is a number.
fn between(column: &str, from_us: i64, to_us: i64) -> (String, String) {
    let text = |us: i64| jiff::Timestamp::from_microsecond(us).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string();
    (
        format!("{column} >= '{}' AND {column} < '{}'", text(from_us), text(to_us)),
        format!("{column} >= {from_us} AND {column} < {to_us}"),
    )
}

/// The same text for everybody.
fn same(name: &'static str, sql: String) -> Query {
    Query { name, sqlite: sql.clone(), duckdb: sql.clone(), ours: sql }
}

/// The queries over the rows of the store.
pub(crate) fn suite(store: &Arc<Store>) -> Vec<Query> {
    let asker = Asker::new(store);
    let last_us = store.snapshot().segments.iter().map(|segment| segment.last_us).max().unwrap_or(START_US);
    let span_us = last_us - START_US;
    // A third into the history, so that neither end of a file is near.
    let minute = START_US + span_us / 3;
    let minute = minute - minute % MINUTE_US;
    let (text, _) = between("time", minute, minute + MINUTE_US);
    let entity = asker.text(&format!(
        "SELECT entity_id FROM process_events WHERE {text} AND event_type = 'start' ORDER BY time LIMIT 1"
    ));
    let hash = Events::rare_hash();
    let all = "FROM process_events";
    let time_slice = |when: String| format!("SELECT time, pid, name {all} WHERE {when}");
    let (text, number) = between("time", minute, minute + MINUTE_US);
    let join = |of_child: String, of_parent: String| {
        format!(
            "SELECT c.name, count(*) {all} AS c JOIN process_events AS p ON c.parent_entity_id = p.entity_id \
             WHERE c.event_type = 'start' AND p.event_type = 'start' AND p.name = 'sshd' AND {of_child} AND {of_parent} \
             GROUP BY c.name"
        )
    };
    // What begins before the first event lacks something.
    let (child, child_number) = between("c.time", START_US + MINUTE_US, START_US + DAY_US);
    let (parent, parent_number) = between("p.time", START_US + MINUTE_US, START_US + DAY_US);
    let (ours_join, sqlite_join) = (join(child, parent), join(child_number, parent_number));
    let pattern = r"unit_[0-9]+7\.c";
    let regexp = format!("SELECT count(*) {all} WHERE command_line REGEXP '{pattern}'");
    let by_regexp = format!("SELECT count(*) {all} WHERE regexp_matches(command_line, '{pattern}')");
    vec![
        same("point lookup by entity", format!("SELECT * {all} WHERE entity_id = '{entity}'")),
        same(
            "point lookup by hash",
            format!(
                "SELECT time, pid, name, executable_path, command_line, uid {all} WHERE executable_hash = '{hash}'"
            ),
        ),
        Query {
            name: "time slice (one minute)",
            sqlite: time_slice(number),
            duckdb: time_slice(text.clone()),
            ours: time_slice(text),
        },
        same("LIKE over command lines", format!("SELECT count(*) {all} WHERE command_line LIKE '%unit_42%'")),
        Query { name: "regexp over command lines", sqlite: regexp.clone(), duckdb: by_regexp, ours: regexp },
        same("GROUP BY parent", format!("SELECT parent_name, count(*), max(memory_usage) {all} GROUP BY parent_name")),
        Query {
            name: "parent-child join over a day",
            sqlite: sqlite_join,
            duckdb: ours_join.clone(),
            ours: ours_join,
        },
        same(
            "top-N by memory",
            format!("SELECT time, pid, name, memory_usage {all} ORDER BY memory_usage DESC, time LIMIT 20"),
        ),
    ]
}

/// Each query, warm: the middle of several rounds.
pub(crate) fn measure(store: &Arc<Store>, suite: &[Query]) -> Vec<Outcome> {
    let asker = Asker::new(store);
    suite.iter().map(|query| measure_one(&asker, &query.ours, ROUNDS)).collect()
}

/// Those of the queries whose name has `only` in it, over a store that is full.
pub(crate) fn again(store: &Arc<Store>, only: &str) {
    let asker = Asker::new(store);
    for query in suite(store).iter().filter(|query| query.name.contains(only)) {
        let outcome = measure_one(&asker, &query.ours, MANY_ROUNDS);
        println!("| {} ({} rows) | {:.2} ms |", query.name, outcome.rows.len(), outcome.p50.as_secs_f64() * 1e3);
    }
}

fn measure_one(asker: &Asker, sql: &str, rounds: usize) -> Outcome {
    let mut times = Vec::new();
    let (mut rows, mut lacks) = (Vec::new(), String::new());
    for round in 0..WARM + rounds {
        let began = Instant::now();
        (rows, lacks) = asker.ask(sql);
        let took = began.elapsed();
        if round >= WARM {
            times.push(took);
        }
        if took > LONG && times.len() >= ROUNDS_IF_LONG {
            break;
        }
    }
    times.sort();
    let rows = rows.iter().map(|row| row.iter().map(plain).collect()).collect();
    Outcome { p50: times.get(times.len() / 2).copied().unwrap(), rows, lacks }
}

/// A value in the form in which answers are compared.
fn plain(value: &Option<Kind>) -> Value {
    match value {
        None => Value::Null,
        Some(Kind::Boolean(value)) => json!(i64::from(*value)),
        Some(Kind::Integer(value) | Kind::TimestampUs(value)) => json!(value),
        Some(Kind::Real(value)) => json!(value),
        Some(Kind::Text(value)) => json!(value),
        Some(Kind::Blob(value)) => json!(hex::encode(value)),
    }
}
