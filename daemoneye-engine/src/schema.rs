//! Arrow schemas, derived from the one list of tables and their columns.
//!
//! Every column is nullable: an older segment may lack it, and a source that cannot know a value says NULL, never zero.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use daemoneye_lib::columns::{Column, Kind};
use daemoneye_lib::tables::TABLES;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::store::HistoryTable;

/// Time zone of every timestamp column.
pub const TIME_ZONE: &str = "UTC";

static SCHEMAS: LazyLock<HashMap<&'static str, SchemaRef>> =
    LazyLock::new(|| TABLES.iter().map(|table| (table.name, schema_of(table.columns()))).collect());
static EVENTS: LazyLock<SchemaRef> =
    LazyLock::new(|| table_schema("process_events").unwrap_or_else(|| Arc::new(Schema::empty())));

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

/// The columns of a table that SQL can name.
#[must_use]
pub fn table_schema(name: &str) -> Option<SchemaRef> {
    SCHEMAS.get(name).cloned()
}

/// The columns of a table as a query reads them: the text of events as views, so that a value that a page holds once is not
/// copied for each row that has it.
pub(crate) fn read_schema(name: &str) -> Option<SchemaRef> {
    match HistoryTable::named(name) {
        Some(HistoryTable::ProcessEvents) => table_schema(name).map(|columns| Arc::new(viewed(&columns))),
        Some(HistoryTable::ProcessLifetimes) | None => table_schema(name),
    }
}

fn viewed(columns: &Schema) -> Schema {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    };
    Schema::new(columns.fields().iter().map(field).collect::<Fields>())
}

/// Schema of `process_events`.
#[must_use]
pub fn process_events_schema() -> SchemaRef {
    Arc::clone(&EVENTS)
}

fn schema_of<'a>(columns: impl Iterator<Item = &'a Column>) -> SchemaRef {
    let fields: Vec<Field> = columns.map(|column| Field::new(column.name, arrow_type(column.kind), true)).collect();
    Arc::new(Schema::new(fields))
}
