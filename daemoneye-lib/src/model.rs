//! The records that live longer than one message: alerts, rules, and what the agent knows about the host and its scans.
//!
//! Process data itself is [`crate::proto::ProcessEvent`] and [`crate::proto::ProcessRecord`]; there is no second shape.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How much a rule's match matters; the order is the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Seldom bad.
    Low,
    /// Needs a look.
    Medium,
    /// Needs a look now.
    High,
    /// Almost certainly an attack.
    Critical,
}

impl Severity {
    /// Every severity, least urgent first.
    pub const ALL: &'static [Self] = &[Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// `info`, `low`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether an evaluation saw everything it should have; the reasons are a closed list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// Empty: complete. Otherwise why not, each reason once, sorted.
    pub degraded: Vec<Degraded>,
}

/// Why an answer may be missing something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degraded {
    /// A row, byte or match cap cut it.
    Capped,
    /// The collector was away.
    CollectorUnavailable,
    /// Stored data could not be read.
    DataUnreadable,
    /// Events were shed or lost.
    EventsShed,
    /// It arrived after its window had closed.
    Late,
    /// A column or table it needs is not there.
    SchemaUnavailable,
    /// The deadline ended it.
    TimedOut,
}

impl Degraded {
    /// The word on the wire and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capped => "capped",
            Self::CollectorUnavailable => "collector_unavailable",
            Self::DataUnreadable => "data_unreadable",
            Self::EventsShed => "events_shed",
            Self::Late => "late",
            Self::SchemaUnavailable => "schema_unavailable",
            Self::TimedOut => "timed_out",
        }
    }
}

impl Completeness {
    /// Nothing is missing.
    #[must_use]
    pub const fn complete() -> Self {
        Self { degraded: Vec::new() }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.degraded.is_empty()
    }

    /// Adds a reason, once.
    pub fn degrade(&mut self, reason: Degraded) {
        if let Err(at) = self.degraded.binary_search(&reason) {
            self.degraded.insert(at, reason);
        }
    }

    /// `complete`, or `degraded: capped, timed_out`.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.is_complete() {
            return "complete".to_owned();
        }
        let reasons: Vec<&str> = self.degraded.iter().map(|r| r.as_str()).collect();
        format!("degraded: {}", reasons.join(", "))
    }
}

/// Whether a rule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleState {
    /// Runs.
    Active,
    /// Kept for its alerts; never runs again.
    Archived,
    /// Switched off by its file or an operator.
    Disabled,
    /// Not released yet.
    Draft,
}

/// How a rule is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// By one event.
    Stream,
    /// Needs history.
    Window,
}

/// A detection rule as it was loaded. The logic is SQL; the rest is what a person needs to judge its alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectionRule {
    /// Stable identity across versions.
    pub id: Uuid,
    /// Grows when the text of the rule changes, from 1.
    pub version: u32,
    /// BLAKE3 of the rule file's canonical JSON, hex.
    pub hash: String,
    /// One line.
    pub name: String,
    /// What it finds and why that is bad.
    pub description: String,
    /// Who wrote it.
    pub author: String,
    /// Where to read more.
    pub references: Vec<String>,
    /// Urgency of its alerts.
    pub severity: Severity,
    /// `process_creation`, …
    pub category: String,
    /// ATT&CK ids (`attack.t1059.004`) and free tags.
    pub tags: Vec<String>,
    /// Sigma's word: stable, test, experimental, deprecated.
    pub status: String,
    /// Harmless causes.
    pub false_positives: Vec<String>,
    /// The SELECT.
    pub sql: String,
    /// Columns whose values tell one alert from the next; empty: entity_id.
    pub dedup: Vec<String>,
    /// Seconds during which repeats raise the count of the alert that stands.
    pub dedup_window_s: u32,
    /// Whether it runs.
    pub state: RuleState,
    /// How it is decided.
    pub kind: RuleKind,
    /// The pack it came in.
    pub pack: String,
    /// File name inside the pack.
    pub file: String,
}

/// What an operator has done with an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// Somebody looks at it.
    Acknowledged,
    /// Dealt with.
    Closed,
    /// Nobody has looked yet.
    Open,
    /// Was closed too early.
    Reopened,
    /// Never raised: an exception of the rule holds for it. Behind the others, since stored alerts number them.
    Suppressed,
}

impl AlertStatus {
    /// The word in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Reopened => "reopened",
            Self::Suppressed => "suppressed",
        }
    }
}

/// Where an event stands in its collector's stream; outlives compaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventPointer {
    /// Collector id.
    pub collector: String,
    /// Stream epoch.
    pub epoch: u64,
    /// Number in the epoch.
    pub number: u64,
}

/// A rule matched. Field order is the order in every JSON output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Derived from event time, rule, version, collector and sequence, so a replay makes the same.
    pub id: Uuid,
    /// Event time, µs since the Unix epoch.
    pub time_us: i64,
    /// Urgency.
    pub severity: Severity,
    /// The rule's name.
    pub title: String,
    /// The rule's description.
    pub description: String,
    /// Which rule.
    pub rule_id: Uuid,
    /// Which version of it.
    pub rule_version: u32,
    /// Hash of that version.
    pub rule_hash: String,
    /// Pack it came in.
    pub pack: String,
    /// ATT&CK ids and free tags.
    pub tags: Vec<String>,
    /// The process by its columns; only those that are not NULL.
    pub process: serde_json::Map<String, serde_json::Value>,
    /// What the rule's SELECT returned.
    pub row: serde_json::Map<String, serde_json::Value>,
    /// The events that caused it; the first one made it, at most 16 are kept.
    pub events: Vec<EventPointer>,
    /// What tells this alert from the next one of its rule.
    pub dedup_key: String,
    /// Matches folded into this alert, itself included.
    pub count: u64,
    /// Event time of the first match.
    pub first_seen_us: i64,
    /// Event time of the last match.
    pub last_seen_us: i64,
    /// Whether everything was seen.
    pub completeness: Completeness,
    /// Build of the engine that decided.
    pub engine: String,
    /// Host name.
    pub host: String,
    /// What an operator has done with it.
    pub status: AlertStatus,
    /// The exception that hides it; of suppressed ones only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_by: Option<Uuid>,
}

/// What the agent knows about the host it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// When this was recorded, µs since the Unix epoch.
    pub time_us: i64,
    /// Host name.
    pub hostname: String,
    /// `Linux`, …
    pub os_name: String,
    /// Kernel or product version.
    pub os_version: String,
    /// `x86_64`, …
    pub architecture: String,
    /// Logical CPUs.
    pub cpu_cores: u32,
    /// Physical memory.
    pub total_memory_bytes: u64,
    /// Since boot.
    pub uptime_s: u64,
    /// Tells one boot from the next.
    pub boot_id: String,
    /// What capture can see here.
    pub capabilities: Vec<String>,
}

/// One snapshot cycle of a collector, as its heartbeats told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanMetadata {
    /// When the heartbeat came, µs since the Unix epoch.
    pub time_us: i64,
    /// Collector id.
    pub collector: String,
    /// Cycles so far.
    pub cycles: u64,
    /// Live processes.
    pub processes: u64,
    /// Events so far.
    pub events: u64,
    /// Failed cycles so far.
    pub errors: u64,
}
