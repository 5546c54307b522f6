//! A process event as its columns: one value per row of [`columns::PROCESS_EVENTS`], and as one JSON object for output.
//!
//! Rows exist only at the edge: this is for people, files and pipes, not for the store. NULL columns are left out of the
//! JSON; the order is the table's. Timestamps are RFC 3339 in UTC with microseconds, blobs `0x…`.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::columns::{self, Column};
use crate::proto::{
    AlertSeverity, Capture, EventType, Identity, ProcessEvent, ProcessRecord, Sequence, StartKind, WindowsProcess,
    Word,
};

/// Where an event comes from; what the record around it says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// Collector id; empty: not known.
    pub collector: &'a str,
    /// Position in its stream.
    pub sequence: Option<Sequence>,
}

/// One value of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// Bytes.
    Blob(Cow<'a, [u8]>),
    /// True or false.
    Boolean(bool),
    /// 64 bits, signed.
    Integer(i64),
    /// Not known, or does not apply.
    Null,
    /// A double.
    Real(f64),
    /// Text that stands in the event.
    Text(&'a str),
    /// Text made for the column.
    Made(String),
    /// Microseconds since the Unix epoch.
    Timestamp(i64),
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Blob(bytes) => serializer.serialize_str(&format!("0x{}", crate::hex::encode(bytes))),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Null => serializer.serialize_none(),
            Self::Real(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Made(text) => serializer.serialize_str(text),
            Self::Timestamp(us) => match rfc3339(*us) {
                Some(text) => serializer.serialize_str(&text),
                None => serializer.serialize_i64(*us),
            },
        }
    }
}

/// An event that serializes as one flat JSON object, column by column.
#[derive(Debug, Clone, Copy)]
pub struct EventRow<'a> {
    event: &'a ProcessEvent,
    origin: Origin<'a>,
}

impl<'a> EventRow<'a> {
    /// The row of `event`.
    #[must_use]
    pub const fn new(event: &'a ProcessEvent, origin: Origin<'a>) -> Self {
        Self { event, origin }
    }

    /// Every column with its value, in the order of the table; NULLs included.
    pub fn cells(self) -> impl Iterator<Item = (&'static Column, Cell<'a>)> {
        let read = move |reader: &Reader| match (reader, &self.event.process) {
            (Reader::Event(read), _) => read(self.event, &self.origin),
            (Reader::Record(read), Some(record)) => read(record),
            (Reader::Record(_), None) => Cell::Null,
        };
        columns::PROCESS_EVENTS.iter().zip(READERS.iter()).map(move |(column, reader)| (column, read(reader)))
    }
}

impl Serialize for EventRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, cell) in self.cells().filter(|(_, cell)| *cell != Cell::Null) {
            map.serialize_entry(column.name, &cell)?;
        }
        map.end()
    }
}

/// `2026-01-31T12:00:00.000000Z`; `None` for a time outside the calendar's range.
#[must_use]
pub fn rfc3339(time_us: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(time_us).ok().map(|time| format!("{time:.6}"))
}

type OfEvent = for<'a> fn(&'a ProcessEvent, &Origin<'a>) -> Cell<'a>;
type OfRecord = for<'a> fn(&'a ProcessRecord) -> Cell<'a>;

#[derive(Clone, Copy)]
enum Reader {
    Event(OfEvent),
    Record(OfRecord),
}

/// In the order of the columns, so that a row is read without looking for names.
static READERS: LazyLock<Vec<Reader>> = LazyLock::new(|| {
    let of_event = |name| OF_EVENT.iter().find(|(known, _)| *known == name).map(|(_, read)| Reader::Event(*read));
    let of_record = |name| OF_RECORD.iter().find(|(known, _)| *known == name).map(|(_, read)| Reader::Record(*read));
    let reader = |name| of_event(name).or_else(|| of_record(name)).unwrap_or(Reader::Record(|_| Cell::Null));
    columns::PROCESS_EVENTS.iter().map(|column| reader(column.name)).collect()
});

const OF_EVENT: &[(&str, OfEvent)] = &[
    ("time", |e, _| Cell::Timestamp(e.time_us)),
    ("event_type", |e, _| word::<EventType>(e.event_type)),
    ("start_kind", |e, _| word::<StartKind>(e.start_kind)),
    ("exit_code", |e, _| integer(e.exit_code)),
    ("runtime_ms", |e, _| integer(e.runtime_ms)),
    ("end_observed", |e, _| boolean(e.end_observed)),
    ("source", |e, _| text(present(&e.source))),
    ("modified_fields", |e, _| list(&e.modified_fields)),
    ("reason", |e, _| text(e.reason.as_deref())),
    ("severity", |e, _| word::<AlertSeverity>(e.severity)),
    ("collector", |_, o| text(present(o.collector))),
    ("epoch", |_, o| integer(o.sequence.map(|s| s.epoch))),
    ("seq", |_, o| integer(o.sequence.map(|s| s.number))),
];

const OF_RECORD: &[(&str, OfRecord)] = &[
    ("entity_id", |p| id(Some(&p.entity_id))),
    ("identity", |p| word::<Identity>(p.identity)),
    ("pid", |p| integer(Some(p.pid))),
    ("ppid", |p| integer(p.ppid)),
    ("parent_entity_id", |p| id(p.parent_entity_id.as_deref())),
    ("parent_name", |p| text(p.parent_name.as_deref())),
    ("parent_executable_path", |p| text(p.parent_executable_path.as_deref())),
    ("parent_command_line", |p| text(p.parent_command_line.as_deref())),
    ("ancestry", |p| text(p.ancestry.as_deref())),
    ("name", |p| text(present(&p.name))),
    ("executable_path", |p| text(p.executable_path.as_deref())),
    ("exec_filename", |p| text(p.exec_filename.as_deref())),
    ("command_line", |p| text(p.command_line.as_deref())),
    ("argc", |p| integer(p.command_line.as_ref().map(|_| p.arg_lengths.len()))),
    (
        "arg_lengths",
        |p| if p.arg_lengths.is_empty() { Cell::Null } else { Cell::Blob(varints(&p.arg_lengths).into()) },
    ),
    ("cwd", |p| text(p.cwd.as_deref())),
    ("uid", |p| integer(p.uid)),
    ("gid", |p| integer(p.gid)),
    ("euid", |p| integer(p.euid)),
    ("user", |p| text(p.user.as_deref())),
    ("session", |p| integer(p.session)),
    ("tty", |p| text(p.tty.as_deref())),
    ("start_time", |p| p.start_time_us.map_or(Cell::Null, Cell::Timestamp)),
    ("status", |p| text(p.status.as_deref())),
    ("cpu_usage", |p| p.cpu_usage.map_or(Cell::Null, Cell::Real)),
    ("memory_usage", |p| integer(p.memory_usage)),
    ("executable_hash", |p| text(p.executable_hash.as_deref())),
    ("hash_algorithm", |p| text(p.hash_algorithm.as_deref())),
    ("hash_status", |p| text(p.hash_status.as_deref())),
    ("deleted_executable", |p| boolean(p.deleted_executable)),
    ("memfd", |p| boolean(p.memfd)),
    ("cgroup", |p| text(p.cgroup.as_deref())),
    ("container_id", |p| text(p.container_id.as_deref())),
    ("pid_namespace", |p| integer(p.pid_namespace)),
    ("namespace_pid", |p| integer(p.namespace_pid)),
    ("capture", |p| word::<Capture>(p.capture)),
    ("truncated", |p| list(&p.truncated)),
    ("original_file_name", |p| text(windows(p).and_then(|w| w.original_file_name.as_deref()))),
    ("file_description", |p| text(windows(p).and_then(|w| w.file_description.as_deref()))),
    ("product", |p| text(windows(p).and_then(|w| w.product.as_deref()))),
    ("company", |p| text(windows(p).and_then(|w| w.company.as_deref()))),
    ("integrity_level", |p| text(windows(p).and_then(|w| w.integrity_level.as_deref()))),
    ("logon_id", |p| text(windows(p).and_then(|w| w.logon_id.as_deref()))),
    ("hashes", |p| text(windows(p).and_then(|w| w.hashes.as_deref()))),
    ("parent_user", |p| text(windows(p).and_then(|w| w.parent_user.as_deref()))),
];

fn windows(process: &ProcessRecord) -> Option<&WindowsProcess> {
    process.windows.as_deref()
}

fn text(value: Option<&str>) -> Cell<'_> {
    value.map_or(Cell::Null, Cell::Text)
}

/// Strings that proto3 cannot leave out: empty is "not known".
fn present(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

/// SQL has no unsigned 64 bits; no counter or inode here comes near the limit, and the store has the same.
fn integer<'a, T: TryInto<i64>>(value: Option<T>) -> Cell<'a> {
    value.map_or(Cell::Null, |value| Cell::Integer(value.try_into().unwrap_or(i64::MAX)))
}

fn boolean<'a>(value: Option<bool>) -> Cell<'a> {
    value.map_or(Cell::Null, Cell::Boolean)
}

fn id<'a>(bytes: Option<&[u8]>) -> Cell<'a> {
    bytes.filter(|bytes| bytes.len() == 16).map_or(Cell::Null, |bytes| Cell::Made(crate::hex::encode(bytes)))
}

fn list<'a>(names: &[String]) -> Cell<'a> {
    if names.is_empty() { Cell::Null } else { Cell::Made(names.join(",")) }
}

fn word<'a, E: Word + TryFrom<i32>>(value: i32) -> Cell<'a> {
    E::try_from(value).ok().and_then(E::word).map_or(Cell::Null, Cell::Text)
}

/// LEB128, as the column table promises for `arg_lengths`.
#[must_use]
pub fn varints(values: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len());
    for value in values {
        let mut left = *value;
        while left >= 0x80 {
            bytes.push(u8::try_from(left & 0x7f).unwrap_or(0) | 0x80);
            left >>= 7;
        }
        bytes.push(u8::try_from(left).unwrap_or(0));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn event() -> ProcessEvent {
        ProcessEvent {
            event_type: EventType::Modify.into(),
            time_us: 1_769_860_800_000_000,
            source: "procfs".into(),
            modified_fields: vec!["command_line".into(), "name".into()],
            process: Some(ProcessRecord {
                entity_id: vec![0xab; 16],
                pid: 7,
                name: "a\"b".into(),
                command_line: Some("x yz".into()),
                arg_lengths: vec![1, 300],
                start_time_us: Some(0),
                deleted_executable: Some(false),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn every_column_has_exactly_one_reader() {
        let readers: Vec<&str> = OF_EVENT.iter().map(|(n, _)| *n).chain(OF_RECORD.iter().map(|(n, _)| *n)).collect();
        let unique: BTreeSet<&str> = readers.iter().copied().collect();
        let columns: BTreeSet<&str> = columns::PROCESS_EVENTS.iter().map(|column| column.name).collect();
        assert_eq!((readers.len(), unique), (columns.len(), columns));
    }

    #[test]
    fn an_event_is_one_json_object_in_column_order_without_nulls() {
        let event = event();
        let origin = Origin { collector: "procmond", sequence: Some(Sequence::new(3, 9)) };
        let line = serde_json::to_string(&EventRow::new(&event, origin)).unwrap();
        assert_eq!(
            line,
            r#"{"time":"2026-01-31T12:00:00.000000Z","event_type":"modify","entity_id":"abababababababababababababababab","pid":7,"name":"a\"b","command_line":"x yz","argc":2,"arg_lengths":"0x01ac02","start_time":"1970-01-01T00:00:00.000000Z","deleted_executable":false,"source":"procfs","modified_fields":"command_line,name","collector":"procmond","epoch":3,"seq":9}"#
        );
    }

    #[test]
    fn a_time_outside_the_calendar_is_a_number() {
        assert_eq!(serde_json::to_string(&Cell::Timestamp(i64::MAX)).unwrap(), i64::MAX.to_string());
    }
}
