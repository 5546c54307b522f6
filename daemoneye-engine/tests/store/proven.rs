//! A store against its ledger: what was deleted, changed or put in is found and named, and what retention took is none of it.
//!
//! The store of an attacker who can rewrite files, hashes and tables alike is one that was filled with other records: so the
//! ledger is written from what happened, and the store from what the attacker wants to have happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::{Answer, Proven, RuleMatch, Store, StoreOptions};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::{AuditEntry, GENESIS, Hash, LedgerHeader, RangeBuilder};
use daemoneye_lib::model::{AlertStatus, Completeness, DetectionRule};
use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, ProcessRecord, Record, Sequence, StartKind};
use daemoneye_lib::segment::{Kind, SegmentHeader, SegmentName, encode};
use prost::Message as _;
use redb::TableDefinition;
use serde_json::{Map, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod hidden;
mod lost;
mod restored;
mod unproven;
mod years;

use super::golden;
use super::raw::{Named, Raw, overwrite};

const T0: i64 = 1_760_000_000_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// A ledger as a collector writes it.
struct Ledger {
    dir: PathBuf,
    bytes: Vec<u8>,
    crc: u32,
    next: u64,
    head: Hash,
    covered: Sequence,
    /// The highest id of the agent that it has taken.
    outbox_id: u64,
    /// The clock of the collector.
    now_us: i64,
}

impl Ledger {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("audit")).unwrap();
        let header = SegmentHeader { kind: Kind::Ledger, previous_crc: 0, epoch: 1, segment: 1, first: 1 };
        let bytes = header.encode().to_vec();
        Self {
            dir: dir.join("audit"),
            bytes,
            crc: 0,
            next: 0,
            head: GENESIS,
            covered: Sequence::new(0, 0),
            outbox_id: 0,
            now_us: T0,
        }
    }

    fn entry(&mut self, actor: &str, action: &str, payload: &[u8]) {
        self.entry_at(self.now_us, actor, action, payload);
    }

    fn entry_at(&mut self, us: i64, actor: &str, action: &str, payload: &[u8]) {
        self.put_at(us, actor, action, payload);
        fs::write(self.dir.join(SegmentName::ledger().file(1)), &self.bytes).unwrap();
    }

    /// It is there with the next entry.
    fn put_at(&mut self, us: i64, actor: &str, action: &str, payload: &[u8]) {
        let entry = AuditEntry::link(self.next, self.head, us / 1_000, actor, action, payload);
        (self.next, self.head) = (self.next + 1, entry.entry_hash);
        let Sequence { epoch, number } = self.covered;
        let header = LedgerHeader { entry, outbox_id: self.outbox_id, covered_epoch: epoch, covered_number: number };
        self.crc = encode(&mut self.bytes, self.crc, 0, &header, payload).unwrap();
    }

    /// Covers the records, so many in a range.
    fn cover(&mut self, records: &[Record], together: usize) {
        for records in records.chunks(together) {
            let mut builder = RangeBuilder::new("procmond");
            for record in records {
                builder.add(record.sequence.unwrap(), Content::of_record(&record.topic, &record.payload));
            }
            for range in builder.take() {
                self.covered = range.end();
                self.entry("procmond", "event-range", &range.payload());
                self.now_us += HOUR_US;
            }
        }
    }

    /// Takes what waits in the store.
    fn drain(&mut self, store: &Store) {
        for append in store.audit_pending(1_000).unwrap() {
            self.outbox_id = append.outbox_id;
            self.entry_at(append.timestamp_ms * 1_000, &append.actor, &append.action, &append.payload);
            store.audit_done(append.outbox_id).unwrap();
        }
    }
}

fn event(number: u64, name: &str) -> Record {
    let pid = u32::try_from(number).unwrap();
    let process = ProcessRecord {
        entity_id: EntityId::derive("boot", pid, 1).as_bytes().to_vec(),
        pid,
        name: name.into(),
        command_line: Some(format!("{name} --number {number}")),
        arg_lengths: vec![4, 8],
        cpu_usage: Some(0.1),
        ..ProcessRecord::default()
    };
    let time_us = T0 + i64::try_from(number).unwrap() * 1_000;
    let event = ProcessEvent {
        event_type: EventType::Start.into(),
        time_us,
        start_kind: StartKind::Exec.into(),
        process: Some(process),
        ..ProcessEvent::default()
    };
    let sequence = Some(Sequence::new(1, number));
    Record { sequence, topic: "events.process.start".into(), time_us, payload: event.encode_to_vec().into() }
}

/// What a collector tells in its stream between two events.
fn gap(number: u64, count: u64) -> Record {
    let time_us = T0 + i64::try_from(number).unwrap() * 1_000;
    let gap = CoverageGap {
        collector: "procmond".into(),
        reason: "kernel_lost".into(),
        from_us: time_us,
        to_us: time_us,
        count: Some(count),
        first: Some(Sequence::new(1, number)),
        last: Some(Sequence::new(1, number)),
        ..CoverageGap::default()
    };
    let sequence = Some(Sequence::new(1, number));
    Record { sequence, topic: "events.collector.procmond".into(), time_us, payload: gap.encode_to_vec().into() }
}

/// Forty records, of which number 7 is a gap.
fn happened() -> Vec<Record> {
    (1..=40).map(|number| if number == 7 { gap(7, 5) } else { event(number, "sh") }).collect()
}

/// Forty records and a ledger that covers them, `together` in a range.
fn covered(together: usize) -> (tempfile::TempDir, Ledger, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records, together);
    (dir, ledger, records)
}

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { retention: Duration::from_secs(3_600), ..StoreOptions::new(dir) }
}

fn filled(dir: &Path, records: &[Record], sealed_at: &[usize]) -> Store {
    let store = Store::open(options(dir)).unwrap();
    let mut from = 0;
    for to in sealed_at.iter().copied().chain([records.len()]) {
        store.append(decode("procmond", records.get(from..to).unwrap()).unwrap()).unwrap();
        from = to;
        if from < records.len() {
            store.seal().unwrap();
        }
    }
    store
}

fn raise(store: &Store, record: &Record, word: &str) {
    let batch = decode("procmond", std::slice::from_ref(record)).unwrap().batch;
    let output = Map::from_iter([("word".to_owned(), json!(word))]);
    let rule = Arc::new(DetectionRule { dedup: vec!["pid".into()], ..golden::rule() });
    let batch = Arc::new(batch);
    let found = RuleMatch { rule, batch, row: 0, answer: Answer::Row(output), completeness: Completeness::complete() };
    assert_eq!(store.commit_matches(vec![found]).unwrap().len(), 1);
}

/// A store with all of them and one alert.
fn alarmed(dir: &Path, records: &[Record]) -> (Store, Uuid) {
    let store = filled(dir, records, &[20]);
    raise(&store, records.get(3).unwrap(), "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
    (store, alert)
}

fn compare(store: &Store, dir: &Path) -> Proven {
    let found = store.compare_with_ledger(&dir.join("audit"), &mut |_, _| true).unwrap();
    assert!(found.finished);
    found
}

fn told(found: &Proven) -> Vec<(String, String)> {
    let word = |what: &str| what.split([' ', ':']).next().unwrap_or_default().to_owned();
    found.problems.iter().map(|problem| (problem.place.clone(), word(&problem.what))).collect()
}

#[test]
fn what_was_recorded_is_what_is_stored_also_when_it_is_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records[..25], 4);
    let store = filled(dir.path(), &records, &[9, 22]);
    raise(&store, &records[3], "a");
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.ranges, found.events, found.pending, found.alerts, found.coverage), (7, 24, 15, 1, 1));
    ledger.cover(&records[25..], 4);
    store.seal().unwrap();
    let stop = CancellationToken::new();
    assert!(std::iter::from_fn(|| store.compact(T0 + 48 * HOUR_US, &stop).unwrap()).count() > 0);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.events, found.pending, found.unproven), (39, 0, 0));
}

#[test]
fn a_deleted_a_changed_and_an_inserted_event_are_named() {
    let (dir, mut ledger, records) = covered(4);
    let mut wanted = records.clone();
    wanted[13] = event(14, "innocent");
    wanted.remove(20);
    wanted.remove(6);
    wanted.insert(6, event(7, "inserted"));
    let store = filled(dir.path(), &wanted, &[10]);
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    let entity = |pid| EntityId::derive("boot", pid, 1).to_string();
    let place = |place: &str| found.problems.iter().find(|problem| problem.place == place).unwrap().what.clone();
    assert!(place("procmond:1:5 to 8").contains(&entity(7)), "a gap of the stream is no event: {found:?}");
    assert!(place("procmond:1:13 to 16").contains(&entity(14)), "{found:?}");
    assert!(place("procmond:1:21").starts_with("deleted"), "{found:?}");
    assert_eq!(found.problems.len(), 3, "{found:?}");
    // Events 22 to 24 cannot be told from others any more: one of their range is gone.
    assert_eq!((found.events, found.unproven), (39 - 1 - 3 - 4 - 3, 3));
}

#[test]
fn an_alert_and_a_row_of_coverage_that_were_deleted_changed_or_put_in_are_named() {
    let (dir, mut ledger, records) = covered(40);
    let (store, alert) = alarmed(dir.path(), &records);
    store.set_alert_status(alert, AlertStatus::Acknowledged, "operator:alice", "seen").unwrap();
    ledger.drain(&store);
    assert!(compare(&store, dir.path()).is_sound());
    let other = |records: &[Record], word: Option<&str>, status: AlertStatus| {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), records, &[20]);
        if let Some(word) = word {
            raise(&store, &records[3], word);
            store.set_alert_status(alert, status, "", "").unwrap();
        }
        for append in store.audit_pending(100).unwrap() {
            store.audit_done(append.outbox_id).unwrap();
        }
        (dir, store)
    };
    let of = |(_held, store): (tempfile::TempDir, Store)| told(&compare(&store, dir.path()));
    let place = format!("alert {alert}");
    let named = |what: &str| vec![(place.clone(), what.to_owned())];
    assert_eq!(of(other(&records, None, AlertStatus::Open)), named("ledger"));
    assert_eq!(of(other(&records, Some("b"), AlertStatus::Acknowledged)), named("it"));
    assert_eq!(of(other(&records, Some("a"), AlertStatus::Closed)), named("its"));
    let mut quieter = records.clone();
    quieter[6] = gap(7, 1);
    let row = vec![("coverage row 1".to_owned(), "it".to_owned())];
    assert_eq!(of(other(&quieter, Some("a"), AlertStatus::Acknowledged)), row);
    let (held, store) = other(&records, Some("a"), AlertStatus::Acknowledged);
    raise(&store, &records[30], "forged");
    store.add_coverage(CoverageGap { reason: "forged".into(), ..CoverageGap::default() }).unwrap();
    for append in store.audit_pending(100).unwrap() {
        store.audit_done(append.outbox_id).unwrap();
    }
    let found = of((held, store));
    assert_eq!(found.iter().filter(|(_, what)| what == "no").count(), 2, "{found:?}");
}

#[test]
fn what_retention_took_is_told_apart_and_what_is_left_of_a_cut_range_is_proven_by_kept_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    // Ranges of 8: the seal at 20 cuts the third.
    ledger.cover(&records, 8);
    let store = filled(dir.path(), &records, &[12, 20]);
    store.seal().unwrap();
    let bytes = store.snapshot().segments.iter().map(|file| file.bytes).max().unwrap();
    drop(store);
    let store = Store::open(StoreOptions { retention_bytes: bytes, ..options(dir.path()) }).unwrap();
    assert_eq!(store.expire_by_size().unwrap().segments, 2);
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.events, found.removed, found.unproven), (20, 19, 0));
    drop(store);
    let store = Store::open(StoreOptions { retention_bytes: 0, ..options(dir.path()) }).unwrap();
    assert_eq!(store.expire_by_size().unwrap().segments, 1);
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.events, found.removed, found.unproven), (0, 39, 0));
}

#[test]
fn files_that_are_gone_or_changed_and_a_ledger_that_does_not_verify_are_named() {
    let (dir, mut ledger, records) = covered(8);
    let store = filled(dir.path(), &records, &[20]);
    store.seal().unwrap();
    ledger.drain(&store);
    let paths: Vec<PathBuf> = store.snapshot().segments.iter().map(|file| file.path.clone()).collect();
    fs::remove_file(&paths[1]).unwrap();
    let mut bytes = fs::read(&paths[0]).unwrap();
    bytes[200] ^= 1;
    fs::write(&paths[0], &bytes).unwrap();
    let found = compare(&store, dir.path());
    let places: Vec<String> = found.problems.iter().map(|problem| problem.place.clone()).collect();
    assert!(places.iter().any(|place| place == "procmond:1:25 to 32"), "{places:?}");
    assert!(places.iter().any(|place| place.starts_with("segments/")), "{places:?}");
    let log = dir.path().join("audit").join(SegmentName::ledger().file(1));
    let mut bytes = fs::read(&log).unwrap();
    bytes[400] ^= 1;
    fs::write(&log, bytes).unwrap();
    assert!(compare(&store, dir.path()).problems.iter().any(|problem| problem.place == "the ledger"));
}

/// What `store` was told of its own is on its way nowhere.
fn forget(store: &Store) {
    for append in store.audit_pending(1_000).unwrap() {
        store.audit_done(append.outbox_id).unwrap();
    }
}

/// Forty records that each hour has four of, and a store that lacks some of them, which `entry` of the agent excuses.
fn excused(lacks: std::ops::RangeInclusive<u64>, action: &str, payload: &serde_json::Value, us: i64) -> Proven {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.entry("procmond", "heartbeat", b"{}");
    ledger.cover(&records, 4);
    let left: Vec<Record> =
        records.into_iter().filter(|record| !lacks.contains(&record.sequence.unwrap().number)).collect();
    let store = filled(dir.path(), &left, &[20]);
    ledger.drain(&store);
    ledger.entry_at(us, "agent", action, payload.to_string().as_bytes());
    // What the collector says next bounds when that was.
    ledger.entry("procmond", "heartbeat", b"{}");
    compare(&store, dir.path())
}

fn removal(why: &str, before_us: Option<i64>, first: u64, last: u64) -> serde_json::Value {
    json!({ "why": why, "before_us": before_us,
        "ranges": [{ "collector": "procmond", "first": (1, first), "last": (1, last) }] })
}

#[test]
fn a_removal_that_retention_would_not_have_made_is_named_and_every_one_is_listed() {
    let end_us = T0 + 10 * HOUR_US;
    let what = |found: &Proven| found.problems.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>();
    // In the middle of what is there.
    let found = excused(21..=24, "events-removed", &removal("their size", None, 21, 24), end_us);
    let wanted = "deleted: ledger entry 12 says that retention took it, but older events of its stream are still there, and \
                  retention takes the oldest first";
    assert_eq!((found.problems[0].place.as_str(), what(&found)), ("procmond:1:21 to 24", vec![wanted.to_owned()]));
    let listed: Vec<_> = found.removals.iter().map(|removal| (removal.entry, removal.events)).collect();
    assert_eq!(listed, [(Some(12), 4)]);
    // A single one, with the others of its range.
    let found = excused(22..=22, "events-removed", &removal("their size", None, 22, 22), end_us);
    assert_eq!(found.problems[0].place, "procmond:1:22");
    // For an age that it does not have, whatever the entry says of its own time.
    for us in [end_us, end_us + 90 * 24 * HOUR_US] {
        let found = excused(1..=4, "events-removed", &removal("their age", Some(i64::MAX), 1, 4), us);
        assert!(what(&found)[0].contains("it was too young to be removed for its age"), "{found:?}");
        assert_eq!(found.removals[0].time_us, end_us);
    }
    // The oldest, because all were too large: retention does that.
    let found = excused(1..=4, "events-removed", &removal("their size", None, 1, 4), end_us);
    assert!(found.is_sound() && found.removed == 4 && found.removals[0].why == "their size", "{found:?}");
}

#[test]
fn an_age_that_no_setting_allows_excuses_no_alert_and_is_named() {
    let (dir, mut ledger, records) = covered(40);
    let (store, alert) = alarmed(dir.path(), &records);
    ledger.drain(&store);
    drop(store);
    let other = tempfile::tempdir().unwrap();
    let without = filled(other.path(), &records, &[20]);
    forget(&without);
    ledger.entry("agent", "retention", json!({ "before_us": i64::MAX }).to_string().as_bytes());
    // The clock of the collector stands where it was.
    ledger.entry("procmond", "heartbeat", b"{}");
    let found = compare(&without, dir.path());
    let named = told(&found);
    assert!(named.contains(&(format!("alert {alert}"), "ledger".to_owned())), "{found:?}");
    assert!(named.iter().any(|(place, what)| place.starts_with("ledger entry") && what == "it"), "{found:?}");
}

/// Each event raises an alert of half a MiB.
fn crowd(store: &Store, records: &[Record]) {
    let word = "x".repeat(512 * 1024);
    records
        .iter()
        .filter(|record| record.topic == "events.process.start")
        .for_each(|record| raise(store, record, &word));
}

#[test]
fn alerts_that_went_because_of_their_size_are_told_apart_also_while_the_outbox_is_full() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[]);
    crowd(&store, &records);
    ledger.drain(&store);
    let each = store.alert_bytes().unwrap() / 39;
    drop(store);
    let tight = StoreOptions { alert_bytes: 10 * (each + 100), audit_entries: 4, ..options(dir.path()) };
    let store = Store::open(tight).unwrap();
    while store.audit_push("agent", "start", &json!({})).unwrap().is_some() {}
    assert_eq!(store.expire_by_size().unwrap().alerts, 29);
    let judged = |store: &Store| {
        let found = compare(store, dir.path());
        assert!(found.is_sound(), "{found:?}");
        (found.alerts, found.alerts_removed)
    };
    assert_eq!(judged(&store), (10, 29), "while it waits");
    while !store.audit_pending(1).unwrap().is_empty() {
        ledger.drain(&store);
    }
    assert_eq!(judged(&store), (10, 29), "when it was told");
}

#[test]
fn an_entry_of_alerts_that_went_for_their_size_excuses_no_more_than_it_says_and_no_few_small_ones() {
    let gone =
        |alerts: u64| json!({ "why": "their size", "until_us": i64::MAX, "alerts": alerts, "bytes": 1 }).to_string();
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[]);
    crowd(&store, &records);
    ledger.drain(&store);
    drop(store);
    let other = tempfile::tempdir().unwrap();
    let without = filled(other.path(), &records, &[]);
    crowd(&without, &records[2..]);
    forget(&without);
    assert_eq!(told(&compare(&without, dir.path())).len(), 2);
    ledger.entry("agent", "alerts-removed", gone(1).as_bytes());
    assert_eq!(told(&compare(&without, dir.path())).len(), 1, "one went, and the other was deleted");
    ledger.entry("agent", "alerts-removed", gone(1).as_bytes());
    assert!(compare(&without, dir.path()).is_sound());

    let (dir, mut ledger, records) = covered(40);
    let (store, alert) = alarmed(dir.path(), &records);
    ledger.drain(&store);
    drop(store);
    let other = tempfile::tempdir().unwrap();
    let without = filled(other.path(), &records, &[20]);
    forget(&without);
    ledger.entry("agent", "alerts-removed", gone(1).as_bytes());
    let named = told(&compare(&without, dir.path()));
    assert!(named.contains(&(format!("alert {alert}"), "ledger".to_owned())), "{named:?}");
    assert!(named.iter().any(|(place, what)| place.starts_with("ledger entry") && what == "it"), "{named:?}");
}

#[test]
fn an_entry_that_was_lost_makes_no_alerts_too_many() {
    let (dir, mut ledger, records) = covered(40);
    let (store, _) = alarmed(dir.path(), &records);
    ledger.drain(&store);
    let other = tempfile::tempdir().unwrap();
    let without = filled(other.path(), &records, &[20]);
    forget(&without);
    ledger.entry("agent", "audit-entries-lost", br#"{"count":1}"#);
    let gone = json!({ "why": "their size", "until_us": i64::MAX, "alerts": 1, "bytes": 1 }).to_string();
    ledger.entry("agent", "alerts-removed", gone.as_bytes());
    beats(&mut ledger, 1);
    let found = compare(&without, dir.path());
    assert!(found.alerts_removed == 0 && found.rows_unproven > 0, "{found:?}");
    assert!(!found.problems.iter().any(|problem| problem.place.starts_with("alert ")), "{found:?}");
}

#[test]
fn an_entry_that_was_lost_excuses_no_status_without_being_told() {
    let (dir, mut ledger, records) = covered(40);
    let (store, alert) = alarmed(dir.path(), &records);
    repeat(&store, &records[3], 41..=42);
    ledger.drain(&store);
    store.set_alert_status(alert, AlertStatus::Closed, "operator:0", "").unwrap();
    forget(&store);
    ledger.entry("agent", "audit-entries-lost", br#"{"count":1}"#);
    beats(&mut ledger, 1);
    let found = compare(&store, dir.path());
    assert!(found.is_sound() && found.alerts_growing == 0 && found.rows_unproven == 1, "{found:?}");
}

#[test]
fn an_entry_that_was_lost_excuses_one_row_of_its_time() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    ledger.now_us = T0;
    for append in store.audit_pending(1_000).unwrap() {
        ledger.entry(&append.actor, &append.action, &append.payload);
    }
    forget(&store);
    raise(&store, &records[3], "a");
    raise(&store, &records[4], "b");
    forget(&store);
    let lost = |ledger: &mut Ledger, us: i64| {
        ledger.now_us = us;
        ledger.entry("agent", "audit-entries-lost", br#"{"count":1}"#);
        ledger.entry("procmond", "heartbeat", b"{}");
    };
    let unproven = |store: &Store| {
        let found = compare(store, dir.path());
        (found.rows_unproven, found.problems.len())
    };
    assert_eq!(unproven(&store), (0, 2));
    lost(&mut ledger, T0 + HOUR_US);
    assert_eq!(unproven(&store), (1, 1), "one was lost, so one is excused");
    lost(&mut ledger, T0 + 72 * HOUR_US);
    assert_eq!(unproven(&store), (2, 0));
    // Raised long before anything was lost.
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    ledger.cover(&records, 40);
    ledger.now_us = T0 + 72 * HOUR_US;
    ledger.entry("agent", "start", b"{}");
    lost(&mut ledger, T0 + 73 * HOUR_US);
    let found = compare(&store, dir.path());
    assert_eq!(told(&found).iter().filter(|(place, _)| place.starts_with("alert")).count(), 2, "{found:?}");
}

#[test]
fn a_range_that_another_than_its_collector_tells_of_covers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records[..20], 4);
    let mut builder = RangeBuilder::new("procmond");
    for record in &records[20..24] {
        builder.add(record.sequence.unwrap(), Content::of_record(&record.topic, &record.payload));
    }
    let forged = builder.take().remove(0);
    ledger.entry("agent", "event-range", &forged.payload());
    ledger.entry("other", "event-range", &forged.payload());
    let store = filled(dir.path(), &records[..24], &[10]);
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert_eq!((found.events, found.pending), (19, 4), "{found:?}");
}

#[test]
fn what_retention_cuts_is_kept_also_where_the_ledger_lies_elsewhere() {
    let (agents, collectors) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut ledger, records) = (Ledger::new(collectors.path()), happened());
    ledger.cover(&records, 8);
    let store = filled(agents.path(), &records, &[12, 20]);
    store.seal().unwrap();
    let bytes = store.snapshot().segments.iter().map(|file| file.bytes).max().unwrap();
    drop(store);
    let store = Store::open(StoreOptions { retention_bytes: bytes, ..options(agents.path()) }).unwrap();
    store.ledger_lies_in(collectors.path().join("audit"));
    assert_eq!(store.expire_by_size().unwrap().segments, 2);
    ledger.drain(&store);
    let found = store.compare_with_ledger(&store.ledger_dir(), &mut |_, _| true).unwrap();
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.events, found.removed, found.unproven), (20, 19, 0));
}

/// The collector goes on for so many minutes.
fn beats(ledger: &mut Ledger, minutes: i64) {
    for _ in 0..minutes {
        ledger.now_us += HOUR_US / 60;
        ledger.entry("procmond", "heartbeat", b"{}");
    }
}

fn without(records: &[Record], lacks: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    let stays = |record: &&Record| !lacks.contains(&record.sequence.unwrap().number);
    records.iter().filter(stays).cloned().collect()
}

#[test]
fn a_clock_that_jumps_and_is_set_back_does_not_end_the_order_of_removals() {
    let year_us = 365 * 24 * HOUR_US;
    let named = |set: &dyn Fn(&mut Ledger, &[Record]), lacks: std::ops::RangeInclusive<u64>| {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, records) = (Ledger::new(dir.path()), happened());
        ledger.entry("procmond", "heartbeat", b"{}");
        set(&mut ledger, &records);
        let store = filled(dir.path(), &without(&records, lacks.clone()), &[20]);
        ledger.drain(&store);
        let payload = removal("their size", None, *lacks.start(), *lacks.end());
        ledger.entry("agent", "events-removed", payload.to_string().as_bytes());
        ledger.entry("procmond", "heartbeat", b"{}");
        let found = compare(&store, dir.path());
        found.problems.iter().map(|problem| problem.what.contains("older events of its stream")).collect::<Vec<_>>()
    };
    let jumped = |ledger: &mut Ledger, records: &[Record]| {
        ledger.entry_at(T0 + year_us, "procmond", "heartbeat", b"{}");
        ledger.cover(records, 4);
    };
    assert_eq!(named(&jumped, 21..=24), [true], "once ahead is not for ever");
    let run = |ledger: &mut Ledger, records: &[Record]| {
        for records in records.chunks(4) {
            ledger.cover(records, 4);
            ledger.now_us -= HOUR_US;
            beats(ledger, 60);
        }
    };
    let set_back = |ledger: &mut Ledger, records: &[Record]| {
        run(ledger, &records[..20]);
        ledger.now_us -= 3 * HOUR_US;
        run(ledger, &records[20..]);
    };
    assert_eq!(named(&set_back, 33..=36), [true], "the times behind a step back order what is behind it");
    assert_eq!(named(&set_back, 21..=24), [false; 0], "nobody knows which of the files was the older one");
}

#[test]
fn an_entry_of_retention_from_while_the_clock_was_ahead_excuses_nothing_and_one_from_before_it_was_behind_does() {
    let gone = |set: &dyn Fn(&mut Ledger)| {
        let (dir, mut ledger, records) = covered(40);
        let store = filled(dir.path(), &records, &[20]);
        raise(&store, &records[3], "a");
        ledger.now_us = T0 + HOUR_US;
        for append in store.audit_pending(1_000).unwrap() {
            ledger.entry(&append.actor, &append.action, &append.payload);
        }
        set(&mut ledger);
        ledger.entry("procmond", "heartbeat", b"{}");
        let other = tempfile::tempdir().unwrap();
        let without = filled(other.path(), &records, &[20]);
        forget(&without);
        told(&compare(&without, dir.path())).iter().filter(|(_, what)| what == "ledger").count()
    };
    let said = |ledger: &mut Ledger, us: i64, before_us: i64| {
        let payload = json!({ "before_us": before_us, "alerts": 1 }).to_string();
        ledger.entry_at(us, "procmond", "heartbeat", b"{}");
        ledger.entry_at(us, "agent", "retention", payload.as_bytes());
        ledger.entry_at(us, "procmond", "heartbeat", b"{}");
    };
    let day_us = 24 * HOUR_US;
    assert_eq!(
        gone(&|ledger: &mut Ledger| said(ledger, T0 + 365 * day_us, T0 + 300 * day_us)),
        1,
        "the clock was set back"
    );
    let honest = |ledger: &mut Ledger| {
        said(ledger, T0 + 5 * day_us, T0 + 2 * day_us);
        ledger.entry_at(0, "procmond", "heartbeat", b"{}");
        ledger.now_us = T0 + 6 * day_us;
    };
    assert_eq!(gone(&honest), 0, "a host that began at 1970 once");
    // Retention cannot have taken what was told of later.
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    forget(&store);
    said(&mut ledger, T0 + 5 * day_us, T0 + 2 * day_us);
    ledger.now_us = T0 + 5 * day_us;
    raise(&store, &records[3], "a");
    ledger.drain(&store);
    beats(&mut ledger, 1);
    let other = tempfile::tempdir().unwrap();
    let without = filled(other.path(), &records, &[20]);
    forget(&without);
    let found = told(&compare(&without, dir.path()));
    assert_eq!(found.iter().filter(|(place, what)| place.starts_with("alert") && what == "ledger").count(), 1);
}

#[test]
fn what_retention_removed_while_the_outbox_was_full_is_told_when_it_has_room() {
    let (dir, mut ledger, records) = covered(8);
    let store = filled(dir.path(), &records, &[12, 20]);
    store.seal().unwrap();
    raise(&store, &records[3], "a");
    ledger.drain(&store);
    let bytes = store.snapshot().segments.iter().map(|file| file.bytes).max().unwrap();
    drop(store);
    let tight = StoreOptions { retention_bytes: bytes, audit_entries: 2, ..options(dir.path()) };
    let store = Store::open(tight).unwrap();
    while store.audit_push("agent", "start", &json!({})).unwrap().is_some() {}
    assert_eq!(store.expire_by_size().unwrap().segments, 2);
    let by_age = store.expire(T0 + 40 * 24 * HOUR_US).unwrap();
    assert_eq!((by_age.segments, by_age.alerts), (1, 1));
    let judged = |store: &Store| {
        let found = compare(store, dir.path());
        assert!(found.is_sound(), "{found:?}");
        (found.events, found.removed)
    };
    ledger.now_us = T0 + 60 * 24 * HOUR_US;
    ledger.entry("procmond", "heartbeat", b"{}");
    assert_eq!(judged(&store), (0, 39), "while it waits");
    while !store.audit_pending(1).unwrap().is_empty() {
        ledger.drain(&store);
    }
    assert_eq!(judged(&store), (0, 39), "when it was told");
    let kinds: std::collections::BTreeSet<String> =
        compare(&store, dir.path()).removals.into_iter().map(|removal| removal.why).collect();
    assert_eq!(kinds.len(), 2, "by size and by age: {kinds:?}");
}

#[test]
fn what_stands_behind_all_that_a_stream_brought_or_a_collector_covered_was_put_in() {
    let (dir, mut ledger, records) = covered(4);
    let more: Vec<Record> = records.iter().cloned().chain([event(41, "sh"), event(42, "sh")]).collect();
    let store = filled(dir.path(), &more, &[20]);
    ledger.drain(&store);
    assert_eq!(compare(&store, dir.path()).pending, 2, "they are not covered yet");
    ledger.entry("procmond", "stop", b"{}");
    let found = compare(&store, dir.path());
    assert_eq!((found.problems.len(), found.pending), (2, 0), "{found:?}");
    assert!(found.problems[0].what.contains("has ended"), "{found:?}");
    // The store says that it came to 40.
    ledger.entry("procmond", "start", b"{}");
    store.seal().unwrap();
    drop(store);
    let table: TableDefinition<'_, &str, Raw<Watermark>> = TableDefinition::new("watermarks");
    overwrite(dir.path(), table, "procmond", &[1, 1, 40]);
    let store = Store::open(options(dir.path())).unwrap();
    let found = compare(&store, dir.path());
    assert_eq!((found.problems.len(), found.pending), (2, 0), "{found:?}");
    assert!(found.problems[0].what.contains("behind all that its stream has brought"), "{found:?}");
}

#[test]
fn only_what_was_recorded_lately_is_pending_and_what_the_agent_had_committed_is_deleted() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records[..20], &[10]);
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert_eq!((found.pending, found.overdue.len()), (20, 0), "{found:?}");
    {
        // Those of a range that have come wait for the others of it.
        let (dir, mut ledger, records) = covered(4);
        let store = filled(dir.path(), &records[..18], &[10]);
        ledger.drain(&store);
        let found = compare(&store, dir.path());
        assert_eq!((found.pending, found.unproven, found.overdue.len()), (24, 0, 0), "{found:?}");
    }
    beats(&mut ledger, 30);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    let overdue: Vec<_> = found.overdue.iter().map(|of| (of.first.as_str(), of.last.as_str(), of.events)).collect();
    assert_eq!((found.pending, overdue), (0, vec![("1:21", "1:40", 20)]));
    ledger.entry("procmond", "registration", br#"{"collector":"procmond","committed":"1:32"}"#);
    let found = compare(&store, dir.path());
    let deleted: Vec<_> = found.problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(deleted, ["procmond:1:21 to 24", "procmond:1:25 to 28", "procmond:1:29 to 32"]);
}

#[test]
fn an_entry_that_was_lost_excuses_the_growth_of_a_row_and_no_other_change_of_it() {
    let changed = |count: u64, is_lost_before: bool| {
        let (dir, mut ledger, mut records) = covered(40);
        let store = filled(dir.path(), &records, &[20]);
        let lost = |ledger: &mut Ledger| ledger.entry("agent", "audit-entries-lost", br#"{"count":1}"#);
        if is_lost_before {
            lost(&mut ledger);
        }
        for append in store.audit_pending(1_000).unwrap() {
            ledger.entry(&append.actor, &append.action, &append.payload);
        }
        if !is_lost_before {
            lost(&mut ledger);
        }
        beats(&mut ledger, 1);
        records[6] = gap(7, count);
        let other = tempfile::tempdir().unwrap();
        let store = filled(other.path(), &records, &[20]);
        forget(&store);
        let found = compare(&store, dir.path());
        (found.rows_unproven, found.problems.iter().filter(|problem| problem.place == "coverage row 1").count())
    };
    assert_eq!(changed(9, false), (1, 0), "it may have grown");
    assert_eq!(changed(1, false), (0, 1), "nothing makes it less");
    assert_eq!(changed(9, true), (0, 1), "it was told of since");
}

/// The event of `record` once more at another place of the stream.
fn again(record: &Record, number: u64) -> Record {
    Record { sequence: Some(Sequence::new(1, number)), ..record.clone() }
}

fn repeat(store: &Store, record: &Record, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let batch = Arc::new(decode("procmond", &[again(record, number)]).unwrap().batch);
        let rule = Arc::new(DetectionRule { dedup: vec!["pid".into()], ..golden::rule() });
        let output = Map::from_iter([("word".to_owned(), json!("a"))]);
        let found =
            RuleMatch { rule, batch, row: 0, answer: Answer::Row(output), completeness: Completeness::complete() };
        assert_eq!(store.commit_matches(vec![found]).unwrap().len(), 0);
    }
}

#[test]
fn what_repeats_add_to_an_alert_is_told_and_an_alert_that_grew_otherwise_is_named() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    let world = |repeats: u64| {
        let other = tempfile::tempdir().unwrap();
        let store = filled(other.path(), &records, &[20]);
        raise(&store, &records[3], "a");
        repeat(&store, &records[3], 31..=30 + repeats);
        store.tell_growth().unwrap();
        forget(&store);
        (other, store)
    };
    raise(&store, &records[3], "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
    ledger.drain(&store);
    repeat(&store, &records[3], 31..=33);
    let counted = |store: &Store| {
        let found = compare(store, dir.path());
        let named = found.problems.iter().filter(|problem| problem.place == format!("alert {alert}")).count();
        (found.alerts, found.alerts_growing, named)
    };
    assert_eq!(counted(&store), (0, 1, 0), "it is told within a minute");
    let (_dir, less) = world(0);
    assert_eq!(counted(&less), (1, 0, 0), "as the ledger knows it by now");
    assert_eq!(store.tell_growth().unwrap(), 1);
    assert_eq!(store.tell_growth().unwrap(), 0, "once");
    assert_eq!(counted(&store), (1, 0, 0), "it waits for the ledger");
    ledger.drain(&store);
    assert_eq!(counted(&store), (1, 0, 0));
    for repeats in [0, 2, 4] {
        let (_dir, store) = world(repeats);
        assert_eq!(counted(&store), (0, 0, 1), "{repeats}");
    }
    let (_dir, same) = world(3);
    assert_eq!(counted(&same), (1, 0, 0));
    // An agent that was made to tell less.
    let (_dir, less) = world(1);
    repeat(&less, &records[3], 33..=33);
    less.tell_growth().unwrap();
    assert_eq!(counted(&less), (1, 0, 1), "less than it was told of before");
}

#[test]
fn growth_that_found_no_room_is_told_later_and_an_alert_of_an_older_build_is_not_judged() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    drop(store);
    let store = Store::open(StoreOptions { audit_entries: 3, ..options(dir.path()) }).unwrap();
    ledger.drain(&store);
    raise(&store, &records[3], "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
    ledger.drain(&store);
    while store.audit_push("agent", "start", &json!({})).unwrap().is_some() {}
    repeat(&store, &records[3], 31..=33);
    store.set_alert_status(alert, AlertStatus::Closed, "operator:alice", "seen").unwrap();
    assert_eq!(store.tell_growth().unwrap(), 0);
    ledger.drain(&store);
    assert_eq!(store.tell_growth().unwrap(), 1);
    ledger.drain(&store);
    ledger.entry("procmond", "heartbeat", b"{}");
    let found = compare(&store, dir.path());
    assert_eq!((found.alerts, found.alerts_growing), (1, 0), "{found:?}");
    assert!(!found.problems.iter().any(|problem| problem.place.starts_with("alert")), "{found:?}");
    // Entries of before have no `raised`.
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    raise(&store, &records[3], "a");
    for append in store.audit_pending(1_000).unwrap() {
        let mut payload: serde_json::Value = serde_json::from_slice(&append.payload).unwrap();
        payload.as_object_mut().unwrap().remove("raised");
        ledger.entry(&append.actor, &append.action, payload.to_string().as_bytes());
    }
    forget(&store);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.alerts, found.alerts_unproven), (0, 1));
}

#[test]
fn an_alert_that_no_list_shows_is_named() {
    let (dir, mut ledger, records) = covered(40);
    let (store, alert) = alarmed(dir.path(), &records);
    let time_us = store.alert(alert).unwrap().unwrap().time_us;
    store.seal().unwrap();
    ledger.drain(&store);
    assert!(compare(&store, dir.path()).is_sound());
    drop(store);
    let table: TableDefinition<'_, (u8, i64, u128), ()> = TableDefinition::new("alerts_by_status");
    let database = redb::Database::open(dir.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let row = (0, time_us, alert.as_u128());
    assert!(transaction.open_table(table).unwrap().remove(row).unwrap().is_some());
    transaction.commit().unwrap();
    drop(database);
    let store = Store::open(options(dir.path())).unwrap();
    assert!(store.alerts(&Default::default()).unwrap().is_empty());
    assert_eq!(told(&compare(&store, dir.path())), [(format!("alert {alert}"), "no".to_owned())]);
}

/// What the table of watermarks calls its values.
#[derive(Debug)]
pub(crate) struct Watermark;

impl Named for Watermark {
    const NAME: &'static str = "daemoneye::watermarks";
}
