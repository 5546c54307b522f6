//! Every call of one append-and-rotate cycle fails once, or is the last one of the program; then the logs are read back.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::{all, events, gaps, payloads, small};
use collector_core::CollectorError;
use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use collector_core::wal::Wal;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::verify_dir;
use daemoneye_lib::proto::Sequence;

/// Says to the child that it is one, and where to write.
const DIR: &str = "INJECT_DIR";
const CALLS: &str = "openat,pwrite64,fdatasync,fsync,rename,unlink,ftruncate";

fn ledger_options(dir: &Path) -> LedgerOptions {
    LedgerOptions { segment_bytes: 4096, ..LedgerOptions::new(dir) }
}

/// Waits a little for the spare; under injection it may never stand.
fn await_spare(path: &Path) {
    let deadline = Instant::now() + Duration::from_millis(100);
    while !path.exists() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// Prints what is acknowledged, as it is.
fn cycle(dir: &Path) -> Result<(), CollectorError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (wal, _) = Wal::open(small(&dir.join("wal")))?;
    for (batch, spare) in [(0..10, 2), (10..70, 2), (70..80, 3), (80..90, 3)] {
        await_spare(&dir.join(format!("wal/test-{spare:05}.wal")));
        wal.append(&events(batch))?;
        runtime.block_on(wal.synced())?;
        println!("\ndurable {}", wal.progress().borrow().durable.map_or(0, |last| last.number));
    }
    let durable = wal.progress().borrow().durable;
    if let Some(last) = durable {
        wal.trim(Sequence::new(last.epoch, 80))?;
    }
    drop(wal);
    let (ledger, _) = Ledger::open(ledger_options(&dir.join("audit")))?;
    for _ in 0..3 {
        await_spare(&dir.join("audit/entries-00002.log"));
        let draft = Draft::now("test", "act", vec![b'x'; 600]);
        ledger.append_batch(&[draft.clone(), draft])?;
        println!("\nentries {}", ledger.head().entries);
    }
    Ok(())
}

#[test]
fn one_cycle_of_the_logs() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let code = cycle(Path::new(&dir)).map_or_else(|error| error.exit().code(), |()| 0);
    // The harness has its own ideas of a failure's code.
    std::process::exit(i32::from(code));
}

fn strace(dir: &Path, inject: Option<&str>) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &format!("trace={CALLS}"), "-e", "signal=none", "-o"]).arg(dir.join("calls"));
    for path in paths(dir) {
        command.arg("-P").arg(path);
    }
    if let Some(inject) = inject {
        command.args(["-e", inject]);
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "inject::one_cycle_of_the_logs", "--nocapture"]);
    command.env(DIR, dir).output().unwrap()
}

/// What the cycle touches; calls on other files, such as the loader's, are left alone.
fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut paths =
        vec![dir.join("wal"), dir.join("audit"), dir.join("wal/test.durable"), dir.join("audit/entries.durable")];
    for n in 1..6 {
        for name in [format!("wal/test-{n:05}.wal"), format!("audit/entries-{n:05}.log")] {
            paths.push(dir.join(format!("{name}.tmp")));
            paths.push(dir.join(name));
        }
    }
    paths
}

/// The most calls of each kind that one thread makes: strace counts by thread.
fn counted(dir: &Path) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in std::fs::read_to_string(dir.join("calls")).unwrap().lines() {
        let mut words = line.split_whitespace();
        let thread = words.next().unwrap().to_owned();
        if let Some((call, _)) = words.next().unwrap_or_default().split_once('(') {
            *counts.entry((call.to_owned(), thread)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in counts {
        let entry = most.entry(call).or_insert(0);
        *entry = count.max(*entry);
    }
    most
}

/// Reads both logs back and compares them with what the program said before it ended.
fn check(dir: &Path, output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers = |word: &str| -> Vec<u64> {
        said.lines().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
    };
    let ended = (output.status.code(), output.status.signal());
    let known = [Exit::Ok, Exit::Unreadable, Exit::SyncFailed].map(|exit| Some(i32::from(exit.code())));
    assert!(
        ended.1 == Some(9) || known.contains(&ended.0),
        "{what}: {ended:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let (wal, recovered) = Wal::open(small(&dir.join("wal"))).unwrap();
    assert!(recovered.corrupt.is_empty(), "{what}: {recovered:?}");
    let records = all(&wal);
    let numbered: Vec<u64> = records.iter().map(|r| r.sequence.unwrap().number).collect();
    assert!(numbered.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{what}: {numbered:?}");
    let read: Vec<u64> =
        payloads(&records).iter().map(|p| p.strip_prefix("payload ").unwrap().parse().unwrap()).collect();
    assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "{what}: each once and in order: {read:?}");
    let durable = numbers("durable ").last().copied().unwrap_or(0);
    assert!(numbered.last().copied().unwrap_or(0) >= durable, "{what}: {durable} was acknowledged: {numbered:?}");
    let told: u64 = gaps(&records).iter().map(|gap| gap.count.unwrap()).sum();
    let holes = read.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<u64>();
    assert!(holes <= told, "{what}: {holes} are missing between others and {told} are told");

    let (_, found) = Ledger::open(ledger_options(&dir.join("audit"))).unwrap();
    let acknowledged = numbers("entries ").last().copied().unwrap_or(0);
    assert!(found.damage.is_none() && found.entries >= acknowledged, "{what}: {acknowledged} entries, {found:?}");
    assert_eq!(verify_dir(&dir.join("audit"), |_| {}).unwrap().entries, found.entries, "{what}");
}

#[test]
fn an_error_or_the_end_at_any_call_costs_nothing_that_was_acknowledged() {
    if Command::new("strace").arg("-V").output().is_err() {
        return crate::skip::skipped("strace is not installed");
    }
    let plain = tempfile::tempdir().unwrap();
    let output = strace(plain.path(), None);
    if !output.status.success() {
        return crate::skip::skipped(format!(
            "strace may not trace here: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    check(plain.path(), &output, "nothing injected");
    let calls = counted(plain.path());
    for call in ["openat", "pwrite64", "fdatasync", "fsync", "rename", "unlink"] {
        assert!(calls.contains_key(call), "the cycle makes every call: {calls:?}");
    }
    let each = calls.iter().flat_map(|(call, count)| (1..=*count).map(move |at| (call, at)));
    let runs: Vec<String> = each
        .flat_map(|(call, at)| {
            ["error=EIO", "error=ENOSPC", "signal=KILL"].map(|fault| format!("inject={call}:{fault}:when={at}"))
        })
        .collect();
    let codes: Vec<Option<i32>> = runs
        .iter()
        .map(|inject| {
            let dir = tempfile::tempdir().unwrap();
            let output = strace(dir.path(), Some(inject));
            check(dir.path(), &output, inject);
            output.status.code()
        })
        .collect();
    assert!(codes.contains(&Some(i32::from(Exit::SyncFailed.code()))), "a failed sync has its own code: {codes:?}");
}
