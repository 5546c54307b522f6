//! The processes that live now, by the latest event of each, until their end turns each into a lifetime.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{ProcessRecord, Sequence};
use datafusion::arrow::error::ArrowError;
use foldhash::fast::RandomState;
use prost::Message as _;
use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::held::Held;
use super::lifetimes::{Ended, Lifetimes, PastEnd, Seen};
use super::living::{Living, LivingRow};
use super::state::{LIFETIMES, Position, State};
use super::value::Record;
use super::{Store, StoreError};
use crate::ingest::{End, Fate, LiveChange};

/// Live processes that are kept: four times Linux's classic pid limit. A host above it loses rows of `processes`, never
/// events.
const LIVE_PROCESSES: usize = 131_072;
/// Ends that are remembered, so that an enumeration that is older than them does not bring the dead back, and nobody ends
/// twice.
pub(super) const ENDS: usize = 16_384;

/// A live process as `state.redb` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lifetime {
    collector: String,
    at: Position,
    time_us: i64,
    /// A `ProcessRecord` in protobuf, with the fields of [`Seen`] behind its own.
    pub(super) record: Vec<u8>,
}

impl Record for Lifetime {
    const NAME: &'static str = "process_lifetimes_open";
}

#[derive(Debug)]
struct Alive {
    collector: Arc<str>,
    at: Sequence,
    time_us: i64,
    /// Shared with whoever reads at the moment.
    record: Arc<ProcessRecord>,
    seen: Seen,
}

/// The ends that are remembered, oldest first.
#[derive(Debug, Default)]
struct Ends {
    order: VecDeque<EntityId>,
    of: HashMap<EntityId, (Arc<str>, Sequence), RandomState>,
}

impl Ends {
    /// False when it was known.
    fn insert(&mut self, entity: EntityId, collector: &Arc<str>, at: Sequence) -> bool {
        if self.of.contains_key(&entity) {
            return false;
        }
        if self.order.len() >= ENDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.of.remove(&oldest);
        }
        self.order.push_back(entity);
        self.of.insert(entity, (Arc::clone(collector), at));
        true
    }
}

/// The table of live processes and what of it has changed since it was last written.
#[derive(Debug)]
pub(super) struct Live {
    room: usize,
    processes: HashMap<EntityId, Alive, RandomState>,
    dirty: HashSet<EntityId, RandomState>,
    ends: Ends,
    /// Of the processes, those that are known to live no more and whose end was not told yet. With the position behind which it
    /// will not be told any more, where that is known.
    gone: HashMap<EntityId, Option<Sequence>, RandomState>,
    shed: u64,
    /// Collectors of which processes found no room since they last enumerated them.
    lacking: HashSet<Arc<str>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::with_room(LIVE_PROCESSES)
    }
}

/// What a transaction has to write: the state of an entity, or `None` when it is gone.
pub(super) type Changes = Vec<(EntityId, Option<Lifetime>)>;

impl Live {
    pub(super) fn with_room(room: usize) -> Self {
        let (processes, dirty, gone) = (HashMap::default(), HashSet::default(), HashMap::default());
        Self { room, processes, dirty, ends: Ends::default(), gone, shed: 0, lacking: HashSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.processes.len().saturating_sub(self.gone.len())
    }

    pub(super) const fn shed(&self) -> u64 {
        self.shed
    }

    /// Takes in what a run of events says; who ended goes into `lifetimes`.
    pub(super) fn apply(&mut self, collector: &Arc<str>, changes: Vec<LiveChange>, lifetimes: &mut Lifetimes) {
        for LiveChange { at, time_us, entity, mut process, fate } in changes {
            match fate {
                Fate::Lives => self.put(collector, entity, at, time_us, process),
                Fate::Changed => {
                    if let Some(known) = self.processes.get(&entity) {
                        let told = Arc::unwrap_or_clone(process);
                        process = Arc::new(ProcessRecord::clone(&known.record).followed_by(told));
                    }
                    self.put(collector, entity, at, time_us, process);
                }
                Fate::Ended(end) => {
                    let ended =
                        Ended { collector: Arc::clone(collector), at, time_us, end, process, seen: Seen::default() };
                    self.end(entity, ended, lifetimes);
                }
                Fate::Past => {
                    if !lifetimes.amend(entity, &process) && self.processes.contains_key(&entity) {
                        self.gone.entry(entity).or_default();
                    }
                }
            }
        }
    }

    fn put(&mut self, collector: &Arc<str>, entity: EntityId, at: Sequence, time_us: i64, record: Arc<ProcessRecord>) {
        let known = self.processes.get_mut(&entity).map(|known| std::mem::take(&mut known.seen));
        if self.processes.len() >= self.room && known.is_none() {
            self.shed = self.shed.saturating_add(1);
            self.lacking.insert(Arc::clone(collector));
            return;
        }
        if self.gone.get(&entity).is_some_and(|until| until.is_none_or(|until| at > until)) {
            self.gone.remove(&entity);
        }
        let seen = known.unwrap_or_default().and(&record, time_us);
        self.processes.insert(entity, Alive { collector: Arc::clone(collector), at, time_us, record, seen });
        self.dirty.insert(entity);
    }

    /// One end for each entity, whatever is told: a second one can only correct a first that nobody had watched.
    fn end(&mut self, entity: EntityId, mut ended: Ended, lifetimes: &mut Lifetimes) {
        self.gone.remove(&entity);
        let alive = self.processes.remove(&entity);
        if alive.is_some() {
            self.dirty.insert(entity);
        }
        if !self.ends.insert(entity, &ended.collector, ended.at) {
            lifetimes.correct(entity, ended.end, ended.time_us);
            return;
        }
        let seen = alive.as_ref().map(|alive| alive.seen.clone()).unwrap_or_default();
        ended.seen = seen.and(&ended.process, ended.time_us);
        if let Some(alive) = alive {
            let known = Arc::unwrap_or_clone(alive.record);
            ended.process = Arc::new(known.followed_by(Arc::unwrap_or_clone(ended.process)));
        }
        lifetimes.push(entity, ended);
    }

    /// Takes in an enumeration of `collector`'s processes that reflects its stream up to `as_of`; what later events said
    /// stands. Who is not in it has ended, and its end is still to come where the stream is behind `as_of`.
    fn reset(&mut self, collector: &str, records: Vec<ProcessRecord>, as_of: Sequence) {
        let name: Arc<str> = collector.into();
        self.lacking.remove(collector);
        let mut stale: HashSet<EntityId, RandomState> = self
            .processes
            .iter()
            .filter(|(_, alive)| alive.collector.as_ref() == collector && alive.at <= as_of)
            .map(|(entity, _)| *entity)
            .collect();
        let mut listed = Vec::with_capacity(records.len());
        for record in records {
            let Some(entity) = EntityId::from_bytes(&record.entity_id) else { continue };
            let ended = self.ends.of.get(&entity).is_some_and(|(of, at)| of.as_ref() == collector && *at > as_of);
            if !ended && (stale.remove(&entity) || !self.processes.contains_key(&entity)) {
                listed.push((entity, record));
            }
        }
        // Whoever is gone makes room before anybody takes it.
        for entity in stale {
            self.gone.insert(entity, Some(as_of));
        }
        for (entity, record) in listed {
            let time_us = record.start_time_us.unwrap_or_default();
            self.gone.remove(&entity);
            self.put(&name, entity, as_of, time_us, Arc::new(record));
        }
    }

    /// Ends those whose end will not be told any more, now that the stream has been seen up to `seen`.
    fn settle(&mut self, collector: &str, seen: Sequence, now_us: i64, lifetimes: &mut Lifetimes) {
        let over = |(entity, until): (&EntityId, &Option<Sequence>)| {
            let of = self.processes.get(entity)?;
            (of.collector.as_ref() == collector && until.is_some_and(|until| until <= seen)).then_some(*entity)
        };
        let over: Vec<EntityId> = self.gone.iter().filter_map(over).collect();
        for entity in over {
            let Some(alive) = self.processes.get(&entity) else { continue };
            let ended = Ended {
                collector: Arc::clone(&alive.collector),
                at: alive.at,
                time_us: now_us.max(alive.time_us),
                end: End { observed: Some(false), ..End::default() },
                process: Arc::clone(&alive.record),
                seen: Seen::default(),
            };
            self.end(entity, ended, lifetimes);
        }
    }

    pub(super) fn living(&self) -> Living {
        let lives = self.processes.iter().filter(|(entity, _)| !self.gone.contains_key(entity));
        let row = |alive: &Alive| LivingRow {
            collector: Arc::clone(&alive.collector),
            at: alive.at,
            time_us: alive.time_us,
            record: Arc::clone(&alive.record),
            seen: alive.seen.clone(),
        };
        Living(lives.map(|(_, alive)| row(alive)).collect())
    }

    /// What has changed since the last call, as it is now.
    pub(super) fn changes(&mut self) -> Changes {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|entity| (entity, self.processes.get(&entity).map(Alive::to_lifetime))).collect()
    }

    /// The changes were not written.
    pub(super) fn still_dirty(&mut self, changes: &Changes) {
        self.dirty.extend(changes.iter().map(|(entity, _)| *entity));
    }

    /// Ends that are in files already.
    pub(super) fn remember(&mut self, ends: Vec<PastEnd>) {
        for (entity, collector, at) in ends {
            self.ends.insert(entity, &collector, at);
        }
    }

    pub(super) fn load(state: &State) -> Result<Self, StoreError> {
        let mut live = Self::default();
        let transaction = state.read()?;
        for entry in transaction.open_table(LIFETIMES)?.iter()? {
            let (entity, lifetime) = entry?;
            let lifetime = lifetime.value().decode()?;
            let unreadable = |error: prost::DecodeError| StoreError::CorruptState {
                table: Lifetime::NAME.to_owned(),
                what: error.to_string(),
            };
            let record = ProcessRecord::decode(lifetime.record.as_slice()).map_err(unreadable)?;
            let seen = Seen::decode(lifetime.record.as_slice()).map_err(unreadable)?;
            if let Some(entity) = EntityId::from_bytes(&entity.value().to_be_bytes()) {
                let seen = seen.and(&record, lifetime.time_us);
                let (collector, at) = (lifetime.collector.into(), lifetime.at.into());
                let alive = Alive { collector, at, time_us: lifetime.time_us, record: Arc::new(record), seen };
                live.processes.insert(entity, alive);
            }
        }
        Ok(live)
    }
}

impl Alive {
    fn to_lifetime(&self) -> Lifetime {
        let mut record = self.record.encode_to_vec();
        record.extend(self.seen.encode_to_vec());
        Lifetime { collector: self.collector.to_string(), at: self.at.into(), time_us: self.time_us, record }
    }
}

pub(super) fn write(transaction: &WriteTransaction, changes: &Changes) -> Result<(), StoreError> {
    let mut table = transaction.open_table(LIFETIMES)?;
    for (entity, lifetime) in changes {
        let key = u128::from_be_bytes(*entity.as_bytes());
        match lifetime {
            Some(lifetime) => drop(table.insert(key, lifetime.encode()?)?),
            None => drop(table.remove(key)?),
        }
    }
    Ok(())
}

impl Held {
    /// Takes in what events of `collector` up to `last` say about its processes.
    pub(super) fn live_through(
        &mut self,
        collector: &Arc<str>,
        changes: Vec<LiveChange>,
        last: Sequence,
    ) -> Result<(), ArrowError> {
        let lifetimes = &mut self.open.lifetimes;
        self.live.apply(collector, changes, lifetimes);
        self.live.settle(collector, last, super::audit::now_us(), lifetimes);
        lifetimes.compact()
    }
}

impl Store {
    /// Replaces what is known of `collector`'s live processes by its own enumeration, which reflects its stream up to
    /// `as_of`. Events after `as_of` that were appended already keep their effect.
    ///
    /// # Errors
    /// [`StoreError::LockPoisoned`] when the store failed before, [`StoreError::Columns`] when Arrow refuses the columns.
    pub fn reset_live(&self, collector: &str, records: Vec<ProcessRecord>, as_of: Sequence) -> Result<(), StoreError> {
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let shed_before = held.live.shed();
        held.live.reset(collector, records, as_of);
        held.note_shed(collector, as_of, shed_before);
        if let Some(seen) = held.seen.get(collector).copied() {
            held.live_through(&collector.into(), Vec::new(), seen)?;
        }
        Ok(())
    }

    /// Whether processes live that the table had no room for.
    pub(crate) fn lacks_processes(&self) -> bool {
        !self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner).live.lacking.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pid: u32) -> ProcessRecord {
        let entity_id = EntityId::derive("boot", pid, 1).as_bytes().to_vec();
        ProcessRecord { entity_id, pid, name: format!("p{pid}"), ..ProcessRecord::default() }
    }

    fn change(number: u64, pid: u32, fate: Fate) -> LiveChange {
        let entity = EntityId::derive("boot", pid, 1);
        let time_us = i64::try_from(number).unwrap();
        LiveChange { at: Sequence::new(1, number), time_us, entity, process: Arc::new(record(pid)), fate }
    }

    fn ended(observed: bool) -> Fate {
        Fate::Ended(End { exit_code: Some(3), runtime_ms: Some(9), observed: Some(observed) })
    }

    /// (pid, stop, whether it was watched, exit code) of every lifetime, by pid.
    fn told(lifetimes: &Lifetimes) -> Vec<(u32, i64, Option<bool>, Option<i32>)> {
        let one = |row: &Ended| (row.process.pid, row.time_us, row.end.observed, row.end.exit_code);
        let mut rows: Vec<_> = lifetimes.rows.iter().map(one).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut live = Live::default();
        let mut start = change(1, 1, Fate::Lives);
        let started = ProcessRecord { command_line: Some("p1 x".into()), ..record(1) };
        start.process = Arc::new(started.clone());
        let mut renamed = change(2, 1, Fate::Changed);
        renamed.process = Arc::new(ProcessRecord { name: "q".into(), ..record(1) });
        live.apply(&"procmond".into(), vec![start, renamed], &mut Lifetimes::default());
        let records: Vec<_> = live.processes.values().map(|alive| ProcessRecord::clone(&alive.record)).collect();
        assert_eq!(records, [ProcessRecord { name: "q".into(), ..started }]);
    }

    #[test]
    fn an_enumeration_neither_forgets_the_newborn_nor_revives_the_dead() {
        let mut live = Live::default();
        let collector: Arc<str> = "procmond".into();
        let mut lifetimes = Lifetimes::default();
        let lives = |number, pid| change(number, pid, Fate::Lives);
        let changes = vec![lives(1, 1), lives(2, 2), lives(8, 3), change(9, 2, ended(true))];
        live.apply(&collector, changes, &mut lifetimes);
        // As of position 5, process 2 lived, 4 was known to the tracker only, and 1 was gone.
        live.reset("procmond", vec![record(2), record(4)], Sequence::new(1, 5));
        let mut pids: Vec<u32> = live.living().0.iter().map(|alive| alive.record.pid).collect();
        pids.sort_unstable();
        assert_eq!((pids, live.len()), (vec![3, 4], 2));
        live.settle("procmond", Sequence::new(1, 9), 70, &mut lifetimes);
        assert_eq!(told(&lifetimes), [(1, 70, Some(false), None), (2, 9, Some(true), Some(3))]);
    }

    #[test]
    fn who_is_gone_waits_for_its_end_as_long_as_it_can_come() {
        let mut live = Live::default();
        let collector: Arc<str> = "procmond".into();
        let mut lifetimes = Lifetimes::default();
        live.apply(&collector, vec![change(1, 1, Fate::Lives), change(2, 2, Fate::Lives)], &mut lifetimes);
        // The agent is behind: it has seen up to 2, and both have ended before 5.
        live.reset("procmond", Vec::new(), Sequence::new(1, 5));
        live.settle("procmond", Sequence::new(1, 2), 70, &mut lifetimes);
        assert_eq!((live.len(), told(&lifetimes)), (0, Vec::new()));
        live.apply(&collector, vec![change(4, 1, ended(true))], &mut lifetimes);
        live.settle("procmond", Sequence::new(1, 5), 80, &mut lifetimes);
        assert_eq!(told(&lifetimes), [(1, 4, Some(true), Some(3)), (2, 80, Some(false), None)]);
        assert_eq!(live.changes().iter().filter(|(_, state)| state.is_none()).count(), 2);
    }

    #[test]
    fn an_entity_has_one_end_whatever_is_told() {
        let mut live = Live::default();
        let collector: Arc<str> = "procmond".into();
        let mut lifetimes = Lifetimes::default();
        let told_twice = vec![
            change(1, 1, Fate::Lives),
            change(2, 1, ended(false)),
            change(3, 1, ended(true)),
            change(4, 1, ended(false)),
            change(5, 2, ended(true)),
            change(6, 2, ended(true)),
        ];
        live.apply(&collector, told_twice, &mut lifetimes);
        assert_eq!(told(&lifetimes), [(1, 3, Some(true), Some(3)), (2, 5, Some(true), Some(3))]);
    }

    #[test]
    fn peaks_survive_a_restart_and_a_hash_that_comes_late_is_taken() {
        let mut live = Live::default();
        let collector: Arc<str> = "procmond".into();
        let mut lifetimes = Lifetimes::default();
        let sampled = |number, cpu, memory| {
            let mut change = change(number, 1, Fate::Changed);
            let process = Arc::make_mut(&mut change.process);
            (process.cpu_usage, process.memory_usage) = (Some(cpu), Some(memory));
            change
        };
        live.apply(&collector, vec![sampled(1, 50.0, 10), sampled(2, 5.0, 90)], &mut lifetimes);
        let stored = live.processes.values().map(Alive::to_lifetime).next().unwrap();
        let seen = Seen::decode(stored.record.as_slice()).unwrap();
        let record = ProcessRecord::decode(stored.record.as_slice()).unwrap();
        assert_eq!((seen.max_cpu_usage, seen.max_memory_usage, seen.first_us), (Some(50.0), Some(90), Some(1)));
        assert_eq!((record.cpu_usage, record.memory_usage), (Some(5.0), Some(90)));
        live.apply(&collector, vec![change(3, 1, ended(true))], &mut lifetimes);
        let mut late = change(4, 1, Fate::Past);
        Arc::make_mut(&mut late.process).executable_hash = Some("00".into());
        live.apply(&collector, vec![late], &mut lifetimes);
        let row = &lifetimes.rows[0];
        assert_eq!((row.seen.max_cpu_usage, row.process.executable_hash.as_deref()), (Some(50.0), Some("00")));
    }
}
