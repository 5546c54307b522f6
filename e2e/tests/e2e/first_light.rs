//! One real process event travels from the process table to an alert, the store, a query and the ledger.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use daemoneye_lib::ledger::LedgerReader;
use e2e::{Home, copy_program, processes_on, wait_for};
use serde_json::Value;

/// A copy of `sleep` under a hidden name in a fresh directory under /tmp, running for longer than a test.
pub(crate) struct Hidden {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) child: Child,
}

impl Hidden {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
        let path = dir.path().join(".hidden");
        copy_program("/bin/sleep", &path).unwrap();
        let child = Command::new(&path).arg("300").stdin(Stdio::null()).spawn().unwrap();
        Self { _dir: dir, path, child }
    }

    pub(crate) fn stop(self) {}
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether the ledger, as far as it is written, verifies and has an entry about the raising of this alert.
fn is_audited(home: &Home, id: &str) -> anyhow::Result<bool> {
    for record in LedgerReader::open(&home.data().join("audit"))? {
        let record = record?;
        let payload: Value = serde_json::from_slice(&record.payload)?;
        if record.entry.action == "alert" && payload["alert"] == id {
            return Ok(true);
        }
    }
    Ok(false)
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

    // By its path: a test beside this one may have a hidden program too.
    let path = hidden.path.display();
    let sql = format!("SELECT pid, name, command_line FROM process_events WHERE executable_path = '{path}'");
    let rows = home.query(&sql).unwrap();
    assert_eq!(rows[0]["pid"], pid);
    assert_eq!(rows[0]["command_line"], format!("{} 300", hidden.path.display()));

    let id = alert["id"].as_str().unwrap();
    let listed = home.answer(&["alerts", "list", "--limit", "1000000"]).unwrap();
    assert!(listed.as_array().unwrap().iter().any(|row| row["id"] == id), "{listed}");
    let shown = home.json(&["alerts", "show", id]).unwrap();
    assert_eq!(shown["events"], alert["events"]);

    let running = home.answer(&["processes"]).unwrap();
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

    wait_for("the alert's ledger entry", || Ok(is_audited(&home, id)?.then_some(()))).unwrap();

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
    let listed = home.json(&["rules", "list", "--store", home.data().to_str().unwrap()]).unwrap();
    assert!(!listed.as_array().unwrap().is_empty(), "the copied store knows its rules");
    assert!(home.cli(&["audit", "verify"]).unwrap().status.success());
}

/// Path and text of everything in a document that is neither an object nor an array.
fn leaves(path: &str, document: &Value, found: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match document {
        Value::Object(fields) => fields.iter().for_each(|(key, inner)| leaves(&below(key), inner, found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, inner)| leaves(&below(&at.to_string()), inner, found));
        }
        Value::Null => drop(found.insert(path.to_owned(), String::new())),
        Value::String(text) => drop(found.insert(path.to_owned(), text.clone())),
        leaf => drop(found.insert(path.to_owned(), leaf.to_string())),
    }
}

/// What a command says in one format, as the leaves of the JSON that it stands for; of a table the text.
fn said(home: &Home, command: &[&str], format: &str) -> anyhow::Result<(BTreeMap<String, String>, String)> {
    let text = String::from_utf8(home.cli(&[command, &["--format", format]].concat())?.stdout)?;
    let mut found = BTreeMap::new();
    match format {
        "json" => leaves("", &serde_json::from_str(&text)?, &mut found),
        "jsonl" => {
            let mut rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
            let whole = if command == ["health"] { rows.remove(0) } else { Value::Array(rows) };
            leaves("", &whole, &mut found);
        }
        "csv" => {
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let heading = reader.headers()?.clone();
            for (at, record) in reader.records().enumerate() {
                let record = record?;
                if command == ["health"] {
                    found.insert(record[0].to_owned(), record[1].to_owned());
                    continue;
                }
                let cells = heading.iter().zip(&record);
                found.extend(cells.map(|(column, cell)| (format!("{at}.{column}"), cell.to_owned())));
            }
        }
        _ => {}
    }
    if command == ["health"] {
        // It counts and measures all the time, as `1`, `1.5` or `1:5`; what it counts, and every word, stays.
        let counts = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || ".:".contains(c));
        found.values_mut().filter(|text| counts(text)).for_each(|text| "#".clone_into(text));
    }
    Ok((found, text))
}

/// Compares csv, jsonl and table with json, in a moment in which nothing changes.
fn compare_formats(home: &Home, command: &[&str]) {
    for format in ["csv", "jsonl", "table"] {
        let (truth, found, text) = wait_for("two equal answers around a third", || {
            let (before, _) = said(home, command, "json")?;
            let (found, text) = said(home, command, format)?;
            Ok((said(home, command, "json")?.0 == before).then_some((before, found, text)))
        })
        .unwrap();
        assert!(truth.len() > 2, "{command:?}: {truth:?}");
        if format == "table" {
            let missing: Vec<_> = truth.values().filter(|leaf| *leaf != "#" && !text.contains(*leaf)).collect();
            assert!(missing.is_empty(), "{command:?}: {missing:?} in no table: {text}");
        } else {
            assert_eq!(found, truth, "{command:?} {format}");
        }
    }
}

/// The only rule of the tests' own.
const EDITED: &str = "3d9f2c1e-7a54-4b0e-9a51-0c8c5f3f7a01";

/// A rule for the starts of this name.
fn write_rule(dir: &Path, name: &str) {
    let rule = format!(
        "id: {EDITED}\nname: edited\ndescription: edited\nauthor: test\nseverity: low\ncategory: process_creation\n\
         sql: SELECT pid FROM process_events WHERE event_type = 'start' AND name = '{name}'\n"
    );
    fs::write(dir.join("edited.yaml"), rule).unwrap();
}

#[test]
fn every_format_says_the_same() {
    // One rule, so that what other tests start leaves the list of alerts alone.
    let rules = tempfile::tempdir().unwrap();
    write_rule(rules.path(), ".hidden");
    let home = Home::new().unwrap().rules(rules.path().to_owned());
    let agent = home.start_ready().unwrap();
    let sql = "SELECT 1 AS one, 'a,\"b' AS text, NULL AS nothing";
    for (format, expected) in [
        ("csv", "one,text,nothing\n1,\"a,\"\"b\",\n".to_owned()),
        ("jsonl", "{\"one\":1,\"text\":\"a,\\\"b\",\"nothing\":null}\n".to_owned()),
        ("table", "one  text  nothing\n1    a,\"b\n".to_owned()),
    ] {
        let output = home.cli(&["query", sql, "--format", format]).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{format}");
    }
    let hidden = Hidden::start();
    wait_for("the alert", || Ok(alert_for(&home.delivered()?, &hidden.path))).unwrap();
    let commands: [&[&str]; 5] =
        [&["query", sql], &["processes", "--name", ".hidden"], &["alerts", "list"], &["rules", "list"], &["health"]];
    commands.iter().for_each(|command| compare_formats(&home, command));
    hidden.stop();
    assert_eq!(agent.stop().unwrap().0.code(), Some(0));
    compare_formats(&home, &["audit", "verify"]);
}

#[test]
fn an_edited_rule_is_in_force_without_a_restart() {
    let rules = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(e2e::builtin_rules()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, rules.path().join(path.file_name().unwrap())).unwrap();
    }
    let write = |name: &str| write_rule(rules.path(), name);
    write("never-there");
    let home = Home::new().unwrap().rules(rules.path().to_owned());
    let _agent = home.start_ready().unwrap();
    let version = || -> anyhow::Result<Value> {
        let listed = home.json(&["rules", "list"])?;
        let edited = listed.as_array().unwrap().iter().find(|rule| rule["id"] == EDITED);
        Ok(edited.unwrap()["version"].clone())
    };
    let first = version().unwrap();
    assert!(first.is_number(), "{first}");
    let raised = |pid: u32| -> anyhow::Result<Option<Value>> {
        Ok(home.delivered()?.into_iter().find(|alert| alert["rule_id"] == EDITED && alert["process"]["pid"] == pid))
    };
    let before = Hidden::start();
    wait_for("the alert of another rule", || Ok(alert_for(&home.delivered()?, &before.path))).unwrap();

    fs::write(rules.path().join("broken.yaml"), "id: [").unwrap();
    write(".hidden");
    let second = wait_for("the new version", || Ok(Some(version()?).filter(|now| *now != first))).unwrap();
    let after = Hidden::start();
    let alert = wait_for("the edited rule's alert", || raised(after.child.id())).unwrap();
    assert_eq!((&alert["rule_version"], second.as_u64()), (&second, first.as_u64().map(|version| version + 1)));
    assert!(raised(before.child.id()).unwrap().is_none(), "it did not match before the edit");
    let health = home.health().unwrap();
    assert!(health.to_string().contains("broken.yaml"), "the broken file is named: {health}");
    before.stop();
    after.stop();
}
