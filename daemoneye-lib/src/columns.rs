//! The columns of process events: what they are called, what they hold and where each comes from.
//!
//! The store's schema, the documentation, the CLI's headings and the field names of rules derive from this table or are
//! tested against it; [`crate::tables`] has the tables that SQL knows. The order is the order of `SELECT *` and of the stored files; append only, and raise
//! [`SCHEMA_VERSION`] when a column's meaning changes.

/// Version of the table; stored with every segment.
pub const SCHEMA_VERSION: u32 = 1;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes without a character set.
    Blob,
    /// True or false.
    Boolean,
    /// Signed 64 bits.
    Integer,
    /// IEEE 754 double.
    Real,
    /// UTF-8; what the kernel gave in other bytes is escaped at capture.
    Text,
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
}

impl Kind {
    /// The SQL type that `.schema` and the documentation show.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Blob => "BLOB",
            Self::Boolean => "BOOLEAN",
            Self::Integer => "BIGINT",
            Self::Real => "DOUBLE",
            Self::Text => "TEXT",
            Self::Timestamp => "TIMESTAMP",
        }
    }
}

/// What a column can give away about people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sensitivity {
    /// Can hold secrets that were typed as arguments.
    Argument,
    /// Names a person or account.
    Identity,
    /// Nothing of that kind.
    Public,
}

impl Sensitivity {
    /// What the documentation says about it; empty for what is public.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Argument => "may hold secrets",
            Self::Identity => "names a person",
            Self::Public => "",
        }
    }
}

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// SQL name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Unit or notation; empty where the kind says it all.
    pub unit: &'static str,
    /// What it can give away.
    pub sensitivity: Sensitivity,
    /// Field of `ProcessEvent` (dotted), or of the `Record` around it; empty for what no event carries.
    pub field: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// A value as the CLI prints it.
    pub example: &'static str,
}

// Columns as `"name" Kind "unit" Sensitivity "field" "meaning" "example";`, so that the table reads as one.
macro_rules! columns {
    ($($name:literal $kind:ident $unit:literal $sensitivity:ident $field:literal $meaning:literal $example:literal;)+) => {
        &[$(Column {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            sensitivity: Sensitivity::$sensitivity,
            field: $field,
            meaning: $meaning,
            example: $example,
        }),+]
    };
}

pub(crate) use columns;

/// Every column of `process_events`, in order.
pub const PROCESS_EVENTS: &[Column] = columns! {
    "time" Timestamp "µs since the Unix epoch, UTC" Public "time_us"
        "when it happened, or when the snapshot saw it" "2026-01-31T12:00:00.000000Z";
    "event_type" Text "" Public "event_type"
        "start, stop, modify or suspicious" "start";
    "start_kind" Text "" Public "start_kind"
        "exec, fork or baseline; NULL unless the event is a start" "exec";
    "entity_id" Text "32 hex digits" Public "process.entity_id"
        "identity of the process lifetime; survives pid reuse and exec" "5f1c0e6a9d3b47c2a1e8f00db4c6d7e9";
    "identity" Text "" Public "process.identity"
        "exact, or estimated when the start ticks could not be read" "exact";
    "pid" Integer "" Public "process.pid"
        "process id in the collector's namespace" "4242";
    "ppid" Integer "" Public "process.ppid"
        "pid of the parent" "1";
    "parent_entity_id" Text "32 hex digits" Public "process.parent_entity_id"
        "identity of the parent as it was" "a1e8f00db4c6d7e95f1c0e6a9d3b47c2";
    "parent_name" Text "" Public "process.parent_name"
        "name of the parent as it was" "bash";
    "parent_executable_path" Text "" Public "process.parent_executable_path"
        "executable of the parent as it was" "/usr/bin/bash";
    "parent_command_line" Text "" Argument "process.parent_command_line"
        "command line of the parent as it was" "-bash";
    "ancestry" Text "" Public "process.ancestry"
        "names from the root down to the process, at most 16" "/systemd/sshd/bash/curl";
    "name" Text "" Public "process.name"
        "short name, at most 15 bytes on Linux" "curl";
    "executable_path" Text "" Public "process.executable_path"
        "the resolved executable, as /proc/<pid>/exe says" "/usr/bin/curl";
    "exec_filename" Text "" Public "process.exec_filename"
        "the name that was given to exec; needs a kernel source" "./curl";
    "command_line" Text "" Argument "process.command_line"
        "arguments joined by one space" "curl -s https://example.org";
    "argc" Integer "arguments" Public "process.arg_lengths"
        "number of arguments" "3";
    "arg_lengths" Blob "LEB128 varints, bytes" Public "process.arg_lengths"
        "byte length of each argument inside command_line" "0x040213";
    "cwd" Text "" Public "process.cwd"
        "working directory" "/root";
    "uid" Integer "" Public "process.uid"
        "real user id" "1000";
    "gid" Integer "" Public "process.gid"
        "real group id" "1000";
    "euid" Integer "" Public "process.euid"
        "effective user id" "0";
    "user" Text "" Identity "process.user"
        "name of the real user" "alice";
    "session" Integer "" Public "process.session"
        "session id" "4200";
    "tty" Text "" Public "process.tty"
        "controlling terminal" "pts/0";
    "start_time" Timestamp "µs since the Unix epoch, UTC" Public "process.start_time_us"
        "when the process started" "2026-01-31T11:59:59.870000Z";
    "status" Text "" Public "process.status"
        "running, sleeping, disk_sleep, stopped, traced, zombie, dead, idle" "sleeping";
    "exit_code" Integer "" Public "exit_code"
        "exit status of a stop; negative: killed by that signal; needs a kernel source" "0";
    "runtime_ms" Integer "ms" Public "runtime_ms"
        "how long the process lived; stop only" "1830";
    "end_observed" Boolean "" Public "end_observed"
        "false when the stop was inferred because nobody was watching; stop only" "true";
    "cpu_usage" Real "percent of one CPU" Public "process.cpu_usage"
        "average since the previous scan" "1.5";
    "memory_usage" Integer "bytes" Public "process.memory_usage"
        "resident set" "8388608";
    "executable_hash" Text "hex" Public "process.executable_hash"
        "hash of the executable" "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    "hash_algorithm" Text "" Public "process.hash_algorithm"
        "algorithm of executable_hash" "sha256";
    "hash_status" Text "" Public "process.hash_status"
        "ok, or why there is no hash; NULL while the collector does not hash" "ok";
    "deleted_executable" Boolean "" Public "process.deleted_executable"
        "the executable's file is gone while it runs" "false";
    "memfd" Boolean "" Public "process.memfd"
        "the executable lives in memory only (memfd_create)" "false";
    "cgroup" Text "" Public "process.cgroup"
        "control group path" "/system.slice/ssh.service";
    "container_id" Text "hex" Public "process.container_id"
        "container id taken from the control group" "3f4e1c0b9a8d";
    "pid_namespace" Integer "inode" Public "process.pid_namespace"
        "pid namespace" "4026531836";
    "namespace_pid" Integer "" Public "process.namespace_pid"
        "process id inside its own pid namespace" "1";
    "source" Text "" Public "source"
        "which source captured it: procfs, sysinfo, …" "procfs";
    "capture" Text "" Public "process.capture"
        "complete, or partial when the process was gone before all of it was read" "complete";
    "modified_fields" Text "comma-separated column names" Public "modified_fields"
        "what changed; modify, and the start of a process that was known before its exec" "command_line,name";
    "reason" Text "" Public "reason"
        "why it is suspicious (executable_deleted, memfd_executable, kernel_thread_name, name_unlike_executable, ptrace_attached, start_time_in_future); suspicious only" "executable_deleted";
    "severity" Text "" Public "severity"
        "info, low, medium, high or critical; suspicious only" "medium";
    "truncated" Text "comma-separated column names" Public "process.truncated"
        "fields that were cut to their bound at capture" "command_line";
    "collector" Text "" Public "record.collector"
        "which collector sent it" "procmond";
    "epoch" Integer "" Public "record.sequence.epoch"
        "epoch of the collector's stream" "3";
    "seq" Integer "" Public "record.sequence.number"
        "number in the collector's stream" "18211";
    "original_file_name" Text "" Public "process.windows.original_file_name"
        "name that the executable was built under; Windows only" "cmd.exe";
    "file_description" Text "" Public "process.windows.file_description"
        "what the executable says that it is; Windows only" "Windows Command Processor";
    "product" Text "" Public "process.windows.product"
        "product that the executable says it belongs to; Windows only" "Microsoft Windows Operating System";
    "company" Text "" Public "process.windows.company"
        "company that the executable names; Windows only" "Microsoft Corporation";
    "integrity_level" Text "" Public "process.windows.integrity_level"
        "Low, Medium, High or System; Windows only" "Medium";
    "logon_id" Text "hex" Public "process.windows.logon_id"
        "logon session of the process; Windows only" "0x3e7";
    "hashes" Text "ALGORITHM=hex, comma-separated" Public "process.windows.hashes"
        "every hash of the executable that was taken, IMPHASH among them; Windows only" "MD5=900150983cd24fb0d6963f7d28e17f72";
    "parent_user" Text "" Identity "process.windows.parent_user"
        "user of the parent as it was; Windows only" "NT AUTHORITY\\SYSTEM";
};

/// The column called `name`.
#[must_use]
pub fn process_event_column(name: &str) -> Option<&'static Column> {
    PROCESS_EVENTS.iter().find(|column| column.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_lower_case_and_documented() {
        let mut seen = HashSet::new();
        for column in PROCESS_EVENTS {
            assert!(seen.insert(column.name), "{} stands twice", column.name);
            assert!(column.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", column.name);
            assert!(!column.meaning.is_empty() && !column.example.is_empty(), "{}", column.name);
        }
    }
}
