//! A look at the whole process table, from its beginning to the starts that follow from it.
//!
//! What a sweep finds beside announcements is a candidate only: it is judged at the end, when everything that was announced
//! before has been taken, and yields to whatever was announced of the same process since the sweep began.

use std::collections::{HashMap, VecDeque};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{EventType, Identity, ProcessEvent, ProcessRecord, StartKind};

use super::kept::{Kept, Parts, Shelf};
use super::memory::Traits;
use super::{Emit, Hashed, Tracker, change};
use crate::collector::Image;
use crate::text::bound;

/// Processes that one call of [`Tracker::proceed`] starts: their events are about 64 KiB, one write of the log. What an event
/// takes lies between two records that stay, so the room of this many is never given back.
pub const STARTS: usize = 128;

/// A process that starts or has changed, if nothing speaks against it at the end of the sweep, when its parent is known.
struct Staged {
    entity: EntityId,
    ppid: Option<u32>,
    /// `None` once it has started.
    record: Option<Kept>,
    image: Image,
    ended: Option<Option<i32>>,
    placed: bool,
}

/// What a sweep has found so far.
#[derive(Default)]
pub(super) struct Sweep {
    staged: Vec<Staged>,
    /// A baseline of ten thousand decoded records would be most of the program's memory.
    shelf: Shelf,
    /// Where the staged process of a pid stands.
    places: HashMap<u32, usize>,
    /// Who starts next, after the end of a sweep.
    starting: VecDeque<usize>,
    /// Those that wait to be reaped, with their exit codes.
    unreaped: Vec<(EntityId, Option<i32>)>,
    /// Candidates are gathered or judged, so something announced before may still come after.
    pub(super) open: bool,
    /// The sweep that ended last was complete, and not all that it found has started.
    completing: bool,
    /// A sweep of this run was complete, so what a later one finds was missed by whoever announces.
    settled: bool,
}

impl Sweep {
    fn of_pid(&mut self, pid: u32) -> Option<&mut Staged> {
        self.places.get(&pid).and_then(|at| self.staged.get_mut(*at))
    }

    /// The record of a process that has not started yet.
    pub(super) fn record(&self, pid: u32) -> Option<ProcessRecord> {
        let staged = self.places.get(&pid).and_then(|at| self.staged.get(*at))?;
        staged.record.as_ref().and_then(Kept::decoded).filter(|record| record.pid == pid)
    }

    /// Whether the hash has come before the start that it belongs to, which then carries it.
    pub(super) fn hashed(&mut self, hashed: &Hashed) -> bool {
        let Self { staged, places, shelf, .. } = self;
        let staged = places.get(&hashed.pid).and_then(|at| staged.get_mut(*at));
        let Some(staged) = staged.filter(|staged| staged.entity == hashed.entity) else { return false };
        let record = staged.record.as_ref().and_then(Kept::decoded);
        let Some(mut record) = record.filter(|record| hashed.is_of(record)) else { return false };
        hashed.fill(&mut record);
        staged.record = Some(shelf.keep(Parts::of(&mut record)));
        true
    }

    fn stage(&mut self, entity: EntityId, record: &mut ProcessRecord, image: Image) {
        let (pid, ppid) = (record.pid, record.ppid);
        let record = Some(self.shelf.keep(Parts::of(record)));
        let new = Staged { entity, ppid, record, image, ended: None, placed: false };
        match self.of_pid(pid) {
            // Two sightings in one sweep: the table moved while it was walked, and the later one is who lives now.
            Some(same) if same.entity == entity => {}
            Some(former) => *former = new,
            None => {
                self.places.insert(pid, self.staged.len());
                self.staged.push(new);
            }
        }
    }

    /// It has ended by announcement. Withdrawn at once: by the end of a sweep the dead may be forgotten again.
    pub(super) fn unstage(&mut self, pid: u32, entity: &EntityId) {
        if let Some(staged) = self.of_pid(pid).filter(|staged| staged.entity == *entity) {
            staged.record = None;
        }
    }

    /// Parents before their children, whatever order they were listed in.
    fn line_up(&mut self) {
        let mut chain = Vec::new();
        for first in 0..self.staged.len() {
            let mut next = Some(first);
            while let Some(at) = next
                && let Some(item) = self.staged.get_mut(at).filter(|item| !item.placed)
            {
                // Marked on the way up, so that a tree that claims to be its own parent ends the climb.
                item.placed = true;
                chain.push(at);
                next = item.ppid.and_then(|ppid| self.places.get(&ppid).copied());
            }
            self.starting.extend(chain.drain(..).rev());
        }
    }

    /// Gives the room back as well: after the baseline a sweep finds few.
    fn clear(&mut self) {
        *self = Self { completing: self.completing, settled: self.settled, ..Self::default() };
    }
}

impl Tracker {
    pub(super) fn begin(&mut self, time_us: i64) {
        self.now_us = time_us;
        self.latest_us = time_us;
        self.began_us = time_us;
        self.sweep = self.sweep.saturating_add(1);
        // Whoever has not started by now is found again.
        self.found.clear();
        self.found.completing = false;
        self.found.open = true;
        self.memory.expire(time_us);
    }

    /// Starts the next of the processes that the last sweep found, parents before their children; returns whether there are
    /// more. A baseline comes in pieces so that its events never stand in memory all at once; between two of them the state
    /// fits the events emitted so far.
    pub fn proceed(&mut self, emit: Emit<'_>) -> bool {
        self.now_us = self.latest_us;
        for _ in 0..STARTS {
            let Some(at) = self.found.starting.pop_front() else { break };
            let Some(item) = self.found.staged.get_mut(at) else { break };
            let (entity, image, ended) = (item.entity, item.image, item.ended);
            if let Some(record) = item.record.take().and_then(|kept| kept.decoded()) {
                self.settle(entity, record, image, ended, emit);
            }
        }
        if self.is_starting() {
            return true;
        }
        self.found.clear();
        let completed = std::mem::take(&mut self.found.completing);
        self.baseline_done |= completed;
        self.found.settled |= completed;
        false
    }

    /// Nobody listened for a while: what the next sweep finds was not missed by whoever announces.
    pub fn excuse(&mut self) {
        self.found.settled = false;
    }

    /// The sweep ends now although what was announced before it has not all come.
    pub fn overtake(&mut self) {
        self.late_us = self.began_us;
    }

    /// Whether [`Self::proceed`] has anything to do.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        !self.found.starting.is_empty()
    }

    pub(super) fn read(&mut self, mut record: Box<ProcessRecord>, image: Image, emit: Emit<'_>) {
        let Some(entity) = EntityId::from_bytes(&record.entity_id) else {
            self.counters.malformed = self.counters.malformed.saturating_add(1);
            return;
        };
        let Some(known) = self.known_as(entity, &record) else {
            if self.announcer.is_none() || !self.memory.has_buried(record.pid, &entity) {
                self.found.stage(entity, &mut record, image);
            }
            return;
        };
        record.entity_id = known.as_bytes().to_vec();
        self.memory.see(&known, self.sweep, None);
        self.compare(known, *record, image, false, emit);
    }

    /// The known process that this read is of; one whose start was estimated is known by its exact one from then on.
    fn known_as(&mut self, entity: EntityId, record: &ProcessRecord) -> Option<EntityId> {
        if let Some(known) = self.memory.find(&entity, record.pid) {
            return Some(known);
        }
        let holder = self.memory.holder(record.pid).filter(|_| record.identity() == Identity::Exact)?;
        let live = self.memory.live_mut(&holder).filter(|live| live.estimated)?;
        let (guessed, start) = live.start_us.zip(record.start_time_us)?;
        let same = self.ticks.at(guessed).abs_diff(self.ticks.at(start)) <= 1;
        same.then(|| {
            self.memory.alias(record.pid, entity);
            holder
        })
    }

    /// A read of a known process. Beside announcements a change waits for its time at the end of the sweep (`settling`), and
    /// a read that may be older than the last announcement is taken anew in the next sweep.
    fn compare(&mut self, entity: EntityId, mut record: ProcessRecord, image: Image, settling: bool, emit: Emit<'_>) {
        let announced = self.announcer.is_some();
        let Some(live) = self.memory.live_mut(&entity).filter(|live| !live.ended) else { return };
        if announced && live.noticed == self.sweep {
            self.unknown.push(record.pid);
            return;
        }
        let (slim, mut traits) = (live.slim, live.traits);
        let Some(mut known) = live.decoded() else { return };
        let change = change::between(&known, &record, slim, (traits.image, image));
        let differs = !change.modified.is_empty() || traits.image.replaced_by(image);
        if announced && !settling && differs {
            self.found.stage(entity, &mut record, image);
            return;
        }
        if record.identity() == Identity::Exact {
            known.identity = record.identity;
            known.start_time_us = record.start_time_us;
        }
        change::merge(&mut known, &mut record, slim, change.exec);
        bound(&mut known);
        if change.exec {
            traits = Traits { raised: 0, image };
        // Of a program that looks like the one before it the announcement may be late: it tells the start, and whose image it is.
        } else if image != Image::UNSEEN && !(self.late_us == self.began_us && traits.image.replaced_by(image)) {
            traits.image = image;
        }
        self.memory.store(entity, &mut known, traits);
        if let Some(live) = self.memory.live_mut(&entity).filter(|_| change.exec) {
            live.found_us = self.began_us;
        }
        if !change.modified.is_empty() {
            self.tell(&known, change, emit);
        }
        self.suspect(entity, known, traits.raised, emit);
    }

    fn tell(&mut self, known: &ProcessRecord, change: change::Change, emit: Emit<'_>) {
        let event = if change.exec {
            self.count_missed();
            let start_kind = StartKind::Exec.into();
            ProcessEvent { start_kind, ..self.event(EventType::Start, known.clone()) }
        } else {
            let mut event = self.event(EventType::Modify, known.clone());
            if change.modified.contains(&"command_line") {
                event.process = Some(ProcessRecord { parent_command_line: None, ..known.clone() });
            }
            event
        };
        let modified_fields = change.modified.into_iter().map(str::to_owned).collect();
        emit(ProcessEvent { modified_fields, ..event });
    }

    /// Somebody should have announced it.
    fn count_missed(&mut self) {
        let missed = self.announcer.is_some() && self.found.settled;
        self.counters.missed = self.counters.missed.saturating_add(u64::from(missed));
    }

    pub(super) fn ended(&mut self, entity: EntityId, pid: u32, exit_code: Option<i32>) {
        // Its start and end were announced and are forgotten again, or were lost and counted as such.
        let announced = self.announcer.is_some() && self.baseline_done;
        if let Some(known) = self.memory.find(&entity, pid) {
            let Some(live) = self.memory.live_mut(&known) else { return };
            if live.ended {
                live.see(self.sweep, None);
            } else {
                self.found.unreaped.push((known, exit_code));
            }
        } else if let Some(staged) = self.found.of_pid(pid).filter(|staged| staged.entity == entity) {
            staged.placed |= announced;
            staged.ended = Some(exit_code);
        } else if !announced {
            self.unknown.push(pid);
        }
    }

    /// The end of a process that this sweep has found and that has not started yet.
    pub(super) fn end_found(&mut self, pid: u32, ticks: Option<u64>, exit_code: Option<i32>) -> bool {
        let exact = ticks.map(|ticks| EntityId::derive(&self.boot_id, pid, ticks));
        let Some(staged) = self.found.of_pid(pid).filter(|staged| exact.is_none_or(|exact| exact == staged.entity))
        else {
            return false;
        };
        staged.ended = Some(exit_code);
        true
    }

    pub(super) fn end(&mut self, complete: bool, emit: Emit<'_>) {
        for (entity, exit_code) in std::mem::take(&mut self.found.unreaped) {
            let sweep = self.sweep;
            let Some(live) = self.memory.live_mut(&entity) else { continue };
            let watched = live.seen > 0;
            live.see(sweep, None);
            if !std::mem::replace(&mut live.ended, true) {
                let record = live.decoded();
                let observed = self.notes_end(watched);
                self.stop(record, observed, exit_code, emit);
            }
        }
        if complete {
            for entity in self.memory.unseen(self.sweep) {
                self.gone(entity, None, emit);
            }
        }
        self.found.line_up();
        self.found.completing = complete;
    }

    /// A candidate of this sweep, after everything that was announced before its end.
    fn settle(
        &mut self,
        entity: EntityId,
        record: ProcessRecord,
        image: Image,
        ended: Option<Option<i32>>,
        emit: Emit<'_>,
    ) {
        if let Some(known) = self.known_as(entity, &record) {
            return self.compare(known, record, image, true, emit);
        }
        self.start(entity, record, image, ended, emit);
    }

    fn start(
        &mut self,
        entity: EntityId,
        mut record: ProcessRecord,
        image: Image,
        ended: Option<Option<i32>>,
        emit: Emit<'_>,
    ) {
        if let Some(former) = self.memory.holder(record.pid).filter(|former| *former != entity) {
            // A read from before the announcement of the pid's next holder.
            if self.memory.live_mut(&former).is_some_and(|live| live.noticed == self.sweep) {
                return;
            }
            self.gone(former, None, emit);
        }
        self.adopt(&mut record);
        bound(&mut record);
        let kind = if self.baseline_done { StartKind::Exec } else { StartKind::Baseline };
        // It was dead before anybody watched: remembered, so that it is not announced later, and nothing more.
        let untold = ended.is_some() && kind == StartKind::Baseline;
        if untold {
            // Nor may a hash that comes late be the first that is heard of it.
            record.executable_path = None;
        }
        self.memory.store(entity, &mut record, Traits { raised: 0, image });
        if let Some(live) = self.memory.live_mut(&entity) {
            live.see(self.sweep, None);
            live.found_us = self.began_us;
            live.ended = ended.is_some();
        }
        if untold {
            return;
        }
        self.count_missed();
        emit(ProcessEvent { start_kind: kind.into(), ..self.event(EventType::Start, record.clone()) });
        match ended {
            Some(exit_code) => self.stop(Some(record), true, exit_code, emit),
            None => self.suspect(entity, record, 0, emit),
        }
    }
}
