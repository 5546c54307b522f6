//! What operators do with the store as a whole while the programs run: copies, checks, exports, the shell.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use e2e::{Home, wait_for};
use serde_json::Value;

use crate::first_light::Hidden;

/// Path and hash of every file below `dir`.
fn hashes(dir: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(hashes(&path));
        } else if path.is_file() {
            found.insert(path.clone(), blake3::hash(&fs::read(&path).unwrap()));
        }
    }
    found
}

fn said(output: &Output) -> String {
    format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn count_of(home: &Home, store: &Path, name: &str) -> (i64, Option<i32>) {
    let sql = format!("SELECT count(*) AS n FROM process_events WHERE name = '{name}'");
    let output = home.cli(&["query", "--store", store.to_str().unwrap(), &sql, "--format", "json"]).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    (rows[0]["n"].as_i64().unwrap(), output.status.code())
}

fn shell(home: &Home, args: &[&str], script: &str) -> Output {
    let mut command = home.cli_command(&[&["shell"], args].concat()).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A home of which the agent has stored the start of `.hidden`.
fn with_event(home: &Home) -> Hidden {
    let hidden = Hidden::start();
    let own = format!("SELECT 1 FROM process_events WHERE executable_path = '{}'", hidden.path.display());
    wait_for("the event", || Ok(home.query(&own)?.pop())).unwrap();
    hidden
}

#[test]
fn a_backup_of_a_running_agent_is_sound_answers_and_is_audited() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = with_event(&home);
    let dir = home.path().join("backup/first");
    let told = home.json(&["data", "backup", dir.to_str().unwrap()]).unwrap();
    assert!(told["files"].as_u64().unwrap() >= 3, "{told}");
    let again = home.cli(&["data", "backup", dir.to_str().unwrap()]).unwrap();
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("not empty"), "{}", said(&again));

    let before = hashes(&dir);
    let (rows, code) = count_of(&home, &dir, ".hidden");
    assert!(rows >= 1 && matches!(code, Some(0 | 3)), "what was in memory is in the copy: {rows} {code:?}");
    let sound = home.json(&["data", "fsck", "--store", dir.to_str().unwrap()]).unwrap();
    assert_eq!(sound["problems"], serde_json::json!([]), "{sound}");
    assert_eq!(hashes(&dir), before, "nothing that reads a copy changes it");

    let live = home.json(&["data", "fsck"]).unwrap();
    assert!(live["finished"] == true && live["values"].as_u64().unwrap() > 0, "{live}");
    let entries = || {
        let ledger = fs::read(home.data().join("audit/entries-00001.log")).unwrap_or_default();
        Ok(ledger.windows(b"data-backup".len()).any(|bytes| bytes == b"data-backup").then_some(()))
    };
    wait_for("the ledger's entry", entries).unwrap();

    let victim = before.keys().find(|path| path.extension().is_some_and(|end| end == "parquet")).unwrap();
    let mut bytes = fs::read(victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(victim, bytes).unwrap();
    let damaged = home.cli(&["data", "fsck", "--store", dir.to_str().unwrap()]).unwrap();
    assert_eq!(damaged.status.code(), Some(1), "{}", said(&damaged));
    assert!(said(&damaged).contains(victim.file_name().unwrap().to_str().unwrap()), "{}", said(&damaged));
    hidden.stop();
    agent.stop().unwrap();
}

/// Step by step what docs/history.md says. What was stored after the backup, and is in no log any more, is missing and told.
#[test]
fn a_backup_is_put_back_as_the_documentation_says() {
    let home = Home::new().unwrap().set("STORE__SEAL_MS", "300");
    let agent = home.start_ready().unwrap();
    let hidden = with_event(&home);
    let path = hidden.path.display().to_string();
    hidden.stop();
    let backup = home.path().join("backup");
    home.json(&["data", "backup", backup.to_str().unwrap()]).unwrap();
    let sound = home.json(&["data", "fsck", "--store", backup.to_str().unwrap()]).unwrap();
    assert_eq!(sound["problems"], serde_json::json!([]), "{sound}");
    let later = with_event(&home);
    let of_later = format!("SELECT time FROM process_events WHERE executable_path = '{}'", later.path.display());
    let lost = home.query(&of_later).unwrap()[0]["time"].as_str().unwrap().to_owned();
    later.stop();
    agent.stop().unwrap();
    // Each run of the collector begins a segment of its log; what the agent has stored of those before goes.
    let agent = home.start_ready().unwrap();
    let first = home.data().join("wal/procmond-00001.wal");
    wait_for("the log to let go of what is stored", || Ok((!first.exists()).then_some(()))).unwrap();
    agent.stop().unwrap();

    let (data, aside) = (home.data(), home.path().join("aside"));
    fs::create_dir(&aside).unwrap();
    for part in ["state.redb", "segments"] {
        fs::rename(data.join(part), aside.join(part)).unwrap();
        let copied = Command::new("cp").arg("-a").arg(backup.join(part)).arg(data.join(part)).status().unwrap();
        assert!(copied.success());
    }
    let agent = home.start_ready().unwrap();
    let own = format!("SELECT 1 FROM process_events WHERE executable_path = '{path}'");
    assert!(!home.query(&own).unwrap().is_empty(), "what the backup had is there");
    let told = "SELECT collector, count FROM coverage WHERE reason = 'not_received'";
    let gap = wait_for("the gap", || Ok(home.query(told)?.pop())).unwrap();
    assert!(gap["collector"] == "procmond" && gap["count"].as_u64() > Some(0), "{gap}");
    let then = format!("SELECT pid FROM process_events WHERE time BETWEEN '{lost}' AND '{lost}'");
    let output = home.cli(&["query", &then]).unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("not_received"), "{}", said(&output));
    with_event(&home).stop();
    assert_eq!(home.query(told).unwrap(), [gap], "once");
    let live = home.json(&["data", "fsck"]).unwrap();
    assert_eq!(live["problems"], serde_json::json!([]), "{live}");
    agent.stop().unwrap();
}

#[test]
fn a_directory_copied_live_or_from_a_killed_host_answers_and_is_not_touched() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = with_event(&home);
    let copy = |name: &str| {
        let to = home.path().join(name);
        // Files come and go while it copies; what it misses is in the log or told.
        let _status = Command::new("cp").arg("-a").arg(home.data()).arg(&to).stderr(Stdio::null()).status().unwrap();
        to
    };
    let live = copy("copied-live");
    // With the host its collector dies as well.
    let procmond = home.procmond_pid().unwrap();
    agent.kill_all().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(procmond), nix::sys::signal::Signal::SIGKILL).unwrap();
    let dead = copy("copied-dead");
    for dir in [&live, &dead] {
        let before = hashes(dir);
        let (rows, _) = count_of(&home, dir, ".hidden");
        assert!(rows >= 1, "{}", dir.display());
        let stats = home.json(&["data", "stats", "--store", dir.to_str().unwrap()]).unwrap();
        assert!(stats["open_rows"].as_u64().unwrap() > 0, "what was not sealed comes from the log: {stats}");
        let output = shell(
            &home,
            &["--store", dir.to_str().unwrap(), "--format", "csv"],
            "SELECT count(*) AS n FROM processes;",
        );
        assert!(said(&output).contains("n\n"), "{}", said(&output));
        if dir == &dead {
            let sound = home.json(&["data", "fsck", "--store", dir.to_str().unwrap()]).unwrap();
            assert_eq!(sound["problems"], serde_json::json!([]), "a kill damages nothing: {sound}");
        }
        assert_eq!(hashes(dir), before, "{}", dir.display());
    }
    // All that was left of a host, perhaps: the log has what was not sealed.
    let logs = home.path().join("only-logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::rename(dead.join("wal"), logs.join("wal")).unwrap();
    assert!(count_of(&home, &logs, ".hidden").0 >= 1);
    hidden.stop();
}

#[test]
fn exports_hold_the_rows_of_the_query_in_every_format_and_a_vacuum_costs_none() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let hidden = with_event(&home);
    let file = |name: &str| home.path().join(name);
    let export = |name: &str, more: &[&str]| {
        let path = file(name);
        let args = [&["data", "export", "--output", path.to_str().unwrap()], more].concat();
        let output = home.cli(&args).unwrap();
        assert!(output.status.success(), "{args:?} {}", said(&output));
        fs::read(path).unwrap()
    };
    let hidden_only = ["--where", "name = '.hidden' -- only this"];
    let csv = String::from_utf8(export("rows.csv", &hidden_only)).unwrap();
    assert!(csv.lines().count() >= 2 && csv.contains(".hidden"), "{csv}");
    // By its path: a test beside this one may have a hidden program too.
    let own = format!("SELECT pid, name FROM process_events WHERE executable_path = '{}'", hidden.path.display());
    let lines = String::from_utf8(export("rows.jsonl", &[&own])).unwrap();
    let row: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&row["name"], &row["pid"]), (&Value::from(".hidden"), &Value::from(hidden.child.id())));
    let parquet = export("rows.parquet", &["--to", "2100-01-01T00:00:00Z"]);
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));

    let vacuumed = home.json(&["data", "vacuum"]).unwrap();
    assert!(vacuumed["complete"] == true && vacuumed["segments_after"].is_u64(), "{vacuumed}");
    let rows = home.query("SELECT count(*) AS n FROM process_events WHERE name = '.hidden'").unwrap();
    assert!(rows[0]["n"].as_u64().unwrap() >= 1, "what is merged answers as before");
    assert_eq!(home.json(&["data", "fsck"]).unwrap()["problems"], serde_json::json!([]));

    let refused = home.cli(&["data", "export", "--output", file("no.csv").to_str().unwrap(), "DROP TABLE x"]).unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(!file("no.csv").exists(), "a file that did not become whole goes again");
    let refused = home.cli(&["query", "SELECT pid FROM process_events; DELETE FROM alerts"]).unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let refused = home.cli(&["query", "SELECT no_such_column FROM process_events"]).unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let long = home.path().join("long.sql");
    fs::write(&long, format!("SELECT pid FROM process_events WHERE {}", vec!["pid = 1"; 20_000].join(" OR ")))
        .unwrap();
    let refused = home.cli_command(&["query", "-"]).unwrap().stdin(fs::File::open(&long).unwrap()).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let told =
        "SELECT action, payload FROM audit_entries WHERE action IN ('data-export', 'query-refused') ORDER BY sequence";
    let entries = wait_for("the ledger's entries", || Ok(home.query(told).ok().filter(|rows| rows.len() >= 7)));
    let entries = entries.unwrap_or_else(|error| panic!("{error:#}\n{:?}\n{}", home.query(told), agent.transcript()));
    let payloads = |action: &str| -> Vec<Value> {
        let of = entries.iter().filter(|row| row["action"] == action);
        of.map(|row| serde_json::from_str(row["payload"].as_str().unwrap()).unwrap()).collect()
    };
    let exports = payloads("data-export");
    assert_eq!(
        exports.iter().map(|entry| &entry["as"]).collect::<Vec<_>>(),
        ["rows", "rows", "parquet"],
        "{exports:?}"
    );
    assert!(exports[0]["sql"].as_str().unwrap().contains(".hidden"), "{exports:?}");
    let refusals = payloads("query-refused");
    assert_eq!(
        refusals[0]["sql"], "DROP TABLE x",
        "an export that is refused is told as a query that is: {refusals:?}"
    );
    assert!(refusals[1]["sql"].as_str().unwrap().ends_with("DELETE FROM alerts"), "{refusals:?}");
    assert!(refusals[2]["sql"].as_str().unwrap().contains("no_such_column"), "{refusals:?}");
    assert!(refusals[3]["message"].as_str().unwrap().contains("more than 65536"), "{refusals:?}");
    let told = refusals.iter().take(3).all(|entry| entry["message"].is_string() && entry["line"] == 1);
    assert!(told, "{refusals:?}");
    hidden.stop();
    agent.stop().unwrap();
}

#[test]
fn a_script_of_statements_runs_in_the_shell_and_its_first_failure_is_the_exit_code() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let script = ".mode csv\nSELECT 1 AS a; -- one\nSELECT ';' AS b\n;\nSELEC 2;\n.nothing\nSELECT 3 AS c";
    let output = shell(&home, &[], script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\n1\nb\n;\nc\n3\n", "{}", said(&output));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("| SELEC 2\n") && errors.contains("^") && errors.contains(".nothing"), "{errors}");
    assert_eq!(output.status.code(), Some(5), "the refused statement came before the unknown command");
    let read = home.answer(&["query", "--explain", "SELECT name FROM process_events WHERE pid = 1"]).unwrap();
    assert!(read["segments"]["total"].is_u64() && read["operators"][0]["name"].is_string(), "{read}");
    let explained = shell(&home, &[], ".explain SELECT pid\n FROM process_events;");
    assert!(
        said(&explained).contains("row groups  ") && said(&explained).contains("operator\n"),
        "{}",
        said(&explained)
    );

    let schema = shell(&home, &[], ".tables\n.schema processes\n.quit\nSELECT 1;");
    assert!(said(&schema).contains("process_events") && said(&schema).contains("parent_name"), "{}", said(&schema));
    assert_eq!(schema.status.code(), Some(0));
    agent.stop().unwrap();
}
