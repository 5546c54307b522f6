//! What a ledger does not tell of: it is younger than the store, or the rows are those of another collector. That is told, and what
//! was put in is not taken for it.

use daemoneye_engine::store::Why;
use daemoneye_lib::model::RuleKind;
use redb::{ReadableDatabase as _, ReadableTable as _};

use super::*;

/// The second run of the collector, with a ledger that begins there.
const NEW_US: i64 = T0 + 24 * HOUR_US;

fn in_epoch(record: &Record, epoch: u64, number: u64) -> Record {
    Record { sequence: Some(Sequence::new(epoch, number)), ..record.clone() }
}

/// Records 1 to 20 of one run and 21 to 40 of the next.
fn two_runs() -> Vec<Record> {
    let epoch = |number| if number <= 20 { 1 } else { 2 };
    (1..).zip(happened()).map(|(number, record)| in_epoch(&record, epoch(number), number)).collect()
}

/// A ledger that begins with the second run, and says how far the agent had stored the stream then.
fn anew(dir: &Path, records: &[Record], registration: &str) -> Ledger {
    let mut ledger = Ledger::new(dir);
    ledger.now_us = NEW_US;
    ledger.entry("procmond", "key-created", b"{}");
    ledger.entry("procmond", "start", br#"{"epoch":2}"#);
    ledger.entry("procmond", "registration", registration.as_bytes());
    ledger.cover(records.get(20..40).unwrap(), 4);
    ledger
}

const HAD_STORED: &str = r#"{"collector":"procmond","committed":"1:20"}"#;

#[test]
fn what_is_older_than_the_ledger_is_told_as_unproven_and_not_as_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let store = filled(dir.path(), &records[..20], &[10]);
    raise(&store, &records[3], "a");
    forget(&store);
    let ledger = anew(dir.path(), &records, HAD_STORED);
    store.append(decode("procmond", &records[20..]).unwrap()).unwrap();
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.events, found.pending, found.unproven, found.rows_unproven), (20, 0, 19, 2));
    let [older] = found.uncovered.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (older.collector.as_str(), older.why, older.events, older.dated_since),
        ("procmond", Why::Older, 19, 0)
    );
    assert_eq!((older.first.as_str(), older.last.as_str(), older.named.len()), ("1:1", "1:20", 8));
    assert_eq!((older.from_us, older.to_us), (T0 + 1_000, T0 + 20_000));
    let rows: Vec<_> = found.older_rows.iter().map(|row| row.place.split(' ').next().unwrap()).collect();
    assert_eq!((rows, found.began_us), (vec!["alert", "coverage"], Some(NEW_US)));
    drop(ledger);
    // A host that began at 1970 began when it was told the time.
    let early = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(early.path());
    ledger.now_us = 0;
    ledger.entry("procmond", "key-created", b"{}");
    ledger.now_us = NEW_US;
    ledger.entry("procmond", "heartbeat", b"{}");
    assert_eq!(compare(&store, early.path()).began_us, Some(NEW_US));
}

#[test]
fn what_cannot_have_been_there_when_the_ledger_began_was_put_in() {
    let records = two_runs();
    let put_in = |registration: &str, more: &[Record]| {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Record> = records[..20].iter().chain(more).chain(&records[20..]).cloned().collect();
        let store = filled(dir.path(), &all, &[10]);
        forget(&store);
        let _ledger = anew(dir.path(), &records, registration);
        let found = compare(&store, dir.path());
        let uncovered: u64 = found.uncovered.iter().map(|of| of.events).sum();
        let places: Vec<_> = found.problems.iter().map(|problem| problem.place.clone()).collect();
        (uncovered, places.into_iter().filter(|place| place.starts_with("procmond:")).collect::<Vec<_>>())
    };
    assert_eq!(put_in(HAD_STORED, &[]), (19, vec![]));
    let behind = in_epoch(&event(21, "forged"), 1, 21);
    assert_eq!(put_in(HAD_STORED, &[behind]), (19, vec!["procmond:1:21".to_owned()]));
    // Nothing of the stream was stored: whatever stands before the ranges came later.
    let (uncovered, places) = put_in(r#"{"collector":"procmond","committed":null}"#, &[]);
    assert_eq!((uncovered, places.len()), (0, 19));
    // A build that did not say how far.
    assert_eq!(put_in("{}", &[]), (19, vec![]));
}

#[test]
fn an_alert_and_a_row_of_coverage_that_this_ledger_would_have_told_of_are_not_older_than_it() {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let store = filled(dir.path(), &records, &[10]);
    raise(&store, &records[3], "a");
    forget(&store);
    let mut ledger = anew(dir.path(), &records, HAD_STORED);
    let since = |reason: &str, us: i64| CoverageGap {
        collector: "procmond".into(),
        reason: reason.into(),
        from_us: us,
        to_us: us,
        ..CoverageGap::default()
    };
    store.add_coverage(since("told", NEW_US + HOUR_US)).unwrap();
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.coverage, found.rows_unproven), (1, 2));
    // Dated back, of an event of a run that the ledger tells of; and a row with a number that was given since.
    raise(&store, &records[30], "b");
    store.add_coverage(since("forged", T0)).unwrap();
    forget(&store);
    let found = compare(&store, dir.path());
    let mut kinds: Vec<_> = told(&found).into_iter().map(|(place, what)| (place.len() < 20, what)).collect();
    kinds.sort();
    assert_eq!(kinds, [(false, "no".to_owned()), (true, "no".to_owned())], "{found:?}");
    assert_eq!(found.rows_unproven, 2);
}

#[test]
fn events_of_a_collector_without_ranges_are_named_and_those_of_none_were_put_in() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records, &[20]);
    ledger.drain(&store);
    assert!(compare(&store, dir.path()).uncovered.is_empty());
    store.append(decode("visitor", &records[..5]).unwrap()).unwrap();
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    let [foreign] = found.uncovered.as_slice() else { panic!("{found:?}") };
    assert_eq!((foreign.collector.as_str(), foreign.why, foreign.events), ("visitor", Why::Foreign, 5));
    assert_eq!((foreign.dated_since, found.unproven), (5, 5), "after the ledger began: {found:?}");
    assert!(foreign.named[0].starts_with("1:1 (entity "), "{found:?}");
    let more: Vec<_> = (1..=70).map(|number| (format!("visitor-{number}"), in_epoch(&records[0], 1, 1))).collect();
    for (name, record) in &more {
        store.append(decode(name, std::slice::from_ref(record)).unwrap()).unwrap();
    }
    let found = compare(&store, dir.path());
    assert_eq!((found.uncovered.len(), found.further_uncovered, found.unproven), (64, 7, 75), "{found:?}");
    store.append(decode("", &records[..1]).unwrap()).unwrap();
    let found = compare(&store, dir.path());
    assert_eq!(found.problems.len(), 1, "{found:?}");
}

#[test]
fn events_that_wait_for_a_range_are_of_an_epoch_that_their_collector_began() {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let mut ledger = Ledger::new(dir.path());
    ledger.entry("procmond", "start", br#"{"epoch":1}"#);
    ledger.cover(&records[..20], 4);
    let store = filled(dir.path(), &records, &[20]);
    ledger.drain(&store);
    let found = compare(&store, dir.path());
    let unbegun: Vec<_> = found.uncovered.iter().map(|of| (of.why, of.events)).collect();
    assert_eq!((found.pending, unbegun), (0, vec![(Why::Unbegun, 20)]), "{found:?}");
    ledger.entry("procmond", "start", br#"{"epoch":2}"#);
    let found = compare(&store, dir.path());
    assert_eq!((found.pending, found.unproven), (20, 0), "{found:?}");
}

#[test]
fn events_long_behind_the_end_of_a_ledger_do_not_pass_for_some_that_wait_for_a_range() {
    let (dir, mut ledger, records) = covered(4);
    let end_us = ledger.now_us;
    let dated = |number: u64, time_us: i64| {
        let record = event(number, "sh");
        let event = ProcessEvent { time_us, ..ProcessEvent::decode(record.payload.as_ref()).unwrap() };
        Record { time_us, payload: event.encode_to_vec().into(), ..record }
    };
    let more = [dated(41, end_us), dated(42, end_us + HOUR_US), dated(43, end_us + HOUR_US)];
    let all: Vec<Record> = records.iter().chain(&more).cloned().collect();
    let store = filled(dir.path(), &all, &[20]);
    ledger.drain(&store);
    ledger.entry_at(end_us, "procmond", "heartbeat", b"{}");
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    let behind: Vec<_> = found.uncovered.iter().map(|of| (of.why, of.events)).collect();
    assert_eq!((found.pending, behind), (1, vec![(Why::Behind, 2)]));
}

#[test]
fn a_file_that_is_listed_under_times_that_its_events_do_not_have_is_named() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records, &[20]);
    store.seal().unwrap();
    ledger.drain(&store);
    assert!(compare(&store, dir.path()).is_sound());
    let hidden = store.snapshot().segments.first().unwrap().clone();
    drop(store);
    // What a query for the time of the event does not open.
    let table: TableDefinition<'_, (&str, i64, u64), Raw<Segment>> = TableDefinition::new("segments");
    let db = redb::Database::open(dir.path().join("state.redb")).unwrap();
    let write = db.begin_write().unwrap();
    {
        let mut rows = write.open_table(table).unwrap();
        let key = ("process_events", hidden.first_us, hidden.id);
        let mut bytes = rows.get(key).unwrap().unwrap().value().to_vec();
        let last = postcard::to_stdvec(&hidden.last_us).unwrap();
        let earlier = postcard::to_stdvec(&(hidden.last_us - 2_000)).unwrap();
        let at = bytes.windows(last.len()).position(|some| some == last).unwrap();
        bytes.get_mut(at..at + last.len()).unwrap().copy_from_slice(&earlier);
        rows.insert(key, bytes.as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(db);
    let store = Store::open(options(dir.path())).unwrap();
    let found = compare(&store, dir.path());
    let why = "no query shows it: the time for which its file is registered";
    assert!(found.problems.iter().any(|problem| problem.what.starts_with(why)), "{found:?}");
}

#[test]
fn a_new_ledger_beside_a_store_with_alerts_cannot_tell_whether_they_were_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let store = filled(dir.path(), &records, &[20]);
    raise(&store, &records[30], "b");
    let mut ledger = anew(dir.path(), &records, HAD_STORED);
    ledger.drain(&store);
    let whole = compare(&store, dir.path());
    assert!(whole.is_sound(), "{whole:?}");
    let gone = json!({ "why": "their size", "until_us": i64::MAX, "alerts": 1, "bytes": 1 }).to_string();
    ledger.entry("agent", "alerts-removed", gone.as_bytes());
    beats(&mut ledger, 1);
    let other = tempfile::tempdir().unwrap();
    let without = filled(other.path(), &records, &[20]);
    forget(&without);
    let named = |found: &Proven| told(found).into_iter().filter(|(place, _)| !place.starts_with("coverage")).count();
    let found = compare(&without, dir.path());
    assert_eq!((named(&found), found.alerts_removed), (0, 0), "{found:?}");
    assert!(found.rows_unproven > 0, "{found:?}");
}

#[test]
fn a_stream_that_was_stored_once_is_not_awaited_because_the_agent_says_less_of_it_later() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records[..20], &[10]);
    ledger.drain(&store);
    ledger.entry("procmond", "registration", br#"{"committed":"1:40"}"#);
    ledger.entry("procmond", "registration", br#"{"committed":"1:20"}"#);
    let found = compare(&store, dir.path());
    assert_eq!((found.pending, found.problems.len()), (0, 5), "{found:?}");
}

#[derive(Debug)]
struct Coverage;

#[derive(Debug)]
struct Segment;

impl Named for Segment {
    const NAME: &'static str = "daemoneye::segments";
}

impl Named for Coverage {
    const NAME: &'static str = "daemoneye::coverage";
}

#[test]
fn a_row_of_coverage_under_a_known_number_is_another_row() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    ledger.drain(&store);
    assert_eq!(compare(&store, dir.path()).coverage, 1);
    drop(store);
    let table: TableDefinition<'_, (i64, u64), Raw<Coverage>> = TableDefinition::new("coverage");
    let bytes_of = |dir: &Path| {
        let db = redb::Database::open(dir.join("state.redb")).unwrap();
        let rows = db.begin_read().unwrap().open_table(table).unwrap();
        let (key, value) = rows.range((i64::MIN, 0)..).unwrap().next().unwrap().unwrap();
        (key.value(), value.value().to_vec())
    };
    // A forged row with the number of the real one, before it in the table.
    let other = tempfile::tempdir().unwrap();
    let forger = filled(other.path(), &records[..1], &[]);
    let forged = CoverageGap { reason: "forged".into(), from_us: T0, to_us: T0, ..CoverageGap::default() };
    forger.add_coverage(forged).unwrap();
    drop(forger);
    let (key, bytes) = bytes_of(other.path());
    assert_eq!(key, (T0, 1));
    overwrite(dir.path(), table, key, &bytes);
    let store = Store::open(options(dir.path())).unwrap();
    let found = compare(&store, dir.path());
    assert_eq!(told(&found), [("coverage row 1".to_owned(), "no".to_owned())]);
    drop(store);
    // The same bytes elsewhere: lists go by the key.
    overwrite(dir.path(), table, (T0 - 1, 1), &bytes);
    let store = Store::open(options(dir.path())).unwrap();
    let found = compare(&store, dir.path());
    assert_eq!(found.problems.len(), 2, "{found:?}");
    assert!(found.problems[0].what.contains("another time"), "{found:?}");
}

#[test]
fn rows_of_coverage_that_no_entry_tells_of_are_found_also_where_none_is_told_of() {
    let (dir, mut ledger, mut records) = covered(40);
    records.remove(6);
    let store = filled(dir.path(), &records, &[20]);
    let gap = CoverageGap { reason: "forged".into(), from_us: T0 + 1, to_us: T0 + 1, ..CoverageGap::default() };
    store.add_coverage(gap).unwrap();
    forget(&store);
    ledger.entry("procmond", "heartbeat", b"{}");
    assert_eq!(told(&compare(&store, dir.path())), [("coverage row 1".to_owned(), "no".to_owned())]);
}

#[test]
fn an_entry_that_tells_less_of_a_row_than_one_before_it_is_named() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    let waiting = store.audit_pending(10).unwrap();
    ledger.drain(&store);
    let row = waiting.iter().find(|append| append.action == "coverage").unwrap();
    let mut less: serde_json::Value = serde_json::from_slice(&row.payload).unwrap();
    less["count"] = json!(1);
    ledger.entry("agent", "coverage", less.to_string().as_bytes());
    let found = compare(&store, dir.path());
    assert_eq!(told(&found).iter().filter(|(place, what)| place == "coverage row 1" && what == "it").count(), 2);
}

#[test]
fn a_ledger_without_ranges_yet_is_younger_than_what_the_agent_had_stored() {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let store = filled(dir.path(), &records[..20], &[10]);
    forget(&store);
    let mut ledger = Ledger::new(dir.path());
    ledger.now_us = NEW_US;
    ledger.entry("procmond", "start", br#"{"epoch":2}"#);
    ledger.entry("procmond", "registration", HAD_STORED.as_bytes());
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.unproven, found.pending), (19, 0));
}

#[test]
fn a_change_of_what_is_left_of_a_range_that_retention_cut_is_named() {
    let cut = |changes: bool, forgets: bool| {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, mut records) = (Ledger::new(dir.path()), happened());
        ledger.cover(&records, 8);
        if changes {
            records[21] = event(22, "innocent");
        }
        let store = filled(dir.path(), &records, &[12, 20]);
        store.seal().unwrap();
        let bytes = store.snapshot().segments.iter().map(|file| file.bytes).max().unwrap();
        drop(store);
        let store = Store::open(StoreOptions { retention_bytes: bytes, ..options(dir.path()) }).unwrap();
        assert_eq!(store.expire_by_size().unwrap().segments, 2);
        ledger.drain(&store);
        drop(store);
        if forgets {
            let table: TableDefinition<'_, (&str, u64, u64), [u8; 32]> = TableDefinition::new("range_leaves");
            let database = redb::Database::open(dir.path().join("state.redb")).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(table).unwrap().retain(|_, _| false).unwrap();
            transaction.commit().unwrap();
        }
        let found = compare(&Store::open(options(dir.path())).unwrap(), dir.path());
        (told(&found), found.unproven)
    };
    assert_eq!(cut(false, false), (vec![], 0));
    assert_eq!(cut(true, false), (vec![("procmond:1:17 to 24".to_owned(), "changed".to_owned())], 0));
    assert_eq!(cut(false, true), (vec![], 4), "without the leaves nobody knows");
}

/// A store with rows of a run before, and a ledger that begins at `began_us` by its collector's clock, which then shows `then_us`.
fn set_right(began_us: i64, then_us: i64) -> Proven {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let (before, behind) = records.split_at(20);
    let store = filled(dir.path(), before, &[10]);
    raise(&store, before.get(3).unwrap(), "a");
    forget(&store);
    let mut ledger = Ledger::new(dir.path());
    ledger.now_us = began_us;
    ledger.entry("procmond", "key-created", b"{}");
    ledger.entry("procmond", "start", br#"{"epoch":2}"#);
    ledger.entry("procmond", "registration", HAD_STORED.as_bytes());
    ledger.now_us = then_us;
    let beat = json!({ "collector": "procmond", "from_ms": began_us / 1_000, "to_ms": then_us / 1_000, "state": "running",
        "events": 0, "lost": 0, "errors": 0, "cycles": 12, "entities": 9, "last": null });
    ledger.entry("procmond", "heartbeat", beat.to_string().as_bytes());
    ledger.cover(behind.get(..20).unwrap(), 4);
    store.append(decode("procmond", behind).unwrap()).unwrap();
    compare(&store, dir.path())
}

#[test]
fn a_clock_that_was_hours_off_when_the_ledger_began_makes_nothing_put_in_and_excuses_nothing() {
    let minute_us = HOUR_US / 60;
    let behind = set_right(T0 - 5 * HOUR_US, T0 + HOUR_US);
    assert!(behind.is_sound(), "{behind:?}");
    assert_eq!((behind.rows_unproven, behind.began_us), (2, Some(T0 + HOUR_US)));
    // The ledger is older than the rows, and pretends not to be.
    let ahead = set_right(T0 + 365 * 24 * HOUR_US, T0 - minute_us);
    assert_eq!((ahead.rows_unproven, told(&ahead).len()), (0, 2), "{ahead:?}");
    let steady = set_right(T0 - minute_us, T0);
    assert_eq!((steady.rows_unproven, told(&steady).len()), (0, 2), "{steady:?}");
}

#[test]
fn an_alert_that_names_no_event_is_not_older_than_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let records = two_runs();
    let store = filled(dir.path(), &records[..20], &[10]);
    let batch = Arc::new(decode("procmond", &records[..1]).unwrap().batch.slice(0, 0));
    let rule = Arc::new(DetectionRule { kind: RuleKind::Window, ..golden::rule() });
    let answer = Answer::Row(Map::new());
    let found = RuleMatch { rule, batch, row: 0, answer, completeness: Completeness::complete() };
    let alert = store.commit_matches(vec![found]).unwrap().remove(0);
    assert!(alert.events.is_empty(), "{alert:?}");
    forget(&store);
    let _ledger = anew(dir.path(), &records, HAD_STORED);
    store.append(decode("procmond", &records[20..]).unwrap()).unwrap();
    assert_eq!(told(&compare(&store, dir.path())), [(format!("alert {}", alert.id), "no".to_owned())]);
}

#[test]
fn rows_that_wait_for_longer_than_their_way_into_the_ledger_takes_are_told() {
    let (dir, mut ledger, records) = covered(40);
    let store = filled(dir.path(), &records, &[20]);
    raise(&store, &records[3], "a");
    let waits = store.audit_pending(9).unwrap();
    let since_us = waits.iter().map(|append| append.timestamp_ms * 1_000).min().unwrap();
    // 100,000 entries at 100 a second, and ten minutes.
    let longest_us = 1_600_000_000;
    ledger.now_us = since_us + longest_us - 1_000;
    ledger.entry("procmond", "heartbeat", b"{}");
    let found = compare(&store, dir.path());
    assert_eq!((found.rows_pending, found.rows_overdue), (2, 0), "{found:?}");
    ledger.now_us = since_us + longest_us + 60_000_000;
    ledger.entry("procmond", "heartbeat", b"{}");
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.rows_pending, found.rows_overdue, found.rows_overdue_since_us), (2, 2, Some(since_us)));
    ledger.drain(&store);
    assert_eq!(compare(&store, dir.path()).rows_overdue, 0);
}
