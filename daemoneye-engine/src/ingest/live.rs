//! Processes as batches: those that live, and those that lived.

use std::sync::Arc;

use daemoneye_lib::proto::{ProcessEvent, ProcessRecord, Sequence};
use daemoneye_lib::tables::{Table, table};
use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;

use super::End;
use super::arrays::{Row, array};
use crate::schema::{TIME_ZONE, table_schema};

/// One row per live process: (collector, position and time of its latest event, its state).
pub(crate) fn processes_batch<'a>(
    processes: impl Iterator<Item = (&'a str, Sequence, i64, &'a ProcessRecord)>,
) -> Result<RecordBatch, ArrowError> {
    let states: Vec<_> = processes
        .map(|(collector, at, time_us, process)| {
            (collector, at, process, ProcessEvent { time_us, ..ProcessEvent::default() })
        })
        .collect();
    let rows: Vec<Row<'_>> =
        states.iter().map(|(collector, at, process, event)| Row { collector, at: *at, event, process }).collect();
    let columns = columns_of("processes").map(|column| array(column, &rows)).collect();
    RecordBatch::try_new(schema_of("processes"), columns)
}

/// One process from its start to its end, or so far.
#[derive(Debug, Clone)]
pub(crate) struct LifetimeRow<'a> {
    pub(crate) collector: &'a str,
    /// Position of the event that ended it, or of its latest.
    pub(crate) at: Sequence,
    /// Time of that event.
    pub(crate) time_us: i64,
    pub(crate) process: &'a ProcessRecord,
    pub(crate) start_us: Option<i64>,
    /// `None`: it lives.
    pub(crate) end: Option<&'a End>,
    pub(crate) max_cpu_usage: Option<f64>,
    pub(crate) max_memory_usage: Option<u64>,
}

/// Rows of `process_lifetimes`.
pub(crate) fn lifetimes_batch<'a>(
    lifetimes: impl Iterator<Item = LifetimeRow<'a>>,
) -> Result<RecordBatch, ArrowError> {
    let lifetimes: Vec<LifetimeRow<'_>> = lifetimes.collect();
    let events: Vec<ProcessEvent> = lifetimes.iter().map(event).collect();
    let rows: Vec<Row<'_>> = lifetimes
        .iter()
        .zip(&events)
        .map(|(row, event)| Row { collector: row.collector, at: row.at, event, process: row.process })
        .collect();
    let columns = columns_of("process_lifetimes")
        .map(|column| own_array(column.name, &lifetimes).unwrap_or_else(|| array(column, &rows)))
        .collect();
    RecordBatch::try_new(schema_of("process_lifetimes"), columns)
}

/// What an event would say of it.
fn event(row: &LifetimeRow<'_>) -> ProcessEvent {
    let end = row.end.cloned().unwrap_or_default();
    ProcessEvent {
        time_us: row.time_us,
        exit_code: end.exit_code,
        runtime_ms: end.runtime_ms,
        end_observed: end.observed,
        ..ProcessEvent::default()
    }
}

/// The columns that no event has.
fn own_array(name: &str, rows: &[LifetimeRow<'_>]) -> Option<ArrayRef> {
    let times = |of: &dyn Fn(&LifetimeRow<'_>) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone(TIME_ZONE))
    };
    Some(match name {
        "start_time" => times(&|row| row.start_us),
        "stop_time" => times(&|row| row.end.map(|_| row.time_us)),
        "max_cpu_usage" => Arc::new(rows.iter().map(|row| row.max_cpu_usage).collect::<Float64Array>()),
        "max_memory_usage" => {
            let bytes = |row: &LifetimeRow<'_>| row.max_memory_usage.and_then(|bytes| i64::try_from(bytes).ok());
            Arc::new(rows.iter().map(bytes).collect::<Int64Array>())
        }
        _ => return None,
    })
}

fn columns_of(name: &str) -> impl Iterator<Item = &'static daemoneye_lib::columns::Column> {
    table(name).into_iter().flat_map(Table::columns)
}

fn schema_of(name: &str) -> Arc<Schema> {
    table_schema(name).unwrap_or_else(|| Arc::new(Schema::empty()))
}
