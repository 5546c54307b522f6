//! What the tracker remembers: the living, and for a while the dead that may still be somebody's parent.
//!
//! Under pressure the dead go first, oldest first; after that the largest records lose their long fields, so that a flood of
//! them does not cost small ones anything. An identity is never forgotten while its process lives, or it would
//! be announced twice.

use std::collections::{BTreeSet, HashMap, VecDeque};

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{Identity, ProcessRecord};

use super::kept::{Kept, Parts, Shelf};
use crate::collector::{Image, Vitals};

/// Bytes that one entry costs beside its record: map slots, index and allocation headers.
const ENTRY_BYTES: usize = 192;

/// Bytes of the dead's records, each with all that it shares with others: three times what [`DEAD`] ordinary ones have.
const DEAD_BYTES: usize = 4 * 1024 * 1024;

/// Bytes above which a living process's record may have to lose its long fields; an ordinary one has less than one kilobyte.
const LARGE_BYTES: usize = 1024;

/// Dead processes that are remembered: about 1 MiB, and at two thousand ends per second still the last second, in which
/// their children are announced.
const DEAD: usize = 2048;

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
    /// Not a number: not known. A word less for each process, as in the next one.
    cpu_usage: f64,
    /// The largest: not known.
    memory_usage: u64,
}

impl Latest {
    fn of(Vitals { status, cpu_usage, memory_usage, .. }: Vitals) -> Self {
        Self { status, cpu_usage: cpu_usage.unwrap_or(f64::NAN), memory_usage: memory_usage.unwrap_or(u64::MAX) }
    }

    fn cpu_usage(self) -> Option<f64> {
        Some(self.cpu_usage).filter(|usage| !usage.is_nan())
    }

    fn memory_usage(self) -> Option<u64> {
        Some(self.memory_usage).filter(|bytes| *bytes < u64::MAX)
    }
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
    pub(super) seen: u32,
    pub(super) traits: Traits,
    /// Sweep before whose end it was last announced.
    pub(super) noticed: u32,
    /// When the sweep began that told it last; 0: none did.
    pub(super) found_us: i64,
    pub(super) ended: bool,
    pub(super) slim: bool,
    /// Its start was estimated.
    pub(super) estimated: bool,
}

impl Live {
    pub(super) fn see(&mut self, sweep: u32, vitals: Option<Vitals>) {
        self.seen = sweep;
        if let Some(vitals) = vitals {
            self.latest = Some(Latest::of(vitals));
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
    /// Boxed: up to half of a table's slots are empty, and while it grows there are two of it.
    pub(super) live: HashMap<EntityId, Box<Live>>,
    by_pid: HashMap<u32, EntityId>,
    dead: HashMap<u32, Dead>,
    /// Of the dead, as [`DEAD_BYTES`] counts them.
    dead_bytes: usize,
    /// The living with large records that could be smaller.
    large: BTreeSet<(usize, EntityId)>,
    burials: VecDeque<(i64, u32, EntityId)>,
    /// Exact identities of processes that were announced under estimated ones.
    aliases: HashMap<u32, EntityId>,
    shelf: Shelf,
    /// Without the shelf's.
    bytes: usize,
    pub(super) evicted: u64,
    pub(super) slimmed: u64,
    /// Where children are announced with their parents, forgetting a dead one costs nothing.
    pub(super) count_evictions: bool,
}

impl Memory {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            live: HashMap::new(),
            by_pid: HashMap::new(),
            dead: HashMap::new(),
            dead_bytes: 0,
            large: BTreeSet::new(),
            burials: VecDeque::new(),
            aliases: HashMap::new(),
            shelf: Shelf::default(),
            bytes: 0,
            evicted: 0,
            slimmed: 0,
            count_evictions: true,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn live_mut(&mut self, entity: &EntityId) -> Option<&mut Live> {
        self.live.get_mut(entity).map(Box::as_mut)
    }

    /// The known process that a look at `pid` means by `entity`.
    pub(super) fn find(&self, entity: &EntityId, pid: u32) -> Option<EntityId> {
        if self.live.contains_key(entity) {
            return Some(*entity);
        }
        self.aliases.get(&pid).filter(|exact| *exact == entity).and_then(|_| self.holder(pid))
    }

    /// From here on `exact` under this pid means its present holder.
    pub(super) fn alias(&mut self, pid: u32, exact: EntityId) {
        self.aliases.insert(pid, exact);
    }

    pub(super) fn see(&mut self, entity: &EntityId, sweep: u32, vitals: Option<Vitals>) {
        if let Some(live) = self.live.get_mut(entity) {
            live.see(sweep, vitals);
        }
    }

    /// Whether this was the last one that ended under its pid.
    pub(super) fn has_buried(&self, pid: u32, entity: &EntityId) -> bool {
        self.dead.get(&pid).is_some_and(|dead| dead.entity == *entity)
    }

    /// The last one that ended under this pid, if it is this one.
    pub(super) fn buried(&self, pid: u32, entity: &EntityId) -> Option<ProcessRecord> {
        self.dead.get(&pid).filter(|dead| dead.entity == *entity).and_then(|dead| decode(&dead.kept, None))
    }

    /// Keeps what became known of the last one that ended under this pid; the record is left as it was.
    pub(super) fn amend(&mut self, record: &mut ProcessRecord) {
        let Some(dead) = self.dead.get_mut(&record.pid) else { return };
        let kept = self.shelf.keep(Parts::of(record));
        self.bytes = self.bytes.saturating_add(cost(&kept));
        let added = kept.bytes();
        let former = std::mem::replace(&mut dead.kept, kept);
        self.dead_bytes = self.dead_bytes.saturating_add(added).saturating_sub(former.bytes());
        self.release(&former);
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
        let former = self.take(&entity);
        if let Some(former) = &former {
            self.release(&former.kept);
        }
        let was_slim = former.as_ref().is_some_and(|live| live.slim);
        // A new program is read in full.
        let mut slim = was_slim && record.truncated.iter().any(|field| field == SLIM_MARK);
        let (seen, noticed, found_us, ended) =
            former.map_or((0, 0, 0, false), |live| (live.seen, live.noticed, live.found_us, live.ended));
        let mut parts = Parts::of(record);
        self.make_room(&parts);
        if slim || self.is_short_of(&parts) {
            parts = Parts::of(&mut slimmed(record));
            self.slimmed = self.slimmed.saturating_add(u64::from(!was_slim));
            slim = true;
        }
        let kept = self.shelf.keep(parts);
        self.bytes = self.bytes.saturating_add(cost(&kept));
        let (pid, start_us) = (record.pid, record.start_time_us);
        // The record is newer than the vitals of any scan before it.
        let estimated = record.identity() == Identity::Estimated;
        let live = Live { pid, start_us, kept, latest: None, seen, traits, noticed, found_us, ended, slim, estimated };
        self.put(entity, live);
        self.by_pid.insert(pid, entity);
    }

    fn put(&mut self, entity: EntityId, live: Live) {
        if !live.slim && live.kept.bytes() > LARGE_BYTES {
            self.large.insert((live.kept.bytes(), entity));
        }
        self.live.insert(entity, Box::new(live));
    }

    fn take(&mut self, entity: &EntityId) -> Option<Live> {
        let live = self.live.remove(entity)?;
        self.large.remove(&(live.kept.bytes(), *entity));
        Some(*live)
    }

    /// Moves a process to the dead.
    pub(super) fn bury(&mut self, entity: &EntityId, now_us: i64) -> Option<Live> {
        let live = self.take(entity)?;
        if self.by_pid.get(&live.pid) == Some(entity) {
            self.by_pid.remove(&live.pid);
            self.aliases.remove(&live.pid);
        }
        let dead = Dead { entity: *entity, start_us: live.start_us, kept: live.kept.clone() };
        self.dead_bytes = self.dead_bytes.saturating_add(live.kept.bytes());
        if let Some(former) = self.dead.insert(live.pid, dead) {
            self.forget(&former.kept);
        }
        self.burials.push_back((now_us, live.pid, *entity));
        while self.burials.len() > DEAD || (self.dead_bytes > DEAD_BYTES && !self.burials.is_empty()) {
            self.forget_oldest();
            self.evict();
        }
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
    pub(super) fn unseen(&self, sweep: u32) -> Vec<EntityId> {
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

    fn make_room(&mut self, parts: &Parts) {
        while self.is_short_of(parts) && !self.burials.is_empty() {
            self.forget_oldest();
            self.evict();
        }
        while self.is_short_of(parts)
            && let Some((bytes, largest)) = self.large.last().copied()
            && bytes > parts.bytes()
        {
            self.slim(&largest);
        }
    }

    fn is_short_of(&self, parts: &Parts) -> bool {
        self.bytes().saturating_add(self.shelf.wanted(parts)) > self.limits.bytes
    }

    /// Takes the long fields from a living process.
    fn slim(&mut self, entity: &EntityId) {
        let Some(mut live) = self.take(entity) else { return };
        if let Some(record) = live.kept.decoded() {
            self.release(&live.kept);
            live.kept = self.shelf.keep(Parts::of(&mut slimmed(&record)));
            self.bytes = self.bytes.saturating_add(cost(&live.kept));
        }
        live.slim = true;
        self.slimmed = self.slimmed.saturating_add(1);
        self.put(*entity, live);
    }

    fn evict(&mut self) {
        self.evicted = self.evicted.saturating_add(u64::from(self.count_evictions));
    }

    fn forget_oldest(&mut self) {
        let Some((_, pid, entity)) = self.burials.pop_front() else { return };
        // The pid may have died again since; that burial stands further back in the queue.
        if self.dead.get(&pid).is_some_and(|dead| dead.entity == entity)
            && let Some(dead) = self.dead.remove(&pid)
        {
            self.forget(&dead.kept);
        }
    }

    fn forget(&mut self, kept: &Kept) {
        self.dead_bytes = self.dead_bytes.saturating_sub(kept.bytes());
        self.release(kept);
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
        record.cpu_usage = latest.cpu_usage().or(record.cpu_usage);
        record.memory_usage = latest.memory_usage().or(record.memory_usage);
    }
    Some(record)
}

/// What tells a record that was slimmed: no source cuts this field.
const SLIM_MARK: &str = "container_id";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(pid: u32) -> EntityId {
        EntityId::derive("boot", pid, 1)
    }

    fn record(pid: u32, line: usize) -> ProcessRecord {
        let entity_id = entity(pid).as_bytes().to_vec();
        ProcessRecord { entity_id, pid, command_line: Some("x".repeat(line)), ..Default::default() }
    }

    #[test]
    fn the_dead_are_bounded_by_bytes() {
        let mut memory = Memory::new(Limits::default());
        for pid in 0..1000 {
            memory.store(entity(pid), &mut record(pid, 32 * 1024), Traits::default());
            memory.bury(&entity(pid), 1);
            assert!(memory.dead_bytes <= DEAD_BYTES);
        }
        assert!(memory.has_buried(999, &entity(999)) && !memory.has_buried(0, &entity(0)));
        memory.expire(i64::MAX);
        assert_eq!((memory.dead_bytes, memory.bytes(), memory.large.len()), (0, 0, 0));
    }

    #[test]
    fn a_flood_of_large_records_loses_its_own_long_fields_and_a_new_program_has_them_again() {
        let mut memory = Memory::new(Limits { bytes: 400 * 1024, ..Limits::default() });
        for pid in 0..40 {
            memory.store(entity(pid), &mut record(pid, 16 * 1024), Traits::default());
        }
        for pid in 100..200 {
            memory.store(entity(pid), &mut record(pid, 100), Traits::default());
        }
        assert!(memory.bytes() <= memory.limits.bytes);
        assert!((100..200).all(|pid| !memory.live[&entity(pid)].slim), "small ones pay for the large");
        let slim = (0..40).find(|pid| memory.live[&entity(*pid)].slim).unwrap();
        memory.store(entity(slim), &mut record(slim, 100), Traits::default());
        assert!(!memory.live[&entity(slim)].slim);
    }
}
