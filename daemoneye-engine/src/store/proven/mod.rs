//! The store against the ledger: every event, alert and row of coverage that an entry tells of is there and unchanged, and none is
//! there that no entry tells of.
//!
//! The ledger is read first, then the store is pinned, then what came into the ledger since: so what one has and the other lacks
//! is never only a matter of when each was looked at. What retention took is known from the ledger, not from the store. A range
//! of which only a part is left is verified with the leaves that retention kept.

mod clocks;
mod facts;
mod kept;
mod leaves;
mod removals;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::ledger::proof::RangeLeaves;
use daemoneye_lib::ledger::{EventRange, Hash, LedgerFiles, range_in};
use daemoneye_lib::proto::Sequence;
use daemoneye_lib::segment::SegmentError;
use datafusion::arrow::array::RecordBatch;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::clocks::{Clocks, JITTER_US, Recorded, Survivors};
use self::facts::{Facts, Reading};
pub(super) use self::kept::Kept;
use self::leaves::{Leaf, Leaves, Position};
pub use self::removals::Removal;
use self::rows::Rows;
use super::fsck::{OnProgress, Problem, list};
use super::segment::SegmentFile;
use super::{HistoryTable, LEDGER_DIR, Store, StoreError, audit, owed};

/// Waiting entries that are looked at: all that an outbox may hold.
const WAITING: usize = 1_000_000;
/// Events or stretches that one finding names.
const NAMED: usize = 8;
/// Ranges between two looks at whether anybody waits still.
const LOOK_RANGES: u64 = 256;

const KEEP: &str = "keep both as they are; compare with a backup, and with a checkpoint that left the host";

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// Entries of the ledger.
    pub entries: u64,
    /// Ranges of events among them.
    pub ranges: u64,
    /// Events that are exactly those that were recorded.
    pub events: u64,
    /// Events that retention took, as the ledger says.
    pub removed: u64,
    /// Events that are on their way: into the store, or into the ledger.
    pub pending: u64,
    /// Events that should have come into the store long ago, and of which nothing shows that they did.
    pub overdue: Vec<Overdue>,
    /// Events that cannot be judged: their range has no tree, or a part of it is gone without its leaves.
    pub unproven: u64,
    /// Alerts that are as they were raised and have grown since, as the ledger tells.
    pub alerts: u64,
    /// Alerts that have grown within the last minute, of which the ledger is still to hear.
    pub alerts_growing: u64,
    /// Alerts of a build that told no growth: what they were raised with is proven, and their status.
    pub alerts_unproven: u64,
    /// Rows of coverage that are as the ledger has them.
    pub coverage: u64,
    /// Alerts and rows of coverage that no entry proves, and that are older than such entries, or of which the entry was lost.
    pub rows_unproven: u64,
    /// What retention took, entry by entry, the newest.
    pub removals: Vec<Removal>,
    /// Removals that are not listed, all older.
    pub further_removals: u64,
    /// What does not fit.
    pub problems: Vec<Problem>,
    /// Problems that are not listed.
    pub further_problems: u64,
    /// False: it was stopped before its end.
    pub finished: bool,
}

impl Proven {
    /// Whether all was looked at and nothing contradicts the ledger.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.finished && self.problems.is_empty()
    }

    fn report(&mut self, place: impl Into<String>, what: impl Into<String>) {
        let problem = Problem { place: place.into(), what: what.into(), advice: KEEP };
        list(&mut self.problems, &mut self.further_problems, problem);
    }
}

/// Events of a collector that the store never said to have and that were recorded more than ten minutes before its last word: they
/// wait in the collector's log, or they were deleted and the note of them set back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overdue {
    /// Collector.
    pub collector: String,
    /// The first, `epoch:number`.
    pub first: String,
    /// The last.
    pub last: String,
    /// When the first were recorded, µs since the Unix epoch.
    pub since_us: i64,
    /// How many.
    pub events: u64,
}

/// What of the store is compared.
struct Pinned {
    /// Every file of events, those that are set aside too.
    files: Vec<Arc<SegmentFile>>,
    open: Vec<RecordBatch>,
    /// Per collector, how far its stream has come in.
    seen: HashMap<String, Position>,
    /// Events may be on their way into it: it is written, or its collector's log was not copied with it.
    may_lag: bool,
}

impl Store {
    /// Compares everything with the ledger in `dir`. Takes as long as reading both takes; `progress` is told events.
    ///
    /// # Errors
    /// [`StoreError`] when the comparison itself cannot go on; what does not fit is in the result.
    pub fn compare_with_ledger(&self, dir: &Path, progress: &mut OnProgress<'_>) -> Result<Proven, StoreError> {
        let mut found = Proven::default();
        let mut reading = Reading::open(dir).map_err(unreadable)?;
        reading.go_on();
        let early = reading.facts.entries;
        reading.facts.is_late = true;
        let (pinned, transaction) = (self.pin()?, self.state.read()?);
        audit::pending(&transaction, WAITING)?.iter().for_each(|append| reading.facts.waits(append));
        owed::waiting(&transaction)?.iter().for_each(|(action, payload)| reading.facts.owes(action, payload));
        reading.go_on();
        let mut facts = reading.facts;
        facts.settle(audit::losing(&transaction)?, audit::now_us());
        found.entries = facts.entries;
        if let Some(broken) = facts.broken.take() {
            found.report("the ledger", broken.to_string());
        }
        for entry in std::mem::take(&mut facts.implausible) {
            let place = entry.map_or_else(|| "the agent's outbox".to_owned(), |entry| format!("ledger entry {entry}"));
            found.report(place, "it says that retention took what was too young for it by any setting");
        }
        let rows = Rows::new(&facts, early);
        rows.alerts(&transaction, &mut found)?;
        rows.coverage(&transaction, &mut found)?;
        drop(transaction);
        let leaves = Leaves::of(&pinned.files, &pinned.open);
        let taken = vec![0; facts.removals.facts.len()];
        let mut comparison = Comparison {
            store: self,
            facts: &facts,
            pinned: &pinned,
            leaves,
            found,
            clocks: Clocks::default(),
            survivors: HashMap::new(),
            taken,
        };
        let finished = comparison.events(dir, progress)?;
        let (mut found, taken) = comparison.end(finished);
        (found.removals, found.further_removals) = facts.removals.listed(&taken);
        found.finished = finished;
        Ok(found)
    }

    /// The leaves of the stored events of a range, and those that retention kept of the others, by number; `None`: it was stopped.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails; a file that cannot be read lacks its events.
    pub fn range_leaves(
        &self,
        range: &EventRange,
        stop: &CancellationToken,
    ) -> Result<Option<BTreeMap<u64, Hash>>, StoreError> {
        let bounds = ((range.epoch, range.first), (range.epoch, range.last));
        let pinned = self.pin()?;
        let reaches = |file: &&Arc<SegmentFile>| {
            let mut of = file.ranges.iter().filter(|known| known.collector == range.collector);
            of.any(|known| known.first <= bounds.1 && known.last >= bounds.0)
        };
        let files: Vec<_> = pinned.files.iter().filter(reaches).cloned().collect();
        let mut rows = Leaves::within(&files, &pinned.open, bounds);
        while rows.advance(&range.collector, bounds.1, range.schema) {
            if stop.is_cancelled() {
                return Ok(None);
            }
        }
        let rows = rows.take(&range.collector, bounds, range.schema);
        let mut leaves = kept::read(&self.state.read()?, range)?;
        leaves.extend(rows.into_iter().map(|(number, leaf)| (number, leaf.hash)));
        Ok(Some(leaves))
    }

    /// At one moment: an event that is sealed meanwhile must not be in neither place.
    fn pin(&self) -> Result<Pinned, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        let files = held.every_file().filter(|file| file.table == HistoryTable::ProcessEvents).cloned().collect();
        let open = held.sealing.iter().flat_map(|open| open.batches.iter()).chain(&held.open.batches).cloned();
        let seen = held.seen.iter().map(|(collector, at)| (collector.clone(), at.key())).collect();
        let is_apart = self.ledger_dir() != self.options.dir.join(LEDGER_DIR);
        Ok(Pinned { files, open: open.collect(), seen, may_lag: is_apart || !self.state.is_offline() })
    }
}

fn unreadable(error: SegmentError) -> StoreError {
    match error {
        SegmentError::Io { path, source, .. } => StoreError::Unreadable { path, source },
        newer @ SegmentError::PeerNewerFormat { .. } => {
            let path = Path::new("audit").to_owned();
            StoreError::Unreadable { path, source: std::io::Error::other(newer) }
        }
    }
}

struct Comparison<'a> {
    store: &'a Store,
    facts: &'a Facts,
    pinned: &'a Pinned,
    leaves: Leaves,
    found: Proven,
    clocks: Clocks,
    survivors: HashMap<String, Survivors>,
    /// Events that each removal took.
    taken: Vec<u64>,
}

impl Comparison<'_> {
    /// False: it was stopped.
    fn events(&mut self, dir: &Path, progress: &mut OnProgress<'_>) -> Result<bool, StoreError> {
        for record in LedgerFiles::open(dir).and_then(|files| files.from(0)).map_err(unreadable)? {
            let record = record.map_err(unreadable)?;
            if record.entry.sequence >= self.facts.entries {
                break;
            }
            let recorded = self.clocks.take(&record.entry);
            if let Some(range) = range_in(&record) {
                self.range(record.entry.sequence, &range, recorded)?;
            }
            let looks = self.found.ranges.is_multiple_of(LOOK_RANGES);
            if looks && !progress(self.leaves.done, self.leaves.total) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn range(&mut self, entry: u64, range: &EventRange, recorded: Recorded) -> Result<(), StoreError> {
        self.found.ranges = self.found.ranges.saturating_add(1);
        let (first, last) = ((range.epoch, range.first), (range.epoch, range.last));
        let rows = self.leaves.take(&range.collector, (first, last), range.schema);
        if !range.has_tree() {
            self.found.unproven = self.found.unproven.saturating_add(rows.len() as u64);
            return Ok(());
        }
        let mut known = RangeLeaves::default();
        rows.iter().for_each(|(number, leaf)| known.add(*number, leaf.hash));
        let there = known.count();
        if known.fits(range) {
            self.proves(range, there, recorded);
            return Ok(());
        }
        let lacking: Vec<u64> = range.numbers().filter(|number| !known.has(*number)).collect();
        let removed = self.removed(range, &lacking, recorded);
        self.found.removed = self.found.removed.saturating_add(removed);
        if self.kept(range, &mut known)? && known.fits(range) {
            self.proves(range, there, recorded);
            return Ok(());
        }
        if lacking.is_empty() {
            self.changed(entry, range, &rows);
        } else {
            self.lacking(entry, range, &lacking, there, recorded);
        }
        Ok(())
    }

    fn proves(&mut self, range: &EventRange, events: u64, recorded: Recorded) {
        self.found.events = self.found.events.saturating_add(events);
        if events > 0 {
            self.survivors.entry(range.collector.clone()).or_default().add(recorded);
        }
    }

    /// How many of these retention took. What it cannot have taken is a problem.
    fn removed(&mut self, range: &EventRange, lacking: &[u64], recorded: Recorded) -> u64 {
        let removals = &self.facts.removals;
        let survivors = self.survivors.get(&range.collector);
        let by = |number: &u64| removals.of(&range.collector, (range.epoch, *number));
        let mut removed = 0_u64;
        for run in lacking.chunk_by(|one, next| by(one) == by(next)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let Some(fact) = by(first) else { continue };
            let count = run.len() as u64;
            removed = removed.saturating_add(count);
            if let Some(taken) = self.taken.get_mut(fact) {
                *taken = taken.saturating_add(count);
            }
            if let Some(why) = removals.contradiction(fact, recorded, survivors) {
                let said = removals.facts.get(fact).and_then(|fact| fact.entry);
                let said =
                    said.map_or_else(|| "an entry that waits".to_owned(), |entry| format!("ledger entry {entry}"));
                let what = format!("deleted: {said} says that retention took it, but {why}");
                self.found.report(stretch(range, *first, *last), what);
            }
        }
        removed
    }

    /// Adds the leaves that retention kept of a range; whether there are any.
    fn kept(&self, range: &EventRange, known: &mut RangeLeaves) -> Result<bool, StoreError> {
        let mut any = false;
        for (number, leaf) in kept::read(&self.store.state.read()?, range)? {
            if !known.has(number) && self.facts.removals.of(&range.collector, (range.epoch, number)).is_some() {
                known.add(number, leaf);
                any = true;
            }
        }
        Ok(any)
    }

    fn changed(&mut self, entry: u64, range: &EventRange, rows: &BTreeMap<u64, Leaf>) {
        let named: Vec<String> = rows.values().take(NAMED).map(|leaf| format!("{:032x}", leaf.entity)).collect();
        let more = if rows.len() > NAMED { ", …" } else { "" };
        let what = format!(
            "changed: these are not the events that ledger entry {entry} covers; of the entities {}{more}",
            named.join(", ")
        );
        self.found.report(stretch(range, range.first, range.last), what);
    }

    fn lacking(&mut self, entry: u64, range: &EventRange, lacking: &[u64], there: u64, recorded: Recorded) {
        let (mut coming, mut gone) = (Vec::new(), Vec::new());
        let seen = self.pinned.seen.get(&range.collector).max(self.facts.committed.get(&range.collector)).copied();
        for number in lacking {
            let at = (range.epoch, *number);
            if self.facts.removals.of(&range.collector, at).is_some() {
                continue;
            }
            if self.pinned.may_lag && Some(at) > seen {
                coming.push(*number);
            } else {
                gone.push(*number);
            }
        }
        let late_us = self.facts.clocks.run_us(&range.collector).saturating_sub(recorded.run_us);
        if late_us <= JITTER_US {
            self.found.pending = self.found.pending.saturating_add(coming.len() as u64);
        } else {
            self.overdue(range, &coming, recorded);
        }
        // Nobody can compute the root any more.
        self.found.unproven = self.found.unproven.saturating_add(there);
        for run in gone.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                let what = format!(
                    "deleted: ledger entry {entry} covers it, it is not in the store, and retention did not take it"
                );
                self.found.report(stretch(range, *first, *last), what);
            }
        }
    }

    /// They should have come long ago: they wait in their collector's log still, or they were deleted with the store's note of them.
    fn overdue(&mut self, range: &EventRange, coming: &[u64], recorded: Recorded) {
        let (Some(first), Some(last)) = (coming.first(), coming.last()) else { return };
        let at = |number: u64| Sequence::new(range.epoch, number).to_string();
        let fresh = || Overdue {
            collector: range.collector.clone(),
            first: at(*first),
            last: String::new(),
            since_us: recorded.latest_us,
            events: 0,
        };
        let known = self.found.overdue.iter().position(|overdue| overdue.collector == range.collector);
        let known = known.unwrap_or_else(|| {
            self.found.overdue.push(fresh());
            self.found.overdue.len().saturating_sub(1)
        });
        if let Some(overdue) = self.found.overdue.get_mut(known) {
            overdue.last = at(*last);
            overdue.events = overdue.events.saturating_add(coming.len() as u64);
        }
    }

    /// Why a stored event that no range covers is not on its way into the ledger.
    fn put_in(&self, collector: &str, at: Position) -> Option<&'static str> {
        match self.facts.covered.get(collector) {
            Some(covered) if at > *covered => {}
            _ => return Some("no range of the ledger covers it"),
        }
        if Some(at) > self.pinned.seen.get(collector).copied() {
            return Some("it stands behind all that its stream has brought");
        }
        let ended = self.facts.ended.contains(collector);
        ended.then_some("its collector has ended, and no range of the ledger covers it")
    }

    /// What is left when every range has taken its events.
    fn end(mut self, finished: bool) -> (Proven, Vec<u64>) {
        if finished {
            let leaves = std::mem::take(&mut self.leaves);
            for (file, what) in &leaves.unreadable {
                self.found.report(format!("segments/{file}"), format!("its events cannot be read: {what}"));
            }
            for (collector, (epoch, number)) in &leaves.twice {
                let place = format!("{collector}:{}", Sequence::new(*epoch, *number));
                self.found.report(place, "more than one event stands at this position");
            }
            for (collector, at, leaf) in leaves.rest(daemoneye_lib::columns::SCHEMA_VERSION) {
                // A collector with a ledger of its own.
                if !collector.is_empty() && !self.facts.covered.contains_key(&collector) {
                    self.found.unproven = self.found.unproven.saturating_add(1);
                    continue;
                }
                let Some(why) = self.put_in(&collector, at) else {
                    self.found.pending = self.found.pending.saturating_add(1);
                    continue;
                };
                let place = format!("{collector}:{}", Sequence::new(at.0, at.1));
                let what = format!("{why}: it was put into the store (entity {:032x})", leaf.entity);
                self.found.report(place, what);
            }
        }
        (self.found, self.taken)
    }
}

fn stretch(range: &EventRange, first: u64, last: u64) -> String {
    let collector = &range.collector;
    let first_at = Sequence::new(range.epoch, first);
    if first == last { format!("{collector}:{first_at}") } else { format!("{collector}:{first_at} to {last}") }
}
