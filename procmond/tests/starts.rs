//! The real program, standalone, in a temporary directory.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far more than anything here takes, so that only a real fault meets it.
const DEADLINE: Duration = Duration::from_secs(60);

struct Procmond {
    child: Child,
    lines: Receiver<Value>,
    seen: VecDeque<Value>,
}

impl Procmond {
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_procmond"))
            .args(["--follow", "--snapshot-interval-ms", "100", "--log-level", "warn", "--data-dir"])
            .arg(data_dir)
            .args(more)
            .env_remove("DAEMONEYE_BROKER_SOCKET")
            .env("HOME", data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: VecDeque::new() }
    }

    /// The next event that `wanted` accepts; earlier ones are kept for [`Self::rest`].
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(event) = self.lines.recv_timeout(left) else { panic!("no {what}") };
            self.seen.push_back(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; returns how it ended and every event it printed.
    fn end(mut self) -> (ExitStatus, Vec<Value>) {
        let end = Instant::now() + DEADLINE;
        while let Ok(event) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push_back(event);
        }
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.seen).into())
    }
}

impl Drop for Procmond {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn of(program: impl AsRef<std::ffi::OsStr>) -> Self {
        Self(Command::new(program).arg("300").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn is(event: &Value, kind: &str, pid: u32) -> bool {
    event["event_type"] == kind && event["pid"] == pid
}

#[test]
fn it_sees_itself_a_childs_start_and_stop_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), &[]);
    let own = procmond.child.id();
    let baseline = procmond.wait_for("baseline of itself", |event| is(event, "start", own));
    assert_eq!((&baseline["start_kind"], &baseline["name"]), (&"baseline".into(), &"procmond".into()));
    assert_eq!(baseline["ppid"], std::process::id());
    assert!(baseline["ancestry"].as_str().unwrap().ends_with("/procmond"));

    let mut child = Running::of("sleep");
    let pid = child.pid();
    let start = procmond.wait_for("start of the child", |event| is(event, "start", pid));
    assert_eq!(start["start_kind"], "exec");
    assert!(start["parent_command_line"].is_string() && start["entity_id"].is_string());
    child.end();
    let stop = procmond.wait_for("stop of the child", |event| is(event, "stop", pid));
    assert_eq!((&stop["entity_id"], &stop["end_observed"]), (&start["entity_id"], &true.into()));

    procmond.signal(rustix::process::Signal::TERM);
    let (status, _) = procmond.end();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn after_a_kill_only_differences_are_events() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, mut ending) = (Running::of("sleep"), Running::of("sleep"));
    let mut first = Procmond::start(dir.path(), &[]);
    for pid in [kept.pid(), ending.pid()] {
        first.wait_for("start", |event| is(event, "start", pid));
    }
    first.signal(rustix::process::Signal::KILL);
    let (_, before) = first.end();
    ending.end();

    let mut second = Procmond::start(dir.path(), &[]);
    let stop = second.wait_for("stop", |event| is(event, "stop", ending.pid()));
    assert_eq!((&stop["end_observed"], &stop["runtime_ms"]), (&false.into(), &Value::Null));
    let own = second.child.id();
    second.wait_for("start of itself", |event| is(event, "start", own));
    // A third run starts from the checkpoint that an orderly end leaves.
    second.signal(rustix::process::Signal::INT);
    let (status, between) = second.end();
    assert_eq!(status.code(), Some(0));
    let mut third = Procmond::start(dir.path(), &[]);
    let own = third.child.id();
    third.wait_for("start of itself", |event| is(event, "start", own));
    third.signal(rustix::process::Signal::TERM);
    let (_, after) = third.end();

    let mut images = HashMap::new();
    for event in [before, between, after].concat().iter().filter(|event| event["event_type"] == "start") {
        let image = (event["name"].clone(), event["executable_path"].clone(), event["command_line"].clone());
        let former = images.insert(event["entity_id"].as_str().unwrap().to_owned(), image.clone());
        assert_ne!(former, Some(image), "a process was announced twice");
    }
}

/// Runs a shell that does nothing until its start was seen, and then `script`; returns the start and the event that shows
/// the shell with this name and command line.
fn start_and_what_follows(procmond: &mut Procmond, script: &str, name: &str, line: &str) -> (Value, Value) {
    let script = format!("read word; {script}");
    let mut shell = Running(Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap());
    let pid = shell.pid();
    // It may also be met before its own exec, as a copy of this test.
    let started = |event: &Value| is(event, "start", pid) && event["command_line"] == format!("sh -c {script}");
    let start = procmond.wait_for("start of the shell", started);
    shell.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let shown = |event: &Value| event["pid"] == pid && event["name"] == name && event["command_line"] == line;
    (start, procmond.wait_for("what follows", shown))
}

#[test]
fn an_exec_is_a_start_of_the_same_entity_and_a_new_name_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), &[]);
    let own = procmond.child.id();
    procmond.wait_for("baseline of itself", |event| is(event, "start", own));

    let (start, exec) = start_and_what_follows(&mut procmond, "exec sleep 300", "sleep", "sleep 300");
    assert_eq!((&exec["event_type"], &exec["start_kind"]), (&"start".into(), &"exec".into()));
    assert_eq!((&exec["entity_id"], &exec["parent_name"]), (&start["entity_id"], &start["parent_name"]));
    assert!(exec["modified_fields"].as_str().unwrap().contains("executable_path"), "{exec}");

    // The same executable: only the addresses of the new image tell it from a new title.
    let line = "sh -c read never; : again";
    let (start, exec) = start_and_what_follows(&mut procmond, "exec sh -c 'read never; : again'", "sh", line);
    assert_eq!((&exec["event_type"], &exec["start_kind"]), (&"start".into(), &"exec".into()));
    assert_eq!((&exec["entity_id"], &exec["modified_fields"]), (&start["entity_id"], &"command_line".into()));

    let script = "printf renamed > /proc/$$/comm; read never";
    let line = format!("sh -c read word; {script}");
    let (_, named) = start_and_what_follows(&mut procmond, script, "renamed", &line);
    assert_eq!((&named["event_type"], &named["modified_fields"]), (&"modify".into(), &"name".into()));

    procmond.signal(rustix::process::Signal::TERM);
    assert_eq!(procmond.end().0.code(), Some(0));
}

#[test]
fn a_deleted_executable_is_reported_once_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("shortlived");
    // Not copied by this process: a test beside this one may fork while the file is open for writing, and then it is busy.
    assert!(Command::new("cp").arg("/bin/sleep").arg(&program).status().unwrap().success());
    let child = Running::of(&program);
    let mut procmond = Procmond::start(dir.path(), &[]);
    procmond.wait_for("start", |event| is(event, "start", child.pid()));
    std::fs::remove_file(&program).unwrap();
    let modify = procmond.wait_for("modify", |event| is(event, "modify", child.pid()));
    assert_eq!(modify["modified_fields"], "deleted_executable");
    let suspicious = procmond.wait_for("suspicious", |event| is(event, "suspicious", child.pid()));
    assert_eq!((&suspicious["reason"], &suspicious["severity"]), (&"executable_deleted".into(), &"medium".into()));
    assert_eq!(suspicious["executable_path"], program.to_str().unwrap());
    procmond.signal(rustix::process::Signal::TERM);
    assert_eq!(procmond.end().0.code(), Some(0));
}

#[test]
fn the_portable_source_sees_processes_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), &["--source", "sysinfo"]);
    let own = procmond.child.id();
    let baseline = procmond.wait_for("baseline of itself", |event| is(event, "start", own));
    assert_eq!((&baseline["source"], &baseline["identity"]), (&"sysinfo".into(), &"estimated".into()));
    procmond.signal(rustix::process::Signal::TERM);
    assert_eq!(procmond.end().0.code(), Some(0));
}

fn fails(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_procmond"))
        .args(arguments)
        .env_remove("DAEMONEYE_BROKER_SOCKET")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn bad_input_has_a_message_and_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_str().unwrap();
    let (code, said) = fails(&["--data-dir", data_dir, "--snapshot-interval-ms", "1"], &[]);
    assert!(code == Some(78) && said.contains("snapshot"), "{code:?} {said}");
    let (code, said) = fails(&["--data-dir", data_dir], &[("PROCMOND_SNAPSHOT_INTERVALL_MS", "500")]);
    assert!(code == Some(78) && said.contains("PROCMOND_SNAPSHOT_INTERVAL_MS"), "{code:?} {said}");
    let (code, said) = fails(&["--data-dir", data_dir], &[("DAEMONEYE_BROKER_SOCKET", "/nonexistent.sock")]);
    assert!(code == Some(78) && said.contains("DAEMONEYE_BROKER_TOKEN_FILE"), "{code:?} {said}");
    let (code, said) = fails(&["--data-dir", data_dir, "--source", "procfs", "--proc-root", data_dir], &[]);
    assert!(code == Some(73) && said.contains("boot_id"), "{code:?} {said}");
    let (code, _) = fails(&["--no-such-flag"], &[]);
    assert_eq!(code, Some(2));
}

#[test]
fn a_second_one_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Procmond::start(dir.path(), &[]);
    first.wait_for("event", |_| true);
    let (code, said) = fails(&["--data-dir", dir.path().to_str().unwrap()], &[]);
    assert!(code == Some(70) && said.contains("another"), "{code:?} {said}");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.end().0.code(), Some(0));
}
