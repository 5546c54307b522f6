//! What a `heartbeat` entry says: the counters of an interval in which the collector's state did not change.
//!
//! An interval begins where the one before ended, to the millisecond, so that a row of them leaves no time out. The first one of a
//! run begins when the logs were opened, the last one ends when the collector was told to end; what lies between two runs is in none.
//!
//! It says as well what can be seen in it: a source to which events are announced sees what happens, one that polls only what is there
//! when it looks, and a look that failed or was not taken sees nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::LedgerClock;
use super::is_collector;

/// Time between two heartbeat entries, each of which is signed: half a million entries a year. No setting makes it longer, so a proof
/// that reaches so far beyond a time has a heartbeat on either side of it.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);
/// A look takes a while itself, so looks that are meant to follow each other faster are not expected to, ms.
const LOOK_MS: u64 = 1_000;
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
    /// Whether events were announced to the source all the time; `false`: it sees what is there when it looks. `None`, here and below: a
    /// build that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<bool>,
    /// Time between two looks at its end, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ms: Option<u64>,
    /// Time after which a heartbeat is due, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// The collector's clock at its end; `None` also where what it went through before could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<LedgerClock>,
}

impl HeartbeatEntry {
    /// What an entry says. Nobody but its collector says what it has watched.
    #[must_use]
    pub fn of(actor: &str, action: &str, payload: &[u8]) -> Option<Self> {
        let beat = if action == HEARTBEAT && is_collector(actor) { Self::read(payload)? } else { return None };
        (beat.collector == actor).then_some(beat)
    }

    /// Reads an entry's payload; `None` when it is none.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// Why nothing can be said of its interval although it was counted; `None`: somebody watched all of it.
    #[must_use]
    pub fn blind(&self) -> Option<String> {
        if self.state != RUNNING {
            return Some(format!("the collector was not running but {}", self.state));
        }
        if self.announced.is_none() {
            return Some("a heartbeat of a build that did not say how its source watches".to_owned());
        }
        if self.clock.is_none() {
            return Some("what the collector's clock went through before is not told".to_owned());
        }
        if !self.trouble.is_empty() {
            return Some(format!("the source did not watch all the time: {}", self.trouble));
        }
        if self.errors > 0 {
            return Some(format!("{} looks of the source failed", self.errors));
        }
        let long = self.length_ms() > 2 * self.every_ms();
        let slept = || "one heartbeat for so long a time: the host slept, hung, or its clock was set".to_owned();
        long.then(slept).or_else(|| self.unlooked())
    }

    /// Why a source that has to look did not see all of it.
    fn unlooked(&self) -> Option<String> {
        if self.announced == Some(true) {
            return None;
        }
        let (cycles, look_ms) = (self.cycles, self.look_ms.unwrap_or_default());
        // Half of them: what holds up a look for less than its turn is no blindness.
        let wanted = self.length_ms() / look_ms.max(LOOK_MS).saturating_mul(2);
        match cycles {
            0 => Some("the source has to look, and did not".to_owned()),
            _ if cycles < wanted => {
                Some(format!("the source has to look every {look_ms} ms, and did so {cycles} times only"))
            }
            _ => None,
        }
    }

    /// How long it is; 0 when the clock was set back in it.
    pub(super) fn length_ms(&self) -> u64 {
        u64::try_from(self.to_ms.saturating_sub(self.from_ms)).unwrap_or_default()
    }

    /// After how many ms one is due; never more than [`HEARTBEAT_INTERVAL`].
    pub(super) fn every_ms(&self) -> u64 {
        let longest = u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        self.every_ms.unwrap_or(longest).min(longest)
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
