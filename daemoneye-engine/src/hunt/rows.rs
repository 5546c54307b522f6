//! Lines as rows of `process_events`: each known field in its column, and what follows from it.
//!
//! An event that does not say what it is is taken for the start of a program, since that is what rules of processes are about.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS};
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder, new_null_array,
};
use datafusion::arrow::error::ArrowError;

use super::read::{Cell, Fields, Special, Unmapped, fields};
use super::time::time;
use crate::detect::rules::yaml::truth;
use crate::schema::{TIME_ZONE, arrow_type, process_events_schema};
use crate::sigma::fields::{UNIX, WINDOWS, event_type_of, identity_of, level_of};
use crate::sigma::leaf::parse_integer;

/// Rows of a batch: enough that what a batch costs by itself does not count.
const BATCH_ROWS: usize = 2_048;
/// Bytes of lines after which a batch is complete however few they are.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Rows under way to a batch.
#[derive(Debug)]
pub struct Rows {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    unmapped: Unmapped,
    /// For each of them the events that had it.
    had: Vec<u64>,
}

/// Rows as they are evaluated; `seq` is the number of the line that each came from.
#[derive(Debug)]
pub struct Lines {
    pub(super) batch: RecordBatch,
}

impl Lines {
    /// The rows, with the schema of `process_events`.
    #[must_use]
    pub const fn batch(&self) -> &RecordBatch {
        &self.batch
    }
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It is a row.
    Taken,
    /// It is a row; these fields could not be read and are NULL.
    Without(Vec<&'static str>),
    /// It is no event of a process's start or end.
    Other,
    /// It is a row of which nothing is known: none of its fields is.
    Strange,
    /// It cannot be read, and why.
    Broken(String),
}

/// A column's values so far, made once it has one.
#[derive(Debug)]
struct Column {
    name: &'static str,
    kind: Kind,
    values: Option<Values>,
    /// NULLs before the first value.
    nulls: usize,
}

#[derive(Debug)]
enum Values {
    Blob(BinaryBuilder),
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

/// Places of the columns that follow from others.
struct Places {
    entity_id: usize,
    event_type: usize,
    executable_hash: usize,
    executable_path: usize,
    hash_algorithm: usize,
    hashes: usize,
    integrity_level: usize,
    name: usize,
    parent_entity_id: usize,
    parent_executable_path: usize,
    parent_name: usize,
    pid: usize,
    ppid: usize,
    seq: usize,
    source: usize,
    start_kind: usize,
    time: usize,
    user: usize,
}

static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let place = |name: &str| PROCESS_EVENTS.iter().position(|column| column.name == name).unwrap_or(0);
    Places {
        entity_id: place("entity_id"),
        event_type: place("event_type"),
        executable_hash: place("executable_hash"),
        executable_path: place("executable_path"),
        hash_algorithm: place("hash_algorithm"),
        hashes: place("hashes"),
        integrity_level: place("integrity_level"),
        name: place("name"),
        parent_entity_id: place("parent_entity_id"),
        parent_executable_path: place("parent_executable_path"),
        parent_name: place("parent_name"),
        pid: place("pid"),
        ppid: place("ppid"),
        seq: place("seq"),
        source: place("source"),
        start_kind: place("start_kind"),
        time: place("time"),
        user: place("user"),
    }
});

impl Default for Rows {
    fn default() -> Self {
        Self::counting(&[])
    }
}

fn empty() -> Vec<Column> {
    let column = |column: &daemoneye_lib::columns::Column| Column {
        name: column.name,
        kind: column.kind,
        values: None,
        nulls: 0,
    };
    PROCESS_EVENTS.iter().map(column).collect()
}

impl Rows {
    /// Counts the events that have these fields, which no column holds.
    #[must_use]
    pub fn counting(unmapped: &[String]) -> Self {
        let had = vec![0; unmapped.len()];
        let unmapped = unmapped.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Self { columns: empty(), rows: 0, bytes: 0, unmapped, had }
    }

    /// The fields of [`Rows::counting`] that events had, by name, and how many.
    #[must_use]
    pub fn unmapped(&self) -> Vec<(&str, u64)> {
        let count = |at: usize| self.had.get(at).copied().unwrap_or_default();
        let each = self.unmapped.iter().map(|(name, at)| (name.as_str(), count(*at)));
        let mut found: Vec<_> = each.filter(|(_, events)| *events > 0).collect();
        found.sort_unstable();
        found
    }

    /// Reads a line; `number` is its place in the file.
    pub fn take(&mut self, number: u64, line: &[u8]) -> Line {
        let mut fields = match fields(line, &self.unmapped) {
            Ok(fields) => fields,
            Err(problem) => return Line::Broken(problem),
        };
        let is_strange = fields.is_strange();
        let Some(mut without) = settle(&mut fields) else { return Line::Other };
        for at in fields.unmapped() {
            if let Some(events) = self.had.get_mut(at) {
                *events = events.saturating_add(1);
            }
        }
        // What a window rule finds names its events by their place.
        *fields.column(PLACES.seq) = i64::try_from(number).ok().map(Cell::Integer);
        for (at, column) in self.columns.iter_mut().enumerate() {
            if !column.push(fields.column(at).take()) {
                without.push(column.name);
            }
        }
        without.sort_unstable();
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(line.len());
        match without.is_empty() {
            true if is_strange => Line::Strange,
            true => Line::Taken,
            false => Line::Without(without),
        }
    }

    /// Whether it is time to evaluate.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// The rows so far, of which there may be none.
    ///
    /// # Errors
    /// Arrow would not take the columns; a defect of this program.
    pub fn finish(&mut self) -> Result<Lines, ArrowError> {
        let (columns, rows) = (std::mem::replace(&mut self.columns, empty()), self.rows);
        (self.rows, self.bytes) = (0, 0);
        let arrays = columns.into_iter().map(|column| column.finish(rows)).collect();
        Ok(Lines { batch: RecordBatch::try_new(process_events_schema(), arrays)? })
    }
}

impl Column {
    /// Whether the value could be read; otherwise it is NULL.
    fn push(&mut self, cell: Option<Cell<'_>>) -> bool {
        let Some(cell) = cell else {
            match &mut self.values {
                Some(values) => values.null(),
                None => self.nulls += 1,
            }
            return true;
        };
        let (kind, nulls) = (self.kind, self.nulls);
        self.values.get_or_insert_with(|| Values::new(kind, nulls)).push(&cell)
    }

    fn finish(self, rows: usize) -> ArrayRef {
        self.values.map_or_else(|| new_null_array(&arrow_type(self.kind), rows), Values::finish)
    }
}

impl Values {
    fn new(kind: Kind, nulls: usize) -> Self {
        let mut values = match kind {
            Kind::Blob => Self::Blob(BinaryBuilder::new()),
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Real => Self::Real(Float64Builder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone(TIME_ZONE)),
        };
        (0..nulls).for_each(|_| values.null());
        values
    }

    fn null(&mut self) {
        match self {
            Self::Blob(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::Real(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) -> bool {
        let read = match (&mut *self, cell) {
            (Self::Blob(builder), Cell::Text(text)) => {
                let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
                bytes.map(|bytes| builder.append_value(bytes))
            }
            (Self::Boolean(builder), Cell::Boolean(value)) => {
                builder.append_value(*value);
                Some(())
            }
            (Self::Integer(builder), cell) => integer(cell).map(|value| builder.append_value(value)),
            (Self::Real(builder), Cell::Real(value)) => {
                builder.append_value(*value);
                Some(())
            }
            (Self::Real(builder), Cell::Text(text)) => {
                text.trim().parse().ok().map(|value| builder.append_value(value))
            }
            (Self::Real(builder), Cell::Integer(value)) => {
                value.to_string().parse().ok().map(|value| builder.append_value(value))
            }
            (Self::Boolean(builder), Cell::Text(text)) => truth(text.trim()).map(|value| builder.append_value(value)),
            (Self::Boolean(builder), Cell::Integer(value @ (0 | 1))) => {
                builder.append_value(*value == 1);
                Some(())
            }
            (Self::Text(builder), cell) => text(cell).map(|text| builder.append_value(text)),
            (Self::Timestamp(builder), cell) => time(cell).map(|us| builder.append_value(us)),
            _ => None,
        };
        if read.is_none() {
            self.null();
        }
        read.is_some()
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Blob(mut builder) => Arc::new(builder.finish()),
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Integer(mut builder) => Arc::new(builder.finish()),
            Self::Real(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// What the fields of a Windows event mean for the columns, and what can be told from others. The columns for which there was
/// something that cannot be read; `None` if it is no event of a process.
fn settle(fields: &mut Fields<'_>) -> Option<Vec<&'static str>> {
    let places = &*PLACES;
    let event_id = fields.special(Special::EventId).take();
    let event_id = event_id.as_ref().and_then(integer);
    let mut lowered = |special: Special| {
        let cell = fields.special(special).take();
        cell.as_ref().and_then(|cell| text(cell).map(|text| text.to_ascii_lowercase()))
    };
    // A channel that collects others' events says nothing of them; who wrote them does.
    let channel = lowered(Special::Channel).filter(|channel| is_log(channel));
    let channel = channel.or_else(|| lowered(Special::Provider).filter(|provider| is_known(provider)));
    let wanted = event_id.map(|id| if id < 100 { "sysmon" } else { "security" });
    let elsewhere = channel.as_deref().zip(wanted).is_some_and(|(channel, wanted)| !channel.contains(wanted));
    let event_type = event_id.map(event_type_of);
    if elsewhere || event_type == Some(None) {
        return None;
    }
    source(fields, channel.as_deref(), event_id);
    process_ids(fields, event_id);
    let kind = event_type.flatten().unwrap_or("start");
    if fields.column(places.event_type).is_none() {
        *fields.column(places.event_type) = Some(Cell::Text(Cow::Borrowed(kind)));
        if kind == "start" {
            default(fields.column(places.start_kind), || Some(Cell::Text(Cow::Borrowed("exec"))));
        }
    }
    let without = identities(fields);
    instant(fields);
    names(fields, places.executable_path, places.name);
    names(fields, places.parent_executable_path, places.parent_name);
    hashes(fields);
    Some(without)
}

/// Windows' own logs whose names do not tell that one provider writes there, as those with a slash do.
const LOGS: &[&str] = &[
    "active directory web services",
    "application",
    "dfs replication",
    "directory service",
    "dns server",
    "file replication service",
    "hardwareevents",
    "internet explorer",
    "key management service",
    "oalerts",
    "security",
    "setup",
    "system",
    "windows powershell",
];

/// Whether a channel holds what is its own; `ForwardedEvents` and those that collectors name hold anything.
fn is_log(channel: &str) -> bool {
    channel.contains('/') || LOGS.contains(&channel) || is_known(channel)
}

/// Whether the name of a provider is one of Windows' or Sysmon's; other words there may be anything.
fn is_known(provider: &str) -> bool {
    ["microsoft-", "security", "sysmon"].iter().any(|part| provider.contains(part))
}

/// Takes a value where there is none; an object that some exporter has under the column's name is none.
fn default<'a>(slot: &mut Option<Cell<'a>>, value: impl FnOnce() -> Option<Cell<'a>>) {
    if matches!(slot, None | Some(Cell::Nested)) {
        *slot = value().or_else(|| slot.take());
    }
}

/// The system that an event is of, where it shows: by its path, or else by the channel or number of its log.
fn source(fields: &mut Fields<'_>, channel: Option<&str>, event_id: Option<i64>) {
    let places = &*PLACES;
    let mut system = None;
    for path in [places.executable_path, places.parent_executable_path] {
        let Some(Cell::Text(path)) = fields.column(path) else { continue };
        system = system.or_else(|| system_of(path));
    }
    let of_security = event_id.is_some_and(|id| id > 100);
    system = system.or_else(|| match channel {
        Some(channel) if channel.contains("linux") => Some(UNIX),
        Some(channel) => (channel.contains("windows") || of_security).then_some(WINDOWS),
        None => of_security.then_some(WINDOWS),
    });
    default(fields.column(places.source), || system.map(|system| Cell::Text(Cow::Borrowed(system))));
}

/// Drives, shares and names of devices are those of Windows.
fn system_of(path: &str) -> Option<&'static str> {
    match path.as_bytes() {
        [b'/', ..] => Some(UNIX),
        [b'\\', ..] => Some(WINDOWS),
        [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic() => Some(WINDOWS),
        _ => None,
    }
}

/// In event 4688 `ProcessId` is that of the one who starts, and `NewProcessId` that of the new one.
fn process_ids(fields: &mut Fields<'_>, event_id: Option<i64>) {
    let id = fields.special(Special::ProcessId).take();
    let is_parent = event_id == Some(4688) || (event_id.is_none() && fields.column(PLACES.pid).is_some());
    default(fields.column(if is_parent { PLACES.ppid } else { PLACES.pid }), || id);
}

/// Who it is, who started it and for whom; the columns for which there was something that cannot be read.
fn identities(fields: &mut Fields<'_>) -> Vec<&'static str> {
    let mut without = Vec::new();
    let each = [
        (Special::Guid, PLACES.entity_id, "entity_id", identity_of as fn(&str) -> Option<String>),
        (Special::ParentGuid, PLACES.parent_entity_id, "parent_entity_id", identity_of),
        (Special::Label, PLACES.integrity_level, "integrity_level", |label| Some(level_of(label))),
    ];
    for (special, place, name, read) in each {
        let Some(cell) = fields.special(special).take() else { continue };
        let value = text(&cell).and_then(|text| read(&text)).map(|value| Cell::Text(Cow::Owned(value)));
        let is_said = !matches!(&cell, Cell::Text(text) if matches!(text.trim(), "" | "-"));
        if is_said && value.is_none() && fields.column(place).is_none() {
            without.push(name);
        }
        default(fields.column(place), || value);
    }
    let user = fields.special(Special::SubjectUser).take();
    default(fields.column(PLACES.user), || user);
    without
}

/// When it was: as the event itself says, or else when it was written, or else what the exporter adds, which may be when it came by.
fn instant(fields: &mut Fields<'_>) {
    for special in [Special::UtcTime, Special::SystemTime, Special::TimeCreated, Special::Timestamp] {
        let at = fields.special(special).take();
        default(fields.column(PLACES.time), || at);
    }
}

/// The last part of a path, of either system.
fn names(fields: &mut Fields<'_>, path: usize, name: usize) {
    if fields.column(name).is_some() {
        return;
    }
    let Some(Cell::Text(path)) = fields.column(path).clone() else { return };
    let separators: &[char] = if path.starts_with('/') { &['/'] } else { &['\\', '/'] };
    let last = path.rsplit(separators).next().unwrap_or_default();
    *fields.column(name) = (!last.is_empty()).then(|| Cell::Text(Cow::Owned(last.to_owned())));
}

/// Hashes in fields of their own become the list that Sysmon writes, and its SHA-256 the hash of the executable.
fn hashes(fields: &mut Fields<'_>) {
    let of =
        [("MD5", Special::Md5), ("SHA1", Special::Sha1), ("SHA256", Special::Sha256), ("IMPHASH", Special::Imphash)];
    let each = of.map(|(name, special)| {
        let cell = fields.special(special).take();
        cell.as_ref().and_then(text).map(|hash| format!("{name}={hash}"))
    });
    let list = each.into_iter().flatten().collect::<Vec<_>>().join(",");
    default(fields.column(PLACES.hashes), || (!list.is_empty()).then_some(Cell::Text(Cow::Owned(list))));
    let Some(Cell::Text(list)) = fields.column(PLACES.hashes).clone() else { return };
    let sha256 = list.split(',').find_map(|part| part.trim().strip_prefix("SHA256=").map(str::to_ascii_lowercase));
    if let (None, Some(hash)) = (&fields.column(PLACES.executable_hash), sha256) {
        *fields.column(PLACES.executable_hash) = Some(Cell::Text(Cow::Owned(hash)));
        default(fields.column(PLACES.hash_algorithm), || Some(Cell::Text(Cow::Borrowed("sha256"))));
    }
}

fn text<'c>(cell: &'c Cell<'_>) -> Option<Cow<'c, str>> {
    match cell {
        Cell::Text(text) => Some(Cow::Borrowed(text)),
        Cell::Integer(number) => Some(Cow::Owned(number.to_string())),
        Cell::Real(number) => Some(Cow::Owned(format!("{number:?}"))),
        Cell::Boolean(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        Cell::Nested => None,
    }
}

/// A whole number that is written with a fraction of nothing, as some exporters write every number.
fn whole(number: f64) -> Option<i64> {
    // Beyond 2^53 neighbours are the same number.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let is_whole = number.fract() == 0.0 && number.abs() <= MOST;
    is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

fn integer(cell: &Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Integer(number) => Some(*number),
        Cell::Real(number) => whole(*number),
        Cell::Text(text) => parse_integer(text).or_else(|| whole(text.trim().parse().ok()?)),
        _ => None,
    }
}
