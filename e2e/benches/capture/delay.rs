//! How late an alert is under load.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::load;
use crate::ours::Ours;
use crate::support::{alerts_ms, hidden_programs, memory_kib, p50_p99_ms};

/// Alerts; enough for a p99 that means something at one sample beyond it.
const ALERTS: usize = 100;

/// Processes per second while alerts are awaited.
const ALERT_RATE: u32 = 333;

pub(crate) fn exec_to_alert(source: &str) {
    if let Some(ours) = Ours::start(source) {
        delay(source, ours);
    }
}

/// The same with the rules of that directory beside the built-in ones, and what the worker then takes.
pub(crate) fn with_rules(source: &str, more: &Path) {
    let rules = tempfile::tempdir().unwrap();
    let mut count = 0;
    for dir in [&e2e::builtin_rules(), more] {
        for file in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            fs::copy(&file, rules.path().join(file.file_name().unwrap())).unwrap();
            count += 1;
        }
    }
    let Some(ours) = Ours::start_with(source, Some(rules.path())) else { return };
    let worker = ours.worker().unwrap();
    let (rss, anonymous) = memory_kib(worker);
    println!(
        "| agent's worker with {count} rules, at rest | RSS {:.1} MB, of it anonymous {:.1} MB |",
        rss as f64 / 1e3,
        anonymous as f64 / 1e3
    );
    delay(&format!("{source}, {count} rules"), ours);
}

fn delay(what: &str, ours: Ours) {
    let dir = tempfile::Builder::new().prefix("tmp.").tempdir_in("/tmp").unwrap();
    let programs = hidden_programs(dir.path(), ALERTS);
    let enough = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        scope.spawn(|| load::run_until(Some(ALERT_RATE), usize::MAX, "alerts", &enough));
        let times = alerts_ms(&ours.home, &programs);
        enough.store(true, Ordering::Relaxed);
        times
    });
    let (p50, p99) = p50_p99_ms(&mut times);
    println!(
        "| {what}: exec → alert in the file at {ALERT_RATE} exec/s, {ALERTS} alerts | p50 {p50:.1} ms, p99 {p99:.1} ms |"
    );
    ours.stop();
}
