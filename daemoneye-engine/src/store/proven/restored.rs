//! Stores that were put back to an older copy.
//!
//! The agent tells when it finds that the ledger has taken ids that its store never gave out. What the ledger was told of between the
//! copy and that entry the store does not have any more, or has as it was. Whoever is root can put a copy back as easily as delete,
//! so this proves nothing and excuses nothing: it is told apart from rows that went one by one.
//!
//! A copy that nobody put back, a backup, is older than a ledger that went on as well. It gave out ids up to one, and of what the
//! ledger was told of with later ones it knows nothing at all: one such row that it has all the same, and it is none.

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
    /// It is a copy that was not put back, so that no entry says so.
    pub is_copy: bool,
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

impl One {
    fn new((entry, time_us): (Option<u64>, i64), store: u64) -> Self {
        Self { entry, time_us, store, since: u64::MAX, events: Cell::default(), rows: Cell::default() }
    }

    fn settle(&mut self, files: &LedgerFiles) -> Result<(), SegmentError> {
        self.since = files.behind_outbox(self.store)?.unwrap_or(u64::MAX);
        Ok(())
    }

    fn listed(&self, is_copy: bool) -> Option<Restored> {
        let (events, rows) = (self.events.get(), self.rows.get());
        let told = Restored { is_copy, entry: self.entry, time_us: self.time_us, since: self.since, events, rows };
        (events > 0 || rows > 0).then_some(told)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Restorations {
    told: Vec<One>,
    /// The store is itself a copy.
    copy: Option<One>,
}

impl Restorations {
    pub(super) fn tell(&mut self, (entry, time_us): (Option<u64>, i64), payload: &Value) {
        let number = |name: &str| payload.get(name).and_then(Value::as_u64);
        let Some((ledger, store)) = number("ledger").zip(number("store")) else { return };
        // Where the ledger has less it is the ledger that went back.
        if ledger > store && self.told.len() < REMEMBERED {
            self.told.push(One::new((entry, time_us), store));
        }
    }

    /// The store is a copy, which had given out ids up to `given`; one without any says nothing of its age.
    pub(super) fn is_of(&mut self, given: u64) {
        self.copy = (given > 0).then(|| One::new((None, 0), given));
    }

    /// The newest entry that tells of a row which the store has.
    pub(super) fn disprove(&mut self, newest: u64) {
        self.copy = self.copy.take().filter(|copy| newest < copy.since);
    }

    /// Looks for what each copy knew last.
    pub(super) fn settle(&mut self, files: &LedgerFiles) -> Result<(), SegmentError> {
        self.told.iter_mut().chain(&mut self.copy).try_for_each(|one| one.settle(files))
    }

    /// Whether an entry came between a copy and its return. Behind it stands what `later` tells: what waits in a copy is as old as it.
    pub(super) fn has(&self, entry: Option<u64>, later: Option<u64>) -> bool {
        let copy = self.copy.iter().filter(|_| later.is_none());
        of(self.told.iter().chain(copy), entry).is_some()
    }

    /// The same of the last entry about an alert or a row of coverage, which is counted.
    pub(super) fn took_row(&self, entry: Option<u64>) -> bool {
        let found = of(self.told.iter().chain(&self.copy), entry);
        if let Some(one) = found {
            one.rows.set(one.rows.get().saturating_add(1));
        }
        found.is_some()
    }

    /// Whether an event at `at` had been stored and is not because of a copy, which is counted. `lowered`: of its stream.
    pub(super) fn took_event(&self, lowered: &[Lowered], at: Position) -> bool {
        let found = lowered.iter().filter(|less| less.at < at && at <= less.had).find_map(|less| {
            // The entry of the registration may come before that of the ids, or behind it.
            self.told.iter().find(|one| one.since <= less.entry && less.before < order(one.entry))
        });
        if let Some(one) = found {
            one.events.set(one.events.get().saturating_add(1));
        }
        found.is_some()
    }

    pub(super) fn listed(&self) -> Vec<Restored> {
        let told = self.told.iter().filter_map(|one| one.listed(false));
        told.chain(self.copy.iter().filter_map(|copy| copy.listed(true))).collect()
    }
}

fn of<'a>(all: impl IntoIterator<Item = &'a One>, entry: Option<u64>) -> Option<&'a One> {
    let entry = entry?;
    all.into_iter().find(|one| (one.since..order(one.entry)).contains(&entry))
}
