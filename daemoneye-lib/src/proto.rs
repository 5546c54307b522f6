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
});

impl Fault {
    /// A fault with one sentence for a person.
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), problems: Vec::new() }
    }
}
