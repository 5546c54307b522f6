//! A host that has removed for years, a ledger that tells of more removals than are remembered, and removals that were told beforehand.

use daemoneye_lib::ledger::EventRange;

use super::*;

const HOURS: u64 = 365 * 24;
/// Retention of thirty days.
const KEPT_HOURS: u64 = 30 * 24;
/// In an hour: rows of coverage, alerts and events.
const ROWS: u64 = 30;
const ALERTS: u64 = 8;
const EVENTS: u64 = 60;

fn row(id: u64, us: i64) -> serde_json::Value {
    json!({ "row": id, "collector": "procmond", "reason": "kernel_lost", "from_us": us, "to_us": us, "count": 1,
        "detail": "", "first": null, "last": null })
}

fn alert(id: u64, us: i64) -> serde_json::Value {
    json!({ "alert": Uuid::from_u128(id.into()), "time_us": us, "bytes": 2_000 })
}

fn stretches(of: impl Iterator<Item = (u64, u64)>) -> Vec<serde_json::Value> {
    of.map(|(first, last)| json!({ "collector": "procmond", "first": (1, first), "last": (1, last) })).collect()
}

/// What one hour brings, and what retention takes in it.
fn hour(ledger: &mut Ledger, hour: u64) {
    let us = ledger.now_us;
    let put = |ledger: &mut Ledger, actor: &str, action: &str, payload: serde_json::Value| {
        ledger.put_at(us, actor, action, payload.to_string().as_bytes());
    };
    if hour < HOURS {
        let (first, last) = (hour * EVENTS + 1, (hour + 1) * EVENTS);
        let (collector, count) = ("procmond".to_owned(), EVENTS);
        let range = EventRange {
            collector,
            epoch: 1,
            first,
            last,
            count,
            root: [7; 32],
            schema: 1,
            events: count,
            others: None,
        };
        ledger.put_at(us, "procmond", "event-range", &range.payload());
        (0..ROWS).for_each(|row_of| put(ledger, "agent", "coverage", row(1 + hour * ROWS + row_of, us)));
        (0..ALERTS).for_each(|alert_of| put(ledger, "agent", "alert", alert(1 + hour * ALERTS + alert_of, us)));
    }
    ledger.put_at(us, "procmond", "heartbeat", b"{}");
    if let Some(old) = hour.checked_sub(KEPT_HOURS + 1).filter(|old| *old < HOURS) {
        let before_us = us - KEPT_HOURS.cast_signed() * HOUR_US;
        // File by file: two minutes of events in each.
        let files = (old * EVENTS + 1..=(old + 1) * EVENTS).step_by(2).map(|first| (first, first + 1));
        let ranges = stretches(files);
        put(
            ledger,
            "agent",
            "events-removed",
            json!({ "why": "removed because of their age", "before_us": before_us, "ranges": ranges }),
        );
        put(ledger, "agent", "retention", json!({ "before_us": before_us, "alerts": ALERTS, "coverage": ROWS }));
    }
    ledger.now_us += HOUR_US;
}

#[test]
fn a_host_that_has_removed_for_a_year_is_proven_and_what_was_deleted_since_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(dir.path());
    ledger.now_us = T0 - (HOURS + KEPT_HOURS + 2).cast_signed() * HOUR_US;
    (0..HOURS + KEPT_HOURS + 2).for_each(|at| hour(&mut ledger, at));
    let since = ledger.now_us;
    let records: Vec<Record> = happened()
        .into_iter()
        .map(|record| {
            let number = 1_000_000 + record.sequence.unwrap().number;
            Record { sequence: Some(Sequence::new(2, number)), ..record }
        })
        .collect();
    let store = filled(dir.path(), &records, &[20]);
    forget(&store);
    ledger.cover(&records, 4);
    ledger.put_at(since, "agent", "coverage", row(HOURS * ROWS + 100, since).to_string().as_bytes());
    ledger.put_at(since, "agent", "alert", alert(u64::MAX, since).to_string().as_bytes());
    beats(&mut ledger, 1);
    let found = compare(&store, dir.path());
    let mut named: Vec<_> = found.problems.iter().map(|problem| problem.place.as_str()).collect();
    named.retain(|place| !place.starts_with("coverage row 1"));
    let deleted =
        [format!("alert {}", Uuid::from_u128(u64::MAX.into())), format!("coverage row {}", HOURS * ROWS + 100)];
    assert_eq!(named, deleted, "{found:?}");
    assert_eq!((found.events, found.removed, found.perhaps_removed), (39, HOURS * EVENTS, 0));
    assert_eq!((found.unproven, found.rows_unproven, found.pending), (0, 0, 0));
    assert_eq!(found.removals.len() as u64 + found.further_removals, HOURS);
}

#[test]
fn where_there_are_more_removals_than_are_remembered_nobody_is_accused_and_nothing_is_excused() {
    let judged = |lacks: std::ops::RangeInclusive<u64>| {
        let (dir, mut ledger, records) = covered(4);
        let store = filled(dir.path(), &without(&records, lacks), &[20]);
        ledger.drain(&store);
        let us = ledger.now_us;
        let holes: Vec<_> = std::iter::once((1, 1)).chain((50..300_000).map(|at| (2 * at, 2 * at))).collect();
        for some in holes.chunks(1_000) {
            let payload = json!({ "why": "their size", "before_us": null, "ranges": stretches(some.iter().copied()) });
            ledger.put_at(us, "agent", "events-removed", payload.to_string().as_bytes());
        }
        ledger.entry("procmond", "heartbeat", b"{}");
        compare(&store, dir.path())
    };
    let found = judged(1..=4);
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.removed, found.perhaps_removed, found.unproven, found.events), (0, 4, 4, 35));
    let found = judged(21..=24);
    assert!(found.problems[0].what.contains("older events of its stream are still there"), "{found:?}");
}

#[test]
fn an_entry_of_retention_excuses_no_event_that_was_recorded_after_it() {
    for (why, before_us) in [("their size", None), ("their age", Some(i64::MAX))] {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, records) = (Ledger::new(dir.path()), happened());
        ledger.cover(&records[..4], 4);
        // Whatever will come.
        let all = json!({ "why": why, "before_us": before_us, "ranges": stretches(std::iter::once((1, u64::MAX))) });
        ledger.entry("agent", "events-removed", all.to_string().as_bytes());
        beats(&mut ledger, 60);
        ledger.cover(&records[4..], 4);
        let store = filled(dir.path(), &records[20..], &[10]);
        ledger.drain(&store);
        beats(&mut ledger, 1);
        let found = compare(&store, dir.path());
        let late = found.problems.iter().filter(|problem| problem.what.contains("it was recorded after that"));
        let late: Vec<_> = late.map(|problem| problem.place.as_str()).collect();
        assert_eq!(
            late,
            ["procmond:1:5 to 8", "procmond:1:9 to 12", "procmond:1:13 to 16", "procmond:1:17 to 20"],
            "{found:?}"
        );
    }
}
