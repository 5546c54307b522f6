//! The process source: what the kernel announces and what snapshots find, joined by the tracker, behind the SDK's traits.
//!
//! One thread listens to the kernel, one scans now and then, and one task gives both to the tracker and writes what follows.
//! Announcements never wait for a scan.

mod again;
mod door;
mod reader;
mod run;
mod wanted;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::source::SourceContext;
use collector_core::{EventSource, SourceCaps, SourceError, SourceHealth};
use daemoneye_lib::columns::PROCESS_EVENTS;
use daemoneye_lib::proto::{CollectionCapabilities, EventType, Sequence, TaskType};
use daemoneye_lib::redaction::Redactor;
use daemoneye_lib::topic::process_topic;
use tokio::sync::Notify;

use self::door::Door;
use self::run::Run;
pub(crate) use self::wanted::Wanted;
use self::wanted::{HASH_COLUMNS, QUESTIONS};
use self::watch::{Watch, lock, now_us};
use crate::checkpoint;
use crate::collector::{CollectionStats, ProcessCollector};
use crate::hashing::{HashOptions, Hasher};
use crate::kernel::KernelSource;
use crate::sources::{Chosen, Open};
use crate::tracker::Member;

/// What no snapshot can do.
const SNAPSHOT_ONLY: &str = "snapshot only: processes that live shorter than the interval are not seen";

/// How long a trim or the end waits for the log to be synced, ten times what a busy disk takes. Past it the checkpoint stays
/// as it is, and a start replays more.
const SETTLE: Duration = Duration::from_secs(1);

/// A scan that lasts longer hangs in one call, because the reader of the table gives up after a minute.
const HANGING: Duration = Duration::from_secs(70);

/// Share of failed scans above which the source is unhealthy: one in five.
const UNHEALTHY_ONE_IN: u64 = 5;

/// Time between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// While the kernel announces.
    pub beside_kernel: Duration,
    /// While snapshots are all there is.
    pub alone: Duration,
}

impl Pace {
    /// What nobody configured: beside announcements a snapshot only heals and measures.
    pub const DEFAULT: Self = Self { beside_kernel: Duration::from_secs(30), alone: Duration::from_secs(5) };

    /// Always the same.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self { beside_kernel: interval, alone: interval }
    }

    /// With or without a source of the kernel.
    #[must_use]
    pub const fn of(self, kernel: bool) -> Duration {
        if kernel { self.beside_kernel } else { self.alone }
    }
}

/// What `health` tells.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The source in use.
    source: &'static str,
    reason: String,
    /// About the sources, as they stand.
    notes: Vec<String>,
    kernel: bool,
    exec_filename: bool,
    swept: bool,
    /// Since when a snapshot is being taken.
    scanning: Option<tokio::time::Instant>,
    stats: CollectionStats,
    cycles: u64,
    errors: u64,
    /// Time between two snapshots, at the last one.
    every: Option<Duration>,
    /// What the kernel could not hand over, of all sources of this run.
    lost: u64,
    /// Announcements that came during pauses.
    unheard: u64,
    failure: Option<String>,
    checkpoint_problem: Option<String>,
}

/// A source of the kernel while nobody listens to it, and what may follow it.
struct Station {
    kernel: Option<Box<dyn KernelSource>>,
    /// The thread of a run that was cut off still has it.
    held: Option<reader::Listening>,
    next: Vec<Open>,
    boot_id: String,
    /// Since when nobody listens; what was announced since waits in the kernel as far as it has room.
    idle_since_us: i64,
}

/// Where the columns come from that no source here fills.
const WINDOWS_FIELDS: &str = "process.windows.";

/// The process source.
pub struct ProcessMonitor {
    watch: Arc<Mutex<Watch>>,
    table: Arc<Mutex<Box<dyn ProcessCollector>>>,
    /// A scan has found what has to be written.
    stirred: Arc<Notify>,
    station: Mutex<Station>,
    seen: Mutex<Seen>,
    snapshots: &'static str,
    snapshot_notes: Vec<String>,
    snapshot_missing: &'static [&'static str],
    pace: Pace,
    checkpoint: PathBuf,
    /// Hashing may be selected.
    for_rules: bool,
    /// Whoever has it writes the checkpoint.
    pen: Arc<Mutex<()>>,
}

/// Every living process and the last record of the log that this view reflects.
pub struct View {
    /// The processes.
    pub members: Vec<Member>,
    /// Everything up to here is in it; later records may be, and taking them again changes nothing.
    pub as_of: Option<Sequence>,
}

impl ProcessMonitor {
    /// A source of the collector `id` over sources that work, which keeps its checkpoint in `wal_dir`.
    #[must_use]
    pub fn new(chosen: Chosen, pace: Pace, id: &str, wal_dir: &Path) -> Self {
        let Chosen { collector, kernel, reason, passed_over, next } = chosen;
        let mut watch = Watch::new(id, collector.as_ref());
        let announcer = kernel.as_ref().map(|kernel| kernel.name());
        watch.listen_to(announcer);
        let mut notes = kernel.as_ref().map_or_else(Vec::new, |kernel| kernel.notes());
        notes.extend(passed_over);
        let source = announcer.unwrap_or(collector.name());
        let exec_filename = kernel.as_ref().is_some_and(|kernel| kernel.tells_exec_filename());
        let snapshot = collector.capabilities();
        Self {
            watch: Arc::new(Mutex::new(watch)),
            stirred: Arc::default(),
            station: Mutex::new(Station {
                kernel,
                held: None,
                next,
                boot_id: collector.boot_id().to_owned(),
                idle_since_us: now_us(),
            }),
            seen: Mutex::new(Seen {
                source,
                reason,
                notes,
                kernel: announcer.is_some(),
                exec_filename,
                ..Seen::default()
            }),
            snapshots: collector.name(),
            snapshot_notes: snapshot.notes,
            snapshot_missing: snapshot.missing_columns,
            table: Arc::new(Mutex::new(collector)),
            pace,
            for_rules: false,
            checkpoint: wal_dir.join("tracker.checkpoint"),
            pen: Arc::default(),
        }
    }

    /// With secrets out of command lines, and with hashes of executables, as far as both are wanted.
    ///
    /// # Errors
    /// When the system gives no thread for hashing.
    pub fn with(self, redactor: Option<Redactor>, hashing: Option<HashOptions>) -> std::io::Result<Self> {
        // The hasher belongs to the watch, so it must not keep it alive.
        let (watch, stirred) = (Arc::downgrade(&self.watch), Arc::clone(&self.stirred));
        let deliver = move |hashed| {
            if let Some(watch) = watch.upgrade() {
                lock(&watch).hashed(hashed);
                stirred.notify_one();
            }
        };
        let hasher = hashing.map(|options| Hasher::start(options, Box::new(deliver))).transpose()?;
        lock(&self.watch).door = Arc::new(Door::new(redactor, hasher));
        Ok(self)
    }

    /// Hashes only while the rules of the agent read them, as soon as it has said so.
    #[must_use]
    pub const fn for_rules(mut self, only: bool) -> Self {
        self.for_rules = only;
        self
    }

    /// From here on this is read. Until somebody selects, everything is.
    pub(crate) fn select(&self, wanted: Wanted) {
        lock(&self.watch).door.select_hashes(wanted);
    }

    /// The interval that this source begins with.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.pace.of(lock(&self.seen).kernel)
    }

    /// The living processes, for a task.
    ///
    /// # Errors
    /// [`SourceError::Failed`] when the runtime is going down.
    pub async fn view(&self) -> Result<View, SourceError> {
        self.watching(|watch| View { members: watch.tracker.members(), as_of: watch.written }).await
    }

    /// What takes long while it holds the watch waits and works on a blocking thread.
    async fn watching<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Watch) -> T + Send + 'static,
    ) -> Result<T, SourceError> {
        let watch = Arc::clone(&self.watch);
        tokio::task::spawn_blocking(move || work(&mut lock(&watch)))
            .await
            .map_err(|error| SourceError::Failed(format!("the tracker's thread ended: {error}")))
    }

    /// Writes the tracker's state down as far as the log has it; returns the last record that the file reflects.
    async fn write_down(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        let (watch, pen, path) = (Arc::clone(&self.watch), Arc::clone(&self.pen), self.checkpoint.clone());
        let written = tokio::task::spawn_blocking(move || {
            // Threads that wait for a disk that hangs must not pile up.
            let Ok(_pen) = pen.try_lock() else { return Ok(lock(&watch).checkpointed) };
            let draft = lock(&watch).draft(last);
            let (last, state) = match draft {
                Ok(draft) => draft,
                Err(kept) => return Ok(kept),
            };
            checkpoint::write(&path, last, &state).map_err(|error| SourceError::Failed(error.to_string()))?;
            lock(&watch).wrote_down(last);
            Ok(last)
        });
        written.await.map_err(|error| SourceError::Failed(format!("the checkpoint's thread ended: {error}")))?
    }

    async fn settle(&self, last: Option<Sequence>, within: Duration) -> bool {
        let (log, written) = {
            let watch = lock(&self.watch);
            (watch.log.clone(), watch.written)
        };
        match log {
            Some(log) => log.settle(last.max(written), within).await,
            None => true,
        }
    }
}

#[async_trait]
impl EventSource for ProcessMonitor {
    fn name(&self) -> &str {
        lock(&self.seen).source
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let seen = lock(&self.seen).clone();
        let mut caps = SourceCaps::PROCESS | SourceCaps::SYSTEM_WIDE;
        if seen.kernel {
            caps = caps | SourceCaps::KERNEL_LEVEL | SourceCaps::REALTIME;
        } else if self.pace.alone <= SourceCaps::REALTIME_BOUND {
            caps = caps | SourceCaps::REALTIME;
        }
        let mut capabilities = caps.describe(seen.source, &seen.reason);
        capabilities.tasks = vec![TaskType::EnumerateProcesses.into()];
        let limit = (!seen.kernel).then(|| SNAPSHOT_ONLY.to_owned());
        let (door, hashes) = {
            let watch = lock(&self.watch);
            (watch.door.notes(), watch.door.hasher.is_some())
        };
        if hashes && self.for_rules {
            capabilities.tasks.push(TaskType::SelectColumns.into());
            capabilities.path_questions = QUESTIONS.into_iter().map(i32::from).collect();
        }
        let windows = PROCESS_EVENTS.iter().filter(|column| column.field.starts_with(WINDOWS_FIELDS));
        let missing = windows.map(|column| column.name).chain(HASH_COLUMNS.into_iter().filter(|_| !hashes));
        let missing = missing
            .chain((!seen.exec_filename).then_some("exec_filename"))
            .chain(self.snapshot_missing.iter().copied());
        capabilities.missing_columns = missing.map(ToOwned::to_owned).collect();
        capabilities.notes =
            limit.into_iter().chain(seen.notes).chain(door).chain(self.snapshot_notes.iter().cloned()).collect();
        capabilities
    }

    async fn start(&self, context: SourceContext) -> Result<(), SourceError> {
        let (path, theirs) = (self.checkpoint.clone(), context.clone());
        let problem = self.watching(move |watch| watch.restore(&path, &theirs)).await??;
        lock(&self.seen).checkpoint_problem = problem;
        Run::new(self, context).go().await
    }

    async fn checkpoint(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        if !self.settle(last, SETTLE).await {
            tracing::warn!("the log is not synced in time; the checkpoint stays as it is");
        }
        self.write_down(last).await
    }

    async fn health(&self) -> SourceHealth {
        let (processes, counters, unlooked) = {
            let watch = lock(&self.watch);
            (watch.tracker.len(), watch.tracker.counters(), watch.looks.shed)
        };
        let mut notes = self.capabilities().notes;
        let seen = lock(&self.seen).clone();
        let counted = [
            (seen.stats.inaccessible, "processes could not be read in the last scan"),
            (seen.lost, "announcements were lost in the kernel"),
            (seen.unheard, "announcements came during pauses and were dropped"),
            (counters.missed, "starts were not announced and found by a snapshot"),
            (counters.vanished, "ends were not announced and found by a snapshot"),
            (counters.slimmed, "processes were kept without their long fields: the tracker is full"),
            (counters.evicted, "dead parents were forgotten before their time: the tracker is full"),
            (counters.unclaimed, "hashes came when their process was forgotten or ran another program"),
            (unlooked, "processes were not looked at again shortly after their start, for want of room"),
            (counters.malformed, "records had no usable identity"),
        ];
        notes.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        notes.extend(seen.failure.clone().map(|failure| format!("the last scan failed: {failure}")));
        let hanging = seen.scanning.map(|since| since.elapsed()).filter(|elapsed| *elapsed > HANGING);
        notes.extend(hanging.map(|elapsed| {
            let seconds = elapsed.as_secs();
            format!("a scan has been hanging for {seconds} s, perhaps on a file system that does not answer; nothing is reconciled meanwhile")
        }));
        if seen.stats.hiding {
            notes.push("the process table hides processes (hidepid): ends that nobody announces stay unknown; it needs the capability SYS_PTRACE".to_owned());
        }
        notes.extend(seen.checkpoint_problem);
        SourceHealth {
            unhealthy: seen.failure.is_some() || hanging.is_some() || seen.errors * UNHEALTHY_ONE_IN > seen.cycles,
            sub_status: if seen.swept { "steady" } else { "baseline" }.to_owned(),
            notes,
            cycles: seen.cycles,
            errors: seen.errors,
            announced: seen.kernel,
            look: seen.every,
            entities: processes as u64,
            lost: seen.lost,
            kernel_lost: seen.lost,
            missed: counters.missed,
            recall_percent: seen
                .kernel
                .then(|| recall_percent(counters.announced, counters.missed.saturating_add(seen.lost))),
        }
    }
}

/// Starts that were announced, in percent of these and those that were not; 100 while there were none of either. Nobody knows
/// what the kernel lost, so each of its losses counts as a start: the true share is never lower than this.
fn recall_percent(announced: u64, unannounced: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let (part, all) = (announced as f64, announced.saturating_add(unannounced).max(1) as f64);
    if unannounced == 0 { 100.0 } else { part * 100.0 / all }
}

/// Whether a record of this topic is a process event.
pub(crate) fn is_process_topic(topic: &str) -> bool {
    [EventType::Start, EventType::Stop, EventType::Modify, EventType::Suspicious]
        .iter()
        .any(|kind| process_topic(*kind) == topic)
}

#[cfg(test)]
mod tests;
