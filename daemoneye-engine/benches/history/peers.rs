//! SQLite and DuckDB over our own rows: `peers.py` loads the segments, asks the same questions and compares the answers.
//!
//! Python is the one that `DAEMONEYE_PYTHON` names, or `python3`. What it lacks is not measured, and the table says so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::queries::{Outcome, Query};

/// Contestants in the order of the columns: what `peers.py` calls them, and the heading.
pub(crate) const CONTESTANTS: &[(&str, &str)] = &[
    ("sqlite", "SQLite, four indexes"),
    ("sqlite_entity", "SQLite, also on entity_id"),
    ("duckdb", "DuckDB, 2 threads"),
    ("duckdb_1", "DuckDB, 1 thread"),
];

/// What a peer took for one query.
pub(crate) struct Answered {
    pub(crate) p50_ms: f64,
    /// How its answer differs from ours; empty when it does not.
    pub(crate) differs: String,
}

/// What one peer did.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) version: String,
    pub(crate) rows_per_second: Option<f64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) answers: BTreeMap<String, Answered>,
}

/// The peers by name; one that is missing was not measured.
pub(crate) type Peers = BTreeMap<String, Peer>;

pub(crate) fn measure(store: &Path, suite: &[Query], ours: &[Outcome]) -> Peers {
    let scratch = tempfile::tempdir_in(store).unwrap();
    let questions: Vec<Value> = suite.iter().zip(ours).map(|(query, outcome)| question(query, outcome)).collect();
    let told = json!({
        "segments": store.join("segments"),
        "scratch": scratch.path(),
        "questions": questions,
    });
    let (input, output) = (scratch.path().join("questions.json"), scratch.path().join("answers.json"));
    std::fs::write(&input, told.to_string()).unwrap();
    let python = std::env::var_os("DAEMONEYE_PYTHON").unwrap_or_else(|| OsString::from("python3"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/history/peers.py");
    let status = Command::new(&python).arg(script).arg(&input).arg(&output).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => {}
        other => eprintln!("{}: {other:?}; the peers are not measured", python.display()),
    }
    // Without it nobody was measured.
    let Ok(text) = std::fs::read_to_string(&output) else { return Peers::new() };
    let Ok(Value::Object(answers)) = serde_json::from_str(&text) else { return Peers::new() };
    answers.iter().map(|(name, told)| (name.clone(), peer(told))).collect()
}

fn question(query: &Query, outcome: &Outcome) -> Value {
    json!({
        "name": query.name,
        "sqlite": query.sqlite,
        "duckdb": query.duckdb,
        "rows": outcome.rows,
    })
}

fn peer(told: &Value) -> Peer {
    let answers = told.get("answers").and_then(Value::as_object).into_iter().flatten();
    let answers = answers.filter_map(|(name, answer)| {
        let differs = answer.get("differs").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((name.clone(), Answered { p50_ms: answer.get("p50_ms")?.as_f64()?, differs }))
    });
    Peer {
        version: told.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
        rows_per_second: told.get("rows_per_second").and_then(Value::as_f64),
        bytes: told.get("bytes").and_then(Value::as_u64),
        answers: answers.collect(),
    }
}
