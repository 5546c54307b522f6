//! What several suites measure: a process's memory and CPU time, and the way of one alert.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::Home;

/// Resident memory, and the anonymous part of it.
pub(crate) fn memory_kib(pid: i32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("RssAnon:"))
}

/// User and system time; a process that is gone has used none.
pub(crate) fn cpu_seconds(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}

/// Hidden programs. A program cannot be started while a child of another thread still holds it open for writing, so they are
/// made before anything else is started.
pub(crate) fn hidden_programs(dir: &Path, count: usize) -> Vec<PathBuf> {
    let copied = |number: usize| {
        let program = dir.join(format!(".bench{number}"));
        fs::copy("/bin/sleep", &program).unwrap();
        program
    };
    (0..count).map(copied).collect()
}

/// From the start of a hidden program to its alert in the file.
fn one_alert(home: &Home, program: &Path, number: usize) -> Duration {
    // Instants that do not march in step with the snapshots.
    std::thread::park_timeout(Duration::from_millis((number as u64 * 37) % 211));
    let start = Instant::now();
    let mut child = Command::new(program).arg("30").stdin(Stdio::null()).spawn().unwrap();
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

/// What each of these programs took, one after the other.
pub(crate) fn alerts_ms(home: &Home, programs: &[PathBuf]) -> Vec<f64> {
    let each = programs.iter().enumerate();
    each.map(|(number, program)| one_alert(home, program, number).as_secs_f64() * 1e3).collect()
}

/// The middle and the last but one in a hundred, in milliseconds.
pub(crate) fn p50_p99_ms(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied();
    (at(50).unwrap_or(f64::NAN), at(99).unwrap_or(f64::NAN))
}
