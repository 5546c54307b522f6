//! The columns of the small tables. Those of events and processes derive from the one column table.

use crate::schema::{arrow_type, process_events_schema, processes_schema};
use daemoneye_lib::columns::Kind;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

type Columns = &'static [(&'static str, Kind)];

const ALERTS: Columns = &[
    ("id", Kind::Text),
    ("time", Kind::Timestamp),
    ("severity", Kind::Text),
    ("title", Kind::Text),
    ("description", Kind::Text),
    ("status", Kind::Text),
    ("rule_id", Kind::Text),
    ("rule_version", Kind::Integer),
    ("rule_hash", Kind::Text),
    ("pack", Kind::Text),
    ("tags", Kind::Text),
    ("entity_id", Kind::Text),
    ("pid", Kind::Integer),
    ("name", Kind::Text),
    ("executable_path", Kind::Text),
    ("command_line", Kind::Text),
    ("process", Kind::Text),
    ("row", Kind::Text),
    ("dedup_key", Kind::Text),
    ("count", Kind::Integer),
    ("first_seen", Kind::Timestamp),
    ("last_seen", Kind::Timestamp),
    ("completeness", Kind::Text),
    ("collector", Kind::Text),
    ("epoch", Kind::Integer),
    ("seq", Kind::Integer),
    ("engine", Kind::Text),
    ("host", Kind::Text),
];

const ALERT_DELIVERIES: Columns = &[
    ("sink", Kind::Text),
    ("alert_id", Kind::Text),
    ("state", Kind::Text),
    ("attempts", Kind::Integer),
    ("created", Kind::Timestamp),
    ("next_try", Kind::Timestamp),
    ("last_error", Kind::Text),
];

const RULES: Columns = &[
    ("id", Kind::Text),
    ("version", Kind::Integer),
    ("name", Kind::Text),
    ("severity", Kind::Text),
    ("state", Kind::Text),
    ("kind", Kind::Text),
    ("category", Kind::Text),
    ("tags", Kind::Text),
    ("status", Kind::Text),
    ("description", Kind::Text),
    ("author", Kind::Text),
    ("reference_urls", Kind::Text),
    ("false_positives", Kind::Text),
    ("sql", Kind::Text),
    ("dedup", Kind::Text),
    ("dedup_window_s", Kind::Integer),
    ("hash", Kind::Text),
    ("pack", Kind::Text),
    ("file", Kind::Text),
];

const COVERAGE: Columns = &[
    ("collector", Kind::Text),
    ("reason", Kind::Text),
    ("from_time", Kind::Timestamp),
    ("to_time", Kind::Timestamp),
    ("count", Kind::Integer),
    ("detail", Kind::Text),
];

const COLLECTORS: Columns = &[
    ("id", Kind::Text),
    ("type", Kind::Text),
    ("state", Kind::Text),
    ("connected", Kind::Boolean),
    ("version", Kind::Text),
    ("pid", Kind::Integer),
    ("source", Kind::Text),
    ("source_reason", Kind::Text),
    ("registered", Kind::Timestamp),
    ("last_heartbeat", Kind::Timestamp),
    ("cycles", Kind::Integer),
    ("events", Kind::Integer),
    ("errors", Kind::Integer),
    ("processes", Kind::Integer),
    ("lost", Kind::Integer),
    ("restarts", Kind::Integer),
];

const SCANS: Columns = &[
    ("time", Kind::Timestamp),
    ("collector", Kind::Text),
    ("cycles", Kind::Integer),
    ("processes", Kind::Integer),
    ("events", Kind::Integer),
    ("errors", Kind::Integer),
];

const SYSTEM_INFO: Columns = &[
    ("time", Kind::Timestamp),
    ("hostname", Kind::Text),
    ("os_name", Kind::Text),
    ("os_version", Kind::Text),
    ("architecture", Kind::Text),
    ("cpu_cores", Kind::Integer),
    ("total_memory_bytes", Kind::Integer),
    ("uptime_s", Kind::Integer),
    ("boot_id", Kind::Text),
    ("capabilities", Kind::Text),
];

/// The columns of a table.
pub(super) fn of(table: &str) -> Option<SchemaRef> {
    Some(match table {
        "process_events" => process_events_schema(),
        "processes" => processes_schema(),
        "alerts" => schema(ALERTS),
        "alert_deliveries" => schema(ALERT_DELIVERIES),
        "rules" => schema(RULES),
        "coverage" => schema(COVERAGE),
        "collectors" => schema(COLLECTORS),
        "scans" => schema(SCANS),
        "system_info" => schema(SYSTEM_INFO),
        _ => return None,
    })
}

fn schema(columns: Columns) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(*name, arrow_type(*kind), true)).collect();
    Arc::new(Schema::new(fields))
}
