//! What the tracker remembers: the living, and for a while the dead that may still be somebody's parent.
//!
//! Records are kept encoded (about 300 bytes instead of a kilobyte). Under pressure the dead go first, oldest first; after
//! that a new process is kept without its long fields. An identity is never forgotten while its process lives, or it would
//! be announced twice.

use std::collections::{HashMap, VecDeque};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;
use prost::Message;

use super::Encoded;
use crate::collector::Vitals;

/// Bytes that one entry costs beside its record: map slots, index and allocation headers.
const ENTRY_BYTES: usize = 192;

/// Bounds of the tracker's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records and entries together; 32 MiB hold about 60,000 processes.
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
    record: Encoded,
    vitals: Option<Vitals>,
}

impl Member {
    /// The record, with the latest vitals.
    #[must_use]
    pub fn record(&self) -> Option<ProcessRecord> {
        decode(&self.record, self.vitals)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) pid: u32,
    pub(super) start_us: Option<i64>,
    pub(super) record: Encoded,
    pub(super) vitals: Option<Vitals>,
    /// Sweep of this run in which it was last seen; 0: not in this run.
    pub(super) seen: u64,
    pub(super) raised: u8,
    pub(super) ended: bool,
    pub(super) slim: bool,
}

impl Live {
    pub(super) fn see(&mut self, sweep: u64, vitals: Option<Vitals>) {
        self.seen = sweep;
        if vitals.is_some() {
            self.vitals = vitals;
        }
    }

    pub(super) fn decoded(&self) -> Option<ProcessRecord> {
        decode(&self.record, self.vitals)
    }
}

struct Dead {
    entity: EntityId,
    start_us: Option<i64>,
    record: Encoded,
}

pub(super) struct Memory {
    pub(super) limits: Limits,
    pub(super) live: HashMap<EntityId, Live>,
    by_pid: HashMap<u32, EntityId>,
    dead: HashMap<u32, Dead>,
    burials: VecDeque<(i64, u32, EntityId)>,
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
        living.map(|live| Member { record: live.record.clone(), vitals: live.vitals }).collect()
    }

    /// Keeps the record of a new or changed process.
    pub(super) fn store(&mut self, entity: EntityId, record: &ProcessRecord, raised: u8) {
        let mut encoded = record.encode_to_vec();
        let former = self.live.get(&entity);
        let released = former.map_or(0, |live| cost(&live.record));
        let mut slim = former.is_some_and(|live| live.slim);
        self.bytes = self.bytes.saturating_sub(released);
        let (seen, ended) = former.map_or((0, false), |live| (live.seen, live.ended));
        self.make_room(encoded.len());
        if slim || self.bytes.saturating_add(encoded.len()) > self.limits.bytes {
            encoded = slimmed(record).encode_to_vec();
            self.slimmed = self.slimmed.saturating_add(u64::from(!slim));
            slim = true;
        }
        let record_bytes: Encoded = encoded.into();
        self.bytes = self.bytes.saturating_add(cost(&record_bytes));
        let (pid, start_us) = (record.pid, record.start_time_us);
        // The record is newer than the vitals of any scan before it.
        let live = Live { pid, start_us, record: record_bytes, vitals: None, seen, raised, ended, slim };
        self.live.insert(entity, live);
        self.by_pid.insert(pid, entity);
    }

    /// Moves a process to the dead.
    pub(super) fn bury(&mut self, entity: &EntityId, now_us: i64) -> Option<Live> {
        let live = self.live.remove(entity)?;
        if self.by_pid.get(&live.pid) == Some(entity) {
            self.by_pid.remove(&live.pid);
        }
        let dead = Dead { entity: *entity, start_us: live.start_us, record: live.record.clone() };
        if let Some(former) = self.dead.insert(live.pid, dead) {
            self.bytes = self.bytes.saturating_sub(cost(&former.record));
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
        self.dead.get(&ppid).filter(|dead| before(dead.start_us)).and_then(|dead| decode(&dead.record, None))
    }

    fn make_room(&mut self, wanted: usize) {
        while self.bytes.saturating_add(wanted) > self.limits.bytes && !self.burials.is_empty() {
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
            self.bytes = self.bytes.saturating_sub(cost(&dead.record));
        }
    }
}

fn cost(record: &Encoded) -> usize {
    record.len().saturating_add(ENTRY_BYTES)
}

fn decode(record: &Encoded, vitals: Option<Vitals>) -> Option<ProcessRecord> {
    let mut record = ProcessRecord::decode(record.as_ref()).ok()?;
    if let Some(vitals) = vitals {
        record.status = Some(vitals.status.to_owned());
        record.cpu_usage = vitals.cpu_usage.or(record.cpu_usage);
        record.memory_usage = vitals.memory_usage.or(record.memory_usage);
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
