//! Without an agent: everything is logged, followed and covered by the ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use collector_core::CollectorError;
use collector_core::testing::FakeSource;
use collector_core::wal::SyncMode;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::{EventRange, RangeBuilder, verify_dir};
use daemoneye_lib::proto::{CoverageGap, Record};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::house::{DEADLINE, actions, builder, stored};
use crate::support::{Faults, FaultyDisk, events, make_readable, until};

#[tokio::test]
async fn standalone_every_event_is_logged_followed_and_covered_by_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let source = FakeSource::new();
    let followed = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&followed);
    let stop = CancellationToken::new();
    let run = builder(dir.path(), &source)
        .config_note(serde_json::json!({ "snapshot_interval_ms": 5000 }))
        .follow(Arc::new(move |record: &Record| sink.lock().unwrap().push(record.clone())));
    let running = tokio::spawn(run.run(stop.clone()));
    source.feed(events(0..10)).await;
    source.feed(events(10..500)).await;
    until("followed", async || followed.lock().unwrap().len() == 500).await;
    stop.cancel();
    let stopped = running.await.unwrap().unwrap();
    assert_eq!(stopped.reason, "signal");
    let records = stored(dir.path());
    assert_eq!(*followed.lock().unwrap(), records, "the follower saw the very records");
    assert_eq!(source.stops(), 1);
    verify_dir(&dir.path().join("audit"), |_| {}).unwrap();
    let actions = actions(dir.path());
    assert_eq!(actions[0].0, "start");
    assert_eq!(actions[1].0, "config");
    assert_eq!(actions.last().unwrap().0, "stop");
    let mut next = 1;
    for (_, range) in actions.iter().filter(|(name, _)| name == "event-range") {
        assert_eq!(range["first"], next);
        let (first, last) = (range["first"].as_u64().unwrap(), range["last"].as_u64().unwrap());
        assert_eq!(range["count"].as_u64().unwrap(), last - first + 1);
        let mut again = RangeBuilder::new("test");
        for record in records.iter().filter(|r| (first..=last).contains(&r.sequence.unwrap().number)) {
            again.add(record.sequence.unwrap(), Content::of_record(&record.topic, &record.payload));
        }
        assert_eq!(again.take(), [serde_json::from_value::<EventRange>(range.clone()).unwrap()]);
        next = last + 1;
    }
    assert_eq!(next, 501, "every record is covered");
}

#[tokio::test]
async fn what_a_crash_left_uncovered_is_covered_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = collector_core::wal::WalOptions::new(dir.path().join("wal"), "test");
    options.segment_bytes = 16 * 1024;
    let (wal, _) = collector_core::wal::Wal::open(options).unwrap();
    wal.append(&events(0..20)).unwrap();
    drop(wal);
    let source = FakeSource::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(builder(dir.path(), &source).run(stop.clone()));
    until("started", async || source.starts() == 1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let ranges: Vec<_> = actions(dir.path()).into_iter().filter(|(name, _)| name == "event-range").collect();
    assert_eq!((ranges[0].1["first"].as_u64(), ranges[0].1["last"].as_u64()), (Some(1), Some(20)));
    // Since when nobody captured is a record of this run.
    assert_eq!((ranges.len(), ranges[1].1["first"].as_u64(), ranges[1].1["count"].as_u64()), (2, Some(21), Some(1)));
}

#[tokio::test]
async fn where_the_ledger_is_gone_the_log_says_since_when_nobody_captured() {
    let dir = tempfile::tempdir().unwrap();
    let source = FakeSource::new();
    let run_once = async || {
        let starts = source.starts();
        let stop = CancellationToken::new();
        let running = tokio::spawn(builder(dir.path(), &source).run(stop.clone()));
        until("started", async || source.starts() > starts).await;
        source.feed(events(0..10)).await;
        stop.cancel();
        running.await.unwrap().unwrap();
    };
    let silences = || {
        let gaps = stored(dir.path()).into_iter().filter(|record| record.topic == "events.collector.test");
        let gaps = gaps.map(|record| CoverageGap::decode(record.payload.as_ref()).unwrap());
        gaps.filter(|gap| gap.reason == "collector_unavailable").collect::<Vec<_>>()
    };
    run_once().await;
    assert_eq!(silences(), [], "a first start");
    std::fs::remove_dir_all(dir.path().join("audit")).unwrap();
    let last = stored(dir.path()).last().unwrap().time_us;
    run_once().await;
    assert_eq!(silences().iter().map(|gap| gap.from_us).collect::<Vec<_>>(), [last]);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_to_its_end_at_the_start_is_covered_by_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = collector_core::wal::WalOptions::new(dir.path().join("wal"), "test");
    options.segment_bytes = 16 * 1024;
    let (wal, _) = collector_core::wal::Wal::open(options).unwrap();
    wal.append(&events(0..400)).unwrap();
    drop(wal);
    let second = dir.path().join("wal/test-00002.wal");
    assert!(second.exists());
    let faults = Arc::new(Faults::default());
    *faults.unreadable.lock().unwrap() = Some(second.clone());
    let source = FakeSource::new();
    let run = builder(dir.path(), &source).disk(Arc::new(FaultyDisk(faults)));
    let error = run.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!((error.exit(), source.starts()), (Exit::Unreadable, 0), "{error}");

    make_readable(&second);
    let stop = CancellationToken::new();
    let running = tokio::spawn(builder(dir.path(), &source).run(stop.clone()));
    until("started", async || source.starts() == 1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let covered: u64 = actions(dir.path())
        .into_iter()
        .filter(|(name, _)| name == "event-range")
        .map(|(_, range)| range["count"].as_u64().unwrap())
        .sum();
    assert_eq!(covered, 401, "and the word that nobody captured since");
}

#[tokio::test]
async fn a_second_collector_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (FakeSource::new(), FakeSource::new());
    let stop = CancellationToken::new();
    let running = tokio::spawn(builder(dir.path(), &one).run(stop.clone()));
    until("started", async || one.starts() == 1).await;
    let error = builder(dir.path(), &two).run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::InUse);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failed_sync_ends_the_collector_with_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let source = FakeSource::new();
    let run = builder(dir.path(), &source).disk(Arc::new(FaultyDisk(Arc::clone(&faults))));
    let running = tokio::spawn(run.run(CancellationToken::new()));
    until("started", async || source.starts() == 1).await;
    faults.no_sync.store(true, Ordering::SeqCst);
    source.feed(events(0..3)).await;
    let error = tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, CollectorError::SyncFailed { .. }), "{error}");
    assert_eq!(error.exit(), Exit::SyncFailed);
}

/// Where the ledger says that the log lost something: why, how much, and the first and last number.
fn told_lost(dir: &std::path::Path) -> Vec<(String, u64, u64, u64)> {
    let number = |place: &serde_json::Value| place.as_str().unwrap().split_once(':').unwrap().1.parse().unwrap();
    let told = actions(dir).into_iter().filter(|(name, _)| name == "coverage-gap").map(|(_, told)| told);
    let one = |told: serde_json::Value| {
        let reason = told["reason"].as_str().unwrap().to_owned();
        (reason, told["events"].as_u64().unwrap(), number(&told["first"]), number(&told["last"]))
    };
    let mut told: Vec<_> = told.map(one).collect();
    told.sort_by_key(|(_, _, first, _)| *first);
    told
}

#[tokio::test]
async fn where_what_fell_to_the_bound_stood_is_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let source = FakeSource::new();
    let stop = CancellationToken::new();
    // Its segments go while they are looked at: the follower says what the log has taken, not the files.
    let is_taken = Arc::new(AtomicBool::new(false));
    let last = Arc::clone(&is_taken);
    let follow = move |record: &Record| {
        last.fetch_or(record.payload.as_ref() == b"payload 3999", Ordering::SeqCst);
    };
    let run = builder(dir.path(), &source).wal(16 * 1024, 5 * 16 * 1024, SyncMode::Group).follow(Arc::new(follow));
    let running = tokio::spawn(run.run(stop.clone()));
    until("started", async || source.starts() == 1).await;
    for begin in 0..20 {
        source.feed(events(begin * 200..(begin + 1) * 200)).await;
    }
    until("taken", async || is_taken.load(Ordering::SeqCst)).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let told = told_lost(dir.path());
    let mut next = 1;
    for (reason, count, first, last) in &told {
        assert_eq!((reason.as_str(), *first, *count), ("wal_bound", next, last - first + 1), "{told:?}");
        next = last + 1;
    }
    assert!(!told.is_empty(), "something fell");
    // The log's last words may take one more segment, behind the last entry.
    let begins = stored(dir.path())[0].sequence.unwrap().number;
    let stopped = actions(dir.path()).pop().unwrap();
    assert_eq!(stopped.0, "stop");
    let written: u64 = stopped.1["last"].as_str().unwrap().split_once(':').unwrap().1.parse().unwrap();
    assert!(written >= 4_000 && next <= begins, "{written} {next} {begins}");
}

#[tokio::test]
async fn a_loss_that_a_crash_kept_from_the_ledger_is_told_at_the_next_start_before_the_range_over_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = collector_core::wal::WalOptions::new(dir.path().join("wal"), "test");
    (options.segment_bytes, options.max_bytes) = (16 * 1024, 5 * 16 * 1024);
    let (wal, _) = collector_core::wal::Wal::open(options).unwrap();
    for n in 0..1_500 {
        wal.append(&events(n..n + 1)).unwrap();
    }
    drop(wal);
    let begins = stored(dir.path())[0].sequence.unwrap().number;
    assert!(begins > 1, "something fell");
    let source = FakeSource::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(builder(dir.path(), &source).run(stop.clone()));
    until("started", async || source.starts() == 1).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let told = told_lost(dir.path());
    assert_eq!((told[0].0.as_str(), told[0].2, told.last().unwrap().3), ("wal_bound", 1, begins - 1), "{told:?}");
    let names = super::house::names(dir.path());
    let place = |name: &str| names.iter().position(|known| known == name).unwrap();
    assert!(place("coverage-gap") < place("event-range"), "{names:?}");
}
