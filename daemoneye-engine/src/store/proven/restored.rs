//! Stores that were put back to an older copy.
//!
//! The agent tells when it finds that the ledger has taken ids that its store never gave out. What the ledger was told of between the
//! copy and that entry the store does not have any more, or has as it was. Whoever is root can put a copy back as easily as delete,
//! so this proves nothing and excuses nothing: it is told apart from rows that went one by one.

use std::cell::Cell;

use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::segment::SegmentError;
use serde::Serialize;
use serde_json::Value;

use super::facts::order;
use super::leaves::Position;

/// Times that are remembered: more than anybody restores a host.
const REMEMBERED: usize = 256;

/// A store that was put back to an older copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The entry that says so; `None`: it waits for the ledger still.
    pub entry: Option<u64>,
    /// When it came, as far as the entries around it tell.
    pub time_us: i64,
    /// The first entry that the copy does not know of.
    pub since: u64,
    /// Events that the ledger covers and that are not there because of it.
    pub events: u64,
    /// Alerts and rows of coverage that are not there because of it, or are as they were.
    pub rows: u64,
}

/// A registration at which the agent had stored less of a stream than before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lowered {
    pub(super) entry: u64,
    /// The registration before it.
    pub(super) before: u64,
    /// Up to here it is stored.
    pub(super) at: Position,
    /// Up to here it had been.
    pub(super) had: Position,
}

#[derive(Debug)]
struct One {
    entry: Option<u64>,
    time_us: i64,
    /// The highest id that the copy had given out.
    store: u64,
    since: u64,
    events: Cell<u64>,
    rows: Cell<u64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Restorations(Vec<One>);

impl Restorations {
    pub(super) fn tell(&mut self, (entry, time_us): (Option<u64>, i64), payload: &Value) {
        let number = |name: &str| payload.get(name).and_then(Value::as_u64);
        let Some((ledger, store)) = number("ledger").zip(number("store")) else { return };
        // Where the ledger has less it is the ledger that went back.
        if ledger > store && self.0.len() < REMEMBERED {
            let (events, rows) = (Cell::default(), Cell::default());
            self.0.push(One { entry, time_us, store, since: u64::MAX, events, rows });
        }
    }

    /// Looks for what each copy knew last.
    pub(super) fn settle(&mut self, files: &LedgerFiles) -> Result<(), SegmentError> {
        for one in &mut self.0 {
            one.since = files.behind_outbox(one.store)?.unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Whether an entry came between a copy and its return.
    pub(super) fn has(&self, entry: Option<u64>) -> bool {
        self.of(entry).is_some()
    }

    /// The same of the last entry about an alert or a row of coverage, which is counted.
    pub(super) fn took_row(&self, entry: Option<u64>) -> bool {
        let found = self.of(entry);
        if let Some(one) = found {
            one.rows.set(one.rows.get().saturating_add(1));
        }
        found.is_some()
    }

    fn of(&self, entry: Option<u64>) -> Option<&One> {
        let entry = entry?;
        self.0.iter().find(|one| (one.since..order(one.entry)).contains(&entry))
    }

    /// Whether an event at `at` had been stored and is not because of a copy, which is counted. `lowered`: of its stream.
    pub(super) fn took_event(&self, lowered: &[Lowered], at: Position) -> bool {
        let found = lowered.iter().filter(|less| less.at < at && at <= less.had).find_map(|less| {
            // The entry of the registration may come before that of the ids, or behind it.
            self.0.iter().find(|one| one.since <= less.entry && less.before < order(one.entry))
        });
        if let Some(one) = found {
            one.events.set(one.events.get().saturating_add(1));
        }
        found.is_some()
    }

    pub(super) fn listed(&self) -> Vec<Restored> {
        let known = self.0.iter().filter(|one| one.events.get() > 0 || one.rows.get() > 0);
        known
            .map(|one| Restored {
                entry: one.entry,
                time_us: one.time_us,
                since: one.since,
                events: one.events.get(),
                rows: one.rows.get(),
            })
            .collect()
    }
}
