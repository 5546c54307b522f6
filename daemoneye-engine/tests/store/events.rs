//! What the store promises: every event once, every alert once, nothing lost by a crash, nothing guessed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemoneye_engine::detect::rules::ListItem;
use daemoneye_engine::ingest::{EventBatch, UNDECODABLE, decode};
use daemoneye_engine::store::{
    AlertFilter, Answer, DeliveryState, FORMAT_VERSION, KeptList, LedgerMark, OutboxStats, RuleMatch, RuleText, Store,
    StoreError, StoreOptions,
};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::model::{Alert, AlertStatus, Completeness, Degraded, DetectionRule, RuleState};
use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, ProcessRecord, Record, Sequence, StartKind};
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use prost::Message as _;
use redb::{ReadableDatabase as _, TableDefinition};
use uuid::Uuid;

use super::golden;
use super::raw::{Counter, Raw, overwrite};
use super::whole::SystemInfo;

use super::damage::copy;

const T0: i64 = 1_760_000_000_000_000;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { sinks: vec!["file".into(), "stdout".into()], host: "host".into(), ..StoreOptions::new(dir) }
}

pub(super) fn open(dir: &Path) -> Store {
    Store::open(options(dir)).unwrap()
}

fn event(kind: EventType, pid: u32, time_us: i64) -> ProcessEvent {
    let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
    let name = format!("p{pid}");
    ProcessEvent {
        event_type: kind.into(),
        time_us,
        start_kind: StartKind::Exec.into(),
        process: Some(ProcessRecord { entity_id, pid, name, ..ProcessRecord::default() }),
        source: "test".into(),
        ..ProcessEvent::default()
    }
}

fn record(epoch: u64, number: u64, event: &ProcessEvent) -> Record {
    let (topic, time_us) = ("events.process.start".to_owned(), event.time_us);
    Record { sequence: Some(Sequence::new(epoch, number)), topic, time_us, payload: event.encode_to_vec().into() }
}

/// One start per number, a second apart, each of another process.
fn start(epoch: u64, number: u64) -> Record {
    let pid = u32::try_from(number).unwrap();
    record(epoch, number, &event(EventType::Start, pid, T0 + i64::try_from(number).unwrap() * 1_000_000))
}

pub(super) fn run(epoch: u64, numbers: std::ops::RangeInclusive<u64>) -> EventBatch {
    decode("procmond", &numbers.map(|number| start(epoch, number)).collect::<Vec<_>>()).unwrap()
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect()
}

/// Every (collector, epoch, number) that a query sees, with how often.
fn seen(store: &Store) -> BTreeMap<(String, i64, i64), usize> {
    let snapshot = store.snapshot();
    let sealed = snapshot.segments.iter().flat_map(|file| read(&file.path));
    let mut seen = BTreeMap::new();
    for batch in sealed.chain(snapshot.open.iter().cloned()) {
        let collectors = batch.column_by_name("collector").unwrap().as_string::<i32>().clone();
        let epochs = batch.column_by_name("epoch").unwrap().as_primitive::<Int64Type>().clone();
        let numbers = batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().clone();
        for row in 0..batch.num_rows() {
            let at = (collectors.value(row).to_owned(), epochs.value(row), numbers.value(row));
            *seen.entry(at).or_insert(0) += 1;
        }
    }
    seen
}

fn assert_exactly_once(store: &Store, epoch: i64, numbers: std::ops::RangeInclusive<i64>) {
    let expected: BTreeMap<_, _> = numbers.map(|number| (("procmond".to_owned(), epoch, number), 1)).collect();
    assert_eq!(seen(store), expected);
}

fn hashes(dir: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let mut hashes = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hashes.extend(self::hashes(&path));
        } else {
            hashes.insert(path.clone(), blake3::hash(&fs::read(&path).unwrap()));
        }
    }
    hashes
}

/// A rule whose matches are repeats of each other for five minutes.
pub(super) fn rule(name: &str) -> DetectionRule {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
    DetectionRule { id, name: name.into(), dedup: vec![], dedup_window_s: 300, ..golden::rule() }
}

/// Every row of `batch` as a match of `rule`.
pub(super) fn matches(rule: &DetectionRule, batch: &EventBatch) -> Vec<RuleMatch> {
    let rule = Arc::new(rule.clone());
    let one = |row| RuleMatch {
        rule: Arc::clone(&rule),
        batch: Arc::new(batch.batch.clone()),
        row,
        answer: Answer::Row(serde_json::Map::from_iter([("pid".to_owned(), serde_json::json!(row))])),
        completeness: Completeness::complete(),
    };
    (0..batch.batch.num_rows()).map(one).collect()
}

#[test]
fn an_event_is_seen_once_in_memory_and_once_after_the_seal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(run(1, 1..=100)).unwrap();
    assert_exactly_once(&store, 1, 1..=100);
    assert_eq!(store.committed("procmond"), None);
    assert_eq!(store.seal().unwrap(), [("procmond".to_owned(), Sequence::new(1, 100))]);
    assert_exactly_once(&store, 1, 1..=100);
    assert_eq!(store.committed("procmond"), Some(Sequence::new(1, 100)));
    assert_eq!(store.seal().unwrap(), [], "nothing is left to seal");
    let file = store.snapshot().segments[0].clone();
    assert_eq!((file.rows, file.first_us, file.last_us), (100, T0 + 1_000_000, T0 + 100_000_000));
    assert_eq!(file.hash, *blake3::hash(&fs::read(&file.path).unwrap()).as_bytes());
}

#[test]
fn the_open_segment_is_due_by_rows_by_age_and_by_position_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { seal_rows: 10, ..options(dir.path()) }).unwrap();
    store.append(run(1, 1..=9)).unwrap();
    assert!(!store.seal_due());
    store.append(run(1, 10..=10)).unwrap();
    assert!(store.seal_due());
    drop(store);
    let store = Store::open(StoreOptions { seal_after: Duration::ZERO, ..options(dir.path()) }).unwrap();
    assert!(!store.seal_due(), "an empty segment is never due");
    let garbage = Record { payload: vec![0xff].into(), ..start(1, 1) };
    store.append(decode("procmond", &[garbage]).unwrap()).unwrap();
    assert!(store.seal_due());
    assert_eq!(store.seal().unwrap(), [("procmond".to_owned(), Sequence::new(1, 1))]);
    assert!(store.snapshot().segments.is_empty(), "a position without rows makes no file");
}

#[test]
fn what_cannot_be_decoded_is_a_gap_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let gap =
        CoverageGap { collector: "liar".into(), reason: "ring_full".into(), count: Some(7), ..Default::default() };
    let told =
        Record { topic: "events.collector.procmond".into(), payload: gap.encode_to_vec().into(), ..start(1, 3) };
    let nameless = Record {
        payload: ProcessEvent { process: None, ..event(EventType::Start, 1, T0) }.encode_to_vec().into(),
        ..start(1, 4)
    };
    let records =
        [start(1, 1), Record { payload: b"\xff\xff\xff".to_vec().into(), ..start(1, 2) }, told, nameless, start(1, 5)];
    let batch = decode("procmond", &records).unwrap();
    assert_eq!((batch.batch.num_rows(), batch.gaps.len(), batch.last), (2, 3, Sequence::new(1, 5)));
    store.append(batch.clone()).unwrap();
    let reasons = |store: &Store| {
        let mut reasons: Vec<(String, String, Option<u64>)> =
            store.coverage().unwrap().into_iter().map(|r| (r.gap.collector, r.gap.reason, r.gap.count)).collect();
        reasons.sort();
        reasons
    };
    assert_eq!(reasons(&store).len(), 3, "gaps are visible before the seal");
    store.seal().unwrap();
    store.append(batch).unwrap();
    let expected = [
        ("procmond".to_owned(), "ring_full".to_owned(), Some(7)),
        ("procmond".to_owned(), UNDECODABLE.to_owned(), Some(2)),
    ];
    assert_eq!(reasons(&store), expected, "touching gaps are one row, a replay adds none");
    assert_eq!(store.committed("procmond"), Some(Sequence::new(1, 5)));
}

#[test]
fn events_without_a_table_are_counted_in_one_row_and_cost_their_neighbours_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let warm = |number| Record {
        topic: "events.performance.temperature".into(),
        payload: b"cpu 41000".to_vec().into(),
        ..start(1, number)
    };
    let batch = decode("thermal", &[warm(1), start(1, 2), warm(3), warm(4)]).unwrap();
    assert_eq!((batch.batch.num_rows(), batch.last), (1, Sequence::new(1, 4)));
    store.append(batch).unwrap();
    store.seal().unwrap();
    let told: Vec<_> = store.coverage().unwrap().into_iter().map(|row| (row.gap.reason, row.gap.count)).collect();
    assert_eq!(told, [("no_table".to_owned(), Some(3))]);
    assert_eq!(store.committed("thermal"), Some(Sequence::new(1, 4)), "so that the collector's log can be trimmed");
}

#[test]
fn a_run_out_of_order_is_refused_by_position() {
    let refused = decode("procmond", &[start(1, 2), start(1, 2)]).unwrap_err().to_string();
    assert!(refused.contains("procmond") && refused.contains("1:2"), "{refused}");
    assert!(decode("procmond", &[Record { sequence: None, ..start(1, 1) }]).is_err());
    assert!(decode("procmond", &[]).is_err());
}

#[test]
fn a_crash_between_rename_and_transaction_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(run(1, 1..=10)).unwrap();
    store.seal().unwrap();
    drop(store);
    // The state as it was before the second seal, beside the files as they were after it: exactly that crash.
    let before = fs::read(dir.path().join("state.redb")).unwrap();
    let store = open(dir.path());
    store.append(run(1, 11..=20)).unwrap();
    store.seal().unwrap();
    let orphan = store.snapshot().segments[1].path.clone();
    drop(store);
    fs::write(dir.path().join("state.redb"), before).unwrap();
    fs::write(orphan.with_extension("parquet.tmp"), b"half").unwrap();

    let store = open(dir.path());
    assert!(!orphan.exists() && !orphan.with_extension("parquet.tmp").exists(), "leftovers are removed");
    assert_eq!(store.committed("procmond"), Some(Sequence::new(1, 10)));
    store.append(run(1, 5..=20)).unwrap();
    store.seal().unwrap();
    assert_exactly_once(&store, 1, 1..=20);
}

#[test]
fn a_seal_that_fails_keeps_the_events_and_succeeds_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(run(1, 1..=10)).unwrap();
    let segments = dir.path().join("segments");
    fs::remove_dir(&segments).unwrap();
    let failed = store.seal().unwrap_err();
    assert!(failed.to_string().contains("segments"), "{failed}");
    assert_exactly_once(&store, 1, 1..=10);
    assert_eq!(store.committed("procmond"), None);
    store.append(run(1, 11..=20)).unwrap();
    fs::create_dir(&segments).unwrap();
    store.seal().unwrap();
    assert_exactly_once(&store, 1, 1..=20);
    assert_eq!(store.committed("procmond"), Some(Sequence::new(1, 20)));
    assert_eq!(store.live().unwrap().num_rows(), 20);
}

#[test]
fn a_disk_that_stays_full_bounds_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { seal_rows: 10, ..options(dir.path()) }).unwrap();
    let refused = (0..20).find_map(|run_of| store.append(run(1, run_of * 10 + 1..=run_of * 10 + 10)).err()).unwrap();
    assert!(matches!(refused, StoreError::LimitOpenSegment { rows: 80 }), "{refused}");
}

#[test]
fn snapshots_taken_during_seals_see_every_event_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let appended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let sealer = scope.spawn(|| {
            for at in 0..20 {
                store.append(run(1, at * 50 + 1..=at * 50 + 50)).unwrap();
                appended.fetch_add(50, Ordering::SeqCst);
                store.seal().unwrap();
            }
        });
        while !sealer.is_finished() {
            let least = appended.load(Ordering::SeqCst);
            let seen = seen(&store);
            assert!(seen.values().all(|times| *times == 1), "an event stands twice");
            assert!(seen.len() >= least, "{least} events were appended, {} are seen", seen.len());
        }
    });
    assert_exactly_once(&store, 1, 1..=1_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_of_replays_seals_and_restarts_stores_each_event_once(
        steps in prop::collection::vec((0_u64..60, 1_u64..40, 0_u8..4), 1..12)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let mut highest = 0;
        for (back, length, then) in steps {
            // A collector replays from anywhere at or before the next position, never from beyond it.
            let first = (highest + 1_u64).saturating_sub(back).max(1);
            let last = first + length - 1;
            store.append(run(1, first..=last)).unwrap();
            highest = highest.max(last);
            if then == 1 {
                store.seal().unwrap();
            }
            if then == 2 {
                drop(store);
                store = open(dir.path());
                highest = store.committed("procmond").map_or(0, |at| at.number);
            }
        }
        if highest > 0 {
            assert_exactly_once(&store, 1, 1..=i64::try_from(highest).unwrap());
            store.seal().unwrap();
            assert_exactly_once(&store, 1, 1..=i64::try_from(highest).unwrap());
        }
    }
}

#[test]
fn a_later_epoch_outranks_every_number_of_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(run(1, 1..=50)).unwrap();
    store.append(run(2, 1..=5)).unwrap();
    assert_eq!(store.append(run(1, 40..=60)).unwrap().rows, 0);
    assert!(store.unseen(run(2, 1..=5)).is_none());
    assert_eq!(store.unseen(run(2, 4..=8)).unwrap().batch.num_rows(), 3);
    assert_eq!(seen(&store).len(), 55);
}

#[test]
fn live_processes_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let records = [
        start(1, 1),
        start(1, 2),
        record(1, 3, &event(EventType::Stop, 1, T0)),
        record(1, 4, &event(EventType::Modify, 2, T0 + 9)),
    ];
    store.append(decode("procmond", &records).unwrap()).unwrap();
    let rows = |store: &Store| -> Vec<i64> {
        let live = store.live().unwrap().processes().map(Result::unwrap);
        live.flat_map(|batch| batch.column_by_name("pid").unwrap().as_primitive::<Int64Type>().values().to_vec())
            .collect()
    };
    assert_eq!(rows(&store), [2]);
    store.seal().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(rows(&store), [2]);
    let live = store.live().unwrap().processes().next().unwrap().unwrap();
    assert_eq!(live.column_by_name("seq").unwrap().as_primitive::<Int64Type>().value(0), 4);
}

#[test]
fn a_repeat_raises_the_count_once_and_a_replay_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let same = |number: u64, second: i64| record(1, number, &event(EventType::Start, 7, T0 + second * 1_000_000));
    let batch = decode("procmond", &[same(1, 0), same(2, 10), same(3, 299), same(4, 301)]).unwrap();
    let rule = rule("r");
    let raised = store.commit_matches(matches(&rule, &batch)).unwrap();
    assert_eq!(raised.len(), 2, "the fourth lies outside the window of the first");
    let first = store.alert(raised[0].id).unwrap().unwrap();
    assert_eq!((first.count, first.first_seen_us, first.last_seen_us), (3, T0, T0 + 299_000_000));
    assert_eq!(first.events.iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(first.process["name"], "p7");
    assert_eq!(first.row["pid"], 0);

    let before = store.alerts(&AlertFilter::default()).unwrap();
    let (audit, outbox) = (store.audit_pending(100).unwrap().len(), store.outbox_stats().unwrap());
    assert_eq!((audit, outbox[0].pending), (2, 2), "one audit entry and one delivery per sink and alert");
    assert_eq!(store.commit_matches(matches(&rule, &batch)).unwrap(), []);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.commit_matches(matches(&rule, &batch)).unwrap(), [], "also after a restart");
    assert_eq!(store.alerts(&AlertFilter::default()).unwrap(), before);
    assert_eq!((store.audit_pending(100).unwrap().len(), store.outbox_stats().unwrap()), (audit, outbox));
}

#[test]
fn one_thing_that_is_told_in_two_events_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let told = |number, kind, pid, second: i64| record(1, number, &event(kind, pid, T0 + second * 1_000_000));
    let records = [
        told(1, EventType::Modify, 7, 0),
        told(2, EventType::Suspicious, 7, 0),
        told(3, EventType::Modify, 8, 0),
        told(4, EventType::Suspicious, 8, 0),
        told(5, EventType::Suspicious, 8, 1),
    ];
    let batch = decode("procmond", &records).unwrap();
    let by_process = store.commit_matches(matches(&rule("r"), &batch)).unwrap();
    let counts = |raised: &[Alert]| -> Vec<u64> {
        raised.iter().map(|alert| store.alert(alert.id).unwrap().unwrap().count).collect()
    };
    assert_eq!(counts(&by_process), [1, 2]);
    let by_source = DetectionRule { dedup: vec!["source".into()], ..rule("s") };
    let by_source = store.commit_matches(matches(&by_source, &batch)).unwrap();
    assert_eq!(counts(&by_source), [3], "two processes at one instant are two");
    assert_eq!(store.alert(by_source[0].id).unwrap().unwrap().events.len(), 5, "both events stay with the alert");
    assert_eq!(store.commit_matches(matches(&rule("r"), &batch)).unwrap(), [], "a replay changes nothing");
    assert_eq!(counts(&by_process), [1, 2]);
}

#[test]
fn a_window_longer_than_the_default_is_the_rules_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rule = DetectionRule { dedup: vec!["source".into()], dedup_window_s: 100, ..rule("r") };
    let raised = store.commit_matches(matches(&rule, &run(1, 1..=250))).unwrap();
    assert_eq!(raised.len(), 3, "250 processes a second apart, one key, windows of 100 s");
    assert!(raised[0].dedup_key.ends_with("|source=\"test\""), "{}", raised[0].dedup_key);
}

#[test]
fn the_excess_of_a_minute_is_folded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { rate_per_rule: 5, rate_total: 8, ..options(dir.path()) }).unwrap();
    let minute = |numbers: std::ops::RangeInclusive<u64>| {
        let one = |n: u64| record(1, n, &event(EventType::Start, u32::try_from(n).unwrap(), T0 - T0 % 60_000_000));
        decode("procmond", &numbers.map(one).collect::<Vec<_>>()).unwrap()
    };
    let (one, two) = (rule("one"), rule("two"));
    let batch = minute(1..=20);
    let raised = store.commit_matches(matches(&one, &batch)).unwrap();
    assert_eq!(raised.len(), 6, "five alerts and the summary");
    let summary = store.alert(raised[5].id).unwrap().unwrap();
    assert_eq!(summary.count, 15);
    assert!(summary.title.contains("rate limit"), "{}", summary.title);
    assert_eq!(store.commit_matches(matches(&two, &batch)).unwrap().len(), 4, "three are left of all rules' eight");

    assert_eq!(store.commit_matches(matches(&one, &batch)).unwrap(), []);
    assert_eq!(store.alert(summary.id).unwrap().unwrap().count, 15, "a replay folds nothing twice");
    let folded = |rule: &DetectionRule| {
        let all = store.folded(summary.time_us);
        let of_rule = all.iter().find(|folded| folded.rule == rule.id).unwrap();
        (of_rule.matches, of_rule.last_hour, of_rule.since_us, of_rule.by_its_own)
    };
    assert_eq!(folded(&one), (15, 15, summary.time_us, true));
    assert_eq!(folded(&two), (17, 17, summary.time_us, false), "by all rules together");
    store.commit_matches(matches(&one, &minute(21..=22))).unwrap();
    assert_eq!(store.alert(summary.id).unwrap().unwrap().count, 17);
    let due = store.outbox_due("file", summary.time_us, 100).unwrap();
    assert_eq!(due.len(), 8, "a summary is delivered when its minute is over");
}

#[test]
fn the_outbox_retries_delivers_and_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids: Vec<Uuid> =
        store.commit_matches(matches(&rule("r"), &run(1, 1..=3))).unwrap().iter().map(|alert| alert.id).collect();
    let due = |store: &Store, now| -> Vec<Uuid> {
        store.outbox_due("file", now, 10).unwrap().iter().map(|due| due.alert.id).collect()
    };
    assert_eq!(due(&store, T0), ids, "in the order of their alerts");
    store.outbox_done("file", ids[0]).unwrap();
    assert_eq!(store.outbox_failed("file", ids[1], "disk full", T0 + 50).unwrap(), DeliveryState::Pending);
    assert_eq!(due(&store, T0), [ids[2]]);
    assert_eq!(due(&store, T0 + 50), [ids[2], ids[1]]);
    store.outbox_done_all("file", &[ids[2]]).unwrap();
    let attempts = store.deliveries().unwrap().into_iter().filter(|delivery| delivery.sink == "file");
    assert_eq!(attempts.map(|delivery| delivery.attempts).collect::<Vec<_>>(), [1, 1, 1], "the successful ones count");
    assert_eq!(store.outbox_next("file").unwrap(), Some(T0 + 50));
    assert_eq!(store.outbox_due("stdout", T0, 10).unwrap().len(), 3, "one sink does not hold up another");
    let ten_years = 10 * 365 * 86_400_000_000;
    assert_eq!(due(&store, T0 - ten_years), [ids[1]], "a clock that was set back puts nothing off");
    drop(store);
    let store = Store::open(StoreOptions { dead_after: Duration::ZERO, ..options(dir.path()) }).unwrap();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    store.watch_clock(now - ten_years, Duration::ZERO).unwrap();
    store.watch_clock(now, Duration::ZERO).unwrap();
    let ahead = store.outbox_failed("file", ids[1], "disk full", T0 + 50).unwrap();
    assert_eq!(ahead, DeliveryState::Pending, "a clock that was set ahead gives nothing up");
    store.watch_clock(now, Duration::from_secs(86_400)).unwrap();
    assert_eq!(store.outbox_failed("file", ids[1], "disk full", T0 + 60).unwrap(), DeliveryState::Dead);
    assert_eq!(store.outbox_next("file").unwrap(), None);
    let stats = store.outbox_stats().unwrap();
    assert_eq!((stats[0].sink.as_str(), stats[0].done, stats[0].dead, stats[0].pending), ("file", 2, 1, 0));
    assert!(matches!(store.outbox_done("mail", ids[0]), Err(StoreError::NotFound { .. })));
}

#[test]
fn audit_ids_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let payload = serde_json::json!({"k": 1});
    assert_eq!(store.audit_push("agent", "start", &payload).unwrap(), Some(1));
    assert_eq!(store.audit_push("agent", "config", &payload).unwrap(), Some(2));
    assert_eq!(store.audit_pending(1).unwrap()[0].action, "start");
    store.audit_done(2).unwrap();
    assert_eq!(store.audit_pending(10).unwrap(), []);
    drop(store);
    assert_eq!(open(dir.path()).audit_push("agent", "start", &payload).unwrap(), Some(3));
}

#[test]
fn a_full_audit_outbox_is_told_and_stops_no_alert() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { audit_entries: 3, ..options(dir.path()) }).unwrap();
    let raised = store.commit_matches(matches(&rule("r"), &run(1, 1..=10))).unwrap();
    assert_eq!(raised.len(), 10, "an alert needs no room in the outbox");
    store.set_alert_status(raised[0].id, AlertStatus::Closed, "operator:alice", "known").unwrap();
    assert_eq!(store.audit_push("agent", "start", &serde_json::Value::Null).unwrap(), None);
    let stats = store.stats().unwrap();
    assert_eq!((stats.audit_pending, stats.audit_lost), (3, 9));
    let gaps = store.coverage().unwrap();
    assert_eq!((gaps.len(), gaps[0].gap.reason.as_str(), gaps[0].gap.count), (1, "audit_outbox_full", Some(9)));

    let taken = store.audit_pending(10).unwrap();
    store.audit_done(taken[2].outbox_id).unwrap();
    let pending = store.audit_pending(10).unwrap();
    let actions: Vec<&str> = pending.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["audit-entries-lost", "coverage"]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&pending[0].payload).unwrap(),
        serde_json::json!({"count": 9})
    );
    assert_eq!(pending[0].outbox_id, taken[2].outbox_id + 1, "a lost entry takes no id");
    store.audit_done(pending[1].outbox_id).unwrap();
    assert_eq!(store.audit_pending(10).unwrap(), [], "it is said once");
}

#[test]
fn what_waits_gets_new_ids_where_the_ledger_is_ahead_of_a_store_that_was_restored() {
    let dir = tempfile::tempdir().unwrap();
    let say = |store: &Store, what: &str| store.audit_push("agent", what, &serde_json::Value::Null).unwrap().unwrap();
    let waiting = |store: &Store| -> Vec<(u64, String)> {
        store.audit_pending(100).unwrap().into_iter().map(|entry| (entry.outbox_id, entry.action)).collect()
    };
    {
        let store = Store::open(options(dir.path())).unwrap();
        for id in 1..=10 {
            assert_eq!(say(&store, "before"), id);
        }
        // What is handed over is known here, whether it was acknowledged or not.
        assert_eq!(store.audit_pending(8).unwrap().len(), 8);
        assert_eq!(store.audit_heed(8).unwrap(), None);
        store.audit_done(8).unwrap();
    }
    let store = Store::open(options(dir.path())).unwrap();
    assert_eq!((say(&store, "after"), say(&store, "after")), (11, 12));
    // The ledger has another store's 9 to 12: these were never handed over, whatever was given out before the start.
    assert_eq!(store.audit_heed(9).unwrap(), Some(4));
    let expected = ["before", "before", "after", "after", "outbox-renumbered"];
    let expected: Vec<(u64, String)> = (13..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(waiting(&store), expected);
    assert_eq!(store.audit_heed(12).unwrap(), None, "once");
    let told = store.audit_pending(100).unwrap().pop().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(told, serde_json::json!({"ledger": 9, "store": 8, "entries": 4}));
    // Ids of a forger, far ahead.
    assert_eq!(store.audit_heed(1 << 62).unwrap(), Some(5));
    assert_eq!(waiting(&store)[0].0, (1 << 62) + 1);
    assert_eq!(say(&store, "later"), (1 << 62) + 7);
    // Too far ahead for the ledger, which has been begun anew: back to where that is, among the old ids.
    let before = waiting(&store).len() as u64;
    assert_eq!(store.audit_refused(1 << 62).unwrap(), before);
    assert_eq!(waiting(&store)[0].0, (1 << 62) + 1);
    assert_eq!(store.audit_refused(3).unwrap(), before + 1);
    let ids: Vec<u64> = waiting(&store).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, (4..4 + before + 2).collect::<Vec<_>>());
    assert_eq!(say(&store, "last"), 4 + before + 2);
}

#[test]
fn ids_of_the_outbox_that_end_give_no_entry_the_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let say = |store: &Store, what: &str| store.audit_push("agent", what, &serde_json::json!({})).unwrap().unwrap();
    let ids = |store: &Store| store.audit_pending(100).unwrap().iter().map(|row| row.outbox_id).collect::<Vec<_>>();
    {
        let store = Store::open(options(dir.path())).unwrap();
        say(&store, "one");
    }
    let meta: TableDefinition<'_, &str, Raw<Counter>> = TableDefinition::new("meta");
    let last = [&[1][..], &postcard::to_stdvec(&(u64::MAX - 1)).unwrap()].concat();
    overwrite(dir.path(), meta, "last_audit", &last);
    let store = Store::open(options(dir.path())).unwrap();
    for _ in 0..4 {
        say(&store, "more");
    }
    let given = ids(&store);
    assert!(given.len() == 5 && given.is_sorted_by(|one, next| one < next), "{given:?}");
    // No ledger takes those: it says how far it is.
    assert_eq!(store.audit_heed(1).unwrap(), None);
    assert_eq!(store.audit_refused(1).unwrap(), 5);
    assert_eq!(ids(&store), [2, 3, 4, 5, 6, 7]);
    // A ledger that has taken all ids there are takes none of ours; nothing is thrown away for it.
    let refused = store.audit_heed(u64::MAX).unwrap_err();
    assert!(matches!(refused, StoreError::PeerOutboxId { head: u64::MAX }), "{refused}");
    assert_eq!((ids(&store).len(), say(&store, "last")), (6, 8));
}

#[test]
fn a_ledger_that_has_less_or_another_last_entry_than_it_had_is_told_once_and_kept_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mark = |entries, byte| LedgerMark { entries, hash: [byte; 32] };
    let falls = |store: &Store| {
        let falls = store.ledger_falls().unwrap();
        falls.into_iter().map(|fall| (fall.had.entries, fall.has.entries, fall.is_raised)).collect::<Vec<_>>()
    };
    {
        let store = Store::open(options(dir.path())).unwrap();
        assert!(!store.ledger_met("procmond", mark(7, 1), None, 1).unwrap(), "it was never heard of");
        store.ledger_reached("procmond", mark(20, 2)).unwrap();
        store.ledger_reached("procmond", mark(19, 9)).unwrap();
        let id = store.audit_push("agent", "start", &serde_json::json!({})).unwrap().unwrap();
        store.audit_taken(id, Some(("procmond", mark(22, 3)))).unwrap();
        assert_eq!(store.ledger_mark("procmond").unwrap(), Some(mark(22, 3)));
        assert!(store.audit_pending(9).unwrap().is_empty() && falls(&store).is_empty());
    }
    let store = Store::open(options(dir.path())).unwrap();
    assert!(!store.ledger_met("procmond", mark(22, 3), None, 2).unwrap());
    assert!(!store.ledger_met("procmond", mark(30, 4), Some(mark(22, 3)), 2).unwrap());
    assert!(!store.ledger_met("procmond", mark(28, 4), Some(mark(30, 4)), 2).unwrap(), "the files have what was told");
    assert!(
        !store.ledger_met("procmond", mark(30, 4), Some(mark(22, 9)), 2).unwrap(),
        "of what was heard before that"
    );
    assert!(store.ledger_met("procmond", mark(12, 5), None, 3).unwrap());
    assert_eq!(falls(&store), [(30, 12, false)]);
    let told = store.ledger_falls().unwrap().remove(0);
    assert!(told.to_string().contains("had 30 entries") && told.to_string().contains("had 12 entries"), "{told}");
    assert!(!store.ledger_met("procmond", mark(14, 6), None, 4).unwrap(), "once");
    store.ledger_fall_raised(&told).unwrap();
    assert_eq!(falls(&store), [(30, 12, true)]);
    // Another last entry, and later another entry at the place that it had come to.
    assert!(store.ledger_met("procmond", mark(14, 7), None, 5).unwrap());
    store.ledger_fall_raised(&told).unwrap();
    assert_eq!(falls(&store), [(14, 14, false)], "that was the one before");
    assert!(store.accept_ledgers("operator:alice").unwrap().is_empty(), "nobody was told of it yet");
    store.ledger_reached("procmond", mark(15, 8)).unwrap();
    assert!(store.ledger_met("procmond", mark(99, 9), Some(mark(15, 1)), 6).unwrap());
    store.ledger_fall_raised(&store.ledger_falls().unwrap().remove(0)).unwrap();
    assert_eq!(store.accept_ledgers("operator:alice").unwrap().len(), 1);
    let entry = store.audit_pending(9).unwrap().remove(0);
    let said: serde_json::Value = serde_json::from_slice(&entry.payload).unwrap();
    assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("operator:alice", "ledger-accepted"));
    assert_eq!((&said["had_entries"], &said["has_entries"]), (&15.into(), &99.into()));
    assert!(falls(&store).is_empty() && !store.ledger_met("procmond", mark(99, 9), Some(mark(99, 9)), 7).unwrap());
    // Another collector's is another ledger.
    assert!(!store.ledger_met("thermo", mark(1, 1), None, 8).unwrap());
}

/// The same as [`Store::outbox_stats`], counted.
fn counted(store: &Store) -> BTreeMap<(String, &'static str), u64> {
    let mut counted = BTreeMap::new();
    for delivery in store.deliveries().unwrap() {
        *counted.entry((delivery.sink, delivery.state.as_str())).or_insert(0) += 1;
    }
    counted
}

fn told(store: &Store) -> BTreeMap<(String, &'static str), u64> {
    let by_state = |stats: OutboxStats| {
        [("pending", stats.pending), ("done", stats.done), ("dead", stats.dead)]
            .map(|(state, count)| ((stats.sink.clone(), state), count))
    };
    store.outbox_stats().unwrap().into_iter().flat_map(by_state).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn the_outbox_counts_are_right_also_for_a_store_that_kept_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { dead_after: Duration::ZERO, ..options(dir.path()) }).unwrap();
    let raised = store.commit_matches(matches(&rule("r"), &run(1, 1..=9))).unwrap();
    let ids: Vec<Uuid> = raised.iter().map(|alert| alert.id).collect();
    store.outbox_done_all("file", &ids[..4]).unwrap();
    store.outbox_done("file", ids[0]).unwrap();
    store.outbox_failed("file", ids[5], "gone", T0).unwrap();
    store.outbox_failed("file", ids[5], "gone", T0).unwrap();
    assert_eq!(told(&store), counted(&store));
    assert_eq!(told(&store)[&("file".to_owned(), "done")], 4);
    let before = told(&store);
    drop(store);

    let state = redb::Database::open(dir.path().join("state.redb")).unwrap();
    let transaction = state.begin_write().unwrap();
    transaction.delete_table(TableDefinition::<(&str, u8), Raw<Counter>>::new("alert_delivery_counts")).unwrap();
    transaction.commit().unwrap();
    drop(state);
    overwrite(dir.path(), TableDefinition::<&str, Raw<Counter>>::new("meta"), "format_version", &[1, 1]);
    assert_eq!(told(&Store::open_offline(dir.path()).unwrap()), before, "a copy is migrated in memory");
    assert_eq!(told(&open(dir.path())), before);
    assert_eq!(told(&open(dir.path())), before, "once");
}

#[test]
fn old_alerts_go_with_all_that_hangs_on_them_unless_a_sink_still_waits() {
    const DAY_US: i64 = 86_400_000_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = matches(&rule("r"), &run(1, 1..=1_500));
    let ids: Vec<Uuid> = store.commit_matches(old.clone()).unwrap().iter().map(|alert| alert.id).collect();
    let (delivered, waiting) = ids.split_at(1_490);
    for sink in ["file", "stdout"] {
        store.outbox_done_all(sink, delivered).unwrap();
    }
    store.outbox_done_all("file", waiting).unwrap();
    store.set_alert_status(ids[7], AlertStatus::Closed, "operator:alice", "known").unwrap();

    let now_us = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    assert_eq!(store.expire(now_us).unwrap().alerts, 0, "event times are old, but the alerts are of today");
    let expired = store.expire(now_us + 31 * DAY_US).unwrap();
    assert_eq!(
        (expired.alerts, expired.deliveries),
        (1_500, 3_000),
        "a sink that nobody tries any more keeps nothing"
    );
    assert_eq!((store.alerts(&AlertFilter::default()).unwrap(), store.deliveries().unwrap()), (vec![], vec![]));
    assert_eq!((told(&store), store.outbox_next("stdout").unwrap()), (BTreeMap::new(), None));
    // Each transaction that removes some tells of them.
    let noted = store.audit_pending(10_000).unwrap().into_iter().filter(|entry| entry.action == "retention");
    let removed = noted.map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.payload).unwrap());
    let removed: Vec<u64> = removed.map(|payload| payload["alerts"].as_u64().unwrap()).collect();
    assert!(removed.len() > 2 && removed.iter().sum::<u64>() == 1_500, "{removed:?}");

    let again = store.commit_matches(old).unwrap();
    assert_eq!(again.len(), 1_500, "no index row is left behind that an alert could be taken for");
    drop(store);
    let patient = StoreOptions { dead_after: Duration::from_secs(90 * 86_400), ..options(dir.path()) };
    let store = Store::open(patient).unwrap();
    for sink in ["file", "stdout"] {
        store.outbox_done_all(sink, delivered).unwrap();
    }
    store.outbox_done_all("file", waiting).unwrap();
    let expired = store.expire(now_us + 31 * DAY_US).unwrap();
    assert_eq!((expired.alerts, expired.deliveries), (1_490, 2_980), "what a sink may still get stays whole");
    assert_eq!(store.outbox_due("stdout", now_us, 100).unwrap().len(), 10);
}

/// A store with so many alerts a second apart, the newest last, and how many bytes each takes.
fn crowd(dir: &Path, count: u64) -> (Vec<Uuid>, u64) {
    let store = open(dir);
    let ids: Vec<Uuid> =
        store.commit_matches(matches(&rule("r"), &run(1, 1..=count))).unwrap().iter().map(|alert| alert.id).collect();
    (ids, store.alert_bytes().unwrap().div_ceil(count))
}

#[test]
fn alerts_are_bounded_by_size_and_what_nobody_waits_for_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, each) = crowd(dir.path(), 1_500);
    let at = |store: &Store| -> Vec<usize> {
        let left = store.alerts(&AlertFilter::default()).unwrap();
        let mut left: Vec<usize> =
            left.iter().map(|alert| ids.iter().position(|id| *id == alert.id).unwrap()).collect();
        left.sort_unstable();
        left
    };
    let bounded = |alerts: u64| StoreOptions { alert_bytes: (alerts + 1) * each, ..options(dir.path()) };
    let store = Store::open(bounded(1_499)).unwrap();
    assert_eq!(store.expire_by_size().unwrap().alerts, 0, "what fits stays");
    // The newest is closed, the oldest waits for a sink still.
    store.set_alert_status(ids[1_499], AlertStatus::Closed, "operator:alice", "known").unwrap();
    store.outbox_done_all("file", &ids).unwrap();
    store.outbox_done_all("stdout", &ids[10..]).unwrap();
    drop(store);
    let store = Store::open(bounded(800)).unwrap();
    let removed = store.expire_by_size().unwrap();
    let left = at(&store);
    assert!((790..=801).contains(&left.len()), "{}", left.len());
    assert_eq!((left.len() as u64 + removed.alerts, removed.deliveries), (1_500, removed.alerts * 2));
    assert!(!left.contains(&1_499), "closed alerts go first");
    assert!((0..10).all(|awaited| left.contains(&awaited)), "those that a sink is to get go last");
    assert!(left[10..].windows(2).all(|pair| pair[1] == pair[0] + 1) && left.last() == Some(&1_498), "the oldest go");
    assert!(store.alert_bytes().unwrap() <= 801 * each);
    let reasons = |store: &Store| -> BTreeMap<String, u64> {
        let rows = store.coverage().unwrap();
        let counts: BTreeMap<_, _> = rows.iter().map(|row| (row.gap.reason.clone(), row.gap.count.unwrap())).collect();
        assert_eq!(counts.len(), rows.len(), "rows that grow: {rows:?}");
        counts
    };
    assert_eq!(reasons(&store), BTreeMap::from([("alerts_retention".to_owned(), removed.alerts)]));
    drop(store);

    let store = Store::open(bounded(4)).unwrap();
    store.expire_by_size().unwrap();
    let told = reasons(&store);
    assert!(told["alerts_undelivered"] >= 5, "what no sink got is told: {told:?}");
    assert_eq!(told["alerts_retention"], 1_500 - at(&store).len() as u64);
    let noted = store.audit_pending(10_000).unwrap().into_iter().filter(|entry| entry.action == "alerts-removed");
    let noted: Vec<u64> = noted
        .map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.payload).unwrap()["alerts"].as_u64().unwrap())
        .collect();
    assert!(noted.len() > 3 && noted.iter().all(|alerts| *alerts <= 512), "in bounded steps: {noted:?}");
    assert_eq!(noted.iter().sum::<u64>(), 1_500 - at(&store).len() as u64);
    assert!(store.fsck(&mut |_, _| true).unwrap().problems.is_empty());
}

#[test]
fn alerts_of_a_build_that_did_not_count_them_are_counted_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (_, each) = crowd(dir.path(), 20);
    for name in ["alerts_bytes", "alerts_counted"] {
        overwrite(dir.path(), TableDefinition::<&str, Raw<Counter>>::new("meta"), name, &[1, 0]);
    }
    let store = open(dir.path());
    assert_eq!(store.alert_bytes().unwrap().div_ceil(20), each);
}

#[test]
fn a_rule_gets_a_new_version_when_its_text_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let given = DetectionRule { version: 99, ..rule("r") };
    let versions = |rules: Vec<DetectionRule>| -> Vec<u32> {
        store.set_rules(rules).unwrap().iter().map(|rule| rule.version).collect()
    };
    assert_eq!(versions(vec![given.clone(), rule("s")]), [1, 1]);
    assert_eq!(versions(vec![given.clone(), rule("s")]), [1, 1]);
    assert_eq!(versions(vec![DetectionRule { hash: "h2".into(), ..given.clone() }]), [2]);
    let states: BTreeMap<String, RuleState> =
        store.rules().unwrap().into_iter().map(|rule| (rule.name, rule.state)).collect();
    assert_eq!(states["s"], RuleState::Archived);
    let actions: Vec<String> = store.audit_pending(10).unwrap().into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["rule-added", "rule-added", "rule-changed", "rule-removed"]);
}

#[test]
fn what_a_version_of_a_rule_said_stays_readable_within_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = rule("r").id;
    let text = |version: u32, bytes: usize| RuleText {
        rule: id,
        version,
        hash: format!("h{version}"),
        text: "x".repeat(bytes),
        ..RuleText::default()
    };
    let keep = |text: RuleText| store.keep_rule_texts([text].into_iter(), std::iter::empty()).unwrap();
    (1..=3).for_each(|version| keep(text(version, 10)));
    let first = store.rule_text(id, 1).unwrap().unwrap();
    assert_eq!((first.hash.as_str(), first.text.len()), ("h1", 10));
    keep(text(3, 11));
    let third = store.rule_text(id, 3).unwrap().unwrap();
    assert_eq!(third.text.len(), 11, "another comment is no other version");
    (4..=20).for_each(|version| keep(text(version, 10)));
    let kept: Vec<u32> = store.rule_texts().unwrap().iter().map(|text| text.version).collect();
    assert_eq!(kept, (5..=20).collect::<Vec<_>>());
    (21..=26).for_each(|version| keep(text(version, 400_000)));
    let kept: Vec<u32> = store.rule_texts().unwrap().iter().map(|text| text.version).collect();
    assert_eq!(kept, [23, 24, 25, 26]);

    let list = |name: &str| KeptList {
        name: name.to_owned(),
        description: String::new(),
        files: Vec::new(),
        items: vec![ListItem::Text("a".to_owned()), ListItem::Integer(1)],
    };
    store.keep_rule_texts(std::iter::empty(), [list("a"), list("b")].into_iter()).unwrap();
    store.keep_rule_texts(std::iter::empty(), [list("b")].into_iter()).unwrap();
    assert_eq!(store.kept_lists().unwrap(), [list("b")]);
}

#[test]
fn a_status_change_is_listed_and_audited() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = store.commit_matches(matches(&rule("r"), &run(1, 1..=3))).unwrap()[1].id;
    store.set_alert_status(id, AlertStatus::Closed, "operator:alice", "known").unwrap();
    let closed = AlertFilter { statuses: vec![AlertStatus::Closed], ..AlertFilter::default() };
    assert_eq!(store.alerts(&closed).unwrap().iter().map(|alert| alert.id).collect::<Vec<_>>(), [id]);
    let newest = store.alerts(&AlertFilter { limit: 1, ..AlertFilter::default() }).unwrap();
    assert_eq!(newest[0].time_us, T0 + 3_000_000);
    let last = store.audit_pending(10).unwrap().pop().unwrap();
    assert_eq!((last.actor.as_str(), last.action.as_str()), ("operator:alice", "alert-status"));
    let unknown = store.set_alert_status(Uuid::nil(), AlertStatus::Closed, "a", "b").unwrap_err();
    assert_eq!(unknown.exit(), Exit::NotFound);
}

#[test]
fn old_segments_go_whole_and_coverage_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { retention: Duration::from_secs(60), ..options(dir.path()) }).unwrap();
    store.append(run(1, 1..=10)).unwrap();
    store.seal().unwrap();
    store.append(run(1, 11..=100)).unwrap();
    store.seal().unwrap();
    let reader = store.snapshot();
    let expired = store.expire(T0 + 71_000_000).unwrap();
    assert_eq!((expired.segments, expired.rows), (1, 10));
    assert_exactly_once(&store, 1, 11..=100);
    assert!(reader.segments[0].path.exists(), "a query still reads it");
    let gone = reader.segments[0].path.clone();
    drop(reader);
    store.expire(T0 + 71_000_000).unwrap();
    assert!(!gone.exists());
    let rows = store.coverage().unwrap();
    assert_eq!((rows.len(), rows[0].gap.reason.as_str(), rows[0].gap.count), (1, "retention", Some(10)));
    drop(store);
    assert_exactly_once(&open(dir.path()), 1, 11..=100);
}

#[test]
fn a_damaged_or_missing_segment_is_named_and_degrades_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 0..4 {
        store.append(run(1, at * 10 + 1..=at * 10 + 10)).unwrap();
        store.seal().unwrap();
    }
    let paths: Vec<PathBuf> = store.snapshot().segments.iter().map(|file| file.path.clone()).collect();
    drop(store);
    fs::remove_file(&paths[0]).unwrap();
    fs::write(&paths[1], b"PAR1").unwrap();
    let mut bytes = fs::read(&paths[2]).unwrap();
    bytes[100] ^= 1;
    fs::write(&paths[2], bytes).unwrap();

    let store = open(dir.path());
    let snapshot = store.snapshot();
    assert_eq!(snapshot.completeness.degraded, [Degraded::DataUnreadable]);
    assert_eq!(snapshot.damaged.iter().map(|bad| &bad.path).collect::<Vec<_>>(), [&paths[0], &paths[1]]);
    assert_eq!(snapshot.damaged.iter().map(|bad| bad.rows).sum::<u64>(), 20);
    assert_eq!(store.check_segments().unwrap().len(), 3, "a flipped bit is found by the hash");
    assert_exactly_once(&store, 1, 31..=40);
    store.expire(i64::MAX).unwrap();
    assert!(store.snapshot().completeness.is_complete(), "what has expired is not missing");
}

#[test]
fn a_second_agent_on_the_same_data_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = Store::open(options(dir.path())).unwrap_err();
    assert_eq!(refused.exit(), Exit::InUse);
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let refused = Store::open(options(&file)).unwrap_err();
    assert_eq!(refused.exit(), Exit::Unreadable);
    assert!(refused.to_string().contains("file") && refused.to_string().contains("--data-dir"), "{refused}");
    assert_eq!(Store::open_offline(dir.path()).unwrap_err().exit(), Exit::Unreadable);
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    const VERSION: TableDefinition<'_, &str, Raw<Counter>> = TableDefinition::new("meta");
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let newer = u8::try_from(FORMAT_VERSION + 1).unwrap();
    overwrite(dir.path(), VERSION, "format_version", &[1, newer]);
    fs::write(dir.path().join("segments/9.parquet"), b"of a newer build").unwrap();
    // The database's own header changes whenever it is opened, and the lock says who looked last.
    let files = || {
        let mut files = hashes(dir.path());
        files.retain(|path, _| !path.ends_with("state.redb") && !path.ends_with("agent.lock"));
        files
    };
    let before = files();
    let refused = Store::open(options(dir.path())).unwrap_err();
    assert_eq!((refused.exit(), refused.exit().code()), (Exit::NewerFormat, 71));
    let (said, database) = (refused.to_string(), dir.path().join("state.redb"));
    assert!(
        said.contains(&format!("version {newer}")) && said.contains("use the newer build"),
        "what, and what to do: {said}"
    );
    assert!(said.contains(database.to_str().unwrap()), "where: {said}");
    assert_eq!(Store::open_offline(dir.path()).unwrap_err().exit(), Exit::NewerFormat);
    assert_eq!(files(), before);
    let meta = redb::ReadOnlyDatabase::open(database).unwrap().begin_read().unwrap().open_table(VERSION).unwrap();
    assert_eq!(meta.get("format_version").unwrap().unwrap().value(), [1, newer]);
}

#[test]
fn a_corrupt_value_is_an_error_with_its_table() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for bad in [&b""[..], &[9, 1, 2], &[1, 0xff, 0xff, 0xff, 0xff, 0xff], &[1]] {
        overwrite(dir.path(), TableDefinition::<u64, Raw<SystemInfo>>::new("system_info"), 1, bad);
        let error = open(dir.path()).system_info().unwrap_err();
        assert!(matches!(&error, StoreError::CorruptState { table, .. } if table == "system_info"), "{error}");
    }
}

#[test]
fn opening_offline_reads_everything_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(run(1, 1..=10)).unwrap();
    let alert = store.commit_matches(matches(&rule("r"), &run(1, 1..=1))).unwrap()[0].clone();
    store.seal().unwrap();
    // Copied while the agent runs: as a killed host would have left it, never closed.
    let copied = tempfile::tempdir().unwrap();
    copy(dir.path(), copied.path());
    fs::write(copied.path().join("segments/left-over.parquet.tmp"), b"half").unwrap();
    let before = hashes(copied.path());
    let offline = Store::open_offline(copied.path()).unwrap();
    assert_exactly_once(&offline, 1, 1..=10);
    assert_eq!(offline.alert(alert.id).unwrap(), Some(alert));
    assert!(offline.snapshot().segments[0].path.starts_with(copied.path()));
    assert!(matches!(offline.append(run(1, 11..=12)), Err(StoreError::MisuseOffline)));
    assert!(matches!(offline.audit_push("a", "b", &serde_json::Value::Null), Err(StoreError::MisuseOffline)));
    assert_eq!(offline.stats().unwrap().alerts, 1);
    drop(offline);
    assert_eq!(hashes(copied.path()), before);
}
