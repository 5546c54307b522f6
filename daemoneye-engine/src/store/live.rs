//! The processes that live now, by the latest event of each.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{ProcessRecord, Sequence};
use datafusion::arrow::array::RecordBatch;
use prost::Message as _;
use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::state::{LIFETIMES, Position, State};
use super::value::Record;
use super::{Store, StoreError};
use crate::ingest::{LiveChange, processes_batch};

/// Live processes that are kept: four times Linux's classic pid limit. A host above it loses rows of `processes`, never
/// events.
const LIVE_PROCESSES: usize = 131_072;
/// Ends that are remembered, so that an enumeration that is older than them does not bring the dead back.
const ENDS: usize = 16_384;

/// A live process as `state.redb` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lifetime {
    collector: String,
    at: Position,
    time_us: i64,
    /// A `ProcessRecord` in protobuf.
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
    record: Box<ProcessRecord>,
}

/// The table of live processes and what of it has changed since it was last written.
#[derive(Debug)]
pub(super) struct Live {
    room: usize,
    processes: HashMap<EntityId, Alive>,
    dirty: HashSet<EntityId>,
    ends: VecDeque<(Arc<str>, EntityId, Sequence)>,
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
        let (processes, dirty, ends) = (HashMap::new(), HashSet::new(), VecDeque::new());
        Self { room, processes, dirty, ends, shed: 0, lacking: HashSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    pub(super) const fn shed(&self) -> u64 {
        self.shed
    }

    pub(super) fn apply(&mut self, collector: &Arc<str>, changes: Vec<LiveChange>) {
        for change in changes {
            match change.state {
                Some(mut record) => {
                    if let Some(known) = self.processes.get(&change.entity).filter(|_| change.modified) {
                        *record = ProcessRecord::clone(&known.record).followed_by(*record);
                    }
                    self.put(collector, change.entity, change.at, change.time_us, record);
                }
                None => self.end(collector, change.entity, change.at),
            }
        }
    }

    fn put(&mut self, collector: &Arc<str>, entity: EntityId, at: Sequence, time_us: i64, record: Box<ProcessRecord>) {
        if self.processes.len() >= self.room && !self.processes.contains_key(&entity) {
            self.shed = self.shed.saturating_add(1);
            self.lacking.insert(Arc::clone(collector));
            return;
        }
        self.processes.insert(entity, Alive { collector: Arc::clone(collector), at, time_us, record });
        self.dirty.insert(entity);
    }

    fn end(&mut self, collector: &Arc<str>, entity: EntityId, at: Sequence) {
        if self.ends.len() >= ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back((Arc::clone(collector), entity, at));
        if self.processes.remove(&entity).is_some() {
            self.dirty.insert(entity);
        }
    }

    /// Replaces what is known of `collector` by an enumeration that reflects its stream up to `as_of`; what later events
    /// said stands.
    fn reset(&mut self, collector: &str, records: Vec<ProcessRecord>, as_of: Sequence) {
        let name: Arc<str> = collector.into();
        self.lacking.remove(collector);
        let stale: Vec<EntityId> = self
            .processes
            .iter()
            .filter(|(_, alive)| alive.collector.as_ref() == collector && alive.at <= as_of)
            .map(|(entity, _)| *entity)
            .collect();
        for entity in stale {
            self.processes.remove(&entity);
            self.dirty.insert(entity);
        }
        let ended: HashSet<EntityId> = self
            .ends
            .iter()
            .filter(|(of, _, at)| of.as_ref() == collector && *at > as_of)
            .map(|(_, entity, _)| *entity)
            .collect();
        for record in records {
            let Some(entity) = EntityId::from_bytes(&record.entity_id) else { continue };
            if !ended.contains(&entity) && !self.processes.contains_key(&entity) {
                let time_us = record.start_time_us.unwrap_or_default();
                self.put(&name, entity, as_of, time_us, Box::new(record));
            }
        }
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

    pub(super) fn load(state: &State) -> Result<Self, StoreError> {
        let mut live = Self::default();
        let transaction = state.read()?;
        for entry in transaction.open_table(LIFETIMES)?.iter()? {
            let (entity, lifetime) = entry?;
            let lifetime = lifetime.value().decode()?;
            let record = ProcessRecord::decode(lifetime.record.as_slice()).map_err(|error| {
                StoreError::CorruptState { table: Lifetime::NAME.to_owned(), what: error.to_string() }
            })?;
            if let Some(entity) = EntityId::from_bytes(&entity.value().to_be_bytes()) {
                let collector = lifetime.collector.into();
                let at = lifetime.at.into();
                let alive = Alive { collector, at, time_us: lifetime.time_us, record: Box::new(record) };
                live.processes.insert(entity, alive);
            }
        }
        Ok(live)
    }
}

impl Alive {
    fn to_lifetime(&self) -> Lifetime {
        Lifetime {
            collector: self.collector.to_string(),
            at: self.at.into(),
            time_us: self.time_us,
            record: self.record.encode_to_vec(),
        }
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

impl Store {
    /// The processes that live now, one row each, with the schema of `processes`.
    ///
    /// # Errors
    /// [`StoreError::Columns`] when Arrow refuses the columns.
    pub fn live(&self) -> Result<RecordBatch, StoreError> {
        let held = self.held.read().map_err(|_| StoreError::LockPoisoned)?;
        let rows = held
            .live
            .processes
            .values()
            .map(|alive| (alive.collector.as_ref(), alive.at, alive.time_us, alive.record.as_ref()));
        Ok(processes_batch(rows)?)
    }

    /// Replaces what is known of `collector`'s live processes by its own enumeration, which reflects its stream up to
    /// `as_of`. Events after `as_of` that were appended already keep their effect.
    ///
    /// # Errors
    /// [`StoreError::LockPoisoned`] when the store failed before.
    pub fn reset_live(&self, collector: &str, records: Vec<ProcessRecord>, as_of: Sequence) -> Result<(), StoreError> {
        let mut held = self.held.write().map_err(|_| StoreError::LockPoisoned)?;
        let shed_before = held.live.shed();
        held.live.reset(collector, records, as_of);
        held.note_shed(collector, as_of, shed_before);
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

    fn change(number: u64, pid: u32, alive: bool) -> LiveChange {
        let entity = EntityId::derive("boot", pid, 1);
        let state = alive.then(|| Box::new(record(pid)));
        LiveChange { at: Sequence::new(1, number), time_us: 1, entity, state, modified: false }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut live = Live::default();
        let mut start = change(1, 1, true);
        let started = ProcessRecord { command_line: Some("p1 x".into()), ..record(1) };
        start.state = Some(Box::new(started.clone()));
        let mut renamed = change(2, 1, true);
        renamed.modified = true;
        renamed.state = Some(Box::new(ProcessRecord { name: "q".into(), ..record(1) }));
        live.apply(&"procmond".into(), vec![start, renamed]);
        let records: Vec<_> = live.processes.values().map(|alive| *alive.record.clone()).collect();
        assert_eq!(records, [ProcessRecord { name: "q".into(), ..started }]);
    }

    #[test]
    fn an_enumeration_neither_forgets_the_newborn_nor_revives_the_dead() {
        let mut live = Live::default();
        let collector: Arc<str> = "procmond".into();
        let changes = vec![change(1, 1, true), change(2, 2, true), change(8, 3, true), change(9, 2, false)];
        live.apply(&collector, changes);
        // As of position 5, process 2 lived, 4 was known to the tracker only, and 1 was gone.
        live.reset("procmond", vec![record(2), record(4)], Sequence::new(1, 5));
        let mut pids: Vec<u32> = live.processes.values().map(|alive| alive.record.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [3, 4]);
    }
}
