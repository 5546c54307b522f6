//! What the fields of a line mean for the columns beyond their names, and what can be told from others.

use std::borrow::Cow;
use std::sync::LazyLock;

use daemoneye_lib::columns::PROCESS_EVENTS;

use super::cell::{Cell, differ, integer, text};
use super::lacks::Lacks;
use super::read::{Fields, Special};
use crate::sigma::fields::{Log, System, event_of, identity_of, level_of, source_of};

/// Places of the columns that follow from others.
pub(super) struct Places {
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
    pub(super) seq: usize,
    source: usize,
    start_kind: usize,
    time: usize,
    user: usize,
}

pub(super) static PLACES: LazyLock<Places> = LazyLock::new(|| {
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

/// What the fields of a Windows event mean for the columns, and what can be told from others. What could not be taken of it; `None`
/// if it is no event of a process.
pub(super) fn settle(fields: &mut Fields<'_>) -> Option<Lacks> {
    let places = &*PLACES;
    let written = fields.special(Special::EventId).take();
    let event_id = written.as_ref().and_then(integer);
    let is_unread = event_id.is_none() && written.as_ref().is_some_and(is_said);
    let mut lowered = |special: Special| {
        let cell = fields.special(special).take();
        cell.as_ref().and_then(|cell| text(cell).map(|text| text.to_ascii_lowercase()))
    };
    // A channel that collects others' events says nothing of them; who wrote them does.
    let channel = lowered(Special::Channel).filter(|channel| is_log(channel));
    let channel = channel.or_else(|| lowered(Special::Provider).filter(|provider| is_known(provider)));
    let wanted = event_id.map(|id| if id < 100 { "sysmon" } else { "security" });
    let elsewhere = channel.as_deref().zip(wanted).is_some_and(|(channel, wanted)| !channel.contains(wanted));
    let event = event_id.map(event_of);
    if elsewhere || event == Some(None) {
        return None;
    }
    let (kind, of_number) = event.flatten().map_or(("start", None), |(kind, log)| (kind, Some(log)));
    source(fields, channel.as_deref(), of_number);
    let mut lacks = Lacks::default();
    process_ids(fields, event_id, &mut lacks);
    let event_type = fields.column(places.event_type);
    if is_unread || event_type.as_ref().is_some_and(|word| is_said(word) && !is_event(word)) {
        // What happened is said, in words that nobody here knows: for a start it is not taken.
        *event_type = None;
        lacks.unread.push("event_type");
    } else if event_type.is_none() {
        *fields.column(places.event_type) = Some(Cell::Text(Cow::Borrowed(kind)));
        if kind == "start" {
            default(fields.column(places.start_kind), || Some(Cell::Text(Cow::Borrowed("exec"))));
        }
    }
    identities(fields, &mut lacks);
    instant(fields);
    names(fields, places.executable_path, places.name);
    names(fields, places.parent_executable_path, places.parent_name);
    hashes(fields, &mut lacks);
    lacks.differ.extend(fields.differ().filter_map(column_of));
    Some(lacks)
}

/// What happens to processes.
const EVENTS: [&str; 4] = ["start", "stop", "modify", "suspicious"];

fn is_event(word: &Cell<'_>) -> bool {
    matches!(word, Cell::Text(word) if EVENTS.contains(&&**word))
}

/// Whether a value says anything.
fn is_said(cell: &Cell<'_>) -> bool {
    text(cell).is_some_and(|text| !matches!(text.trim(), "" | "-"))
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

/// The column that a field is for, where another value of it would be lost; of a time the first is taken, and that is no loss.
fn column_of(slot: usize) -> Option<&'static str> {
    if let Some(column) = PROCESS_EVENTS.get(slot) {
        return Some(column.name);
    }
    let is = |special: Special| slot == PROCESS_EVENTS.len() + special as usize;
    let of = [
        (Special::EventId, "event_type"),
        (Special::Guid, "entity_id"),
        (Special::Imphash, "hashes"),
        (Special::Label, "integrity_level"),
        (Special::Md5, "hashes"),
        (Special::ParentGuid, "parent_entity_id"),
        (Special::ProcessId, "pid"),
        (Special::Sha1, "hashes"),
        (Special::Sha256, "hashes"),
        (Special::SubjectUser, "user"),
    ];
    of.into_iter().find(|(special, _)| is(*special)).map(|(_, column)| column)
}

/// Takes a value where there is none, and notes where there is another; an empty one or a dash says nothing.
fn either<'a>(fields: &mut Fields<'a>, column: usize, value: Option<Cell<'a>>, lacks: &mut Lacks) {
    let slot = fields.column(column);
    if let (Some(known), Some(found), Some(column)) = (&*slot, &value, PROCESS_EVENTS.get(column)) {
        let folded = |cell: &Cell<'_>| text(cell).map(|text| text.trim().to_ascii_lowercase());
        let is_said = folded(found).is_some_and(|text| !matches!(text.as_str(), "" | "-"));
        if is_said && folded(known) != folded(found) && differ(column.kind, known, found) {
            lacks.differ.insert(column.name);
        }
    }
    default(slot, || value);
}

/// The system that an event is of, where it shows: by its path, or else by its log.
fn source(fields: &mut Fields<'_>, channel: Option<&str>, of_number: Option<Log>) {
    let places = &*PLACES;
    let mut system = None;
    for path in [places.executable_path, places.parent_executable_path] {
        let Some(Cell::Text(path)) = fields.column(path) else { continue };
        system = system.or_else(|| system_of(path));
    }
    let log = of_number.or_else(|| channel.and_then(log_of));
    system = system.or_else(|| match channel {
        Some(channel) if channel.contains("linux") => Some(System::Unix),
        Some(channel) if channel.contains("windows") => Some(System::Windows),
        _ => (log == Some(Log::Security)).then_some(System::Windows),
    });
    default(fields.column(places.source), || source_of(system, log).map(|source| Cell::Text(Cow::Borrowed(source))));
}

/// The log that a channel or provider is.
fn log_of(channel: &str) -> Option<Log> {
    if channel.contains("sysmon") {
        return Some(Log::Sysmon);
    }
    (channel == "security" || channel.contains("security-auditing")).then_some(Log::Security)
}

/// Drives, shares and names of devices are those of Windows.
fn system_of(path: &str) -> Option<System> {
    match path.as_bytes() {
        [b'/', ..] => Some(System::Unix),
        [b'\\', ..] => Some(System::Windows),
        [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic() => Some(System::Windows),
        _ => None,
    }
}

/// In event 4688 `ProcessId` is that of the one who starts, and `NewProcessId` that of the new one.
fn process_ids(fields: &mut Fields<'_>, event_id: Option<i64>, lacks: &mut Lacks) {
    let id = fields.special(Special::ProcessId).take();
    let is_parent = event_id == Some(4688) || (event_id.is_none() && fields.column(PLACES.pid).is_some());
    either(fields, if is_parent { PLACES.ppid } else { PLACES.pid }, id, lacks);
    // Event 4689 calls the path so; whatever else has the name may mean another thing.
    if let Some(path) = fields.special(Special::ProcessName).take() {
        match event_id {
            Some(4689) => either(fields, PLACES.executable_path, Some(path), lacks),
            _ => fields.has_another(),
        }
    }
}

/// Who it is, who started it and for whom.
fn identities(fields: &mut Fields<'_>, lacks: &mut Lacks) {
    if let Some(Cell::Text(level)) = fields.column(PLACES.integrity_level) {
        *level = Cow::Owned(level_of(level));
    }
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
            lacks.unread.push(name);
        }
        either(fields, place, value, lacks);
    }
    let user = fields.special(Special::SubjectUser).take();
    either(fields, PLACES.user, user, lacks);
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

/// Hashes in fields of their own join the list that Sysmon writes, and its SHA-256 becomes the hash of the executable.
fn hashes(fields: &mut Fields<'_>, lacks: &mut Lacks) {
    let of =
        [("MD5", Special::Md5), ("SHA1", Special::Sha1), ("SHA256", Special::Sha256), ("IMPHASH", Special::Imphash)];
    let mut list = match fields.column(PLACES.hashes) {
        Some(Cell::Text(list)) => list.to_string(),
        _ => String::new(),
    };
    for (name, special) in of {
        let cell = fields.special(special).take();
        let Some(hash) = cell.as_ref().and_then(text) else { continue };
        let known = list.split(',').filter_map(|part| part.trim().split_once('='));
        match known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, known)) if known.eq_ignore_ascii_case(&hash) => {}
            Some(_) => drop(lacks.differ.insert("hashes")),
            None => list.extend([if list.is_empty() { "" } else { "," }, name, "=", &*hash]),
        }
    }
    if !list.is_empty() {
        *fields.column(PLACES.hashes) = Some(Cell::Text(Cow::Owned(list)));
    }
    let Some(Cell::Text(list)) = fields.column(PLACES.hashes).clone() else { return };
    let sha256 = list.split(',').find_map(|part| part.trim().strip_prefix("SHA256=").map(str::to_ascii_lowercase));
    if let (None, Some(hash)) = (&fields.column(PLACES.executable_hash), sha256) {
        *fields.column(PLACES.executable_hash) = Some(Cell::Text(Cow::Owned(hash)));
        default(fields.column(PLACES.hash_algorithm), || Some(Cell::Text(Cow::Borrowed("sha256"))));
    }
}
