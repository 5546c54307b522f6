//! What a query may cost: memory, disk, time and a place among the others; and what an answer says about what was cut.

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest;
use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryError, QueryLimits, Scratch};
use daemoneye_engine::store::{Store, StoreOptions};
use daemoneye_lib::proto::{CoverageGap, QueryDone, QueryRequest, Record, Value, value::Kind};
use serde_json::Value as Json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

mod lists;
mod thrift;

/// 2026-01-31T12:00:00Z.
const NOON_US: i64 = 1_769_860_800_000_000;
const MIB: usize = 1024 * 1024;
/// Runs until something else ends it, and comes back between batches.
const ENDLESS: &str = "SELECT count(*) FROM process_events AS a, process_events AS b, process_events AS c \
                       WHERE a.pid + b.pid > c.pid";
/// The same, where nothing ever passes the condition.
const BARREN: &str = "SELECT count(*) FROM process_events AS a JOIN process_events AS b \
                      ON a.command_line || b.command_line ~ 'no such command'";

fn filled(thousands: u64) -> (TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    append(&store, 0, thousands);
    store.seal().unwrap();
    (dir, Arc::new(store))
}

/// Each thousand from a generator of its own, in a later epoch of the same log.
fn append(store: &Store, from: u64, thousands: u64) {
    let mut generator = Generator::new(from + 7, NOON_US);
    let before = appended(store);
    for _ in 0..thousands {
        let mut records = generator.records(1_000);
        go_on(&mut records, from, before);
        store.append(ingest::decode("procmond", &records).unwrap()).unwrap();
    }
}

fn appended(store: &Store) -> u64 {
    let stats = store.stats().unwrap();
    stats.segment_rows + stats.open_rows
}

/// A log's numbers go on over its epochs.
fn go_on(records: &mut [Record], epochs: u64, before: u64) {
    for sequence in records.iter_mut().filter_map(|record| record.sequence.as_mut()) {
        (sequence.epoch, sequence.number) = (sequence.epoch + epochs, sequence.number + before);
    }
}

fn patient() -> QueryLimits {
    QueryLimits { deadline: Duration::from_secs(120), ..QueryLimits::default() }
}

fn engine(store: &Arc<Store>, limits: QueryLimits) -> QueryEngine {
    QueryEngine::new(Arc::clone(store), limits, Arc::new(NoCollectors)).unwrap()
}

fn scratch(store: &Store, quota_bytes: u64) -> Option<Scratch> {
    Some(Scratch { dir: store.dir().join("scratch"), quota_bytes })
}

fn request(sql: &str) -> QueryRequest {
    QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() }
}

struct Answer {
    rows: Vec<Vec<Value>>,
    done: QueryDone,
}

impl Answer {
    fn degraded(&self) -> Vec<String> {
        self.done.completeness.clone().unwrap().degraded
    }

    fn lacks(&self) -> Vec<&str> {
        self.done.lacks.iter().map(|lack| lack.what.as_str()).collect()
    }

    fn explained(&self) -> Json {
        serde_json::from_str(&self.done.explained_json).unwrap()
    }

    fn texts(&self) -> Vec<String> {
        let text = |value: &Value| match &value.kind {
            Some(Kind::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        self.rows.iter().map(|row| text(&row[0])).collect()
    }
}

async fn run(engine: &QueryEngine, request: QueryRequest) -> Result<Answer, QueryError> {
    let mut run = engine.query(request, CancellationToken::new()).await?;
    let mut rows = Vec::new();
    while let Some(page) = run.next_page().await? {
        rows.extend(page.rows.into_iter().map(|row| row.values));
    }
    Ok(Answer { rows, done: run.done() })
}

async fn ask(engine: &QueryEngine, sql: &str) -> Answer {
    let answer = crate::when_free(async || run(engine, request(sql)).await).await;
    answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn one(engine: &QueryEngine, sql: &str) -> Value {
    let answer = ask(engine, sql).await;
    assert_eq!(answer.degraded(), Vec::<String>::new(), "{sql}");
    answer.rows[0][0].clone()
}

fn files_below(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn a_sort_of_whole_rows_is_whole_however_many_a_condition_leaves() {
    let (_dir, store) = filled(16);
    let limits =
        QueryLimits { memory_bytes: 16 * MIB, scratch: scratch(&store, 256 * MIB as u64), threads: 1, ..patient() };
    let engine = engine(&store, limits);
    // All but the first second: a condition that is asked above the scan, which gathers what it leaves.
    let since = "time > TIMESTAMP '2026-01-31T12:00:01Z'";
    let count = format!("SELECT count(*) FROM process_events WHERE {since}");
    let Some(Kind::Integer(all)) = one(&engine, &count).await.kind else { panic!("a count") };
    for rows in (2_000..all).step_by(2_000) {
        for order in ["time", "time, collector, epoch, seq"] {
            let of_rows = format!("(SELECT * FROM process_events WHERE {since} LIMIT {rows}) AS e");
            let sql =
                format!("SELECT *, replace(command_line, 'e', '{:40}') AS long FROM {of_rows} ORDER BY {order}", 'e');
            let answer = ask(&engine, &sql).await;
            assert_eq!((answer.rows.len(), answer.lacks()), (usize::try_from(rows).unwrap(), Vec::new()), "{sql}");
        }
    }
}

#[tokio::test]
async fn rows_that_nothing_orders_leave_the_oldest_first() {
    let (_dir, store) = filled(20);
    append(&store, 1, 1);
    let engine = engine(&store, patient());
    let answer = ask(&engine, "SELECT CAST(epoch AS VARCHAR) FROM process_events").await;
    let epochs = answer.texts();
    assert!(epochs.len() == 21_000 && epochs.is_sorted(), "what is open is newer than what is sealed");
}

#[tokio::test]
async fn a_sort_beyond_the_memory_spills_and_is_right() {
    let (_dir, store) = filled(60);
    const SORTED: &str = "SELECT command_line || '#' || seq FROM process_events ORDER BY command_line DESC, name, seq";
    let enough = engine(&store, patient());
    let expected = ask(&enough, SORTED).await;
    assert_eq!((expected.degraded().len(), expected.rows.len()), (0, 60_000));
    let limits = || QueryLimits { memory_bytes: 6 * MIB, ..patient() };
    let without = ask(&engine(&store, limits()), SORTED).await;
    assert_eq!((without.degraded(), without.rows.len()), (vec!["capped".to_owned()], 0), "memory is short here");
    assert_eq!(without.lacks(), ["memory: it needs more than query.memory_bytes"]);
    let spilling = engine(&store, QueryLimits { scratch: scratch(&store, 256 * MIB as u64), ..limits() });
    let spilled = ask(&spilling, SORTED).await;
    assert_eq!(spilled.degraded(), Vec::<String>::new(), "{:?}", spilled.lacks());
    assert!(spilled.texts() == expected.texts(), "the same rows in the same order");
    let explained = run(&spilling, QueryRequest { explain: true, ..request(SORTED) }).await.unwrap();
    assert!(explained.explained()["spilled"]["bytes"].as_u64().unwrap() > 0, "{}", explained.explained());
    assert_eq!(files_below(&store.dir().join("scratch")), 0, "what was spilled is gone with the query");
}

#[tokio::test]
async fn a_sort_of_all_columns_beyond_the_memory_spills_little_and_is_right() {
    let (_dir, store) = filled(20);
    const SORTED: &str = "SELECT * FROM process_events ORDER BY command_line, seq";
    let expected = ask(&engine(&store, patient()), SORTED).await;
    assert_eq!((expected.degraded().len(), expected.rows.len()), (0, 20_000));
    // The rows are some 25 MiB, and are written twice where memory has room for the merge of two files only.
    for threads in [1, 2] {
        let scratch = scratch(&store, 12 * MIB as u64);
        let limits = QueryLimits { memory_bytes: 8 * MIB, scratch, threads, spread_rows: 0, ..patient() };
        let spilled = ask(&engine(&store, limits), SORTED).await;
        assert_eq!(spilled.degraded(), Vec::<String>::new(), "{:?}", spilled.lacks());
        assert!(spilled.rows == expected.rows, "the same rows in the same order");
    }
}

#[tokio::test]
async fn groups_beyond_the_memory_spill_and_are_right() {
    let (_dir, store) = filled(30);
    const GROUPED: &str = "SELECT max(c) || '' FROM (SELECT command_line || seq AS k, max(command_line) AS c FROM process_events \
                           GROUP BY 1) AS g";
    let limits = QueryLimits { memory_bytes: 4 * MIB, scratch: scratch(&store, 256 * MIB as u64), ..patient() };
    let spilling = engine(&store, limits);
    let spilled = ask(&spilling, GROUPED).await;
    assert_eq!(spilled.degraded(), Vec::<String>::new(), "{:?}", spilled.lacks());
    assert_eq!(spilled.texts(), ask(&engine(&store, patient()), GROUPED).await.texts());
    let explained = run(&spilling, QueryRequest { explain: true, ..request(GROUPED) }).await.unwrap();
    assert!(explained.explained()["spilled"]["files"].as_u64().unwrap() > 0, "{}", explained.explained());
}

#[tokio::test]
async fn what_gathers_many_rows_is_spread_over_threads_and_says_the_same() {
    let (_dir, store) = filled(60);
    let spread = engine(&store, QueryLimits { threads: 2, spread_rows: 0, ..patient() });
    let alone = engine(&store, QueryLimits { threads: 1, ..patient() });
    for sql in [
        "SELECT count(*), max(pid) FROM process_events WHERE command_line LIKE '%_1_%'",
        "SELECT name, event_type, count(*) AS n FROM process_events GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT seq, command_line FROM process_events ORDER BY memory_usage DESC, seq LIMIT 50",
        "SELECT c.name, count(*) FROM process_events AS c JOIN process_events AS p ON c.parent_entity_id = p.entity_id \
         WHERE p.event_type = 'start' AND c.event_type = 'start' GROUP BY 1 ORDER BY 1",
        "SELECT DISTINCT parent_name FROM process_events ORDER BY 1",
        "SELECT count(*), max(l.v) FROM process_events AS a JOIN (SELECT parent_name AS v, seq FROM process_events \
         WHERE event_type = 'start' AND seq < 50) AS l ON l.v = a.parent_name AND l.seq < a.seq",
        "SELECT count(*) FROM process_events AS a WHERE parent_name IN (SELECT name FROM process_events WHERE event_type = 'start')",
        "SELECT count(*) FROM process_events AS a WHERE EXISTS (SELECT 1 FROM process_events AS b WHERE b.name = a.parent_name)",
        "SELECT c.command_line, c.seq FROM process_events AS c JOIN process_events AS p ON c.parent_entity_id = p.entity_id \
         WHERE p.event_type = 'start' AND p.seq < 40 AND c.event_type = 'start' ORDER BY 2",
    ] {
        let (one, two) = (ask(&alone, sql).await, ask(&spread, sql).await);
        assert!(!one.rows.is_empty() && one.degraded().is_empty(), "{sql}");
        assert_eq!((two.degraded(), two.rows), (Vec::new(), one.rows), "{sql}");
    }
}

#[tokio::test]
async fn a_range_of_time_that_cuts_through_files_says_the_same_on_several_threads() {
    let (_dir, store) = filled(20);
    for _ in 0..3 {
        append(&store, 1, 10);
        store.seal().unwrap();
    }
    // Rows that no file has yet are asked too.
    append(&store, 1, 3);
    let spread = engine(&store, QueryLimits { threads: 2, spread_rows: 0, ..patient() });
    let alone = engine(&store, QueryLimits { threads: 1, ..patient() });
    let times = ask(&alone, "SELECT CAST(time AS text) FROM process_events ORDER BY time, seq").await.texts();
    let at = |share: usize| times.get(share * (times.len() - 1) / 100).cloned().unwrap();
    let mut parted = 0;
    for range in [
        format!("time >= '{}'", at(0)),
        format!("time > '{}'", at(0)),
        format!("time < '{}'", at(100)),
        format!("time > '{}' AND time <= '{}'", at(3), at(100)),
        format!("time BETWEEN '{}' AND '{}'", at(41), at(57)),
        format!("'{}' <= time AND time <= '{}'", at(55), at(55)),
        format!("time >= '{}' AND time < '{}'", at(98), at(100)),
        format!("time > '{}'", at(100)),
        format!("(time < '{}' OR time >= '{}') AND NOT time BETWEEN '{}' AND '{}'", at(20), at(60), at(10), at(15)),
        format!("date_part('second', time) < 30 AND NOT (time < '{}')", at(30)),
    ] {
        for sql in [
            format!("SELECT count(*), min(time), max(seq) FROM process_events WHERE {range}"),
            format!("SELECT name, count(*) FROM process_events WHERE {range} GROUP BY 1 ORDER BY 1"),
            format!(
                "SELECT seq, time FROM process_events WHERE {range} AND name = 'bash' ORDER BY memory_usage, seq LIMIT 9"
            ),
            format!(
                "SELECT c.name, count(*) FROM (SELECT * FROM process_events WHERE {range}) AS c \
                 JOIN (SELECT * FROM process_events WHERE {range}) AS p ON c.parent_entity_id = p.entity_id \
                 WHERE p.event_type = 'start' GROUP BY 1 ORDER BY 1",
            ),
        ] {
            let (one, two) = (ask(&alone, &sql).await, ask(&spread, &sql).await);
            assert_eq!((two.degraded(), two.rows), (one.degraded(), one.rows), "{sql}");
            let explained = run(&spread, QueryRequest { explain: true, ..request(&sql) }).await.unwrap().explained();
            // Files inside of the range, files that it cuts through, and rows in memory, of one table.
            parted += usize::from(explained["operators"].to_string().matches("DataSourceExec").count() == 3);
        }
    }
    assert!(parted > 3, "{parted}: what lies inside of the range is not asked");
}

#[tokio::test]
async fn a_condition_of_which_planning_leaves_no_column_is_asked_all_the_same() {
    let (_dir, store) = filled(20);
    append(&store, 1, 1);
    const T: &str = "'2026-01-31T12:00:01Z'";
    for limits in [QueryLimits { threads: 2, spread_rows: 0, ..patient() }, QueryLimits { threads: 1, ..patient() }] {
        let engine = engine(&store, limits);
        for (inner, condition) in [
            ("time AS t, 5 AS x", format!("(t > {T} AND x = 6) IS TRUE")),
            ("time AS t, 5 AS x", format!("(t > {T} AND x = 6) OR (t < {T} AND x = 7)")),
            ("time AS t, CAST(NULL AS TIMESTAMP) AS x", "t > x".to_owned()),
            ("time AS t, NULL AS x", "t = x".to_owned()),
            ("time AS t, NULL AS x", "t > x OR t < x".to_owned()),
            (
                "time AS t, TIMESTAMP '2027-01-01' AS lo, CAST(NULL AS TIMESTAMP) AS hi",
                "t BETWEEN hi AND lo".to_owned(),
            ),
            (
                "time AS t, TIMESTAMP '2026-01-31' AS lo, TIMESTAMP '2026-01-30' AS hi",
                "t BETWEEN lo AND hi".to_owned(),
            ),
        ] {
            let sql = format!("SELECT count(*) FROM (SELECT {inner} FROM process_events) AS d WHERE {condition}");
            assert_eq!(ask(&engine, &sql).await.rows[0][0].kind, Some(Kind::Integer(0)), "{sql}");
        }
        let tagged = format!(
            "SELECT k, count(*) FROM (SELECT time AS t, 'a' AS k FROM process_events UNION ALL SELECT time, 'b' FROM process_events) \
             AS d WHERE (k = 'a' AND t > {T}) OR (k = 'c' AND t <= {T}) GROUP BY k"
        );
        let wanted = ask(&engine, &format!("SELECT 'a', count(*) FROM process_events WHERE time > {T}")).await;
        let tagged = ask(&engine, &tagged).await;
        assert!(tagged.rows == wanted.rows && !wanted.rows.is_empty(), "{:?}", tagged.rows);
    }
}

#[tokio::test]
async fn groups_of_one_column_of_text_are_counted_by_its_dictionary_and_say_the_same() {
    let (_dir, store) = filled(60);
    // Rows that no file has yet are groups too.
    append(&store, 1, 3);
    let spread = engine(&store, QueryLimits { threads: 2, spread_rows: 0, ..patient() });
    let alone = engine(&store, QueryLimits { threads: 1, ..patient() });
    for (by_dictionary, sql) in [
        (true, "SELECT parent_name, count(*), max(memory_usage), min(time) FROM process_events GROUP BY 1 ORDER BY 1"),
        // More groups than are kept, and some whose every row is NULL.
        (
            true,
            "SELECT entity_id, count(exit_code), max(exit_code), avg(pid) FROM process_events GROUP BY 1 ORDER BY 1",
        ),
        (
            true,
            "SELECT exit_code, n FROM (SELECT cwd, max(exit_code) AS exit_code, count(*) AS n FROM process_events \
                GROUP BY cwd) AS g ORDER BY 1, 2",
        ),
        (
            true,
            "SELECT name, count(*) FILTER (WHERE event_type = 'start'), max(executable_path) FROM process_events \
                GROUP BY 1 ORDER BY 1",
        ),
        (false, "SELECT name, count(DISTINCT command_line) FROM process_events GROUP BY 1 ORDER BY 1"),
        (false, "SELECT name, max(name), count(*) FROM process_events GROUP BY 1 ORDER BY 1"),
        (false, "SELECT name, pid, count(*) FROM process_events GROUP BY 1, 2 ORDER BY 1, 2"),
    ] {
        let (one, two) = (ask(&alone, sql).await, ask(&spread, sql).await);
        assert!(!one.rows.is_empty() && one.degraded().is_empty(), "{sql}");
        assert_eq!((two.degraded(), two.rows), (Vec::new(), one.rows), "{sql}");
        let explained = run(&spread, QueryRequest { explain: true, ..request(sql) }).await.unwrap().explained();
        let operators = explained["operators"].to_string();
        assert_eq!(operators.contains("Grouped"), by_dictionary, "{sql}: {operators}");
    }
}

#[tokio::test]
async fn text_that_is_only_compared_is_compared_by_its_dictionary_and_says_the_same() {
    let (_dir, store) = filled(40);
    append(&store, 1, 1);
    let asked = engine(&store, patient());
    let hash =
        ask(&asked, "SELECT executable_hash FROM process_events WHERE executable_hash > '' LIMIT 1").await.texts();
    let hash = format!("executable_hash = '{}'", hash[0]);
    let longer = |condition: &str| condition.replace(" = ", " || '' = ");
    for condition in [
        "name = 'bash'",
        "'bash' = name AND event_type = 'start'",
        "name = 'no such name'",
        "name = 'bash' AND name > 'a' AND command_line LIKE '%a%'",
        hash.as_str(),
        &format!("{hash} AND event_type = 'stop' AND cwd = '/'"),
    ] {
        let rows = |condition: &str| {
            format!("SELECT seq, pid, command_line FROM process_events WHERE {condition} ORDER BY seq, pid")
        };
        let (one, other) = (ask(&asked, &rows(condition)).await, ask(&asked, &rows(&longer(condition))).await);
        assert_eq!((one.degraded(), one.rows), (Vec::new(), other.rows), "{condition}");
    }
}

#[tokio::test]
async fn many_groups_of_a_dictionary_leave_early_when_memory_is_short() {
    let (_dir, store) = filled(60);
    const GROUPED: &str =
        "SELECT count(*), sum(n) FROM (SELECT entity_id, count(*) AS n FROM process_events GROUP BY 1) AS g";
    let expected = ask(&engine(&store, patient()), GROUPED).await;
    let limits = || QueryLimits { memory_bytes: 5 * MIB, threads: 2, spread_rows: 0, ..patient() };
    let spilling = engine(&store, QueryLimits { scratch: scratch(&store, 256 * MIB as u64), ..limits() });
    let answer = ask(&spilling, GROUPED).await;
    assert_eq!((answer.degraded(), answer.rows), (Vec::new(), expected.rows));
}

#[tokio::test]
async fn what_is_too_large_for_several_threads_is_done_by_one() {
    let (_dir, store) = filled(30);
    const GROUPED: &str = "SELECT max(c) || '' FROM (SELECT command_line || seq AS k, max(command_line) AS c FROM process_events \
                           GROUP BY 1) AS g";
    let expected = ask(&engine(&store, patient()), GROUPED).await;
    let scratch = scratch(&store, 256 * MIB as u64);
    let limits = QueryLimits { memory_bytes: 4 * MIB, scratch, threads: 2, spread_rows: 0, ..patient() };
    let answer = ask(&engine(&store, limits), GROUPED).await;
    assert_eq!((answer.degraded(), answer.texts()), (Vec::new(), expected.texts()), "{:?}", answer.lacks());
}

#[tokio::test]
async fn a_spill_beyond_its_quota_is_cut_and_says_so() {
    let (_dir, store) = filled(30);
    let limits = QueryLimits { memory_bytes: 4 * MIB, scratch: scratch(&store, 64 * 1024), ..patient() };
    let engine = engine(&store, limits);
    let answer = ask(&engine, "SELECT command_line, name, seq FROM process_events ORDER BY command_line, seq").await;
    assert_eq!(answer.degraded(), ["capped"], "{:?}", answer.lacks());
    assert_eq!(answer.lacks(), ["scratch: it needs more disk than query.scratch_bytes"]);
    assert_eq!(files_below(&store.dir().join("scratch")), 0);
    assert_eq!(one(&engine, "SELECT count(*) FROM process_events").await.kind, Some(Kind::Integer(30_000)));
    assert_eq!(store.stats().unwrap().damaged_segments, 0, "the disk's quota is not the segment's damage");
}

#[tokio::test]
async fn what_a_killed_agent_left_in_the_scratch_directory_is_removed() {
    let (_dir, store) = filled(1);
    let left = store.dir().join("scratch/datafusion-old");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("rows"), "command lines of somebody").unwrap();
    let engine = engine(&store, QueryLimits { scratch: scratch(&store, MIB as u64), ..patient() });
    assert!(!left.exists());
    drop(engine);
    // Nothing of the store is touched.
    assert_eq!(store.snapshot().segments.len(), 1);
}

#[tokio::test]
async fn work_that_never_yields_ends_with_its_deadline_and_frees_the_thread() {
    let (_dir, store) = filled(20);
    let engine = engine(&store, QueryLimits { concurrent: 1, ..patient() });
    for sql in [
        BARREN,
        "SELECT count(*) FROM process_events AS a WHERE EXISTS (SELECT 1 FROM process_events AS b WHERE a.event_type = b.event_type AND a.seq + b.seq < 0)",
        "SELECT count(*) FROM process_events AS a WHERE NOT EXISTS (SELECT 1 FROM process_events AS b \
         WHERE a.event_type = b.event_type AND a.command_line || b.command_line ~ 'no such command')",
        "SELECT count(*) FROM process_events AS a JOIN process_events AS b \
         ON a.event_type = b.event_type AND a.command_line || b.command_line ~ 'no such command'",
        "SELECT max(s) FROM (SELECT median(seq) OVER (ORDER BY seq ROWS BETWEEN 15000 PRECEDING AND CURRENT ROW) AS s \
         FROM process_events) AS w",
        "SELECT count(*) FROM process_events AS a, process_events AS b WHERE a.command_line LIKE b.command_line || '%x%'",
        "SELECT count(*) FROM process_events AS a, process_events AS b WHERE a.command_line NOT ILIKE '%' || b.name || '%'",
    ] {
        // Time for the plan as well: a deadline that it does not meet ends it before it has begun.
        let hurried = QueryRequest { deadline_ms: Some(3_000), ..request(sql) };
        let answer = run(&engine, hurried).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(answer.degraded(), ["timed_out"], "{sql}");
        assert!(answer.rows.is_empty(), "{sql}");
        // There is one slot, and it is given back on the thread only.
        assert_eq!(one(&engine, "SELECT 1").await.kind, Some(Kind::Integer(1)), "{sql}");
    }
}

#[tokio::test]
async fn what_a_window_makes_is_paid_for() {
    let (_dir, store) = filled(20);
    let engine = engine(&store, patient());
    let long = "x".repeat(32 * 1024);
    for sql in [
        "SELECT max(s) FROM (SELECT string_agg(command_line, ',') OVER (ORDER BY seq) AS s FROM process_events) AS w"
            .to_owned(),
        format!(
            "SELECT max(s) FROM (SELECT lag(name, 15000, '{long}') OVER (ORDER BY seq) AS s FROM process_events) AS w"
        ),
        format!(
            "SELECT count(s) FROM (SELECT max('{long}' || name) OVER (ORDER BY seq) AS s FROM process_events) AS w"
        ),
        format!(
            "SELECT count(s) FROM (SELECT first_value('{long}' || name) OVER (ORDER BY seq) AS s FROM process_events) AS w"
        ),
    ] {
        let answer = ask(&engine, &sql).await;
        assert_eq!((answer.degraded(), answer.rows.len()), (vec!["capped".to_owned()], 0), "{sql:.120}");
    }
    for (sql, expected) in [
        (
            "SELECT count(s) FROM (SELECT lag(name, 1, 'none') IGNORE NULLS OVER (ORDER BY seq) AS s FROM process_events) AS w",
            20_000,
        ),
        (
            "SELECT count(s) FROM (SELECT nth_value(command_line, 1) OVER (ORDER BY seq) AS s FROM process_events) AS w",
            20_000,
        ),
        ("SELECT max(s) FROM (SELECT count(*) OVER (ORDER BY seq ROWS 4 PRECEDING) AS s FROM process_events) AS w", 5),
        (
            "SELECT max(s) FROM (SELECT row_number() OVER (PARTITION BY event_type) AS s FROM process_events WHERE seq < 4) AS w",
            3,
        ),
    ] {
        let answer = ask(&engine, sql).await;
        assert_eq!(answer.degraded(), Vec::<String>::new(), "{sql}");
        assert!(
            matches!(answer.rows[0][0].kind, Some(Kind::Integer(n)) if n <= expected && n > 0),
            "{sql}: {:?}",
            answer.rows
        );
    }
}

#[tokio::test]
async fn rows_that_have_left_a_window_are_paid_for_no_more() {
    let (_dir, store) = filled(60);
    let limits = QueryLimits { memory_bytes: 12 * MIB, scratch: scratch(&store, 64 * MIB as u64), ..patient() };
    let engine = engine(&store, limits);
    let numbered = "SELECT max(n), count(n), max(r) FROM (SELECT row_number() OVER (ORDER BY command_line, seq) AS n, \
                    rank() OVER (ORDER BY command_line, seq) AS r FROM process_events) AS s";
    let answer = ask(&engine, numbered).await;
    assert_eq!(answer.degraded(), Vec::<String>::new(), "{:?}", answer.lacks());
    let rows = Some(Kind::Integer(60_000));
    assert!(answer.rows[0].iter().all(|value| value.kind == rows), "{:?}", answer.rows);
    let first = "SELECT command_line FROM (SELECT command_line, seq, row_number() OVER (ORDER BY command_line DESC, seq) AS n \
                 FROM process_events) AS s WHERE n <= 20 ORDER BY n";
    let sorted = "SELECT command_line FROM process_events ORDER BY command_line DESC, seq LIMIT 20";
    assert_eq!(ask(&engine, first).await.texts(), ask(&engine, sorted).await.texts());
    let summed = "SELECT max(s) FROM (SELECT sum(pid) OVER (ORDER BY seq) AS s FROM process_events) AS w";
    assert_eq!(one(&engine, summed).await, one(&engine, "SELECT sum(pid) FROM process_events").await);
}

#[tokio::test]
async fn many_large_patterns_are_refused_before_they_fill_the_memory() {
    let (_dir, store) = filled(1);
    let engine = engine(&store, patient());
    let large: Vec<String> = (0..40).map(|at| format!(r"name ~ '(\w{{30}}){{3}}{at}'")).collect();
    let sql = format!("SELECT count(*) FROM process_events WHERE {}", large.join(" OR "));
    let error = run(&engine, request(&sql)).await.err().unwrap();
    assert!(matches!(error, QueryError::Planning(_)) && error.to_string().contains("patterns"), "{error:?}");
    let small: Vec<String> = (0..100).map(|at| format!("name ~ '^no{at}$'")).collect();
    let sql = format!("SELECT count(*) FROM process_events WHERE {}", small.join(" OR "));
    assert_eq!(one(&engine, &sql).await.kind, Some(Kind::Integer(0)));
}

#[tokio::test]
async fn three_at_once_are_two_and_one_that_is_told_so() {
    let (_dir, store) = filled(5);
    let engine = engine(&store, patient());
    let first = engine.query(request(ENDLESS), CancellationToken::new()).await.unwrap();
    let second = engine.query(request(BARREN), CancellationToken::new()).await.unwrap();
    let hurried = QueryRequest { deadline_ms: Some(50), ..request("SELECT 1") };
    let error = run(&engine, hurried).await.err().unwrap();
    assert!(matches!(error, QueryError::Busy { running: 2, .. }), "{error:?}");
    drop(first);
    let third = ask(&engine, "SELECT 3").await;
    assert_eq!(third.rows[0][0].kind, Some(Kind::Integer(3)), "beside the second");
    drop(second);
}

#[tokio::test]
async fn an_export_whose_reader_has_stopped_ends_degraded_and_frees_its_slot() {
    let (_dir, store) = filled(20);
    let engine = engine(&store, QueryLimits { reader_wait: Duration::from_millis(20), concurrent: 1, ..patient() });
    let all = request("SELECT * FROM process_events");
    let mut stopped = engine.export(all, CancellationToken::new()).await.unwrap();
    assert_eq!(one(&engine, "SELECT 1").await.kind, Some(Kind::Integer(1)), "there is one slot");
    let mut rows = 0;
    while let Some(page) = stopped.next_page().await.unwrap() {
        rows += page.rows.len();
    }
    assert!(rows > 0 && rows < 20_000, "{rows}");
    let done = stopped.done();
    assert_eq!(done.rows, rows as u64, "what was not handed out is not counted");
    assert_eq!(done.completeness.clone().unwrap().degraded, ["timed_out"]);
    assert!(done.lacks[0].what.starts_with("reader: "), "{:?}", done.lacks);
}

#[tokio::test]
async fn two_queries_take_turns_inside_a_nested_loop() {
    let (_dir, store) = filled(20);
    let engine = engine(&store, patient());
    let cancel = CancellationToken::new();
    let mut barren = engine.query(request(BARREN), cancel.clone()).await.unwrap();
    for _ in 0..3 {
        let count = "SELECT count(*) FROM process_events WHERE command_line ~ '.'";
        assert_eq!(one(&engine, count).await.kind, Some(Kind::Integer(20_000)));
    }
    cancel.cancel();
    assert_eq!(barren.next_page().await, Err(QueryError::Cancelled), "it ran all the while");
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_slot_and_the_memory() {
    let (_dir, store) = filled(20);
    // Sorting takes more than half of it.
    let limits = QueryLimits { memory_bytes: 12 * MIB, concurrent: 1, ..patient() };
    let engine = engine(&store, limits);
    let greedy = "SELECT name, executable_path, command_line, seq FROM process_events ORDER BY command_line, seq";
    assert_eq!(ask(&engine, greedy).await.degraded(), Vec::<String>::new(), "it fits alone");
    for sql in [greedy, ENDLESS, BARREN] {
        let left = QueryRequest { page_rows: 1, ..request(sql) };
        drop(engine.query(left, CancellationToken::new()).await.unwrap());
        let answer = ask(&engine, greedy).await;
        assert_eq!((answer.degraded().len(), answer.rows.len()), (0, 20_000), "after {sql}");
        let cancel = CancellationToken::new();
        let mut run = engine.query(request(sql), cancel.clone()).await.unwrap();
        cancel.cancel();
        while let Ok(Some(_)) = run.next_page().await {}
        let answer = ask(&engine, greedy).await;
        assert_eq!((answer.degraded().len(), answer.rows.len()), (0, 20_000), "after {sql}");
    }
}

#[tokio::test]
async fn ingest_goes_on_while_queries_explode() {
    let (_dir, store) = filled(10);
    let engine = engine(&store, QueryLimits { concurrent: 3, ..patient() });
    let cancel = CancellationToken::new();
    let mut running = Vec::new();
    for sql in [ENDLESS, BARREN] {
        running.push(engine.query(request(sql), cancel.clone()).await.unwrap());
    }
    for batch in 1..=20 {
        append(&store, batch, 1);
        if batch % 5 == 0 {
            store.seal().unwrap();
        }
        let seen = one(&engine, "SELECT count(*) FROM process_events").await.kind;
        assert_eq!(seen, Some(Kind::Integer(10_000 + 1_000 * i64::try_from(batch).unwrap())), "each batch as it came");
    }
    #[cfg(target_os = "linux")]
    assert!(query_threads_are_nice(), "they would take what ingest wants");
    let committed = store.committed("procmond").unwrap();
    assert!(committed.epoch > 20, "the collector may trim up to {committed:?}");
    assert_eq!(store.snapshot().segments.iter().map(|segment| segment.rows).sum::<u64>(), 30_000);
    cancel.cancel();
    for run in &mut running {
        assert_eq!(run.next_page().await, Err(QueryError::Cancelled), "it ran all the while");
    }
    assert_eq!(one(&engine, "SELECT count(*) FROM process_events").await.kind, Some(Kind::Integer(30_000)));
}

/// Whether the threads of queries are there, each with a lowered priority.
#[cfg(target_os = "linux")]
fn query_threads_are_nice() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.join("stat")).ok());
    let of_queries: Vec<String> = stats.filter(|stat| stat.contains("(sql-query")).collect();
    // The nineteenth field of stat; the name ends with the last parenthesis.
    let niceness = |stat: &String| stat.rsplit(") ").next()?.split(' ').nth(16)?.parse::<i32>().ok();
    !of_queries.is_empty() && of_queries.iter().all(|stat| niceness(stat) > Some(0))
}

#[tokio::test]
async fn a_time_before_the_host_was_watched_is_not_an_empty_one() {
    let (_dir, store) = filled(1);
    let engine = engine(&store, patient());
    for table in ["process_events", "process_lifetimes"] {
        let before = ask(&engine, &format!("SELECT count(*) FROM {table} WHERE time < '2020-01-01'")).await;
        assert_eq!(before.degraded(), ["collector_unavailable"], "{table}");
        let lack = &before.done.lacks[0];
        assert_eq!(lack.from_us, 0, "it has no beginning: {lack:?}");
        assert!((NOON_US..NOON_US + 1_000_000).contains(&lack.to_us), "{table}: {lack:?}");
        let all = ask(&engine, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(all.degraded(), Vec::<String>::new(), "{table}");
    }
}

#[tokio::test]
async fn an_answer_names_what_it_lacks_and_when() {
    let (_dir, store) = filled(2);
    append(&store, 1, 1);
    store.seal().unwrap();
    let range = |gap: (i64, i64), reason: &str| CoverageGap {
        collector: "procmond".to_owned(),
        reason: reason.to_owned(),
        from_us: NOON_US + gap.0 * 1_000_000,
        to_us: NOON_US + gap.1 * 1_000_000,
        count: Some(120),
        detail: "the bus was slow".to_owned(),
        ..CoverageGap::default()
    };
    store.add_coverage(range((0, 1), "shed")).unwrap();
    store.add_coverage(range((-100, -50), "retention")).unwrap();
    let engine = engine(&store, QueryLimits { row_cap: 10, ..patient() });
    let lost = store.snapshot().segments[0].clone();
    std::fs::remove_file(&lost.path).unwrap();
    let answer = ask(&engine, "SELECT seq FROM process_events WHERE time > '2026-01-31T11:58:20Z'").await;
    let file = lost.path.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        answer.lacks(),
        [
            "shed: 120 events of procmond (the bus was slow)",
            "retention: events up to then were deleted because of their age or size",
            &format!("segment {file} with 2000 rows is damaged or missing"),
            "rows: only the first 10",
        ]
    );
    let when: Vec<(i64, i64)> = answer.done.lacks.iter().map(|lack| (lack.from_us, lack.to_us)).collect();
    assert_eq!(when[0], (NOON_US, NOON_US + 1_000_000));
    assert_eq!((when[1].1, when[2]), (NOON_US - 50_000_000, (lost.first_us, lost.last_us)));
    assert_eq!(answer.degraded(), ["capped", "data_unreadable", "events_shed"]);
    assert_eq!((answer.done.segments, answer.done.segments_read), (2, 1));
    let alone = ask(&engine, "SELECT 1").await;
    assert!(alone.done.lacks.is_empty() && alone.done.segments == 0);
}

#[tokio::test]
async fn explain_tells_what_was_read_and_sends_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
    append(&store, 0, 2);
    store.seal().unwrap();
    let mut later = Generator::new(9, NOON_US + 86_400_000_000);
    let mut records = later.records(1_000);
    go_on(&mut records, 1, appended(&store));
    store.append(ingest::decode("procmond", &records).unwrap()).unwrap();
    store.seal().unwrap();
    append(&store, 2, 1);
    let engine = engine(&store, patient());
    let sql = "SELECT name, count(*) FROM process_events WHERE time >= '2026-02-01T00:00:00Z' GROUP BY name ORDER BY 2 DESC LIMIT 3";
    let answer = run(&engine, QueryRequest { explain: true, ..request(sql) }).await.unwrap();
    assert_eq!(answer.rows.len(), 0, "no rows are sent");
    let told = answer.explained();
    assert_eq!((told["rows"].as_u64(), told["complete"].as_bool()), (Some(3), Some(true)), "{told}");
    let name = |at: usize| store.snapshot().segments[at].path.file_name().unwrap().to_str().unwrap().to_owned();
    let segments = |read: &[String], unreadable: &[String]| {
        let names = |names: &[String]| serde_json::json!({ "names": names, "further": 0 });
        let total = 2 - unreadable.len();
        serde_json::json!({ "total": total, "read": read.len(), "pruned": total - read.len(), "files": names(read),
            "unreadable": names(unreadable) })
    };
    assert_eq!(told["segments"], segments(&[name(1)], &[]), "{told}");
    assert_eq!(told["row_groups"]["read"], 1, "{told}");
    assert!(told["scanned"]["bytes"].as_u64().unwrap() > 0, "{told}");
    assert_eq!((&told["scanned"]["rows"], &told["scanned"]["open_rows"]), (&1_000.into(), &1_000.into()), "{told}");
    let operators = told["operators"].as_array().unwrap();
    assert_eq!(operators[0]["depth"], 0, "{told}");
    assert!(operators.iter().any(|of| of["name"] == "DataSourceExec" && of["rows"] == 1_000), "{told}");
    let explained = |sql: &str| run(&engine, QueryRequest { explain: true, ..request(sql) });
    let whole = explained("SELECT max(command_line) FROM process_events").await.unwrap().explained();
    assert_eq!((&whole["row_groups"]["read"], whole["pages"].is_null()), (&2.into(), true), "{whole}");
    let some = "SELECT max(command_line) FROM process_events WHERE time < '2026-01-31T12:00:01Z'";
    let part = explained(some).await.unwrap().explained();
    assert!(part["pages"]["read"].as_u64() > Some(0), "{part}");
    let nobody = "SELECT pid FROM process_events WHERE entity_id = '00112233445566778899aabbccddeeff'";
    let nothing = explained(nobody).await.unwrap().explained();
    assert_eq!(nothing["segments"], segments(&[], &[]), "{nothing}");
    let plain = ask(&engine, sql).await;
    assert_eq!((plain.rows.len(), plain.done.explained_json.as_str()), (3, ""));
    let lost = store.snapshot().segments[0].path.clone();
    std::fs::remove_file(&lost).unwrap();
    store.check_segments().unwrap();
    let without = explained("SELECT max(command_line) FROM process_events").await.unwrap().explained();
    let lost = lost.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(without["segments"], segments(&[name(0)], &[lost]), "{without}");
}
