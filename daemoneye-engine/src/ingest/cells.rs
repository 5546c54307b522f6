//! Rows of `process_events` as the cells that the ledger's hashes are made of.

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use daemoneye_lib::event_json::Cell;
use daemoneye_lib::ledger::{Hash, event};
use datafusion::arrow::array::{Array, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

/// The cells of a row, in the order of the table; the batch has the table's schema.
pub(crate) fn cells(batch: &RecordBatch, row: usize) -> impl Iterator<Item = Cell<'_>> {
    let columns = PROCESS_EVENTS.iter().zip(batch.columns());
    columns.map(move |(column, array)| cell(column.kind, array.as_ref(), row).unwrap_or(Cell::Null))
}

/// The hash that the ledger has of a row.
pub(crate) fn content(batch: &RecordBatch, row: usize, schema: u32) -> Hash {
    event::content_hash(schema, cells(batch, row))
}

fn cell(kind: Kind, array: &dyn Array, row: usize) -> Option<Cell<'_>> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    Some(match kind {
        Kind::Blob => Cell::Blob(array.as_binary_opt::<i32>()?.value(row).into()),
        Kind::Boolean => Cell::Boolean(array.as_boolean_opt()?.value(row)),
        Kind::Integer => Cell::Integer(array.as_primitive_opt::<Int64Type>()?.value(row)),
        Kind::Real => Cell::Real(array.as_primitive_opt::<Float64Type>()?.value(row)),
        Kind::Text => Cell::Text(array.as_string_opt::<i32>()?.value(row)),
        Kind::Timestamp => Cell::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row)),
    })
}

#[cfg(test)]
mod tests {
    use daemoneye_lib::ledger::event::Content;
    use daemoneye_lib::proto::{
        Capture, EventType, Identity, ProcessEvent, ProcessRecord, Record, Sequence, StartKind, WindowsProcess,
    };
    use daemoneye_lib::topic::process_topic;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::ingest::decode;

    fn text() -> impl Strategy<Value = Option<String>> {
        of(prop_oneof![Just(String::new()), ".{0,20}"])
    }

    prop_compose! {
        fn identified()(
            id in any::<[u8; 16]>(), parent in of(vec(any::<u8>(), 0..20)), pid: u32, ppid: Option<u32>, texts in vec(text(), 18),
            arguments in vec(any::<u32>(), 0..5), numbers in vec(any::<Option<u32>>(), 6), start: Option<i64>,
            cpu: Option<f64>, large in vec(any::<Option<u64>>(), 2), flags in vec(any::<Option<bool>>(), 2),
            enums in (0..4_i32, 0..4_i32), truncated in vec("[a-z]{1,5}", 0..3), windows in of(text()),
        ) -> ProcessRecord {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            let [uid, gid, euid, session, namespace_pid, _] = numbers[..] else { unreachable!() };
            ProcessRecord {
                entity_id: id.to_vec(), identity: enums.0, pid, ppid, parent_entity_id: parent,
                parent_name: next(), parent_executable_path: next(), parent_command_line: next(), ancestry: next(),
                name: next().unwrap_or_default(), executable_path: next(), exec_filename: next(), command_line: next(),
                arg_lengths: arguments, cwd: next(), uid, gid, euid, user: next(), session, tty: next(),
                start_time_us: start, status: next(), cpu_usage: cpu, memory_usage: large[0], executable_hash: next(),
                hash_algorithm: next(), hash_status: next(), deleted_executable: flags[0], memfd: flags[1], cgroup: next(),
                container_id: next(), pid_namespace: large[1], namespace_pid, capture: enums.1, truncated,
                windows: windows.map(|product| Box::new(WindowsProcess { product, ..WindowsProcess::default() })),
            }
        }
    }

    prop_compose! {
        fn event()(
            process in identified(), kind in 1..5_i32, time_us: i64, start_kind in 0..5_i32, source in text(), exit_code: Option<i32>,
            runtime_ms: Option<u64>, end_observed: Option<bool>, modified_fields in vec("[a-z]{1,5}", 0..3), reason in text(), severity in 0..7_i32,
        ) -> ProcessEvent {
            ProcessEvent {
                event_type: kind, time_us, start_kind, process: Some(process), source: source.unwrap_or_default(), exit_code, runtime_ms,
                end_observed, modified_fields, reason, severity,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_row_has_the_hash_of_the_event_that_was_recorded(events in vec(event(), 1..6)) {
            let record = |(number, event): (u64, &ProcessEvent)| Record {
                sequence: Some(Sequence::new(1, number)),
                topic: process_topic(event.event_type()).to_owned(),
                time_us: event.time_us,
                payload: event.encode_to_vec().into(),
            };
            let records: Vec<Record> = (1..).zip(&events).map(record).collect();
            let batch = decode("procmond", &records).unwrap().batch;
            prop_assert_eq!(batch.num_rows(), events.len());
            for (row, event) in events.iter().enumerate() {
                prop_assert_eq!(Content::Event(content(&batch, row, 1)), Content::of_event(event));
            }
        }
    }

    #[test]
    fn words_are_those_of_the_schema() {
        let process = ProcessRecord {
            entity_id: vec![1; 16],
            identity: Identity::Exact.into(),
            capture: Capture::Partial.into(),
            ..ProcessRecord::default()
        };
        let event = ProcessEvent {
            event_type: EventType::Start.into(),
            start_kind: StartKind::Exec.into(),
            process: Some(process),
            ..ProcessEvent::default()
        };
        let sequence = Some(Sequence::new(1, 1));
        let record = Record {
            sequence,
            topic: "events.process.start".into(),
            time_us: 0,
            payload: event.encode_to_vec().into(),
        };
        let batch = decode("c", &[record]).unwrap().batch;
        let words: Vec<Cell<'_>> = cells(&batch, 0).filter(|cell| matches!(cell, Cell::Text(_))).collect();
        let expected = ["start", "exec", &"01".repeat(16), "exact", "partial", "c"];
        assert_eq!(words, expected.map(Cell::Text));
    }
}
