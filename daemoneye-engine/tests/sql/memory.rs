//! The memory of a query whose joins carry no columns. It looks at the peak of a whole process, so this program starts itself
//! once more with that test alone.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest;
use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits};
use daemoneye_engine::store::{Store, StoreOptions};
use daemoneye_lib::proto::QueryRequest;
use tokio_util::sync::CancellationToken;

use super::system;

/// Says to the program that it runs this test alone.
const ALONE: &str = "DAEMONEYE_TEST_ALONE";

/// Three times the default of `query.memory_bytes`, for what a debug build and the allocator add.
const GROWTH_KIB: u64 = 192 * 1024;

/// Some batches of alerts and what is made of them; all of them are 40 MiB as they are stored, and a multiple as they are read.
const ALERTS_KIB: u64 = 24 * 1024;

/// The highest resident size of this process so far, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Runs that test in a program of its own; false: this is that program.
fn ran_alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let ended = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    true
}

#[tokio::test]
async fn many_alerts_are_read_a_few_at_a_time() {
    if ran_alone("memory::many_alerts_are_read_a_few_at_a_time") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = system::open(dir.path());
    for seed in 0..20 {
        system::raise(&store, seed, 1_000);
    }
    let engine = system::engine(&store, Arc::new(NoCollectors));
    let count = |condition: &str| format!("SELECT count(*) FROM alerts{condition}");
    let all = (vec!["20000".to_owned()], Vec::new());
    // What planning and running take once.
    assert_eq!(system::answer(&engine, &count("")).await.unwrap(), all);
    let before = peak_kib();
    assert_eq!(system::answer(&engine, &count(" WHERE length(row) > 0 AND length(process) > 0")).await.unwrap(), all);
    match before.zip(peak_kib()) {
        Some((before, after)) => assert!(after - before < ALERTS_KIB, "grew from {before} to {after} KiB"),
        None => eprintln!("skipped: this system does not tell the peak size of a process"),
    }
}

#[tokio::test]
async fn joins_without_columns_are_capped_before_their_batches_fill_the_memory() {
    if ran_alone("memory::joins_without_columns_are_capped_before_their_batches_fill_the_memory") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let mut generator = Generator::new(7, 1_769_860_800_000_000);
    for _ in 0..7 {
        store.append(ingest::decode("procmond", &generator.records(1_000)).unwrap()).unwrap();
    }
    store.seal().unwrap();
    let limits = QueryLimits { deadline: Duration::from_secs(120), ..QueryLimits::default() };
    let engine = QueryEngine::new(Arc::new(store), limits, Arc::new(NoCollectors)).unwrap();
    let before = peak_kib();
    // Both sides of the outer join have no end, whichever of them it gathers.
    let threes =
        |name: &str| format!("(SELECT a.pid FROM process_events a, process_events b, process_events c) {name}");
    for sql in [
        format!("SELECT count(*) FROM {}, {}", threes("x"), threes("y")),
        format!("SELECT count(*) FROM {} JOIN {} ON x.pid > y.pid", threes("x"), threes("y")),
    ] {
        let request = QueryRequest { sql: sql.clone(), ..QueryRequest::default() };
        let mut run = engine.query(request, CancellationToken::new()).await.unwrap();
        while run.next_page().await.unwrap().is_some() {}
        assert_eq!(run.done().completeness.unwrap().degraded, ["capped"], "{sql}");
    }
    match before.zip(peak_kib()) {
        Some((before, after)) => assert!(after - before < GROWTH_KIB, "grew from {before} to {after} KiB"),
        None => eprintln!("skipped: this system does not tell the peak size of a process"),
    }
}
