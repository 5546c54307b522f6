//! What the kernel announces: births, new programs and ends, each at the moment of its happening.
//!
//! An announcement and a snapshot may tell the same thing in either order. Whoever comes first is an event, the other one is
//! not: a snapshot's findings wait until everything announced before them has been taken, and yield to it.

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::{Capture, EventType, Identity, ProcessEvent, ProcessRecord, StartKind};

use super::memory::Traits;
use super::{Emit, Tracker, change, newest_names, suspicion};
use crate::collector::Image;
use crate::kernel::{Credentials, Notice, What};
use crate::text::{abridge, bound, push_step};

impl Tracker {
    pub(super) fn notice(&mut self, notice: Notice, emit: Emit<'_>) {
        let Notice { time_us, pid, start_ticks, what } = notice;
        self.now_us = time_us;
        self.latest_us = self.latest_us.max(time_us);
        if time_us > self.late_us {
            // They come in their order.
            self.late_us = i64::MIN;
        }
        match what {
            What::Fork { parent, credentials, .. } => self.forked(pid, start_ticks, parent, credentials, emit),
            What::Exec(record, image, _) => self.executed(ProcessRecord { pid, ..*record }, start_ticks, image, emit),
            What::Exit(code) => self.exited(pid, start_ticks, code, emit),
            What::Rename(name) => self.renamed(pid, start_ticks, name, emit),
            What::Traced { by } => self.traced(pid, start_ticks, by, emit),
        }
    }

    /// The known process that a notice means. A holder of the pid that it cannot mean has ended unseen.
    fn meant(&mut self, pid: u32, ticks: Option<u64>, emit: Emit<'_>) -> Option<EntityId> {
        let holder = self.memory.holder(pid)?;
        if ticks.is_none_or(|ticks| self.is_start_of(&holder, pid, ticks)) {
            return Some(holder);
        }
        self.gone(holder, None, emit);
        None
    }

    /// Whether this is the start of the known process; one whose start was only estimated is known by its exact one from
    /// then on.
    fn is_start_of(&mut self, known: &EntityId, pid: u32, ticks: u64) -> bool {
        let exact = EntityId::derive(&self.boot_id, pid, ticks);
        if exact == *known || self.memory.find(&exact, pid) == Some(*known) {
            return true;
        }
        let estimated = self.memory.live_mut(known).filter(|live| live.estimated).and_then(|live| live.start_us);
        let same = estimated.is_some_and(|start| self.ticks.at(start).abs_diff(ticks) <= 1);
        if same {
            self.memory.alias(pid, exact);
        }
        same
    }

    /// The identity of a process that nobody knew, with its start.
    fn identify(&self, record: &mut ProcessRecord, ticks: Option<u64>) -> EntityId {
        let (start, identity) = match ticks {
            Some(ticks) => (ticks, Identity::Exact),
            None => (self.ticks.at(self.now_us), Identity::Estimated),
        };
        let entity = EntityId::derive(&self.boot_id, record.pid, start);
        record.entity_id = entity.as_bytes().to_vec();
        record.identity = identity.into();
        record.start_time_us = self.ticks.time_us(start);
        entity
    }

    fn forked(
        &mut self,
        pid: u32,
        ticks: Option<u64>,
        parent: u32,
        credentials: Option<Box<Credentials>>,
        emit: Emit<'_>,
    ) {
        // Without ticks the process was only just born, so whoever held the pid longer has ended.
        let start = ticks.unwrap_or_else(|| self.ticks.at(self.now_us));
        if let Some(holder) = self.memory.holder(pid) {
            let started = self.memory.live_mut(&holder).and_then(|live| live.start_us);
            let just = ticks.is_none() && started.is_some_and(|us| self.ticks.at(us).abs_diff(start) <= 1);
            if just || self.is_start_of(&holder, pid, start) {
                return;
            }
            self.gone(holder, None, emit);
        }
        // A parent whose own start was estimated may seem one tick too young.
        let latest = self.ticks.time_us(start.saturating_add(1));
        let known = self.memory.parent(parent, latest).or_else(|| self.found.record(parent));
        let raised =
            self.memory.holder(parent).and_then(|entity| self.memory.live_mut(&entity).map(|live| live.traits.raised));
        let mut record = born(known, pid, parent, credentials.map(|own| *own));
        let entity = self.identify(&mut record, ticks);
        bound(&mut record);
        self.announce(entity, &mut record, Traits { raised: raised.unwrap_or(0), image: Image::UNSEEN });
        abridge(&mut record);
        emit(ProcessEvent { start_kind: StartKind::Fork.into(), ..self.event(EventType::Start, record) });
    }

    fn executed(&mut self, mut record: ProcessRecord, ticks: Option<u64>, image: Image, emit: Emit<'_>) {
        let traits = Traits { raised: 0, image };
        let Some(entity) = self.meant(record.pid, ticks, emit) else {
            let entity = self.identify(&mut record, ticks);
            self.adopt(&mut record);
            bound(&mut record);
            self.announce(entity, &mut record, traits);
            let start_kind = StartKind::Exec.into();
            emit(ProcessEvent { start_kind, ..self.event(EventType::Start, record.clone()) });
            return self.suspect(entity, record, 0, emit);
        };
        let Some(live) = self.memory.live_mut(&entity) else { return };
        let (slim, found_us, before) = (live.slim, live.found_us, live.traits);
        let Some(mut known) = live.decoded() else { return };
        record.entity_id.clone_from(&known.entity_id);
        record.identity = if ticks.is_some() { Identity::Exact.into() } else { known.identity };
        record.start_time_us = known.start_time_us;
        // The snapshot that told this process began behind it, and has met what came of it.
        let late = self.now_us <= self.late_us.min(found_us);
        if late && before.image.stays(image) {
            return self.count_announced();
        }
        let modified = change::announced(&mut known, &mut record, slim);
        bound(&mut known);
        // A snapshot has told this very program already, as its image says, or because it met it just now.
        let met = self.found.open && found_us == self.began_us && !before.image.replaced_by(image);
        let told = modified.is_empty() && found_us > 0 && (met || before.image.stays(image));
        let past = late && before.image.replaced_by(image);
        let raised = if told || past { before.raised } else { 0 };
        if past {
            // What is known is newer.
            self.count_announced();
        } else {
            self.announce(entity, &mut known, Traits { raised, image });
        }
        if told {
            return;
        }
        let modified_fields = modified.into_iter().map(str::to_owned).collect();
        let start_kind = StartKind::Exec.into();
        emit(ProcessEvent { start_kind, modified_fields, ..self.event(EventType::Start, known.clone()) });
        self.suspect(entity, known, raised, emit);
    }

    fn exited(&mut self, pid: u32, ticks: Option<u64>, code: Option<i32>, emit: Emit<'_>) {
        if let Some(entity) = self.meant(pid, ticks, emit) {
            // The dead are forgotten, after many others even before the sweep that has just met them alive is over.
            self.found.unstage(pid, &entity);
            let Some(live) = self.memory.bury(&entity, self.now_us) else { return };
            if !live.ended {
                self.stop(live.decoded(), true, code, emit);
            }
        } else if !self.end_found(pid, ticks, code) {
            self.counters.strays = self.counters.strays.saturating_add(1);
        }
    }

    fn renamed(&mut self, pid: u32, ticks: Option<u64>, name: String, emit: Emit<'_>) {
        let Some(entity) = self.meant(pid, ticks, emit) else { return };
        let Some(live) = self.memory.live_mut(&entity) else { return };
        let traits = live.traits;
        let Some(mut known) = live.decoded().filter(|known| known.name != name) else { return };
        known.name = name;
        change::rename(&mut known);
        bound(&mut known);
        self.keep(entity, &mut known, traits);
        let modified_fields = vec!["name".to_owned()];
        emit(ProcessEvent { modified_fields, ..self.event(EventType::Modify, identified(&known)) });
        self.suspect(entity, known, traits.raised, emit);
    }

    fn traced(&mut self, pid: u32, ticks: Option<u64>, by: Option<u32>, emit: Emit<'_>) {
        let Some(entity) = self.meant(pid, ticks, emit).filter(|_| by.is_some()) else { return };
        let Some(live) = self.memory.live_mut(&entity) else { return };
        live.noticed = self.sweep;
        if live.traits.raised & suspicion::PTRACE_ATTACHED.bit == 0 {
            live.traits.raised |= suspicion::PTRACE_ATTACHED.bit;
            let Some(record) = live.decoded() else { return };
            emit(suspicion::PTRACE_ATTACHED.event(self.event(EventType::Suspicious, record)));
        }
    }

    /// Keeps a start that was announced.
    fn announce(&mut self, entity: EntityId, record: &mut ProcessRecord, traits: Traits) {
        self.count_announced();
        self.keep(entity, record, traits);
    }

    fn count_announced(&mut self) {
        self.counters.announced = self.counters.announced.saturating_add(1);
    }

    fn keep(&mut self, entity: EntityId, record: &mut ProcessRecord, traits: Traits) {
        self.memory.store(entity, record, traits);
        if let Some(live) = self.memory.live_mut(&entity) {
            live.see(self.sweep, None);
            live.noticed = self.sweep;
        }
    }
}

/// A child as its parent's copy, as far as a fork copies for certain: its program. As whom it runs, the fork says or nobody;
/// where, whoever reads it next.
fn born(parent: Option<ProcessRecord>, pid: u32, ppid: u32, credentials: Option<Credentials>) -> ProcessRecord {
    let mut child =
        ProcessRecord { pid, ppid: Some(ppid), capture: Capture::Partial.into(), ..ProcessRecord::default() };
    if let Some(Credentials { uid, gid, euid, user, session, tty }) = credentials {
        (child.uid, child.gid, child.euid, child.user) = (Some(uid), Some(gid), Some(euid), user);
        (child.session, child.tty) = (Some(session), tty);
    }
    let Some(mut parent) = parent else { return child };
    let mut path = parent.ancestry.take().unwrap_or_default();
    push_step(&mut path, &parent.name);
    parent.truncated.retain(|field| matches!(field.as_str(), "arg_lengths" | "command_line" | "executable_path"));
    ProcessRecord {
        parent_entity_id: Some(parent.entity_id),
        parent_name: Some(parent.name.clone()),
        parent_executable_path: parent.executable_path.clone(),
        parent_command_line: parent.command_line.clone(),
        ancestry: Some(newest_names(path)),
        name: parent.name,
        executable_path: parent.executable_path,
        command_line: parent.command_line,
        arg_lengths: parent.arg_lengths,
        executable_hash: parent.executable_hash,
        hash_algorithm: parent.hash_algorithm,
        hash_status: parent.hash_status,
        deleted_executable: parent.deleted_executable,
        memfd: parent.memfd,
        truncated: parent.truncated,
        ..child
    }
}

/// What a renamed process is known by: a process may rename itself as often as it likes, so nothing long is said again.
fn identified(record: &ProcessRecord) -> ProcessRecord {
    ProcessRecord {
        entity_id: record.entity_id.clone(),
        identity: record.identity,
        pid: record.pid,
        ppid: record.ppid,
        parent_entity_id: record.parent_entity_id.clone(),
        parent_name: record.parent_name.clone(),
        ancestry: record.ancestry.clone(),
        name: record.name.clone(),
        executable_path: record.executable_path.clone(),
        uid: record.uid,
        gid: record.gid,
        euid: record.euid,
        user: record.user.clone(),
        start_time_us: record.start_time_us,
        capture: record.capture,
        ..ProcessRecord::default()
    }
}

#[cfg(test)]
mod tests;
