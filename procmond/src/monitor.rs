//! The process source: a reader of the process table and the tracker, joined, behind the SDK's traits.
//!
//! The tracker's state is written down only when the log holds every event that led to it, beyond the reach of a power
//! failure, so a state read back never claims that something was announced which nobody will find. What lies between the
//! checkpoint and the end of the log is replayed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use collector_core::source::{MonitorCollector, SourceContext};
use collector_core::wal::WalReader;
use collector_core::{SourceCaps, SourceError, SourceEvent, SourceHealth};
use daemoneye_lib::proto::{CollectionCapabilities, EventType, ProcessEvent, Record, Sequence, TaskType};
use daemoneye_lib::topic::process_topic;
use prost::Message;

use crate::checkpoint;
use crate::collector::{CollectionStats, ProcessCollectionError, ProcessCollector};
use crate::sources::Chosen;
use crate::tracker::{Counters, Input, Limits, Member, Tracker};

/// What this build does not do; shown in `health` so that nobody counts on it.
const ABSENT: &[&str] = &[
    "snapshot only: processes that live shorter than the interval are not seen",
    "kernel sources: not built",
    "executable hashing: not built",
    "redaction of command lines: not built",
    "sandbox of the collector: not built",
];

/// How old a checkpoint may grow while there are new events. It bounds what a start after a kill has to replay; the file
/// has about 300 bytes for each process.
const CHECKPOINT_AGE: Duration = Duration::from_secs(60);

/// How long a trim or the end waits for the log to be synced, ten times what a busy disk takes. Past it the checkpoint stays
/// as it is, and a start replays more.
const SETTLE: Duration = Duration::from_secs(1);

struct Watch {
    collector: Box<dyn ProcessCollector>,
    tracker: Tracker,
    /// Events of a scan that failed half-way: the tracker has them, so they go out with the next one.
    carried: Vec<SourceEvent>,
    /// The tracker is ahead of the log.
    ahead: bool,
    /// Last record that the tracker reflects.
    written: Option<Sequence>,
    /// Last record that the checkpoint file reflects.
    checkpointed: Option<Sequence>,
    /// When that was; `None` before the first one of this run.
    checkpointed_at: Option<Instant>,
    /// The state of earlier runs has been taken over.
    restored: bool,
    /// The log, from the first preparation on.
    log: Option<WalReader>,
    /// Of the last sweep.
    stats: CollectionStats,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    swept: bool,
    processes: u64,
    stats: CollectionStats,
    counters: Counters,
    failure: Option<String>,
    checkpoint_problem: Option<String>,
}

/// The process source.
pub struct ProcessMonitor {
    watch: Arc<Mutex<Watch>>,
    seen: Mutex<Seen>,
    name: &'static str,
    capabilities: CollectionCapabilities,
    checkpoint: PathBuf,
}

/// Every living process and the last record of the log that this view reflects.
pub struct View {
    /// The processes.
    pub members: Vec<Member>,
    /// Everything up to here is in it; later records may be, and taking them again changes nothing.
    pub as_of: Option<Sequence>,
}

impl ProcessMonitor {
    /// A source over a reader that works, which looks every `interval` and keeps its checkpoint in `wal_dir`.
    #[must_use]
    pub fn new(chosen: Chosen, interval: Duration, wal_dir: &Path) -> Self {
        let collector = chosen.collector;
        let name = collector.name();
        let mut caps = SourceCaps::PROCESS | SourceCaps::SYSTEM_WIDE;
        if interval <= SourceCaps::REALTIME_BOUND {
            caps = caps | SourceCaps::REALTIME;
        }
        let mut capabilities = caps.describe(name, &chosen.reason);
        capabilities.tasks = vec![TaskType::EnumerateProcesses.into()];
        capabilities.notes =
            ABSENT.iter().map(|note| (*note).to_owned()).chain(collector.capabilities().notes).collect();
        let tracker = Tracker::new(name, collector.boot_id(), Limits::default());
        Self {
            watch: Arc::new(Mutex::new(Watch::new(collector, tracker))),
            seen: Mutex::default(),
            name,
            capabilities,
            checkpoint: wal_dir.join("tracker.checkpoint"),
        }
    }

    /// The living processes, for a task.
    ///
    /// # Errors
    /// [`SourceError::Failed`] when the runtime is going down.
    pub async fn view(&self) -> Result<View, SourceError> {
        self.watching(|watch| View { members: watch.tracker.members(), as_of: watch.written }).await
    }

    /// Scans take up to a second and hold the watch, so whoever needs it waits on a blocking thread.
    async fn watching<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Watch) -> T + Send + 'static,
    ) -> Result<T, SourceError> {
        let watch = Arc::clone(&self.watch);
        tokio::task::spawn_blocking(move || work(&mut lock(&watch)))
            .await
            .map_err(|error| SourceError::Failed(format!("the scan thread ended: {error}")))
    }
}

#[async_trait]
impl MonitorCollector for ProcessMonitor {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.capabilities.clone()
    }

    async fn prepare(&self, context: &SourceContext) -> Result<(), SourceError> {
        let (path, context) = (self.checkpoint.clone(), context.clone());
        let problem = self.watching(move |watch| watch.restore(&path, &context)).await??;
        lock(&self.seen).checkpoint_problem = problem;
        Ok(())
    }

    async fn cycle(&self) -> Result<Vec<SourceEvent>, SourceError> {
        let time_us = now_us();
        let path = self.checkpoint.clone();
        let swept = self.watching(move |watch| {
            let outcome = watch.next_events(time_us, &path);
            (outcome, watch.tracker.len(), watch.tracker.counters())
        });
        let (outcome, processes, counters) = swept.await?;
        let mut seen = lock(&self.seen);
        seen.processes = processes as u64;
        seen.counters = counters;
        match outcome {
            Ok((events, stats)) => {
                seen.swept = true;
                seen.stats = stats;
                seen.failure = None;
                Ok(events)
            }
            Err(error) => {
                seen.failure = Some(error.to_string());
                Err(SourceError::Failed(error.to_string()))
            }
        }
    }

    async fn unfinished(&self) -> bool {
        lock(&self.watch).tracker.is_starting()
    }

    async fn written(&self, last: Option<Sequence>) {
        let mut watch = lock(&self.watch);
        watch.ahead = false;
        watch.written = watch.written.max(last);
    }

    async fn checkpoint(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        let (log, written) = self.watching(|watch| (watch.log.clone(), watch.written)).await?;
        if let Some(log) = log
            && !log.settle(last.max(written), SETTLE).await
        {
            tracing::warn!("the log is not synced in time; the checkpoint stays as it is");
        }
        let path = self.checkpoint.clone();
        self.watching(move |watch| watch.write_down(&path, last)).await?
    }

    async fn health(&self) -> SourceHealth {
        let seen = lock(&self.seen).clone();
        let mut notes = self.capabilities.notes.clone();
        let counted = [
            (seen.stats.inaccessible, "processes could not be read in the last scan"),
            (seen.counters.slimmed, "processes were kept without their long fields: the tracker is full"),
            (seen.counters.evicted, "dead parents were forgotten before their time: the tracker is full"),
            (seen.counters.malformed, "records had no usable identity"),
        ];
        notes.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        notes.extend(seen.failure.clone().map(|failure| format!("the last scan failed: {failure}")));
        notes.extend(seen.checkpoint_problem);
        SourceHealth {
            unhealthy: seen.failure.is_some(),
            sub_status: if seen.swept { "steady" } else { "baseline" }.to_owned(),
            notes,
            entities: seen.processes,
            ..SourceHealth::default()
        }
    }
}

impl Watch {
    const fn new(collector: Box<dyn ProcessCollector>, tracker: Tracker) -> Self {
        Self {
            collector,
            tracker,
            carried: Vec::new(),
            ahead: false,
            written: None,
            checkpointed: None,
            checkpointed_at: None,
            restored: false,
            log: None,
            stats: CollectionStats { processes: 0, read_in_full: 0, vanished: 0, inaccessible: 0 },
        }
    }

    /// What is left of the last sweep, or what a new one finds.
    fn next_events(
        &mut self,
        time_us: i64,
        path: &Path,
    ) -> Result<(Vec<SourceEvent>, CollectionStats), ProcessCollectionError> {
        if !self.tracker.is_starting() {
            self.keep_up(path);
            self.stats = self.sweep(time_us)?;
        }
        self.ahead = true;
        let Self { tracker, carried, .. } = self;
        tracker.proceed(&mut |event| carried.push(encoded(&event)));
        Ok((std::mem::take(carried), self.stats))
    }

    fn sweep(&mut self, time_us: i64) -> Result<CollectionStats, ProcessCollectionError> {
        let Self { collector, tracker, carried, .. } = self;
        self.ahead = true;
        let mut emit = |event: ProcessEvent| carried.push(encoded(&event));
        tracker.apply(Input::Begin { time_us }, &mut emit);
        let outcome = collector.collect_processes(&mut |sighting| tracker.apply(Input::Seen(sighting), &mut emit));
        tracker.apply(Input::End { complete: outcome.is_ok() }, &mut emit);
        collector.forget(&tracker.take_unknown());
        outcome
    }

    /// Begins anew from the checkpoint and the log behind it. What is wrong with the checkpoint is told, not fatal: the log
    /// and the next scan make up for it.
    fn restore(&mut self, path: &Path, context: &SourceContext) -> Result<Option<String>, SourceError> {
        self.log = Some(context.wal.clone());
        if self.restored && !self.ahead {
            // Told to start again within one run: nothing was lost.
            return Ok(None);
        }
        self.tracker = Tracker::new(self.collector.name(), self.collector.boot_id(), Limits::default());
        self.carried.clear();
        self.ahead = false;
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
            self.replay(&record);
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

    fn write_down(&mut self, path: &Path, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        // A trim may be due before the state of earlier runs has been read; an empty state would replace it and claim that
        // nothing lives.
        if !self.restored {
            return Ok(None);
        }
        let last = last.max(self.written);
        if self.ahead || last == self.checkpointed || !self.is_settled(last) {
            return Ok(self.checkpointed);
        }
        checkpoint::write(path, last, |out| self.tracker.export(out))
            .map_err(|error| SourceError::Failed(error.to_string()))?;
        self.checkpointed = last;
        self.checkpointed_at = Some(Instant::now());
        Ok(last)
    }

    fn is_settled(&self, last: Option<Sequence>) -> bool {
        self.log.as_ref().is_some_and(|log| log.settled() >= last)
    }

    /// Before a scan the log has had a whole interval to reach the disk, so the state may be written down.
    fn keep_up(&mut self, path: &Path) {
        if self.written.is_none() || self.checkpointed_at.is_some_and(|at| at.elapsed() < CHECKPOINT_AGE) {
            return;
        }
        if let Err(error) = self.write_down(path, None) {
            tracing::warn!(%error, "the log is replayed from an older checkpoint after a kill");
        }
    }
}

/// Whether a record of this topic is a process event.
pub(crate) fn is_process_topic(topic: &str) -> bool {
    [EventType::Start, EventType::Stop, EventType::Modify, EventType::Suspicious]
        .iter()
        .any(|kind| process_topic(*kind) == topic)
}

fn encoded(event: &ProcessEvent) -> SourceEvent {
    SourceEvent::new(process_topic(event.event_type()), event.time_us, event.encode_to_vec())
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A panic elsewhere leaves the state as consistent as any kill would: the log decides at the next start.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
