//! The real program, standalone, in a temporary directory.

use std::process::Command;

use daemoneye_lib::proto::EventType;
use serde_json::Value;

use crate::support::{PROGRAM, Procmond, Running, assert_told_once, copy, is, is_root, of, program, tell};

#[test]
fn it_sees_itself_a_childs_start_and_stop_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), "procfs", &[]);
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
    let mut first = Procmond::start(dir.path(), "procfs", &[]);
    for pid in [kept.pid(), ending.pid()] {
        first.wait_for("start", |event| is(event, "start", pid));
    }
    first.signal(rustix::process::Signal::KILL);
    first.end();
    ending.end();

    let mut second = Procmond::start(dir.path(), "procfs", &[]);
    let stop = second.wait_for("stop", |event| is(event, "stop", ending.pid()));
    assert_eq!((&stop["end_observed"], &stop["runtime_ms"]), (&false.into(), &Value::Null));
    let own = second.child.id();
    second.wait_for("start of itself", |event| is(event, "start", own));
    // A third run starts from the checkpoint that an orderly end leaves.
    second.signal(rustix::process::Signal::INT);
    assert_eq!(second.end().0.code(), Some(0));
    let mut third = Procmond::start(dir.path(), "procfs", &[]);
    let own = third.child.id();
    third.wait_for("start of itself", |event| is(event, "start", own));
    // All three of them.
    let (events, _gaps_between_runs) = third.log(dir.path());
    assert_told_once(&events);
    for pid in [kept.pid(), ending.pid()] {
        assert_eq!(of(&events, EventType::Start, pid).len(), 1);
    }
}

/// Runs a shell that does nothing until its start was seen, and then `script`; returns the start and the event that shows
/// the shell with this name and command line.
fn start_and_what_follows(procmond: &mut Procmond, script: &str, name: &str, line: &str) -> (Value, Value) {
    let script = format!("read word; {script}");
    let mut shell = Running::shell(&script);
    let pid = shell.pid();
    // It may also be met before its own exec, as a copy of this test.
    let started = |event: &Value| is(event, "start", pid) && event["command_line"] == format!("sh -c {script}");
    let start = procmond.wait_for("start of the shell", started);
    shell.tell();
    let shown = |event: &Value| event["pid"] == pid && event["name"] == name && event["command_line"] == line;
    (start, procmond.wait_for("what follows", shown))
}

#[test]
fn an_exec_is_a_start_of_the_same_entity_and_a_new_name_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), "procfs", &[]);
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
    copy("/bin/sleep", &program);
    let child = Running::of(&program);
    // A hash that comes late would be a change of its own.
    let mut procmond = Procmond::start(dir.path(), "procfs", &["--hashing-enabled=false"]);
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
fn a_pid_that_is_taken_again_between_two_snapshots_is_a_stop_and_a_start() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A process namespace of its own, where the next pid can be chosen.
    let script = r#"
        "$0" "$@" &
        sleep 300 & pid=$!
        read word
        kill -9 $pid; wait $pid
        read before rest < /proc/uptime
        while read now rest < /proc/uptime; [ "$now" = "$before" ]; do :; done
        while echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid; sleep 300 & [ $! != $pid ]; do kill -9 $!; wait $!; done
        read word"#;
    let mut inside = Command::new("unshare");
    inside.args(["-pf", "--mount-proc", "--kill-child", "sh", "-c", script, PROGRAM]);
    let mut procmond = Procmond::follow(inside, dir.path(), "procfs", &[]);
    let first = procmond.wait_for("first process", |event| event["command_line"] == "sleep 300");
    tell(&mut procmond.child);
    let of_pid = |event: &Value| event["pid"] == first["pid"] && event["event_type"] != "modify";
    let stop = procmond.wait_for("its stop", of_pid);
    let second = procmond.wait_for("start of the second process", of_pid);
    assert_eq!((&stop["event_type"], &stop["entity_id"]), (&"stop".into(), &first["entity_id"]));
    assert_eq!((&second["event_type"], &second["start_kind"]), (&"start".into(), &"exec".into()));
    assert_ne!(second["entity_id"], first["entity_id"]);
}

#[test]
fn a_start_time_in_the_future_is_suspicious() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, data) = (dir.path().join("proc"), dir.path().join("data"));
    std::fs::create_dir_all(tree.join("sys/kernel/random")).unwrap();
    std::fs::create_dir(tree.join("42")).unwrap();
    std::fs::write(tree.join("sys/kernel/random/boot_id"), "11111111-2222-3333-4444-555555555555\n").unwrap();
    // Booted in 2100.
    std::fs::write(tree.join("stat"), "btime 4102444800\n").unwrap();
    let stat = "42 (early) S 1 42 42 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 100 0 25 0 7 0 7\n";
    std::fs::write(tree.join("42/stat"), stat).unwrap();
    let mut procmond = Procmond::start(&data, "procfs", &["--proc-root", tree.to_str().unwrap()]);
    let told = procmond.wait_for("suspicion", |event| event["reason"] == "start_time_in_future");
    assert_eq!((&told["pid"], &told["severity"]), (&42.into(), &"low".into()));
    assert_eq!(told["start_time"], "2100-01-01T00:00:01.000000Z");
}

#[test]
fn the_portable_source_sees_processes_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut procmond = Procmond::start(dir.path(), "procfs", &["--source", "sysinfo"]);
    let own = procmond.child.id();
    let baseline = procmond.wait_for("baseline of itself", |event| is(event, "start", own));
    assert_eq!((&baseline["source"], &baseline["identity"]), (&"sysinfo".into(), &"estimated".into()));
    procmond.signal(rustix::process::Signal::TERM);
    assert_eq!(procmond.end().0.code(), Some(0));
}

fn fails(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let out = program().args(arguments).envs(variables.iter().copied()).output().unwrap();
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
    let mut first = Procmond::start(dir.path(), "procfs", &[]);
    first.wait_for("event", |_| true);
    let (code, said) = fails(&["--data-dir", dir.path().to_str().unwrap()], &[]);
    assert!(code == Some(70) && said.contains("another"), "{code:?} {said}");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.end().0.code(), Some(0));
}
