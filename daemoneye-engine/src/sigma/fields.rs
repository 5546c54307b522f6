//! What Sigma calls a field of a process's start, and the column that holds it.
//!
//! The names are those of Sysmon's event 1, of Security's event 4688 and of Sigma's taxonomy; our own column names are taken too.
//! What is not here is not mapped: a rule that needs it says so.

use daemoneye_lib::columns::{Kind, PROCESS_EVENTS, process_event_column};

/// Where a field's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Column(&'static str),
    /// The number of a Windows event.
    EventId,
    /// A process's GUID; its hex digits are the identity.
    Guid(&'static str),
    /// One algorithm's part of `hashes`, and how many digits its value has.
    Hash(&'static str, usize),
    /// A SID in place of the word of `integrity_level`.
    Label,
}

/// Fields as rules and Windows events name them.
pub(crate) const FIELDS: &[(&str, Target)] = &[
    ("CommandLine", Target::Column("command_line")),
    ("Company", Target::Column("company")),
    ("CurrentDirectory", Target::Column("cwd")),
    ("Description", Target::Column("file_description")),
    ("EventID", Target::EventId),
    ("Hashes", Target::Column("hashes")),
    ("Image", Target::Column("executable_path")),
    ("Imphash", Target::Hash("IMPHASH", 32)),
    ("imphash", Target::Hash("IMPHASH", 32)),
    ("IntegrityLevel", Target::Column("integrity_level")),
    ("LogonId", Target::Column("logon_id")),
    ("MandatoryLabel", Target::Label),
    ("md5", Target::Hash("MD5", 32)),
    ("MD5", Target::Hash("MD5", 32)),
    ("NewProcessId", Target::Column("pid")),
    ("NewProcessName", Target::Column("executable_path")),
    ("OriginalFileName", Target::Column("original_file_name")),
    ("ParentCommandLine", Target::Column("parent_command_line")),
    ("ParentImage", Target::Column("parent_executable_path")),
    ("ParentProcessGuid", Target::Guid("parent_entity_id")),
    ("ParentProcessId", Target::Column("ppid")),
    ("ParentProcessName", Target::Column("parent_executable_path")),
    ("ParentUser", Target::Column("parent_user")),
    ("ProcessCommandLine", Target::Column("command_line")),
    ("ProcessGuid", Target::Guid("entity_id")),
    ("ProcessId", Target::Column("pid")),
    ("Product", Target::Column("product")),
    ("sha1", Target::Hash("SHA1", 40)),
    ("SHA1", Target::Hash("SHA1", 40)),
    ("sha256", Target::Hash("SHA256", 64)),
    ("SHA256", Target::Hash("SHA256", 64)),
    ("SubjectLogonId", Target::Column("logon_id")),
    ("SubjectUserName", Target::Column("user")),
    ("TerminalSessionId", Target::Column("session")),
    ("User", Target::Column("user")),
];

/// The system that an event of a file is of: by its paths, or what its exporter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Its paths begin with `/`.
    Unix,
    Windows,
}

/// The log that an event of a file stands in: by its number or its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    Security,
    Sysmon,
}

/// What a file's event has for a source, so that rules of another system or log can leave it out.
const SOURCES: &[(&str, Option<System>, Option<Log>)] = &[
    ("security", None, Some(Log::Security)),
    ("sysmon", None, Some(Log::Sysmon)),
    ("unix", Some(System::Unix), None),
    ("unix-security", Some(System::Unix), Some(Log::Security)),
    ("unix-sysmon", Some(System::Unix), Some(Log::Sysmon)),
    ("windows", Some(System::Windows), None),
    ("windows-security", Some(System::Windows), Some(Log::Security)),
    ("windows-sysmon", Some(System::Windows), Some(Log::Sysmon)),
];
/// Sources of live events of Linux.
const LINUX: [&str; 3] = ["ebpf", "proc-connector", "procfs"];

/// The source of an event of which this is known.
pub(crate) fn source_of(system: Option<System>, log: Option<Log>) -> Option<&'static str> {
    SOURCES.iter().find(|(_, of, stands)| (*of, *stands) == (system, log)).map(|(source, ..)| *source)
}

/// The sources of events that are none of a product; what tells no system is looked at by the rules of every product.
pub(super) fn foreign_sources(product: &str) -> Option<Vec<&'static str>> {
    let of = |system: System| SOURCES.iter().filter(move |(_, of, _)| *of == Some(system)).map(|(source, ..)| *source);
    match product {
        "linux" => Some(of(System::Windows).collect()),
        "macos" => Some(LINUX.into_iter().chain(of(System::Windows)).collect()),
        "windows" => Some(LINUX.into_iter().chain(of(System::Unix)).collect()),
        _ => None,
    }
}

/// The sources of events that stand in another log; what tells none is looked at by the rules of each.
pub(super) fn sources_beside(log: Log) -> Vec<&'static str> {
    let is_other = |stands: &Option<Log>| stands.is_some_and(|stands| stands != log);
    SOURCES.iter().filter(|(_, _, stands)| is_other(stands)).map(|(source, ..)| *source).collect()
}

/// The log that Sigma calls a service.
pub(super) fn log_of(service: &str) -> Option<Log> {
    match service {
        "security" => Some(Log::Security),
        "sysmon" => Some(Log::Sysmon),
        _ => None,
    }
}

/// Columns that tell how an event was captured rather than what the process says: a keyword does not look at them.
const NOT_SEARCHED: &[&str] = &[
    "event_type",
    "start_kind",
    "entity_id",
    "identity",
    "parent_entity_id",
    "status",
    "hash_algorithm",
    "hash_status",
    "source",
    "capture",
    "modified_fields",
    "reason",
    "severity",
    "truncated",
    "collector",
];

/// Whose names a rule uses where Security's events have other fields than Sysmon's, or others under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Sysmon,
    /// Event 4688: `ProcessId` is that of the parent.
    Created,
    /// Event 4689: `ProcessId` is that of the process, and `ProcessName` its path.
    Exited,
    /// Either of them, as each event is.
    CreatedOrExited,
}

/// Fields that are not the same column in both of Security's events, or are in one of them only.
pub(super) const OF_ONE_EVENT: [&str; 2] = ["ProcessId", "ProcessName"];

impl Naming {
    /// By the numbers of events that a rule asks for, or else by its log source.
    pub(super) fn of(events: &[i64], category: Option<&str>, service: Option<&str>) -> Self {
        let is_security = service == Some("security");
        let all = |number: i64| !events.is_empty() && events.iter().all(|event| *event == number);
        let of = |wanted: &str| events.is_empty() && category == Some(wanted);
        if all(4689) || (is_security && of("process_termination")) {
            Self::Exited
        } else if is_security && (all(4688) || of("process_creation")) {
            Self::Created
        } else if is_security {
            Self::CreatedOrExited
        } else {
            Self::Sysmon
        }
    }
}

/// Where a rule finds a field.
pub(super) fn target(field: &str, naming: Naming) -> Option<Target> {
    match (naming, field) {
        (Naming::Created, "ProcessId") => return Some(Target::Column("ppid")),
        (Naming::Exited, "ProcessName") => return Some(Target::Column("executable_path")),
        _ => {}
    }
    let of_windows = FIELDS.iter().find(|(name, _)| *name == field).map(|(_, target)| *target);
    of_windows.or_else(|| process_event_column(field).map(|column| Target::Column(column.name)))
}

/// The text columns that a keyword is looked for in.
pub(super) fn searched() -> impl Iterator<Item = &'static str> {
    let text = PROCESS_EVENTS.iter().filter(|column| column.kind == Kind::Text).map(|column| column.name);
    text.filter(|name| !NOT_SEARCHED.contains(name))
}

/// Whether it is the SID of an integrity level.
pub(crate) fn is_label(text: &str) -> bool {
    text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("S-1-16-"))
}

/// The word for an integrity level's SID; one that has none stays as it is.
pub(crate) fn level_of(label: &str) -> String {
    let words = [
        ("S-1-16-0", "Untrusted"),
        ("S-1-16-4096", "Low"),
        ("S-1-16-8192", "Medium"),
        ("S-1-16-8448", "MediumPlus"),
        ("S-1-16-12288", "High"),
        ("S-1-16-16384", "System"),
        ("S-1-16-20480", "Protected"),
    ];
    let word = words.into_iter().find(|(sid, _)| sid.eq_ignore_ascii_case(label)).map(|(_, word)| word);
    word.unwrap_or(label).to_owned()
}

/// The hex digits of a GUID.
pub(crate) fn identity_of(guid: &str) -> Option<String> {
    let bare = guid.trim().trim_start_matches('{').trim_end_matches('}');
    uuid::Uuid::parse_str(bare).ok().map(|guid| guid.simple().to_string())
}

/// What the number of a Windows event says of a process, and the log that has this number.
pub(crate) const fn event_of(event_id: i64) -> Option<(&'static str, Log)> {
    match event_id {
        1 => Some(("start", Log::Sysmon)),
        5 => Some(("stop", Log::Sysmon)),
        4688 => Some(("start", Log::Security)),
        4689 => Some(("stop", Log::Security)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_leads_to_a_column_that_exists() {
        for (field, target) in FIELDS {
            if let Target::Column(column) | Target::Guid(column) = target {
                assert!(process_event_column(column).is_some(), "{field}");
            }
        }
        assert!(NOT_SEARCHED.iter().all(|name| process_event_column(name).is_some()));
        assert!(searched().any(|name| name == "command_line"));
    }
}
