//! Kill -9 at arbitrary instants, under a storm of short processes: whatever was being written, no image of a process starts
//! twice in a row in the log, nobody stops twice, and nobody stops without having started.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use collector_core::wal::DirReader;
use daemoneye_lib::proto::{EventType, ProcessEvent};
use prost::Message;

/// The full two hundred run with the real agent in e2e.
const KILLS: u64 = 15;

/// A run that prints fewer lines than were asked for is killed anyway.
const RUN: Duration = Duration::from_millis(400);

const DEADLINE: Duration = Duration::from_secs(60);

fn start(data_dir: &Path) -> (Child, Receiver<()>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_procmond"))
        .args(["--standalone", "--follow", "--snapshot-interval-ms", "100", "--log-level", "error", "--data-dir"])
        .arg(data_dir)
        .env("HOME", data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|_line| sender.send(())));
    (child, lines)
}

/// Waits for `count` lines, at most until `end`.
fn lines(out: &Receiver<()>, count: u64, end: Instant) -> Result<(), RecvTimeoutError> {
    (0..count).try_for_each(|_| out.recv_timeout(end.saturating_duration_since(Instant::now())))
}

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

fn kill_again_and_again(data_dir: &Path) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..KILLS {
        // xorshift64: the same instants each time as far as lines are instants.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (mut child, out) = start(data_dir);
        // Whether the lines came or the time was over, this is the instant.
        lines(&out, random % 200, Instant::now() + RUN).ok();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn no_kill_makes_the_log_announce_a_process_twice() {
    let dir = tempfile::tempdir().unwrap();
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| storm(&going));
        let killed = std::panic::catch_unwind(|| kill_again_and_again(dir.path()));
        going.store(false, Ordering::Relaxed);
        killed.unwrap();
    });
    let (mut last, out) = start(dir.path());
    lines(&out, 1, Instant::now() + DEADLINE).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&last), rustix::process::Signal::TERM).unwrap();
    assert_eq!(last.wait().unwrap().code(), Some(0));

    let (mut started, mut stopped) = (HashMap::new(), HashSet::new());
    for record in DirReader::open(&dir.path().join("wal"), "procmond", None).unwrap() {
        let record = record.unwrap();
        if !record.topic.starts_with("events.process.") {
            continue;
        }
        let event = ProcessEvent::decode(record.payload).unwrap();
        let (kind, process) = (event.event_type(), event.process.unwrap());
        let shown = format!("{kind:?} {} {} at {:?}", process.pid, process.name, record.sequence);
        let (entity, image) = (process.entity_id, (process.name, process.executable_path, process.command_line));
        match kind {
            EventType::Start => {
                assert!(!stopped.contains(&entity), "a start after the stop: {shown}");
                let former = started.insert(entity, image.clone());
                assert!(former != Some(image), "a second start of one image: {shown}");
            }
            EventType::Stop => {
                assert!(started.contains_key(&entity), "a stop without a start: {shown}");
                assert!(stopped.insert(entity), "a second stop: {shown}");
            }
            // What a process made of itself since its start: its next image is compared with this.
            _ => assert!(started.insert(entity, image).is_some(), "a change without a start: {shown}"),
        }
    }
    assert!(started.len() > 20 && !stopped.is_empty(), "the storm was not seen");
}
