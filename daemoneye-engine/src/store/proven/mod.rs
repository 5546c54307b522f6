//! The store against the ledger: every event, alert and row of coverage that an entry tells of is there and unchanged, and none is
//! there that no entry tells of.
//!
//! The ledger is read first, then the store is pinned, then what came into the ledger since: so what one has and the other lacks
//! is never only a matter of when each was looked at. What retention took is known from the ledger, not from the store. A range
//! of which only a part is left is verified with the leaves that retention kept.

mod alerts;
mod began;
mod clocks;
mod crowds;
mod facts;
mod found;
mod gaps;
mod kept;
mod leaves;
mod lifetimes;
mod lots;
mod pruned;
mod registered;
mod removals;
mod restored;
mod rows;
mod streams;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use daemoneye_lib::ledger::proof::RangeLeaves;
use daemoneye_lib::ledger::{EventRange, Hash, LedgerFiles, range_in};
use daemoneye_lib::proto::Sequence;
use daemoneye_lib::segment::SegmentError;
use datafusion::arrow::array::RecordBatch;
use tokio_util::sync::CancellationToken;

use self::clocks::{Clocks, JITTER_US, Recorded, Survivors};
use self::facts::{Facts, Reading};
use self::found::{Gathered, miss, named, shown};
pub use self::found::{Missing, OlderRow, Proven, Uncovered, Why};
pub(super) use self::kept::Kept;
use self::leaves::{Leaf, Leaves, Position, Seen};
use self::lifetimes::{Gone, Lifetimes};
use self::removals::By;
pub use self::removals::Removal;
pub use self::restored::Restored;
use self::rows::Rows;
use self::streams::Standing;
use super::fsck::OnProgress;
use super::segment::SegmentFile;
use super::tail::Cut;
use super::{HistoryTable, LEDGER_DIR, Store, StoreError, audit, owed};

/// Events that one finding names.
const NAMED: usize = 8;
/// Rows of one kind that are kept to be told: more than are listed of all together.
const LISTED: usize = 1_000;
const STANDS_TWICE: &str =
    "it stands where its range has another event, or did not look for one: it was put into the store";
/// Ranges between two looks at whether anybody waits still.
const LOOK_RANGES: u64 = 256;

/// What of the store is compared.
struct Pinned {
    /// Every file of events, those that are set aside too.
    files: Vec<Arc<SegmentFile>>,
    open: Vec<RecordBatch>,
    /// Every file of lifetimes.
    lifetimes: Vec<Arc<SegmentFile>>,
    /// Per collector, how far its stream has come in.
    seen: HashMap<String, Position>,
    /// Events may be on their way into it: it is written, or its collector's log was not copied with it.
    may_lag: bool,
    /// Collectors whose log was not read to its end.
    cut: Cut,
}

impl Pinned {
    fn may_lag(&self, collector: &str) -> bool {
        self.may_lag || self.cut.has(collector)
    }
}

impl Store {
    /// Compares everything with the ledger in `dir`. Takes as long as reading both takes; `progress` is told events.
    ///
    /// # Errors
    /// [`StoreError`] when the comparison itself cannot go on; what does not fit is in the result.
    pub fn compare_with_ledger(&self, dir: &Path, progress: &mut OnProgress<'_>) -> Result<Proven, StoreError> {
        let mut found = Proven::default();
        let mut reading = Reading::open(dir, self).map_err(unreadable)?;
        reading.go_on();
        let early = reading.facts.entries;
        reading.facts.is_late = true;
        let (pinned, transaction) = (self.pin()?, self.state.read()?);
        for append in audit::waiting(&transaction)? {
            reading.waits(&append?);
        }
        owed::waiting(&transaction)?.iter().for_each(|(action, payload)| reading.owes(action, payload));
        reading.go_on();
        let mut facts = reading.facts;
        facts.settle(audit::losing(&transaction)?, audit::now_us());
        if self.state.is_offline() {
            facts.restorations.is_of(audit::given(&transaction)?);
        }
        LedgerFiles::open(dir).and_then(|files| facts.restorations.settle(&files)).map_err(unreadable)?;
        let newest = rows::newest(&transaction, &facts)?;
        facts.restorations.disprove(newest);
        (found.entries, found.began_us) = (facts.entries, Some(facts.began_us()).filter(|us| *us < i64::MAX));
        (found.rows_overdue, found.rows_overdue_since_us) = facts.overdue;
        if let Some(broken) = facts.broken.take() {
            found.report("the ledger", broken.to_string());
        }
        for entry in std::mem::take(&mut facts.implausible) {
            let place = entry.map_or_else(|| "the agent's outbox".to_owned(), |entry| format!("ledger entry {entry}"));
            found.report(place, "it says that retention took what was too young for it by any setting");
        }
        for entry in std::mem::take(&mut facts.crowds.implausible) {
            let place = entry.map_or_else(|| "the agent's outbox".to_owned(), |entry| format!("ledger entry {entry}"));
            found.report(
                place,
                "it says that alerts went because of their size, and there were fewer than any setting allows",
            );
        }
        let rows = Rows::new(&facts, early);
        rows.alerts(&transaction, &mut found)?;
        rows.coverage(&transaction, &mut found)?;
        drop(transaction);
        let gone = Gone::of(self.coverage()?.iter().map(|row| &row.gap), facts.gone_before_us());
        let leaves = Leaves::of(&pinned.files, &pinned.open).holding();
        let taken = vec![0; facts.removals.facts.len()];
        let mut comparison = Comparison {
            store: self,
            facts: &facts,
            pinned: &pinned,
            leaves,
            found,
            gathered: Gathered::default(),
            clocks: Clocks::default(),
            survivors: HashMap::new(),
            taken,
        };
        let finished = comparison.events(dir, progress)?;
        let total = comparison.leaves.total;
        let (mut found, taken) = comparison.end(finished);
        found.restored = facts.restorations.listed();
        let mut going = |_, _| progress(total, total);
        let (events, lifetimes) = (&pinned.files, &pinned.lifetimes);
        let derived = Lifetimes { facts: &facts, events, lifetimes, gone, seen: &pinned.seen };
        let finished = finished
            && derived.compare(&mut found, &mut going)
            && registered::compare(events.iter().chain(lifetimes), &mut found, &mut going);
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
        let mut keep =
            |event: &Seen<'_>| event.collector == range.collector && (bounds.0..=bounds.1).contains(&event.at);
        while rows.advance(&range.collector, bounds.1, range.schema, &mut keep) {
            if stop.is_cancelled() {
                return Ok(None);
            }
        }
        let rows = rows.take(&range.collector, bounds);
        let mut leaves = kept::read(&self.state.read()?, range)?;
        leaves.extend(rows.into_iter().map(|(number, leaf)| (number, leaf.hash)));
        Ok(Some(leaves))
    }

    /// At one moment: an event that is sealed meanwhile must not be in neither place.
    fn pin(&self) -> Result<Pinned, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        let (files, lifetimes) =
            held.every_file().cloned().partition(|file| file.table == HistoryTable::ProcessEvents);
        let open = held.sealing.iter().flat_map(|open| open.batches.iter()).chain(&held.open.batches).cloned();
        let seen = held.seen.iter().map(|(collector, at)| (collector.clone(), at.key())).collect();
        let cut = held.cut.clone();
        let is_apart = self.ledger_dir() != self.options.dir.join(LEDGER_DIR);
        Ok(Pinned { files, open: open.collect(), lifetimes, seen, may_lag: is_apart || !self.state.is_offline(), cut })
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
    gathered: Gathered,
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
                if !self.read(&range, progress) {
                    return Ok(false);
                }
                self.range(record.entry.sequence, &range, recorded)?;
            }
            let looks = self.found.ranges.is_multiple_of(LOOK_RANGES);
            if looks && !progress(self.leaves.done, self.leaves.total) {
                return Ok(false);
            }
        }
        Ok(self.rest(progress))
    }

    /// Reads what a range may cover; false: it was stopped. What no range covers is judged at once: of a ledger that is younger than
    /// the store that may be nearly all.
    fn read(&mut self, range: &EventRange, progress: &mut OnProgress<'_>) -> bool {
        let last = (range.epoch, range.last);
        let Self { leaves, facts, pinned, found, gathered, .. } = self;
        let mut keep = |event: &Seen<'_>| judge(facts, pinned, event, found, gathered);
        while leaves.advance(&range.collector, last, range.schema, &mut keep) {
            if !progress(leaves.done, leaves.total) {
                return false;
            }
        }
        true
    }

    fn range(&mut self, entry: u64, range: &EventRange, recorded: Recorded) -> Result<(), StoreError> {
        self.found.ranges = self.found.ranges.saturating_add(1);
        let (first, last) = ((range.epoch, range.first), (range.epoch, range.last));
        let rows = self.leaves.take(&range.collector, (first, last));
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
        let removed = self.removed(entry, range, &lacking, recorded);
        self.found.removed = self.found.removed.saturating_add(removed);
        if self.kept(range, &mut known)? && known.fits(range) {
            self.proves(range, there, recorded);
            return Ok(());
        }
        // Also of a range that retention cut: with the leaves that it kept there are all of them.
        if lacking.iter().all(|number| known.has(*number)) {
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
    fn removed(&mut self, entry: u64, range: &EventRange, lacking: &[u64], recorded: Recorded) -> u64 {
        let removals = &self.facts.removals;
        let survivors = self.survivors.get(&range.collector);
        let by = |number: &u64| removals.of(&range.collector, (range.epoch, *number));
        let mut removed = 0_u64;
        for run in lacking.chunk_by(|one, next| by(one) == by(next)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let Some(By { fact, is_sure }) = by(first) else { continue };
            let count = run.len() as u64;
            if let Some(taken) = self.taken.get_mut(fact).filter(|_| is_sure) {
                removed = removed.saturating_add(count);
                *taken = taken.saturating_add(count);
            } else {
                self.found.unproven = self.found.unproven.saturating_add(count);
                self.found.perhaps_removed = self.found.perhaps_removed.saturating_add(count);
            }
            if let Some(why) = removals.contradiction(fact, (entry, recorded), survivors) {
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
        let (mut coming, mut gone, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let seen = self.pinned.seen.get(&range.collector).copied().max(self.facts.streams.committed(&range.collector));
        for number in lacking {
            let at = (range.epoch, *number);
            if self.facts.removals.of(&range.collector, at).is_some() {
                continue;
            }
            if self.facts.streams.has_lost(&range.collector, at) {
                lost.push(*number);
            } else if self.pinned.may_lag(&range.collector) && Some(at) > seen {
                coming.push(*number);
            } else if !self.facts.restorations.took_event(self.facts.streams.lowered(&range.collector), at) {
                gone.push(*number);
            }
        }
        miss(&mut self.found.lost, range, &lost, recorded.latest_us);
        let late_us = self.facts.clocks.run_us(&range.collector).saturating_sub(recorded.run_us);
        let is_late = late_us > JITTER_US;
        if is_late {
            miss(&mut self.found.overdue, range, &coming, recorded.latest_us);
        } else {
            self.found.pending = self.found.pending.saturating_add(coming.len() as u64);
        }
        if !is_late && coming.len() == lacking.len() {
            // Those that are there already are proven when the rest of their range has come.
            self.found.pending = self.found.pending.saturating_add(there);
        } else {
            // Nobody can compute the root any more.
            self.found.unproven = self.found.unproven.saturating_add(there);
        }
        for run in gone.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                let what = format!(
                    "deleted: ledger entry {entry} covers it, it is not in the store, and retention did not take it"
                );
                self.found.report(stretch(range, *first, *last), what);
            }
        }
    }

    /// Reads what no range asked for; false: it was stopped.
    fn rest(&mut self, progress: &mut OnProgress<'_>) -> bool {
        let Self { leaves, facts, pinned, found, gathered, .. } = self;
        for (collector, at) in leaves.left() {
            found.report(format!("{collector}:{}", shown(at)), STANDS_TWICE);
        }
        let mut see = |event: &Seen<'_>| {
            if judge(facts, pinned, event, found, gathered) {
                found.report(format!("{}:{}", named(event.collector), shown(event.at)), STANDS_TWICE);
            }
        };
        while leaves.skim(&mut see) {
            if !progress(leaves.done, leaves.total) {
                return false;
            }
        }
        true
    }

    fn end(mut self, finished: bool) -> (Proven, Vec<u64>) {
        self.gathered.tell(&mut self.found);
        self.leaves.hidden.iter().for_each(|(file, hidden)| pruned::tell(file, hidden, &mut self.found));
        if finished {
            for (file, what) in &self.leaves.unreadable {
                self.found.report(format!("segments/{file}"), format!("its events cannot be read: {what}"));
            }
            for (collector, at) in &self.leaves.twice {
                self.found
                    .report(format!("{collector}:{}", shown(*at)), "more than one event stands at this position");
            }
            self.found.further_problems = self.found.further_problems.saturating_add(self.leaves.further_twice);
        }
        (self.found, self.taken)
    }
}

/// Whether a range covers an event. What it is otherwise is told.
fn judge(facts: &Facts, pinned: &Pinned, event: &Seen<'_>, found: &mut Proven, gathered: &mut Gathered) -> bool {
    let seen = pinned.seen.get(event.collector).copied();
    match facts.streams.standing(event.collector, event.at, seen) {
        Standing::Covered => return true,
        Standing::Uncovered(why) => gathered.add(event, why, facts.began_us()),
        // It would have been covered within a second.
        Standing::Pending if event.time_us > facts.ended_us().saturating_add(JITTER_US) => {
            gathered.add(event, Why::Behind, facts.began_us());
        }
        Standing::Pending => found.pending = found.pending.saturating_add(1),
        Standing::PutIn(why) => {
            let place = format!("{}:{}", named(event.collector), shown(event.at));
            let what = format!("{why}: it was put into the store (entity {:032x})", event.entity());
            found.report(place, what);
        }
    }
    false
}

fn stretch(range: &EventRange, first: u64, last: u64) -> String {
    let collector = &range.collector;
    let first_at = Sequence::new(range.epoch, first);
    if first == last { format!("{collector}:{first_at}") } else { format!("{collector}:{first_at} to {last}") }
}
