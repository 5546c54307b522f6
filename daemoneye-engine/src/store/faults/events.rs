//! What exists in a run: the events by number, the rows and lifetimes that they make, and what a store has of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::model::{Completeness, DetectionRule, RuleKind, RuleState, Severity};
use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord, Record, Sequence};
use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message as _;
use uuid::Uuid;

use super::super::{Answer, RuleMatch, Store};
use super::T0;
use crate::ingest::{EventBatch, decode};

/// Events between a start and its end; no multiple of three, so that an end always meets a start.
const ENDS_AFTER: u64 = 5;

pub(super) fn process(pid: u32) -> ProcessRecord {
    let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
    ProcessRecord { entity_id, pid, name: format!("p{pid}"), ..ProcessRecord::default() }
}

/// The process that event `number` ends: one of those that started shortly before, so that seals and power cuts come between.
const fn ended_by(number: u64) -> Option<u64> {
    if number > ENDS_AFTER && number.is_multiple_of(3) { Some(number - ENDS_AFTER) } else { None }
}

/// Event `number`: the end of an earlier process, or the start of one that has its number as pid.
fn event(number: u64) -> Record {
    let (event_type, pid) = ended_by(number).map_or((EventType::Start, number), |pid| (EventType::Stop, pid));
    let pid = u32::try_from(pid).unwrap();
    let time_us = T0 + i64::try_from(number).unwrap() * 1_000_000;
    let process = Some(process(pid));
    let mut event = ProcessEvent { event_type: event_type.into(), time_us, process, ..ProcessEvent::default() };
    if event_type == EventType::Stop {
        (event.exit_code, event.end_observed) = (Some(0), Some(true));
    }
    let topic = "events.process.start".to_owned();
    Record { sequence: Some(Sequence::new(1, number)), topic, time_us, payload: event.encode_to_vec().into() }
}

pub(super) fn batch(numbers: std::ops::RangeInclusive<u64>) -> EventBatch {
    decode("procmond", &numbers.map(event).collect::<Vec<_>>()).unwrap()
}

/// Every start is a match, with a key of its own; the end of the same process would have that key too.
pub(super) fn matches(batch: &EventBatch) -> Vec<RuleMatch> {
    let rule = Arc::new(DetectionRule {
        id: Uuid::from_u128(1),
        version: 1,
        hash: "h".into(),
        name: "n".into(),
        description: String::new(),
        author: String::new(),
        references: Vec::new(),
        severity: Severity::High,
        category: String::new(),
        tags: Vec::new(),
        status: String::new(),
        false_positives: Vec::new(),
        sql: String::new(),
        dedup: Vec::new(),
        dedup_window_s: 0,
        state: RuleState::Active,
        kind: RuleKind::Stream,
        pack: String::new(),
        file: String::new(),
    });
    let one = |row| RuleMatch {
        rule: Arc::clone(&rule),
        batch: Arc::new(batch.batch.clone()),
        row,
        answer: Answer::Row(serde_json::Map::new()),
        completeness: Completeness::complete(),
    };
    let kinds = batch.batch.column_by_name("event_type").unwrap().as_string::<i32>();
    (0..batch.batch.num_rows()).filter(|row| kinds.value(*row) == "start").map(one).collect()
}

/// How often each event is in the files.
pub(super) fn sealed(store: &Store) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for file in store.snapshot().segments {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file.path).unwrap()).unwrap();
        let mask = ProjectionMask::columns(reader.parquet_schema(), ["seq"]);
        for batch in reader.with_projection(mask).build().unwrap() {
            for number in batch.unwrap().column(0).as_primitive::<Int64Type>().values() {
                *found.entry(u64::try_from(*number).unwrap()).or_insert(0) += 1;
            }
        }
    }
    found
}

/// How often each event is in memory.
pub(super) fn open(store: &Store) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for batch in store.snapshot().open {
        for number in batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values() {
            *found.entry(u64::try_from(*number).unwrap()).or_insert(0) += 1;
        }
    }
    found
}

/// How often each process stands in `process_lifetimes`, and the event that ended it. What is sealed comes from the files alone.
pub(super) fn lifetimes(store: &Store) -> BTreeMap<(u64, Option<u64>), usize> {
    let snapshot = store.snapshot_with_lifetimes();
    let read = |path: &Path| ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build();
    let sealed = snapshot.lifetimes.iter().flat_map(|file| read(&file.path).unwrap().map(Result::unwrap));
    let mut found = BTreeMap::new();
    for batch in sealed.chain(snapshot.open_lifetimes.clone().rows().map(Result::unwrap)) {
        let column = |name| batch.column_by_name(name).unwrap();
        let (pids, numbers) = (column("pid").as_primitive::<Int64Type>(), column("seq").as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let pid = u64::try_from(pids.value(row)).unwrap();
            let by = column("stop_time").is_valid(row).then(|| u64::try_from(numbers.value(row)).unwrap());
            *found.entry((pid, by)).or_insert(0) += 1;
        }
    }
    found
}

/// One lifetime for each process of the events up to `last`: ended where its end is among them, open where it is not.
pub(super) fn lived(last: u64) -> BTreeMap<(u64, Option<u64>), usize> {
    let ends: BTreeMap<u64, u64> = (1..=last).filter_map(|number| Some((ended_by(number)?, number))).collect();
    let starts = (1..=last).filter(|number| ended_by(*number).is_none());
    starts.map(|pid| ((pid, ends.get(&pid).copied()), 1)).collect()
}

pub(super) fn once(numbers: std::ops::RangeInclusive<u64>) -> BTreeMap<u64, usize> {
    numbers.map(|number| (number, 1)).collect()
}
