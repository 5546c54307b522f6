//! The lifecycle tracker: (state, input) → events. No clock, no I/O; time comes with the input. Two kinds of input tell it
//! what lives: announcements of the kernel, one by one, and sweeps over the whole process table.
//!
//! Invariants: an image of an entity starts once in a row, so a second start of an entity is an exec; an entity stops at most
//! once; a reused pid is a stop and a start; and whatever an event says about parents comes from here, so a parent that is
//! gone is still known. Work per event does not grow with the number of processes; memory is bounded by [`Limits`] and what
//! the bound sheds is counted.

mod change;
mod kept;
mod memory;
mod notice;
mod state;
mod suspicion;
mod sweep;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{EventType, ProcessEvent, ProcessRecord, StartKind};

pub use self::memory::{Limits, Member};
use self::memory::{Memory, Traits};
pub use self::state::StateError;
pub use self::sweep::STARTS;
use self::sweep::Sweep;
use crate::collector::{Sighting, Ticks};
use crate::kernel::Notice;
use crate::text::{abridge, push_step};

/// Names in an ancestry; deeper trees lose their root end.
pub const ANCESTRY_NAMES: usize = 16;

/// The status of a process in a word about it that comes after its stop.
const DEAD: &str = "dead";

/// Who takes the events.
type Emit<'a> = &'a mut dyn FnMut(ProcessEvent);

/// What the hashing of an executable came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Which process runs it.
    pub entity: EntityId,
    /// Its pid.
    pub pid: u32,
    /// The executable that was hashed; a process that runs another one by now is left alone.
    pub executable_path: String,
    /// When it was done, µs since the Unix epoch.
    pub time_us: i64,
    /// `sha256`.
    pub algorithm: String,
    /// The hash; `None` when the work was skipped.
    pub hash: Option<String>,
    /// The column's word.
    pub status: String,
}

impl Hashed {
    fn is_of(&self, record: &ProcessRecord) -> bool {
        record.executable_path.as_ref() == Some(&self.executable_path)
    }

    fn fill(&self, record: &mut ProcessRecord) {
        record.hash_algorithm = self.hash.is_some().then(|| self.algorithm.clone());
        record.executable_hash.clone_from(&self.hash);
        record.hash_status = Some(self.status.clone());
    }
}

/// What the tracker is told.
#[derive(Debug)]
pub enum Input {
    /// The kernel has announced something.
    Notice(Notice),
    /// A process runs an executable that is deleted by now.
    Deleted {
        /// Its pid.
        pid: u32,
        /// The executable; a process that is known to run another one is left alone.
        executable_path: String,
        /// When it was seen, µs since the Unix epoch.
        time_us: i64,
    },
    /// The hash of an executable, which comes after the start of its process.
    Hashed(Box<Hashed>),
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
    /// Starts that were announced.
    pub announced: u64,
    /// Starts that only a sweep found although announcements were listened to.
    pub missed: u64,
    /// Ends that only a sweep found although announcements were listened to.
    pub vanished: u64,
    /// Announced ends of processes that nobody knew.
    pub strays: u64,
    /// Dead parents forgotten before their time, for want of room.
    pub evicted: u64,
    /// Live processes kept without their long fields, for want of room.
    pub slimmed: u64,
    /// Hashes that came when their process was forgotten, or ran another program.
    pub unclaimed: u64,
    /// Records without a usable entity id.
    pub malformed: u64,
}

/// The tracker's state.
pub struct Tracker {
    source: String,
    boot_id: String,
    ticks: Ticks,
    /// The source that announces; `None`: sweeps are all there is.
    announcer: Option<&'static str>,
    /// The event at hand follows from an announcement.
    announcing: bool,
    baseline_done: bool,
    memory: Memory,
    /// Number of the sweep that began last.
    sweep: u32,
    /// When it did.
    began_us: i64,
    /// What was announced up to here may come behind a sweep that has met what came of it.
    late_us: i64,
    found: Sweep,
    now_us: i64,
    /// Newest time of any input, for what follows from a sweep.
    latest_us: i64,
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
            ticks: Ticks::MICROSECONDS,
            announcer: None,
            announcing: false,
            baseline_done: false,
            memory: Memory::new(limits),
            sweep: 0,
            began_us: 0,
            late_us: i64::MIN,
            found: Sweep::default(),
            now_us: 0,
            latest_us: 0,
            unknown: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// What the start ticks of announcements mean; default: microseconds since the Unix epoch.
    #[must_use]
    pub const fn with_ticks(mut self, ticks: Ticks) -> Self {
        self.ticks = ticks;
        self
    }

    /// From here on this source announces everything, or with `None` nobody does.
    pub fn listen_to(&mut self, announcer: Option<&'static str>) {
        self.announcer = announcer;
        self.memory.count_evictions = announcer.is_none();
    }

    /// Takes one input and emits the events that follow from it.
    pub fn apply(&mut self, input: Input, emit: Emit<'_>) {
        if let Input::Notice(notice) = input {
            self.announcing = true;
            self.notice(notice, emit);
            self.announcing = false;
            return;
        }
        self.now_us = self.latest_us;
        match input {
            Input::Notice(_) => {}
            Input::Deleted { pid, executable_path, time_us } => self.deleted(pid, &executable_path, time_us, emit),
            Input::Hashed(hashed) => self.hashed(*hashed, emit),
            Input::Begin { time_us } => self.begin(time_us),
            Input::Seen(Sighting::Same(vitals)) => match self.memory.find(&vitals.entity, vitals.pid) {
                Some(entity) => self.memory.see(&entity, self.sweep, Some(vitals)),
                None => self.unknown.push(vitals.pid),
            },
            Input::Seen(Sighting::Read(record, image)) => self.read(record, image, emit),
            Input::Seen(Sighting::Ended { entity, pid, exit_code }) => self.ended(entity, pid, exit_code),
            Input::Seen(Sighting::Unread(pid)) => {
                if let Some(holder) = self.memory.holder(pid) {
                    self.memory.see(&holder, self.sweep, None);
                }
            }
            Input::End { complete } => self.end(complete, emit),
            Input::Replay(event) => self.replay(*event),
        }
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

    /// Its end was not seen when and where it happened.
    fn gone(&mut self, entity: EntityId, exit_code: Option<i32>, emit: Emit<'_>) {
        let Some(live) = self.memory.bury(&entity, self.now_us) else { return };
        if !live.ended {
            let observed = self.notes_end(live.seen > 0);
            self.stop(live.decoded(), observed, exit_code, emit);
        }
    }

    /// Whether an end that a sweep has found counts as observed: beside announcements it is one that was missed.
    fn notes_end(&mut self, watched: bool) -> bool {
        self.counters.vanished = self.counters.vanished.saturating_add(u64::from(self.announcer.is_some() && watched));
        watched && self.announcer.is_none()
    }

    fn stop(&self, record: Option<ProcessRecord>, observed: bool, exit_code: Option<i32>, emit: Emit<'_>) {
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

    fn suspect(&mut self, entity: EntityId, record: ProcessRecord, raised: u8, emit: Emit<'_>) {
        let mut all = raised;
        for suspicion in suspicion::found(&record, self.now_us) {
            if all & suspicion.bit == 0 {
                all |= suspicion.bit;
                emit(suspicion.event(self.event(EventType::Suspicious, record.clone())));
            }
        }
        if let Some(live) = self.memory.live_mut(&entity) {
            live.traits.raised = all;
        }
    }

    fn replay(&mut self, event: ProcessEvent) {
        // An exec of a known entity names what changed; it may come before the baseline is done, as announcements do.
        let found = event.source == self.source && event.modified_fields.is_empty();
        self.baseline_done |= event.start_kind() == StartKind::Exec && found;
        let (kind, forked) = (event.event_type(), event.start_kind() == StartKind::Fork);
        let bit = event.reason.as_deref().map_or(0, suspicion::bit_of);
        let Some(mut record) = event.process else { return };
        let Some(entity) = EntityId::from_bytes(&record.entity_id) else { return };
        if kind == EventType::Modify && record.status.as_deref() == Some(DEAD) {
            return;
        }
        if kind == EventType::Stop && self.announcer.is_some() {
            self.memory.bury(&entity, event.time_us);
            return;
        }
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
        let former = self.memory.live_mut(&entity).filter(|_| kind != EventType::Start);
        let (former, known) = former.map_or((Traits::default(), None), |live| (live.traits, live.decoded()));
        if let Some(known) = known.filter(|_| kind == EventType::Modify) {
            record = known.followed_by(record);
        } else if forked {
            let parent = record.ppid.and_then(|ppid| self.memory.parent(ppid, record.start_time_us));
            record.parent_command_line = parent.and_then(|parent| parent.command_line);
        }
        self.memory.store(entity, &mut record, Traits { raised: former.raised | bit, ..former });
    }

    /// Whether a process with this pid is known to live.
    pub(crate) fn lives(&self, pid: u32) -> bool {
        self.memory.holder(pid).is_some()
    }

    fn deleted(&mut self, pid: u32, path: &str, time_us: i64, emit: Emit<'_>) {
        let Some(entity) = self.memory.holder(pid) else { return };
        let Some(live) = self.memory.live_mut(&entity).filter(|live| !live.ended) else { return };
        let traits = live.traits;
        let known = live.decoded().filter(|known| known.executable_path.as_deref() == Some(path));
        let Some(mut record) = known.filter(|known| known.deleted_executable == Some(false)) else { return };
        // What a sweep has read before this is older.
        live.noticed = self.sweep;
        self.latest_us = self.latest_us.max(time_us);
        self.now_us = self.latest_us;
        record.deleted_executable = Some(true);
        self.memory.store(entity, &mut record, traits);
        let modified_fields = vec!["deleted_executable".to_owned()];
        emit(ProcessEvent { modified_fields, ..self.event(EventType::Modify, record.clone()) });
        self.suspect(entity, record, traits.raised, emit);
    }

    /// The known process that an exact identity of the process `pid` means.
    pub(crate) fn meant_by(&self, exact: &EntityId, pid: u32) -> Option<EntityId> {
        self.memory.find(exact, pid)
    }

    /// Of a process that has ended meanwhile the hash is told as well; one that runs another program by now is left alone.
    fn hashed(&mut self, hashed: Hashed, emit: Emit<'_>) {
        if self.found.hashed(&hashed) {
            return;
        }
        let (traits, ended, record) = match self.memory.live_mut(&hashed.entity) {
            Some(live) => (Some(live.traits), live.ended, live.decoded()),
            None => (None, true, self.memory.buried(hashed.pid, &hashed.entity)),
        };
        let Some(mut record) = record.filter(|record| hashed.is_of(record)) else {
            self.counters.unclaimed = self.counters.unclaimed.saturating_add(1);
            return;
        };
        let mut modified_fields = Vec::new();
        if record.executable_hash != hashed.hash {
            modified_fields.push("executable_hash".to_owned());
        }
        if record.hash_status.as_deref() != Some(&hashed.status) {
            modified_fields.push("hash_status".to_owned());
        }
        if modified_fields.is_empty() {
            return;
        }
        hashed.fill(&mut record);
        match traits {
            Some(traits) => self.memory.store(hashed.entity, &mut record, traits),
            None => self.memory.amend(&mut record),
        }
        if ended {
            record.status = Some(DEAD.to_owned());
        }
        let time_us = hashed.time_us;
        emit(ProcessEvent { modified_fields, time_us, ..self.event(EventType::Modify, record) });
    }

    /// A stop and a change are known by what their process started with; whoever changes the command line puts it back.
    fn event(&self, kind: EventType, mut record: ProcessRecord) -> ProcessEvent {
        if matches!(kind, EventType::Stop | EventType::Modify) {
            abridge(&mut record);
        }
        let announcer = self.announcer.filter(|_| self.announcing);
        ProcessEvent {
            event_type: kind.into(),
            time_us: self.now_us,
            process: Some(record),
            source: announcer.unwrap_or(&self.source).to_owned(),
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
mod tests;
