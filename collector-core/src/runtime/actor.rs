//! The collector's life: open, wait for the agent, run, drain.
//!
//! One task takes every message that changes the state, from a mailbox of [`MAILBOX`]; nothing in it waits for a scan or the bus,
//! so health and shutdown are answered while a scan runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use daemoneye_eventbus::{Client, IncomingCall};
use daemoneye_lib::ledger::event::Content;
use daemoneye_lib::ledger::proof::{AGENT_AT_ONCE, AGENT_PER_S};
use daemoneye_lib::ledger::{EventRange, RangeBuilder};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::collector_response::Answer;
use daemoneye_lib::proto::{CollectorResponse, CoverageGap, Record, Sequence};
use daemoneye_lib::topic::Topic;
use prost::Message as _;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::allowance::Allowance;
use super::ranges::{Cover, keep_covered};
use super::registrations::{Registrations, keep_told};
use super::shared::Shared;
use super::signatures::{Interval, keep_signed};
use super::source_task::{Order, SourceHandle, SourceTask};
use super::state::{Phase, State, WaitingForAgent};
use super::{RuntimeBuilder, Stopped};
use super::{pressure, silence};
use crate::error::CollectorError;
use crate::ledger::{Ledger, LedgerFound};
use crate::source::{Settings, SourceContext};
use crate::wal::{Losses, Recovered, Wal, now_us};
use crate::{control, publisher, wal};

/// Messages that wait for the collector; more than that is a peer that does not wait for answers.
pub(crate) const MAILBOX: usize = 100;
/// How long the end waits for the agent to take what is left: the WAL keeps it anyway.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the whole end may take: a source that has to be cut off, and what it left. Only a disk that hangs takes longer.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a forced end waits for the source, and every end for its last heartbeat and for tasks in the background.
const FORCED_TIMEOUT: Duration = Duration::from_secs(1);

/// What the state machine is told.
pub(crate) enum Message {
    /// The agent said BeginMonitoring.
    Begin,
    /// The agent asks for something that changes the state.
    Call(Box<IncomingCall>),
}

struct Opened {
    shared: Arc<Shared>,
    source_task: SourceTask,
    recovered: Recovered,
    ledger_found: LedgerFound,
    fatal: mpsc::Receiver<CollectorError>,
}

pub(super) async fn run(builder: RuntimeBuilder, shutdown: CancellationToken) -> Result<Stopped, CollectorError> {
    let opening = builder.clone();
    let opened = tokio::task::spawn_blocking(move || open(opening)).await;
    let Opened { shared, source_task, recovered, ledger_found, mut fatal } =
        opened.map_err(|e| CollectorError::MisuseOptions(format!("the logs were not opened: {e}")))??;
    if let Some(opened) = &builder.opened {
        opened();
    }
    note_start(&shared, &builder, &recovered, &ledger_found).await;

    let background = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let for_source = Arc::clone(&shared);
    let source = tokio::spawn(source_task.run(move |token| context(&for_source, token)));
    tasks.spawn(keep_covered(Arc::clone(&shared), background.clone()));
    tasks.spawn(keep_signed(Arc::clone(&shared), background.clone()));
    tasks.spawn(keep_told(Arc::clone(&shared), background.clone()));
    tasks.spawn(keep_pressure(Arc::clone(&shared), background.clone()));
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let client = match &builder.bus {
        Some(bus) => Some(publisher::start(&shared, bus, mailbox, &mut tasks, background.clone())?),
        None => None,
    };
    if let Some(follower) = builder.follower.clone().filter(|_| client.is_none()) {
        tasks.spawn(publisher::follow(Arc::clone(&shared), follower, recovered.last, background.clone()));
    }
    let begin_at = client.is_some().then(|| Instant::now() + builder.begin_timeout);
    let mut actor = Actor { shared: Arc::clone(&shared), phase: None, messages, begin_at };
    let ended = actor.live(&shutdown, &mut fatal).await;
    let forced = matches!(ended, Ok("force shutdown"));
    let stopping = actor.phase.take().unwrap_or(Phase::Waiting(WaitingForAgent::new())).shut_down();
    drop(actor);
    shared.state.send_replace(State::ShuttingDown);
    let mut in_time = true;
    if ended.is_ok() {
        let drained = drain(&shared, client, forced, ended.as_ref().copied().unwrap_or_default());
        in_time = tokio::time::timeout(END_TIMEOUT, drained).await.is_ok();
    }
    background.cancel();
    source.abort();
    // A task that waits for a disk that hangs is cut off; its thread is left behind.
    let joined = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(FORCED_TIMEOUT, joined).await.ok();
    tasks.shutdown().await;
    shared.state.send_replace(stopping.stopped());
    // A failure on the way down counts as well.
    match (ended, fatal.try_recv()) {
        (Err(error), _) | (Ok(_), Ok(error)) => Err(error),
        (Ok(_), Err(_)) if !in_time => Err(CollectorError::LimitEnd),
        (Ok(reason), Err(_)) => Ok(Stopped { reason, last: shared.wal.progress().borrow().written }),
    }
}

fn open(builder: RuntimeBuilder) -> Result<Opened, CollectorError> {
    let source =
        builder.source.ok_or_else(|| CollectorError::MisuseOptions("a collector needs a source".to_owned()))?;
    let (ledger, ledger_found) = Ledger::open(builder.ledger)?;
    let wal_max_bytes = builder.wal.max_bytes;
    let (wal, recovered) = Wal::open(builder.wal)?;
    let (pending, mut untold) = uncovered(&wal, &builder.id, &ledger, recovered.last)?;
    recovered.gaps.iter().cloned().for_each(|gap| untold.add(gap));
    let (source_task, handle): (SourceTask, SourceHandle) = SourceTask::new(&builder.id, Arc::clone(&source));
    let (fatal, fatal_receiver) = mpsc::channel(1);
    let settings = Settings {
        interval: builder.interval,
        original_interval: builder.interval,
        max_events_in_flight: builder.max_events_in_flight,
        paused: false,
    };
    let shared = Shared {
        id: builder.id,
        kind: builder.kind,
        version: builder.version,
        source,
        tasks: builder.tasks,
        handle,
        wal: Arc::new(wal),
        ledger: Arc::new(ledger),
        cover: Cover::new(pending, ledger_found.damage.clone()),
        registrations: Registrations::default(),
        untold: Mutex::new(untold),
        settings: watch::Sender::new(settings),
        state: watch::Sender::new(State::WaitingForAgent),
        heartbeat_interval: watch::Sender::new(builder.heartbeat_interval),
        committed: watch::Sender::new(None),
        sent: watch::Sender::new(None),
        checkpoint: watch::Sender::new(String::new()),
        interval: Mutex::new(Interval::first(ledger_found.clock.clone())),
        ledger_heartbeat: builder.ledger_heartbeat,
        heard: std::sync::Mutex::default(),
        unsigned: std::sync::Mutex::default(),
        agent_entries: Allowance::new(AGENT_AT_ONCE, AGENT_PER_S),
        orders: Allowance::of_orders(),
        sent_place: AtomicU64::new(0),
        connected: AtomicBool::new(false),
        pressure_count: AtomicU64::new(0),
        buffer_bytes: builder.buffer_bytes,
        wal_max_bytes,
        // A ledger that was moved away leaves the log as the last sign of life.
        silent_since_us: ledger_found.last_us.or(recovered.last_us),
        began_alone: AtomicBool::new(false),
        standing_notes: builder.standing_notes,
        started: Instant::now(),
        fatal,
    };
    Ok(Opened { shared: Arc::new(shared), source_task, recovered, ledger_found, fatal: fatal_receiver })
}

/// What a crash kept from being covered. Records of this run (gaps) belong to this run's first range.
///
/// A record that cannot be read now is none that may be passed over: what follows would be covered behind it, and it would be
/// trimmed without an entry.
fn uncovered(
    wal: &Wal,
    id: &str,
    ledger: &Ledger,
    last: Option<Sequence>,
) -> Result<(Vec<EventRange>, Losses), CollectorError> {
    let (mut ranges, mut losses) = (RangeBuilder::new(id), Losses::default());
    let gaps = Topic::CollectorEvents(id.to_owned()).to_string();
    for record in wal.replay_from(ledger.head().covered)? {
        let Record { sequence, topic, payload, .. } = record?;
        match sequence {
            Some(_) if sequence > last => break,
            Some(at) => ranges.add(at, Content::of_record(&topic, &payload)),
            None => {}
        }
        // The log's own word: it was told to the ledger before its range, or not at all.
        if topic == gaps
            && let Ok(gap) = CoverageGap::decode(payload.as_ref())
            && [wal::reason::BOUND, wal::reason::CORRUPT].contains(&gap.reason.as_str())
        {
            losses.add_told(gap);
        }
    }
    Ok((ranges.take(), losses))
}

fn context(shared: &Shared, shutdown: CancellationToken) -> SourceContext {
    let settings = shared.settings.subscribe();
    SourceContext {
        events: super::EventSink::new(Arc::clone(&shared.wal), settings.clone(), shutdown.clone()),
        settings,
        shutdown,
        wal: shared.wal.reader(),
    }
}

async fn note_start(shared: &Shared, builder: &RuntimeBuilder, recovered: &Recovered, found: &LedgerFound) {
    let start = json!({
        "collector": shared.id,
        "version": shared.version,
        "pid": std::process::id(),
        "source": shared.source.name(),
        "epoch": recovered.epoch,
        "recovered_records": recovered.records,
        "torn_bytes": recovered.torn_bytes,
        "standalone": builder.bus.is_none(),
    });
    shared.note("start", start).await;
    if let Some(config) = &builder.config_note {
        shared.note("config", config.clone()).await;
    }
    if let Some(sandbox) = &builder.sandbox_note {
        shared.note("sandbox", sandbox.clone()).await;
    }
    if found.torn_bytes > 0 {
        shared.note("ledger-tail-cut", json!({ "bytes": found.torn_bytes })).await;
    }
    if let Some(what) = &found.damage {
        tracing::error!(what, "the ledger is damaged or cannot be signed");
        shared.note("ledger-damage", json!({ "what": what })).await;
    }
    shared.tell_losses().await;
}

/// Source first, then what it left, then the goodbye.
async fn drain(shared: &Arc<Shared>, client: Option<Client>, forced: bool, reason: &'static str) {
    // A disk that hangs must not keep the source from being told.
    tokio::time::timeout(FORCED_TIMEOUT, shared.note_interval()).await.ok();
    if !forced {
        shared.settings.send_modify(|s| s.paused = false);
        shared.handle.order(Order::Stop).await;
        shared.cover_now().await;
        let written = shared.wal.progress().borrow().written;
        if client.as_ref().is_some_and(Client::is_connected) {
            let mut sent = shared.sent.subscribe();
            if tokio::time::timeout(DRAIN_TIMEOUT, sent.wait_for(|s| *s >= written)).await.is_err() {
                tracing::warn!("the agent did not take the last events in time; it replays them later");
            }
        }
        if let Err(error) = shared.source.checkpoint(written).await {
            tracing::warn!(%error, "the source has no checkpoint; its next start compares with an older one");
        }
    } else {
        // It is told to end, but nobody waits until it has.
        tokio::time::timeout(FORCED_TIMEOUT, shared.handle.order(Order::Stop)).await.ok();
        shared.cover_now().await;
    }
    shared.tell_registrations().await;
    // A full disk may have room for this and not for the last range: it says how far ranges must reach for the end to be true.
    let last = shared.wal.progress().borrow().written.map(|last| last.to_string());
    shared.note("stop", json!({ "collector": shared.id, "reason": reason, "last": last })).await;
    shared.sign_now().await;
    if let Err(error) = shared.wal.synced().await {
        shared.failed(error, "wal");
    }
    if let Some(client) = client {
        publisher::say_goodbye(client, forced).await;
    }
}

async fn keep_pressure(shared: Arc<Shared>, shutdown: CancellationToken) {
    pressure::keep(|| shared.buffer_percent(), &shared.settings, &shared.pressure_count, shutdown).await;
}

struct Actor {
    shared: Arc<Shared>,
    phase: Option<Phase>,
    messages: mpsc::Receiver<Message>,
    /// When it begins without the agent's word; `None`: there is no agent to wait for.
    begin_at: Option<Instant>,
}

impl Actor {
    async fn live(
        &mut self,
        shutdown: &CancellationToken,
        fatal: &mut mpsc::Receiver<CollectorError>,
    ) -> Result<&'static str, CollectorError> {
        self.phase = Some(Phase::Waiting(WaitingForAgent::new()));
        tokio::select! {
            // Also while it begins: its entry may wait for a disk that hangs.
            () = shutdown.cancelled() => Ok("signal"),
            ended = self.serve(fatal) => ended,
        }
    }

    async fn serve(&mut self, fatal: &mut mpsc::Receiver<CollectorError>) -> Result<&'static str, CollectorError> {
        let begin_at = self.begin_at;
        if begin_at.is_none() {
            self.begin("standalone").await;
        }
        loop {
            let waiting = matches!(self.phase, Some(Phase::Waiting(_)));
            tokio::select! {
                Some(error) = fatal.recv() => return Err(error),
                Some(message) = self.messages.recv() => {
                    if let Some(reason) = self.on(message).await {
                        return Ok(reason);
                    }
                }
                () = tokio::time::sleep_until(begin_at.unwrap_or_else(Instant::now)), if waiting && begin_at.is_some() => {
                    tracing::warn!("no BeginMonitoring from the agent in time; collection begins without it");
                    self.shared.began_alone.store(true, Ordering::Relaxed);
                    self.begin("no word from the agent in time").await;
                }
            }
        }
    }

    /// Takes one message; the reason when it ends the collector.
    async fn on(&mut self, message: Message) -> Option<&'static str> {
        let call = match message {
            Message::Begin => {
                self.begin("agent").await;
                return None;
            }
            Message::Call(call) => *call,
        };
        let order = match &call.request.verb {
            Some(Verb::Pause(_)) => return self.answer(call, Self::pause),
            Some(Verb::Resume(_)) => return self.answer(call, Self::resume),
            Some(Verb::GracefulShutdown(_)) => {
                control::reply(call, Ok(done())).await;
                return Some("graceful shutdown");
            }
            Some(Verb::ForceShutdown(_)) => {
                control::reply(call, Ok(done())).await;
                return Some("force shutdown");
            }
            Some(Verb::Start(_)) => Order::Start,
            Some(Verb::Stop(_)) => Order::Stop,
            _ => Order::Restart,
        };
        if order != Order::Stop && matches!(self.phase, Some(Phase::Waiting(_))) {
            self.begin("agent").await;
        }
        // The source may take seconds to end; whoever asked waits, the mailbox does not.
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            shared.handle.order(order).await;
            shared.note_interval().await;
            shared
                .note("control", json!({ "collector": shared.id, "order": format!("{order:?}").to_lowercase() }))
                .await;
            control::reply(call, Ok(done())).await;
        });
        None
    }

    /// Changes the state and answers; never ends the collector.
    fn answer(&mut self, call: IncomingCall, change: fn(&mut Self) -> bool) -> Option<&'static str> {
        let changed = change(self);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if changed {
                shared.note_interval().await;
                let state = shared.state.borrow().word();
                shared.note("control", json!({ "collector": shared.id, "state": state })).await;
            }
            control::reply(call, Ok(done())).await;
        });
        None
    }

    async fn begin(&mut self, why: &'static str) {
        let Some(Phase::Waiting(waiting)) = self.phase.take_if(|p| matches!(p, Phase::Waiting(_))) else { return };
        self.enter(Phase::Running(waiting.begin()));
        self.tell_silence().await;
        self.shared.handle.order(Order::Start).await;
        self.shared.note_interval().await;
        self.shared.note("begin-monitoring", json!({ "collector": self.shared.id, "word": why })).await;
    }

    async fn tell_silence(&self) {
        let Some(gap) = silence::before(&self.shared.id, self.shared.silent_since_us, now_us()) else { return };
        let wal = Arc::clone(&self.shared.wal);
        let told = tokio::task::spawn_blocking(move || wal.append(&[gap])).await;
        if let Ok(Err(error)) = told {
            self.shared.failed(error, "wal");
        }
    }

    fn pause(&mut self) -> bool {
        let Some(Phase::Running(running)) = self.phase.take_if(|p| matches!(p, Phase::Running(_))) else {
            return false;
        };
        self.shared.settings.send_modify(|s| s.paused = true);
        self.enter(Phase::Paused(running.pause()));
        true
    }

    fn resume(&mut self) -> bool {
        let Some(Phase::Paused(paused)) = self.phase.take_if(|p| matches!(p, Phase::Paused(_))) else { return false };
        self.shared.settings.send_modify(|s| s.paused = false);
        self.enter(Phase::Running(paused.resume()));
        true
    }

    fn enter(&mut self, phase: Phase) {
        self.shared.state.send_replace(phase.state());
        self.phase = Some(phase);
    }
}

fn done() -> CollectorResponse {
    CollectorResponse { answer: Some(Answer::Done(daemoneye_lib::proto::Empty {})) }
}
