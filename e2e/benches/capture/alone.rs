//! procmond without an agent: what its log holds of the load, what it costs, and how late an event is in the log.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, StartKind};
use daemoneye_lib::segment::DirReader;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use tempfile::TempDir;

use crate::load::{self, Load, cost, settle};
use crate::support::{cpu_seconds, memory_kib, p50_p99_ms};
use crate::{RATES, Recalled, row};

/// Processes per second while the way into the log is measured, and how many.
const LOG_RATE: u32 = 1_000;
const LOG_EXECS: usize = 5_000;

const SECONDS_A_DAY: f64 = 86_400.0;

pub(crate) struct Alone {
    child: Child,
    dir: TempDir,
}

impl Alone {
    pub(crate) fn start(source: &str, follow: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(e2e::program("procmond").unwrap());
        command.args(["--snapshot-interval-ms", "30000", "--source", source, "--data-dir"]).arg(dir.path());
        if follow {
            command.arg("--follow").stdout(Stdio::piped());
        } else {
            command.stdout(Stdio::null());
        }
        command.env_clear().env("PROCMOND_STANDALONE", "1").stdin(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), dir }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn settle(&self) {
        settle(|| cpu_seconds(self.pid()));
    }

    /// Ends it in order, and returns what it has written.
    fn end(mut self, source: &str) -> Log {
        // It may have ended by itself.
        let _gone = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        self.child.wait().unwrap();
        Log::read(&self.dir, source)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        let _reaped = self.child.wait();
    }
}

struct Start {
    time: f64,
    entity: Vec<u8>,
    command_line: String,
}

/// Programs that this process has started as the source has announced them, and losses with the time of their telling.
#[derive(Default)]
struct Log {
    starts: Vec<Start>,
    losses: Vec<(f64, u64)>,
}

impl Log {
    fn read(dir: &TempDir, source: &str) -> Self {
        let mut log = Self::default();
        let Ok(records) = DirReader::open(&dir.path().join("wal"), "procmond", None) else { return log };
        for record in records.map(Result::unwrap) {
            if record.topic == "events.collector.procmond" {
                let gap = CoverageGap::decode(record.payload).unwrap();
                if gap.reason == "kernel_lost" {
                    log.losses.push((gap.to_us as f64 / 1e6, gap.count.unwrap_or(0)));
                }
                continue;
            }
            let event = ProcessEvent::decode(record.payload).unwrap();
            let exec = event.event_type() == EventType::Start && event.start_kind() == StartKind::Exec;
            let (time, announced) = (event.time_us as f64 / 1e6, event.source == source);
            let Some(process) = event.process.filter(|process| process.ppid == Some(std::process::id())) else {
                continue;
            };
            if exec && announced {
                let command_line = process.command_line.unwrap_or_default();
                log.starts.push(Start { time, entity: process.entity_id, command_line });
            }
        }
        log
    }

    fn recalled(&self, load: &Load, tag: &str, until: f64) -> Recalled {
        let [from, to] = load.span;
        let of_load = || self.starts.iter().filter(|start| (from..=to).contains(&start.time));
        let entities: std::collections::BTreeSet<_> = of_load().map(|start| &start.entity).collect();
        let lines: String = of_load().map(|start| start.command_line.clone() + "\n").collect();
        let losses = self.losses.iter().filter(|(told, _)| (from..until).contains(told));
        Recalled {
            announced: entities.len(),
            whole: load::found(&lines, tag),
            lost: losses.map(|(_, count)| count).sum(),
        }
    }
}

pub(crate) fn recall(source: &str, execs: usize) {
    let alone = Alone::start(source, false);
    alone.settle();
    let mut runs = Vec::new();
    for (number, rate) in RATES.iter().enumerate() {
        let tag = format!("alone{source}{number}");
        let (load, cpu) = cost(|| cpu_seconds(alone.pid()), || load::run(*rate, execs, &tag));
        runs.push((cpu, load, tag));
    }
    let log = alone.end(source);
    let who = format!("procmond alone, {source}");
    for (at, (cpu, load, tag)) in runs.iter().enumerate() {
        let until = runs.get(at + 1).map_or(f64::MAX, |(_, next, _)| next.span[0]);
        let recalled = log.recalled(load, tag, until);
        row(&who, load, recalled.whole, *cpu, &recalled.told(load));
    }
}

/// It prints each event as soon as that is in the log: writing, printing and reading the line are in the figure.
pub(crate) fn event_to_log(source: &str) {
    let mut alone = Alone::start(source, true);
    let lines = alone.child.stdout.take().unwrap();
    let reader = std::thread::spawn(|| delays_ms(lines));
    alone.settle();
    let load = load::run(Some(LOG_RATE), LOG_EXECS, "log");
    alone.settle();
    drop(alone.end(source));
    let mut delays = reader.join().unwrap();
    let rate = load.started as f64 / load.seconds;
    let count = delays.len();
    if count == 0 {
        return println!("| {source}: kernel event → in the log | not measured: procmond printed nothing |");
    }
    let (p50, p99) = p50_p99_ms(&mut delays);
    println!(
        "| {source}: kernel event → in the log, printed and read, at {rate:.0} exec/s, {count} starts | p50 {p50:.1} ms, p99 {p99:.1} ms |"
    );
}

/// Of each start of the load: from its time in the kernel to this line.
fn delays_ms(lines: ChildStdout) -> Vec<f64> {
    let mut delays = Vec::new();
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() % SECONDS_A_DAY;
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |column: &str| event.get(column).and_then(serde_json::Value::as_str);
        let ours =
            text("event_type") == Some("start") && text("command_line").is_some_and(|line| line.ends_with("-log"));
        if let Some(time) = text("time").filter(|_| ours) {
            delays.push((now - second_of_day(time)).rem_euclid(SECONDS_A_DAY) * 1e3);
        }
    }
    delays
}

/// Of a time such as `2026-01-31T12:00:00.000000Z`.
fn second_of_day(time: &str) -> f64 {
    let clock = time.split_once('T').map_or("", |(_, clock)| clock).trim_end_matches('Z');
    clock.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN))
}

/// Sleepers that end with this value.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather(count: usize) -> Self {
        let sleeper = || Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn();
        Self((0..count).map_while(|_| sleeper().ok()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _gone = child.kill();
        }
        for child in &mut self.0 {
            let _reaped = child.wait();
        }
    }
}

/// procmond's memory beside many processes, and after many that came and went.
pub(crate) fn memory(processes: usize, storm: usize) {
    let crowd = Crowd::gather(processes);
    let alone = Alone::start("auto", false);
    alone.settle();
    let megabytes = || {
        let (resident, anonymous) = memory_kib(alone.pid());
        (resident as f64 / 1024.0, anonymous as f64 / 1024.0)
    };
    let (before, anonymous) = megabytes();
    let (count, pid) = (crowd.0.len(), alone.pid());
    println!(
        "| procmond RSS beside {count} processes | {before:.1} MB, of it anonymous {anonymous:.1} MB; CPU so far {:.2} s |",
        cpu_seconds(pid)
    );
    let load = load::run(None, storm, "storm");
    alone.settle();
    let (after, anonymous) = megabytes();
    println!(
        "| procmond RSS after {} short-lived ones, {:.0}/s | {after:.1} MB ({:+.1} MB), of it anonymous {anonymous:.1} MB |",
        load.started,
        load.started as f64 / load.seconds,
        after - before
    );
}
