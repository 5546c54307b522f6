//! How late an alert is under load.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::load;
use crate::ours::Ours;
use crate::support::{alerts_ms, hidden_programs, p50_p99_ms};

/// Alerts; enough for a p99 that means something at one sample beyond it.
const ALERTS: usize = 100;

/// Processes per second while alerts are awaited.
const ALERT_RATE: u32 = 333;

pub(crate) fn exec_to_alert(source: &str) {
    let Some(ours) = Ours::start(source) else { return };
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
        "| {source}: exec → alert in the file at {ALERT_RATE} exec/s, {ALERTS} alerts | p50 {p50:.1} ms, p99 {p99:.1} ms |"
    );
    ours.stop();
}
