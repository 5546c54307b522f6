//! A store against its ledger: what was deleted, changed or put in is found and named, and what retention took is none of it.
//!
//! The store of an attacker who can rewrite files, hashes and tables alike is one that was filled with other records: so the
//! ledger is written from what happened, and the store from what the attacker wants to have happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_engine::ingest::decode;
use daemoneye_engine::store::{Proven, RuleMatch, Store, StoreOptions};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::{AuditEntry, GENESIS, Hash, LedgerHeader, RangeBuilder};
use daemoneye_lib::model::{AlertStatus, Completeness, DetectionRule};
use daemoneye_lib::proto::{CoverageGap, EventType, ProcessEvent, ProcessRecord, Record, Sequence, StartKind};
use daemoneye_lib::segment::{Kind, SegmentHeader, SegmentName, encode};
use prost::Message as _;
use serde_json::{Map, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::golden;

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
            now_us: T0,
        }
    }

    fn entry(&mut self, actor: &str, action: &str, payload: &[u8]) {
        self.entry_at(self.now_us, actor, action, payload);
    }

    fn entry_at(&mut self, us: i64, actor: &str, action: &str, payload: &[u8]) {
        let entry = AuditEntry::link(self.next, self.head, us / 1_000, actor, action, payload);
        (self.next, self.head) = (self.next + 1, entry.entry_hash);
        let Sequence { epoch, number } = self.covered;
        let header = LedgerHeader { entry, outbox_id: 0, covered_epoch: epoch, covered_number: number };
        self.crc = encode(&mut self.bytes, self.crc, 0, &header, payload).unwrap();
        fs::write(self.dir.join(SegmentName::ledger().file(1)), &self.bytes).unwrap();
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
    let found = RuleMatch { rule, batch, row: 0, output, completeness: Completeness::complete() };
    assert_eq!(store.commit_matches(vec![found]).unwrap().len(), 1);
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
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records, 4);
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
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records, 40);
    let store = filled(dir.path(), &records, &[20]);
    raise(&store, &records[3], "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
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
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records, 8);
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
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records, 40);
    let store = filled(dir.path(), &records, &[20]);
    raise(&store, &records[3], "a");
    let alert = store.alerts(&Default::default()).unwrap().remove(0).id;
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

#[test]
fn an_entry_that_was_lost_excuses_one_row_of_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, records) = (Ledger::new(dir.path()), happened());
    ledger.cover(&records, 40);
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
