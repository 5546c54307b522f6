//! The store against the ledger: every event, alert and row of coverage that an entry tells of is there and unchanged, and none is
//! there that no entry tells of.
//!
//! The ledger is read first, then the store is pinned, then what came into the ledger since: so what one has and the other lacks
//! is never only a matter of when each was looked at. What retention took is known from the ledger, not from the store. A range
//! of which only a part is left is verified with the leaves that retention kept.

mod facts;
mod kept;
mod leaves;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::ledger::find::{LedgerFiles, range_in};
use daemoneye_lib::ledger::proof::RangeLeaves;
use daemoneye_lib::ledger::{EventRange, Hash};
use daemoneye_lib::proto::Sequence;
use daemoneye_lib::segment::SegmentError;
use datafusion::arrow::array::RecordBatch;
use serde::Serialize;

use self::facts::{Facts, Reading};
pub(super) use self::kept::Kept;
use self::leaves::{Leaf, Leaves, Position};
use self::rows::Rows;
use super::fsck::{OnProgress, Problem, list};
use super::segment::SegmentFile;
use super::{HistoryTable, Store, StoreError, audit};

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
    /// Events that cannot be judged: their range has no tree, or a part of it is gone without its leaves.
    pub unproven: u64,
    /// Alerts that are as they were raised.
    pub alerts: u64,
    /// Rows of coverage that are as the ledger has them.
    pub coverage: u64,
    /// Alerts and rows of coverage that no entry proves, and that are older than such entries, or of which the entry was lost.
    pub rows_unproven: u64,
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

/// What of the store is compared.
struct Pinned {
    /// Every file of events, those that are set aside too.
    files: Vec<Arc<SegmentFile>>,
    open: Vec<RecordBatch>,
    /// Per collector, how far its stream has come in.
    seen: HashMap<String, Position>,
    is_live: bool,
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
        reading.go_on();
        let mut facts = reading.facts;
        facts.settle();
        found.entries = facts.entries;
        if let Some(broken) = facts.broken.take() {
            found.report("the ledger", broken.to_string());
        }
        let rows = Rows { facts: &facts, early };
        rows.alerts(&transaction, &mut found)?;
        rows.coverage(&transaction, &mut found)?;
        drop(transaction);
        let leaves = Leaves::of(&pinned.files, &pinned.open);
        let mut comparison = Comparison { store: self, facts: &facts, pinned: &pinned, leaves, found };
        let finished = comparison.events(dir, progress)?;
        let mut found = comparison.end(finished);
        found.finished = finished;
        Ok(found)
    }

    /// The leaves of the stored events of a range, and those that retention kept of the others, by number.
    ///
    /// # Errors
    /// [`StoreError`] when `state.redb` fails; a file that cannot be read lacks its events.
    pub fn range_leaves(&self, range: &EventRange) -> Result<BTreeMap<u64, Hash>, StoreError> {
        let bounds = ((range.epoch, range.first), (range.epoch, range.last));
        let pinned = self.pin()?;
        let reaches = |file: &&Arc<SegmentFile>| {
            let mut of = file.ranges.iter().filter(|known| known.collector == range.collector);
            of.any(|known| known.first <= bounds.1 && known.last >= bounds.0)
        };
        let files: Vec<_> = pinned.files.iter().filter(reaches).cloned().collect();
        let rows = Leaves::of(&files, &pinned.open).take(&range.collector, bounds, range.schema)?;
        let mut leaves = kept::read(&self.state.read()?, range)?;
        leaves.extend(rows.into_iter().map(|(number, leaf)| (number, leaf.hash)));
        Ok(leaves)
    }

    /// At one moment: an event that is sealed meanwhile must not be in neither place.
    fn pin(&self) -> Result<Pinned, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        let files = held.every_file().filter(|file| file.table == HistoryTable::ProcessEvents).cloned().collect();
        let open = held.sealing.iter().flat_map(|open| open.batches.iter()).chain(&held.open.batches).cloned();
        let seen = held.seen.iter().map(|(collector, at)| (collector.clone(), at.key())).collect();
        Ok(Pinned { files, open: open.collect(), seen, is_live: !self.state.is_offline() })
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
}

impl Comparison<'_> {
    /// False: it was stopped.
    fn events(&mut self, dir: &Path, progress: &mut OnProgress<'_>) -> Result<bool, StoreError> {
        let (mut failed, mut going) = (None, true);
        LedgerFiles::open(dir)
            .and_then(|files| {
                files.each(|record| {
                    if let Some(range) = range_in(&record) {
                        failed = self.range(record.entry.sequence, &range).err();
                    }
                    if self.found.ranges.is_multiple_of(LOOK_RANGES) {
                        going = progress(self.leaves.done, self.leaves.total);
                    }
                    failed.is_none() && going && record.entry.sequence.saturating_add(1) < self.facts.entries
                })
            })
            .map_err(unreadable)?;
        match failed {
            Some(error) => Err(error),
            None => Ok(going),
        }
    }

    fn range(&mut self, entry: u64, range: &EventRange) -> Result<(), StoreError> {
        self.found.ranges = self.found.ranges.saturating_add(1);
        let (first, last) = ((range.epoch, range.first), (range.epoch, range.last));
        let rows = self.leaves.take(&range.collector, (first, last), range.schema)?;
        if !range.has_tree() {
            self.found.unproven = self.found.unproven.saturating_add(rows.len() as u64);
            return Ok(());
        }
        let mut known = RangeLeaves::default();
        rows.iter().for_each(|(number, leaf)| known.add(*number, leaf.hash));
        let there = known.count();
        if known.fits(range) {
            self.found.events = self.found.events.saturating_add(there);
            return Ok(());
        }
        let kept = self.kept(range, &mut known)?;
        if kept > 0 && known.fits(range) {
            self.found.events = self.found.events.saturating_add(there);
            self.found.removed = self.found.removed.saturating_add(kept);
            return Ok(());
        }
        let lacking: Vec<u64> = range.numbers().filter(|number| !known.has(*number)).collect();
        if lacking.is_empty() {
            self.changed(entry, range, &rows);
        } else {
            self.lacking(entry, range, &lacking, there);
        }
        Ok(())
    }

    /// Adds the leaves that retention kept of a range, and says how many these are.
    fn kept(&self, range: &EventRange, known: &mut RangeLeaves) -> Result<u64, StoreError> {
        let mut added = 0_u64;
        for (number, leaf) in kept::read(&self.store.state.read()?, range)? {
            if !known.has(number) && self.facts.is_removed(&range.collector, (range.epoch, number)) {
                known.add(number, leaf);
                added = added.saturating_add(1);
            }
        }
        Ok(added)
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

    fn lacking(&mut self, entry: u64, range: &EventRange, lacking: &[u64], there: u64) {
        let (mut removed, mut pending) = (0_u64, 0_u64);
        let mut gone = Vec::new();
        let seen = self.pinned.seen.get(&range.collector).copied();
        for number in lacking {
            let at = (range.epoch, *number);
            if self.facts.is_removed(&range.collector, at) {
                removed = removed.saturating_add(1);
            } else if self.pinned.is_live && Some(at) > seen {
                pending = pending.saturating_add(1);
            } else {
                gone.push(*number);
            }
        }
        self.found.removed = self.found.removed.saturating_add(removed);
        self.found.pending = self.found.pending.saturating_add(pending);
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

    /// What is left when every range has taken its events.
    fn end(mut self, finished: bool) -> Proven {
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
                match self.facts.covered.get(&collector) {
                    Some(covered) if at > *covered => {
                        self.found.pending = self.found.pending.saturating_add(1);
                        continue;
                    }
                    // A collector with a ledger of its own.
                    None if !collector.is_empty() => {
                        self.found.unproven = self.found.unproven.saturating_add(1);
                        continue;
                    }
                    _ => {}
                }
                let place = format!("{collector}:{}", Sequence::new(at.0, at.1));
                let what = format!(
                    "no range of the ledger covers it: it was put into the store (entity {:032x})",
                    leaf.entity
                );
                self.found.report(place, what);
            }
        }
        self.found
    }
}

fn stretch(range: &EventRange, first: u64, last: u64) -> String {
    let collector = &range.collector;
    let first_at = Sequence::new(range.epoch, first);
    if first == last { format!("{collector}:{first_at}") } else { format!("{collector}:{first_at} to {last}") }
}
