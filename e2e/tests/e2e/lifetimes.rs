//! What SQL knows of a process as a whole, and what the system says about itself in SQL.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use daemoneye_lib::ledger::verify_dir;
use daemoneye_lib::metrics::METRICS;
use e2e::{Home, copy_program, wait_for};
use serde_json::Value;

/// A shell under a name of its own that ends with 7 when it is told to.
struct Waiting {
    _dir: tempfile::TempDir,
    name: String,
    child: Child,
}

impl Waiting {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("waits-{}", std::process::id() % 10_000_000);
        let path = dir.path().join(&name);
        copy_program("/bin/sh", &path).unwrap();
        let child = Command::new(&path).args(["-c", "read word; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
        Self { _dir: dir, name, child }
    }

    fn end(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(7));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It has ended when the test went well.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The rows of one query over a copied store.
fn stored(home: &Home, sql: &str) -> Value {
    let data = home.data();
    let told = home.cli(&["query", "--store", data.to_str().unwrap(), sql, "--format", "json"]).unwrap();
    serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&told.stderr)))
}

#[test]
fn a_process_is_one_lifetime_and_is_found_at_instants_in_between_only() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let source = home.health().unwrap()["source"]["name"].as_str().unwrap().to_owned();
    let now = || home.query("SELECT now() AS t").unwrap()[0]["t"].as_str().unwrap().to_owned();
    let before = now();
    let mut waiting = Waiting::start();
    let (pid, name) = (waiting.child.id(), waiting.name.clone());
    let lifetimes = format!(
        "SELECT stop_time, end_observed, exit_code, runtime_ms FROM process_lifetimes WHERE name = '{}'",
        name
    );
    let found_at = |instant: &str| {
        let sql = format!("SELECT pid FROM processes_at('{instant}') WHERE name = '{}'", name);
        home.query(&sql).unwrap().iter().map(|row| row["pid"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let living = wait_for("its lifetime so far", || Ok(home.query(&lifetimes)?.pop())).unwrap();
    assert_eq!((&living["stop_time"], &living["exit_code"]), (&Value::Null, &Value::Null));
    let between = now();
    waiting.end();
    let over = wait_for("its end", || Ok(home.query(&lifetimes)?.into_iter().find(|row| !row["stop_time"].is_null())))
        .unwrap();
    // Only the kernel tells how it ended; a snapshot finds that it is gone.
    if source == "ebpf" || source == "proc-connector" {
        assert_eq!((&over["end_observed"], &over["exit_code"]), (&Value::Bool(true), &Value::from(7)));
        assert!(over["runtime_ms"].as_u64().is_some(), "{over}");
    } else {
        println!("skipped in part: {source} does not see how a process ends");
    }
    let (pid, nobody) = (vec![u64::from(pid)], Vec::<u64>::new());
    for (instant, expected) in [(before.as_str(), &nobody), (&between, &pid), ("now", &nobody)] {
        assert_eq!(&found_at(instant), expected, "{before} {between}");
    }

    // A killed worker loses what it had in memory; the collector tells it once more, and it stays one row.
    agent.kill_worker().unwrap();
    wait_for("the same lifetime after a kill", || {
        let asked = home.query(&lifetimes).unwrap_or_default();
        Ok((asked == [over.clone()]).then_some(()))
    })
    .unwrap();
    agent.stop().unwrap();
    assert_eq!(stored(&home, &lifetimes), Value::from(vec![over]));
    let told = format!("SELECT count(*) AS n FROM process_lifetimes WHERE name = '{}'", name);
    assert_eq!(stored(&home, &told)[0]["n"], 1);
}

#[test]
fn the_ledger_and_the_numbers_of_health_can_be_asked_in_sql() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let entries = "SELECT sequence, action, previous_hash, entry_hash FROM audit_entries ORDER BY sequence";
    let chain = wait_for("the agent's entry", || {
        let chain = home.query(entries)?;
        Ok(chain.iter().any(|row| row["action"] == "sandbox").then_some(chain))
    })
    .unwrap();
    for (place, row) in chain.iter().enumerate() {
        assert_eq!(row["sequence"], place, "{row}");
        if place > 0 {
            assert_eq!(row["previous_hash"], chain[place - 1]["entry_hash"], "{row}");
        }
    }
    let named = home.query("SELECT DISTINCT name FROM metrics").unwrap();
    let missing: Vec<&str> = METRICS
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !named.iter().any(|row| row["name"] == *name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
    let events = home.query("SELECT value FROM metrics WHERE name = 'daemoneye_events_total'").unwrap();
    assert!(events[0]["value"].as_f64().unwrap() > 0.0, "{events:?}");
    agent.stop().unwrap();
    let ledger = verify_dir(&home.data().join("audit"), |_| {}).unwrap();
    assert_eq!(stored(&home, "SELECT count(*) AS n FROM audit_entries")[0]["n"], ledger.entries);
    let copied = stored(&home, "SELECT value FROM metrics WHERE name = 'daemoneye_store_segments'");
    assert!(copied[0]["value"].as_f64().unwrap() >= 1.0, "{copied}");
}
