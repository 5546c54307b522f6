//! Arrow schemas, derived from the one column table.
//!
//! Every column is nullable: an older segment may lack it, and a source that cannot know a value says NULL, never zero.

use std::sync::{Arc, LazyLock};

use daemoneye_lib::columns::{Column, Kind, PROCESS_EVENTS};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Time zone of every timestamp column.
pub const TIME_ZONE: &str = "UTC";

static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(PROCESS_EVENTS.iter()));
static PROCESSES: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(process_columns()));

/// The Arrow type that holds `kind`.
#[must_use]
pub fn arrow_type(kind: Kind) -> DataType {
    match kind {
        Kind::Blob => DataType::Binary,
        Kind::Boolean => DataType::Boolean,
        Kind::Integer => DataType::Int64,
        Kind::Real => DataType::Float64,
        Kind::Text => DataType::Utf8,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(TIME_ZONE.into())),
    }
}

/// Schema of `process_events`: every column of [`PROCESS_EVENTS`], in its order.
#[must_use]
pub fn process_events_schema() -> SchemaRef {
    Arc::clone(&EVENTS)
}

/// Schema of `processes`: the columns that describe a process rather than something that happened to it. `time` is the
/// time of its latest event.
#[must_use]
pub fn processes_schema() -> SchemaRef {
    Arc::clone(&PROCESSES)
}

/// The columns of [`processes_schema`], in order.
pub(crate) fn process_columns() -> impl Iterator<Item = &'static Column> {
    PROCESS_EVENTS.iter().filter(|column| {
        column.field.starts_with("process.") || column.field.starts_with("record.") || column.field == "time_us"
    })
}

fn schema_of<'a>(columns: impl Iterator<Item = &'a Column>) -> SchemaRef {
    let fields: Vec<Field> = columns.map(|column| Field::new(column.name, arrow_type(column.kind), true)).collect();
    Arc::new(Schema::new(fields))
}
