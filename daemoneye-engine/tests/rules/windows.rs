//! Window rules: what each kind finds, what is refused, and that nothing depends on how events are cut into batches.

mod gates;

use std::collections::BTreeSet;
use std::path::Path;

use daemoneye_engine::RecordBatch;
use daemoneye_engine::detect::{GRACE_US, LoadedRule, Refusal, RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json, row_to_json};
use daemoneye_engine::sql::{check, evaluate};
use daemoneye_engine::store::{AlertFilter, RuleMatch, Store, StoreOptions};
use daemoneye_lib::model::{Completeness, Degraded, RuleKind};
use daemoneye_lib::proto::Sequence;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const ID: &str = "7e8a0a3e-2f5d-4c6e-9d0f-1a2b3c4d5e6f";
/// 2026-01-31T12:00:00Z
const T0: i64 = 1_769_860_800_000_000;

fn yaml(sql: &str, more: &str) -> String {
    let sql = sql.lines().map(|line| format!("  {line}\n")).collect::<String>();
    format!("id: {ID}\nname: a rule\nseverity: low\n{more}sql: |\n{sql}")
}

fn parse(sql: &str, more: &str) -> Result<LoadedRule, Vec<Refusal>> {
    rules::parse(Path::new("pack/rule.yaml"), &yaml(sql, more))
}

fn set(sql: &str, more: &str) -> RuleSet {
    let rule = parse(sql, more).unwrap_or_else(|problems| panic!("{sql}: {problems:?}"));
    assert_eq!(rule.rule.kind, RuleKind::Window, "{sql}");
    let (set, refusals) = RuleSet::compile(vec![rule]);
    assert!(refusals.is_empty(), "{refusals:?}");
    set
}

fn refused(sql: &str) -> Refusal {
    parse(sql, "").unwrap_err().remove(0)
}

/// An event `at` seconds after the start; `seq` is its place among the others.
fn event(at: f64, name: &str, user: &str, pid: i64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "seconds of a test")]
    let time = T0 + (at * 1e6) as i64;
    json!({"time": time, "event_type": "start", "start_kind": "exec", "name": name, "user": user, "pid": pid,
        "collector": "test", "epoch": 1})
}

fn rows(events: &[Value]) -> RecordBatch {
    let numbered = events.iter().enumerate().map(|(at, event)| {
        let mut row: Map<String, Value> = event.as_object().unwrap().clone();
        row.insert("seq".to_owned(), json!(at + 1));
        row.insert("entity_id".to_owned(), json!(format!("{:032x}", at + 1)));
        row
    });
    batch_from_json(&numbered.collect::<Vec<_>>()).unwrap()
}

fn batch(rows: RecordBatch) -> EventBatch {
    let at = Sequence { epoch: 1, number: 1 };
    EventBatch { batch: rows, collector: "test".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() }
}

/// The matches of events in batches of these sizes, the last size for the rest, and of the time after them.
fn matches(set: &RuleSet, rows: &RecordBatch, sizes: &[usize]) -> Vec<RuleMatch> {
    let (mut from, mut found, complete) = (0, Vec::new(), Completeness::complete());
    let mut sizes = sizes.iter().copied();
    let mut size = rows.num_rows();
    while from < rows.num_rows() {
        size = sizes.next().unwrap_or(size).clamp(1, rows.num_rows() - from);
        found.extend(set.evaluate(&batch(rows.slice(from, size)), &complete));
        from += size;
    }
    found.extend(set.advance(i64::MAX));
    found
}

/// What was found: the answer's row and the position of the event that completed it.
fn told(found: &[RuleMatch]) -> Vec<String> {
    let seq = |found: &RuleMatch| {
        let events = daemoneye_engine::ingest::row_to_json(&found.batch, found.row);
        events["seq"].clone()
    };
    found.iter().map(|found| format!("{} {}", seq(found), Value::Object(found.output().into_owned()))).collect()
}

fn found(sql: &str, events: &[Value]) -> Vec<String> {
    told(&matches(&set(sql, ""), &rows(events), &[]))
}

const MANY: &str = "SELECT user, count(*) AS n FROM process_events
WHERE name = 'ssh' AND time > now() - INTERVAL '1 minute'
GROUP BY user HAVING count(*) >= 3";

#[test]
fn an_aggregate_finds_the_group_that_reaches_its_number_within_the_window() {
    let events = [
        event(0.0, "ssh", "root", 1),
        event(10.0, "ssh", "alice", 2),
        event(20.0, "ssh", "root", 3),
        event(30.0, "cat", "root", 4),
        event(59.0, "ssh", "root", 5),
        // The first two of root are too old by now.
        event(100.0, "ssh", "root", 6),
        event(130.0, "ssh", "alice", 7),
    ];
    assert_eq!(found(MANY, &events), [r#"5 {"n":3,"user":"root"}"#]);
}

#[test]
fn the_file_may_bound_what_the_select_does_not() {
    let sql =
        "SELECT user, count(DISTINCT name) AS n FROM process_events GROUP BY user HAVING count(DISTINCT name) > 2";
    let events = [
        event(0.0, "a", "root", 1),
        event(20.0, "b", "root", 2),
        event(40.0, "c", "root", 3),
        event(200.0, "d", "root", 4),
    ];
    let set = set(sql, "window: 1m\n");
    assert_eq!(told(&matches(&set, &rows(&events), &[])), [r#"3 {"n":3,"user":"root"}"#]);
}

#[test]
fn the_file_may_bound_what_the_select_rounds() {
    let sql = "SELECT user, count(*) AS n FROM process_events WHERE name = 'su' AND time::date = now()::date
GROUP BY user HAVING count(*) >= 2";
    let events = [event(0.0, "su", "root", 1), event(3_600.0, "su", "root", 2), event(86_400.0, "su", "root", 3)];
    let found = matches(&set(sql, "window: 1d\n"), &rows(&events), &[]);
    assert_eq!(told(&found), [r#"2 {"n":2,"user":"root"}"#], "the third is of the next day");
}

const BURST: &str = "SELECT user, count(*) AS n FROM process_events
WHERE name = 'ssh' AND time > now() - INTERVAL '10 seconds'
GROUP BY user HAVING count(*) >= 10";

#[test]
fn rows_that_wait_for_the_tick_are_decided_as_of_their_own_time() {
    let root = |at: f64| event(at, "ssh", "root", 1);
    let mut events: Vec<Value> = (0..9).map(|at| root(f64::from(at))).collect();
    events.push(root(9.95));
    assert_eq!(found(BURST, &events), [r#"10 {"n":10,"user":"root"}"#], "at the tick the first is too old");
    // The first goes out of sight between the one that completes the group and the last of its second.
    let mut events: Vec<Value> = (0..9).map(|at| root(f64::from(at) + 0.2)).collect();
    events.extend((0..8).map(|at| event(10.0 + f64::from(at) / 100.0, "ssh", "alice", 2)));
    events.extend([root(10.1), event(10.5, "ssh", "alice", 2)]);
    for sizes in [vec![], vec![1], vec![18, 1]] {
        let found = matches(&set(BURST, ""), &rows(&events), &sizes);
        assert_eq!(told(&found), [r#"18 {"n":10,"user":"root"}"#], "{sizes:?}");
    }
}

#[test]
fn a_summary_counts_every_group_that_one_run_finds() {
    let mut events: Vec<Value> = (0..8).map(|at| event(0.01 * f64::from(at), "ssh", "root", 1)).collect();
    let users: Vec<String> = (0..50).map(|user| format!("user{user}")).collect();
    let second = |at: f64| move |user: &String| event(at, "ssh", user, 2);
    events.extend(users.iter().map(second(0.5)));
    // The last of each group come in another order than the first.
    events.extend(users.iter().rev().map(second(0.6)));
    let sql = MANY.replace(">= 3", "= 2");
    let found = matches(&set(&sql, ""), &rows(&events), &[]);
    let seqs: Vec<String> = told(&found).iter().map(|told| told.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!((seqs.len(), seqs.last().unwrap().as_str()), (51, "108"));
    assert!(seqs.is_sorted_by_key(|seq| seq.parse::<u64>().unwrap()), "{seqs:?}");
    let store = Store::in_memory(StoreOptions { rate_per_rule: 1, ..StoreOptions::new("nowhere") }).unwrap();
    store.commit_matches(found).unwrap();
    let mut counts: Vec<u64> =
        store.alerts(&AlertFilter::default()).unwrap().iter().map(|alert| alert.count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 50], "one alert, and the summary of the others");
}

const SEQUENCE: &str = "SELECT a.name AS first, b.name AS second, b.pid AS pid FROM process_events a
JOIN process_events b ON b.user = a.user AND b.time BETWEEN a.time AND a.time + INTERVAL '10 seconds'
WHERE a.name = 'curl' AND b.name = 'sh'";

#[test]
fn a_sequence_is_a_self_join_in_the_order_of_time() {
    let events = [
        event(0.0, "sh", "root", 1),
        event(1.0, "curl", "root", 2),
        event(2.0, "sh", "alice", 3),
        event(3.0, "sh", "root", 4),
        event(20.0, "sh", "root", 5),
    ];
    let found = matches(&set(SEQUENCE, ""), &rows(&events), &[]);
    assert_eq!(told(&found), [r#"4 {"first":"curl","pid":4,"second":"sh"}"#]);
    assert_eq!(found[0].batch.num_rows(), 2, "both events stand behind it");
}

const UNANSWERED: &str = "SELECT a.pid AS pid FROM process_events a
LEFT JOIN process_events b ON b.user = a.user AND b.name = 'done' AND b.time BETWEEN a.time AND a.time + INTERVAL '30 seconds'
WHERE a.name = 'begin' AND b.pid IS NULL";

const UNANSWERED_TOO: &str = "SELECT a.pid AS pid FROM process_events a WHERE a.name = 'begin' AND NOT EXISTS (
SELECT 1 FROM process_events b WHERE b.user = a.user AND b.name = 'done'
AND b.time >= a.time AND b.time <= a.time + INTERVAL '30 seconds')";

/// The same entry is there in one place and absent in another.
const UNANSWERED_ENTRY: &str = "WITH named AS (SELECT * FROM process_events), ended AS (SELECT user, pid, time AS at FROM named WHERE name = 'done')
SELECT a.pid AS pid FROM named AS a
LEFT JOIN ended ON ended.user = a.user AND ended.at BETWEEN a.time AND a.time + INTERVAL '30 seconds'
WHERE a.name = 'begin' AND ended.pid IS NULL";

const UNANSWERED_DERIVED: &str = "SELECT a.pid AS pid FROM process_events a
LEFT JOIN (SELECT d.user, d.pid, d.time FROM process_events d WHERE d.name = 'done') b
ON b.user = a.user AND b.time BETWEEN a.time AND a.time + INTERVAL '30 seconds'
WHERE a.name = 'begin' AND b.pid IS NULL";

#[test]
fn an_absence_is_decided_when_its_window_and_the_grace_period_are_over() {
    let events = [
        event(0.0, "begin", "root", 1),
        event(1.0, "begin", "alice", 2),
        event(29.0, "done", "root", 3),
        event(33.0, "other", "root", 4),
        event(40.0, "begin", "root", 5),
        event(71.0, "done", "root", 6),
    ];
    for sql in [UNANSWERED, UNANSWERED_TOO, UNANSWERED_ENTRY, UNANSWERED_DERIVED] {
        let (set, rows, complete) = (set(sql, ""), rows(&events), Completeness::complete());
        let early = set.evaluate(&batch(rows.slice(0, 4)), &complete);
        assert!(early.is_empty(), "{sql}: {:?}", told(&early));
        let late = set.evaluate(&batch(rows.slice(4, 1)), &complete);
        assert_eq!(told(&late), [r#"2 {"pid":2}"#], "{sql}");
        assert!(set.evaluate(&batch(rows.slice(5, 1)), &complete).is_empty(), "its wait is not over");
        assert!(set.advance(T0 + 74_000_000).is_empty(), "{sql}");
        assert_eq!(told(&set.advance(T0 + 75_000_000)), [r#"5 {"pid":5}"#], "time alone decides it");
        assert!(set.advance(i64::MAX).is_empty(), "once");
    }
}

#[test]
fn a_window_function_counts_within_the_window() {
    let sql = "SELECT user, pid FROM (SELECT user, pid, row_number() OVER (PARTITION BY user ORDER BY time) AS nth
FROM process_events WHERE name = 'su' AND time > now() - INTERVAL '1 minute') AS q WHERE nth = 3";
    let events: Vec<Value> =
        [(0.0, "root"), (1.0, "alice"), (2.0, "root"), (3.0, "root"), (70.0, "root"), (71.0, "root")]
            .iter()
            .zip(1..)
            .map(|((at, user), pid)| event(*at, "su", user, pid))
            .collect();
    assert_eq!(found(sql, &events), [r#"4 {"pid":4,"user":"root"}"#]);
}

#[test]
fn subqueries_with_entries_and_unions_are_window_rules_too() {
    let events = [event(0.0, "a", "root", 1), event(1.0, "b", "root", 2), event(2.0, "b", "alice", 3)];
    let within = "time > now() - INTERVAL '1 minute'";
    for sql in [
        format!("SELECT pid FROM process_events WHERE name = 'b' AND {within} AND user IN (SELECT user FROM process_events WHERE name = 'a' AND {within})"),
        format!("WITH f AS (SELECT user, time FROM process_events WHERE name = 'a' AND {within}) SELECT e.pid FROM process_events e JOIN f ON f.user = e.user WHERE e.name = 'b' AND e.{within}"),
        "SELECT e.pid FROM process_events e WHERE e.name = 'b' AND EXISTS (SELECT 1 FROM process_events f WHERE f.name = 'a' AND f.user = e.user AND e.time - f.time < INTERVAL '10 seconds' AND f.time <= e.time)".to_owned(),
    ] {
        assert_eq!(found(&sql, &events), [r#"2 {"pid":2}"#], "{sql}");
    }
    let both = format!(
        "SELECT user, count(DISTINCT what) AS n FROM (SELECT user, 'a' AS what FROM process_events WHERE name = 'a' AND {within} \
         UNION ALL SELECT user, 'b' AS what FROM process_events WHERE name = 'b' AND {within}) AS q GROUP BY user HAVING count(DISTINCT what) = 2"
    );
    assert_eq!(found(&both, &events), [r#"2 {"n":2,"user":"root"}"#]);
    let once = format!(
        "SELECT DISTINCT user FROM process_events WHERE name = 'b' AND {within} AND pid IN (SELECT max(pid) FROM process_events WHERE {within})"
    );
    assert_eq!(found(&once, &events), [r#"2 {"user":"root"}"#, r#"3 {"user":"alice"}"#]);
}

#[test]
fn time_that_is_not_bounded_is_refused_with_what_to_write() {
    for (sql, what) in [
        ("SELECT count(*) AS n FROM process_events", "nothing says how far back process_events is looked at"),
        ("SELECT user FROM process_events WHERE name = 'x' GROUP BY user", "nothing says how far back"),
        ("SELECT a.pid FROM process_events a JOIN process_events b ON a.ppid = b.pid", "nothing says how far back a"),
        ("SELECT a.pid FROM process_events a JOIN process_events b ON b.time > a.time", "nothing says how far back a"),
        (
            "SELECT a.pid FROM process_events a LEFT JOIN process_events b ON b.ppid = a.pid AND b.time > a.time WHERE b.pid IS NULL",
            "nothing says until when b is waited for",
        ),
        (
            "WITH f AS (SELECT user FROM process_events WHERE time > now() - INTERVAL '1 minute') SELECT e.pid FROM process_events e LEFT JOIN f ON f.user = e.user WHERE e.time > now() - INTERVAL '1 minute'",
            "nothing says until when process_events is waited for",
        ),
        (
            "SELECT user FROM process_events WHERE name = 'x' OR time > now() - INTERVAL '1 minute' GROUP BY user",
            "nothing says how far back",
        ),
        (
            "SELECT a.pid FROM process_events a LEFT JOIN process_events b ON b.pid = a.pid AND a.time > now() - INTERVAL '1 minute' GROUP BY a.pid",
            "nothing says",
        ),
        // What is rounded to days may be a day away.
        ("SELECT user FROM process_events WHERE time::date = now()::date GROUP BY user", "nothing says how far back"),
        (
            "SELECT user FROM process_events WHERE time::date >= (now() - INTERVAL '1 day')::date GROUP BY user",
            "nothing says how far back",
        ),
    ] {
        let refusal = refused(sql);
        assert!(refusal.message.contains(what), "{sql}: {refusal}");
        assert!(refusal.hint.as_deref().is_some_and(|hint| hint.contains("INTERVAL '5 minutes'")), "{refusal}");
        assert!(refusal.line == 5 && refusal.column > 3, "{refusal}");
    }
}

#[test]
fn what_a_window_rule_cannot_be_is_refused_by_name() {
    for (sql, what) in [
        ("SELECT count(*) AS n FROM processes", "a rule reads process_events only, and this is processes"),
        (
            "SELECT user, count(*) FROM process_events WHERE time > now() - INTERVAL '1 minute' GROUP BY user ORDER BY 1",
            "ORDER BY",
        ),
        ("SELECT a.pid FROM process_events a FULL JOIN process_events b ON a.time = b.time", "FULL JOIN"),
        ("SELECT pid FROM process_events EXCEPT SELECT pid FROM process_events", "EXCEPT"),
        ("SELECT nmae, count(*) FROM process_events GROUP BY nmae", "nmae"),
        ("SELECT a.pid, b.pid FROM process_events a JOIN process_events b ON a.time = b.time", "returns pid twice"),
        ("SELECT count(*) AS n FROM process_events WHERE time > current_date", "current_date"),
        (
            "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 day' GROUP BY user HAVING count(*) > 32768",
            "counts more events than the 32768 that are kept for it",
        ),
        (
            "SELECT count(*) AS n FROM process_events WHERE name = 'hb' AND time > now() - INTERVAL '1 minute' HAVING count(*) = 0",
            "holds where there is no event",
        ),
        (
            "SELECT count(*) AS n FROM process_events WHERE name = 'hb' AND time > now() - INTERVAL '1 minute' HAVING count(*) < 3",
            "holds where there is no event",
        ),
        (
            "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' \
             AND CAST(split_part(command_line, ' ', 2) AS BIGINT) > 3 GROUP BY user HAVING count(*) >= 2",
            "fails for text that is none",
        ),
        (
            "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' AND pid / ppid > 3 \
             GROUP BY user HAVING count(*) >= 2",
            "is 0",
        ),
        (
            "SELECT a.pid FROM process_events a WHERE a.time > now() - INTERVAL '1 minute' \
             AND a.pid = (SELECT b.pid FROM process_events b WHERE b.time > now() - INTERVAL '1 minute')",
            "more than one row",
        ),
    ] {
        let refusal = refused(sql);
        assert!(refusal.message.contains(what), "{sql}: {refusal}");
    }
}

#[test]
fn what_could_fail_is_written_so_that_no_event_makes_it() {
    for sql in [
        "SELECT count(*) AS n FROM process_events WHERE name = 'hb' AND time > now() - INTERVAL '1 minute' \
         HAVING count(*) < 3 AND count(*) > 0",
        "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' \
         AND TRY_CAST(split_part(command_line, ' ', 2) AS BIGINT) > 3 GROUP BY user HAVING count(*) >= 2",
        "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' \
         AND pid / nullif(ppid, 0) > 3 AND pid % 2 = 0 GROUP BY user HAVING count(*) >= 2",
        "SELECT a.pid FROM process_events a WHERE a.time > now() - INTERVAL '1 minute' \
         AND a.pid = (SELECT max(b.pid) FROM process_events b WHERE b.time > now() - INTERVAL '1 minute')",
    ] {
        assert!(parse(sql, "").is_ok(), "{sql}: {:?}", parse(sql, "").err());
    }
}

#[test]
fn a_rule_over_a_column_that_nobody_fills_counts_that_it_could_not_look() {
    let window = "SELECT user, count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' AND pid > 0 \
                  GROUP BY user HAVING count(*) >= 2";
    for (sql, evaluations) in [("SELECT pid FROM process_events WHERE executable_hash = 'x'", 1), (window, 1)] {
        let (set, _) = RuleSet::compile(vec![parse(sql, "").unwrap()]);
        let id = set.stats()[0].rule.id;
        let degraded = |marked: &[uuid::Uuid]| {
            set.mark_blind(&marked.iter().copied().collect());
            let before = set.stats()[0].degraded;
            let events = [event(1.0, "a", "u", 1), event(1.5, "a", "u", 2)];
            drop(set.evaluate(&batch(rows(&events)), &Completeness::complete()));
            set.stats()[0].degraded - before
        };
        assert_eq!(degraded(&[]), 0, "{sql}");
        assert!(degraded(&[id]) >= evaluations, "{sql}");
        assert_eq!(degraded(&[]), 0, "{sql}");
    }
}

#[test]
fn every_way_to_bound_time_is_understood() {
    for condition in [
        "time > now() - INTERVAL '5 minutes'",
        "now() - INTERVAL '5 minutes' <= time",
        "now() - time < INTERVAL '300 seconds'",
        "time > datetime('now', '-5 minutes')",
        "time BETWEEN now() - INTERVAL '1 day' AND now()",
        "(time + INTERVAL '5 minutes') > now()",
        "name = 'x' AND (time >= now() - INTERVAL '5 minutes')",
    ] {
        let sql = format!("SELECT user, count(*) AS n FROM process_events WHERE {condition} GROUP BY user");
        parse(&sql, "").unwrap_or_else(|problems| panic!("{condition}: {problems:?}"));
    }
    // The distance to one that is bounded bounds the other.
    let chain = "SELECT count(*) AS n FROM process_events a JOIN process_events b ON b.time >= a.time - INTERVAL '1 minute' \
                 WHERE a.time > now() - INTERVAL '1 minute'";
    parse(chain, "").unwrap();
}

#[test]
fn what_tells_matches_apart_is_what_the_rule_groups_by() {
    let identity = |sql: &str| parse(sql, "").unwrap().rule.dedup.clone();
    let within = "time > now() - INTERVAL '1 minute'";
    assert_eq!(identity(MANY), ["user"]);
    assert_eq!(identity(&format!("SELECT count(*) AS n FROM process_events WHERE {within}")), ["rule"]);
    assert!(identity(SEQUENCE).is_empty());
    let named = parse(SEQUENCE, "dedup: [second]\n").unwrap();
    assert_eq!(named.rule.dedup, ["second"]);
    assert!(parse(SEQUENCE, "dedup: [third]\n").unwrap_err()[0].message.contains("no column third"));
}

#[test]
fn forks_are_seen_by_those_who_ask_for_them() {
    let mut events = vec![event(0.0, "x", "root", 1), event(1.0, "x", "root", 2)];
    events[0]["start_kind"] = json!("fork");
    let sql = "SELECT count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' HAVING count(*) >= 1";
    assert_eq!(found(sql, &events), [r#"2 {"n":1}"#]);
    let asks = "SELECT count(start_kind) AS n FROM process_events WHERE time > now() - INTERVAL '1 minute' HAVING count(*) >= 2";
    assert_eq!(found(asks, &events), [r#"2 {"n":2}"#]);
}

#[test]
fn what_comes_after_the_grace_period_is_counted_and_degrades() {
    let set = set(MANY, "");
    let mut events: Vec<Value> = (0..3).map(|at| event(f64::from(at), "ssh", "root", 1)).collect();
    events.push(event(20.0, "ssh", "alice", 1));
    let found = matches(&set, &rows(&events), &[]);
    assert!(found.iter().all(|found| found.completeness.is_complete()));
    let late = event(20.0 - 1.0 - GRACE_US as f64 / 1e6, "ssh", "root", 9);
    let after = rows(&[&events[..], &[late]].concat());
    let found = set.evaluate(&batch(after.slice(4, 1)), &Completeness::complete());
    assert_eq!(found[0].completeness.degraded, [Degraded::Late]);
    let stats = set.stats().remove(0);
    assert_eq!(stats.window.unwrap().late, 1);
    assert!(stats.degraded >= 1);
}

#[test]
fn a_clock_that_was_ahead_blinds_no_rule_once_it_is_right_again() {
    let mut events = vec![event(9e6, "ssh", "root", 1)];
    events.extend((0..40).map(|at| event(f64::from(at), "ssh", "root", 1)));
    let rows = rows(&events);
    for sizes in [vec![], vec![1], vec![7, 30]] {
        let found = matches(&set(MANY, ""), &rows, &sizes);
        assert_eq!(told(&found).first().unwrap(), r#"19 {"n":3,"user":"root"}"#, "{sizes:?}");
        assert_eq!(found[0].completeness.degraded, [Degraded::Late]);
    }
}

#[test]
fn more_rows_than_a_rule_may_keep_are_shed_oldest_first_and_told() {
    let set =
        set("SELECT count(*) AS n FROM process_events WHERE time > now() - INTERVAL '1 hour' AND name = 'a'", "");
    let events: Vec<Value> = (0..40_000).map(|at| event(f64::from(at) / 1e4, "a", "root", 1)).collect();
    let found = matches(&set, &rows(&events), &[]);
    let window = set.stats().remove(0).window.unwrap();
    assert!(window.shed > 0 && window.kept_rows + window.shed == 40_000, "{window:?}");
    assert!(window.kept_bytes <= 8 * 1024 * 1024);
    assert_eq!(found.last().unwrap().completeness.degraded, [Degraded::Capped]);
}

#[test]
fn a_gap_degrades_what_looks_back_over_it_and_no_more() {
    let (set, rows) = (
        set(MANY, ""),
        rows(&[
            event(0.0, "ssh", "root", 1),
            event(1.0, "ssh", "root", 1),
            event(2.0, "ssh", "root", 1),
            event(200.0, "ssh", "root", 1),
            event(201.0, "ssh", "root", 1),
            event(202.0, "ssh", "root", 1),
        ]),
    );
    let mut lacking = Completeness::complete();
    lacking.degrade(Degraded::EventsShed);
    let first = set.evaluate(&batch(rows.slice(0, 3)), &lacking);
    assert_eq!(first[0].completeness.degraded, [Degraded::EventsShed]);
    let second = set.evaluate(&batch(rows.slice(3, 3)), &Completeness::complete());
    assert!(second[0].completeness.is_complete());
}

#[test]
fn a_reload_keeps_the_rows_of_a_rule_that_did_not_change() {
    let events = rows(&[event(0.0, "ssh", "root", 1), event(1.0, "ssh", "root", 1), event(2.0, "ssh", "root", 1)]);
    let (before, after) = (set(MANY, ""), set(MANY, ""));
    assert!(before.evaluate(&batch(events.slice(0, 2)), &Completeness::complete()).is_empty());
    after.continue_counters_of(&before);
    assert_eq!(after.evaluate(&batch(events.slice(2, 1)), &Completeness::complete()).len(), 1);
    assert_eq!(after.stats()[0].evaluations, 3);
    let changed = set(&MANY.replace(">= 3", ">= 2"), "");
    changed.continue_counters_of(&after);
    assert_eq!(changed.stats()[0].evaluations, 0);
}

#[test]
fn a_restart_reads_what_a_rule_looks_back_over_and_finds_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let complete = Completeness::complete();
    let rows = rows(&[
        event(0.0, "ssh", "alice", 1),
        event(1.0, "ssh", "root", 2),
        event(2.0, "cat", "root", 3),
        event(3.0, "ssh", "root", 4),
        event(4.0, "ssh", "root", 5),
        event(5.0, "ssh", "alice", 6),
        event(6.0, "ssh", "alice", 7),
    ]);
    let first = set(MANY, "");
    assert!(first.lacks_past());
    let alerts = |set: &RuleSet, from: usize, rows_taken: usize| {
        let taken = batch(rows.slice(from, rows_taken));
        let at = |row: usize| Sequence { epoch: 1, number: u64::try_from(row).unwrap() };
        let taken = EventBatch { first: at(from + 1), last: at(from + rows_taken), ..taken };
        let alerts = store.commit_matches(set.evaluate(&taken, &complete)).unwrap();
        store.append(taken).unwrap();
        alerts
    };
    assert!(alerts(&first, 0, 3).is_empty());
    store.seal().unwrap();
    assert_eq!(alerts(&first, 3, 3).len(), 1);
    // Some of it is sealed, some in memory only.
    let second = set(MANY, "");
    let filling = second.fill(&store);
    assert!(!second.lacks_past());
    second.catch_up(&store, filling);
    let asked = || second.stats()[0].rows;
    assert_eq!((second.stats()[0].window.unwrap().kept_rows, asked()), (5, 0), "it was asked about none of them");
    let alerts = alerts(&second, 6, 1);
    assert_eq!(asked(), 1);
    assert_eq!(alerts.len(), 1, "what the first set found is there already: {alerts:?}");
    assert_eq!(alerts[0].row["user"], "alice");
    assert_eq!(store.alerts(&AlertFilter::default()).unwrap().len(), 2);
}

#[test]
fn old_events_that_came_last_do_not_take_the_place_of_the_youngest_in_a_rules_past() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let mut events = vec![event(0.0, "ssh", "alice", 1)];
    events.extend([1_000.0, 1_001.0].map(|at| event(at, "ssh", "root", 1)));
    // Their file begins later than the first and ends before the youngest.
    events.extend((0..20).map(|at| event(100.0 + f64::from(at), "ssh", "alice", 1)));
    events.extend([990.0, 1_002.0].map(|at| event(at, "ssh", "root", 1)));
    let rows = rows(&events);
    for (from, taken) in [(0, 3), (3, 21)] {
        let at = |row: usize| Sequence { epoch: 1, number: u64::try_from(row).unwrap() };
        let some = batch(rows.slice(from, taken));
        store.append(EventBatch { first: at(from + 1), last: at(from + taken), ..some }).unwrap();
        store.seal().unwrap();
    }
    let set = set(&MANY.replace(">= 3", ">= 4"), "");
    let filling = set.fill(&store);
    set.catch_up(&store, filling);
    assert_eq!(set.stats()[0].window.unwrap().kept_rows, 3, "what it looks back over and no more");
    let found = set.evaluate(&batch(rows.slice(24, 1)), &Completeness::complete());
    assert_eq!(told(&found), [r#"25 {"n":4,"user":"root"}"#]);
    assert!(found[0].completeness.is_complete());
}

#[test]
fn what_the_store_gets_while_a_rule_is_filled_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let rows = rows(&(0..9).map(|at| event(f64::from(at), "ssh", "root", 1)).collect::<Vec<_>>());
    let append = |from: usize, taken: usize| {
        let at = |row: usize| Sequence { epoch: 1, number: u64::try_from(row).unwrap() };
        let batch = EventBatch { first: at(from + 1), last: at(from + taken), ..batch(rows.slice(from, taken)) };
        store.append(batch).unwrap();
    };
    append(0, 2);
    store.seal().unwrap();
    append(2, 2);
    let set = set(MANY, "");
    let filling = set.fill(&store);
    let kept = || set.stats()[0].window.unwrap().kept_rows;
    assert_eq!(kept(), 4);
    append(4, 2);
    // What was in memory when the first part was read lies in a file together with what was not.
    store.seal().unwrap();
    append(6, 3);
    set.catch_up(&store, filling);
    assert_eq!(kept(), 9);
}

#[test]
fn an_event_ahead_of_the_clock_counts_as_of_now_and_blinds_no_rule() {
    let sql = "SELECT user, count(*) AS n FROM process_events WHERE name = 'ssh' AND time > now() - INTERVAL '1 day'
GROUP BY user HAVING count(*) >= 20";
    let set = set(sql, "");
    let mut events = vec![event(3.0 * 3_600.0, "ssh", "alice", 1)];
    events.extend((1..40).map(|at| event(f64::from(at), "ssh", "root", 1)));
    let rows = rows(&events);
    let mut found = Vec::new();
    for at in 0..rows.num_rows() {
        let now = T0 + i64::try_from(at).unwrap() * 1_000_000;
        set.set_clock(now, now);
        found.extend(set.evaluate(&batch(rows.slice(at, 1)), &Completeness::complete()));
    }
    assert!(!found.is_empty(), "its tick is one of now");
    assert_eq!(found[0].completeness.degraded, [Degraded::Late]);
    assert_eq!(set.stats()[0].window.unwrap().ahead, 1);
}

#[test]
fn a_clock_that_is_set_back_takes_the_time_that_events_have_reached_with_it() {
    let set = set(UNANSWERED, "");
    let rows = rows(&[event(7_200.0, "begin", "alice", 1), event(0.0, "begin", "root", 2)]);
    set.set_clock(T0 + 7_200_000_000, T0 + 7_200_000_000);
    assert!(set.evaluate(&batch(rows.slice(0, 1)), &Completeness::complete()).is_empty());
    set.set_clock(T0, T0);
    assert!(set.evaluate(&batch(rows.slice(1, 1)), &Completeness::complete()).is_empty());
    set.set_clock(T0 + 60_000_000, T0 + 60_000_000);
    let found = set.advance(T0 + 50_000_000);
    assert_eq!(found.len(), 2, "two hours are not waited for");
}

#[test]
fn matches_beyond_what_one_run_hands_on_come_with_the_next() {
    let names = (0..40).map(|pid| (0.5, "curl", pid)).chain((40..80).map(|pid| (0.9, "sh", pid)));
    let events: Vec<Value> = names.map(|(at, name, pid)| event(at, name, "root", pid)).collect();
    let sql = SEQUENCE.replace("SELECT a.name", "SELECT a.pid AS other, a.name");
    let set = set(&sql, "");
    let found = matches(&set, &rows(&events), &[]);
    let all: std::collections::BTreeSet<String> = told(&found).into_iter().collect();
    assert_eq!((found.len(), all.len()), (1_600, 1_600));
    assert_eq!(found.last().unwrap().completeness.degraded, [Degraded::Capped]);
}

#[test]
fn a_table_without_events_keeps_no_rule_from_finding_what_does_not_need_it() {
    let events = [event(0.0, "b", "alice", 1)];
    let within = "time > now() - INTERVAL '1 minute'";
    let other = format!("SELECT user FROM process_events WHERE name = 'a' AND {within}");
    for sql in [
        format!(
            "SELECT e.pid FROM process_events e WHERE e.name = 'b' AND e.{within} AND (e.user = 'alice' OR e.user IN ({other}))"
        ),
        format!(
            "WITH f AS ({other}) SELECT pid FROM process_events WHERE name = 'b' AND {within} AND (user = 'alice' OR user IN (SELECT user FROM f))"
        ),
        "WITH f AS (SELECT user, time FROM process_events WHERE name = 'a') SELECT e.pid FROM process_events e \
         LEFT JOIN f ON f.user = e.user AND f.time BETWEEN e.time AND e.time + INTERVAL '9 seconds' WHERE e.name = 'b'"
            .to_owned(),
        format!(
            "SELECT pid FROM process_events WHERE name = 'b' AND {within} UNION SELECT pid FROM process_events WHERE name = 'a' AND {within}"
        ),
        format!(
            "SELECT e.pid FROM process_events e WHERE e.name = 'b' AND e.{within} AND NOT EXISTS (SELECT 1 FROM process_events f WHERE f.user = e.user AND f.name = 'a' AND f.time BETWEEN e.time AND e.time + INTERVAL '2 seconds')"
        ),
        format!(
            "SELECT e.pid FROM process_events e WHERE e.name = 'b' AND e.{within} AND (SELECT count(*) FROM process_events f WHERE f.name = 'a' AND f.{within}) = 0"
        ),
    ] {
        assert_eq!(found(&sql, &events), [r#"1 {"pid":1}"#], "{sql}");
    }
    let needed =
        format!("SELECT e.pid FROM process_events e WHERE e.name = 'b' AND e.{within} AND e.user IN ({other})");
    assert!(found(&needed, &events).is_empty());
}

#[test]
fn what_finding_and_keeping_rows_costs_is_counted() {
    let set = set(SEQUENCE, "");
    let events: Vec<Value> = (0..500).map(|at| event(f64::from(at) / 100.0, "sh", "root", at.into())).collect();
    assert!(matches(&set, &rows(&events), &[]).is_empty());
    let stats = set.stats().remove(0);
    assert_eq!((stats.rows, stats.window.unwrap().kept_rows), (500, 500));
    assert!(stats.nanoseconds > 0);
}

#[test]
fn a_window_rule_depends_on_the_columns_that_decide_it_and_not_on_those_that_it_returns() {
    let rule = parse(
        "SELECT a.executable_hash AS h, a.cwd, count(*) OVER (PARTITION BY a.user) AS n FROM process_events a WHERE a.product = 'x' AND a.time > now() - INTERVAL '1 minute'",
        "",
    );
    let columns = rule.unwrap().columns();
    for (column, decides) in
        [("executable_hash", false), ("cwd", false), ("user", true), ("product", true), ("time", true)]
    {
        assert_eq!(columns.contains(&column), decides, "{column} of {columns:?}");
    }
}

#[test]
fn the_tests_of_a_file_may_have_several_events() {
    let tests = "tests:\n  - name: three\n    match: true\n    events:\n\
        \u{20}     - {time: 2026-01-31T12:00:00Z, name: ssh, user: root}\n\
        \u{20}     - {time: 2026-01-31T12:00:01Z, name: ssh, user: root}\n\
        \u{20}     - {time: 2026-01-31T12:00:02Z, name: ssh, user: root}\n\
        \u{20} - name: one\n    match: false\n    event: {time: 2026-01-31T12:00:00Z, name: ssh, user: root}\n";
    let rule = parse(MANY, tests).unwrap();
    let report = rules::run_tests(&rule);
    assert!(report.is_ok() && report.passed == 2, "{report:?}");
}

#[test]
fn an_event_without_a_time_before_all_others_fails_no_run_and_is_told() {
    for (sql, last) in [
        (MANY.replace(">= 3", ">= 1"), 1),
        (DENSE.replace(">= 10", ">= 1").replace("1 second", "366 days"), 1),
        ("SELECT pid FROM process_events a WHERE name = 'ssh' AND NOT EXISTS (SELECT 1 FROM process_events b WHERE \
          b.name = 'x' AND b.time BETWEEN a.time AND a.time + INTERVAL '5 seconds')".to_owned(), 2),
    ] {
        let untimed = json!({"name": "ssh", "user": "root", "event_type": "start", "collector": "test", "epoch": 1});
        let set = set(&sql, "");
        let found = matches(&set, &rows(&[untimed, event(1.0, "ssh", "root", 1)]), &[1]);
        assert_eq!(found.len(), last, "{sql}: {:?}", told(&found));
        let told = set.shortfalls();
        assert!(told.len() == 1 && told[0].contains("a rule: 1 events without a time"), "{sql}: {told:?}");
    }
    let tests = "tests:\n  - name: no time\n    match: false\n    events: [{name: ssh, user: root}]\n";
    let failures = rules::run_tests(&parse(MANY, tests).unwrap()).failures;
    assert!(failures.len() == 1 && failures[0].message.contains("1 events without a time"), "{failures:?}");
}

// ---- bursts ---------------------------------------------------------------------------------------------------------

const DENSE: &str = "SELECT user, count(*) AS n FROM process_events
WHERE name = 'ssh' AND time > now() - INTERVAL '1 second'
GROUP BY user HAVING count(*) >= 10";

/// What DataFusion says to all events up to each one: the answer's rows, each with the place of its user's latest event.
fn told_by_looking_at_each(sql: &str, events: &[Value]) -> BTreeSet<String> {
    let (all, mut told) = (rows(events), BTreeSet::new());
    for last in 0..events.len() {
        let us = events[last]["time"].as_i64().unwrap() - T0;
        let (minute, second) = (us / 60_000_000, us / 1_000_000 % 60);
        let now = format!("TIMESTAMP '2026-01-31T12:{minute:02}:{second:02}.{:06}Z'", us % 1_000_000);
        let checked = check(&sql.replace("now()", &now)).unwrap();
        for found in evaluate(&checked, "process_events", vec![all.slice(0, last + 1)]).unwrap() {
            told.extend((0..found.num_rows()).map(|at| {
                let row = row_to_json(&found, at);
                let latest = events[..=last].iter().rposition(|event| event["user"] == row["user"]).unwrap();
                format!("{} {}", latest + 1, Value::Object(row))
            }));
        }
    }
    told
}

fn skipped(set: &RuleSet) -> u64 {
    set.stats()[0].window.unwrap().skipped
}

#[test]
fn where_nobody_waits_no_group_of_a_burst_is_missed() {
    let users =
        (0..20_u32).flat_map(|user| (0..10_u32).map(move |at| (user, f64::from(user) * 0.9 + f64::from(at) * 0.09)));
    let events: Vec<Value> = users.map(|(user, at)| event(at, "ssh", &format!("user{user}"), 1)).collect();
    let expected = (1..=20).map(|user| user * 10);
    let expected: Vec<String> =
        expected.map(|seq| format!(r#"{seq} {{"n":10,"user":"user{}"}}"#, seq / 10 - 1)).collect();
    assert_eq!(told_by_looking_at_each(DENSE, &events), expected.iter().cloned().collect());
    let rows = rows(&events);
    for sizes in [vec![], vec![1], vec![37]] {
        let set = set(DENSE, "");
        let found = matches(&set, &rows, &sizes);
        assert_eq!((told(&found), skipped(&set)), (expected.clone(), 0), "{sizes:?}");
        assert!(found.iter().all(|found| found.completeness.is_complete()) && set.shortfalls().is_empty());
    }
}

fn dense() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec((1_u32..200, 0_usize..3), 20..60).prop_map(|events| {
        let mut now = 0.0;
        let made = events.into_iter().map(|(step, user)| {
            now += f64::from(step) / 1e3;
            event(now, "ssh", ["root", "alice", "bob"][user], 1)
        });
        made.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_dense_burst_is_decided_as_by_looking_at_each_event(events in dense()) {
        let rows = rows(&events);
        // What one more event ends.
        let exact = DENSE.replace(">= 10", "= 3");
        let set_of = set(&exact, "");
        let found: BTreeSet<String> = told(&matches(&set_of, &rows, &[])).into_iter().collect();
        prop_assert_eq!(found, told_by_looking_at_each(&exact, &events));
        prop_assert!(skipped(&set_of) == 0);
        // What more events let stand is decided together in a second, and for each group once.
        let least = DENSE.replace(">= 10", ">= 4");
        let (found, all) = (told(&matches(&set(&least, ""), &rows, &[])), told_by_looking_at_each(&least, &events));
        prop_assert!(found.iter().all(|found| all.contains(found)), "{:?} of {:?}", found, all);
        let parts = |told: &String| {
            let (seq, row) = told.split_once(' ').unwrap();
            let row: Value = serde_json::from_str(row).unwrap();
            (seq.parse::<usize>().unwrap(), row["user"].clone())
        };
        let second = |seq: usize| events[seq - 1]["time"].as_i64().unwrap() / 1_000_000;
        for one in all.iter().map(parts) {
            let is_told = |other: (usize, Value)| other.1 == one.1 && other.0 >= one.0 && second(other.0) == second(one.0);
            prop_assert!(found.iter().map(parts).any(is_told), "{:?} is missing in {:?}", one, found);
        }
    }
}

// ---- batches --------------------------------------------------------------------------------------------------------

fn events() -> impl Strategy<Value = Vec<Value>> {
    let one = (
        0_u32..3_000,
        prop::sample::select(vec!["ssh", "curl", "sh", "begin", "done"]),
        prop::sample::select(vec!["root", "alice"]),
        -4_000_i32..2_000,
    );
    prop::collection::vec(one, 1..120).prop_map(|events| {
        let mut now = 0.0;
        let made = events.into_iter().enumerate().map(|(pid, (step, name, user, skew))| {
            now += f64::from(step) / 1e3;
            // Most come in order, some a little late.
            let at = (now + f64::from(skew.min(0)) / 1e3).max(0.0);
            event(at, name, user, i64::try_from(pid).unwrap())
        });
        made.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn how_events_are_cut_into_batches_changes_nothing(events in events(), sizes in prop::collection::vec(1_usize..20, 1..8)) {
        let rows = rows(&events);
        for sql in [MANY, SEQUENCE, UNANSWERED, UNANSWERED_TOO, UNANSWERED_ENTRY] {
            let whole = told(&matches(&set(sql, ""), &rows, &[]));
            prop_assert_eq!(&told(&matches(&set(sql, ""), &rows, &[1])), &whole, "one by one: {}", sql);
            prop_assert_eq!(&told(&matches(&set(sql, ""), &rows, &sizes)), &whole, "cut: {}", sql);
            prop_assert_eq!(&told(&matches(&set(sql, "").without_prefilter(), &rows, &[])), &whole, "every row: {}", sql);
        }
    }
}
