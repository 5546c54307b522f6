//! The running agent as the kernel and the file system see it: what holds every thread of the worker, and whose its files are.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step of a test is the failure")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemoneye_eventbus::OperatorClient;
use daemoneye_lib::proto::{Empty, OperatorRequest, operator_request::Verb, operator_response::Answer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Group, Pid};
use serde_json::Value;

use self::accounts::{ACCOUNTS, is_root, with_accounts};
use self::skip::skipped;

#[path = "../../../daemoneye-lib/tests/jail/accounts.rs"]
mod accounts;
#[path = "../../../daemoneye-lib/tests/jail/skip.rs"]
mod skip;

/// An agent that waits for a collector of its own service; stopped in order at the end.
struct Agent(Child);

const PROGRAM: &str = env!("CARGO_BIN_EXE_daemoneye-agent");

fn told_to_run(mut command: Command, dir: &Path) -> Command {
    fs::write(dir.join("token"), [7; 32]).unwrap();
    fs::set_permissions(dir.join("token"), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    command
        .args(["run", "--procmond-mode", "external", "--procmond-token-file"])
        .arg(dir.join("token"))
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--runtime-dir")
        .arg(dir.join("run"))
        .env("HOME", dir)
        .stdin(Stdio::null());
    command
}

impl Agent {
    fn start(dir: &Path) -> Self {
        Self::started(with_accounts(dir, Path::new(PROGRAM)), dir)
    }

    fn started(command: Command, dir: &Path) -> Self {
        let mut child = told_to_run(command, dir).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("stop")), "its summary");
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGINT).unwrap();
        self.0.wait().unwrap();
    }
}

async fn health(dir: &Path) -> Value {
    let client = OperatorClient::connect(&dir.join("run/cli.sock"), "test").await.unwrap();
    let verb = Verb::Health(Empty {});
    let mut answers = client.request(OperatorRequest { verb: Some(verb) }, None).await.unwrap();
    let Some(Answer::Health(shown)) = answers.next().await.unwrap().unwrap().answer else { return Value::Null };
    serde_json::from_str(&shown.json).unwrap()
}

fn layer<'a>(health: &'a Value, program: &str, name: &str) -> &'a str {
    let layers = health.pointer(&format!("/sandbox/{program}/layers")).and_then(Value::as_array).unwrap();
    let found = layers.iter().find(|entry| entry.get("layer").is_some_and(|layer| layer == name));
    found.and_then(|entry| entry.get("state")?.as_str()).unwrap()
}

fn worker_pid(health: &Value) -> u64 {
    let mut rows = health.pointer("/components").and_then(Value::as_array).unwrap().iter();
    let worker = rows.find(|row| row.get("name").is_some_and(|name| name == "worker")).unwrap();
    worker.get("pid").and_then(Value::as_u64).unwrap()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_of_the_running_worker_and_parent_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path());
    let health = health(dir.path()).await;
    if layer(&health, "worker", "seccomp") != "on" {
        return skipped("this kernel has no seccomp");
    }
    for pid in [worker_pid(&health), u64::from(agent.0.id())] {
        let mut threads = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            // One that has ended since the listing.
            let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
            threads += 1;
            assert_eq!(field(&status, "NoNewPrivs"), Some("1"), "{status}");
            assert_eq!(field(&status, "Seccomp"), Some("2"), "{status}");
        }
        assert!(threads > 0, "process {pid} has none");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
    assert_eq!(layer(&health, "parent", "seccomp"), "on");
    let probes = health.pointer("/sandbox/worker/probes").and_then(Value::as_array).unwrap();
    assert!(probes.len() > 10);
    assert!(probes.iter().all(|probe| probe.get("wanted") == probe.get("allowed")), "{probes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_directories_have_their_owners_and_modes() {
    let dir = tempfile::tempdir().unwrap();
    let _agent = Agent::start(dir.path());
    let own = fs::metadata(dir.path()).unwrap();
    let shared = Group::from_name("daemoneye").unwrap().map(|group| group.gid.as_raw());
    let group = if is_root() { ACCOUNTS[2].1 } else { shared.unwrap_or(own.gid()) };
    for (path, mode) in [("run/bus.sock", 0o660), ("run/cli.sock", 0o660), ("run", 0o750), ("data", 0o750)] {
        let found = fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, own.uid(), group), "{path}");
    }
}

/// Reader and agent have the same user and no capabilities, so that nothing but the agent's own wish is in the way.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_of_the_same_user_cannot_read_the_workers_memory() {
    if !is_root() {
        return skipped("needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let powerless = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", program]);
        command
    };
    let reads = |pid: u64| {
        let file = format!("/proc/{pid}/environ");
        powerless("cat").arg(file).stderr(Stdio::null()).output().unwrap().status.success()
    };
    let agent = Agent::started(powerless(PROGRAM), dir.path());
    let health = health(dir.path()).await;
    let mut open = powerless("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let opens = || reads(open.id().into());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !opens() {
        assert!(Instant::now() < deadline, "what keeps no secret is read");
        std::thread::yield_now();
    }
    assert!(!reads(worker_pid(&health)), "the worker");
    assert!(!reads(agent.0.id().into()), "the parent");
    drop(open.stdin.take());
    open.wait().unwrap();
}

#[test]
fn a_required_layer_that_is_missing_ends_it_with_77_and_privileges_that_stay_with_79() {
    let dir = tempfile::tempdir().unwrap();
    let ended = |arguments: &[&str], required: &str| {
        let mut command = Command::new("timeout");
        command.arg("20").args(arguments).env("DAEMONEYE_AGENT_SANDBOX__REQUIRED", required);
        let output = told_to_run(command, dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = ended(&[PROGRAM], "user");
    assert_eq!(code, Some(77), "{told}");
    assert!(told.contains("sandbox.required names user") && told.contains("take it out"), "{told}");
    if is_root() {
        let (code, told) = ended(&["setpriv", "--securebits=+keep_caps_locked", PROGRAM], "none");
        assert_eq!(code, Some(79), "{told}");
    }
}
