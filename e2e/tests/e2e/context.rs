//! What the programs together hold of a process: however short it lived, and without its secrets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{Home, copy_program, wait_for};
use serde_json::Value;

/// A copy of a program under a hidden name in a fresh directory under /tmp.
struct Program {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Program {
    fn of(original: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
        let path = dir.path().join(".short");
        copy_program(original, &path).unwrap();
        Self { _dir: dir, path }
    }

    /// Runs it to its end; its pid.
    fn run(&self, arguments: &[&str]) -> u32 {
        let mut child = Command::new(&self.path).args(arguments).stdin(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }
}

/// Whether one of these sources captures here; says so when a test has to do without.
fn captures(health: &Value, wanted: &[&str], what: &str) -> bool {
    let source = health["source"]["name"].as_str().unwrap();
    let captures = wanted.contains(&source);
    if !captures {
        assert!(std::env::var_os("DAEMONEYE_NO_SKIP").is_none(), "{source} {what}");
        println!("skipped: {source} {what}");
    }
    captures
}

/// Every byte of every file below.
fn stored(dir: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).unwrap().map_while(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => stored(&entry.path(), into),
            // One that is replaced or deleted at this moment holds nothing that its successor does not.
            Ok(kind) if kind.is_file() => into.extend(fs::read(entry.path()).unwrap_or_default()),
            _ => {}
        }
    }
}

#[test]
fn a_process_that_lives_two_milliseconds_raises_an_alert_and_its_secret_is_nowhere() {
    let home = Home::new().unwrap();
    let agent = home.start_ready().unwrap();
    let health = home.health().unwrap();
    // The connector tells that it lived; what it was is asked of /proc, which may be too late.
    if !captures(&health, &["ebpf"], "does not hold what a process was that lives for two milliseconds") {
        return;
    }
    let program = Program::of("/bin/true");
    let path = program.path.to_str().unwrap();
    let secret = format!("hunter{:08x}", std::process::id());
    let pid = program.run(&["--password", &secret, "two words"]);

    let alert = wait_for("the alert", || {
        Ok(home.delivered()?.into_iter().find(|alert| alert["process"]["executable_path"] == path))
    })
    .unwrap();
    assert_eq!(alert["process"]["pid"], pid);
    let sql = format!(
        "SELECT command_line, argc, exit_code, event_type FROM process_events WHERE pid = {pid} AND name = '.short' AND start_kind = 'exec'"
    );
    let rows = home.query(&sql).unwrap();
    let line = rows[0]["command_line"].as_str().unwrap();
    let token = line.strip_prefix(&format!("{path} --password ")).and_then(|rest| rest.strip_suffix(" two words"));
    assert!(token.is_some_and(|token| token.starts_with("[redacted:")), "{line}");
    assert_eq!(rows[0]["argc"], 4);
    assert_eq!(alert["process"]["command_line"], line);
    let shown = home.json(&["alerts", "show", alert["id"].as_str().unwrap()]).unwrap();
    assert!(shown.to_string().contains(token.unwrap()) && !shown.to_string().contains(&secret), "{shown}");

    let (status, transcript) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{transcript}");
    assert!(!transcript.contains(&secret), "{transcript}");
    let mut bytes = Vec::new();
    stored(home.path(), &mut bytes);
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(token.unwrap()), "the files hold the event");
    assert!(!holds(&secret), "a file holds the secret");
}

#[test]
fn a_host_that_keeps_secrets_says_so_in_health_and_in_the_ledger() {
    let home = Home::new().unwrap().set("PROCMOND__REDACTION", "off");
    let agent = home.start_ready().unwrap();
    let notes = home.health().unwrap()["source"]["notes"].clone();
    let told = |note: &Value| note.as_str().is_some_and(|note| note.starts_with("redaction is off"));
    assert!(notes.as_array().unwrap().iter().any(told), "{notes}");
    let sql = "SELECT payload FROM audit_entries WHERE actor = 'procmond' AND action = 'config'";
    let entry = wait_for("the settings in the ledger", || Ok(home.query(sql)?.pop())).unwrap();
    let settings: Value = serde_json::from_str(entry["payload"].as_str().unwrap()).unwrap();
    assert_eq!(settings["redaction"], "off", "{settings}");
    agent.stop().unwrap();
}

#[test]
fn the_hash_of_an_executable_joins_with_sha256sum() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let program = Program::of("/bin/sleep");
    let mut child = Command::new(&program.path).arg("300").stdin(Stdio::null()).spawn().unwrap();
    let printed = Command::new("sha256sum").arg(&program.path).output().unwrap();
    let sum = String::from_utf8(printed.stdout).unwrap()[..64].to_owned();
    let sql = format!(
        "SELECT pid, executable_path, hash_algorithm FROM process_events WHERE executable_hash = '{sum}' AND name = '.short'"
    );
    let row = wait_for("the hash", || Ok(home.query(&sql)?.pop())).unwrap();
    assert_eq!((&row["pid"], &row["hash_algorithm"]), (&child.id().into(), &"sha256".into()));
    assert_eq!(row["executable_path"], program.path.to_str().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn health_tells_the_source_its_recall_and_the_sandbox() {
    let home = Home::new().unwrap();
    let _agent = home.start_ready().unwrap();
    let health = home.health().unwrap();
    if !captures(&health, &["ebpf", "proc-connector"], "announces nothing: there is no recall") {
        return;
    }
    let program = Program::of("/bin/true");
    for _ in 0..200 {
        program.run(&[]);
    }
    let since_us = health["collectors"][0]["last_heartbeat_us"].as_i64();
    // There is none as long as a collector answers late.
    let told_anew = |collector: &Value| {
        collector["last_heartbeat_us"].as_i64() > since_us && collector["recall_percent"].is_number()
    };
    let health = wait_for("the recall, a heartbeat later", || {
        Ok(Some(home.health()?).filter(|health| told_anew(&health["collectors"][0])))
    })
    .unwrap();
    let collector = &health["collectors"][0];
    assert_eq!(collector["missed"], 0, "{health}");
    // What a busy machine lost in the kernel is counted, and the recall is less then.
    let recall = collector["recall_percent"].as_f64().unwrap();
    assert_eq!(recall < 100.0, collector["kernel_lost"].as_u64().unwrap() > 0, "{health}");
    assert!(health["source"]["reason"].is_string(), "{health}");
    for program in ["worker", "parent"] {
        let layers = health["sandbox"][program]["layers"].as_array().unwrap();
        assert!(layers.iter().any(|layer| layer["state"] == "on"), "{program}: {health}");
    }
}
