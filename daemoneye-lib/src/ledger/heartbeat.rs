//! What a `heartbeat` entry says: the counters of an interval in which the collector's state did not change.
//!
//! An interval begins where the one before ended, to the millisecond, so that a row of them leaves no time out. The first one of a
//! run begins when the logs were opened, the last one ends when the collector was told to end; what lies between two runs is in none.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time between two heartbeat entries, each of which is signed: half a million entries a year.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);
/// The entry's action.
pub const HEARTBEAT: &str = "heartbeat";
/// State of a collector that collects.
const RUNNING: &str = "running";

/// The payload of a `heartbeat` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatEntry {
    /// Whose.
    pub collector: String,
    /// When it begins, ms since the Unix epoch.
    pub from_ms: i64,
    /// When it ends.
    pub to_ms: i64,
    /// The state in it: `running`, `paused`, `waiting_for_agent`.
    pub state: String,
    /// What was wrong with the source at its begin or end; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Records that were written to the log: events, and gaps.
    pub events: u64,
    /// Events that were lost.
    pub lost: u64,
    /// What failed in the source.
    pub errors: u64,
    /// Looks of the source.
    pub cycles: u64,
    /// Processes, or whatever it collects, at its end.
    pub entities: u64,
    /// `epoch:number` of the last record at its end.
    pub last: Option<String>,
}

impl HeartbeatEntry {
    /// Reads an entry's payload; `None` when it is none.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// Why nothing can be said of its interval although it was counted; `None`: somebody watched all of it.
    #[must_use]
    pub fn blind(&self) -> Option<String> {
        let bound = 2 * i64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(i64::MAX / 2);
        if self.state != RUNNING {
            return Some(format!("the collector was not running but {}", self.state));
        }
        if !self.trouble.is_empty() {
            return Some(format!("the source did not watch all the time: {}", self.trouble));
        }
        let long = self.to_ms.saturating_sub(self.from_ms) > bound;
        long.then(|| "one heartbeat for so long a time: the host slept, hung, or its clock was set".to_owned())
    }

    /// Whether its counters go on where those of the interval before it ended. Numbers go on in the next epoch.
    #[must_use]
    pub fn fits(&self, before: &Self) -> bool {
        let number = |of: &Self| of.last.as_deref()?.split_once(':')?.1.parse::<u64>().ok();
        match (number(before), number(self)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(before), Some(now)) => before.checked_add(self.events) == Some(now),
        }
    }
}
