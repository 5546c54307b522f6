//! The lifecycle tracker: (state, input) → events. No clock, no I/O; time comes with the input.
//!
//! Invariants: an image of an entity starts once in a row, so a second start of an entity is an exec; an entity stops at most
//! once; a reused pid is a stop and a start; and whatever an event says about parents comes from here, so a parent that is
//! gone is still known. Work per event does not grow with the number of processes; memory is bounded by [`Limits`] and what
//! the bound sheds is counted.

mod change;
mod kept;
mod memory;
mod state;
mod suspicion;

use std::collections::{HashMap, VecDeque};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord, StartKind};
use prost::Message;

pub use self::memory::{Limits, Member};
use self::memory::{Memory, Traits};
pub use self::state::StateError;
use crate::collector::{Image, Sighting};
use crate::text::{bound, push_step};

/// Names in an ancestry; deeper trees lose their root end.
pub const ANCESTRY_NAMES: usize = 16;

/// Processes that one call of [`Tracker::proceed`] starts: their events are about 256 KiB, one write of the log.
pub const STARTS: usize = 512;

/// What the tracker is told.
#[derive(Debug)]
pub enum Input {
    /// A sweep over all processes begins.
    Begin {
        /// Wall clock, µs since the Unix epoch: the time of the events of this sweep.
        time_us: i64,
    },
    /// One process was seen.
    Seen(Sighting),
    /// The sweep is over: what has gone stops. What is new starts in the calls of [`Tracker::proceed`] that follow.
    End {
        /// Whether every process was seen; only then does absence mean that a process ended.
        complete: bool,
    },
    /// An event of an earlier run, read back from the log behind the restored state.
    Replay(Box<ProcessEvent>),
}

/// What the tracker counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Dead parents forgotten before their time, for want of room.
    pub evicted: u64,
    /// Live processes kept without their long fields, for want of room.
    pub slimmed: u64,
    /// Records without a usable entity id.
    pub malformed: u64,
}

/// A process that starts at the end of the sweep, when its parent is known. Encoded: a baseline of ten thousand decoded
/// records would be most of the program's memory.
struct Staged {
    entity: EntityId,
    ppid: Option<u32>,
    record: Box<[u8]>,
    image: Image,
    ended: Option<Option<i32>>,
    placed: bool,
}

/// The tracker's state.
pub struct Tracker {
    source: String,
    boot_id: String,
    baseline_done: bool,
    memory: Memory,
    sweep: u64,
    now_us: i64,
    staged: Vec<Staged>,
    /// Where the staged process of a pid stands.
    places: HashMap<u32, usize>,
    /// Who starts next, after the end of a sweep.
    starting: VecDeque<usize>,
    /// The sweep that ended last was complete, and not all that it found has started.
    completing: bool,
    unknown: Vec<u32>,
    counters: Counters,
}

impl Tracker {
    /// An empty tracker for events of `source` on the boot `boot_id`.
    #[must_use]
    pub fn new(source: &str, boot_id: &str, limits: Limits) -> Self {
        Self {
            source: source.to_owned(),
            boot_id: boot_id.to_owned(),
            baseline_done: false,
            memory: Memory::new(limits),
            sweep: 0,
            now_us: 0,
            staged: Vec::new(),
            places: HashMap::new(),
            starting: VecDeque::new(),
            completing: false,
            unknown: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes one input and emits the events that follow from it.
    pub fn apply(&mut self, input: Input, emit: &mut dyn FnMut(ProcessEvent)) {
        match input {
            Input::Begin { time_us } => {
                self.now_us = time_us;
                self.sweep = self.sweep.saturating_add(1);
                // Whoever has not started by now is found again.
                self.unstage();
                self.completing = false;
                self.memory.expire(time_us);
            }
            Input::Seen(Sighting::Same(vitals)) => match self.memory.live_mut(&vitals.entity) {
                Some(live) => live.see(self.sweep, Some(vitals)),
                None => self.unknown.push(vitals.pid),
            },
            Input::Seen(Sighting::Read(record, image)) => self.read(record, image, emit),
            Input::Seen(Sighting::Ended { entity, pid, exit_code }) => self.ended(entity, pid, exit_code, emit),
            Input::End { complete } => self.end(complete, emit),
            Input::Replay(event) => self.replay(*event),
        }
    }

    /// Starts the next of the processes that the last sweep found, parents before their children; returns whether there are
    /// more. A baseline comes in pieces so that its events never stand in memory all at once; between two of them the state
    /// fits the events emitted so far.
    pub fn proceed(&mut self, emit: &mut dyn FnMut(ProcessEvent)) -> bool {
        for _ in 0..STARTS {
            let Some(item) = self.starting.pop_front().and_then(|at| self.staged.get_mut(at)) else { break };
            let (entity, image, ended) = (item.entity, item.image, item.ended);
            if let Ok(record) = ProcessRecord::decode(std::mem::take(&mut item.record).as_ref()) {
                self.start(entity, record, image, ended, emit);
            }
        }
        if self.is_starting() {
            return true;
        }
        self.unstage();
        self.baseline_done |= std::mem::take(&mut self.completing);
        false
    }

    /// Whether [`Self::proceed`] has anything to do.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        !self.starting.is_empty()
    }

    /// Pids that were reported as seen before but are not known here; the collector has to read them in full.
    pub fn take_unknown(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unknown)
    }

    /// Living processes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether no process is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was shed.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { evicted: self.memory.evicted, slimmed: self.memory.slimmed, ..self.counters }
    }

    /// Every living process as it stands; cheap to take, decoded one by one by whoever asked.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.memory.members()
    }

    fn read(&mut self, mut record: Box<ProcessRecord>, image: Image, emit: &mut dyn FnMut(ProcessEvent)) {
        let Some(entity) = EntityId::from_bytes(&record.entity_id) else {
            self.counters.malformed = self.counters.malformed.saturating_add(1);
            return;
        };
        let Some(live) = self.memory.live_mut(&entity) else {
            self.stage(entity, &record, image);
            return;
        };
        live.see(self.sweep, None);
        if live.ended {
            return;
        }
        let (slim, mut traits) = (live.slim, live.traits);
        let Some(mut known) = live.decoded() else { return };
        let change = change::merge(&mut known, &mut record, slim, (traits.image, image));
        bound(&mut known);
        if change.exec {
            traits = Traits { raised: 0, image };
        } else if image != Image::UNSEEN {
            traits.image = image;
        }
        self.memory.store(entity, &mut known, traits);
        if change.modified.is_empty() {
            return;
        }
        let modified_fields = change.modified.into_iter().map(str::to_owned).collect();
        let event = if change.exec {
            let start_kind = StartKind::Exec.into();
            ProcessEvent { start_kind, ..self.event(EventType::Start, known.clone()) }
        } else {
            self.event(EventType::Modify, known.clone())
        };
        emit(ProcessEvent { modified_fields, ..event });
        self.suspect(entity, known, traits.raised, emit);
    }

    fn stage(&mut self, entity: EntityId, record: &ProcessRecord, image: Image) {
        let (pid, ppid) = (record.pid, record.ppid);
        let new = Staged { entity, ppid, record: record.encode_to_vec().into(), image, ended: None, placed: false };
        match self.places.get(&pid).and_then(|at| self.staged.get_mut(*at)) {
            // Two sightings in one sweep: the table moved while it was walked, and the later one is who lives now.
            Some(same) if same.entity == entity => {}
            Some(former) => *former = new,
            None => {
                self.places.insert(pid, self.staged.len());
                self.staged.push(new);
            }
        }
    }

    fn ended(&mut self, entity: EntityId, pid: u32, exit_code: Option<i32>, emit: &mut dyn FnMut(ProcessEvent)) {
        let sweep = self.sweep;
        if let Some(live) = self.memory.live_mut(&entity) {
            let observed = live.seen > 0;
            live.see(sweep, None);
            if !std::mem::replace(&mut live.ended, true) {
                let record = live.decoded();
                self.stop(record, observed, exit_code, emit);
            }
        } else if let Some(staged) = self.places.get(&pid).and_then(|at| self.staged.get_mut(*at))
            && staged.entity == entity
        {
            staged.ended = Some(exit_code);
        } else {
            self.unknown.push(pid);
        }
    }

    fn end(&mut self, complete: bool, emit: &mut dyn FnMut(ProcessEvent)) {
        if complete {
            for entity in self.memory.unseen(self.sweep) {
                self.gone(entity, emit);
            }
        }
        self.line_up();
        self.completing = complete;
    }

    fn gone(&mut self, entity: EntityId, emit: &mut dyn FnMut(ProcessEvent)) {
        let Some(live) = self.memory.bury(&entity, self.now_us) else { return };
        if !live.ended {
            self.stop(live.decoded(), live.seen > 0, None, emit);
        }
    }

    fn stop(
        &self,
        record: Option<ProcessRecord>,
        observed: bool,
        exit_code: Option<i32>,
        emit: &mut dyn FnMut(ProcessEvent),
    ) {
        let Some(record) = record else { return };
        // When nobody watched, the end lies somewhere in the gap and a runtime would be a guess.
        let runtime_ms = record
            .start_time_us
            .filter(|_| observed)
            .and_then(|start| u64::try_from(self.now_us.saturating_sub(start).saturating_div(1000)).ok());
        emit(ProcessEvent {
            exit_code,
            runtime_ms,
            end_observed: Some(observed),
            ..self.event(EventType::Stop, record)
        });
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
    fn unstage(&mut self) {
        self.staged = Vec::new();
        self.places = HashMap::new();
        self.starting = VecDeque::new();
    }

    fn start(
        &mut self,
        entity: EntityId,
        mut record: ProcessRecord,
        image: Image,
        ended: Option<Option<i32>>,
        emit: &mut dyn FnMut(ProcessEvent),
    ) {
        if let Some(former) = self.memory.holder(record.pid).filter(|former| *former != entity) {
            self.gone(former, emit);
        }
        self.adopt(&mut record);
        bound(&mut record);
        self.memory.store(entity, &mut record, Traits { raised: 0, image });
        if let Some(live) = self.memory.live_mut(&entity) {
            live.see(self.sweep, None);
            live.ended = ended.is_some();
        }
        let kind = if self.baseline_done { StartKind::Exec } else { StartKind::Baseline };
        if ended.is_some() && kind == StartKind::Baseline {
            // It was dead before anybody watched: remembered, so that it is not announced later, and nothing more.
            return;
        }
        emit(ProcessEvent { start_kind: kind.into(), ..self.event(EventType::Start, record.clone()) });
        match ended {
            Some(exit_code) => self.stop(Some(record), true, exit_code, emit),
            None => self.suspect(entity, record, 0, emit),
        }
    }

    /// Fills in what the tracker knows about the parent.
    fn adopt(&self, record: &mut ProcessRecord) {
        let parent = record.ppid.and_then(|ppid| self.memory.parent(ppid, record.start_time_us));
        let mut path = parent.as_ref().and_then(|parent| parent.ancestry.clone()).unwrap_or_default();
        push_step(&mut path, &record.name);
        record.ancestry = Some(newest_names(path));
        if let Some(parent) = parent {
            record.parent_entity_id = Some(parent.entity_id);
            record.parent_name = Some(parent.name);
            record.parent_executable_path = parent.executable_path;
            record.parent_command_line = parent.command_line;
        }
    }

    fn suspect(&mut self, entity: EntityId, record: ProcessRecord, raised: u8, emit: &mut dyn FnMut(ProcessEvent)) {
        let mut all = raised;
        for suspicion in suspicion::found(&record, self.now_us) {
            if all & suspicion.bit == 0 {
                all |= suspicion.bit;
                emit(ProcessEvent {
                    reason: Some(suspicion.reason.to_owned()),
                    severity: suspicion.severity.into(),
                    ..self.event(EventType::Suspicious, record.clone())
                });
            }
        }
        if let Some(live) = self.memory.live_mut(&entity) {
            live.traits.raised = all;
        }
    }

    fn replay(&mut self, event: ProcessEvent) {
        // An exec of a known entity names what changed; it may come before the baseline is done.
        self.baseline_done |= event.start_kind() == StartKind::Exec && event.modified_fields.is_empty();
        let kind = event.event_type();
        let bit = event.reason.as_deref().map_or(0, suspicion::bit_of);
        let Some(mut record) = event.process else { return };
        let Some(entity) = EntityId::from_bytes(&record.entity_id) else { return };
        if kind == EventType::Stop {
            // Kept as ended until a whole sweep misses it: it may still be there, unreaped.
            if let Some(live) = self.memory.live_mut(&entity) {
                live.ended = true;
            }
            return;
        }
        if let Some(former) = self.memory.holder(record.pid).filter(|former| *former != entity) {
            self.memory.bury(&former, event.time_us);
        }
        let former = self.memory.live_mut(&entity).filter(|_| kind != EventType::Start).map(|live| live.traits);
        let former = former.unwrap_or_default();
        self.memory.store(entity, &mut record, Traits { raised: former.raised | bit, ..former });
    }

    fn event(&self, kind: EventType, record: ProcessRecord) -> ProcessEvent {
        ProcessEvent {
            event_type: kind.into(),
            time_us: self.now_us,
            process: Some(record),
            source: self.source.clone(),
            ..ProcessEvent::default()
        }
    }
}

fn newest_names(path: String) -> String {
    let names = path.bytes().filter(|b| *b == b'/').count();
    match path.match_indices('/').nth(names.saturating_sub(ANCESTRY_NAMES)) {
        Some((at, _)) if names > ANCESTRY_NAMES => path.get(at..).unwrap_or_default().to_owned(),
        _ => path,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
