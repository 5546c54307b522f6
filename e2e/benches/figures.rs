//! What the whole system costs and how long an alert takes: the real programs, release speed, one run.
//!
//! Prints one Markdown table. Reports; never fails because something was slow.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Agent, Home, procmonds};

use support::{alerts_ms, cpu_seconds, hidden_programs, memory_kib, p50_p99_ms};

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

fn exec_to_alert(interval_ms: &str) {
    let home = Home::new().unwrap().set("PROCMOND__SNAPSHOT_INTERVAL_MS", interval_ms);
    let agent = home.start_ready().unwrap();
    let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
    let count = if interval_ms == "5000" { ALERTS / 5 } else { ALERTS };
    let mut times = alerts_ms(&home, &hidden_programs(dir.path(), count));
    let (p50, p99) = p50_p99_ms(&mut times);
    println!(
        "| exec → alert in the file, snapshot every {interval_ms} ms, {count} alerts | p50 {p50:.0} ms, p99 {p99:.0} ms |"
    );
    agent.stop().unwrap();
}
