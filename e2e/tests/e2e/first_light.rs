//! One real process event travels from the process table to an alert, the store, a query and the ledger.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Home, processes_on, wait_for};
use serde_json::Value;

/// A copy of `sleep` under a hidden name in a fresh directory under /tmp, running.
pub(crate) struct Hidden {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) child: Child,
}

impl Hidden {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
        let path = dir.path().join(".hidden");
        fs::copy("/bin/sleep", &path).unwrap();
        let child = Command::new(&path).arg("30").stdin(Stdio::null()).spawn().unwrap();
        Self { _dir: dir, path, child }
    }

    pub(crate) fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn alert_for(alerts: &[Value], path: &Path) -> Option<Value> {
    let wanted = path.to_str().unwrap();
    alerts.iter().find(|alert| alert["process"]["executable_path"] == wanted).cloned()
}

#[test]
fn an_event_reaches_query_alert_file_and_ledger_and_its_stop_follows() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = Hidden::start();
    let pid = hidden.child.id();

    let alert = wait_for("the alert in alerts.jsonl", || Ok(alert_for(&home.delivered()?, &hidden.path))).unwrap();
    assert_eq!(alert["process"]["pid"], pid);
    assert_eq!(alert["process"]["name"], ".hidden");
    assert_eq!(alert["completeness"]["degraded"], serde_json::json!([]));

    let rows = home.query("SELECT pid, name, command_line FROM process_events WHERE name = '.hidden'").unwrap();
    assert_eq!(rows[0]["pid"], pid);
    assert_eq!(rows[0]["command_line"], format!("{} 30", hidden.path.display()));

    let id = alert["id"].as_str().unwrap();
    let listed = home.json(&["alerts", "list"]).unwrap();
    assert!(listed.as_array().unwrap().iter().any(|row| row["id"] == id), "{listed}");
    let shown = home.json(&["alerts", "show", id]).unwrap();
    assert_eq!(shown["events"], alert["events"]);

    let running = home.json(&["processes"]).unwrap();
    assert!(running.as_array().unwrap().iter().any(|row| row["pid"] == pid), "the process is alive");
    let rules = home.json(&["rules", "list"]).unwrap();
    assert!(rules.as_array().unwrap().len() >= 12, "{rules}");
    let health = home.health().unwrap();
    // Which source it is depends on the kernel and the user; that it is told does not.
    let sources = ["ebpf", "proc-connector", "procfs"];
    assert!(sources.iter().any(|source| health["source"]["name"] == *source), "{health}");

    hidden.stop();
    wait_for("the stop", || {
        let sql = format!(
            "SELECT runtime_ms FROM process_events WHERE event_type = 'stop' AND pid = {pid} AND name = '.hidden'"
        );
        Ok(home.query(&sql)?.pop())
    })
    .unwrap();

    wait_for("the alert's ledger entry", || {
        let verified = home.json(&["audit", "verify"])?;
        Ok((verified[0]["entries"].as_u64() > Some(2)).then_some(()))
    })
    .unwrap();

    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
    assert!(transcript.contains(".hidden"), "the terminal shows the alert:\n{transcript}");
    wait_for("nothing left running", || Ok(processes_on(home.path())?.is_empty().then_some(()))).unwrap();

    // What was in memory at the stop is in the files now.
    let kept = home
        .cli(&[
            "query",
            "--store",
            home.data().to_str().unwrap(),
            "SELECT count(*) AS n FROM process_events WHERE name = '.hidden'",
            "--format",
            "json",
        ])
        .unwrap();
    let kept: Value = serde_json::from_slice(&kept.stdout).unwrap();
    assert!(kept[0]["n"].as_i64().unwrap() >= 2, "{kept}");
    assert!(home.cli(&["audit", "verify"]).unwrap().status.success());
}

#[test]
fn every_format_says_the_same() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let sql = "SELECT 1 AS one, 'a,\"b' AS text, NULL AS nothing";
    for (format, expected) in [
        ("csv", "one,text,nothing\n1,\"a,\"\"b\",\n".to_owned()),
        ("jsonl", "{\"one\":1,\"text\":\"a,\\\"b\",\"nothing\":null}\n".to_owned()),
    ] {
        let output = home.cli(&["query", sql, "--format", format]).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{format}");
    }
    let rows = home.query(sql).unwrap();
    assert_eq!(rows[0]["text"], "a,\"b");
}

#[test]
fn an_edited_rule_is_in_force_without_a_restart() {
    let rules = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(e2e::builtin_rules()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, rules.path().join(path.file_name().unwrap())).unwrap();
    }
    let home = Home::new().unwrap().rules(rules.path().to_owned());
    let _agent = home.start_ready().unwrap();
    let before = home.json(&["rules", "list"]).unwrap().as_array().unwrap().len();
    fs::write(rules.path().join("broken.yaml"), "id: [").unwrap();
    let extra = "id: 3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01\nname: extra\ndescription: extra\nauthor: test\nseverity: low\ncategory: process_creation\nsql: SELECT pid FROM process_events WHERE name = 'never-there'\n";
    fs::write(rules.path().join("extra.yaml"), extra).unwrap();
    wait_for("the new rule", || {
        let now = home.json(&["rules", "list"])?.as_array().map_or(0, Vec::len);
        Ok((now == before + 1).then_some(()))
    })
    .unwrap();
    let health = home.health().unwrap();
    assert!(health.to_string().contains("broken.yaml"), "the broken file is named: {health}");
}
