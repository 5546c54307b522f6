//! The tables about the system: no more of them is read than was asked for, all of one query stand at one instant, and an answer says
//! what they have lost.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemoneye_engine::generate::Generator;
use daemoneye_engine::ingest;
use daemoneye_engine::sql::{CollectorRow, NoCollectors, QueryEngine, QueryError, QueryLimits, SystemTables};
use daemoneye_engine::store::{AlertFilter, Answer, RuleMatch, Store, StoreError, StoreOptions};
use daemoneye_lib::ledger::{AuditEntry, GENESIS, LedgerHeader};
use daemoneye_lib::model::{AlertStatus, Completeness, DetectionRule, RuleKind, RuleState, Severity};
use daemoneye_lib::proto::{QueryRequest, Value, value};
use daemoneye_lib::segment::{Kind, SegmentHeader, SegmentName, encode};
use redb::TableDefinition;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// 2026-01-31T12:00:00Z.
const NOON_US: i64 = 1_769_860_800_000_000;

fn rule() -> DetectionRule {
    DetectionRule {
        id: Uuid::from_u128(7),
        version: 1,
        hash: "00".to_owned(),
        name: "a rule".to_owned(),
        description: "it finds everything".to_owned(),
        author: "a test".to_owned(),
        references: Vec::new(),
        severity: Severity::Low,
        category: "process_creation".to_owned(),
        tags: Vec::new(),
        status: "test".to_owned(),
        false_positives: Vec::new(),
        sql: "SELECT * FROM process_events".to_owned(),
        dedup: vec!["number".to_owned()],
        dedup_window_s: 1,
        state: RuleState::Active,
        kind: RuleKind::Stream,
        pack: String::new(),
        file: "rule.yml".to_owned(),
    }
}

/// Until it opens: a program that another test is just starting may hold the lock of the file before for an instant.
fn when_closed<T, E: std::fmt::Display>(mut open: impl FnMut() -> Result<T, E>, is_held: impl Fn(&E) -> bool) -> T {
    let began = Instant::now();
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(error) if is_held(&error) && began.elapsed() < crate::PATIENCE => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A store that delivers to one sink and limits nothing.
pub(crate) fn open(dir: &Path) -> Arc<Store> {
    let options = || StoreOptions {
        sinks: vec!["file".to_owned()],
        rate_per_rule: u32::MAX,
        rate_total: u32::MAX,
        ..StoreOptions::new(dir)
    };
    let store = when_closed(|| Store::open(options()), |error| matches!(error, StoreError::InUse { .. }));
    Arc::new(store)
}

/// One alert for each of `count` events, and a delivery for each alert.
pub(crate) fn raise(store: &Store, seed: u64, count: usize) {
    let mut records = Generator::new(seed, NOON_US).records(count);
    // Each seed has an epoch of its own, which keeps their events apart.
    records.iter_mut().for_each(|record| record.sequence.as_mut().unwrap().epoch += seed);
    let batch = ingest::decode("procmond", &records).unwrap();
    let (rule, batch) = (Arc::new(rule()), Arc::new(batch.batch));
    let one = |row| RuleMatch {
        rule: Arc::clone(&rule),
        batch: Arc::clone(&batch),
        row,
        answer: Answer::Row(serde_json::Map::from_iter([
            ("number".to_owned(), format!("{seed} {row}").into()),
            ("said".to_owned(), "x".repeat(512).into()),
        ])),
        completeness: Completeness::complete(),
    };
    let raised = store.commit_matches((0..batch.num_rows()).map(one).collect()).unwrap();
    assert_eq!(raised.len(), count);
}

pub(crate) fn engine(store: &Arc<Store>, extra: Arc<dyn SystemTables>) -> QueryEngine {
    let limits = QueryLimits { deadline: Duration::from_secs(120), ..QueryLimits::default() };
    QueryEngine::new(Arc::clone(store), limits, extra).unwrap()
}

fn shown(value: &Value) -> String {
    match &value.kind {
        Some(value::Kind::Integer(value)) => value.to_string(),
        Some(value::Kind::Text(value)) => value.clone(),
        other => format!("{other:?}"),
    }
}

/// The first column of the rows, and why they are not all.
pub(crate) async fn answer(engine: &QueryEngine, sql: &str) -> Result<(Vec<String>, Vec<String>), QueryError> {
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    let mut run = engine.query(request, CancellationToken::new()).await?;
    let mut rows = Vec::new();
    while let Some(page) = run.next_page().await? {
        rows.extend(page.rows.iter().map(|row| shown(&row.values[0])));
    }
    Ok((rows, run.done().completeness.unwrap().degraded))
}

async fn rows(engine: &QueryEngine, sql: &str) -> Vec<String> {
    let (rows, degraded) = answer(engine, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(degraded, Vec::<String>::new(), "{sql}");
    rows
}

/// The value type of `alerts`, with bytes of the test's choosing.
#[derive(Debug)]
struct RawAlert;

impl redb::Value for RawAlert {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }
    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }
    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }
    fn type_name() -> redb::TypeName {
        redb::TypeName::new("daemoneye::alerts")
    }
}

#[tokio::test]
async fn alerts_are_read_only_as_far_as_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    raise(&store, 7, 200);
    let all = store.alerts(&AlertFilter::default()).unwrap();
    let (newest, oldest) = (all[0].clone(), all[199].clone());
    store.set_alert_status(oldest.id, AlertStatus::Closed, "operator:alice", "known").unwrap();
    drop(store);
    // Whoever reads the oldest alert fails.
    let is_held = |error: &redb::DatabaseError| matches!(error, redb::DatabaseError::DatabaseAlreadyOpen);
    let db = when_closed(|| redb::Database::open(dir.path().join("state.redb")), is_held);
    let transaction = db.begin_write().unwrap();
    let alerts = TableDefinition::<u128, RawAlert>::new("alerts");
    transaction.open_table(alerts).unwrap().insert(oldest.id.as_u128(), [9_u8].as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);

    let engine = engine(&open(dir.path()), Arc::new(NoCollectors));
    let failed = answer(&engine, "SELECT title FROM alerts").await.unwrap_err().to_string();
    assert!(failed.contains("alerts"), "{failed}");
    let newest_id = [newest.id.to_string()];
    let first = "SELECT id, title FROM alerts WHERE status <> 'suppressed' ORDER BY time DESC LIMIT 1";
    assert_eq!(rows(&engine, first).await, newest_id);
    assert_eq!(rows(&engine, &format!("SELECT id, title FROM alerts WHERE id = '{}'", newest.id)).await, newest_id);
    assert_eq!(rows(&engine, "SELECT title FROM alerts LIMIT 3").await.len(), 3);
    assert_eq!(rows(&engine, "SELECT title FROM alerts WHERE status IN ('open', 'reopened')").await.len(), 199);
    let later = jiff::Timestamp::from_microsecond(oldest.time_us + 2).unwrap();
    let since = format!("SELECT title FROM alerts WHERE time >= '{later}'");
    let expected = all.iter().filter(|alert| alert.time_us >= oldest.time_us + 2).count();
    assert_eq!(rows(&engine, &since).await.len(), expected);
    // The index alone has these.
    assert_eq!(rows(&engine, "SELECT count(*) FROM alerts").await, ["200"]);
    assert_eq!(rows(&engine, "SELECT status FROM alerts ORDER BY status LIMIT 1").await, ["closed"]);
    let prefix = &oldest.id.to_string()[..12];
    assert_eq!(
        rows(&engine, &format!("SELECT id FROM alerts WHERE starts_with(id, '{prefix}')")).await,
        [oldest.id.to_string()]
    );
}

/// Raises an alert each time it is asked.
struct Raising(Arc<Store>, Mutex<u64>);

impl SystemTables for Raising {
    fn collectors(&self) -> Vec<CollectorRow> {
        let mut seed = self.1.lock().unwrap();
        *seed += 1;
        raise(&self.0, *seed, 1);
        Vec::new()
    }
}

#[tokio::test]
async fn the_tables_of_one_query_stand_at_one_instant() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    raise(&store, 1, 3);
    // Whoever plans a read of `processes` asks for the collectors first.
    let engine = engine(&store, Arc::new(Raising(Arc::clone(&store), Mutex::new(1))));
    for (first, then) in [("alerts", "alert_deliveries"), ("alert_deliveries", "alerts")] {
        let count = |table: &str| format!("SELECT count(*) FROM {table}");
        let sql = [first, "processes", then].map(count).join(" UNION ALL ");
        let counts = rows(&engine, &sql).await;
        let of_alerts: Vec<&String> = counts.iter().filter(|count| *count != "0").collect();
        assert!(of_alerts.len() == 2 && of_alerts[0] == of_alerts[1], "{counts:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_cuts_a_query_over_many_alerts_degrades_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..4).for_each(|seed| raise(&store, seed, 1_000));
    // Neither memory nor rows cut them before the deadline does.
    let (deadline, memory_bytes) = (Duration::from_secs(120), 2 * 1024 * 1024 * 1024);
    let limits = QueryLimits { deadline, memory_bytes, row_cap: u64::MAX, ..QueryLimits::default() };
    let engine = QueryEngine::new(Arc::clone(&store), limits, Arc::new(NoCollectors)).unwrap();
    // All of them take longer than any deadline that a test would wait for.
    for (sql, has_rows) in [
        (
            "SELECT count(*) FROM alerts a, alerts b, alerts c WHERE length(a.row) + length(b.row) > length(c.row)",
            false,
        ),
        ("SELECT a.id FROM alerts a JOIN alerts b ON a.row || b.row ~ 'no such alert'", false),
        ("SELECT a.id, b.row FROM alerts a, alerts b", true),
    ] {
        let request = QueryRequest { sql: sql.to_owned(), deadline_ms: Some(3_000), ..QueryRequest::default() };
        let asked = async || engine.query(request.clone(), CancellationToken::new()).await;
        let mut run = crate::when_free(asked).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let mut rows = 0;
        while let Some(page) = run.next_page().await.unwrap_or_else(|error| panic!("{sql}: {error}")) {
            rows += page.rows.len();
        }
        assert_eq!(run.done().completeness.unwrap().degraded, ["timed_out"], "{sql}");
        assert_eq!(rows > 0, has_rows, "{sql}: {rows} rows");
    }
}

#[tokio::test]
async fn what_the_ledger_says_is_paid_for_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let audit = dir.path().join("audit");
    std::fs::create_dir(&audit).unwrap();
    let header = SegmentHeader { kind: Kind::Ledger, previous_crc: 0, epoch: 1, segment: 1, first: 1 };
    let (mut bytes, mut crc, payload) = (header.encode().to_vec(), 0, vec![b'x'; 16 * 1024]);
    for sequence in 0..200 {
        let entry = AuditEntry::link(sequence, GENESIS, 1_000, "agent", "alert", &payload);
        let header = LedgerHeader { entry, outbox_id: 0, covered_epoch: 0, covered_number: 0 };
        crc = encode(&mut bytes, crc, 0, &header, &payload).unwrap();
    }
    std::fs::write(audit.join(SegmentName::ledger().file(1)), bytes).unwrap();
    let counted = "SELECT count(*) FROM audit_entries WHERE length(payload) > 0";
    let enough = engine(&store, Arc::new(NoCollectors));
    assert_eq!(rows(&enough, counted).await, ["200"]);
    // The payloads alone are 3 MiB.
    let limits = QueryLimits { memory_bytes: 2 * 1024 * 1024, ..QueryLimits::default() };
    let short = QueryEngine::new(Arc::clone(&store), limits, Arc::new(NoCollectors)).unwrap();
    assert_eq!(answer(&short, counted).await.unwrap().1, ["capped"]);
}

#[tokio::test]
async fn an_answer_says_what_retention_took_of_the_time_that_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    raise(&store, 7, 20);
    let all = store.alerts(&AlertFilter::default()).unwrap();
    let (first, last) = (all[19].time_us, all[0].time_us);
    let at = |us: i64| format!("'{}'", jiff::Timestamp::from_microsecond(us).unwrap());
    let from_first = format!("SELECT count(*) FROM alerts WHERE time >= {}", at(first));
    let later = format!("SELECT count(*) FROM alerts WHERE time >= {}", at(last + 10));
    assert_eq!(rows(&engine(&store, Arc::new(NoCollectors)), &from_first).await, ["20"]);
    let now_us = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    assert_eq!(store.expire(now_us + 31 * 86_400_000_000).unwrap().alerts, 20);
    let engine = engine(&store, Arc::new(NoCollectors));
    let capped = (vec!["0".to_owned()], vec!["capped".to_owned()]);
    assert_eq!(answer(&engine, &from_first).await.unwrap(), capped);
    let deliveries = format!("SELECT count(*) FROM alert_deliveries WHERE created <= {}", at(first));
    assert_eq!(answer(&engine, &deliveries).await.unwrap(), capped);
    // What came later is all there, and without a begin it is asked for what there is.
    assert_eq!(rows(&engine, &later).await, ["0"]);
    assert_eq!(rows(&engine, "SELECT count(*) FROM alerts").await, ["0"]);
}

#[tokio::test]
async fn a_copied_store_says_which_tables_only_a_running_agent_fills() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let engine = engine(&store, Arc::new(NoCollectors));
    for table in ["collectors", "rule_stats", "rule_lists", "rule_problems"] {
        let (_, degraded) = answer(&engine, &format!("SELECT * FROM {table}")).await.unwrap();
        assert_eq!(degraded, ["schema_unavailable"], "{table}");
    }
    // What `rules list` asks of it.
    assert!(rows(&engine, "SELECT CAST(NULL AS TEXT) AS health, r.id FROM rules r ORDER BY r.name").await.is_empty());
    assert_eq!(rows(&engine, "SELECT count(*) FROM alerts").await, ["0"]);
}
