//! Data directories as every format so far was written, opened by this build.
//!
//! `DAEMONEYE_GOLDEN=<directory>` writes one of the present format there; a change of the format commits that of the new one as
//! `v<N>/`. A table that needs no new format, because an empty one says the same, commits another as `v<N>b/`.

mod write;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemoneye_engine::ingest::decode;
use daemoneye_engine::sql::{NoCollectors, QueryEngine, QueryLimits};
use daemoneye_engine::store::{AlertFilter, DeliveryState, FORMAT_VERSION, RuleText, Store, StoreOptions};
use daemoneye_lib::model::AlertStatus;
use daemoneye_lib::proto::{QueryRequest, Sequence, Value, value::Kind};
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableHandle as _};
use tokio_util::sync::CancellationToken;

pub(crate) use self::write::rule;
pub(super) use self::write::text;
use self::write::{LEDGER, NOON_US, list, scan, system, write, write_later};
use super::damage::{copy, panics, parquet, start};

/// The format before it kept nothing of a process that had ended but its events.
const FIRST_WITH_LIFETIMES: u32 = 3;

/// Directories of format 4 that later builds wrote, with the tables that came meanwhile; the last has all of them.
const LATER: [&str; 2] = ["v4b", "v4c"];
/// Tables that have rows for a moment only, or from retention beside a ledger.
const PASSING: &[&str] = &["alerts_grown", "audit_owed", "range_leaves", "segments_leaving"];

fn golden(version: u32) -> PathBuf {
    named(&format!("v{version}"))
}

fn named(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden").join(name)
}

/// A copy that may be changed.
pub(super) fn copied(version: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(version), dir.path());
    dir
}

fn shown(value: &Value) -> String {
    match &value.kind {
        Some(Kind::Integer(value)) => value.to_string(),
        Some(Kind::Text(value)) => value.clone(),
        other => format!("{other:?}"),
    }
}

/// The only row of the answer.
pub(super) fn answer(store: &Arc<Store>, sql: &str) -> Vec<String> {
    let engine = QueryEngine::new(Arc::clone(store), QueryLimits::default(), Arc::new(NoCollectors)).unwrap();
    let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut run = engine.query(request, CancellationToken::new()).await.unwrap();
        let page = run.next_page().await.unwrap().unwrap();
        page.rows.first().unwrap().values.iter().map(shown).collect()
    })
}

/// What `write` has put there.
fn check(store: &Store, version: u32) {
    let alerts = store.alerts(&AlertFilter::default()).unwrap();
    assert_eq!(alerts.iter().map(|alert| alert.count).collect::<Vec<_>>(), [1, 1, 1]);
    let acknowledged = alerts.iter().filter(|alert| alert.status == AlertStatus::Acknowledged);
    assert_eq!(acknowledged.map(|alert| alert.time_us).collect::<Vec<_>>(), [NOON_US + 11_000_000]);
    let stats = store.outbox_stats().unwrap();
    let counts: Vec<_> = stats.iter().map(|of| (of.sink.as_str(), of.done, of.pending, of.dead)).collect();
    assert_eq!(counts, [("file", 1, 2, 0), ("stdout", 0, 3, 0)]);
    let failed = store.deliveries().unwrap().into_iter().filter(|row| row.last_error.as_deref() == Some("closed"));
    assert_eq!(failed.map(|row| row.state).collect::<Vec<_>>(), [DeliveryState::Pending]);
    assert_eq!(store.outbox_due("file", NOON_US, 9).unwrap().len(), 2);
    let rules: Vec<String> = store.rules().unwrap().into_iter().map(|rule| rule.name).collect();
    assert_eq!(rules, [rule().name]);
    let reasons: Vec<String> = store.coverage().unwrap().into_iter().map(|row| row.gap.reason).collect();
    let (converted, told): (Vec<_>, Vec<_>) = reasons.iter().partition(|reason| *reason == "lifetimes_retention");
    assert_eq!(told, ["wal_bound", "undecodable"]);
    assert_eq!(
        converted.len(),
        usize::from(version < FIRST_WITH_LIFETIMES),
        "what an older build did not keep is told once"
    );
    let audited = store.audit_waiting(100).unwrap();
    assert_eq!(audited.iter().filter(|entry| entry.action == "alert").count(), 3);
    assert_eq!((store.system_info().unwrap(), store.scans().unwrap()), (vec![system()], vec![scan()]));
    assert_eq!(store.committed("procmond"), Some(Sequence::new(1, 22)));
    assert_eq!(store.committed("netmond"), Some(Sequence::new(1, 105)));
    // The first one has stopped.
    assert_eq!(store.live().unwrap().num_rows(), 24);
    assert_eq!(store.check_segments().unwrap(), []);
}

fn check_answers(store: &Arc<Store>, version: u32) {
    let events = "SELECT count(*), count(DISTINCT entity_id), min(seq), max(seq) FROM process_events";
    assert_eq!(answer(store, events), ["26", "25", "1", "105"]);
    let one = "SELECT command_line FROM process_events WHERE name = 'p7'";
    assert_eq!(answer(store, one), ["p7 --flag"]);
    assert_eq!(answer(store, "SELECT count(*) FROM alerts WHERE status = 'open'"), ["2"]);
    assert_eq!(answer(store, "SELECT count(*) FROM processes"), ["24"]);
    let ended = usize::from(version >= FIRST_WITH_LIFETIMES);
    let lifetimes = "SELECT count(*), count(stop_time), count(DISTINCT entity_id) FROM process_lifetimes";
    let count = (24 + ended).to_string();
    assert_eq!(answer(store, lifetimes), [count.clone(), ended.to_string(), count]);
}

fn check_later(store: &Store) {
    let texts = store.rule_texts().unwrap();
    let texts: Vec<RuleText> = texts.into_iter().map(|kept| RuleText { since_us: NOON_US, ..kept }).collect();
    assert_eq!(texts, [text()]);
    assert_eq!(store.kept_lists().unwrap(), [list()]);
    assert_eq!(store.ledger_mark("procmond").unwrap(), Some(LEDGER));
}

/// Tables without a row.
fn empty_tables(dir: &Path) -> Vec<String> {
    let state = Database::open(dir.join("state.redb")).unwrap();
    let transaction = state.begin_read().unwrap();
    let names = transaction.list_tables().unwrap();
    let empty = names.filter(|table| transaction.open_untyped_table(table.clone()).unwrap().is_empty().unwrap());
    let mut empty: Vec<String> = empty.map(|table| table.name().to_owned()).collect();
    empty.sort();
    empty
}

#[test]
fn every_table_is_in_the_golden_directories_but_passing_ones() {
    let fresh = tempfile::tempdir().unwrap();
    write(fresh.path());
    write_later(fresh.path());
    let kept = tempfile::tempdir().unwrap();
    copy(&named(LATER[1]), kept.path());
    for dir in [&fresh, &kept] {
        assert_eq!(empty_tables(dir.path()), PASSING);
        check_later(&Store::open(StoreOptions::new(dir.path())).unwrap());
    }
}

#[test]
fn a_data_directory_of_every_format_so_far_opens_and_answers() {
    if let Some(dir) = std::env::var_os("DAEMONEYE_GOLDEN") {
        write(Path::new(&dir));
        write_later(Path::new(&dir));
    }
    let fresh = tempfile::tempdir().unwrap();
    write(fresh.path());
    // Also the present one as it was first written: a layout that changes without its version would be found here.
    let written = (1..=FORMAT_VERSION).map(|version| (version, copied(version)));
    let later = LATER.map(|name| {
        let dir = tempfile::tempdir().unwrap();
        copy(&named(name), dir.path());
        (4, dir)
    });
    for (version, dir) in written.chain(later).chain([(FORMAT_VERSION, fresh)]) {
        println!("format {version}, {}", dir.path().display());
        let offline = Arc::new(Store::open_offline(dir.path()).unwrap());
        check(&offline, version);
        check_answers(&offline, version);
        close(offline);
        for _ in 0..2 {
            let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
            check(&store, version);
            check_answers(&store, version);
            close(store);
        }
    }
}

/// The thread of a query that has ended may hold the store for a moment longer.
fn close(store: Arc<Store>) {
    let began = std::time::Instant::now();
    while Arc::strong_count(&store) > 1 {
        assert!(began.elapsed().as_secs() < 20, "somebody keeps the store");
        std::thread::yield_now();
    }
}

/// Everything that a store can be asked, and something of everything that changes it.
fn use_all_of(dir: &Path) -> Result<(), String> {
    let store = Store::open(StoreOptions::new(dir)).map_err(|error| error.to_string())?;
    let told = |error: daemoneye_engine::store::StoreError| error.to_string();
    store.alerts(&AlertFilter::default()).map_err(told)?;
    store.deliveries().map_err(told)?;
    store.outbox_due("file", i64::MAX, 9).map_err(told)?;
    store.outbox_stats().map_err(told)?;
    store.rules().map_err(told)?;
    store.coverage().map_err(told)?;
    store.audit_pending(9).map_err(told)?;
    store.system_info().map_err(told)?;
    store.scans().map_err(told)?;
    store.stats().map_err(told)?;
    store.live().map_err(told)?;
    store.check_segments().map_err(told)?;
    store.set_rules(vec![rule()]).map_err(told)?;
    store.append(decode("procmond", &[start(30)]).unwrap()).map_err(told)?;
    store.seal().map_err(told)?;
    store.audit_done(3).map_err(told)?;
    store.expire(NOON_US).map_err(told)?;
    Ok(())
}

#[test]
fn a_flipped_byte_anywhere_in_the_state_is_survived_or_named_and_never_panics() {
    let whole = fs::read(golden(2).join("state.redb")).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let cases = std::env::var("DAEMONEYE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let (mut survived, mut named) = (0, 0);
    for case in 0..cases {
        let at = used[case * 7_919 % used.len()];
        let dir = copied(2);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (case % 8);
        fs::write(dir.path().join("state.redb"), bytes).unwrap();
        match panics(|| use_all_of(dir.path())) {
            Ok(Ok(())) => survived += 1,
            Ok(Err(what)) => {
                assert!(what.contains("state.redb") || what.contains("segment"), "byte {at}: {what}");
                named += 1;
            }
            Err(()) => panic!("byte {at}, bit {}: the store panicked", case % 8),
        }
        assert_eq!(parquet(&dir.path().join("segments")).len().min(3), 3, "byte {at}: history stays");
    }
    println!("{survived} survived, {named} named");
    assert!(survived > 0 && named > 0);
}
