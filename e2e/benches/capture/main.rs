//! What capture misses, what it costs and how late it is, beside the tools of the field: the real programs, one run.
//!
//! `DAEMONEYE_BENCH_RULES` names a directory of rules: then only what they cost is measured.
//!
//! Needs root. Prints one Markdown table; a peer that is not installed is a row that says so. Reports; never fails because
//! something was slow or was missed.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

mod alone;
mod delay;
mod load;
mod ours;
mod peers;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use load::Load;

/// Processes of each run, unless `DAEMONEYE_BENCH_EXECS` says otherwise.
const EXECS: usize = 10_000;

/// Processes that live while memory is measured, unless `PROCESSES` says otherwise, and those that come and go then.
const PROCESSES: usize = 10_000;
const STORM: usize = 200_000;

/// Starts per second; `None` is as fast as two threads can.
const RATES: &[Option<u32>] = &[Some(100), Some(333), Some(1_000), Some(1_600), None];

fn main() {
    // Only `cargo bench` passes this flag; `cargo test --benches` has nothing to measure without release speed.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    println!("| figure | value |\n|---|---|");
    if !rustix::process::geteuid().is_root() {
        println!("| capture | not measured: needs root |");
        return;
    }
    if let Some(rules) = std::env::var_os("DAEMONEYE_BENCH_RULES") {
        return delay::with_rules("ebpf", Path::new(&rules));
    }
    let execs = number("DAEMONEYE_BENCH_EXECS", EXECS);
    for source in ["ebpf", "proc-connector"] {
        alone::recall(source, execs);
        alone::event_to_log(source);
        ours::recall_and_cost(source, execs);
        delay::exec_to_alert(source);
    }
    peers::auditd_and_laurel(execs);
    peers::forkstat(execs);
    alone::memory(number("PROCESSES", PROCESSES), number("DAEMONEYE_BENCH_STORM", STORM));
}

/// What became of a load.
struct Recalled {
    /// Started programs of which the source has told, each counted once.
    announced: usize,
    /// Those whose arguments are all there.
    whole: usize,
    /// Messages that the kernel could not hand over, of whatever process.
    lost: u64,
}

impl Recalled {
    /// Exact where nothing was lost. A lost message may be of any process, so where some were, they only bound what may be missing.
    fn told(&self, load: &Load) -> String {
        let Self { announced, lost, .. } = self;
        let verdict = match load.started.checked_sub(*announced) {
            Some(0) => "spawned = captured",
            Some(missing) if missing as u64 <= *lost => {
                "spawned ≤ captured + lost (a lost message may be of any process)"
            }
            _ => "SPAWNED ≠ CAPTURED + LOST",
        };
        format!(", announced {announced}, messages lost {lost}: {verdict}")
    }
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// One row about one run; `captured` are those whose arguments were all seen.
fn row(who: &str, load: &Load, captured: usize, cpu_seconds: f64, more: &str) {
    println!(
        "| {who}: {}, {:.0}/s reached | full argv {:.2} % ({captured} of {}){more}; CPU {:.1} % of one, {:.0} µs a process |",
        load.asked,
        load.started as f64 / load.seconds,
        captured as f64 * 100.0 / load.started as f64,
        load.started,
        cpu_seconds * 100.0 / load.seconds,
        cpu_seconds * 1e6 / load.started as f64
    );
}
