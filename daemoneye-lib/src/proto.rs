//! Generated from `proto/*.proto` (package `daemoneye.v1`), plus the few conversions that belong to the types themselves.

#![expect(
    missing_docs,
    clippy::large_enum_variant,
    reason = "generated code; the schema files carry the comments, and messages are built once each"
)]

include!(concat!(env!("OUT_DIR"), "/daemoneye.v1.rs"));

impl Sequence {
    /// The position of `number` in `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, number: u64) -> Self {
        Self { epoch, number }
    }

    /// Streams are ordered by epoch first: a later epoch outranks any number of an earlier one.
    #[must_use]
    pub const fn key(&self) -> (u64, u64) {
        (self.epoch, self.number)
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.number)
    }
}

/// The word that SQL, alerts and the CLI show for an enum value; `None` for "unspecified".
pub trait Word: Sized {
    /// `start`, `exec`, `high`, …
    fn word(self) -> Option<&'static str>;
    /// The inverse of [`Word::word`].
    fn from_word(word: &str) -> Option<Self>;
}

macro_rules! words {
    ($enum:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl Word for $enum {
            fn word(self) -> Option<&'static str> {
                match self {
                    $(<$enum>::$variant => Some($word),)+
                    <$enum>::Unspecified => None,
                }
            }
            fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(<$enum>::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

words!(EventType { Start = "start", Stop = "stop", Modify = "modify", Suspicious = "suspicious" });
words!(StartKind { Exec = "exec", Fork = "fork", Baseline = "baseline" });
words!(Identity { Exact = "exact", Estimated = "estimated" });
words!(Capture { Complete = "complete", Partial = "partial" });
words!(AlertSeverity { Info = "info", Low = "low", Medium = "medium", High = "high", Critical = "critical" });
words!(TaskType {
    EnumerateProcesses = "enumerate_processes",
    CheckProcessHash = "check_process_hash",
    MonitorProcessTree = "monitor_process_tree",
    VerifyExecutable = "verify_executable",
    MonitorNetwork = "monitor_network",
    MonitorFilesystem = "monitor_filesystem",
    MonitorPerformance = "monitor_performance",
    SelectColumns = "select_columns",
});

impl ProcessEvent {
    /// What makes a message that is valid protobuf no process event, one that nobody stores.
    #[must_use]
    pub fn flaw(&self) -> Option<&'static str> {
        if self.event_type() == EventType::Unspecified {
            return Some("the event has no known type");
        }
        match &self.process {
            None => Some("the event names no process"),
            Some(process) if process.entity_id.len() != 16 => Some("the entity id has not 16 bytes"),
            Some(_) => None,
        }
    }
}

impl ProcessRecord {
    /// This record after a `modify` event said `later`. A column that is absent there stays as it was, and so does a command
    /// line of which the event repeats the beginning only.
    #[must_use]
    pub fn followed_by(mut self, mut later: Self) -> Self {
        const LINE: [&str; 2] = ["command_line", "arg_lengths"];
        let cut = later.truncated.iter().any(|field| field == "command_line");
        let begins = |line: &String| cut && self.command_line.as_ref().is_some_and(|known| known.starts_with(line));
        let (line, former) = if later.command_line.as_ref().is_none_or(begins) {
            later.truncated.retain(|field| !LINE.contains(&field.as_str()));
            (self.command_line.take(), std::mem::take(&mut self.arg_lengths))
        } else {
            self.truncated.retain(|field| !LINE.contains(&field.as_str()));
            (later.command_line.take(), std::mem::take(&mut later.arg_lengths))
        };
        later.truncated.retain(|field| !self.truncated.contains(field));
        later.arg_lengths.clear();
        self.truncated.append(&mut later.truncated);
        Self { command_line: line, arg_lengths: former, ..self.overwritten_by(later) }
    }

    /// What `later` tells in place of what was there, but for lists. A field that is not named here does not compile.
    fn overwritten_by(mut self, later: Self) -> Self {
        macro_rules! told {
            ($($field:ident)*) => {
                let Self { arg_lengths: _, truncated: _, windows, $($field),* } = later;
                if let Some(windows) = windows {
                    // Seldom, so that the bytes do not matter; a message that was encoded here decodes.
                    let known = self.windows.get_or_insert_default();
                    prost::Message::merge(known.as_mut(), prost::Message::encode_to_vec(windows.as_ref()).as_slice()).ok();
                }
                $(if is_told(&$field) {
                    self.$field = $field;
                })*
            };
        }
        told! {
            entity_id identity pid ppid parent_entity_id parent_name parent_executable_path parent_command_line ancestry
            name executable_path exec_filename command_line cwd uid gid euid user session tty start_time_us status
            cpu_usage memory_usage executable_hash hash_algorithm hash_status deleted_executable memfd cgroup
            container_id pid_namespace namespace_pid capture
        }
        self
    }
}

/// Whether protobuf would write it.
fn is_told<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

impl Fault {
    /// A fault with one sentence for a person.
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), problems: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modified_record_keeps_what_the_event_does_not_tell() {
        let known = ProcessRecord {
            pid: 7,
            name: "a".into(),
            command_line: Some("a --flag".into()),
            arg_lengths: vec![1, 6],
            cwd: Some("/".into()),
            truncated: vec!["cgroup".into()],
            ..Default::default()
        };
        let told = |command_line: Option<&str>, truncated: &[&str]| ProcessRecord {
            pid: 7,
            name: "b".into(),
            command_line: command_line.map(str::to_owned),
            arg_lengths: vec![1],
            truncated: truncated.iter().map(|field| (*field).to_owned()).collect(),
            ..Default::default()
        };
        let renamed = ProcessRecord { name: "b".into(), ..known.clone() };
        assert_eq!(known.clone().followed_by(told(None, &[])), renamed);
        assert_eq!(known.clone().followed_by(told(Some("a"), &["command_line"])), renamed);
        let titled = ProcessRecord { command_line: Some("a".into()), arg_lengths: vec![1], ..renamed };
        assert_eq!(known.followed_by(told(Some("a"), &[])), titled);
    }

    #[test]
    fn a_field_that_is_told_stands_in_place_of_the_one_before_as_a_merge_of_messages_has_it() {
        let full = |seed: u32, text: &str| ProcessRecord {
            entity_id: vec![7; 16],
            pid: seed,
            ppid: Some(seed),
            name: text.into(),
            cwd: Some(text.into()),
            uid: Some(0),
            memfd: Some(false),
            cpu_usage: Some(0.0),
            windows: Some(Box::new(WindowsProcess { product: Some(text.into()), ..Default::default() })),
            ..Default::default()
        };
        let sparse = ProcessRecord { pid: 9, memfd: Some(true), ..Default::default() };
        for (known, later) in [(full(1, "a"), full(2, "b")), (full(1, "a"), sparse.clone()), (sparse, full(0, ""))] {
            let mut merged = known.clone();
            prost::Message::merge(&mut merged, prost::Message::encode_to_vec(&later).as_slice()).unwrap();
            assert_eq!(known.followed_by(later), merged);
        }
    }
}
