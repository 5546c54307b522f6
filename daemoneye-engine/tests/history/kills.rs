//! Kill -9 while segments are merged: this program starts itself again and kills what it started.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};

use super::*;

/// Names the data directory to the program that is to be killed.
const DIR: &str = "DAEMONEYE_TEST_KILLED_IN";
const KILLS: u64 = 52;
/// Kills of one directory.
const KILLS_EACH: u64 = 13;
/// Events of a seal.
const RUN: u64 = 20;
/// What a merge takes in a debug build, about: a kill comes somewhere inside, or shortly behind.
const WITHIN_US: u64 = 120_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// The `number`th event, always the same: eight an hour.
fn events(generator: &mut Collector, next: u64) -> EventBatch {
    let from_us = T0 + i64::try_from(next).unwrap() * HOUR_US / 8;
    generator.events(usize::try_from(RUN).unwrap(), from_us, HOUR_US / 8)
}

/// What the program has sent, made here once more.
struct Sent {
    collector: Collector,
    count: u64,
    batches: Vec<RecordBatch>,
    lived: Lived,
}

impl Sent {
    fn new() -> Self {
        let collector = Collector::with_ends("procmond", 1);
        Self { collector, count: 0, batches: Vec::new(), lived: Lived::new() }
    }

    fn until(&mut self, count: u64) {
        while self.count < count {
            let batch = events(&mut self.collector, self.count).batch;
            live_through(&mut self.lived, &batch);
            self.batches.push(batch);
            self.count += RUN;
        }
    }
}

/// Not a test of its own: what the next one kills.
#[test]
fn what_is_killed_seals_and_merges_until_then() {
    let Some(dir) = std::env::var_os(DIR) else {
        eprintln!("skipped: runs only where another test starts it");
        return;
    };
    let store = open(Path::new(&dir));
    let mut collector = Collector::with_ends("procmond", 1);
    let mut done = store.committed("procmond").map_or(0, |at| at.number);
    for next in (0..done).step_by(usize::try_from(RUN).unwrap()) {
        drop(events(&mut collector, next));
    }
    loop {
        for _ in 0..6 {
            seal(&store, events(&mut collector, done));
            done += RUN;
        }
        println!("merging");
        compact(&store, T0 + i64::try_from(done).unwrap() * HOUR_US / 8);
        println!("merging");
        store.vacuum(T0, &CancellationToken::new()).unwrap();
    }
}

fn begin(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kills::what_is_killed_seals_and_merges_until_then", "--exact", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// Starts it and kills it `after_us` behind the beginning of its `nth` merge.
fn kill_in_merge(dir: &Path, nth: u64, after_us: u64) {
    let (mut child, output) = begin(dir);
    let (said, heard) = channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let mut begun = 0;
    while begun < nth {
        let line = heard.recv_timeout(PATIENCE).unwrap();
        begun += u64::from(line.contains("merging"));
    }
    // A wait for what does not come: the instant of the kill.
    let after = std::time::Instant::now() + Duration::from_micros(after_us);
    while heard.recv_timeout(after.saturating_duration_since(std::time::Instant::now()))
        != Err(RecvTimeoutError::Timeout)
    {}
    child.kill().unwrap();
    child.wait().unwrap();
    drop(heard);
    reader.join().unwrap();
}

#[test]
fn a_kill_at_any_instant_of_a_merge_loses_no_row_and_doubles_none() {
    let (mut unfinished, mut merged, mut ended) = (0, 0, 0);
    for round in 0..KILLS / KILLS_EACH {
        let (dir, mut sent) = (tempfile::tempdir().unwrap(), Sent::new());
        for kill in 0..KILLS_EACH {
            // Spread over the time of a merge without luck: the golden ratio fills an interval evenly.
            let turn = (round * KILLS_EACH + kill) * 61_803 % 100_000;
            kill_in_merge(dir.path(), 1 + kill % 3, WITHIN_US * turn / 100_000);
            unfinished += u64::from(dir.path().join("segments/merge.parquet.tmp").exists());
            let store = open(dir.path());
            let snapshot = store.snapshot();
            merged += u64::from(snapshot.segments.iter().any(|file| file.level > 0));
            let committed = store.committed("procmond").unwrap().number;
            let numbers: Vec<i64> = rows(&snapshot).into_iter().flat_map(|((_, _, n, _), t)| vec![n; t]).collect();
            assert_eq!(numbers, (1..=i64::try_from(committed).unwrap()).collect::<Vec<_>>());
            assert!(snapshot.completeness.is_complete() && store.coverage().unwrap().is_empty());
            assert_only_listed_files(&store, dir.path());
            assert_registered_exactly(&snapshot);
            sent.until(committed);
            assert_lifetimes(&store, &sent.lived);
        }
        let store = open(dir.path());
        assert!(rows(&store.snapshot()) == rows_of(&sent.batches), "every column is as it was sent");
        ended += sent.lived.values().filter(|ended| **ended).count();
    }
    assert!(unfinished > 0 && merged > 0, "{unfinished} kills met an unfinished file, {merged} left merged ones");
    assert!(ended > 500, "only {ended} ends were looked for");
}
