//! A source of the kernel that dies or falls silent inside the jail: this test binary starts itself again, the child enters the very
//! same jail with the real source in front, which then dies when a program tells it to, or whose programs are detached. Needs root;
//! skipped otherwise.
#![cfg(target_os = "linux")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::os::fd::IntoRawFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use collector_core::{EventSource, Runtime};
use daemoneye_lib::jail::Required;
use daemoneye_lib::proto::{CoverageGap, ProcessEvent, Record, StartKind};
use procmond::jail;
use procmond::kernel::{KernelSource, KernelSourceError, Notice, What};
use procmond::monitor::{Pace, ProcessMonitor};
use procmond::sources;
use prost::Message as _;
use skip::{SKIPPED, skipped};
use tokio_util::sync::CancellationToken;

#[path = "../../daemoneye-lib/tests/jail/skip.rs"]
mod skip;

/// The child's data directory, told to it in its environment.
const INSIDE: &str = "FALLBACK_TEST_INSIDE";

/// Set for a child whose source is to be silent.
const SILENT: &str = "FALLBACK_TEST_SILENT";

/// The program at whose start the source dies.
const DEADLY: &str = "the-source-dies-now";

const DEADLINE: Duration = Duration::from_secs(60);

/// The real source, until a program with that argument starts.
struct Mortal(Box<dyn KernelSource>);

impl KernelSource for Mortal {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn notes(&self) -> Vec<String> {
        self.0.notes()
    }
    fn is_raced(&self) -> bool {
        self.0.is_raced()
    }
    fn tells_exec_filename(&self) -> bool {
        self.0.tells_exec_filename()
    }
    fn receive(&mut self, wait: Duration, each: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError> {
        let mut deadly = false;
        self.0.receive(wait, &mut |notice| {
            if let What::Exec(record, ..) = &notice.what {
                deadly |= record.command_line.as_ref().is_some_and(|line| line.ends_with(DEADLY));
            }
            each(notice);
        })?;
        if deadly {
            return Err(KernelSourceError::Died { source_name: "ebpf", reason: "a program said so".to_owned() });
        }
        Ok(())
    }
    fn lost(&self) -> u64 {
        self.0.lost()
    }
}

/// Takes the programs out of the kernel; whoever reads the ring is told nothing of it.
fn detach() {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let links: Vec<i32> = numbers
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:bpf_link"))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert!(links.len() >= 3, "{links:?}");
    for number in links {
        nix::unistd::close(number).unwrap();
        // Its owner closes the number once more at the end: something has to be there.
        while std::fs::File::open("/dev/null").unwrap().into_raw_fd() != number {}
    }
}

/// Captures in the jail and prints one line about each start and each gap.
fn inside(data_dir: &Path) {
    let mut chosen = sources::choose("auto", Path::new("/proc")).unwrap();
    if chosen.kernel.as_ref().is_none_or(|kernel| kernel.name() != "ebpf") {
        return println!("skipped: {}", chosen.passed_over.join("; "));
    }
    println!("chosen: {}", chosen.reason);
    let silent = std::env::var_os(SILENT).is_some();
    if silent {
        detach();
    } else {
        chosen.kernel = chosen.kernel.map(|kernel| Box::new(Mortal(kernel)) as Box<dyn KernelSource>);
    }
    let jailed = jail::enter(data_dir, Required::Available).unwrap();
    assert!(jailed.report().probes.iter().all(|probe| probe.wanted == probe.allowed), "{:?}", jailed.report());
    let pace = Pace::every(if silent { Duration::from_millis(300) } else { Duration::from_secs(3600) });
    let monitor = Arc::new(ProcessMonitor::new(chosen, pace, "procmond", &data_dir.join("wal")));
    let seen = Arc::clone(&monitor);
    println!("lacks: {}", lacks(&monitor));
    let builder = Runtime::builder("procmond", "process", data_dir)
        .interval(monitor.interval())
        .source(monitor)
        .follow(Arc::new(move |record| tell(&seen, record)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(builder.run(CancellationToken::new())).unwrap();
}

/// What it does not fill on Linux.
fn lacks(monitor: &ProcessMonitor) -> String {
    let missing = monitor.capabilities().missing_columns;
    missing.iter().filter(|column| ["exec_filename", "tty"].contains(&column.as_str())).cloned().collect()
}

fn tell(monitor: &ProcessMonitor, record: &Record) {
    let line = if record.topic == "events.collector.procmond" {
        let gap = CoverageGap::decode(record.payload.clone()).unwrap();
        let now = monitor.capabilities();
        let (lacks, notes) = (lacks(monitor), now.notes.join("; "));
        format!("gap {}: {}; health: {} {} lacks {lacks}; {notes}", gap.reason, gap.detail, now.source, now.bits)
    } else {
        let event = ProcessEvent::decode(record.payload.clone()).unwrap();
        let kind = if event.start_kind() == StartKind::Exec { "exec" } else { "other" };
        format!("{kind} {} {}", event.process.as_ref().unwrap().pid, event.source)
    };
    println!("{line}");
}

struct Jailed(Child, Receiver<String>);

impl Jailed {
    fn start(data_dir: &Path, silent: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(INSIDE, data_dir)
            .envs(silent.then_some((SILENT, "1")))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(child, lines)
    }

    fn wait_for(&self, what: &str) -> String {
        let end = Instant::now() + DEADLINE;
        let mut told = Vec::new();
        loop {
            let Ok(line) = self.1.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                panic!("no {what} in {told:#?}")
            };
            if line.starts_with(what) || line.starts_with("skipped") {
                return line;
            }
            told.push(line);
        }
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(argument: &str) -> u32 {
    let mut child = Command::new("/bin/true").arg(argument).stdin(Stdio::null()).spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

// test, run by main
fn a_source_that_dies_in_the_jail_is_followed_by_the_connector() {
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let jailed = Jailed::start(dir.path(), false);
    let chosen = jailed.wait_for("chosen");
    if let Some(why) = chosen.strip_prefix("skipped: ") {
        return skipped(why);
    }
    assert!(chosen.contains("proc-connector stands by"), "{chosen}");
    assert_eq!(jailed.wait_for("lacks"), "lacks: ");
    // Its own baseline: from here on every program is announced.
    jailed.wait_for(&format!("other {}", jailed.0.id()));
    let before = run("before");
    assert_eq!(jailed.wait_for(&format!("exec {before} ")), format!("exec {before} ebpf"));
    run(DEADLY);
    let gap = jailed.wait_for("gap source_fallback");
    assert!(gap.contains("ebpf is gone, proc-connector has taken its place") && gap.contains("a program said so"));
    assert!(gap.contains("health: proc-connector 113 lacks exec_filename;"), "{gap}");
    let after = run("after");
    assert_eq!(jailed.wait_for(&format!("exec {after} ")), format!("exec {after} proc-connector"));
}

// test, run by main
fn a_source_whose_programs_are_detached_is_followed_by_the_connector() {
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let jailed = Jailed::start(dir.path(), true);
    if let Some(why) = jailed.wait_for("chosen").strip_prefix("skipped: ") {
        return skipped(why);
    }
    jailed.wait_for(&format!("other {}", jailed.0.id()));
    let mut sleepers = vec![Sleeper::start()];
    jailed.wait_for("gap announcements_missed");
    sleepers.push(Sleeper::start());
    let gap = jailed.wait_for("gap source_fallback");
    assert!(gap.contains("ebpf is gone, proc-connector has taken its place: it announces nothing any more"), "{gap}");
    let after = run("after");
    assert_eq!(jailed.wait_for(&format!("exec {after} ")), format!("exec {after} proc-connector"));
}

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("/bin/sleep").arg("300").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// No harness: its main thread would be one that the jail never reached, and the jail refuses to hold without it.
fn main() {
    if let Some(data_dir) = std::env::var_os(INSIDE) {
        return inside(Path::new(&data_dir));
    }
    for (name, test) in TESTS {
        test();
        println!("test {name} ... {}", if SKIPPED.swap(false, Ordering::Relaxed) { "skipped" } else { "ok" });
    }
}

const TESTS: &[(&str, fn())] = &[
    (
        "a_source_that_dies_in_the_jail_is_followed_by_the_connector",
        a_source_that_dies_in_the_jail_is_followed_by_the_connector,
    ),
    (
        "a_source_whose_programs_are_detached_is_followed_by_the_connector",
        a_source_whose_programs_are_detached_is_followed_by_the_connector,
    ),
];
