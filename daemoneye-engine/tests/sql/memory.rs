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

/// Says to the program that it runs this test alone.
const ALONE: &str = "DAEMONEYE_TEST_ALONE";

/// Three times the default of `query.memory_bytes`, for what a debug build and the allocator add.
const GROWTH_KIB: u64 = 192 * 1024;

/// The highest resident size of this process so far, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn joins_without_columns_are_capped_before_their_batches_fill_the_memory() {
    if std::env::var_os(ALONE).is_none() {
        let name = "memory::joins_without_columns_are_capped_before_their_batches_fill_the_memory";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let ended = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success() && told.contains("1 passed"),
            "{told}{}",
            String::from_utf8_lossy(&ended.stderr)
        );
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
