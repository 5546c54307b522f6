//! Starts the real program. What needs procmond is skipped, with the reason, when procmond is not built beside it; the whole
//! path is checked by the crate `e2e`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step of a test is the failure")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daemoneye-agent"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run_in(dir: &Path, more: &[&str]) -> Command {
    let mut command = agent();
    command.arg("run").arg("--data-dir").arg(dir.join("data")).arg("--runtime-dir").arg(dir.join("run")).args(more);
    command.env("HOME", dir);
    command
}

fn external(dir: &Path) -> Command {
    let token = dir.join("token");
    std::fs::write(&token, [7; 32]).unwrap();
    run_in(dir, &["--procmond-mode", "external", "--procmond-token-file", token.to_str().unwrap()])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program that is ended when the test is over, in order so that it takes its children along.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap();
            if line.contains(part) {
                return line;
            }
        }
    }

    fn interrupt(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
        }
    }
}

#[test]
fn the_version_is_said() {
    let output = agent().arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_and_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.yaml");
    std::fs::write(&config, "store:\n  seal_row: 5\n").unwrap();
    let output = run_in(dir.path(), &["--config", config.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("store.seal_rows"), "{}", said(&output));
}

#[test]
fn a_runtime_directory_too_long_for_a_socket_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(120));
    let output = run_in(dir.path(), &["--runtime-dir", long.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("bytes"), "{}", said(&output));
}

#[test]
fn a_missing_procmond_and_a_missing_rules_directory_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_in(dir.path(), &["--procmond-path", "/nowhere/procmond"]).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("/nowhere/procmond"), "{}", said(&output));

    let mut command = external(dir.path());
    let output = command.args(["--rules", "/nowhere/rules"]).output().unwrap();
    assert_eq!(output.status.code(), Some(72), "{}", said(&output));
    assert!(said(&output).contains("/nowhere/rules"), "{}", said(&output));
}

#[test]
fn a_second_agent_on_the_same_data_ends_with_70_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Running::start(external(dir.path()));
    first.wait_for_line("stop");
    let other = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let mut second = agent();
    second.arg("run").arg("--data-dir").arg(dir.path().join("data")).arg("--runtime-dir").arg(other.path());
    second.args(["--procmond-mode", "external", "--procmond-token-file"]).arg(token).env("HOME", other.path());
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", said(&output));
    assert!(first.child.try_wait().unwrap().is_none(), "the first one still runs");
    assert_eq!(first.interrupt(), Some(0));
}

#[test]
fn nobody_registering_in_time_ends_with_73() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = external(dir.path());
    let output = command.args(["--procmond-registration-timeout-ms", "300"]).output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", said(&output));
}

#[test]
fn procmond_registers_and_everything_stops_with_0() {
    let procmond = Path::new(env!("CARGO_BIN_EXE_daemoneye-agent")).with_file_name("procmond");
    if !procmond.exists() {
        println!("skipped: {} is not built", procmond.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Running::start(run_in(dir.path(), &[]));
    agent.wait_for_line("source");
    assert_eq!(agent.interrupt(), Some(0));
    let lock = std::fs::File::open(dir.path().join("data/wal/lock")).unwrap();
    lock.try_lock().unwrap();
}
