//! What the tasks of one collector share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use daemoneye_lib::ledger::proof::AGENT_PER_S;
use daemoneye_lib::proto::{CollectorHealth, Register, Sequence};
use tokio::sync::{Mutex, mpsc, watch};

use super::allowance::Allowance;
use super::ranges::Cover;
use super::registrations::Registrations;
use super::signatures::{Interval, Unsigned};
use super::source_task::SourceHandle;
use super::state::State;
use crate::error::CollectorError;
use crate::ledger::{Draft, Ledger, hex};
use crate::platform;
use crate::source::{EventSource, Settings, SourceHealth, Tasks};
use crate::wal::{Losses, Wal};

/// How long a source may take to say how it is, before health says that it does not answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) version: String,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) tasks: Option<Arc<dyn Tasks>>,
    pub(crate) handle: SourceHandle,
    pub(crate) wal: Arc<Wal>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) cover: Cover,
    /// Agents that it met and of which the ledger has not heard yet.
    pub(crate) registrations: Registrations,
    /// What the log lost and the ledger has not heard of yet.
    pub(super) untold: Mutex<Losses>,
    pub(crate) settings: watch::Sender<Settings>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) heartbeat_interval: watch::Sender<Duration>,
    pub(crate) committed: watch::Sender<Option<Sequence>>,
    /// Last record given to the bus or the follower.
    pub(crate) sent: watch::Sender<Option<Sequence>>,
    /// The newest checkpoint's note of this run; empty without one.
    pub(crate) checkpoint: watch::Sender<String>,
    /// What the next heartbeat entry is over.
    pub(super) interval: Mutex<Interval>,
    /// How long one is, unless the state changes in it.
    pub(super) ledger_heartbeat: Duration,
    /// What the source said last of how it is.
    pub(super) heard: std::sync::Mutex<SourceHealth>,
    /// How often signing has failed since it last worked, and why.
    pub(super) unsigned: std::sync::Mutex<Unsigned>,
    /// Entries that the agent may have written.
    pub(crate) agent_entries: Allowance,
    /// Orders of the agent that leave an entry.
    pub(crate) orders: Allowance,
    /// Where the next record to be sent begins in the stream.
    pub(crate) sent_place: AtomicU64,
    pub(crate) connected: AtomicBool,
    pub(crate) pressure_count: AtomicU64,
    pub(crate) buffer_bytes: u64,
    pub(crate) wal_max_bytes: u64,
    /// The last sign of life of earlier runs, µs since the Unix epoch.
    pub(crate) silent_since_us: Option<i64>,
    /// Began without the agent's word.
    pub(crate) began_alone: AtomicBool,
    /// What every health answer says of this run, such as what the jail lacks.
    pub(crate) standing_notes: Vec<String>,
    pub(crate) started: tokio::time::Instant,
    /// What ends the collector; the first one counts.
    pub(crate) fatal: mpsc::Sender<CollectorError>,
}

impl Shared {
    /// Bytes between the WAL and the bus, in percent of the buffer; 0 while there is no bus, because then the WAL itself is what waits
    /// and its own bound holds.
    pub(crate) fn buffer_percent(&self) -> f64 {
        if !self.connected.load(Ordering::Relaxed) {
            return 0.0;
        }
        let bytes = self.wal.reader().end().saturating_sub(self.sent_place.load(Ordering::Relaxed));
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = bytes as f64 * 100.0 / self.buffer_bytes.max(1) as f64;
        percent
    }

    /// Chains an entry of this collector; a ledger that cannot be synced ends the collector.
    pub(crate) async fn note(&self, action: &'static str, payload: serde_json::Value) {
        let draft = Draft::now(&self.id, action, payload.to_string().into_bytes());
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || ledger.append(draft)).await {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => self.failed(error, action),
        }
    }

    /// A failed sync ends the collector, a full disk does not.
    pub(crate) fn failed(&self, error: CollectorError, what: &str) {
        tracing::error!(%error, what, "the collector's own records cannot be written or read");
        if matches!(error, CollectorError::SyncFailed { .. }) {
            // Full: another one ends it already.
            self.fatal.try_send(error).ok();
        }
    }

    /// What the collector says when it announces itself.
    pub(crate) fn registration(&self) -> Register {
        Register {
            collector_id: self.id.clone(),
            collector_type: self.kind.clone(),
            version: self.version.clone(),
            pid: std::process::id(),
            capabilities: Some(self.source.capabilities()),
            last: self.wal.progress().borrow().written,
            ledger_outbox_id: self.ledger.head().outbox_id,
        }
    }

    /// Every field is measured now.
    pub(crate) async fn health(&self) -> CollectorHealth {
        let source = self.source_health().await;
        let settings = self.settings.borrow().clone();
        let progress = self.wal.progress().borrow().clone();
        let stats = self.wal.stats();
        let head = self.ledger.head();
        let capabilities = self.source.capabilities();
        let sub_status = self.sub_status(&source.sub_status, source.unhealthy);
        let trouble = self.trouble(source.unhealthy, &sub_status);
        CollectorHealth {
            state: self.state.borrow().word().to_owned(),
            source: self.source.name().to_owned(),
            source_reason: capabilities.source_reason,
            snapshot_interval_ms: millis(settings.interval),
            original_interval_ms: millis(settings.original_interval),
            cycles: source.cycles,
            events: stats.appended,
            errors: source.errors,
            processes: source.entities,
            lost: source.lost + stats.lost,
            bus_connected: self.connected.load(Ordering::Relaxed),
            buffer_percent: self.buffer_percent(),
            backpressure_count: self.pressure_count.load(Ordering::Relaxed),
            last: progress.written,
            durable: progress.durable,
            trimmed: stats.trimmed,
            wal_bytes: stats.bytes,
            wal_segments: stats.segments,
            ledger_entries: head.entries,
            ledger_head: hex(&head.hash),
            rss_bytes: platform::resident_bytes(),
            uptime_ms: millis(self.started.elapsed()),
            sub_status,
            trouble,
            notes: self.notes(source.notes, stats.unprepared),
            ledger_dir: self.ledger.dir().display().to_string(),
            recall_percent: source.recall_percent,
            kernel_lost: source.kernel_lost,
            missed: source.missed,
            wal_lost: stats.lost,
            wal_max_bytes: self.wal_max_bytes,
            buffer_bytes: self.buffer_bytes,
            max_events_in_flight: settings.max_events_in_flight,
            ledger_checkpoint: self.checkpoint.borrow().clone(),
            ledger_trouble: self.ledger_trouble(),
        }
    }

    /// A source that does not answer keeps the counters that it told last: with others, what it tells next would look as if it had
    /// happened since, or hide what has.
    pub(super) async fn source_health(&self) -> SourceHealth {
        let asked = tokio::time::timeout(HEALTH_TIMEOUT, self.source.health()).await;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Ok(told) => {
                heard.clone_from(&told);
                told
            }
            Err(_) => SourceHealth {
                unhealthy: true,
                announced: false,
                sub_status: String::new(),
                notes: vec!["the source does not answer; its numbers are those that it told last".to_owned()],
                ..heard.clone()
            },
        }
    }

    fn notes(&self, mut notes: Vec<String>, unprepared: u64) -> Vec<String> {
        if self.began_alone.load(Ordering::Relaxed) {
            notes.push("collection began without the agent's word".to_owned());
        }
        if unprepared > 0 {
            notes.push(format!("{unprepared} log segments were not ready in time and had to grow"));
        }
        notes.extend(self.standing_notes.iter().cloned());
        notes.extend(self.cover.damage.iter().map(|what| format!("the ledger is damaged: {what}")));
        let (appends, orders) = (self.agent_entries.waited(), self.orders.waited());
        if appends > 0 {
            notes.push(format!("the agent's audit entries had to wait {appends} times: above {AGENT_PER_S} a second"));
        }
        if orders > 0 {
            notes.push(format!("orders and connections of the agent had to wait {orders} times: there were too many"));
        }
        notes
    }

    /// Why the ledger is damaged or is not signed; empty where it is sound.
    fn ledger_trouble(&self) -> String {
        let unsigned = || self.unsigned.lock().unwrap_or_else(PoisonError::into_inner).trouble();
        self.cover.damage.clone().or_else(unsigned).unwrap_or_default()
    }

    /// A collector that waits, pauses or stops does what it was told to.
    pub(super) fn trouble(&self, unhealthy: bool, sub_status: &str) -> String {
        let collects = matches!(*self.state.borrow(), State::Running);
        let fine = self.handle.is_running() && !unhealthy;
        if collects && !fine { sub_status.to_owned() } else { String::new() }
    }

    pub(super) fn sub_status(&self, source: &str, unhealthy: bool) -> String {
        let run = self.handle.status();
        match (source.is_empty(), unhealthy) {
            (true, false) => run,
            (true, true) => format!("{run}, unhealthy"),
            (false, false) => format!("{run}, {source}"),
            (false, true) => format!("{run}, {source}, unhealthy"),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
