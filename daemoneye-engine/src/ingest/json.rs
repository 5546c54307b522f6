//! Rows as JSON: what rule tests are written in, and what an alert shows of its process.

use std::sync::Arc;

use daemoneye_lib::columns::{Column, Kind, PROCESS_EVENTS};
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::schema::{TIME_ZONE, process_events_schema};

/// Why rows given as JSON are no rows of `process_events`.
#[derive(Debug, thiserror::Error)]
pub enum JsonRowError {
    /// Arrow would not take the columns; a defect of this program.
    #[error("the rows do not form a batch: {0}")]
    Columns(#[from] ArrowError),
    /// No such column.
    #[error("row {row}: process_events has no column {column:?}; docs/reference/tables.md lists them")]
    MisuseColumn {
        /// From 0.
        row: usize,
        /// As given.
        column: String,
    },
    /// The value does not fit the column.
    #[error("row {row}: column {column} takes {wanted}, not {found}")]
    MisuseValue {
        /// From 0.
        row: usize,
        /// Which column.
        column: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// The JSON that was given.
        found: String,
    },
}

/// Builds a batch from rows given as column name → value. A column that a row leaves out is NULL.
///
/// Timestamps are RFC 3339 text or µs since the Unix epoch; blobs are `0x` and hex digits.
///
/// # Errors
/// [`JsonRowError`] names the row and the column.
pub fn batch_from_json(rows: &[Map<String, Value>]) -> Result<RecordBatch, JsonRowError> {
    for (row, map) in rows.iter().enumerate() {
        if let Some(column) = map.keys().find(|name| !PROCESS_EVENTS.iter().any(|column| column.name == *name)) {
            return Err(JsonRowError::MisuseColumn { row, column: column.clone() });
        }
    }
    let columns: Result<Vec<ArrayRef>, JsonRowError> =
        PROCESS_EVENTS.iter().map(|column| column_array(column, rows)).collect();
    Ok(RecordBatch::try_new(process_events_schema(), columns?)?)
}

/// Whether a row may have this value in this column.
pub(crate) fn check_value(column: &Column, value: &Value) -> Result<(), String> {
    let row = Map::from_iter([(column.name.to_owned(), value.clone())]);
    match column_array(column, &[row]) {
        Ok(_) => Ok(()),
        Err(JsonRowError::MisuseValue { column, wanted, found, .. }) => {
            Err(format!("{column} takes {wanted}, not {found}"))
        }
        Err(other) => Err(other.to_string()),
    }
}

fn column_array(column: &Column, rows: &[Map<String, Value>]) -> Result<ArrayRef, JsonRowError> {
    Ok(match column.kind {
        Kind::Blob => {
            let values =
                values(column, rows, "0x and hex digits", |v| hex::decode(v.as_str()?.strip_prefix("0x")?).ok());
            Arc::new(BinaryArray::from_iter(values?))
        }
        Kind::Boolean => Arc::new(BooleanArray::from(values(column, rows, "true or false", Value::as_bool)?)),
        Kind::Integer => Arc::new(Int64Array::from(values(column, rows, "an integer", Value::as_i64)?)),
        Kind::Real => Arc::new(Float64Array::from(values(column, rows, "a number", Value::as_f64)?)),
        Kind::Text => Arc::new(StringArray::from(values(column, rows, "a text", |v| v.as_str().map(str::to_owned))?)),
        Kind::Timestamp => {
            let values = values(column, rows, "an RFC 3339 time or microseconds since 1970", instant)?;
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone(TIME_ZONE))
        }
    })
}

fn instant(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| Some(value.as_str()?.parse::<Timestamp>().ok()?.as_microsecond()))
}

fn values<T>(
    column: &Column,
    rows: &[Map<String, Value>],
    wanted: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<Option<T>>, JsonRowError> {
    let one = |(row, map): (usize, &Map<String, Value>)| match map.get(column.name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| JsonRowError::MisuseValue {
            row,
            column: column.name,
            wanted,
            found: value.to_string(),
        }),
    };
    rows.iter().enumerate().map(one).collect()
}

/// The row's columns that are not NULL. Timestamps become RFC 3339 text with microseconds, blobs `0x` and hex digits;
/// columns of types that the store never writes are left out.
#[must_use]
pub fn row_to_json(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = batch.schema();
    let mut map = Map::new();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if row < array.len()
            && array.is_valid(row)
            && let Some(value) = value_to_json(array, row)
        {
            map.insert(field.name().clone(), value);
        }
    }
    map
}

/// One value of an event; null where it is NULL, or the batch has no such column or row.
pub(crate) fn value_in(batch: &RecordBatch, column: &str, row: usize) -> Value {
    let array = batch.column_by_name(column).filter(|array| row < array.len() && array.is_valid(row));
    array.and_then(|array| value_to_json(array, row)).unwrap_or(Value::Null)
}

fn value_to_json(array: &ArrayRef, row: usize) -> Option<Value> {
    Some(match array.data_type() {
        DataType::Binary => Value::from(format!("0x{}", hex::encode(array.as_binary::<i32>().value(row)))),
        DataType::Boolean => Value::from(array.as_boolean().value(row)),
        DataType::Float64 => Value::from(array.as_primitive::<Float64Type>().value(row)),
        DataType::Int64 => Value::from(array.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            Timestamp::from_microsecond(micros)
                .map_or_else(|_| Value::from(micros), |at| Value::from(format!("{at:.6}")))
        }
        DataType::Utf8 => Value::from(array.as_string::<i32>().value(row)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_a_row_says_comes_back_unchanged() {
        let given = row(
            r#"{"time":"2026-01-31T12:00:00.000001Z","pid":7,"name":"sh","memfd":true,"cpu_usage":1.5,"arg_lengths":"0x0402"}"#,
        );
        let batch = batch_from_json(std::slice::from_ref(&given)).unwrap();
        assert_eq!(row_to_json(&batch, 0), given);
    }

    #[test]
    fn a_wrong_row_is_refused_with_its_column() {
        let unknown = batch_from_json(&[row(r#"{"nmae":"sh"}"#)]).unwrap_err();
        assert!(unknown.to_string().contains("nmae"), "{unknown}");
        let wrong = batch_from_json(&[row(r#"{"pid":1}"#), row(r#"{"pid":"x"}"#)]).unwrap_err();
        assert!(wrong.to_string().contains("row 1") && wrong.to_string().contains("pid"), "{wrong}");
    }
}
