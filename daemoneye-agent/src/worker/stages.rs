//! The worker's start and end as types: [`Loading`] holds the store, [`Ready`] listens, [`Steady`] has a collector,
//! and its end lets everything out that is still inside.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use daemoneye_engine::store::{Store, StoreError, StoreOptions};
use daemoneye_eventbus::{Broker, BrokerOptions, BrokerStreams, BusError, serve_operators};
use daemoneye_lib::config::AGENT;
use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::Dropped;
use daemoneye_lib::proto::{CollectorRequest, Empty, collector_request::Verb};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::authority::BusGate;
use super::ingest::{self, Ingest};
use super::integrity::Troubles;
use super::ledgers::Unmet;
use super::rules::Rules;
use super::{Counters, End, Followers, Phase, Roster, Worker, audit, banner, host, notices, rounds};
use crate::error::AgentError;
use crate::jail;
use crate::link::{self, Receiver, Sender, ToParent, ToWorker};
use crate::operator::{Operators, VIEWERS_GROUP};
use crate::platform::{self, GroupMay};
use crate::settings::Settings;
use crate::sinks::delivery::{self, SinkState};
use crate::sinks::{self, AlertSink};

/// Words to the parent that may wait; it reads at once.
const PARENT_QUEUE: usize = 32;
/// How long the summary waits for the source's name: it is to stand there within a second.
const SUMMARY_WAIT: Duration = Duration::from_millis(900);
/// How long a worker without a parent may take for its last seal.
const ORPHAN_WAIT: Duration = Duration::from_secs(1);
/// How long, and how often, the lock of the data directory is waited for: the worker of an agent that was killed may hold it until
/// its drain is over. Whoever gives up ends the new agent as well, so a busy host has several times as long as an idle one takes.
const LOCK_WAIT: Duration = Duration::from_secs(15);
const _: () = assert!(
    4 * (ORPHAN_WAIT.as_millis() + crate::DRAIN.as_millis()) < LOCK_WAIT.as_millis(),
    "the next agent waits longer than the last worker lasts"
);
const LOCK_POLL: Duration = Duration::from_millis(100);
/// How long the ledger may take to note the stop.
const AUDIT_WAIT: Duration = Duration::from_millis(1500);
/// How long procmond may take to answer that it is about to end, and then to hang up.
const COLLECTOR_WAIT: Duration = Duration::from_secs(3);
/// How long anything else may take at the end; the parent kills after 10 s in all.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Files and ports only as this worker needs them, from here on.
pub(crate) fn confine(settings: &Settings) -> Result<Dropped, AgentError> {
    platform::take_name(AGENT.name);
    platform::mask_new_files(GroupMay::Read);
    // A grant needs what it is for.
    for (dir, flag) in [(&settings.data_dir, "--data-dir"), (&settings.runtime_dir, "--runtime-dir")] {
        let fresh = !dir.exists();
        platform::create_dir(dir, 0o750).map_err(|source| AgentError::Directory { dir: dir.clone(), flag, source })?;
        if fresh {
            share(dir);
        }
    }
    Ok(jail::enter(&jail::worker(settings), &settings.sandbox_required)?)
}

/// Runs the worker of the parent at the other end of standard input.
pub(crate) async fn run(settings: Settings, jail: Dropped) -> Result<Exit, AgentError> {
    let link = platform::inherited_end()
        .and_then(link::open)
        .map_err(|source| AgentError::io("find the parent (start this with `daemoneye-agent run`)", "", source))?;
    let mut ready = Loading::begin(settings).await?.listen(link, jail).await?;
    let end = match ready.registered().await {
        None => Steady::of(&mut ready).ended().await,
        Some(end) => end,
    };
    ready.stop(end).await
}

/// The store is open and locked, the rules are read.
struct Loading {
    settings: Settings,
    store: Arc<Store>,
    rules: Rules,
}

impl Loading {
    async fn begin(settings: Settings) -> Result<Self, AgentError> {
        // Nothing is put into a data directory that cannot be worked on; one that was may belong to a worker that is ending.
        let is_new = std::fs::read_dir(&settings.data_dir).is_ok_and(|mut held| held.next().is_none());
        if is_new && platform::answers(&settings.bus_socket()) {
            return Err(BusError::MisuseInUse { path: settings.bus_socket() }.into());
        }
        let store = Arc::new(open(&settings).await?);
        let rules = Rules::new(&settings.rules);
        Ok(Self { settings, store, rules })
    }

    /// Opens the bus and the operator socket and starts everything that works in the background.
    async fn listen(self, (sender, receiver): (Sender, Receiver), jail: Dropped) -> Result<Ready, AgentError> {
        // No other file is made until the sockets stand: ingest starts after them.
        platform::mask_new_files(GroupMay::Write);
        let gate = Arc::new(BusGate::new(&self.settings, Arc::clone(&self.store)));
        let (broker, streams) = Broker::start(BrokerOptions::new(self.settings.bus_socket(), gate)).await?;
        let (ending, endings) = mpsc::channel(4);
        let (parent, words) = mpsc::channel(PARENT_QUEUE);
        let sinks = sinks::make(&self.settings);
        let newest_us = self.store.snapshot().segments.iter().map(|segment| segment.dated.us()).max().unwrap_or(0);
        let worker = Arc::new(Worker {
            sinks: sinks.iter().map(|sink| SinkState::new(sink.name())).collect(),
            settings: self.settings,
            store: self.store,
            rules: self.rules,
            roster: Roster::after(newest_us),
            followers: Followers::default(),
            broker,
            counters: Counters::default(),
            clock_read: Mutex::new(Instant::now()),
            started: Instant::now(),
            late: AtomicBool::new(false),
            outage: AtomicBool::new(false),
            pushing: tokio::sync::Mutex::default(),
            handing: tokio::sync::Mutex::default(),
            jail: OnceLock::new(),
            phase: watch::Sender::new(Phase::Loading),
            children: Mutex::default(),
            parent_jail: Mutex::default(),
            alerts: watch::Sender::new(0),
            refusals: Mutex::default(),
            gaps: Mutex::default(),
            ledger_troubles: Troubles::default(),
            unmet: Unmet::default(),
            parent,
            ending,
            shutdown: CancellationToken::new(),
        });
        begin(&worker).await?;
        tokio::spawn(write_words(sender, words));
        tokio::spawn(read_words(Arc::clone(&worker), receiver));
        Ready::begin(worker, streams, endings, sinks, jail).await
    }
}

/// Rules and the first entry for the ledger. On a disk without room ingest sees to both before it takes an event.
async fn begin(worker: &Arc<Worker>) -> Result<(), AgentError> {
    if worker.store.is_unsettled() {
        worker.late.store(true, Ordering::SeqCst);
        return Ok(());
    }
    match worker.begin().await {
        Err(error) if error.may_pass() => {
            tracing::warn!(%error, "the disk takes nothing; the worker begins when it does");
            worker.late.store(true, Ordering::SeqCst);
            Ok(())
        }
        other => Ok(other?),
    }
}

/// The rest of the jail, for health and the ledger.
async fn close(worker: &Arc<Worker>, jail: Dropped) -> Result<(), AgentError> {
    platform::warm_up();
    let report = jail::close(jail)?;
    for note in report.notes() {
        tracing::debug!("{note}");
    }
    let payload = audit::sandbox(&report);
    worker.jail.get_or_init(|| report);
    if !worker.is_late() {
        worker.audit("agent".to_owned(), "sandbox", payload).await;
    }
    Ok(())
}

/// Collectors, agent and operators meet in one group; without it a socket stays open to the agent's own group only.
fn share(path: &Path) {
    match platform::give_to_group(path, VIEWERS_GROUP) {
        Ok(given) => tracing::debug!(path = %path.display(), given, "shared with the group {VIEWERS_GROUP}"),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "is not given to the group {VIEWERS_GROUP}: run the agent as a member of it");
        }
    }
}

/// Opens the store. The worker of an agent that was killed a moment ago may still be sealing, so a lock is waited for.
async fn open(settings: &Settings) -> Result<Store, AgentError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let options = store_options(settings);
        let opened = tokio::task::spawn_blocking(move || Store::open(options)).await;
        match opened.map_err(|source| AgentError::io("open the store", "", std::io::Error::other(source)))? {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => tokio::time::sleep(LOCK_POLL).await,
            outcome => return Ok(outcome?),
        }
    }
}

fn store_options(settings: &Settings) -> StoreOptions {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let usual = StoreOptions::new(&settings.data_dir);
    StoreOptions {
        ledger: settings.procmond.audit_dir.clone().unwrap_or_else(|| usual.ledger.clone()),
        seal_rows: settings.store.seal_rows,
        seal_bytes: settings.store.seal_bytes,
        seal_after: settings.store.seal_after,
        retention: settings.store.retention,
        retention_bytes: settings.store.retention_bytes,
        alert_bytes: settings.alerts.retention_bytes,
        compaction_bytes_per_s: settings.store.compaction_bytes_per_s,
        sinks: settings.sink_names(),
        host: host::name(),
        dedup_window_s: narrow(settings.alerts.dedup_window.as_secs()),
        rate_per_rule: narrow(settings.alerts.rate_per_rule_per_minute),
        rate_total: narrow(settings.alerts.rate_per_minute),
        ..usual
    }
}

async fn write_words(mut sender: Sender, mut words: mpsc::Receiver<ToParent>) {
    while let Some(word) = words.recv().await {
        if sender.send(&word).await.is_err() {
            return;
        }
    }
}

/// Does what the parent says; its silence for ever is its death.
async fn read_words(worker: Arc<Worker>, mut receiver: Receiver) {
    while let Some(word) = receiver.next().await {
        match word {
            ToWorker::Children { parent, children, jail } => {
                *worker.parent_jail.lock().unwrap_or_else(PoisonError::into_inner) = jail;
                *worker.children.lock().unwrap_or_else(PoisonError::into_inner) = (parent, children);
            }
            ToWorker::Reload => {
                if let Err(error) = worker.reload_rules("agent".to_owned()).await {
                    tracing::warn!(%error, "rules were not read again");
                }
            }
            ToWorker::Stop => return worker.end(End::Asked),
        }
    }
    worker.end(End::Orphaned);
}

/// Bus, ingest, operators: everything but a collector.
struct Ready {
    worker: Arc<Worker>,
    ingest: Ingest,
    endings: mpsc::Receiver<End>,
    operators: JoinHandle<()>,
    deliveries: Vec<JoinHandle<()>>,
    sinks: Vec<Box<dyn AlertSink>>,
}

impl Ready {
    async fn begin(
        worker: Arc<Worker>,
        streams: BrokerStreams,
        endings: mpsc::Receiver<End>,
        sinks: Vec<Box<dyn AlertSink>>,
        jail: Dropped,
    ) -> Result<Self, AgentError> {
        let service = Operators::live(Arc::clone(&worker))
            .map_err(|source| AgentError::io("start the query thread", "", source))?;
        let cli = worker.settings.cli_socket();
        let operators = serve_operators(cli, Arc::new(service), worker.shutdown.clone()).await?;
        platform::mask_new_files(GroupMay::Read);
        share(&worker.settings.bus_socket());
        share(&worker.settings.cli_socket());
        close(&worker, jail).await?;
        let ingest = ingest::start(Arc::clone(&worker), streams.runs)
            .map_err(|source| AgentError::io("start the ingest thread", "", source))?;
        // Before notices are followed: a collector that registers at once moves the phase on, and that must stand.
        worker.phase.send_replace(Phase::Ready);
        tokio::spawn(notices::follow(Arc::clone(&worker), streams.notices));
        rounds::start(&worker);
        worker.tell_parent(ToParent::Listening);
        Ok(Self { worker, ingest, endings, operators, deliveries: Vec::new(), sinks })
    }

    /// Waits for the first collector; `None` when it came, else what ends the worker.
    async fn registered(&mut self) -> Option<End> {
        let worker = Arc::clone(&self.worker);
        let mut phase = worker.phase.subscribe();
        let timeout = worker.settings.procmond.registration_timeout;
        let deadline = tokio::time::Instant::now() + timeout;
        let mut said = false;
        loop {
            let summary = tokio::time::Instant::from_std(worker.started + SUMMARY_WAIT);
            tokio::select! {
                end = self.endings.recv() => return Some(end.unwrap_or(End::Orphaned)),
                changed = phase.wait_for(|phase| *phase == Phase::SteadyState) => {
                    drop(changed);
                    if said {
                        banner::print_sources(&worker).await;
                    }
                    self.say_hello(&mut said).await;
                    return None;
                }
                () = tokio::time::sleep_until(summary), if !said => self.say_hello(&mut said).await,
                () = tokio::time::sleep_until(deadline) => {
                    worker.phase.send_replace(Phase::StartupFailed);
                    let socket = worker.settings.bus_socket();
                    return Some(End::Failed(AgentError::StartupFailed { seconds: timeout.as_secs(), socket }));
                }
            }
        }
    }

    /// The summary first, then alerts: nobody has to look for it between them.
    async fn say_hello(&mut self, said: &mut bool) {
        if !std::mem::replace(said, true) {
            banner::print(&self.worker).await;
            for (sink, state) in self.sinks.drain(..).zip(&self.worker.sinks) {
                let task = delivery::run(Arc::clone(&self.worker), sink, Arc::clone(state));
                self.deliveries.push(tokio::spawn(task));
            }
        }
    }

    /// Lets out what is still inside, each step bounded, and ends.
    async fn stop(self, end: End) -> Result<Exit, AgentError> {
        let Self { worker, ingest, operators, deliveries, .. } = self;
        worker.phase.send_replace(Phase::ShuttingDown);
        let (reason, outcome) = match end {
            End::Asked => ("stopped in order", Ok(Exit::Ok)),
            End::Orphaned => {
                leave(&worker, ingest).await;
                return Ok(Exit::Ok);
            }
            End::Failed(error) => ("failed", Err(error)),
        };
        tracing::debug!(reason, "stopping");
        worker.audit("agent".to_owned(), "stop", json!({ "reason": reason })).await;
        ingest.seal(LAST_WAIT).await;
        audit::grown(&worker).await;
        let _late = tokio::time::timeout(AUDIT_WAIT, audit::drain(&worker)).await;
        if worker.settings.procmond.spawn && outcome.is_ok() {
            stop_collectors(&worker).await;
        }
        ingest.stop(COLLECTOR_WAIT).await;
        worker.shutdown.cancel();
        for task in deliveries.into_iter().chain([operators]) {
            let _late = tokio::time::timeout(LAST_WAIT, task).await;
        }
        let _late = tokio::time::timeout(LAST_WAIT, worker.broker.clone().shutdown()).await;
        outcome
    }
}

/// Ends without a parent: the next agent may be waiting for the data directory. Nothing is let out that would have to be waited
/// for; what is not sealed is in the collectors' logs, what is to be delivered or noted in the store.
async fn leave(worker: &Arc<Worker>, ingest: Ingest) {
    let reason = "the parent process is gone";
    tracing::debug!(reason, "stopping");
    // Merges and checks end first: they hold the store.
    worker.shutdown.cancel();
    let last = async {
        worker.audit("agent".to_owned(), "stop", json!({ "reason": reason })).await;
        ingest.stop(ORPHAN_WAIT).await;
    };
    let _late = tokio::time::timeout(ORPHAN_WAIT, last).await;
}

/// Asks every collector to end and waits until it has hung up, so that its last events are in.
async fn stop_collectors(worker: &Arc<Worker>) {
    let request = CollectorRequest { verb: Some(Verb::GracefulShutdown(Empty {})) };
    for collector in worker.broker.connected() {
        if let Err(error) = worker.broker.call(&collector, request.clone(), COLLECTOR_WAIT).await {
            tracing::warn!(%collector, %error, "did not take the request to stop");
        }
    }
    let gone = async {
        while !worker.broker.connected().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(COLLECTOR_WAIT, gone).await.is_err() {
        tracing::warn!("a collector has not hung up; its last events follow at the next start");
    }
}

/// A collector has registered.
struct Steady<'a> {
    ready: &'a mut Ready,
}

impl<'a> Steady<'a> {
    const fn of(ready: &'a mut Ready) -> Self {
        Self { ready }
    }

    /// Waits for what ends the worker.
    async fn ended(self) -> End {
        self.ready.endings.recv().await.unwrap_or(End::Orphaned)
    }
}
