//! The real program, what it prints and writes, and processes for it to see.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "test support; each test file uses its own part"
)]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use collector_core::wal::DirReader;
use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord};
use prost::Message;
use serde_json::Value;

/// Far more than anything here takes, so that only a real fault meets it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Says so when a test is not run.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// The sources of the kernel that this build has; none without the right to use them.
pub fn kernel_sources() -> impl Iterator<Item = &'static str> {
    ["ebpf", "proc-connector"]
        .into_iter()
        .filter(|source| *source != "ebpf" || cfg!(feature = "kernel-monitoring"))
        .filter(|_| is_root())
}

/// Those, and the snapshots.
pub fn sources() -> impl Iterator<Item = &'static str> {
    kernel_sources().chain(["procfs"])
}

/// A process that does not outlive its test.
pub struct Running(pub Child);

impl Running {
    /// Its standard input stays open until [`Running::tell`] or the end.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    pub fn of(program: impl AsRef<std::ffi::OsStr>) -> Self {
        Self::spawn(Command::new(program).arg("300"))
    }

    pub fn shell(script: &str) -> Self {
        Self::spawn(Command::new("sh").args(["-c", script]))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn tell(&mut self) {
        tell(&mut self.0);
    }

    pub fn end(&mut self) {
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

/// procmond, standalone; every line it prints is an event.
pub struct Procmond {
    pub child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
}

impl Procmond {
    /// Looks at the process table ten times a second unless `more` says otherwise.
    pub fn start(data_dir: &Path, source: &str, more: &[&str]) -> Self {
        Self::follow(Command::new(env!("CARGO_BIN_EXE_procmond")), data_dir, source, more)
    }

    /// The same, once it has seen everything that was there before.
    pub fn ready(data_dir: &Path, source: &str, more: &[&str]) -> Self {
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
    pub fn follow(mut command: Command, data_dir: &Path, source: &str, more: &[&str]) -> Self {
        let mut child = command
            .args(["--follow", "--log-level", "warn", "--data-dir"])
            .arg(data_dir)
            .args(more)
            .env_remove("DAEMONEYE_BROKER_SOCKET")
            .env("PROCMOND_SOURCE", source)
            .env("PROCMOND_SNAPSHOT_INTERVAL_MS", "100")
            .env("HOME", data_dir)
            // One procmond sees the other ones of the tests beside it: none of them begins twice.
            .env("DAEMONEYE_HEAP_SET", "1")
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
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(event) = self.lines.recv_timeout(left) else { panic!("no {what}") };
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The first event of all that `wanted` accepts, whether it has come before or is still to come.
    pub fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        match self.seen.iter().find(|event| wanted(event)) {
            Some(event) => event.clone(),
            None => self.wait_for(what, wanted),
        }
    }

    /// Waits for `count` events, whatever they are, and not longer than `wait`.
    pub fn wait_for_events(&self, count: u64, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        (0..count).all(|_| self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns how it ended and every event it printed.
    pub fn end(mut self) -> (ExitStatus, Vec<Value>) {
        let end = Instant::now() + DEADLINE;
        while let Ok(event) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(event);
        }
        (self.child.wait().unwrap(), std::mem::take(&mut self.seen))
    }

    /// Ends it in order and reads what it has written: the events, and the topics of everything else.
    pub fn log(self, data_dir: &Path) -> (Vec<ProcessEvent>, Vec<String>) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.end().0.code(), Some(0));
        let (mut events, mut others) = (Vec::new(), Vec::new());
        for record in DirReader::open(&data_dir.join("wal"), "procmond", None).unwrap().map(Result::unwrap) {
            if record.topic.starts_with("events.process.") {
                events.push(ProcessEvent::decode(record.payload).unwrap());
            } else {
                others.push(record.topic);
            }
        }
        (events, others)
    }
}

impl Drop for Procmond {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Ends one `read` of a shell.
pub fn tell(shell: &mut Child) {
    shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

pub fn is(event: &Value, kind: &str, pid: u32) -> bool {
    event["event_type"] == kind && event["pid"] == pid
}

/// Panics at an image that starts twice in a row beside announcements, a second stop, and an event of a
/// process that has not started.
pub fn assert_told_once(source: &str, events: &[ProcessEvent]) {
    let (mut started, mut stopped) = (HashMap::new(), HashSet::new());
    for event in events {
        let process = process(event);
        let shown = || format!("{source}: {event:#?}\n{:#?}", life(events, &process.entity_id));
        let entity = &process.entity_id;
        let image = (&process.name, &process.executable_path, &process.command_line);
        match event.event_type() {
            EventType::Start => {
                assert!(!stopped.contains(entity), "a start after the stop: {}", shown());
                let former = started.insert(entity, (image, event));
                // A program may execute itself, which is announced twice; what a snapshot tells is told by it alone.
                if let Some((_, former)) = former.filter(|(former, _)| *former == image) {
                    let announced = [former, event].iter().all(|event| event.source != "procfs");
                    assert!(announced, "a second start of one image: {}", shown());
                }
            }
            EventType::Stop => {
                assert!(started.contains_key(entity), "a stop without a start: {}", shown());
                assert!(stopped.insert(entity), "a second stop: {}", shown());
            }
            // What a process made of itself since its start: its next image is compared with this.
            _ => {
                let known = started.get_mut(entity);
                known.unwrap_or_else(|| panic!("a change without a start: {}", shown())).0 = image;
            }
        }
    }
}

/// Every event of one process in one line each.
fn life(events: &[ProcessEvent], entity: &[u8]) -> Vec<String> {
    let of_it = events.iter().filter(|event| process(event).entity_id == entity);
    let line = |event: &ProcessEvent| {
        let (kind, start, fields) = (event.event_type(), event.start_kind(), event.modified_fields.join(","));
        let (process, source, time_us) = (process(event), &event.source, event.time_us);
        format!("{time_us} {kind:?} {start:?} {source} {} {:?} [{fields}]", process.name, process.capture())
    };
    of_it.map(line).collect()
}

pub fn process(event: &ProcessEvent) -> &ProcessRecord {
    event.process.as_ref().unwrap()
}

pub fn of(events: &[ProcessEvent], kind: EventType, pid: u32) -> Vec<&ProcessEvent> {
    events.iter().filter(|event| event.event_type() == kind && process(event).pid == pid).collect()
}

/// Whether a program that only some machines have is here; says so when a test has to do without.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: there is no {program} here");
    }
    found
}

/// Copies without holding the copy open for writing: a test beside this one may fork meanwhile, and then it is busy.
pub fn copy(program: &str, to: &Path) {
    assert!(Command::new("cp").arg(program).arg(to).status().unwrap().success());
}
