//! The tracker and what it still owes to the log.
//!
//! Scans and announcements come from different threads; whoever has something takes the lock for it alone, and the events
//! that follow wait here in order until the one who writes takes them. The state is written down only when the log holds
//! every event that led to it, beyond the reach of a power failure, so a state read back never claims that something was
//! announced which nobody will find. What lies between the checkpoint and the end of the log is replayed.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use collector_core::source::SourceContext;
use collector_core::wal::WalReader;
use collector_core::{SourceError, SourceEvent};
use daemoneye_lib::entity::EntityId;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::proto::{CoverageGap, ProcessEvent, Record, Sequence};
use daemoneye_lib::topic::{Topic, process_topic};
use prost::Message;

use super::again::SecondLooks;
use super::door::{Door, Looked};
use super::is_process_topic;
use crate::checkpoint;
use crate::collector::{ProcessCollector, Sighting};
use crate::hashing::{self, Answer};
use crate::kernel::{Notice, What};
use crate::tracker::{Hashed, Input, Limits, Tracker};

/// How old a checkpoint may grow while there are new events. It bounds what a start after a kill has to replay; the file
/// has about 400 bytes for each process.
const CHECKPOINT_AGE: Duration = Duration::from_secs(60);

pub(super) struct Watch {
    pub(super) tracker: Tracker,
    /// As the tracker was made, for making it anew.
    fresh: Box<dyn Fn() -> Tracker + Send>,
    announcer: Option<&'static str>,
    id: String,
    boot_id: String,
    /// Events that are not in the log yet.
    carried: Vec<SourceEvent>,
    /// Events are on their way to the log, or never reached it.
    writing: bool,
    /// Last record that the tracker reflects.
    pub(super) written: Option<Sequence>,
    /// Last record that the checkpoint file reflects.
    pub(super) checkpointed: Option<Sequence>,
    /// When that was; `None` before the first one of this run.
    pub(super) checkpointed_at: Option<Instant>,
    /// The state of earlier runs has been taken over.
    pub(super) restored: bool,
    /// The log, from the first preparation on.
    pub(super) log: Option<WalReader>,
    pub(super) door: Arc<Door>,
    pub(super) looks: SecondLooks,
}

impl Watch {
    pub(super) fn new(id: &str, collector: &dyn ProcessCollector) -> Self {
        let (name, boot_id, ticks) = (collector.name(), collector.boot_id().to_owned(), collector.ticks());
        let boot = boot_id.clone();
        let fresh = move || Tracker::new(name, &boot_id, Limits::default()).with_ticks(ticks);
        Self {
            tracker: fresh(),
            fresh: Box::new(fresh),
            announcer: None,
            id: id.to_owned(),
            boot_id: boot,
            carried: Vec::new(),
            writing: false,
            written: None,
            checkpointed: None,
            checkpointed_at: None,
            restored: false,
            log: None,
            door: Arc::default(),
            looks: SecondLooks::default(),
        }
    }

    /// From here on this source announces, or nobody.
    pub(super) fn listen_to(&mut self, announcer: Option<&'static str>) {
        self.announcer = announcer;
        self.tracker.listen_to(announcer);
    }

    pub(super) fn hear(&mut self, mut notice: Notice) {
        let entity = notice.start_ticks.map(|ticks| EntityId::derive(&self.boot_id, notice.pid, ticks));
        if matches!(notice.what, What::Exec(..) | What::Fork { .. }) {
            self.looks.add(notice.pid, tokio::time::Instant::now());
        }
        if let What::Exec(record, _, file) = &mut notice.what {
            record.pid = notice.pid;
            self.door.admit(record, entity, file.map(Ok));
        }
        self.apply(Input::Notice(notice));
    }

    /// Takes what a scan saw, and what [`Door::look`] has found of it; returns whether events follow from it.
    pub(super) fn see(&mut self, mut sighting: Sighting, looked: Looked) -> bool {
        let mut known = None;
        if let Sighting::Read(record, _) = &mut sighting {
            let entity = EntityId::from_bytes(&record.entity_id);
            let answer = self.door.admit(record, entity, looked);
            // A process that was known without its hash; a new one has it in its record.
            known = answer.zip(entity).filter(|(_, entity)| self.tracker.meant_by(entity, record.pid).is_some()).map(
                |(answer, entity)| {
                    let executable_path = record.executable_path.clone().unwrap_or_default();
                    hashing::Hashed { entity, pid: record.pid, executable_path, answer }
                },
            );
        }
        self.apply(Input::Seen(sighting));
        if let Some(hashed) = known {
            self.hashed(hashed);
        }
        !self.carried.is_empty()
    }

    /// Who is to be looked at again now and lives.
    pub(super) fn take_looks(&mut self) -> Vec<u32> {
        let mut pids = self.looks.take(tokio::time::Instant::now());
        pids.retain(|pid| self.tracker.lives(*pid));
        pids
    }

    /// Takes the hash of an executable, for a process that may not have started yet.
    pub(super) fn hashed(&mut self, hashed: hashing::Hashed) {
        let entity = self.tracker.meant_by(&hashed.entity, hashed.pid).unwrap_or(hashed.entity);
        let hashing::Hashed { pid, executable_path, answer: Answer { hash, status }, .. } = hashed;
        let (algorithm, status) = (hashing::ALGORITHM.to_owned(), status.word().to_owned());
        let time_us = now_us();
        self.apply(Input::Hashed(Box::new(Hashed { entity, pid, executable_path, time_us, algorithm, hash, status })));
    }

    pub(super) fn apply(&mut self, input: Input) {
        let Self { tracker, carried, .. } = self;
        tracker.apply(input, &mut |event| carried.push(told(&event)));
    }

    /// Starts the next of those that a sweep has found; returns whether there are more.
    pub(super) fn proceed(&mut self) -> bool {
        let Self { tracker, carried, .. } = self;
        tracker.proceed(&mut |event| carried.push(told(&event)))
    }

    /// Something was not seen: a coverage row.
    pub(super) fn tell_gap(&mut self, reason: &str, from_us: i64, count: Option<u64>, detail: String) {
        let (collector, to_us) = (self.id.clone(), now_us());
        let gap =
            CoverageGap { collector, reason: reason.to_owned(), from_us, to_us, count, detail, ..Default::default() };
        let topic = Topic::CollectorEvents(self.id.clone()).to_string();
        self.carried.push(SourceEvent::new(topic, to_us, gap.encode_to_vec()));
    }

    /// What has to be written next; [`Self::wrote`] follows when it is.
    pub(super) fn take_events(&mut self) -> Vec<SourceEvent> {
        self.writing |= !self.carried.is_empty();
        std::mem::take(&mut self.carried)
    }

    pub(super) fn wrote(&mut self, last: Option<Sequence>) {
        self.writing = false;
        self.written = self.written.max(last);
    }

    fn is_ahead(&self) -> bool {
        self.writing || !self.carried.is_empty()
    }

    /// Begins anew from the checkpoint and the log behind it. What is wrong with the checkpoint is told, not fatal: the log
    /// and the next scan make up for it.
    pub(super) fn restore(&mut self, path: &Path, context: &SourceContext) -> Result<Option<String>, SourceError> {
        self.log = Some(context.wal.clone());
        if self.restored && !self.writing {
            // Told to start again within one run: nothing was lost.
            return Ok(None);
        }
        self.restored = false;
        self.tracker = (self.fresh)();
        self.tracker.listen_to(self.announcer);
        self.carried.clear();
        self.writing = false;
        let (from, problem) = match checkpoint::read(path) {
            Ok(Some(found)) => match self.tracker.import(&found.state) {
                Ok(()) => (found.last, None),
                Err(error) => (None, Some(error.to_string())),
            },
            Ok(None) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the tracker starts without its checkpoint");
        }
        self.checkpointed = from;
        self.written = from;
        for record in context.replay_from(from)? {
            self.replay(&record?);
        }
        self.restored = true;
        Ok(problem)
    }

    fn replay(&mut self, record: &Record) {
        self.written = self.written.max(record.sequence);
        if !is_process_topic(&record.topic) {
            return;
        }
        match ProcessEvent::decode(record.payload.as_ref()) {
            Ok(event) => self.tracker.apply(Input::Replay(Box::new(event)), &mut |_none_follow| {}),
            Err(error) => tracing::warn!(%error, "a record of the log is no process event and is passed over"),
        }
    }

    /// The state as it may be written down, with the last record that it reflects; otherwise the record that the file reflects, and goes
    /// on to reflect. The file is written by whoever asks, without the lock on this: a disk that hangs must not hold up announcements.
    pub(super) fn draft(&self, last: Option<Sequence>) -> Result<(Option<Sequence>, Vec<u8>), Option<Sequence>> {
        // A trim may be due before the state of earlier runs has been read; an empty state would replace it and claim that
        // nothing lives.
        if !self.restored {
            return Err(None);
        }
        let last = last.max(self.written);
        if self.is_ahead() || last == self.checkpointed || !self.is_settled(last) {
            return Err(self.checkpointed);
        }
        let mut state = Vec::new();
        self.tracker.export(&mut state).map_err(|_no_memory| self.checkpointed)?;
        Ok((last, state))
    }

    pub(super) fn wrote_down(&mut self, last: Option<Sequence>) {
        self.checkpointed = last;
        self.checkpointed_at = Some(Instant::now());
    }

    fn is_settled(&self, last: Option<Sequence>) -> bool {
        self.log.as_ref().is_some_and(|log| log.settled() >= last)
    }

    /// Whether the checkpoint is so old that a start after a kill would replay too much.
    pub(super) fn is_behind(&self) -> bool {
        self.written > self.checkpointed && self.checkpointed_at.is_none_or(|at| at.elapsed() >= CHECKPOINT_AGE)
    }
}

pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A panic elsewhere leaves the state as consistent as any kill would: the log decides at the next start.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
/// An event for the log, and what the ledger says of it.
fn told(event: &ProcessEvent) -> SourceEvent {
    let content = event.flaw().is_none().then(|| Content::of_event(event));
    let topic = process_topic(event.event_type());
    SourceEvent::new(topic, event.time_us, event.encode_to_vec()).with_content(content)
}
