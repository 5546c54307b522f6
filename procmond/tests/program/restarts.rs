//! Kill -9 at arbitrary instants, under a storm of short processes: whatever was being written, no image of a process starts
//! twice in a row in the log, nobody stops twice, and nobody stops without having started.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{DEADLINE, Procmond, assert_told_once, is_root};

/// The full two hundred run with the real agent in e2e.
const KILLS: u64 = 15;

/// A run that prints fewer lines than were asked for is killed anyway.
const RUN: Duration = Duration::from_millis(400);

/// Loading the kernel's programs takes up to half a second.
const KERNEL_RUN: Duration = Duration::from_secs(2);

fn storm(going: &AtomicBool) {
    let mut running = Vec::new();
    while going.load(Ordering::Relaxed) {
        running.push(Command::new("sleep").arg("0.2").stdin(Stdio::null()).spawn().unwrap());
        Command::new("true").status().unwrap();
        if running.len() > 20 {
            running.remove(0).wait().unwrap();
        }
    }
    for mut child in running {
        child.wait().unwrap();
    }
}

fn kill_again_and_again(data_dir: &Path, source: &str) {
    let run = if source == "procfs" { RUN } else { KERNEL_RUN };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..KILLS {
        // xorshift64: the same instants each time as far as lines are instants.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let procmond = Procmond::start(data_dir, source, &[]);
        // Every other one is killed at work, however slow the machine; the rest wherever it is.
        assert!(n % 2 == 0 || procmond.wait_for_events(1, DEADLINE), "nothing is told");
        // Whether the events came or the time was over, this is the instant.
        procmond.wait_for_events(random % 200, run);
    }
}

#[test]
fn no_kill_makes_the_log_announce_a_process_twice() {
    is_never_told_twice("procfs");
}

#[test]
fn no_kill_makes_the_log_announce_a_process_twice_beside_the_kernels_announcements() {
    if is_root() {
        is_never_told_twice("auto");
    }
}

#[test]
fn no_kill_makes_the_log_announce_a_process_twice_beside_the_connectors_announcements() {
    if is_root() {
        is_never_told_twice("proc-connector");
    }
}

fn is_never_told_twice(source: &str) {
    let dir = tempfile::tempdir().unwrap();
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| storm(&going));
        let killed = std::panic::catch_unwind(|| kill_again_and_again(dir.path(), source));
        going.store(false, Ordering::Relaxed);
        killed.unwrap();
    });
    let last = Procmond::start(dir.path(), source, &[]);
    assert!(last.wait_for_events(1, DEADLINE));
    let (events, _gaps_between_runs) = last.log(dir.path());
    assert_told_once(&events);
    assert!(events.len() > 40, "the storm was not seen");
}
