//! Short-lived processes at a steady rate.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A thread waits for each of its processes; one alone does not reach 1,600 a second.
const THREADS: usize = 2;

/// Longest run at a steady rate: all rates of all programs fit into ten minutes.
const SECONDS: usize = 10;

/// How long programs may take to come to rest; past it, others keep them busy.
const REST: Duration = Duration::from_secs(10);

/// How long the tail of a run may take, whose CPU time belongs to the run.
const TAIL: Duration = Duration::from_secs(2);

/// What a run came to.
pub(crate) struct Load {
    /// `333/s asked`
    pub(crate) asked: String,
    pub(crate) started: usize,
    pub(crate) seconds: f64,
    /// Seconds since the Unix epoch between which this process started nothing else.
    pub(crate) span: [f64; 2],
}

/// Starts `/bin/true arg<number>-<tag>` `count` times, or as often as fits, `rate` a second, and waits for each.
pub(crate) fn run(rate: Option<u32>, count: usize, tag: &str) -> Load {
    let fits = rate.map_or(usize::MAX, |rate| rate as usize * SECONDS);
    run_until(rate, count.min(fits), tag, &AtomicBool::new(false))
}

/// The same, until `enough`.
pub(crate) fn run_until(rate: Option<u32>, count: usize, tag: &str, enough: &AtomicBool) -> Load {
    let (begin, first) = (Instant::now(), unix_time());
    let next = AtomicUsize::new(0);
    let started = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || enough.load(Ordering::Relaxed) {
                return;
            }
            if let Some(rate) = rate {
                wait_until(begin + Duration::from_secs_f64(number as f64 / f64::from(rate)));
            }
            let mut program = Command::new("/bin/true");
            program.arg(format!("arg{number}-{tag}")).env_clear().stdin(Stdio::null());
            program.status().unwrap();
            started.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let asked = rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate}/s asked"));
    let seconds = begin.elapsed().as_secs_f64();
    Load { asked, started: started.into_inner(), seconds, span: [first, unix_time()] }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// How many different numbers are followed by `-<tag>` in `text`.
pub(crate) fn found(text: &str, tag: &str) -> usize {
    let end = format!("-{tag}");
    let number = |(at, _): (usize, &str)| {
        let before = text.get(..at)?;
        let start = before.rfind("arg")?.checked_add(3)?;
        before.get(start..)?.parse::<usize>().ok()
    };
    text.match_indices(&end).filter_map(number).collect::<std::collections::BTreeSet<_>>().len()
}

/// Waits until nothing is left to do.
pub(crate) fn settle(cpu_seconds: impl Fn() -> f64) {
    rest_within(REST, cpu_seconds);
}

/// The CPU time of this load and its tail.
pub(crate) fn cost(cpu_seconds: impl Fn() -> f64, load: impl FnOnce() -> Load) -> (Load, f64) {
    let before = cpu_seconds();
    let load = load();
    rest_within(TAIL, &cpu_seconds);
    (load, cpu_seconds() - before)
}

/// Rest is less than two clock ticks of work in half a second.
fn rest_within(bound: Duration, cpu_seconds: impl Fn() -> f64) {
    let begin = Instant::now();
    let mut before = cpu_seconds();
    while begin.elapsed() < bound {
        std::thread::park_timeout(Duration::from_millis(500));
        let now = cpu_seconds();
        if now - before < 0.02 {
            return;
        }
        before = now;
    }
}
