//! What a collector's author implements: a source of events, and answers to tasks.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::proto::{
    CollectionCapabilities, DetectionResult, DetectionTask, FaultKind, MonitoringDomain, Record, Sequence,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::error::CollectorError;
pub use crate::runtime::EventSink;
use crate::wal::WalReader;

/// What a source can do, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceCaps(u32);

impl SourceCaps {
    /// Sees processes.
    pub const PROCESS: Self = Self(1);
    /// Sees network activity.
    pub const NETWORK: Self = Self(2);
    /// Sees files.
    pub const FILESYSTEM: Self = Self(4);
    /// Sees load.
    pub const PERFORMANCE: Self = Self(8);
    /// Sees things within [`Self::REALTIME_BOUND`] of their happening.
    pub const REALTIME: Self = Self(16);
    /// The kernel announces events; nothing is missed between two looks.
    pub const KERNEL_LEVEL: Self = Self(32);
    /// Sees everybody's, not only its own user's.
    pub const SYSTEM_WIDE: Self = Self(64);
    /// Longest interval of a source that may call itself realtime: an operator who waits for an alert gives up after about ten seconds.
    pub const REALTIME_BOUND: Duration = Duration::from_secs(10);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As they travel.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The capability report of a source with these bits, with its domains filled in; tasks and notes are the source's to add.
    #[must_use]
    pub fn describe(self, source: &str, reason: &str) -> CollectionCapabilities {
        let domains = [
            (Self::PROCESS, MonitoringDomain::Process),
            (Self::NETWORK, MonitoringDomain::Network),
            (Self::FILESYSTEM, MonitoringDomain::Filesystem),
            (Self::PERFORMANCE, MonitoringDomain::Performance),
        ];
        CollectionCapabilities {
            bits: self.0,
            domains: domains.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, d)| (*d).into()).collect(),
            source: source.to_owned(),
            source_reason: reason.to_owned(),
            ..Default::default()
        }
    }
}

impl std::ops::BitOr for SourceCaps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// One thing that happened, encoded once; these bytes go to the WAL, the bus and every replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEvent {
    /// Topic it is published under.
    pub topic: Cow<'static, str>,
    /// When it happened, µs since the Unix epoch.
    pub time_us: i64,
    /// Protobuf.
    pub payload: Vec<u8>,
    /// What the ledger says of it, where that is known already.
    content: Option<Content>,
}

impl SourceEvent {
    /// An event of `topic`.
    #[must_use]
    pub fn new(topic: impl Into<Cow<'static, str>>, time_us: i64, payload: Vec<u8>) -> Self {
        Self { topic: topic.into(), time_us, payload, content: None }
    }

    /// The same, with what the ledger says of it, by whoever has it decoded.
    #[must_use]
    pub fn with_content(self, content: Option<Content>) -> Self {
        Self { content, ..self }
    }

    /// What the ledger says of it.
    pub(crate) fn content(&self) -> Content {
        self.content.unwrap_or_else(|| Content::of_record(&self.topic, &self.payload))
    }
}

/// Why a source or task failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source itself: what failed, on what, what to do.
    #[error("{0}")]
    Failed(String),
    /// The task is larger than the collector takes.
    #[error("{0}")]
    LimitTask(String),
    /// The task makes no sense.
    #[error("{0}")]
    MisuseTask(String),
    /// The collector is shutting down; nothing more is taken.
    #[error("the collector is shutting down")]
    Stopped,
    /// This kind of task is not among those that the collector has announced.
    #[error("task {0} is not among those that this collector announces; ask for its capabilities")]
    UnsupportedTask(String),
}

impl SourceError {
    /// The closed kind that goes over the socket.
    #[must_use]
    pub const fn fault_kind(&self) -> FaultKind {
        match self {
            Self::Failed(_) => FaultKind::Internal,
            Self::LimitTask(_) => FaultKind::ResourceExhausted,
            Self::MisuseTask(_) => FaultKind::InvalidRequest,
            Self::Stopped => FaultKind::Unavailable,
            Self::UnsupportedTask(_) => FaultKind::Refused,
        }
    }
}

/// What the agent or the configuration may change while a source runs. A source reads it at the beginning of each cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Time between two looks, stretched by backpressure.
    pub interval: Duration,
    /// Time between two looks as it was asked for.
    pub original_interval: Duration,
    /// Records on their way to the agent at a time.
    pub max_events_in_flight: u64,
    /// Nothing is to be collected; [`EventSink::emit`] waits meanwhile.
    pub paused: bool,
}

/// What a source works with while it runs.
#[derive(Clone)]
pub struct SourceContext {
    /// Where events go.
    pub events: EventSink,
    /// Read `interval` and `paused` at the beginning of each cycle.
    pub settings: watch::Receiver<Settings>,
    /// Fires when the source has to end.
    pub shutdown: CancellationToken,
    /// The WAL as it stands: a source that keeps a checkpoint reads the tail behind it here before its first cycle, and writes
    /// nothing down that is not [settled](WalReader::settled), or a power failure leaves a checkpoint of events that are gone.
    pub wal: WalReader,
}

impl SourceContext {
    /// The events of this collector after `after`, oldest first, up to the last one written when this was called. A source that meets an
    /// error has only half of its past and had better fail: it is started again.
    ///
    /// # Errors
    /// The WAL cannot be read, at its beginning or, as an item, further on.
    pub fn replay_from(
        &self,
        after: Option<Sequence>,
    ) -> Result<impl Iterator<Item = Result<Record, SourceError>>, SourceError> {
        let failed = |error: CollectorError| SourceError::Failed(format!("the log's tail cannot be read: {error}"));
        Ok(self.wal.replay_from(after).map_err(failed)?.map(move |record| record.map_err(failed)))
    }

    /// Waits for the next cycle, or returns `false` at shutdown. A pause ends the wait only when it ends.
    pub async fn next_cycle(&mut self) -> bool {
        let began = tokio::time::Instant::now();
        loop {
            let (interval, paused) = {
                let settings = self.settings.borrow_and_update();
                (settings.interval, settings.paused)
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return false,
                changed = self.settings.changed() => if changed.is_err() { return false },
                () = tokio::time::sleep_until(began + interval), if !paused => return true,
            }
        }
    }
}

/// How a source is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceHealth {
    /// `false`: it does not do its work.
    pub unhealthy: bool,
    /// One word or sentence: `baseline`, `steady`.
    pub sub_status: String,
    /// One line per thing that is missing or odd.
    pub notes: Vec<String>,
    /// Looks taken.
    pub cycles: u64,
    /// Looks that failed.
    pub errors: u64,
    /// What happens is announced to it; `false`: it sees what is there when it looks, and a time without a look is none that it watched.
    pub announced: bool,
    /// Time between two looks now; `None`: that of the settings.
    pub look: Option<Duration>,
    /// What it watches now (processes, connections, …).
    pub entities: u64,
    /// Events it knows it lost, whatever the cause.
    pub lost: u64,
    /// Part of `lost`: announcements that the kernel could not hand over.
    pub kernel_lost: u64,
    /// What only a snapshot found.
    pub missed: u64,
    /// Share of what appeared that was announced before a snapshot found it, in percent; `None` where nothing announces.
    /// What is in `kernel_lost` counts as not announced, of whatever kind it was, so this is the least that it can be.
    pub recall_percent: Option<f64>,
}

/// One way of capturing. Everything takes `&self`: health and tasks are asked while `start` runs.
#[async_trait]
pub trait EventSource: Send + Sync + 'static {
    /// `procfs`, `ebpf`.
    fn name(&self) -> &str;

    /// What it can see here and why it was chosen.
    fn capabilities(&self) -> CollectionCapabilities;

    /// Runs until `context.shutdown` fires. Called again after a restart.
    ///
    /// # Errors
    /// It cannot go on; the runtime says so in `health` and tries again after a pause.
    async fn start(&self, context: SourceContext) -> Result<(), SourceError>;

    /// Called after `start` has returned, to let go of what it holds.
    ///
    /// # Errors
    /// Something could not be let go.
    async fn stop(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Called about every heartbeat and before a trim, never from two tasks at once; has to answer at once.
    async fn health(&self) -> SourceHealth;

    /// Makes the source's own state durable; the WAL is then trimmed at most up to the returned sequence. `last` is the last record
    /// written. A source that needs no WAL tail after a restart keeps this default.
    ///
    /// # Errors
    /// The state cannot be written: the WAL is not trimmed.
    async fn checkpoint(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        Ok(last)
    }
}

/// Answers the agent's tasks (`ExecuteTask`).
#[async_trait]
pub trait Tasks: Send + Sync + 'static {
    /// Sends one result or several pages; every page but the last has `more` set. Stops when `cancel` fires. A page is at most 512 KiB,
    /// so that it fits into a frame.
    ///
    /// # Errors
    /// The task was not done; pages sent so far do not count.
    async fn execute(
        &self,
        task: DetectionTask,
        pages: mpsc::Sender<DetectionResult>,
        cancel: CancellationToken,
    ) -> Result<(), SourceError>;
}

/// A source that also answers tasks.
pub trait TriggerableCollector: EventSource + Tasks {}

impl<T: EventSource + Tasks> TriggerableCollector for T {}

/// A source that looks again and again. Wrapped in [`Monitored`] it is an [`EventSource`].
#[async_trait]
pub trait MonitorCollector: Send + Sync + 'static {
    /// As in [`EventSource::name`].
    fn name(&self) -> &str;
    /// As in [`EventSource::capabilities`].
    fn capabilities(&self) -> CollectionCapabilities;
    /// Called once before the first cycle of a run; reads checkpoints and the WAL's tail.
    ///
    /// # Errors
    /// The run cannot begin.
    async fn prepare(&self, _context: &SourceContext) -> Result<(), SourceError> {
        Ok(())
    }
    /// One look.
    ///
    /// # Errors
    /// This look failed; it is counted and the next one is tried.
    async fn cycle(&self) -> Result<Vec<SourceEvent>, SourceError>;
    /// Whether the look that was just taken has more events to give: the next cycle then follows at once and does not count.
    async fn unfinished(&self) -> bool {
        false
    }
    /// Called after the events of a cycle are in the WAL; `last` is the last of them.
    async fn written(&self, _last: Option<Sequence>) {}
    /// As in [`EventSource::checkpoint`].
    ///
    /// # Errors
    /// The state cannot be written.
    async fn checkpoint(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        Ok(last)
    }
    /// Cycles and errors are filled in by the wrapper.
    async fn health(&self) -> SourceHealth {
        SourceHealth::default()
    }
}

/// Runs a [`MonitorCollector`] at the interval of the settings.
pub struct Monitored<M> {
    monitor: Arc<M>,
    cycles: AtomicU64,
    errors: AtomicU64,
}

/// Share of failed cycles above which a monitor is unhealthy: one in five.
const UNHEALTHY_ONE_IN: u64 = 5;

impl<M: MonitorCollector> Monitored<M> {
    /// Wraps a monitor.
    #[must_use]
    pub const fn new(monitor: Arc<M>) -> Self {
        Self { monitor, cycles: AtomicU64::new(0), errors: AtomicU64::new(0) }
    }

    /// The monitor inside.
    #[must_use]
    pub const fn monitor(&self) -> &Arc<M> {
        &self.monitor
    }
}

#[async_trait]
impl<M: MonitorCollector> EventSource for Monitored<M> {
    fn name(&self) -> &str {
        self.monitor.name()
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.monitor.capabilities()
    }

    async fn start(&self, mut context: SourceContext) -> Result<(), SourceError> {
        self.monitor.prepare(&context).await?;
        loop {
            match self.monitor.cycle().await {
                Ok(events) => {
                    let last = context.events.emit(events).await?;
                    self.monitor.written(last).await;
                    if !context.shutdown.is_cancelled() && self.monitor.unfinished().await {
                        continue;
                    }
                }
                Err(error) => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(source = self.monitor.name(), %error, "a cycle failed");
                }
            }
            self.cycles.fetch_add(1, Ordering::Relaxed);
            if !context.next_cycle().await {
                return Ok(());
            }
        }
    }

    async fn health(&self) -> SourceHealth {
        let mut health = self.monitor.health().await;
        health.cycles = self.cycles.load(Ordering::Relaxed);
        health.errors = self.errors.load(Ordering::Relaxed);
        health.unhealthy |= health.errors * UNHEALTHY_ONE_IN > health.cycles;
        health
    }

    async fn checkpoint(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        self.monitor.checkpoint(last).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{Wal, WalOptions};

    fn context(settings: &watch::Sender<Settings>, dir: &std::path::Path) -> SourceContext {
        let (wal, _) = Wal::open(WalOptions::new(dir, "test")).unwrap();
        let (wal, shutdown) = (Arc::new(wal), CancellationToken::new());
        let reader = wal.reader();
        let events = EventSink::new(wal, settings.subscribe(), shutdown.clone());
        SourceContext { events, settings: settings.subscribe(), shutdown, wal: reader }
    }

    #[tokio::test(start_paused = true)]
    async fn another_interval_is_in_force_from_the_next_cycle_and_a_pause_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let settings = watch::Sender::new(Settings {
            interval: hour,
            original_interval: hour,
            max_events_in_flight: 1,
            paused: false,
        });
        let mut context = context(&settings, dir.path());
        let looks = Arc::new(AtomicU64::new(0));
        let (stop, counted) = (context.shutdown.clone(), Arc::clone(&looks));
        let source = tokio::spawn(async move {
            while context.next_cycle().await {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let after = async |seconds| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            looks.load(Ordering::Relaxed)
        };
        assert_eq!(after(3599).await, 0);
        settings.send_modify(|settings| settings.interval = Duration::from_secs(10));
        assert_eq!(after(1).await, 1, "the look that is waited for already");
        assert_eq!(after(100).await, 11);
        settings.send_modify(|settings| settings.paused = true);
        assert_eq!(after(1000).await, 11);
        settings.send_modify(|settings| settings.paused = false);
        assert_eq!(after(1).await, 12);
        stop.cancel();
        source.await.unwrap();
    }
}
