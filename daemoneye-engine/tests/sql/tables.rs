//! The tables that a user sees: what they are documented to hold, lifetimes from start to stop, what lived at an instant, and
//! files that others can read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemoneye_engine::ingest;
use daemoneye_engine::sql::{CollectorRow, NoCollectors, QueryEngine, QueryError, QueryLimits, SystemTables, check};
use daemoneye_engine::store::{Store, StoreError, StoreOptions};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::model::SystemInfo;
use daemoneye_lib::proto::{
    CoverageGap, EventType, ProcessEvent, ProcessRecord, QueryRequest, Record, Sequence, StartKind, Value, value::Kind,
};
use daemoneye_lib::tables::TABLES;
use proptest::prelude::*;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

/// 2026-01-31T12:00:00Z.
const NOON_US: i64 = 1_769_860_800_000_000;
const SECOND_US: i64 = 1_000_000;
/// How long a lock may stay held.
const PATIENCE: Duration = Duration::from_secs(30);

fn at(second: i64) -> i64 {
    NOON_US + second * SECOND_US
}

fn process(pid: u32) -> ProcessRecord {
    ProcessRecord {
        entity_id: EntityId::derive("boot", pid, 1).as_bytes().to_vec(),
        pid,
        ppid: Some(1),
        name: format!("p{pid}"),
        command_line: Some(format!("p{pid} --all")),
        ..ProcessRecord::default()
    }
}

fn event(kind: EventType, second: i64, process: ProcessRecord) -> ProcessEvent {
    ProcessEvent {
        event_type: kind.into(),
        time_us: at(second),
        start_kind: StartKind::Exec.into(),
        process: Some(process),
        source: "test".into(),
        ..ProcessEvent::default()
    }
}

fn start(second: i64, pid: u32) -> ProcessEvent {
    event(EventType::Start, second, ProcessRecord { start_time_us: Some(at(second)), ..process(pid) })
}

/// An end as a collector tells it: without what the start has told.
fn stop(second: i64, pid: u32) -> ProcessEvent {
    let told = ProcessRecord { command_line: None, ..process(pid) };
    ProcessEvent {
        exit_code: Some(i32::try_from(pid).unwrap()),
        runtime_ms: Some(1_500),
        end_observed: Some(true),
        ..event(EventType::Stop, second, told)
    }
}

fn records(first: u64, events: &[ProcessEvent]) -> Vec<Record> {
    let one = |(number, event): (u64, &ProcessEvent)| Record {
        sequence: Some(Sequence::new(1, number)),
        topic: "events.process.start".to_owned(),
        time_us: event.time_us,
        payload: event.encode_to_vec().into(),
    };
    (first..).zip(events).map(one).collect()
}

fn append_all(store: &Store, records: &[Record]) {
    store.append(ingest::decode("procmond", records).unwrap()).unwrap();
}

fn append(store: &Store, first: u64, events: &[ProcessEvent]) {
    append_all(store, &records(first, events));
}

/// Opens a store. A program that another test is just starting may hold the lock of the store before for an instant.
fn open(dir: &Path) -> Arc<Store> {
    let began = Instant::now();
    loop {
        match Store::open(StoreOptions::new(dir)) {
            Err(StoreError::InUse { .. }) if began.elapsed() < PATIENCE => std::thread::yield_now(),
            opened => return Arc::new(opened.unwrap()),
        }
    }
}

fn engine(store: &Arc<Store>) -> QueryEngine {
    QueryEngine::new(Arc::clone(store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap()
}

fn shown(value: &Value) -> String {
    match &value.kind {
        None => "NULL".to_owned(),
        Some(Kind::Boolean(value)) => value.to_string(),
        Some(Kind::Integer(value)) => value.to_string(),
        Some(Kind::Real(value)) => value.to_string(),
        Some(Kind::Text(value)) => value.clone(),
        Some(Kind::TimestampUs(value)) => format!("+{}", (value - NOON_US) / SECOND_US),
        Some(Kind::Blob(value)) => hex::encode(value),
    }
}

/// The rows, and why they are not all.
async fn answer(engine: &QueryEngine, sql: &str, params: Vec<Kind>) -> Result<(Vec<String>, Vec<String>), QueryError> {
    let params = params.into_iter().map(|kind| Value { kind: Some(kind) }).collect();
    let request = QueryRequest { sql: sql.to_owned(), params, ..QueryRequest::default() };
    let mut run = engine.query(request, CancellationToken::new()).await?;
    let mut rows = Vec::new();
    while let Some(page) = run.next_page().await? {
        let line = |values: &[Value]| values.iter().map(shown).collect::<Vec<_>>().join("|");
        rows.extend(page.rows.iter().map(|row| line(&row.values)));
    }
    Ok((rows, run.done().completeness.unwrap().degraded))
}

async fn rows(store: &Arc<Store>, sql: &str) -> Vec<String> {
    let (rows, degraded) = answer(&engine(store), sql, Vec::new()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(degraded, Vec::<String>::new(), "{sql}");
    rows
}

#[tokio::test]
async fn every_table_has_the_columns_that_are_documented() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[start(0, 1), start(0, 2), stop(1, 1)]);
    store.seal().unwrap();
    let engine = engine(&store);
    for table in TABLES {
        let sql = format!("SELECT * FROM {}", table.name);
        let request = QueryRequest { sql: sql.clone(), ..QueryRequest::default() };
        let run = engine.query(request, CancellationToken::new()).await.unwrap();
        let found: Vec<_> = run.columns().iter().map(|c| (c.name.clone(), c.r#type.clone())).collect();
        let documented = table.columns().map(|column| (column.name.to_owned(), column.kind.sql().to_owned()));
        assert_eq!(found, documented.collect::<Vec<_>>(), "{}", table.name);
        let listed = format!("SELECT name, type FROM columns WHERE table_name = '{}' ORDER BY position", table.name);
        let listed = rows(&store, &listed).await;
        assert_eq!(listed, found.iter().map(|(name, kind)| format!("{name}|{kind}")).collect::<Vec<_>>());
    }
    let tables = rows(&store, "SELECT name FROM tables").await;
    assert_eq!(tables, TABLES.iter().map(|table| table.name).collect::<Vec<_>>());
    let bare = "SELECT count(*) FROM columns WHERE meaning = '' OR example = '' OR meaning IS NULL OR example IS NULL";
    assert_eq!(rows(&store, bare).await, ["0"]);
    let units = "SELECT unit FROM columns WHERE table_name = 'process_lifetimes' AND name IN ('runtime_ms', 'max_memory_usage')";
    assert_eq!(rows(&store, units).await, ["ms", "bytes"]);
    let without = "SELECT count(*) FILTER (WHERE unit IS NULL) > 0, count(*) FILTER (WHERE unit = '') FROM columns";
    assert_eq!(rows(&store, without).await, ["true|0"]);
}

const LIFETIMES: &str = "SELECT pid, start_time, stop_time, end_observed, runtime_ms, exit_code, command_line, \
                         max_cpu_usage, max_memory_usage FROM process_lifetimes ORDER BY pid";

#[tokio::test]
async fn a_process_is_one_row_from_its_start_to_its_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut busy = start(1, 7);
    let sampled = |cpu, memory, mut event: ProcessEvent| {
        let process = event.process.as_mut().unwrap();
        (process.cpu_usage, process.memory_usage) = (Some(cpu), Some(memory));
        event
    };
    busy = sampled(80.0, 1_000, busy);
    append(&store, 1, &[busy, start(2, 8)]);
    let living = ["7|+1|NULL|NULL|NULL|NULL|p7 --all|80|1000", "8|+2|NULL|NULL|NULL|NULL|p8 --all|NULL|NULL"];
    assert_eq!(rows(&store, LIFETIMES).await, living);
    store.seal().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(rows(&store, LIFETIMES).await, living, "an open lifetime survives a restart");
    append(&store, 3, &[sampled(2.0, 5_000, stop(4, 7))]);
    let over = ["7|+1|+4|true|1500|7|p7 --all|80|5000", "8|+2|NULL|NULL|NULL|NULL|p8 --all|NULL|NULL"];
    for told in ["in memory", "in a file", "after a restart"] {
        assert_eq!(rows(&store, LIFETIMES).await, over, "{told}");
        store.seal().unwrap();
    }
    drop(store);
    assert_eq!(rows(&open(dir.path()), LIFETIMES).await, over);
    let offline = Arc::new(Store::open_offline(dir.path()).unwrap());
    assert_eq!(rows(&offline, LIFETIMES).await, over);
    let joined = "SELECT e.event_type, l.exit_code FROM process_events e JOIN process_lifetimes l USING (entity_id) \
                  WHERE l.name = 'p7' ORDER BY e.seq";
    assert_eq!(rows(&offline, joined).await, ["start|7", "stop|7"]);
}

/// What the lifetimes say, by pid: (stop or nothing, exit code or nothing).
async fn by_pid(store: &Arc<Store>) -> BTreeMap<String, Vec<String>> {
    let mut by_pid = BTreeMap::new();
    for row in rows(store, "SELECT pid, stop_time, exit_code FROM process_lifetimes").await {
        let (pid, rest) = row.split_once('|').unwrap();
        by_pid.entry(pid.to_owned()).or_insert_with(Vec::new).push(rest.to_owned());
    }
    by_pid
}

/// Processes 1, 2, 3, … start one after the other; each ends six events later.
fn story(length: u32) -> Vec<ProcessEvent> {
    let one = |number: u32| {
        let (second, pid) = (i64::from(number), number.div_ceil(2));
        if number % 2 == 1 {
            start(second, pid)
        } else if pid > 3 {
            stop(second, pid - 3)
        } else {
            event(EventType::Modify, second, process(pid))
        }
    };
    (1..=length).map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_of_replays_seals_and_kills_leaves_one_lifetime_for_each_process(
        steps in prop::collection::vec((0_u32..40, 1_u32..30, 0_u8..4), 1..10)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut store = open(dir.path());
        let mut highest = 0;
        for (back, length, then) in steps {
            // A collector replays from anywhere at or before the next position, never from beyond it.
            let first = (highest + 1_u32).saturating_sub(back).max(1);
            let last = first + length - 1;
            let story = story(last);
            let from = usize::try_from(first - 1).unwrap();
            append(&store, u64::from(first), &story[from..]);
            highest = highest.max(last);
            if then == 1 {
                store.seal().unwrap();
            }
            if then == 2 {
                // Nothing is sealed at this end: it is as good as a kill.
                drop(store);
                store = open(dir.path());
                highest = u32::try_from(store.committed("procmond").map_or(0, |at| at.number)).unwrap();
            }
        }
        let mut expected = BTreeMap::new();
        for event in story(highest) {
            let pid = event.process.as_ref().unwrap().pid;
            let row = match event.exit_code {
                Some(code) => format!("+{}|{code}", (event.time_us - NOON_US) / SECOND_US),
                None => "NULL|NULL".to_owned(),
            };
            expected.insert(pid.to_string(), vec![row]);
        }
        prop_assert_eq!(&runtime.block_on(by_pid(&store)), &expected);
        store.seal().unwrap();
        prop_assert_eq!(&runtime.block_on(by_pid(&store)), &expected);
    }
}

#[tokio::test]
async fn who_ended_while_nobody_watched_ends_once_its_stream_has_no_more_to_tell() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[start(1, 1), start(2, 2), start(3, 3)]);
    store.seal().unwrap();
    // The collector is at 5 and knows of 3 alone; the end of 1 is still on its way, that of 2 was never told.
    store.reset_live("procmond", vec![process(3)], Sequence::new(1, 5)).unwrap();
    let count = "SELECT pid FROM process_lifetimes WHERE stop_time IS NULL";
    assert_eq!(
        (rows(&store, count).await, rows(&store, "SELECT pid FROM processes").await),
        (vec!["3".into()], vec!["3".into()])
    );
    append(&store, 4, &[stop(9, 1), event(EventType::Modify, 9, process(3))]);
    let ends = "SELECT pid, end_observed, exit_code, stop_time > start_time FROM process_lifetimes ORDER BY pid";
    assert_eq!(rows(&store, ends).await, ["1|true|1|true", "2|false|NULL|true", "3|NULL|NULL|NULL"]);
}

#[tokio::test]
async fn an_end_that_is_told_once_more_after_a_restart_makes_no_second_lifetime() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[start(1, 1), start(2, 2), stop(3, 1)]);
    store.seal().unwrap();
    drop(store);
    let store = open(dir.path());
    // A collector that lost its memory in a power failure tells under new numbers what it finds.
    append(&store, 4, &[stop(9, 1), stop(9, 2)]);
    let told = "SELECT pid, stop_time FROM process_lifetimes ORDER BY pid";
    assert_eq!(rows(&store, told).await, ["1|+3", "2|+9"]);
    store.seal().unwrap();
    assert_eq!(rows(&store, told).await, ["1|+3", "2|+9"]);
}

#[tokio::test]
async fn an_instant_shows_who_lived_then() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[start(0, 1), start(10, 2), stop(20, 1)]);
    store.seal().unwrap();
    append(&store, 4, &[start(30, 3), stop(40, 2), start(50, 4)]);
    let lived = |instant: &str| format!("SELECT pid FROM processes_at('{instant}') ORDER BY pid");
    for (instant, expected) in [
        ("2026-01-31T12:00Z", vec!["1"]),
        ("2026-01-31 12:00:15", vec!["1", "2"]),
        ("2026-01-31T13:00:19.999999+01:00", vec!["1", "2"]),
        ("2026-01-31T12:00:20Z", vec!["2"]),
        ("2026-01-31T12:00:35Z", vec!["2", "3"]),
        ("2026-01-31T12:00:45Z", vec!["3"]),
        ("2026-02-01", vec!["3", "4"]),
    ] {
        assert_eq!(rows(&store, &lived(instant)).await, expected, "{instant}");
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM processes_at('now')", "2"),
        ("SELECT count(*) FROM processes_at('2026-01-31T12:01Z', '-45 seconds') AS p", "2"),
        (
            "SELECT string_agg(b.name, ',' ORDER BY b.name) FROM processes_at('2026-01-31T12:00:15Z') a \
             FULL JOIN processes_at('2026-01-31T12:00:35Z') AS b ON a.entity_id = b.entity_id WHERE a.pid IS NULL",
            "p3",
        ),
        (
            "WITH then AS (SELECT * FROM processes_at('2026-01-31T12:00:15Z')) SELECT max(processes_at.pid) FROM processes_at('now'), then",
            "4",
        ),
    ] {
        assert_eq!(rows(&store, sql).await, [expected], "{sql}");
    }
    let engine = engine(&store);
    let bound = "SELECT pid FROM processes_at($1) WHERE pid < $2";
    for instant in [Kind::Text("2026-01-31T12:00:15Z".into()), Kind::TimestampUs(at(15))] {
        let (rows, _) = answer(&engine, bound, vec![instant, Kind::Integer(2)]).await.unwrap();
        assert_eq!(rows, ["1"]);
    }
    for now in ["now", " NOW "] {
        let (rows, _) = answer(&engine, bound, vec![Kind::Text(now.into()), Kind::Integer(4)]).await.unwrap();
        assert_eq!(rows, ["3"], "{now}");
    }
}

#[tokio::test]
async fn a_time_that_is_none_is_refused_where_it_stands() {
    for (sql, column, message) in [
        ("SELECT * FROM processes_at('gestern')", 28, "'gestern' is no time"),
        ("SELECT * FROM processes_at('2026-13-31')", 28, "'2026-13-31' is no time"),
        ("SELECT * FROM processes_at('2999-01-01')", 28, "'2999-01-01' lies in the future"),
        ("SELECT * FROM processes_at('now', '+1 day')", 28, "'now', '+1 day' lies in the future"),
        ("SELECT * FROM processes_at('2999-01-01', '-1 day')", 28, "lies in the future"),
        ("SELECT * FROM processes_at('now', 'start of day', '+2 days')", 28, "lies in the future"),
        ("SELECT * FROM processes_at('now', 'yesterday')", 35, "processes_at does not know the modifier yesterday"),
        ("SELECT * FROM processes_at()", 15, "processes_at needs a time"),
        ("SELECT * FROM processes_at", 15, "processes_at needs a time"),
        ("SELECT * FROM processes_at(1769860800)", 28, "a time as text"),
        ("SELECT * FROM processes_at(now())", 28, "nothing that is calculated"),
        ("SELECT * FROM processes_at('now' || '')", 28, "nothing that is calculated"),
        ("SELECT * FROM processes_at((SELECT max(time) FROM alerts))", 29, "nothing that is calculated"),
        ("SELECT * FROM processes_at($1, 'start of day')", 28, "a time as text, or one parameter"),
        ("SELECT * FROM processes_at($0)", 28, "$0 is not a parameter"),
        ("SELECT * FROM process_lifetimes('now')", 15, "in FROM is not accepted"),
        ("SELECT * FROM public.processes_at('now')", 15, "in FROM is not accepted"),
        ("SELECT * FROM generate_series(1, 9)", 15, "in FROM is not accepted"),
        ("SELECT processes_at('now')", 8, "there is no function processes_at"),
    ] {
        let refusal = check(sql).err().unwrap_or_else(|| panic!("accepted: {sql}"));
        assert!(refusal.message.contains(message), "{sql}: {refusal}");
        assert_eq!((refusal.line, refusal.column), (1, column), "{sql}: {refusal}");
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&open(dir.path()));
    let sql = "SELECT * FROM processes_at($1)";
    for (value, message) in [
        (Kind::Text("gestern".into()), "$1: 'gestern' is no time"),
        (Kind::TimestampUs(i64::MAX), "$1: the time lies in the future"),
        (Kind::Integer(5), "$1: processes_at takes a time"),
    ] {
        let error = answer(&engine, sql, vec![value]).await.unwrap_err();
        let refusal = error.refusal().unwrap_or_else(|| panic!("{error}"));
        assert_eq!((refusal.message.as_str(), refusal.column), (message, 28));
    }
}

async fn lacks(store: &Arc<Store>, sql: &str) -> Vec<String> {
    answer(&engine(store), sql, Vec::new()).await.unwrap().1
}

#[tokio::test]
async fn an_instant_in_a_gap_or_before_the_beginning_is_degraded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.put_system_info(&SystemInfo { time_us: at(0), ..host() }).unwrap();
    append(&store, 1, &[start(1, 1), stop(2, 1)]);
    let gap = CoverageGap {
        collector: "procmond".into(),
        reason: "kernel_lost".into(),
        from_us: at(100),
        to_us: at(110),
        ..CoverageGap::default()
    };
    store.add_coverage(gap).unwrap();
    for (second, expected) in
        [(-60, vec!["collector_unavailable"]), (1, vec![]), (99, vec![]), (105, vec!["events_shed"]), (112, vec![])]
    {
        let time = jiff::Timestamp::from_microsecond(at(second)).unwrap();
        assert_eq!(lacks(&store, &format!("SELECT * FROM processes_at('{time}')")).await, expected, "{second}");
    }
    assert_eq!(lacks(&store, "SELECT * FROM process_lifetimes").await, ["events_shed"]);
}

fn host() -> SystemInfo {
    SystemInfo {
        time_us: 0,
        hostname: "host".into(),
        os_name: "Linux".into(),
        os_version: "6".into(),
        architecture: "x86_64".into(),
        cpu_cores: 1,
        total_memory_bytes: 1,
        uptime_s: 1,
        boot_id: "b".into(),
        capabilities: Vec::new(),
    }
}

#[tokio::test]
async fn lifetimes_go_with_the_retention_and_an_instant_before_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3_600);
    let store = Arc::new(Store::open(StoreOptions { retention: hour, ..StoreOptions::new(dir.path()) }).unwrap());
    append(&store, 1, &[start(0, 1), start(1, 2), stop(60, 1)]);
    store.seal().unwrap();
    append(&store, 4, &[stop(7_000, 2), start(7_001, 3)]);
    store.seal().unwrap();
    let expired = store.expire(at(7_200)).unwrap();
    assert_eq!((expired.segments, expired.rows), (2, 4), "three events and one lifetime");
    assert_eq!(rows(&store, "SELECT pid FROM process_lifetimes ORDER BY pid").await, ["2", "3"]);
    let told = "SELECT reason, from_time, to_time, count FROM coverage WHERE reason = 'lifetimes_retention'";
    assert_eq!(rows(&store, told).await, ["lifetimes_retention|+60|+60|1"]);
    assert_eq!(lacks(&store, "SELECT * FROM processes_at('2026-01-31T12:00:30Z')").await, ["capped"]);
    assert_eq!(
        rows(&store, "SELECT pid FROM processes_at('2026-01-31T12:10Z')").await,
        ["2"],
        "nobody is missing then"
    );
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.coverage().unwrap().iter().filter(|row| row.gap.reason == "segments_unregistered").count(), 0);
}

/// An agent that keeps a health document.
#[derive(Debug)]
struct Healthy;

impl SystemTables for Healthy {
    fn collectors(&self) -> Vec<CollectorRow> {
        Vec::new()
    }

    fn health(&self) -> Option<serde_json::Value> {
        let sinks = serde_json::json!([
            { "name": "file", "delivered": 3, "failed": 0 },
            { "name": "stdout", "delivered": 5, "failed": null },
        ]);
        Some(serde_json::json!({ "ingest": { "rows": 91 }, "sinks": sinks }))
    }
}

#[tokio::test]
async fn metrics_are_the_numbers_of_health() {
    let dir = tempfile::tempdir().unwrap();
    let engine = QueryEngine::new(open(dir.path()), QueryLimits::default(), Arc::new(Healthy)).unwrap();
    let sql = "SELECT name, subject, kind, unit, value FROM metrics ORDER BY name, subject";
    let (rows, _) = answer(&engine, sql, Vec::new()).await.unwrap();
    let expected = [
        "daemoneye_alert_deliveries_total|file|counter|alerts|3",
        "daemoneye_alert_deliveries_total|stdout|counter|alerts|5",
        "daemoneye_alert_delivery_failures_total|file|counter|attempts|0",
        "daemoneye_alert_delivery_failures_total|stdout|counter|attempts|NULL",
        "daemoneye_events_total|NULL|counter|events|91",
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(lacks(&store, "SELECT * FROM audit_entries").await, ["data_unreadable"]);
    std::fs::create_dir(dir.path().join("audit")).unwrap();
    assert_eq!(rows(&store, "SELECT count(*) FROM audit_entries").await, ["0"]);
}

#[tokio::test]
async fn an_end_that_was_merged_is_not_told_twice_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[start(1, 1), start(2, 2), stop(3, 1)]);
    store.seal().unwrap();
    append(&store, 4, &[start(4, 3), stop(5, 3)]);
    store.seal().unwrap();
    assert!(store.vacuum(at(60), &CancellationToken::new()).unwrap().merges > 0);
    assert_eq!(store.snapshot().lifetimes.iter().map(|file| file.level).collect::<Vec<_>>(), [2]);
    drop(store);
    let store = open(dir.path());
    append(&store, 6, &[stop(9, 1), stop(9, 3)]);
    assert_eq!(
        rows(&store, "SELECT pid, stop_time FROM process_lifetimes ORDER BY pid").await,
        ["1|+3", "2|NULL", "3|+5"]
    );
}

#[tokio::test]
async fn ingest_goes_on_while_the_live_processes_are_read_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let starts: Vec<ProcessEvent> = (1..=3_000).map(|pid| start(1, pid)).collect();
    append(&store, 1, &starts);
    let living = store.live().unwrap();
    let mut batches = living.processes();
    let first = batches.next().unwrap().unwrap();
    assert!(first.num_rows() < 3_000, "a bounded number at a time");
    append(&store, 3_001, &[stop(2, 1), start(2, 4_000)]);
    let rest: usize = batches.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(first.num_rows() + rest, 3_000, "as they were when it began");
    assert_eq!(rows(&store, "SELECT count(*) FROM processes").await, ["3000"]);
    assert_eq!(rows(&store, "SELECT count(*) FROM process_lifetimes").await, ["3001"]);
}

#[tokio::test]
async fn live_processes_are_paid_for_from_the_memory_of_queries() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let starts: Vec<ProcessEvent> = (1..=3_000).map(|pid| start(1, pid)).collect();
    append(&store, 1, &starts);
    for (memory_bytes, degraded) in [(64 * 1024 * 1024, vec![]), (64 * 1024, vec!["capped".to_owned()])] {
        let limits = QueryLimits { memory_bytes, ..QueryLimits::default() };
        let engine = QueryEngine::new(Arc::clone(&store), limits, Arc::new(NoCollectors)).unwrap();
        for table in ["processes", "process_lifetimes"] {
            let (_, told) = answer(&engine, &format!("SELECT pid FROM {table}"), Vec::new()).await.unwrap();
            assert_eq!(told, degraded, "{table} in {memory_bytes} bytes");
        }
    }
}
