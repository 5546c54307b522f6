//! The columns of `process_events`, each built from the decoded messages in one pass.

use std::sync::Arc;

use daemoneye_lib::columns::{Column, PROCESS_EVENTS};
use daemoneye_lib::proto::{ProcessEvent, ProcessRecord, Sequence, WindowsProcess, Word};
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Float64Array, Int64Array, RecordBatch, StringBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use datafusion::arrow::error::ArrowError;

use crate::schema::{TIME_ZONE, arrow_type, process_events_schema};

/// Typical bytes of a text value: the first guess of a builder's buffer, which then grows by doubling.
const TEXT_BYTES: usize = 16;

pub(crate) struct Row<'a> {
    pub(crate) collector: &'a str,
    pub(crate) at: Sequence,
    pub(crate) event: &'a ProcessEvent,
    pub(crate) process: &'a ProcessRecord,
}

pub(super) fn events_batch(collector: &str, events: &[(Sequence, ProcessEvent)]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<Row<'_>> = events
        .iter()
        .filter_map(|(at, event)| Some(Row { collector, at: *at, event, process: event.process.as_ref()? }))
        .collect();
    let columns = PROCESS_EVENTS.iter().map(|column| array(column, &rows)).collect();
    RecordBatch::try_new(process_events_schema(), columns)
}

/// One column over all rows. A column that nothing here fills is NULL throughout.
pub(super) fn array(column: &Column, rows: &[Row<'_>]) -> ArrayRef {
    event_array(column.name, rows)
        .or_else(|| parent_array(column.name, rows))
        .or_else(|| process_text_array(column.name, rows))
        .or_else(|| process_array(column.name, rows))
        .or_else(|| windows_array(column.name, rows))
        .unwrap_or_else(|| new_null_array(&arrow_type(column.kind), rows.len()))
}

fn event_array(name: &str, rows: &[Row<'_>]) -> Option<ArrayRef> {
    Some(match name {
        "time" => timestamp(rows, |r| Some(r.event.time_us)),
        "event_type" => text(rows, |r| r.event.event_type().word()),
        "start_kind" => text(rows, |r| r.event.start_kind().word()),
        "exit_code" => integer(rows, |r| r.event.exit_code.map(i64::from)),
        "runtime_ms" => integer(rows, |r| r.event.runtime_ms.map(signed)),
        "end_observed" => boolean(rows, |r| r.event.end_observed),
        "source" => text(rows, |r| present(&r.event.source)),
        "modified_fields" => joined(rows, |r| &r.event.modified_fields),
        "reason" => text(rows, |r| r.event.reason.as_deref()),
        "severity" => text(rows, |r| r.event.severity().word()),
        "collector" => text(rows, |r| Some(r.collector)),
        "epoch" => integer(rows, |r| Some(signed(r.at.epoch))),
        "seq" => integer(rows, |r| Some(signed(r.at.number))),
        _ => return None,
    })
}

fn parent_array(name: &str, rows: &[Row<'_>]) -> Option<ArrayRef> {
    Some(match name {
        "ppid" => integer(rows, |r| r.process.ppid.map(i64::from)),
        "parent_entity_id" => hexadecimal(rows, |r| r.process.parent_entity_id.as_deref()),
        "parent_name" => text(rows, |r| r.process.parent_name.as_deref()),
        "parent_executable_path" => text(rows, |r| r.process.parent_executable_path.as_deref()),
        "parent_command_line" => text(rows, |r| r.process.parent_command_line.as_deref()),
        "ancestry" => text(rows, |r| r.process.ancestry.as_deref()),
        _ => return None,
    })
}

fn process_text_array(name: &str, rows: &[Row<'_>]) -> Option<ArrayRef> {
    Some(match name {
        "entity_id" => hexadecimal(rows, |r| Some(&r.process.entity_id)),
        "identity" => text(rows, |r| r.process.identity().word()),
        "name" => text(rows, |r| present(&r.process.name)),
        "executable_path" => text(rows, |r| r.process.executable_path.as_deref()),
        "exec_filename" => text(rows, |r| r.process.exec_filename.as_deref()),
        "command_line" => text(rows, |r| r.process.command_line.as_deref()),
        "cwd" => text(rows, |r| r.process.cwd.as_deref()),
        "user" => text(rows, |r| r.process.user.as_deref()),
        "tty" => text(rows, |r| r.process.tty.as_deref()),
        "status" => text(rows, |r| r.process.status.as_deref()),
        "executable_hash" => text(rows, |r| r.process.executable_hash.as_deref()),
        "hash_algorithm" => text(rows, |r| r.process.hash_algorithm.as_deref()),
        "hash_status" => text(rows, |r| r.process.hash_status.as_deref()),
        "cgroup" => text(rows, |r| r.process.cgroup.as_deref()),
        "container_id" => text(rows, |r| r.process.container_id.as_deref()),
        "capture" => text(rows, |r| r.process.capture().word()),
        "truncated" => joined(rows, |r| &r.process.truncated),
        _ => return None,
    })
}

fn process_array(name: &str, rows: &[Row<'_>]) -> Option<ArrayRef> {
    Some(match name {
        "pid" => integer(rows, |r| Some(i64::from(r.process.pid))),
        "argc" => integer(rows, |r| {
            r.process.command_line.as_ref().and_then(|_| i64::try_from(r.process.arg_lengths.len()).ok())
        }),
        "arg_lengths" => argument_lengths(rows),
        "uid" => integer(rows, |r| r.process.uid.map(i64::from)),
        "gid" => integer(rows, |r| r.process.gid.map(i64::from)),
        "euid" => integer(rows, |r| r.process.euid.map(i64::from)),
        "session" => integer(rows, |r| r.process.session.map(i64::from)),
        "start_time" => timestamp(rows, |r| r.process.start_time_us),
        "cpu_usage" => real(rows, |r| r.process.cpu_usage),
        "memory_usage" => integer(rows, |r| r.process.memory_usage.map(signed)),
        "deleted_executable" => boolean(rows, |r| r.process.deleted_executable),
        "memfd" => boolean(rows, |r| r.process.memfd),
        "pid_namespace" => integer(rows, |r| r.process.pid_namespace.map(signed)),
        "namespace_pid" => integer(rows, |r| r.process.namespace_pid.map(i64::from)),
        _ => return None,
    })
}

/// Rows of other systems have none of these, and a column of nothing costs no pass over them.
fn windows_array(name: &str, rows: &[Row<'_>]) -> Option<ArrayRef> {
    let read: fn(&WindowsProcess) -> Option<&str> = match name {
        "original_file_name" => |w| w.original_file_name.as_deref(),
        "file_description" => |w| w.file_description.as_deref(),
        "product" => |w| w.product.as_deref(),
        "company" => |w| w.company.as_deref(),
        "integrity_level" => |w| w.integrity_level.as_deref(),
        "logon_id" => |w| w.logon_id.as_deref(),
        "hashes" => |w| w.hashes.as_deref(),
        "parent_user" => |w| w.parent_user.as_deref(),
        _ => return None,
    };
    let known = rows.iter().any(|row| row.process.windows.is_some());
    known.then(|| text(rows, |r| r.process.windows.as_deref().and_then(read)))
}

/// SQL has no unsigned 64 bits; no counter or inode here comes near the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Strings that proto3 cannot leave out: empty is "not known".
fn present(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

fn text<'a>(rows: &'a [Row<'a>], value: impl Fn(&'a Row<'a>) -> Option<&'a str>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows.len(), rows.len().saturating_mul(TEXT_BYTES));
    for row in rows {
        builder.append_option(value(row));
    }
    Arc::new(builder.finish())
}

fn joined<'a>(rows: &'a [Row<'a>], values: impl Fn(&'a Row<'a>) -> &'a [String]) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for row in rows {
        let names = values(row);
        builder.append_option((!names.is_empty()).then(|| names.join(",")));
    }
    Arc::new(builder.finish())
}

fn hexadecimal<'a>(rows: &'a [Row<'a>], value: impl Fn(&'a Row<'a>) -> Option<&'a [u8]>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows.len(), rows.len().saturating_mul(32));
    let mut digits = [0_u8; 32];
    for row in rows {
        let encoded = value(row).filter(|bytes| hex::encode_to_slice(bytes, &mut digits).is_ok());
        builder.append_option(encoded.and_then(|_| std::str::from_utf8(&digits).ok()));
    }
    Arc::new(builder.finish())
}

fn integer<'a>(rows: &'a [Row<'a>], value: impl Fn(&'a Row<'a>) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Int64Array>())
}

fn real<'a>(rows: &'a [Row<'a>], value: impl Fn(&'a Row<'a>) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

fn boolean<'a>(rows: &'a [Row<'a>], value: impl Fn(&'a Row<'a>) -> Option<bool>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<BooleanArray>())
}

fn timestamp<'a>(rows: &'a [Row<'a>], value: impl Fn(&'a Row<'a>) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<TimestampMicrosecondArray>().with_timezone(TIME_ZONE))
}

/// LEB128, as docs/formats.md has it: seven bits a byte, least significant first, the high bit says "more".
fn argument_lengths(rows: &[Row<'_>]) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    let mut bytes = Vec::new();
    for row in rows {
        bytes.clear();
        for length in &row.process.arg_lengths {
            prost::encoding::encode_varint(u64::from(*length), &mut bytes);
        }
        builder.append_option((!bytes.is_empty()).then_some(bytes.as_slice()));
    }
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_table_is_filled_here() {
        let process = ProcessRecord { windows: Some(Box::default()), ..ProcessRecord::default() };
        let event = ProcessEvent::default();
        let rows = [Row { collector: "c", at: Sequence::new(1, 1), event: &event, process: &process }];
        for column in PROCESS_EVENTS {
            let filled = event_array(column.name, &[])
                .or_else(|| parent_array(column.name, &[]))
                .or_else(|| process_text_array(column.name, &[]))
                .or_else(|| process_array(column.name, &[]))
                .or_else(|| windows_array(column.name, &rows));
            let array = filled.unwrap_or_else(|| panic!("{} is always NULL", column.name));
            assert_eq!(array.data_type(), &arrow_type(column.kind), "{}", column.name);
        }
    }
}
