//! What the whole system costs and how long an alert takes: the real programs, release speed, one run.
//!
//! Prints one Markdown table. Reports; never fails because something was slow.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that cannot run should stop")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Agent, Home, procmonds};

/// Alerts per setting; enough for a p99 that means something at one sample beyond it.
const ALERTS: usize = 100;

fn main() {
    // Only `cargo bench` passes this flag; `cargo test --benches` has nothing to measure without release speed.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    println!("| figure | value |\n|---|---|");
    rest_and_load();
    for interval_ms in ["5000", "100"] {
        exec_to_alert(interval_ms);
    }
}

fn rest_and_load() {
    let home = Home::new().unwrap().set("PROCMOND__SNAPSHOT_INTERVAL_MS", "5000");
    let agent = home.start_ready().unwrap();
    std::thread::park_timeout(Duration::from_secs(12));
    report_memory("at rest", &home, &agent);
    let end = Instant::now() + Duration::from_secs(30);
    let mut started = 0_u64;
    let begin = Instant::now();
    while Instant::now() < end {
        let mut child = Command::new("/bin/true").stdin(Stdio::null()).spawn().unwrap();
        started += 1;
        child.wait().unwrap();
        let due = begin + Duration::from_millis(started * 3);
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    println!(
        "| load: processes started per second for 30 s | {:.0} |",
        started as f64 / begin.elapsed().as_secs_f64()
    );
    report_memory("under load", &home, &agent);
    agent.stop().unwrap();
}

fn report_memory(when: &str, home: &Home, agent: &Agent) {
    let mut processes = vec![("agent parent", agent.pid().as_raw())];
    processes.extend(agent.worker().map(|pid| ("agent worker", pid)));
    processes.extend(procmonds(&home.data()).unwrap().into_iter().map(|pid| ("procmond", pid)));
    for (name, pid) in processes {
        let (resident, anonymous) = memory_kib(pid);
        println!(
            "| RSS {when}: {name} | {:.1} MB, of it anonymous {:.1} MB; CPU so far {:.2} s |",
            resident as f64 / 1024.0,
            anonymous as f64 / 1024.0,
            cpu_seconds(pid)
        );
    }
}

fn memory_kib(pid: i32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("RssAnon:"))
}

fn cpu_seconds(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}

fn exec_to_alert(interval_ms: &str) {
    let home = Home::new().unwrap().set("PROCMOND__SNAPSHOT_INTERVAL_MS", interval_ms);
    let agent = home.start_ready().unwrap();
    let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
    let count = if interval_ms == "5000" { ALERTS / 5 } else { ALERTS };
    let mut times: Vec<Duration> = (0..count).map(|n| one_alert(&home, dir.path(), n)).collect();
    times.sort();
    println!(
        "| exec → alert in the file, snapshot every {interval_ms} ms, {count} alerts | p50 {:.0} ms, p99 {:.0} ms |",
        times[count / 2].as_secs_f64() * 1e3,
        times[(count * 99 / 100).min(count - 1)].as_secs_f64() * 1e3
    );
    agent.stop().unwrap();
}

fn one_alert(home: &Home, dir: &Path, number: usize) -> Duration {
    let program = dir.join(format!(".bench{number}"));
    fs::copy("/bin/sleep", &program).unwrap();
    // Instants that do not march in step with the snapshots.
    std::thread::park_timeout(Duration::from_millis((number as u64 * 37) % 211));
    let start = Instant::now();
    let mut child = Command::new(&program).arg("30").stdin(Stdio::null()).spawn().unwrap();
    let alerts = home.data().join("alerts.jsonl");
    let needle = format!("{}\"", program.display());
    while !fs::read_to_string(&alerts).unwrap_or_default().contains(&needle) {
        std::thread::park_timeout(Duration::from_millis(1));
        assert!(start.elapsed() < Duration::from_secs(60), "no alert for {}", program.display());
    }
    let elapsed = start.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}
