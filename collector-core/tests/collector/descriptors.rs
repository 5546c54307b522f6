//! A process that may open nothing more: the logs go on, tell what they could not take, and end nothing.

use std::fs::File;
use std::process::Command;

use collector_core::ledger::{Draft, Ledger, LedgerOptions};
use collector_core::wal::Wal;
use daemoneye_lib::ledger::verify_dir;
use daemoneye_lib::proto::CoverageGap;
use prost::Message as _;

use crate::support::{all, events, small};

/// Tells the copy of this test that runs under the limit.
const INSIDE: &str = "DAEMONEYE_TEST_FEW_DESCRIPTORS";

#[cfg(unix)]
#[tokio::test]
async fn logs_outlive_a_process_without_a_descriptor_left_and_tell_what_they_could_not_take() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let name = "descriptors::logs_outlive_a_process_without_a_descriptor_left_and_tell_what_they_could_not_take";
    let limited = format!("ulimit -n 64 && exec \"$0\" --exact {name} --nocapture");
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh").args(["-c", &limited]).arg(program).env(INSIDE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

async fn inside() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(&dir.path().join("wal"))).unwrap();
    let audit = dir.path().join("audit");
    let (ledger, _) = Ledger::open(LedgerOptions { segment_bytes: 4096, ..LedgerOptions::new(&audit) }).unwrap();
    let entry = || ledger.append(Draft::now("test", "note", vec![7; 256]));
    let mut taken = Vec::new();
    // Again and again: a segment that is closed gives its descriptor back.
    let mut take_all = || taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
    // Several segments of either log: the spares that are ready are not enough.
    for round in 0..40 {
        take_all();
        wal.append(&events(round * 20..(round + 1) * 20)).unwrap();
        wal.synced().await.unwrap();
    }
    // Whoever makes the spares may be the first to take what a closed segment gives back, but not at each of hundreds.
    let refused = (0..5_000).find_map(|_| {
        take_all();
        entry().err()
    });
    let refused = refused.unwrap().to_string();
    assert!(!refused.contains("cannot sync"), "{refused}");
    let lost = wal.stats().lost;
    assert!((1..800).contains(&lost), "{lost}");

    drop(taken);
    wal.append(&events(800..820)).unwrap();
    wal.synced().await.unwrap();
    entry().unwrap();
    let records = all(&wal);
    let gaps = records.iter().filter(|record| record.topic != "events.process.start");
    let told: u64 = gaps.map(|record| CoverageGap::decode(record.payload.as_ref()).unwrap().count.unwrap()).sum();
    let kept = records.iter().filter(|record| record.topic == "events.process.start").count() as u64;
    assert_eq!((told, kept + told), (lost, 820), "every event is there or counted");
    drop(ledger);
    verify_dir(&audit, |_| {}).unwrap();
}
