//! What an honest host lacks: its log was full or damaged, was not read to its end, or the disk was full at a stop.

use daemoneye_lib::segment::WalHeader;

use super::*;

fn lost(reason: &str, first: &str, last: &str) -> Vec<u8> {
    json!({ "collector": "procmond", "reason": reason, "events": 12, "first": first, "last": last })
        .to_string()
        .into_bytes()
}

fn places(found: &Proven) -> Vec<&str> {
    found.problems.iter().map(|problem| problem.place.as_str()).collect()
}

#[test]
fn what_a_full_log_lost_before_the_agent_took_it_is_lost_and_not_deleted() {
    for reason in ["wal_bound", "wal_corrupt"] {
        let (dir, mut ledger, records) = covered(4);
        let store = filled(dir.path(), &without(&records, 21..=32), &[20]);
        ledger.drain(&store);
        let deleted = ["procmond:1:21 to 24", "procmond:1:25 to 28", "procmond:1:29 to 32"];
        assert_eq!(places(&compare(&store, dir.path())), deleted);
        // Another's word, and another loss than that of a log, excuse nothing.
        ledger.entry("agent", "coverage-gap", &lost(reason, "1:21", "1:32"));
        ledger.entry("other", "coverage-gap", &lost(reason, "1:21", "1:32"));
        ledger.entry("procmond", "coverage-gap", &lost("kernel_lost", "1:21", "1:32"));
        ledger.entry("procmond", "coverage-gap", br#"{"collector":"procmond","events":12}"#);
        assert_eq!(places(&compare(&store, dir.path())), deleted);
        ledger.entry("procmond", "coverage-gap", &lost(reason, "1:21", "1:30"));
        let found = compare(&store, dir.path());
        assert_eq!(places(&found), ["procmond:1:31 to 32"], "it lost no more than it says");
        ledger.entry("procmond", "coverage-gap", &lost(reason, "1:31", "1:32"));
        let found = compare(&store, dir.path());
        assert!(found.is_sound(), "{found:?}");
        let told: Vec<_> = found.lost.iter().map(|of| (of.first.as_str(), of.last.as_str(), of.events)).collect();
        assert_eq!((told, found.pending, found.overdue.len()), (vec![("1:21", "1:32", 12)], 0, 0));
        assert_eq!((found.events, found.unproven), (27, 0));
    }
}

#[test]
fn a_log_loses_nothing_that_the_agent_had_stored_before() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &without(&records, 21..=32), &[20]);
    ledger.drain(&store);
    ledger.entry("procmond", "registration", br#"{"collector":"procmond","committed":"1:24"}"#);
    ledger.entry("procmond", "coverage-gap", &lost("wal_bound", "1:13", "1:32"));
    let found = compare(&store, dir.path());
    assert_eq!(places(&found), ["procmond:1:21 to 24"]);
    assert_eq!(found.lost.iter().map(|of| of.events).sum::<u64>(), 8);
}

#[test]
fn what_a_log_lost_while_the_agent_is_still_away_is_not_overdue() {
    let (dir, mut ledger, records) = covered(4);
    let store = filled(dir.path(), &records[..20], &[10]);
    ledger.drain(&store);
    ledger.entry("procmond", "coverage-gap", &lost("wal_bound", "1:21", "1:32"));
    beats(&mut ledger, 30);
    let found = compare(&store, dir.path());
    assert!(found.is_sound(), "{found:?}");
    let events = |of: &[daemoneye_engine::store::Missing]| of.iter().map(|of| of.events).sum::<u64>();
    assert_eq!((events(&found.lost), found.overdue.len()), (12, 1));
    assert_eq!((found.overdue[0].first.as_str(), found.overdue[0].events), ("1:33", 8));
}

/// A collector's log, of which all from `bad` on cannot be read.
fn log(dir: &Path, records: &[Record], bad: Option<u64>) {
    let header = SegmentHeader { kind: Kind::Wal, previous_crc: 0, epoch: 1, segment: 1, first: 1 };
    let (mut bytes, mut crc) = (header.encode().to_vec(), 0);
    let mut good = None;
    for record in records {
        let Sequence { epoch, number } = record.sequence.unwrap();
        if Some(number) == bad {
            good = Some(bytes.len());
        }
        let header = WalHeader { epoch, number, topic: record.topic.clone(), time_us: record.time_us };
        crc = encode(&mut bytes, crc, 0, &header, &record.payload).unwrap();
    }
    for byte in good.and_then(|good| bytes.get_mut(good..)).unwrap_or_default() {
        *byte ^= 0x55;
    }
    fs::create_dir_all(dir.join("wal")).unwrap();
    fs::write(dir.join("wal/procmond-00001.wal"), bytes).unwrap();
}

#[test]
fn what_a_copy_cannot_read_of_a_log_is_on_its_way_and_what_the_log_does_not_have_is_deleted() {
    let copied = |records: &[Record], bad: Option<u64>, minutes: i64| {
        let (dir, mut ledger, _) = covered(4);
        log(dir.path(), records, bad);
        beats(&mut ledger, minutes);
        let store = Store::open_offline(dir.path()).unwrap();
        (compare(&store, dir.path()), dir)
    };
    let records = happened();
    let (whole, _dir) = copied(&records, None, 0);
    assert!(whole.problems.is_empty() && whole.events == 39, "{whole:?}");
    let (cut, _dir) = copied(&records, Some(33), 0);
    assert_eq!((places(&cut), cut.events, cut.pending), (vec![], 31, 8), "{cut:?}");
    let (late, _dir) = copied(&records, Some(33), 30);
    let overdue: u64 = late.overdue.iter().map(|of| of.events).sum();
    assert_eq!((places(&late), overdue, late.pending), (vec![], 8, 0), "{late:?}");
    let (removed, _dir) = copied(&records[..32], None, 0);
    assert_eq!(places(&removed), ["procmond:1:33 to 36", "procmond:1:37 to 40"], "{removed:?}");
}

#[test]
fn a_stop_whose_last_range_found_no_room_ends_no_stream() {
    let (dir, mut ledger, records) = covered(4);
    let more: Vec<Record> = records.iter().cloned().chain([event(41, "sh"), event(42, "sh")]).collect();
    let store = filled(dir.path(), &more, &[20]);
    ledger.drain(&store);
    ledger.entry("procmond", "stop", br#"{"collector":"procmond","reason":"signal","last":"1:42"}"#);
    let found = compare(&store, dir.path());
    assert_eq!((found.problems.len(), found.pending), (0, 2), "{found:?}");
    ledger.entry("procmond", "stop", br#"{"collector":"procmond","reason":"signal","last":"1:40"}"#);
    let found = compare(&store, dir.path());
    assert_eq!((found.problems.len(), found.pending), (2, 0), "{found:?}");
    assert!(found.problems[0].what.contains("has ended"), "{found:?}");
}
