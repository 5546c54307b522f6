//! What the tracker remembers: the living, and for a while the dead that may still be somebody's parent.
//!
//! Under pressure the dead go first, oldest first; after
//! that a new process is kept without its long fields. An identity is never forgotten while its process lives, or it would
//! be announced twice.

use std::collections::{HashMap, VecDeque};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;

use super::kept::{Kept, Parts, Shelf};
use crate::collector::{Image, Vitals};

/// Bytes that one entry costs beside its record: map slots, index and allocation headers.
const ENTRY_BYTES: usize = 192;

/// Bounds of the tracker's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records and entries together; 32 MiB hold about 70,000 processes.
    pub bytes: usize,
    /// How long a dead process is still known as a parent, in µs: a child that is found later has outlived several scans.
    pub dead_us: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 * 1024 * 1024, dead_us: 10 * 60 * 1_000_000 }
    }
}

/// A living process as it stands.
#[derive(Debug, Clone)]
pub struct Member {
    kept: Kept,
    latest: Option<Latest>,
}

impl Member {
    /// The record, with the latest vitals.
    #[must_use]
    pub fn record(&self) -> Option<ProcessRecord> {
        decode(&self.kept, self.latest)
    }
}

/// The vitals of a process whose identity is known.
#[derive(Debug, Clone, Copy)]
struct Latest {
    status: &'static str,
    cpu_usage: Option<f64>,
    memory_usage: Option<u64>,
}

/// What is remembered of the image that a process runs, beside its record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traits {
    /// The suspicions that were raised.
    pub(super) raised: u8,
    /// Which image it is.
    pub(super) image: Image,
}

#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) pid: u32,
    pub(super) start_us: Option<i64>,
    pub(super) kept: Kept,
    latest: Option<Latest>,
    /// Sweep of this run in which it was last seen; 0: not in this run.
    pub(super) seen: u64,
    pub(super) traits: Traits,
    pub(super) ended: bool,
    pub(super) slim: bool,
}

impl Live {
    pub(super) fn see(&mut self, sweep: u64, vitals: Option<Vitals>) {
        self.seen = sweep;
        if let Some(Vitals { status, cpu_usage, memory_usage, .. }) = vitals {
            self.latest = Some(Latest { status, cpu_usage, memory_usage });
        }
    }

    pub(super) fn decoded(&self) -> Option<ProcessRecord> {
        decode(&self.kept, self.latest)
    }
}

struct Dead {
    entity: EntityId,
    start_us: Option<i64>,
    kept: Kept,
}

pub(super) struct Memory {
    pub(super) limits: Limits,
    pub(super) live: HashMap<EntityId, Live>,
    by_pid: HashMap<u32, EntityId>,
    dead: HashMap<u32, Dead>,
    burials: VecDeque<(i64, u32, EntityId)>,
    shelf: Shelf,
    /// Without the shelf's.
    bytes: usize,
    pub(super) evicted: u64,
    pub(super) slimmed: u64,
}

impl Memory {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            live: HashMap::new(),
            by_pid: HashMap::new(),
            dead: HashMap::new(),
            burials: VecDeque::new(),
            shelf: Shelf::default(),
            bytes: 0,
            evicted: 0,
            slimmed: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn live_mut(&mut self, entity: &EntityId) -> Option<&mut Live> {
        self.live.get_mut(entity)
    }

    /// Who is known to live under this pid.
    pub(super) fn holder(&self, pid: u32) -> Option<EntityId> {
        self.by_pid.get(&pid).copied()
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let living = self.live.values().filter(|live| !live.ended);
        living.map(|live| Member { kept: live.kept.clone(), latest: live.latest }).collect()
    }

    /// Keeps the record of a new or changed process; it is left as it was.
    pub(super) fn store(&mut self, entity: EntityId, record: &mut ProcessRecord, traits: Traits) {
        let former = self.live.remove(&entity);
        if let Some(former) = &former {
            self.release(&former.kept);
        }
        let (mut slim, seen, ended) = former.map_or((false, 0, false), |live| (live.slim, live.seen, live.ended));
        let mut parts = Parts::of(record);
        self.make_room(self.shelf.wanted(&parts));
        if slim || self.bytes().saturating_add(self.shelf.wanted(&parts)) > self.limits.bytes {
            parts = Parts::of(&mut slimmed(record));
            self.slimmed = self.slimmed.saturating_add(u64::from(!slim));
            slim = true;
        }
        let kept = self.shelf.keep(parts);
        self.bytes = self.bytes.saturating_add(cost(&kept));
        let (pid, start_us) = (record.pid, record.start_time_us);
        // The record is newer than the vitals of any scan before it.
        let live = Live { pid, start_us, kept, latest: None, seen, traits, ended, slim };
        self.live.insert(entity, live);
        self.by_pid.insert(pid, entity);
    }

    /// Moves a process to the dead.
    pub(super) fn bury(&mut self, entity: &EntityId, now_us: i64) -> Option<Live> {
        let live = self.live.remove(entity)?;
        if self.by_pid.get(&live.pid) == Some(entity) {
            self.by_pid.remove(&live.pid);
        }
        let dead = Dead { entity: *entity, start_us: live.start_us, kept: live.kept.clone() };
        if let Some(former) = self.dead.insert(live.pid, dead) {
            self.release(&former.kept);
        }
        self.burials.push_back((now_us, live.pid, *entity));
        Some(live)
    }

    /// Forgets the dead whose time is over.
    pub(super) fn expire(&mut self, now_us: i64) {
        while let Some((at, ..)) = self.burials.front()
            && at.saturating_add(self.limits.dead_us) < now_us
        {
            self.forget_oldest();
        }
    }

    /// The living that `sweep` did not meet, by pid.
    pub(super) fn unseen(&self, sweep: u64) -> Vec<EntityId> {
        let mut unseen: Vec<(u32, EntityId)> = self
            .live
            .iter()
            .filter(|(_, live)| live.seen != sweep)
            .map(|(entity, live)| (live.pid, *entity))
            .collect();
        unseen.sort_unstable();
        unseen.into_iter().map(|(_, entity)| entity).collect()
    }

    /// The process that was `ppid` when a child started at `child_start_us`: a later holder of the pid is not its parent.
    pub(super) fn parent(&self, ppid: u32, child_start_us: Option<i64>) -> Option<ProcessRecord> {
        let before = |start: Option<i64>| start.zip(child_start_us).is_none_or(|(parent, child)| parent <= child);
        let living = self.by_pid.get(&ppid).and_then(|entity| self.live.get(entity));
        if let Some(live) = living.filter(|live| before(live.start_us)) {
            return live.decoded();
        }
        self.dead.get(&ppid).filter(|dead| before(dead.start_us)).and_then(|dead| decode(&dead.kept, None))
    }

    fn make_room(&mut self, wanted: usize) {
        while self.bytes().saturating_add(wanted) > self.limits.bytes && !self.burials.is_empty() {
            self.forget_oldest();
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, pid, entity)) = self.burials.pop_front() else { return };
        // The pid may have died again since; that burial stands further back in the queue.
        if self.dead.get(&pid).is_some_and(|dead| dead.entity == entity)
            && let Some(dead) = self.dead.remove(&pid)
        {
            self.release(&dead.kept);
        }
    }

    fn release(&mut self, kept: &Kept) {
        self.bytes = self.bytes.saturating_sub(cost(kept));
        self.shelf.release(kept);
    }

    const fn bytes(&self) -> usize {
        self.bytes.saturating_add(self.shelf.bytes())
    }
}

fn cost(kept: &Kept) -> usize {
    kept.own_bytes().saturating_add(ENTRY_BYTES)
}

fn decode(kept: &Kept, latest: Option<Latest>) -> Option<ProcessRecord> {
    let mut record = kept.decoded()?;
    if let Some(latest) = latest {
        record.status = Some(latest.status.to_owned());
        record.cpu_usage = latest.cpu_usage.or(record.cpu_usage);
        record.memory_usage = latest.memory_usage.or(record.memory_usage);
    }
    Some(record)
}

/// What is kept of a process when there is no room for all of it.
fn slimmed(record: &ProcessRecord) -> ProcessRecord {
    let mut slim = ProcessRecord {
        command_line: None,
        arg_lengths: Vec::new(),
        cwd: None,
        cgroup: None,
        container_id: None,
        parent_command_line: None,
        parent_executable_path: None,
        ..record.clone()
    };
    for field in ["command_line", "cwd", "cgroup", "container_id", "parent_command_line", "parent_executable_path"] {
        crate::text::mark(&mut slim, field);
    }
    slim
}
