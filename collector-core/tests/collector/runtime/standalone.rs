//! Without an agent: everything is logged, followed and covered by the ledger.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use collector_core::CollectorError;
use collector_core::testing::FakeSource;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::{EventRange, RangeBuilder, verify_dir};
use daemoneye_lib::proto::Record;
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
    assert_eq!((ranges.len(), ranges[0].1["first"].as_u64(), ranges[0].1["last"].as_u64()), (1, Some(1), Some(20)));
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
    assert_eq!(covered, 400);
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
