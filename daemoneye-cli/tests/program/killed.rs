//! A console that is killed leaves nothing behind: the agent that it started for a copied store ends by itself.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A million rows, more than a pipe holds: the console waits for its reader.
const LARGE: &str = "WITH d AS (SELECT * FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS v(n)) \
                     SELECT a.n FROM d a, d b, d c, d e, d f, d g";

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// What is known of a process.
struct Stat {
    state: char,
    parent: u32,
    group: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

fn child_of(parent: u32) -> Option<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| stat(*pid).is_some_and(|of| of.parent == parent))
}

/// The runtime directory that the agent was given.
fn runtime_dir(agent: u32) -> Option<PathBuf> {
    let line = std::fs::read(format!("/proc/{agent}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    words.find(|word| word == "--runtime-dir")?;
    words.next().map(PathBuf::from)
}

#[test]
fn a_killed_console_takes_the_agent_of_its_copied_store_along() {
    let agent = Path::new(env!("CARGO_BIN_EXE_daemoneye-cli")).with_file_name("daemoneye-agent");
    assert!(agent.exists(), "{} is missing: cargo build -p daemoneye-agent", agent.display());
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("state.redb"), []).unwrap();
    let mut console = Command::new(env!("CARGO_BIN_EXE_daemoneye-cli"))
        .args(["query", LARGE, "--format", "csv", "--store"])
        .arg(home.path())
        .env_clear()
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut rows = BufReader::new(console.stdout.take().unwrap());
    let mut first = String::new();
    rows.read_line(&mut first).unwrap();
    assert_eq!(first, "n\n");
    let agent = child_of(console.id()).unwrap();
    let runtime = runtime_dir(agent).unwrap();
    assert!(runtime.join("cli.sock").exists());
    // A terminal sends Ctrl-C to every process of the group, and it means the statement.
    assert_eq!(stat(agent).unwrap().group, agent, "in a group of its own");

    // SIGKILL: it can clean up nothing.
    console.kill().unwrap();
    console.wait().unwrap();
    wait_for("the agent's end", || stat(agent).is_none_or(|of| of.state == 'Z').then_some(()));
    assert!(!runtime.exists(), "{} stays behind", runtime.display());
}
