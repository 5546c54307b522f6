//! The rows of a plan's answer: which events each was made of, what the rule returns for it, and what makes two of them the same.

use std::collections::BTreeSet;

use daemoneye_lib::model::DetectionRule;
use daemoneye_lib::proto::value::Kind;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use serde_json::{Map, Value};

use super::super::output;
use super::plan::Planned;
use crate::sql::value_at;

/// The numbers of a row's events.
pub(super) fn events(batch: &RecordBatch, row: usize, count: usize) -> impl Iterator<Item = i64> {
    let columns = batch.columns();
    let from = columns.len().saturating_sub(count);
    let numbers = columns.iter().skip(from).filter_map(|column| column.as_primitive_opt::<Int64Type>());
    numbers.filter(move |column| row < column.len() && column.is_valid(row)).map(move |column| column.value(row))
}

/// The same ascending, each once.
pub(super) fn numbers(batch: &RecordBatch, row: usize, count: usize) -> Vec<i64> {
    let unique: BTreeSet<i64> = events(batch, row, count).collect();
    unique.into_iter().collect()
}

pub(super) fn output(plan: &Planned, batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let value = |column: &ArrayRef| value_at(column.as_ref(), row).kind.map_or(Value::Null, json);
    plan.outputs.iter().cloned().zip(batch.columns().iter().map(value)).collect()
}

fn json(kind: Kind) -> Value {
    match kind {
        Kind::Blob(bytes) => Value::String(format!("0x{}", hex::encode(bytes))),
        Kind::Boolean(value) => Value::Bool(value),
        Kind::Integer(value) => Value::from(value),
        // JSON has no word for NaN and the infinities.
        Kind::Real(value) => Value::from(value),
        Kind::Text(text) => Value::String(text),
        Kind::TimestampUs(micros) => output::time(micros),
    }
}

/// What makes a match the same as one before: the events that it was made of, or what the file says.
pub(super) fn identity(rule: &DetectionRule, output: &Map<String, Value>, numbers: &[i64]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for column in &rule.dedup {
        hasher.update(output.get(column).map(ToString::to_string).unwrap_or_default().as_bytes());
        hasher.update(&[0]);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}
