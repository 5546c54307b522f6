//! Queries over a small store: answers, limits, and what is told about what is missing.

use daemoneye_engine::detect::rules::{ListItem, Lists, ValueList};
use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest;
use daemoneye_engine::sql::{CollectorRow, NoCollectors, QueryEngine, QueryError, QueryLimits, SystemTables};
use daemoneye_engine::store::{Store, StoreOptions};
use daemoneye_lib::proto::{
    Capture, CoverageGap, EventType, Identity, ProcessEvent, ProcessRecord, QueryDone, QueryRequest, Record,
    ResultColumn, Sequence, StartKind, Value, value::Kind,
};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// 2026-01-31T12:00:00Z.
const NOON_US: i64 = 1_769_860_800_000_000;
const SECOND_US: i64 = 1_000_000;

struct Answer {
    columns: Vec<ResultColumn>,
    rows: Vec<Vec<String>>,
    pages: usize,
    done: QueryDone,
}

impl Answer {
    fn degraded(&self) -> Vec<String> {
        self.done.completeness.clone().unwrap().degraded
    }
}

fn shown(value: &Value) -> String {
    match &value.kind {
        None => "NULL".to_owned(),
        Some(Kind::Boolean(value)) => value.to_string(),
        Some(Kind::Integer(value)) => value.to_string(),
        Some(Kind::Real(value)) => value.to_string(),
        Some(Kind::Text(value)) => value.clone(),
        Some(Kind::TimestampUs(value)) => format!("+{}s", (value - NOON_US) / SECOND_US),
        Some(Kind::Blob(value)) => format!("{value:02x?}"),
    }
}

async fn run(engine: &QueryEngine, request: QueryRequest) -> Result<Answer, QueryError> {
    let mut run = engine.query(request, CancellationToken::new()).await?;
    let columns = run.columns().to_vec();
    let (mut rows, mut pages) = (Vec::new(), 0);
    while let Some(page) = run.next_page().await? {
        if pages == 0 {
            assert_eq!(page.columns, columns, "the first page carries the columns");
        } else {
            assert!(page.columns.is_empty());
        }
        assert!(page.encoded_len() <= 520 * 1024, "a page of {} bytes", page.encoded_len());
        pages += 1;
        rows.extend(page.rows.iter().map(|row| row.values.iter().map(shown).collect::<Vec<_>>()));
    }
    Ok(Answer { columns, rows, pages, done: run.done() })
}

fn request(sql: &str) -> QueryRequest {
    QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() }
}

async fn ask(engine: &QueryEngine, sql: &str) -> Answer {
    let answer = crate::when_free(async || run(engine, request(sql)).await).await;
    answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn rows(engine: &QueryEngine, sql: &str) -> Vec<String> {
    let answer = ask(engine, sql).await;
    assert_eq!(answer.degraded(), Vec::<String>::new(), "{sql}");
    answer.rows.iter().map(|row| row.join("|")).collect()
}

fn start(number: u64, at_s: i64, pid: u32, name: &str, parent: &str) -> Record {
    let process = ProcessRecord {
        entity_id: u128::from(number).to_be_bytes().to_vec(),
        identity: Identity::Exact.into(),
        pid,
        ppid: Some(1),
        parent_name: Some(parent.to_owned()),
        name: name.to_owned(),
        executable_path: Some(format!("/usr/bin/{name}")),
        command_line: Some(format!("{name} --number {number}")),
        user: Some("alice".to_owned()),
        uid: Some(1000),
        memfd: number.is_multiple_of(2).then_some(true),
        memory_usage: Some(number * 1024),
        arg_lengths: vec![1, 2, 3],
        capture: Capture::Complete.into(),
        ..ProcessRecord::default()
    };
    let event = ProcessEvent {
        event_type: EventType::Start.into(),
        time_us: NOON_US + at_s * SECOND_US,
        start_kind: StartKind::Exec.into(),
        process: Some(process),
        source: "procfs".to_owned(),
        ..ProcessEvent::default()
    };
    Record {
        sequence: Some(Sequence::new(1, number)),
        topic: "events.process.start".to_owned(),
        time_us: event.time_us,
        payload: event.encode_to_vec().into(),
    }
}

fn append(store: &Store, records: &[Record]) {
    store.append(ingest::decode("procmond", records).unwrap()).unwrap();
}

fn small_store() -> (TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    append(
        &store,
        &[start(1, 0, 100, "bash", "sshd"), start(2, 1, 101, "curl", "bash"), start(3, 2, 102, "Curl", "bash")],
    );
    store.seal().unwrap();
    append(&store, &[start(4, 60, 103, "nc", "bash"), start(5, 61, 104, "it's", "cron")]);
    (dir, Arc::new(store))
}

fn engine_with(store: Arc<Store>, limits: QueryLimits) -> QueryEngine {
    QueryEngine::new(store, limits, Arc::new(NoCollectors)).unwrap()
}

fn small() -> (TempDir, QueryEngine) {
    let (dir, store) = small_store();
    (dir, engine_with(store, QueryLimits::default()))
}

#[tokio::test]
async fn null_is_neither_in_two_lists_nor_outside_of_both() {
    let (_dir, engine) = small();
    for unknown in [
        "exit_code IN (1) AND exit_code IN (2)",
        "exit_code IN (1, 2) AND exit_code NOT IN (1, 2, 3)",
        "exit_code NOT IN (1) AND exit_code IN (1)",
        "exit_code NOT IN (1, 2) OR exit_code NOT IN (3, 4)",
        "NOT ((exit_code = 1 OR exit_code = 2) AND (exit_code = 3 OR exit_code = 4))",
        "(exit_code IN (1) OR FALSE) AND (exit_code NOT IN (1) OR 1 = 2)",
        "CASE WHEN pid > 0 THEN exit_code IN (1) AND exit_code NOT IN (1) END",
        "(exit_code IN (0) OR exit_code > 7) AND (exit_code NOT IN (1) OR exit_code NOT IN (2))",
        "NOT (exit_code <> 1 AND exit_code <> 2) AND NOT (exit_code <> 3 AND exit_code <> 4)",
        "NOT ((exit_code BETWEEN 1 AND 1 OR exit_code = 1 + 1) AND (exit_code = 3 OR (exit_code = 4) = TRUE))",
        "NOT (coalesce(NULL, exit_code) IN (1, 2) AND (CASE WHEN 1 = 1 THEN exit_code END) IN (3, 4))",
    ] {
        let count = format!("SELECT count(*) FROM process_events WHERE exit_code IS NULL AND ({unknown}) IS NULL");
        let all = "SELECT count(*) FROM process_events WHERE exit_code IS NULL";
        assert_eq!(rows(&engine, &count).await, rows(&engine, all).await, "{unknown}");
        let none = format!("SELECT seq FROM process_events WHERE exit_code IS NULL AND ({unknown})");
        assert!(rows(&engine, &none).await.is_empty(), "{unknown}");
    }
    assert_eq!(
        rows(&engine, "SELECT pid FROM process_events WHERE pid IN (103, 104) AND pid NOT IN (104)").await,
        ["103"]
    );
    let with_null = "SELECT pid FROM process_events WHERE pid IN (103, 104) AND pid NOT IN (104, NULL)";
    assert!(rows(&engine, with_null).await.is_empty());
    for none in [
        "SELECT name FROM process_events WHERE (name = 'nc' OR name = 'bash') AND name NOT IN ('curl', NULL)",
        "SELECT pid FROM (SELECT * FROM process_events WHERE pid IN (101, 102, 103, 104)) AS e WHERE pid NOT IN (105, 106, 107, NULL)",
        "SELECT pid FROM process_events WHERE NOT (pid <> 103 AND pid <> 104) AND pid NOT IN (5, NULL)",
        "SELECT name FROM process_events WHERE (name LIKE 'nc' OR name = lower('BASH')) AND name NOT IN ('a', NULL)",
        "SELECT n FROM (SELECT row_number() OVER (ORDER BY seq) AS n FROM process_events) AS r WHERE CASE WHEN n IN (1, 2, 3) THEN n NOT IN (5, NULL) END",
        "SELECT pid FROM process_events WHERE ((pid = 103 AND 1 = 1) OR (pid = 104 AND 1 = 1)) AND pid NOT IN (3, 4, 5, NULL)",
        "SELECT pid FROM process_events WHERE pid NOT IN (103) AND pid NOT IN (104, NULL) OR pid IN (1) AND pid NOT IN (5, 6, 7, NULL)",
    ] {
        assert_eq!(rows(&engine, none).await, Vec::<String>::new(), "{none}");
    }
    for (constant, column) in [
        ("103 IN (pid, seq) AND 103 IN (pid, ppid)", "(pid = 103 OR seq = 103) AND (pid = 103 OR ppid = 103)"),
        ("1 IN (seq, pid) AND 1 NOT IN (pid, seq + 1)", "(seq = 1 OR pid = 1) AND NOT (pid = 1 OR seq + 1 = 1)"),
        (
            "1 NOT IN (seq, pid) OR 1 NOT IN (ppid, exit_code)",
            "NOT (seq = 1 OR pid = 1) OR NOT (ppid = 1 OR exit_code = 1)",
        ),
        ("lower('NC') IN (name, parent_name) AND lower('NC') IN (name, cwd)", "name = 'nc'"),
        ("103 <= pid AND 103 < pid", "pid > 103"),
    ] {
        let asked = |condition: &str| format!("SELECT seq FROM process_events WHERE {condition} ORDER BY seq");
        let expected = rows(&engine, &asked(column)).await;
        assert!(!expected.is_empty(), "{column}");
        assert_eq!(rows(&engine, &asked(constant)).await, expected, "{constant}");
    }
    let joined = |more: &str, wanted: &str| {
        format!(
            "SELECT a.seq, b.seq FROM process_events AS a {more} JOIN process_events AS b ON a.pid = b.pid AND {wanted} \
             WHERE a.pid > 101 ORDER BY 1, 2"
        )
    };
    for (turned, plain) in [("103 = a.pid", "a.pid = 103"), ("102 <= a.pid AND 102 < a.pid", "a.pid > 102")] {
        for kind in ["", "LEFT"] {
            let expected = rows(&engine, &joined(kind, plain)).await;
            assert_eq!(rows(&engine, &joined(kind, turned)).await, expected, "{kind} {turned}");
        }
    }
    let inner = "SELECT count(*) FROM process_events AS a JOIN process_events AS b ON a.pid = b.pid AND 103 = a.pid WHERE b.pid = 103";
    assert_eq!(rows(&engine, inner).await, ["1"]);
    let absent = "SELECT seq FROM (SELECT seq, exit_code NOT IN (1, 2, 3, 4) AS a, exit_code NOT IN (5, 6, 7, 8) AS b FROM process_events \
                  WHERE exit_code IS NULL) AS t WHERE a OR b";
    assert_eq!(rows(&engine, absent).await, Vec::<String>::new());
    let both = "SELECT pid FROM process_events WHERE pid IN (103, 104) AND (pid = 104 OR pid = 105) OR pid IN (103)";
    assert_eq!(rows(&engine, both).await, ["103", "104"]);
}

#[tokio::test]
async fn sealed_and_open_events_are_each_seen_exactly_once() {
    let (_dir, engine) = small();
    assert_eq!(rows(&engine, "SELECT count(*), count(DISTINCT seq) FROM process_events").await, ["5|5"]);
    assert_eq!(
        rows(&engine, "SELECT seq, name FROM process_events ORDER BY seq").await,
        ["1|bash", "2|curl", "3|Curl", "4|nc", "5|it's"]
    );
    let joined = "SELECT count(*) FROM process_events AS a JOIN process_events AS b USING (entity_id)";
    assert_eq!(rows(&engine, joined).await, ["5"]);
}

#[tokio::test]
async fn conditions_mean_what_sql_says() {
    let (_dir, engine) = small();
    for (condition, expected) in [
        ("name = 'curl'", vec!["2"]),
        ("name ILIKE 'CURL'", vec!["2", "3"]),
        ("name LIKE 'c%'", vec!["2"]),
        ("name REGEXP '^[cC]url$'", vec!["2", "3"]),
        ("name NOT REGEXP '^[cC]url$'", vec!["1", "4", "5"]),
        ("name = 'it''s'", vec!["5"]),
        ("pid IN (100, 103)", vec!["1", "4"]),
        ("pid NOT IN (100, 103) AND parent_name <> 'cron'", vec!["2", "3"]),
        ("memfd IS TRUE", vec!["2", "4"]),
        ("memfd IS NOT TRUE", vec!["1", "3", "5"]),
        ("memfd IS NULL", vec!["1", "3", "5"]),
        ("NOT memfd", vec![]),
        ("time BETWEEN '2026-01-31T12:00:01Z' AND '2026-01-31T12:00:02Z'", vec!["2", "3"]),
        ("time >= TIMESTAMP '2026-01-31 12:01:00'", vec!["4", "5"]),
        ("time < datetime('2026-01-31T12:01:00Z', '-58 seconds')", vec!["1", "2"]),
        ("time > datetime('2026-01-31T13:30:00Z', 'start of hour', '-1 hour', '+30 seconds')", vec!["4", "5"]),
        ("time < now() - INTERVAL '1 minute'", vec!["1", "2", "3", "4", "5"]),
        ("entity_id IN (SELECT entity_id FROM process_events WHERE name = 'nc')", vec!["4"]),
        ("user = 'alice' AND uid = 1000 AND length(name) = 2", vec!["4"]),
        ("arg_lengths = X'010203' AND pid = 100", vec!["1"]),
        ("name || ':' || pid = 'nc:103'", vec!["4"]),
    ] {
        let sql = format!("SELECT seq FROM process_events WHERE {condition} ORDER BY seq");
        assert_eq!(rows(&engine, &sql).await, expected, "{condition}");
    }
}

#[tokio::test]
async fn groups_windows_unions_and_ctes_answer() {
    let (_dir, engine) = small();
    for (sql, expected) in [
        (
            "SELECT parent_name, count(*) AS n FROM process_events GROUP BY parent_name ORDER BY n DESC, 1 LIMIT 2",
            vec!["bash|3", "cron|1"],
        ),
        (
            "SELECT name, row_number() OVER (PARTITION BY parent_name ORDER BY time DESC) AS n FROM process_events \
             WHERE parent_name = 'bash' ORDER BY n",
            vec!["nc|1", "Curl|2", "curl|3"],
        ),
        ("SELECT string_agg(name, ',' ORDER BY seq) FROM process_events WHERE pid < 103", vec!["bash,curl,Curl"]),
        ("WITH b AS (SELECT seq FROM process_events WHERE parent_name = 'bash') SELECT sum(seq) FROM b", vec!["9"]),
        ("SELECT 1 AS a UNION ALL SELECT 2 ORDER BY a DESC", vec!["2", "1"]),
        (
            "SELECT CASE WHEN pid > 102 THEN 'new' ELSE 'old' END, count(*) FROM process_events GROUP BY 1 ORDER BY 1",
            vec!["new|2", "old|3"],
        ),
        (
            "SELECT date_trunc('minute', time) AS m, count(*) FROM process_events GROUP BY m ORDER BY m",
            vec!["+0s|3", "+60s|2"],
        ),
        ("SELECT name, user FROM processes WHERE pid = 100", vec!["bash|alice"]),
    ] {
        assert_eq!(rows(&engine, sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn columns_carry_names_and_sql_types() {
    let (_dir, engine) = small();
    let sql = "SELECT time, name AS n, pid, cpu_usage, memfd, arg_lengths, CAST(time AS DATE) AS d, count(*) AS c \
               FROM process_events GROUP BY 1, 2, 3, 4, 5, 6, 7 LIMIT 0";
    let answer = ask(&engine, sql).await;
    let columns: Vec<(&str, &str)> =
        answer.columns.iter().map(|column| (column.name.as_str(), column.r#type.as_str())).collect();
    let expected = [
        ("time", "TIMESTAMP"),
        ("n", "TEXT"),
        ("pid", "BIGINT"),
        ("cpu_usage", "DOUBLE"),
        ("memfd", "BOOLEAN"),
        ("arg_lengths", "BLOB"),
        ("d", "TEXT"),
        ("c", "BIGINT"),
    ];
    assert_eq!(columns, expected);
    assert_eq!((answer.rows.len(), answer.pages), (0, 1), "an empty answer is one page with its columns");
}

#[tokio::test]
async fn parameters_are_values_and_never_text() {
    let (_dir, engine) = small();
    let bound = |sql: &str, params: Vec<Kind>| QueryRequest {
        sql: sql.to_owned(),
        params: params.into_iter().map(|kind| Value { kind: Some(kind) }).collect(),
        ..QueryRequest::default()
    };
    let by_name = "SELECT seq FROM process_events WHERE name = $1 AND pid > $2";
    let answer = run(&engine, bound(by_name, vec![Kind::Text("it's".to_owned()), Kind::Integer(1)])).await.unwrap();
    assert_eq!(answer.rows, [["5"]]);
    let hostile = Kind::Text("x' OR '1' = '1".to_owned());
    let answer = run(&engine, bound(by_name, vec![hostile, Kind::Integer(1)])).await.unwrap();
    assert!(answer.rows.is_empty());
    let by_time = "SELECT count(*) FROM process_events WHERE time >= $1";
    let answer = run(&engine, bound(by_time, vec![Kind::TimestampUs(NOON_US + 60 * SECOND_US)])).await.unwrap();
    assert_eq!(answer.rows, [["2"]]);
    let answer = run(&engine, bound("SELECT seq FROM process_events ORDER BY seq LIMIT $1", vec![Kind::Integer(2)]))
        .await
        .unwrap();
    assert_eq!(answer.rows, [["1"], ["2"]]);
    for (pattern, words) in [("(", "does not compile: unclosed group"), ("(a{1000}){1000}", "too much memory")] {
        for sql in ["SELECT name REGEXP $1 FROM process_events", "SELECT seq FROM process_events WHERE name REGEXP $1"]
        {
            let failed = run(&engine, bound(sql, vec![Kind::Text(pattern.to_owned())])).await.err().unwrap();
            assert!(failed.to_string().contains(words), "{sql} with {pattern}: {failed}");
        }
    }
    let error = run(&engine, bound(by_name, vec![])).await.err().unwrap();
    assert!(error.to_string().contains("parameters of the statement: 2, values given: 0"), "{error}");
    for (sql, wrong) in [
        ("SELECT seq FROM process_events WHERE name = $1 AND time > $2", Kind::Text("yesterday".to_owned())),
        ("SELECT seq FROM process_events WHERE name = $1 AND memfd = $2", Kind::TimestampUs(NOON_US)),
        ("SELECT seq FROM process_events WHERE name = $1 AND parent_name = $2", Kind::Integer(1)),
        ("SELECT date_trunc($2, time) FROM process_events WHERE name = $1", Kind::Text("fortnight".to_owned())),
    ] {
        let error = run(&engine, bound(sql, vec![Kind::Text("nc".to_owned()), wrong])).await.err().unwrap();
        assert!(error.to_string().starts_with("$2: "), "{sql}: {error}");
    }
}

#[tokio::test]
async fn what_fails_on_the_rows_is_said_in_words_of_the_statement() {
    let (_dir, engine) = small();
    for (sql, words) in [
        ("SELECT pid / (pid - 100) FROM process_events", "division by zero; write a / nullif(b, 0)"),
        ("SELECT pid FROM process_events WHERE pid % (pid - 100) = 1", "division by zero; write a / nullif(b, 0)"),
        ("SELECT (SELECT pid FROM process_events)", "stands for one value has several rows"),
        ("SELECT time + INTERVAL '290000 years' FROM process_events", "outside of the years that a time can have"),
        ("SELECT CAST(name AS BIGINT) FROM process_events", "is no number; TRY_CAST"),
    ] {
        let error = run(&engine, request(sql)).await.err().unwrap();
        assert!(error.to_string().contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn refusals_reach_the_caller_with_their_place() {
    let (_dir, engine) = small();
    let refused = run(&engine, request("SELECT pg_sleep(1)")).await.err().unwrap();
    assert!(matches!(&refused, QueryError::Refused(refusal) if refusal.column == 8), "{refused:?}");
    let planning = run(&engine, request("SELECT nam FROM processes")).await.err().unwrap();
    assert!(
        matches!(&planning, QueryError::Planning(refusal) if refusal.hint == "did you mean name?"),
        "{planning:?}"
    );
    for (sql, column) in [
        (
            "SELECT pid FROM processes p WHERE EXISTS (SELECT 1 FROM processes q WHERE EXISTS (SELECT 1 FROM processes r \
             WHERE r.pid = p.ppid))",
            123,
        ),
        (
            "SELECT pid FROM processes p WHERE pid IN (SELECT q.pid FROM processes q WHERE q.ppid = (SELECT max(r.pid) FROM \
             processes r WHERE r.ppid = p.pid))",
            139,
        ),
    ] {
        let refusal = run(&engine, request(sql)).await.err().unwrap();
        let told = refusal.refusal().unwrap();
        assert!(told.column == column && told.message.contains("further out than the next SELECT"), "{sql}: {told:?}");
    }
    let failed = run(&engine, request("SELECT pid / 0 FROM process_events")).await.err().unwrap();
    assert!(matches!(failed, QueryError::Execution(_)), "{failed:?}");
}

#[tokio::test]
async fn a_row_cap_cuts_and_says_so() {
    let (_dir, engine) = small();
    let capped = |row_cap| QueryRequest { row_cap: Some(row_cap), ..request("SELECT seq FROM process_events") };
    let answer = run(&engine, capped(2)).await.unwrap();
    assert_eq!((answer.rows.len(), answer.done.rows), (2, 2));
    assert_eq!(answer.degraded(), ["capped"]);
    let answer = run(&engine, capped(5)).await.unwrap();
    assert_eq!((answer.rows.len(), answer.degraded().len()), (5, 0), "a cap that cuts nothing is not told");
}

#[tokio::test]
async fn pages_keep_their_bounds_and_lose_no_row() {
    let (_dir, engine) = small();
    let paged = QueryRequest { page_rows: 2, ..request("SELECT seq FROM process_events ORDER BY seq") };
    let answer = run(&engine, paged).await.unwrap();
    assert_eq!((answer.pages, answer.rows.len()), (3, 5));
    // 25 rows of 40 kB each do not fit one page of 512 KiB.
    let long = "x".repeat(40_000);
    let wide = format!("SELECT concat(a.name, '{long}') FROM process_events AS a CROSS JOIN process_events AS b");
    let answer = ask(&engine, &wide).await;
    assert!(answer.pages >= 2, "{} pages", answer.pages);
    assert_eq!((answer.rows.len(), answer.degraded().len()), (25, 0));
    // One cell that outgrows a page is cut, and that is told.
    let huge = format!("WITH a AS (SELECT '{long}' AS x) SELECT concat(x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x) AS y FROM a");
    assert_eq!(ask(&engine, &huge).await.degraded(), ["capped"]);
}

fn generated(rows: usize) -> (TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let mut generator = Generator::new(7, NOON_US);
    for _ in 0..rows / 1_000 {
        append(&store, &generator.records(1_000));
    }
    store.seal().unwrap();
    (dir, Arc::new(store))
}

#[tokio::test]
async fn a_cross_join_of_everything_is_cut_and_says_so() {
    let (_dir, store) = generated(20_000);
    let engine = engine_with(store, QueryLimits { deadline: Duration::from_secs(120), ..QueryLimits::default() });
    let hurried = async |sql: &str| {
        let request = QueryRequest { deadline_ms: Some(3_000), ..request(sql) };
        crate::when_free(async || run(&engine, request.clone()).await).await.unwrap()
    };
    let counted = "SELECT count(*) FROM process_events AS a, process_events AS b, process_events AS c WHERE a.pid + b.pid > c.pid";
    let answer = hurried(counted).await;
    assert!(!answer.degraded().is_empty(), "{} rows", answer.rows.len());
    let listed = "SELECT a.name, b.name FROM process_events AS a CROSS JOIN process_events AS b";
    let answer = hurried(listed).await;
    assert!(!answer.degraded().is_empty(), "{} rows", answer.rows.len());
    // The engine is usable afterwards.
    assert_eq!(rows(&engine, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn memory_is_bounded_and_what_does_not_fit_says_so() {
    let (_dir, store) = generated(20_000);
    let limits = QueryLimits { memory_bytes: 256 * 1024, ..QueryLimits::default() };
    let engine = engine_with(store, limits);
    let sorted = "SELECT command_line, parent_command_line FROM process_events ORDER BY command_line, seq";
    assert_eq!(ask(&engine, sorted).await.degraded(), ["capped"]);
    // A window holds all of its rows; the memory pool has to hear of it.
    let limits = QueryLimits { memory_bytes: 16 * 1024 * 1024, ..QueryLimits::default() };
    let (_dir, store) = generated(20_000);
    let engine = engine_with(store, limits);
    for over in ["()", "(ROWS BETWEEN 1 PRECEDING AND 1000000000 FOLLOWING)"] {
        let sql = format!(
            "SELECT a.command_line, count(*) OVER {over} FROM process_events AS a CROSS JOIN process_events AS b"
        );
        assert_eq!(ask(&engine, &sql).await.degraded(), ["capped"], "{over}");
    }
    assert_eq!(rows(&engine, "SELECT count(*) OVER () FROM process_events LIMIT 1").await, ["20000"]);
}

#[tokio::test]
async fn text_that_grows_through_with_is_stopped() {
    let (_dir, engine) = small();
    let long = "x".repeat(40_000);
    // Four steps of eight make 164 MB of a row.
    for step in ["concat(x,x,x,x,x,x,x,x)", "concat_ws(',',x,x,x,x,x,x,x,x)", "x||x||x||x||x||x||x||x"] {
        let levels: String =
            (1..5).map(|level| format!(", a{level} AS (SELECT {step} AS x FROM a{})", level - 1)).collect();
        let sql = format!(
            "WITH a0 AS (SELECT concat(name, '{long}') AS x FROM process_events){levels} SELECT length(x) FROM a4"
        );
        assert_eq!(ask(&engine, &sql).await.degraded(), ["capped"], "{step}");
    }
    let with = "y".repeat(20_000);
    let replaced = format!("SELECT length(replace(concat(name, '{long}'), 'x', '{with}')) FROM process_events");
    assert_eq!(ask(&engine, &replaced).await.degraded(), ["capped"]);
}

#[tokio::test]
async fn coverage_gaps_degrade_only_the_answers_whose_time_they_touch() {
    let (_dir, store) = small_store();
    let gap = CoverageGap {
        collector: "procmond".to_owned(),
        reason: "shed".to_owned(),
        from_us: NOON_US + 10 * SECOND_US,
        to_us: NOON_US + 20 * SECOND_US,
        count: Some(7),
        ..CoverageGap::default()
    };
    store.add_coverage(gap).unwrap();
    let engine = engine_with(store, QueryLimits::default());
    assert_eq!(ask(&engine, "SELECT count(*) FROM process_events").await.degraded(), ["events_shed"]);
    let before = "SELECT count(*) FROM process_events WHERE time < '2026-01-31T12:00:05Z'";
    assert_eq!(rows(&engine, before).await, ["3"]);
    let after = "SELECT count(*) FROM process_events WHERE time > '2026-01-31T12:00:30Z'";
    assert_eq!(rows(&engine, after).await, ["2"]);
    let lately = "SELECT count(*) FROM process_events WHERE time > datetime('now', '-5 minutes')";
    assert_eq!(rows(&engine, lately).await, ["0"]);
    let listed = "SELECT reason, count, from_time FROM coverage";
    assert_eq!(rows(&engine, listed).await, ["shed|7|+10s"]);
}

fn gap(reason: &str, from_s: i64, to_s: i64) -> CoverageGap {
    CoverageGap {
        collector: "procmond".to_owned(),
        reason: reason.to_owned(),
        from_us: NOON_US + from_s * SECOND_US,
        to_us: NOON_US + to_s * SECOND_US,
        count: Some(1),
        ..CoverageGap::default()
    }
}

#[tokio::test]
async fn every_reason_of_a_gap_means_what_it_says() {
    const ALL: &str = "SELECT count(*) FROM process_events";
    for (reason, told) in [
        ("collector_unavailable", Some("collector_unavailable")),
        ("not_received", Some("events_shed")),
        ("undecodable", Some("events_shed")),
        ("shed", Some("events_shed")),
        ("wal_bound", Some("events_shed")),
        ("wal_disk", Some("events_shed")),
        ("wal_oversize", Some("events_shed")),
        ("wal_corrupt", Some("events_shed")),
        ("retention", None),
        ("subscriber_slow", None),
        ("audit_outbox_full", None),
        ("processes_full", None),
    ] {
        let (_dir, store) = small_store();
        store.add_coverage(gap(reason, 10, 20)).unwrap();
        let engine = engine_with(store, QueryLimits::default());
        assert_eq!(ask(&engine, ALL).await.degraded(), Vec::from_iter(told), "{reason}");
        let listed = "SELECT reason FROM coverage";
        assert_eq!(rows(&engine, listed).await, [reason], "a gap stays listed whatever it means");
    }
}

#[tokio::test]
async fn retention_is_told_to_those_who_ask_further_back_than_it_reaches() {
    let (_dir, store) = small_store();
    store.add_coverage(gap("retention", -7_200, -3_600)).unwrap();
    let engine = engine_with(store, QueryLimits::default());
    for (condition, told) in [
        ("TRUE", [].as_slice()),
        ("time < '2026-01-31T13:00:00Z'", &[]),
        ("time > '2026-01-31T11:30:00Z'", &[]),
        ("time > '2026-01-31T10:30:00Z'", &["capped"]),
        // Nobody watched in those years.
        ("time >= '2020-01-01T00:00:00Z'", &["capped", "collector_unavailable"]),
        ("time < '2026-01-31T10:00:00Z'", &["capped"]),
        ("time BETWEEN '2026-01-31T10:00:00Z' AND '2026-01-31T10:10:00Z'", &["capped"]),
        // No time at all.
        ("time > '2026-01-31T10:10:00Z' AND time < '2026-01-31T10:00:00Z'", &[]),
    ] {
        let answer = ask(&engine, &format!("SELECT count(*) FROM process_events WHERE {condition}")).await;
        assert_eq!(answer.degraded(), told, "{condition}");
    }
}

#[tokio::test]
async fn expressions_that_look_simple_keep_their_meaning() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    append(&store, &[start(1, 0, 1, r"C:\Windows", "a"), start(2, 1, 2, "100%", "b"), start(3, 2, 3, "C:%W", "c")]);
    store.seal().unwrap();
    let engine = engine_with(Arc::new(store), QueryLimits::default());
    for (condition, expected) in [
        (r"name ~ ':\\'", vec!["1"]),
        (r"name ~ ':\\W'", vec!["1"]),
        (r"name !~ ':\\W'", vec!["2", "3"]),
        (r"name ~* '\\w'", vec!["1"]),
        (r"name REGEXP ':\\W'", vec!["1"]),
        (r"regexp_like(name, ':\\W')", vec!["1"]),
        (r"substr(name, 2) ~ ':\\W'", vec!["1"]),
        (r"name ~ '\\|00'", vec!["1", "2"]),
        ("(memfd IS NULL AND container_id ~ '.*') IS UNKNOWN", vec!["1", "3"]),
        ("container_id ~ '.*' OR container_id !~ '.*'", vec![]),
        ("name ~ '^C:' AND name ~ 'W'", vec!["1", "3"]),
        ("name ~ '(?x) % W # a percent sign'", vec!["3"]),
        ("EXISTS (SELECT 1 FROM process_events AS b WHERE b.name ~ ':%') AND pid = 1", vec!["1"]),
    ] {
        let sql = format!("SELECT seq FROM process_events WHERE {condition} ORDER BY seq");
        assert_eq!(rows(&engine, &sql).await, expected, "{condition}");
    }
    let parameter = QueryRequest {
        params: vec![Value { kind: Some(Kind::Text(r":\\W".to_owned())) }],
        ..request("SELECT seq FROM process_events WHERE name ~ $1")
    };
    assert_eq!(run(&engine, parameter).await.unwrap().rows, [["1"]], "a parameter is an expression as it is");
    let named = ask(&engine, "SELECT name ~ 'a', count(*) FROM process_events GROUP BY name ~ 'a'").await;
    assert!(!named.columns[0].name.contains("()"), "{:?}", named.columns);
}

struct Away;

impl SystemTables for Away {
    fn collectors(&self) -> Vec<CollectorRow> {
        vec![CollectorRow {
            id: "procmond".to_owned(),
            state: "gone".to_owned(),
            restarts: 3,
            ..CollectorRow::default()
        }]
    }
}

#[tokio::test]
async fn an_absent_collector_degrades_answers_about_the_present() {
    let (_dir, store) = small_store();
    let engine = QueryEngine::new(store, QueryLimits::default(), Arc::new(Away)).unwrap();
    assert_eq!(ask(&engine, "SELECT * FROM process_events").await.degraded(), ["collector_unavailable"]);
    assert_eq!(ask(&engine, "SELECT * FROM processes").await.degraded(), ["collector_unavailable"]);
    let past = "SELECT count(*) FROM process_events WHERE time < '2026-01-31T13:00:00Z'";
    assert_eq!(rows(&engine, past).await, ["5"]);
    assert_eq!(
        rows(&engine, "SELECT id, state, connected, restarts FROM collectors").await,
        ["procmond|gone|false|3"]
    );
}

/// An agent with two lists.
struct WithLists;

impl SystemTables for WithLists {
    fn collectors(&self) -> Vec<CollectorRow> {
        Vec::new()
    }

    fn lists(&self) -> Lists {
        let list = |name: &str, values: &[&str]| ValueList {
            name: name.to_owned(),
            description: String::new(),
            items: values.iter().map(|value| ListItem::Text((*value).to_owned())).collect(),
            files: Vec::new(),
        };
        [list("tools", &["nc", "it's"]), list("none", &[])].into_iter().collect()
    }
}

#[tokio::test]
async fn a_query_may_name_the_lists_of_rules() {
    let (_dir, store) = small_store();
    let engine = QueryEngine::new(store, QueryLimits::default(), Arc::new(WithLists)).unwrap();
    for (condition, expected) in [
        ("name IN (list('tools'))", vec!["4", "5"]),
        ("name NOT IN (list('tools'), 'bash')", vec!["2", "3"]),
        ("name IN (list('none'))", vec![]),
        ("ci_contains(name, list('tools')) AND pid > 103", vec!["5"]),
    ] {
        let sql = format!("SELECT seq FROM process_events WHERE {condition} ORDER BY seq");
        assert_eq!(rows(&engine, &sql).await, expected, "{condition}");
    }
    let error =
        run(&engine, request("SELECT seq FROM process_events WHERE name IN (list('tool'))")).await.err().unwrap();
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.hint.as_str(), refusal.column), ("did you mean tools?", 47), "{error}");
}

/// Connected, and still repeating what it captured since the given time.
struct Behind(i64);

impl SystemTables for Behind {
    fn collectors(&self) -> Vec<CollectorRow> {
        vec![CollectorRow { connected: true, behind_since_us: Some(self.0), ..CollectorRow::default() }]
    }
}

#[tokio::test]
async fn an_answer_about_a_time_whose_events_are_still_to_come_is_degraded() {
    let (_dir, store) = small_store();
    let noon_us = 1_769_860_800_000_000;
    let engine = QueryEngine::new(store, QueryLimits::default(), Arc::new(Behind(noon_us))).unwrap();
    let lacks = async |until: &str| {
        let sql = format!("SELECT pid FROM process_events WHERE time < '{until}'");
        ask(&engine, &sql).await.done.lacks.into_iter().map(|lack| lack.what).collect::<Vec<String>>()
    };
    assert_eq!(lacks("2026-01-31T11:59:00Z").await, ["nobody watched before this host was first watched"]);
    assert_eq!(lacks("2026-01-31T12:30:00Z").await, [": events that it has captured are still to come"]);
}

#[tokio::test]
async fn a_time_that_begins_before_the_first_watch_is_told_for_the_part_before_it() {
    let (_dir, engine) = small();
    let lacks = async |condition: &str| {
        ask(&engine, &format!("SELECT pid FROM process_events WHERE {condition}")).await.done.lacks
    };
    let told = lacks("time >= '2026-01-31T11:00:00Z'").await;
    let [lack] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(lack.what, "nobody watched before this host was first watched");
    assert_eq!((lack.from_us, lack.to_us), (NOON_US - 3600 * SECOND_US, NOON_US));
    assert_eq!(lacks("time >= '2026-01-31T12:00:00Z'").await, []);
    assert_eq!(lacks("time < '2026-01-31T13:00:00Z'").await, [], "without a begin it asks for what there is");
    assert_eq!(lacks("pid > 1").await, []);
}

#[tokio::test]
async fn a_time_beyond_the_end_of_a_copy_is_told() {
    let (dir, store) = small_store();
    store.seal().unwrap();
    drop(store);
    let offline = || Arc::new(Store::open_offline(dir.path()).unwrap());
    let lacks = async |store: Arc<Store>, sql: &str| {
        let engine = engine_with(store, QueryLimits::default());
        ask(&engine, sql).await.done.lacks.into_iter().map(|lack| lack.what).collect::<Vec<String>>()
    };
    let told = ["the copy ends at 2026-01-31T12:01:01Z: what came after it is not known here"];
    for (sql, is_told) in [
        ("SELECT pid FROM process_events WHERE time > '2026-01-31T12:05:00Z'", true),
        ("SELECT pid FROM process_events WHERE time BETWEEN '2026-01-31T12:00:00Z' AND '2026-01-31T12:05:00Z'", true),
        ("SELECT pid FROM processes_at('now')", true),
        ("SELECT id FROM alerts WHERE time > '2026-01-31T12:05:00Z'", true),
        ("SELECT pid FROM process_events WHERE time >= '2026-01-31T12:01:00Z'", false),
        ("SELECT pid FROM process_events WHERE time BETWEEN '2026-01-31T12:00:00Z' AND '2026-01-31T12:01:00Z'", false),
        ("SELECT pid FROM processes_at('2026-01-31T12:01:00Z')", false),
        ("SELECT count(*) FROM process_events", false),
    ] {
        let expected: &[&str] = if is_told { &told } else { &[] };
        assert_eq!(lacks(offline(), sql).await, expected, "{sql}");
    }
    let made_us = NOON_US + 600 * SECOND_US;
    std::fs::write(dir.path().join("backup-manifest.json"), format!("{{\"created_us\": {made_us}}}")).unwrap();
    let sql = "SELECT pid FROM process_events WHERE time > '2026-01-31T12:05:00Z' AND time < '2026-01-31T12:06:00Z'";
    assert_eq!(lacks(offline(), sql).await, Vec::<String>::new(), "nothing happened until the backup was made");
}

#[tokio::test]
async fn a_lost_or_cut_segment_is_told_and_the_rest_is_answered() {
    let (dir, store) = small_store();
    let segment = std::fs::read_dir(dir.path().join("segments")).unwrap().next().unwrap().unwrap().path();
    let engine = engine_with(store, QueryLimits::default());
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    let answer = ask(&engine, "SELECT count(*) FROM process_events").await;
    assert_eq!((answer.rows[0][0].as_str(), answer.degraded()), ("2", vec!["data_unreadable".to_owned()]));
    std::fs::write(&segment, vec![0; whole.len()]).unwrap();
    let answer = ask(&engine, "SELECT name FROM process_events").await;
    assert_eq!(answer.degraded(), ["data_unreadable"]);
    std::fs::remove_file(&segment).unwrap();
    let answer = ask(&engine, "SELECT name FROM process_events").await;
    assert_eq!((answer.rows.len(), answer.degraded()), (2, vec!["data_unreadable".to_owned()]));
}

#[tokio::test]
async fn damage_inside_a_segment_costs_that_segment_and_is_told() {
    const LISTED: &str = "SELECT * FROM process_events ORDER BY seq";
    let (dir, store) = small_store();
    let complete = ask(&engine_with(Arc::clone(&store), QueryLimits::default()), LISTED).await.rows;
    let original = store.snapshot().segments[0].path.clone();
    let whole = std::fs::read(&original).unwrap();
    let (mut noticed, mut unnoticed) = (0, 0);
    for at in (4..whole.len() - 8).step_by(97) {
        let copy = tempfile::tempdir().unwrap();
        let segment = copy.path().join("segments").join(original.file_name().unwrap());
        std::fs::create_dir(copy.path().join("segments")).unwrap();
        std::fs::copy(dir.path().join("state.redb"), copy.path().join("state.redb")).unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&segment, bytes).unwrap();
        let store = Arc::new(Store::open(StoreOptions::new(copy.path())).unwrap());
        append(&store, &[start(4, 60, 103, "nc", "bash"), start(5, 61, 104, "it's", "cron")]);
        let engine = engine_with(Arc::clone(&store), QueryLimits::default());
        let answer = ask(&engine, LISTED).await;
        if answer.degraded().is_empty() {
            unnoticed += 1;
            assert_eq!(answer.rows.len(), 5, "byte {at}");
            // Pages carry no checksum, so a byte inside a value can pass for another; the hash of the file tells.
            assert_eq!(store.check_segments().unwrap().len(), 1, "byte {at}");
            continue;
        }
        noticed += 1;
        assert_eq!(answer.degraded(), ["data_unreadable"], "byte {at}");
        assert_eq!(answer.rows, complete[3..], "byte {at}");
        assert_eq!(store.stats().unwrap().damaged_segments, 1, "byte {at}");
        assert_eq!(store.snapshot().damaged[0].path, segment);
        let later = "SELECT seq FROM process_events WHERE time > '2026-01-31T12:00:30Z' ORDER BY seq";
        assert_eq!(rows(&engine, later).await, ["4", "5"], "a time that the file does not hold is complete");
        let earlier = "SELECT seq FROM process_events WHERE time < '2026-01-31T12:00:30Z'";
        assert_eq!(ask(&engine, earlier).await.degraded(), ["data_unreadable"]);
    }
    println!("{noticed} damaged bytes were noticed, {unnoticed} were not");
    assert!(noticed > unnoticed, "{noticed} damaged bytes were noticed, {unnoticed} were not");
}

#[tokio::test]
async fn rows_that_have_left_before_damage_is_met_stand_and_the_next_answer_has_the_rest() {
    let (dir, store) = small_store();
    store.seal().unwrap();
    append(&store, &[start(6, 62, 105, "ls", "bash")]);
    let damaged = store.snapshot().segments[1].path.clone();
    let mut bytes = std::fs::read(&damaged).unwrap();
    let length = bytes.len();
    bytes[4..length / 2].fill(0xff);
    std::fs::write(&damaged, bytes).unwrap();
    let engine = engine_with(Arc::clone(&store), QueryLimits::default());
    let paged = || QueryRequest { page_rows: 1, ..request("SELECT * FROM process_events") };
    let seqs = |answer: &Answer| -> Vec<String> {
        let at = answer.columns.iter().position(|column| column.name == "seq").unwrap();
        let mut seqs: Vec<String> = answer.rows.iter().map(|row| row[at].clone()).collect();
        seqs.sort();
        seqs
    };
    let first = run(&engine, paged()).await.unwrap();
    assert_eq!(first.degraded(), ["data_unreadable"]);
    assert!(seqs(&first).starts_with(&["1", "2", "3"].map(str::to_owned)), "{:?}", seqs(&first));
    let second = run(&engine, paged()).await.unwrap();
    assert_eq!(
        (seqs(&second).join(","), second.degraded()),
        ("1,2,3,6".to_owned(), vec!["data_unreadable".to_owned()])
    );
    assert_eq!(store.stats().unwrap().damaged_segments, 1);
    drop(dir);
}

/// Stands for a decoder that gives way: the second time that a plan asks for the collectors, files are open. One of them may
/// be damaged at that moment.
struct GivesWay(AtomicUsize, Option<std::path::PathBuf>);

impl SystemTables for GivesWay {
    fn collectors(&self) -> Vec<CollectorRow> {
        if self.0.fetch_add(1, Ordering::Relaxed) == 1 {
            if let Some(path) = &self.1 {
                let mut bytes = std::fs::read(path).unwrap();
                let footer = bytes.len() - 20;
                bytes[footer] ^= 0x55;
                std::fs::write(path, bytes).unwrap();
            }
            panic!("what the test wants");
        }
        Vec::new()
    }
}

#[tokio::test]
async fn a_panic_while_planning_costs_the_damaged_file_and_not_the_query() {
    const TWICE: &str = "SELECT a.seq FROM process_events AS a JOIN process_events AS b ON a.seq = b.seq";
    let engine = |store: &Arc<Store>, damaged: Option<std::path::PathBuf>| {
        let gives_way = Arc::new(GivesWay(AtomicUsize::new(0), damaged));
        QueryEngine::new(Arc::clone(store), QueryLimits::default(), gives_way).unwrap()
    };
    let (_dir, store) = small_store();
    let failed = run(&engine(&store, None), request(TWICE)).await.err().unwrap();
    assert!(matches!(&failed, QueryError::Execution(what) if what.contains("the engine failed inside")), "{failed:?}");
    assert_eq!(store.stats().unwrap().damaged_segments, 0, "no file is to blame");
    let damaged = store.snapshot().segments[0].path.clone();
    let answer = ask(&engine(&store, Some(damaged)), TWICE).await;
    assert_eq!((answer.rows.len(), answer.degraded()), (2, vec!["data_unreadable".to_owned()]));
    assert_eq!(store.stats().unwrap().damaged_segments, 1);
}

#[tokio::test]
async fn a_condition_is_not_asked_of_a_file_that_has_changed() {
    let (_dir, store) = small_store();
    store.seal().unwrap();
    let engine = engine_with(Arc::clone(&store), QueryLimits::default());
    let overflows = "SELECT seq FROM process_events WHERE pid * 9223372036854775807 < 0";
    let failed = run(&engine, request(overflows)).await.err().unwrap();
    assert!(matches!(failed, QueryError::Execution(_)), "{failed:?}");
    assert_eq!(store.stats().unwrap().damaged_segments, 0, "no file is to blame");
    let segment = store.snapshot().segments[0].path.clone();
    let mut bytes = std::fs::read(&segment).unwrap();
    // In a column that this query does not read.
    bytes[10] ^= 0x55;
    std::fs::write(&segment, bytes).unwrap();
    let failed = run(&engine, request(overflows)).await;
    assert_eq!(store.stats().unwrap().damaged_segments, 1);
    assert!(matches!(failed, Err(QueryError::Execution(_))), "the other file has rows that do not fit as well");
}

#[tokio::test]
async fn a_cancelled_query_ends_and_frees_its_slot() {
    let (_dir, store) = generated(20_000);
    let engine = engine_with(store, QueryLimits { concurrent: 1, ..QueryLimits::default() });
    let endless = "SELECT count(*) FROM process_events AS a, process_events AS b, process_events AS c WHERE a.pid + b.pid > c.pid";
    let cancel = CancellationToken::new();
    let mut run = engine.query(request(endless), cancel.clone()).await.unwrap();
    cancel.cancel();
    assert_eq!(run.next_page().await, Err(QueryError::Cancelled));
    assert_eq!(rows(&engine, "SELECT 1").await, ["1"]);
    // Dropping the run is as good as cancelling it.
    drop(engine.query(request(endless), CancellationToken::new()).await.unwrap());
    assert_eq!(rows(&engine, "SELECT 2").await, ["2"]);
}

#[tokio::test]
async fn a_query_beyond_the_slots_is_refused_after_a_bounded_wait() {
    let (_dir, store) = generated(20_000);
    let engine = engine_with(store, QueryLimits { concurrent: 1, ..QueryLimits::default() });
    let endless = "SELECT a.name FROM process_events AS a, process_events AS b";
    let holder = engine.query(request(endless), CancellationToken::new()).await.unwrap();
    let hurried = QueryRequest { deadline_ms: Some(50), ..request("SELECT 1") };
    let error = run(&engine, hurried).await.err().unwrap();
    assert!(matches!(error, QueryError::Busy { running: 1, .. }), "{error:?}");
    drop(holder);
    assert_eq!(rows(&engine, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn an_offline_copy_answers_the_same() {
    let (dir, store) = small_store();
    store.seal().unwrap();
    drop(store);
    let offline = Arc::new(Store::open_offline(dir.path()).unwrap());
    let engine = engine_with(offline, QueryLimits::default());
    assert_eq!(rows(&engine, "SELECT count(*), count(DISTINCT seq) FROM process_events").await, ["5|5"]);
}

#[tokio::test]
async fn every_table_answers_with_its_columns() {
    let (_dir, engine) = small();
    for table in daemoneye_engine::sql::TABLES.iter() {
        let answer = ask(&engine, &format!("SELECT * FROM {table}")).await;
        let expected = daemoneye_engine::sql::table_columns(table).unwrap();
        let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, expected.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), "{table}");
    }
}

#[tokio::test]
async fn a_whole_number_that_does_not_fit_fails_the_query() {
    let (_dir, engine) = small();
    for sql in [
        "SELECT 9223372036854775807 + 1",
        "SELECT CAST(1e30 AS BIGINT)",
        "SELECT CAST(seq * 1e30 AS BIGINT) FROM process_events",
        "SELECT seq FROM process_events WHERE CAST(seq * 1e30 AS BIGINT) > 0",
        "SELECT -9223372036854775807 - seq FROM process_events",
        "SELECT seq FROM process_events WHERE pid * 9223372036854775807 < 0",
        "SELECT -(-9223372036854775807 - seq) FROM process_events WHERE seq = 1",
        "SELECT sum(9223372036854775807) FROM process_events",
        "SELECT uid, sum(pid * 9223372036854) FROM process_events, (SELECT seq FROM process_events) AS s, \
         (SELECT seq FROM process_events) AS t, (SELECT seq FROM process_events) AS u, \
         (SELECT seq FROM process_events) AS v, (SELECT seq FROM process_events) AS w GROUP BY uid",
        "SELECT abs(-9223372036854775807 - seq) FROM process_events",
        "SELECT seq FROM process_events WHERE (coalesce(pid, 3) * 9223372036854775807) IS NOT NULL",
        "SELECT seq FROM process_events WHERE ((3 + 9223372036854775806) > 1) IS NOT NULL",
        "SELECT sum(DISTINCT 9223372036854775800 + seq), sum(DISTINCT pid) FROM process_events",
        "SELECT sum(9223372036854775800 + seq) OVER (ORDER BY seq ROWS 1 PRECEDING) FROM process_events",
    ] {
        let failed = run(&engine, request(sql)).await.err().unwrap_or_else(|| panic!("answered: {sql}"));
        assert!(failed.to_string().contains("does not fit a whole number"), "{sql}: {failed}");
    }
    for (sql, expected) in [
        ("SELECT 9223372036854775806 + 1", "9223372036854775807"),
        ("SELECT -9223372036854775807 - 1", "-9223372036854775808"),
        (
            "SELECT sum(CASE WHEN seq = 2 THEN -9223372036854775807 ELSE 9223372036854775800 END) FROM process_events WHERE seq < 4",
            "9223372036854775793",
        ),
        ("SELECT sum(pid), sum(DISTINCT uid), sum(pid + 0.5) FROM process_events", "510|1000|512.5"),
        ("SELECT sum(pid) FROM process_events WHERE pid < 0", "NULL"),
        (
            "SELECT sum(pid) OVER (ORDER BY seq ROWS 1 PRECEDING) AS s FROM process_events ORDER BY seq DESC LIMIT 1",
            "207",
        ),
        ("SELECT uid + 1, sum(pid + 1) FROM process_events GROUP BY uid + 1 ORDER BY uid + 1", "1001|515"),
    ] {
        assert_eq!(rows(&engine, sql).await, [expected], "{sql}");
    }
}

#[tokio::test]
async fn no_two_columns_of_an_answer_are_called_alike() {
    let (_dir, engine) = small();
    for (sql, expected) in [
        (
            "SELECT p.name, pp.name FROM process_events p JOIN process_events pp ON p.seq = pp.seq",
            vec!["p.name", "pp.name"],
        ),
        (
            "SELECT pid, pid, count(*), count(*) FROM process_events GROUP BY pid",
            vec!["pid", "pid_2", "count(*)", "count(*)_2"],
        ),
        ("SELECT p.pid, p.pid FROM process_events p", vec!["pid", "pid_2"]),
        ("SELECT a.pid FROM process_events a JOIN process_events b ON a.seq = b.seq", vec!["pid"]),
    ] {
        let answer = ask(&engine, sql).await;
        let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, expected, "{sql}");
    }
    let alike = run(&engine, request("SELECT pid AS a, ppid AS a FROM processes")).await;
    let alike = alike.err().unwrap();
    assert!(alike.refusal().unwrap().hint.contains("AS name"), "{alike:?}");
}

#[tokio::test]
async fn a_calculated_column_is_called_by_its_text() {
    let (_dir, engine) = small();
    let texts = [
        "1",
        "$1",
        "count(*)",
        "date_trunc('minute', time)",
        "CAST(p.pid AS TEXT)",
        "name REGEXP 'a'",
        "datetime('now', '-1 day')",
        "-pid",
        "CASE WHEN pid > 1 THEN 'a' END",
        "round(memory_usage / 1024.0, 1)",
    ];
    let sql = format!("SELECT name, p.user, {} FROM process_events AS p GROUP BY ALL", texts.join(", "));
    let sql = sql.replace(" GROUP BY ALL", " GROUP BY name, user, time, pid, memory_usage");
    let sent = QueryRequest { params: vec![Value { kind: Some(Kind::Integer(7)) }], ..request(&sql) };
    let answer = run(&engine, sent).await.unwrap();
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, [&["name", "user"], texts.as_slice()].concat());
    let counted = "SELECT (SELECT count(*) FROM process_events AS e WHERE e.parent_name = p.name) FROM process_events AS p ORDER BY p.seq";
    assert_eq!(rows(&engine, counted).await, ["3", "0", "0", "0", "0"]);
    let distinct = "SELECT DISTINCT lower(name), 1 FROM process_events ORDER BY lower(name) DESC";
    assert_eq!(rows(&engine, distinct).await, ["nc|1", "it's|1", "curl|1", "bash|1"]);
    assert_eq!(
        rows(&engine, "SELECT count(*) FROM process_events UNION ALL SELECT 1 + 1 ORDER BY 1").await,
        ["2", "5"]
    );
}

#[tokio::test]
async fn nothing_is_smaller_than_null() {
    let (_dir, engine) = small();
    let sql = "SELECT nullif(pid, 104) FROM process_events ORDER BY nullif(pid, 104)";
    assert_eq!(rows(&engine, sql).await, ["NULL", "100", "101", "102", "103"]);
    assert_eq!(rows(&engine, &format!("{sql} DESC LIMIT 2")).await, ["103", "102"]);
    assert_eq!(rows(&engine, &format!("{sql} DESC NULLS FIRST LIMIT 2")).await, ["NULL", "103"]);
    let sql =
        "SELECT pid, row_number() OVER (ORDER BY nullif(pid, 104) DESC) AS n FROM process_events ORDER BY n LIMIT 1";
    assert_eq!(rows(&engine, sql).await, ["103|1"]);
}

#[tokio::test]
async fn what_is_true_groups_and_is_told_apart_where_it_may_be_null() {
    let (_dir, engine) = small();
    const OF: &str = "nullif(pid, 104) = 103";
    for (is, yes, no) in [("TRUE", 1, 4), ("NOT TRUE", 4, 1), ("FALSE", 3, 2), ("NOT FALSE", 2, 3), ("UNKNOWN", 1, 4)]
    {
        let grouped = format!("SELECT ({OF}) IS {is} AS x, count(*) FROM process_events GROUP BY 1 ORDER BY 1");
        assert_eq!(rows(&engine, &grouped).await, [format!("false|{no}"), format!("true|{yes}")], "{is}");
        let distinct = format!("SELECT DISTINCT ({OF}) IS {is} AS x FROM process_events ORDER BY x");
        assert_eq!(rows(&engine, &distinct).await, ["false", "true"], "{is}");
        let united = format!("SELECT ({OF}) IS {is} AS x FROM process_events UNION SELECT false ORDER BY x");
        assert_eq!(rows(&engine, &united).await, ["false", "true"], "{is}");
        let asked = format!("SELECT count(*) FROM process_events WHERE ({OF}) IS {is}");
        assert_eq!(rows(&engine, &asked).await, [yes.to_string()], "{is}");
    }
}

#[tokio::test]
async fn numbers_round_and_durations_read_as_clocks() {
    let (_dir, engine) = small();
    for (sql, expected) in [
        (
            "SELECT abs(-5), abs(5 - 7.5), round(2.5), round(-2.345, 2), round(1234.5, -2), round(1, 400)",
            "5|2.5|3|-2.35|1200|1",
        ),
        ("SELECT abs(NULL), round(NULL, 1)", "NULL|NULL"),
        (
            "SELECT max(time) - min(time), min(time) - max(time), max(time) - max(time) FROM process_events",
            "00:01:01|-00:01:01|00:00:00",
        ),
        (
            "SELECT TIMESTAMP '2026-01-31T12:00:00.76Z' - TIMESTAMP '2026-01-30', time - TIMESTAMP '2026-01-28T12:00:00Z' \
             FROM process_events WHERE pid = 100",
            "1 day 12:00:00.76|3 days 00:00:00",
        ),
    ] {
        assert_eq!(rows(&engine, sql).await, [expected], "{sql}");
    }
}

#[tokio::test]
async fn a_time_may_stop_at_the_minute() {
    let (_dir, engine) = small();
    for time in [
        "'2026-01-31 12:01'",
        "'2026-01-31T12:01Z'",
        "'2026-01-31T13:01+01:00'",
        "TIMESTAMP '2026-01-31 12:01'",
        "datetime('2026-01-31T12:01Z')",
        "datetime('2026-01-31 12:02', '-1 minute')",
    ] {
        let sql = format!("SELECT count(*) FROM process_events WHERE time >= {time}");
        assert_eq!(rows(&engine, &sql).await, ["2"], "{time}");
    }
    for (sql, hint) in [
        ("SELECT pid FROM process_events WHERE time > 'yesterday'", "'2026-01-31 12:00:00'"),
        ("SELECT pid FROM process_events WHERE pid LIKE '1%'", "CAST(column AS TEXT)"),
        ("SELECT pid FROM processes WHERE name = \"sh\"", "'single quotes'"),
        ("SELECT path FROM processes", "executable_path"),
        ("SHOW TABLES", "the tables are"),
        ("PRAGMA table_info(processes)", "the tables are"),
        ("SELECT pid FROM processes WHERE pid = $1", "--param"),
    ] {
        let error = run(&engine, request(sql)).await.err().unwrap();
        assert!(error.refusal().unwrap().hint.contains(hint), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn a_join_answers_the_same_however_its_second_input_is_sifted() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
    let mut generator = Generator::new(5, NOON_US);
    for _ in 0..4 {
        store.append(ingest::decode("procmond", &generator.records(1_000)).unwrap()).unwrap();
        store.seal().unwrap();
    }
    store.append(ingest::decode("procmond", &generator.records(500)).unwrap()).unwrap();
    let engine = QueryEngine::new(Arc::clone(&store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap();
    let parents = "(SELECT entity_id, pid, seq FROM process_events WHERE event_type = 'start' AND name = 'sshd')";
    let children = "(SELECT parent_entity_id, ppid, name, seq FROM process_events WHERE event_type = 'start')";
    for (text, number) in [("parent_entity_id", "entity_id"), ("ppid", "pid")] {
        // The second compares each with each.
        let equal = format!("c.{text} = p.{number}");
        let between = format!("c.{text} >= p.{number} AND c.{text} <= p.{number}");
        for kind in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
            let sql = |on: &str| format!("SELECT c.seq, p.seq FROM {parents} AS p {kind} {children} AS c ON {on}");
            let (mut one, mut other) = (rows(&engine, &sql(&equal)).await, rows(&engine, &sql(&between)).await);
            one.sort();
            other.sort();
            assert!(one.len() > 10, "{kind}: {}", one.len());
            assert_eq!(one, other, "{kind} on {text}");
        }
        let within =
            format!("SELECT count(*) FROM {children} AS c WHERE c.{text} IN (SELECT p.{number} FROM {parents} AS p)");
        let paired = format!("SELECT count(DISTINCT c.seq) FROM {children} AS c JOIN {parents} AS p ON {between}");
        assert_eq!(rows(&engine, &within).await, rows(&engine, &paired).await, "IN on {text}");
        let limited = format!(
            "SELECT count(*) FROM {parents} AS p RIGHT JOIN (SELECT * FROM {children} LIMIT 40) AS c ON {equal}"
        );
        assert!(
            rows(&engine, &limited).await[0].parse::<usize>().unwrap() >= 40,
            "a limit counts rows without a partner"
        );
    }
}

#[tokio::test]
async fn a_range_of_time_answers_the_same_whether_it_cuts_through_files_or_not() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
    let mut generator = Generator::new(6, NOON_US);
    let mut times = Vec::new();
    for part in 0..4 {
        let records = generator.records(200);
        times.extend(records.iter().map(|record| record.time_us));
        store.append(ingest::decode("procmond", &records).unwrap()).unwrap();
        if part < 3 {
            store.seal().unwrap();
        }
    }
    let engine = QueryEngine::new(Arc::clone(&store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap();
    let text = |us: i64| jiff::Timestamp::from_microsecond(us).unwrap().to_string();
    let ends = [0, 1, 100, 199, 200, 399, 400, 450, 599, 600, 700, 799];
    let instants = ends.iter().flat_map(|at| [times[*at] - 1, times[*at], times[*at] + 1]);
    for us in instants.chain([NOON_US - SECOND_US, times[799] + SECOND_US]) {
        let count = |condition: String| format!("SELECT count(*) FROM process_events WHERE {condition}");
        let expected = |keep: &dyn Fn(i64) -> bool| vec![times.iter().filter(|time| keep(**time)).count().to_string()];
        let at = text(us);
        assert_eq!(
            ask(&engine, &count(format!("time >= '{at}'"))).await.rows.concat(),
            expected(&|time| time >= us),
            "{at}"
        );
        assert_eq!(
            ask(&engine, &count(format!("time < '{at}'"))).await.rows.concat(),
            expected(&|time| time < us),
            "{at}"
        );
        let later = text(us + SECOND_US);
        let both = count(format!("time > '{at}' AND '{later}' >= time"));
        assert_eq!(
            ask(&engine, &both).await.rows.concat(),
            expected(&|time| time > us && time <= us + SECOND_US),
            "{at}"
        );
    }
}
