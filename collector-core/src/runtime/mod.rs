//! Wires source → WAL → publisher → heartbeat → control, once for every collector.
//!
//! Collection never waits for the agent: a lost one costs nothing but disk, and one that comes back is given everything behind
//! what it says it committed. Without a bus the collector is standalone and an agent that comes later replays all of it.

mod actor;
mod allowance;
mod losses;
mod pressure;
mod ranges;
mod registrations;
mod shared;
mod signatures;
mod silence;
mod sink;
mod source_task;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::ledger::heartbeat::HEARTBEAT_INTERVAL;
use daemoneye_lib::proto::{Record, Sequence};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(crate) use actor::MAILBOX;
pub(crate) use actor::Message;
pub(crate) use registrations::Registration;
pub(crate) use shared::{Shared, millis};
pub use sink::EventSink;
pub use state::State;

use crate::disk::Disk;
use crate::error::CollectorError;
use crate::ledger::{LedgerOptions, TreeOptions};
use crate::source::{EventSource, Tasks, TriggerableCollector};
use crate::wal::{SyncMode, WalOptions};

/// The agent's socket and this collector's token.
#[derive(Clone)]
pub struct BusOptions {
    /// `bus.sock`.
    pub socket: PathBuf,
    /// From the token file.
    pub token: Vec<u8>,
}

/// What a follower is given: every record once it may be seen.
pub type Follower = Arc<dyn Fn(&Record) + Send + Sync>;

/// What is called when the logs are open.
pub type OnOpened = Arc<dyn Fn() + Send + Sync>;

/// How a collector ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// `signal`, `graceful shutdown`, `force shutdown`.
    pub reason: &'static str,
    /// Last record written.
    pub last: Option<Sequence>,
}

/// A collector ready to run.
#[derive(Clone)]
pub struct RuntimeBuilder {
    id: String,
    kind: String,
    version: String,
    source: Option<Arc<dyn EventSource>>,
    tasks: Option<Arc<dyn Tasks>>,
    bus: Option<BusOptions>,
    follower: Option<Follower>,
    opened: Option<OnOpened>,
    interval: Duration,
    begin_timeout: Duration,
    heartbeat_interval: Duration,
    buffer_bytes: u64,
    max_events_in_flight: u64,
    wal: WalOptions,
    ledger: LedgerOptions,
    ledger_heartbeat: Duration,
    config_note: Option<serde_json::Value>,
    sandbox_note: Option<serde_json::Value>,
    standing_notes: Vec<String>,
}

/// Entry point of the SDK.
#[derive(Debug, Clone, Copy)]
pub struct Runtime;

impl Runtime {
    /// A collector that keeps its logs in `data_dir/wal` and `data_dir/audit`.
    #[must_use]
    pub fn builder(id: impl Into<String>, kind: impl Into<String>, data_dir: impl Into<PathBuf>) -> RuntimeBuilder {
        let (id, data_dir) = (id.into(), data_dir.into());
        RuntimeBuilder {
            wal: WalOptions::new(data_dir.join("wal"), id.clone()),
            ledger: LedgerOptions::new(data_dir.join("audit")),
            id,
            kind: kind.into(),
            version: daemoneye_lib::BUILD.to_owned(),
            source: None,
            tasks: None,
            bus: None,
            follower: None,
            opened: None,
            interval: Duration::from_secs(5),
            begin_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(30),
            buffer_bytes: 10 * 1024 * 1024,
            max_events_in_flight: 8_192,
            ledger_heartbeat: HEARTBEAT_INTERVAL,
            config_note: None,
            sandbox_note: None,
            standing_notes: Vec::new(),
        }
    }
}

impl RuntimeBuilder {
    /// The source.
    #[must_use]
    pub fn source(mut self, source: Arc<dyn EventSource>) -> Self {
        self.source = Some(source);
        self
    }

    /// Answers to `ExecuteTask`; without it tasks are refused.
    #[must_use]
    pub fn tasks(mut self, tasks: Arc<dyn Tasks>) -> Self {
        self.tasks = Some(tasks);
        self
    }

    /// Source and tasks in one.
    #[must_use]
    pub fn triggerable<T: TriggerableCollector>(self, collector: Arc<T>) -> Self {
        self.source(Arc::clone(&collector) as Arc<dyn EventSource>).tasks(collector)
    }

    /// The agent; without it the collector is standalone.
    #[must_use]
    pub fn bus(mut self, bus: BusOptions) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Standalone: gets every record of this run. It is called on a blocking thread, in order.
    #[must_use]
    pub fn follow(mut self, follower: Follower) -> Self {
        self.follower = Some(follower);
        self
    }

    /// Called once, when the logs are open and locked: from here on it captures.
    #[must_use]
    pub fn on_opened(mut self, opened: OnOpened) -> Self {
        self.opened = Some(opened);
        self
    }

    /// Version told at registration; default: this build's.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Time between two looks of the source; default 5 s.
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long it waits for `BeginMonitoring` before it begins by itself; default 60 s.
    #[must_use]
    pub const fn begin_timeout(mut self, timeout: Duration) -> Self {
        self.begin_timeout = timeout;
        self
    }

    /// Default 30 s; the agent's answer to the registration overrides it.
    #[must_use]
    pub const fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// Bytes between the WAL and the bus at which backpressure is at 100 %; default 10 MiB.
    #[must_use]
    pub const fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Default: 16 MiB segments, 1 GiB in all, group sync.
    #[must_use]
    pub const fn wal(mut self, segment_bytes: u64, max_bytes: u64, sync: SyncMode) -> Self {
        self.wal.segment_bytes = segment_bytes;
        self.wal.max_bytes = max_bytes;
        self.wal.sync = sync;
        self
    }

    /// Default 4 MiB.
    #[must_use]
    pub const fn ledger_segment_bytes(mut self, bytes: u64) -> Self {
        self.ledger.segment_bytes = bytes;
        self
    }

    /// Time between two heartbeat entries of the ledger, at most [`HEARTBEAT_INTERVAL`], the default: proofs reach no further around a
    /// time.
    #[must_use]
    pub fn ledger_heartbeat(mut self, interval: Duration) -> Self {
        self.ledger_heartbeat = interval.min(HEARTBEAT_INTERVAL);
        self
    }

    /// The ledger's tree and who signs it; default: a plain chain.
    #[must_use]
    pub fn ledger_tree(mut self, tree: TreeOptions) -> Self {
        self.ledger.tree = Some(tree);
        self
    }

    /// Both logs on another disk; [`RealDisk`](crate::RealDisk) is the default, tests use their own.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.wal.disk = Arc::clone(&disk);
        self.ledger.disk = disk;
        self
    }

    /// The configuration in effect, for the ledger's `config` entry at start; no secrets.
    #[must_use]
    pub fn config_note(mut self, config: serde_json::Value) -> Self {
        self.config_note = Some(config);
        self
    }

    /// The jail as it was read back and probed: `report` for the ledger's `sandbox` entry at start, `notes` for every health
    /// answer.
    #[must_use]
    pub fn sandbox_note(mut self, report: serde_json::Value, notes: Vec<String>) -> Self {
        self.sandbox_note = Some(report);
        self.standing_notes = notes;
        self
    }

    /// Runs until `shutdown` fires or the agent ends it. Call it inside a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`CollectorError`]; its `exit()` is the exit code.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Stopped, CollectorError> {
        actor::run(self, shutdown).await
    }
}
