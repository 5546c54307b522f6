//! The table of live processes as a batch: the columns of `process_events` that describe a process.

use daemoneye_lib::proto::{ProcessEvent, ProcessRecord, Sequence};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;

use super::arrays::{Row, array};
use crate::schema::{process_columns, processes_schema};

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
    let columns = process_columns().map(|column| array(column, &rows)).collect();
    RecordBatch::try_new(processes_schema(), columns)
}
