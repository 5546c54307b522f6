//! What the agent takes beside a long history: its memory at rest, after queries and after one that explodes, and the size of
//! its program. The real programs over the store that the suite `history` has left.
//!
//! Prints one Markdown table. Reports; never fails because something was large.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{Agent, Home, program};

/// What an operator asks; the last one cannot end before its deadline.
const ASKED: &[&str] = &[
    "SELECT time, pid, name FROM process_events ORDER BY time DESC LIMIT 100",
    "SELECT count(*) FROM process_events WHERE command_line LIKE '%unit_42%'",
    "SELECT count(*) FROM process_events WHERE command_line REGEXP 'unit_[0-9]+7\\.c'",
    "SELECT parent_name, count(*), max(memory_usage) FROM process_events GROUP BY parent_name",
    "SELECT time, pid, name, memory_usage FROM process_events ORDER BY memory_usage DESC, time LIMIT 20",
    "SELECT * FROM process_events WHERE executable_hash = 'f00d'",
];
const EXPLODES: &[&str] = &[
    "SELECT command_line, count(*) AS n FROM process_events GROUP BY command_line, entity_id ORDER BY n DESC LIMIT 5",
    "SELECT count(*) FROM process_events AS a, process_events AS b WHERE a.memory_usage + b.memory_usage = 7",
];
/// Time in which the agent comes to rest after its start.
const SETTLE: Duration = Duration::from_secs(10);

fn main() {
    // Only `cargo bench` passes this flag; `cargo test --benches` has nothing to measure without release speed.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    println!("| figure | value |\n|---|---|");
    program_size();
    match std::env::var_os("DAEMONEYE_BENCH_STORE") {
        Some(store) => memory(Path::new(&store)),
        None => println!("| agent over a long history | not measured: `cargo xtask bench history` leaves the store |"),
    }
}

/// The `bench` profile is not stripped and links without LTO, so both come off a copy as far as they can.
fn program_size() {
    let built = program("daemoneye-agent").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("daemoneye-agent");
    let stripped =
        Command::new("strip").arg("-o").arg(&copy).arg(&built).status().is_ok_and(|status| status.success());
    let what = if stripped { "stripped" } else { "with its symbols: no `strip` here" };
    let bytes = fs::metadata(if stripped { &copy } else { &built }).unwrap().len();
    println!("| program of the agent, `bench` profile (no LTO), {what} | {:.1} MB |", bytes as f64 / 1e6);
}

fn memory(store: &Path) {
    let home = Home::new().unwrap().set("PROCMOND__SNAPSHOT_INTERVAL_MS", "5000");
    let home = home.set("STORE__RETENTION_DAYS", "36500");
    linked(store, &home.data());
    let began = Instant::now();
    let agent = home.start_ready().unwrap();
    println!("| agent over the store: start until steady | {:.1} s |", began.elapsed().as_secs_f64());
    std::thread::park_timeout(SETTLE);
    row("at rest", &agent);
    ask(&home, ASKED);
    row("after six queries", &agent);
    ask(&home, EXPLODES);
    row("after two that do not fit", &agent);
    agent.stop().unwrap();
}

/// The same files under another name: the agent never writes into a segment.
fn linked(store: &Path, data: &Path) {
    fs::create_dir_all(data.join("segments")).unwrap();
    for entry in fs::read_dir(store.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        fs::hard_link(&path, data.join("segments").join(path.file_name().unwrap()))
            .or_else(|_| fs::copy(&path, data.join("segments").join(path.file_name().unwrap())).map(drop))
            .unwrap();
    }
    fs::copy(store.join("state.redb"), data.join("state.redb")).unwrap();
}

fn ask(home: &Home, queries: &[&str]) {
    for sql in queries {
        let output = home.cli(&["query", sql, "--format", "jsonl"]).unwrap();
        // 3: an answer that is not all of it, which those that do not fit are meant to get.
        if !matches!(output.status.code(), Some(0 | 3)) {
            println!("| query failed: {sql} | {} |", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
}

fn row(when: &str, agent: &Agent) {
    let worker = agent.worker().unwrap();
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let megabytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
    };
    println!(
        "| agent's worker over the store, {when} | RSS {:.1} MB, of it anonymous {:.1} MB; peak so far {:.1} MB |",
        megabytes("VmRSS:"),
        megabytes("RssAnon:"),
        megabytes("VmHWM:")
    );
}
