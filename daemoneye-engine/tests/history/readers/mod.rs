//! History as others read it: our files, sealed and merged, through pyarrow and DuckDB, beside our own answers.
//!
//! Needs a Python with both modules: the one that `DAEMONEYE_PYTHON` names, or `python3`. Where it lacks them the test says so
//! and is skipped, unless the variable is set.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits};
use daemoneye_lib::proto::{QueryRequest, Value, value::Kind};

use super::*;

const PYTHON: &str = "DAEMONEYE_PYTHON";

/// One question in our SQL; the scripts ask the same of the files.
const QUESTIONS: &[&str] = &[
    "SELECT count(*) FROM process_events",
    "SELECT count(*) FROM process_events WHERE event_type = 'start' AND name = 'bash'",
    "SELECT min(seq), max(seq) FROM process_events",
    "SELECT entity_id, pid, command_line FROM process_events WHERE seq = 4711",
    "SELECT count(*), sum(runtime_ms) FROM process_lifetimes WHERE stop_time IS NOT NULL AND end_observed",
    "SELECT name, count(*) AS n FROM process_lifetimes WHERE stop_time IS NOT NULL GROUP BY name ORDER BY n DESC, name LIMIT 3",
];

/// The Python to ask, or why there is none.
fn python() -> Result<String, String> {
    let asked = std::env::var(PYTHON).ok();
    let python = asked.clone().unwrap_or_else(|| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import duckdb, pyarrow.parquet"]).output();
    match (found, asked) {
        (Ok(found), _) if found.status.success() => Ok(python),
        (found, Some(_)) => panic!("{PYTHON} is {python}, which cannot import duckdb and pyarrow: {found:?}"),
        (_, None) => Err(format!("{python} has no duckdb and pyarrow: pip install duckdb pyarrow")),
    }
}

fn shown(value: &Value) -> String {
    match &value.kind {
        None => "NULL".to_owned(),
        Some(Kind::Integer(value)) => value.to_string(),
        Some(Kind::Text(value)) => value.clone(),
        Some(other) => format!("{other:?}"),
    }
}

/// Our own answer, complete.
async fn ours(store: &Arc<Store>, sql: &str) -> String {
    let engine = QueryEngine::new(Arc::clone(store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap();
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    let mut run = engine.query(request, CancellationToken::new()).await.unwrap();
    let mut rows = Vec::new();
    while let Some(page) = run.next_page().await.unwrap() {
        let line = |values: &[Value]| values.iter().map(shown).collect::<Vec<_>>().join("|");
        rows.extend(page.rows.iter().map(|row| line(&row.values)));
    }
    assert_eq!(run.done().completeness.unwrap().degraded, Vec::<String>::new(), "{sql}");
    rows.join("\n")
}

/// A day that was merged, hours of the next one that were, and what was sealed since: events and lifetimes alike.
fn of_every_level(store: &Store) {
    let mut collector = Collector::with_ends("procmond", 7);
    let mut half_hours = |from_hour: i64, hours: i64| {
        for half in 0..hours * 2 {
            seal(store, collector.events(1_000, T0 + from_hour * HOUR_US + half * HOUR_US / 2, 1_000_000));
        }
    };
    half_hours(2, 2);
    half_hours(24, 2);
    compact(store, T0 + 26 * HOUR_US + HOUR_US / 2);
    half_hours(27, 1);
    let files = store.snapshot();
    for files in [&files.segments, &files.lifetimes] {
        let levels: BTreeSet<u8> = files.iter().map(|file| file.level).collect();
        assert_eq!(levels, BTreeSet::from([0, 1, 2]), "{} files", files.len());
    }
}

#[tokio::test]
async fn pyarrow_and_duckdb_read_sealed_and_merged_files_as_we_do() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return println!("skipped: {why}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    of_every_level(&store);
    let mut answers = Vec::new();
    for question in QUESTIONS {
        answers.push(ours(&store, question).await);
    }
    assert!(answers.iter().all(|answer| !answer.is_empty() && answer != "0"), "{answers:?}");
    for script in [include_str!("duckdb.py"), include_str!("pyarrow.py")] {
        let asked = Command::new(&python).arg("-c").arg(script).arg(dir.path().join("segments")).output().unwrap();
        let told = String::from_utf8_lossy(&asked.stdout).replace("\r\n", "\n");
        let complaint = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(asked.status.success(), "{complaint}");
        let theirs: Vec<&str> = told.trim_end_matches('\n').split("\n--\n").collect();
        assert_eq!(theirs, answers, "{complaint}");
    }
}
