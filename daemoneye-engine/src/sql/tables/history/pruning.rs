//! What a query does not read, by the figures that EXPLAIN ANALYZE shows.

use std::collections::BTreeMap;

use daemoneye_lib::proto::{ProcessEvent, Record};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::{ExecutionPlan, collect};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::super::{NoCollectors, QueryView, segment_files};
use super::*;
use crate::generate::Generator;
use crate::ingest::decode;
use crate::sql::allowance::Allowance;
use crate::sql::{check, session};
use crate::store::{Store, StoreOptions};

/// 2026-01-31, the beginning of a day.
const T0: i64 = 1_769_817_600_000_000;
const HOUR_US: i64 = 3_600_000_000;
/// Three pages, in a row group of its own.
const MANY: usize = 40_000;

/// An hour of many events, then five of a few; compacted. The last hour has an executable of its own.
fn history() -> (tempfile::TempDir, Arc<Store>, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { compaction_bytes_per_s: 0, ..StoreOptions::new(dir.path()) }).unwrap();
    let (mut generator, mut sent) = (Generator::new(3, T0), Vec::new());
    for (hour, count) in (0_i64..).zip([MANY, 500, 500, 500, 500, 500]) {
        for _ in 0..2 {
            let records: Vec<Record> =
                generator.records(count / 2).into_iter().map(|record| at(record, hour)).collect();
            store.append(decode("procmond", &records).unwrap()).unwrap();
            store.seal().unwrap();
            sent.extend(records);
        }
    }
    while store.compact(T0 + 12 * HOUR_US, &CancellationToken::new()).unwrap().is_some() {}
    assert_eq!(store.snapshot().segments.len(), 6);
    (dir, Arc::new(store), sent)
}

/// The same event in this hour.
fn at(mut record: Record, hour: i64) -> Record {
    let mut event = ProcessEvent::decode(record.payload.clone()).unwrap();
    let number = i64::try_from(record.sequence.as_ref().unwrap().number).unwrap();
    event.time_us = T0 + hour * HOUR_US + number * 50_000 % HOUR_US;
    if hour == 5 {
        event.process.as_mut().unwrap().executable_hash = Some("f00d".repeat(16));
    }
    record.payload = event.encode_to_vec().into();
    record
}

/// What the reader of Parquet counted, and the rows of the answer.
async fn analyze(store: &Arc<Store>, sql: &str) -> (BTreeMap<String, (usize, usize)>, usize) {
    let checked = check(sql).unwrap();
    let view = QueryView::new(Arc::clone(store), Arc::new(NoCollectors), Default::default());
    let environment = RuntimeEnvBuilder::new().with_object_store_registry(segment_files(store.dir()).unwrap());
    let tables = view.tables(checked.tables());
    let state = session::with_tables(tables, environment.build_arc().unwrap(), Allowance::alone()).unwrap();
    let plan = session::plan(&state, &checked).await.unwrap();
    let plan = state.create_physical_plan(&plan).await.unwrap();
    let rows = collect(Arc::clone(&plan), state.task_ctx()).await.unwrap();
    let mut counted = BTreeMap::from([("files".to_owned(), (0, view.opened().len()))]);
    count(plan.as_ref(), &mut counted);
    counted.entry("row_groups_pruned_bloom_filter".to_owned()).or_default().0 += view.excluded_row_groups();
    (counted, rows.iter().map(|batch| batch.num_rows()).sum())
}

/// Pruned and kept, or zero and the figure.
fn count(plan: &dyn ExecutionPlan, counted: &mut BTreeMap<String, (usize, usize)>) {
    for metric in plan.metrics().iter().flat_map(|metrics| metrics.iter()) {
        let (pruned, kept) = match metric.value() {
            MetricValue::PruningMetrics { pruning_metrics, .. } => {
                (pruning_metrics.pruned(), pruning_metrics.matched())
            }
            value => (0, value.as_usize()),
        };
        let entry = counted.entry(metric.value().name().to_owned()).or_insert((0, 0));
        *entry = (entry.0 + pruned, entry.1 + kept);
    }
    plan.children().into_iter().for_each(|child| count(child.as_ref(), counted));
}

fn entity(record: &Record) -> String {
    hex::encode(ProcessEvent::decode(record.payload.clone()).unwrap().process.unwrap().entity_id)
}

#[tokio::test]
async fn a_point_lookup_reads_the_row_groups_and_rows_that_may_have_it_and_no_others() {
    let (_dir, store, sent) = history();
    let newest = entity(sent.last().unwrap());
    let (counted, rows) =
        analyze(&store, &format!("SELECT command_line FROM process_events WHERE entity_id = '{newest}'")).await;
    assert!(rows > 0);
    let (pruned, kept) = counted["row_groups_pruned_bloom_filter"];
    assert!(pruned >= 3 && kept <= 3 && pruned + kept == 6, "{counted:#?}");
    let (_, read) = counted["pushdown_rows_matched"];
    assert_eq!(read, rows, "the other columns are decoded for the rows that match only: {counted:#?}");

    let (counted, rows) =
        analyze(&store, &format!("SELECT pid FROM process_events WHERE executable_hash = '{}'", "f00d".repeat(16)))
            .await;
    assert_eq!(rows, 500);
    assert_eq!(counted["row_groups_pruned_bloom_filter"], (5, 1), "{counted:#?}");
    assert_eq!(analyze(&store, "SELECT pid FROM process_events WHERE name = 'mimikatz'").await.1, 0);
    let listed = ["f00d", "beef", "cafe", "d00d"].map(|half| format!("'{}'", half.repeat(16))).join(", ");
    let (counted, rows) =
        analyze(&store, &format!("SELECT pid FROM process_events WHERE executable_hash IN ({listed})")).await;
    assert_eq!((rows, counted["row_groups_pruned_bloom_filter"]), (500, (5, 1)), "{counted:#?}");
    // A few are written as comparisons.
    let few = format!("executable_hash IN ('{}', 'beef') AND pid > 0", "f00d".repeat(16));
    let (counted, rows) = analyze(&store, &format!("SELECT pid FROM process_events WHERE {few}")).await;
    assert_eq!((rows, counted["row_groups_pruned_bloom_filter"]), (500, (5, 1)), "{counted:#?}");
}

#[tokio::test]
async fn a_lookup_in_many_row_groups_has_several_readers_and_its_rows_are_in_order() {
    let (_dir, store, sent) = history();
    let sql = "SELECT name, seq FROM process_events WHERE name = 'bash'";
    let checked = check(sql).unwrap();
    let view = QueryView::new(Arc::clone(&store), Arc::new(NoCollectors), Default::default());
    let environment = RuntimeEnvBuilder::new().with_object_store_registry(segment_files(store.dir()).unwrap());
    let tables = view.tables(checked.tables());
    let mut state = session::with_tables(tables, environment.build_arc().unwrap(), Allowance::alone()).unwrap();
    let plan = session::plan(&state, &checked).await.unwrap();
    assert!(!session::spread(&mut state, &plan, 2), "it gathers nothing");
    let plan = ordered(state.create_physical_plan(&plan).await.unwrap()).unwrap();
    let plan = crate::sql::operators::limited(plan, &Allowance::alone(), true).unwrap();
    let drawn = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(drawn.contains("InTurn") && drawn.contains("2 groups"), "{drawn}");
    let rows = collect(plan, state.task_ctx()).await.unwrap();
    let mut found: Vec<i64> = Vec::new();
    for batch in &rows {
        found.extend(batch.column(1).as_primitive::<datafusion::arrow::datatypes::Int64Type>().values());
    }
    let name = |record: &Record| ProcessEvent::decode(record.payload.clone()).unwrap().process.unwrap().name;
    let expected = sent.iter().filter(|record| name(record) == "bash").count();
    assert_eq!(found.len(), expected);
    let alone = analyze(&store, sql).await;
    assert_eq!(alone.1, expected);
    let times: Vec<i64> = found.iter().map(|seq| time_of(&sent, *seq)).collect();
    assert!(times.is_sorted(), "the files and their rows lie in the order of time");
}

fn time_of(sent: &[Record], seq: i64) -> i64 {
    let number = u64::try_from(seq).unwrap();
    let at = sent.partition_point(|record| record.sequence.as_ref().unwrap().number < number);
    ProcessEvent::decode(sent[at].payload.clone()).unwrap().time_us
}

#[tokio::test]
async fn a_time_slice_reads_the_segments_and_pages_of_its_time() {
    let (_dir, store, _) = history();
    let slice = "time >= '2026-01-31 00:20:00' AND time < '2026-01-31 00:21:00'";
    let (counted, rows) = analyze(&store, &format!("SELECT name FROM process_events WHERE {slice}")).await;
    assert_eq!((rows, counted["files"]), (1_200, (0, 1)), "{counted:#?}");
    let (pruned, kept) = counted["page_index_pages_pruned"];
    assert!(pruned >= 1 && kept >= 1, "{counted:#?}");

    let (counted, rows) = analyze(&store, "SELECT name FROM process_events WHERE pid > 4000000").await;
    assert_eq!((rows, counted["row_groups_pruned_statistics"]), (0, (6, 0)), "{counted:#?}");
}
