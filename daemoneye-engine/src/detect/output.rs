//! What a rule's SELECT returned, as JSON: the column table's kinds, times as RFC 3339, bytes as `0x` and hex.

use std::sync::Arc;

use daemoneye_lib::columns::PROCESS_EVENTS;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::compile::Output;
use super::matcher::Scalar;
use super::row::{Cell, Columns};

/// The columns that the answer has, each under its name in it; `None` when it has anything else.
pub(super) fn plain(outputs: &[Output]) -> Option<Arc<[(String, &'static str)]>> {
    let column = |output: &Output| match output.value {
        Scalar::Column(column) => Some((output.name.clone(), PROCESS_EVENTS.get(column)?.name)),
        _ => None,
    };
    outputs.iter().map(column).collect()
}

/// The answer's row in the order of the SELECT.
pub(super) fn row(outputs: &[Output], columns: &Columns<'_>, row: usize) -> Map<String, Value> {
    outputs
        .iter()
        .map(|output| (output.name.clone(), output.value.value(columns, row).map_or(Value::Null, json)))
        .collect()
}

pub(super) fn json(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Blob(bytes) => Value::String(format!("0x{}", hex::encode(bytes))),
        Cell::Boolean(value) => Value::Bool(value),
        Cell::Integer(value) => Value::from(value),
        // JSON has no word for NaN and the infinities.
        Cell::Real(value) => Value::from(value),
        Cell::Text(text) => Value::String(text.into_owned()),
        Cell::Timestamp(micros) => time(micros),
    }
}

/// Outside the calendar's years the number says more than no value would.
pub(super) fn time(micros: i64) -> Value {
    Timestamp::from_microsecond(micros)
        .map_or_else(|_| Value::from(micros), |time| Value::String(format!("{time:.6}")))
}
