//! The real program, what it prints and writes, and processes for it to see.
#[path = "../../../../daemoneye-lib/tests/jail/skip.rs"]
pub(crate) mod skip;
mod told;

#[cfg(target_os = "linux")]
pub(crate) mod fuse;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use collector_core::wal::DirReader;
use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, ProcessRecord, StartKind};
use prost::Message;
use serde_json::Value;
use skip::skipped;

pub(crate) use self::told::assert_told_once;

/// The real program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_procmond");

/// The sources that hear from the kernel.
const KERNEL_SOURCES: [&str; 2] = ["ebpf", "proc-connector"];

/// Far more than anything here takes, so that only a real fault meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// Says so when a test is not run.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped("needs root");
    }
    root
}

/// The sources of the kernel that this build has; none without the right to use them.
pub(crate) fn kernel_sources() -> impl Iterator<Item = &'static str> {
    KERNEL_SOURCES
        .into_iter()
        .filter(|source| *source != "ebpf" || cfg!(feature = "kernel-monitoring"))
        .filter(|_| is_root())
}

/// Those, and the snapshots.
pub(crate) fn sources() -> impl Iterator<Item = &'static str> {
    kernel_sources().chain(["procfs"])
}

/// A process that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Its standard input stays open until [`Running::tell`] or the end.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    pub(crate) fn of(program: impl AsRef<std::ffi::OsStr>) -> Self {
        Self::spawn(Command::new(program).arg("300"))
    }

    pub(crate) fn shell(script: &str) -> Self {
        Self::spawn(Command::new("sh").args(["-c", script]))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn tell(&mut self) {
        tell(&mut self.0);
    }

    pub(crate) fn end(&mut self) {
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

/// The real program, whatever the environment of the tests says. It does not begin anew for its heap: nothing that the tests
/// start executes itself, so that a second start of one image is a fault.
pub(crate) fn program() -> Command {
    as_tested(Command::new(PROGRAM))
}

fn as_tested(mut command: Command) -> Command {
    command.env_remove("DAEMONEYE_BROKER_SOCKET").env("DAEMONEYE_HEAP_SET", "1");
    command
}

/// procmond, standalone; every line it prints is an event.
pub(crate) struct Procmond {
    pub(crate) child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
}

impl Procmond {
    /// Looks at the process table ten times a second unless `more` says otherwise.
    pub(crate) fn start(data_dir: &Path, source: &str, more: &[&str]) -> Self {
        Self::follow(Command::new(PROGRAM), data_dir, source, more)
    }

    /// The same, once it has seen everything that was there before.
    pub(crate) fn ready(data_dir: &Path, source: &str, more: &[&str]) -> Self {
        let mut procmond = Self::start(data_dir, source, more);
        let own = procmond.child.id();
        procmond.wait_for("baseline of itself", |event| is(event, "start", own));
        // Whatever starts from here on is no baseline.
        let mut mark = Running::shell("read never");
        procmond.wait_for("start after the baseline", |event| {
            is(event, "start", mark.pid()) && event["start_kind"] != "baseline"
        });
        mark.end();
        procmond
    }

    /// By a command that has procmond for its last word.
    pub(crate) fn follow(command: Command, data_dir: &Path, source: &str, more: &[&str]) -> Self {
        let mut child = as_tested(command)
            .args(["--follow", "--log-level", "warn", "--data-dir"])
            .arg(data_dir)
            .args(more)
            .env("PROCMOND_SOURCE", source)
            .env("PROCMOND_SNAPSHOT_INTERVAL_MS", "100")
            .env("HOME", data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // The last line of one that was killed may be half a line.
            let mut events = out.lines().map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
            events.try_for_each(|event| sender.send(event))
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The next event that `wanted` accepts; earlier ones are kept for [`Self::end`].
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.next_within(DEADLINE, wanted).unwrap_or_else(|| panic!("no {what}"))
    }

    fn next_within(&mut self, wait: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let end = Instant::now() + wait;
        loop {
            let event = match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("procmond has ended"),
            };
            self.seen.push(event.clone());
            if wanted(&event) {
                return Some(event);
            }
        }
    }

    /// The first event of all that `wanted` accepts, whether it has come before or is still to come.
    pub(crate) fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.find_within(DEADLINE, wanted).unwrap_or_else(|| panic!("no {what}"))
    }

    /// The same, or none when it has not come after `wait`.
    pub(crate) fn find_within(&mut self, wait: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let before = self.seen.iter().find(|event| wanted(event)).cloned();
        before.or_else(|| self.next_within(wait, wanted))
    }

    /// What has come so far.
    pub(crate) fn seen(&mut self) -> &[Value] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Waits for `count` events, whatever they are, and not longer than `wait`.
    pub(crate) fn wait_for_events(&self, count: u64, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        (0..count).all(|_| self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns how it ended and every event it printed.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Value>) {
        let end = Instant::now() + DEADLINE;
        while let Ok(event) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(event);
        }
        (self.child.wait().unwrap(), std::mem::take(&mut self.seen))
    }

    /// Ends it in order and reads what it has written: the events, and what it could not see.
    pub(crate) fn log(self, data_dir: &Path) -> (Vec<ProcessEvent>, Vec<CoverageGap>) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.end().0.code(), Some(0));
        let (mut events, mut gaps) = (Vec::new(), Vec::new());
        for record in DirReader::open(&data_dir.join("wal"), "procmond", None).unwrap().map(Result::unwrap) {
            if record.topic.starts_with("events.process.") {
                events.push(ProcessEvent::decode(record.payload).unwrap());
            } else {
                assert_eq!(record.topic, "events.collector.procmond");
                gaps.push(CoverageGap::decode(record.payload).unwrap());
            }
        }
        (events, gaps)
    }

    /// The events of a run that has seen everything; none when the kernel lost some, which it counts.
    pub(crate) fn whole_log(self, data_dir: &Path) -> Option<Vec<ProcessEvent>> {
        let (events, gaps) = self.log(data_dir);
        if gaps.iter().any(|gap| gap.reason == "kernel_lost") {
            return None;
        }
        let is_found = |event: &&ProcessEvent| !KERNEL_SOURCES.contains(&event.source.as_str());
        let found = || events.iter().filter(is_found).filter(|event| event.start_kind() == StartKind::Exec);
        assert_eq!(gaps, [], "something was not seen: {:#?}", found().collect::<Vec<_>>());
        assert_told_once(&events);
        Some(events)
    }
}

impl Drop for Procmond {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A copy of a program that lies in memory only, for as long as its descriptor, and its path. Written through that descriptor: one
/// more would be in the hands of whatever a test beside this one starts, and the program busy.
#[cfg(target_os = "linux")]
pub(crate) fn in_memory(program: &str) -> (std::os::fd::OwnedFd, String) {
    use std::os::fd::AsRawFd as _;

    let memory = rustix::fs::memfd_create("hidden", rustix::fs::MemfdFlags::empty()).unwrap();
    let bytes = std::fs::read(program).unwrap();
    assert_eq!(rustix::io::write(&memory, &bytes), Ok(bytes.len()));
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    (memory, path)
}

/// Ends one `read` of a shell.
pub(crate) fn tell(shell: &mut Child) {
    shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

pub(crate) fn is(event: &Value, kind: &str, pid: u32) -> bool {
    event["event_type"] == kind && event["pid"] == pid
}

pub(crate) fn process(event: &ProcessEvent) -> &ProcessRecord {
    event.process.as_ref().unwrap()
}

pub(crate) fn of(events: &[ProcessEvent], kind: EventType, pid: u32) -> Vec<&ProcessEvent> {
    events.iter().filter(|event| event.event_type() == kind && process(event).pid == pid).collect()
}

/// Whether a program that only some machines have is here; says so when a test has to do without.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: there is no {program} here");
    }
    found
}

/// Copies without holding the copy open for writing: a test beside this one may fork meanwhile, and then it is busy.
pub(crate) fn copy(program: &str, to: &Path) {
    assert!(Command::new("cp").arg(program).arg(to).status().unwrap().success());
}
