//! The bus side: everything that names the client of `daemoneye-eventbus` is here and in `control`.
//!
//! The publisher reads the stream back from the WAL, so what a reconnect sends again is decided by one number: what the agent says
//! it committed last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemoneye_eventbus::{Client, ClientEvent, ClientOptions, Connected, Delivered, RunStream, SendError};
use daemoneye_lib::proto::collector_request::Verb;
use daemoneye_lib::proto::lifecycle::Phase;
use daemoneye_lib::proto::{
    CollectorRequest, DeliveryGuarantee, Empty, Heartbeat, Lifecycle, QoS, Record, Role, Sequence,
};
use daemoneye_lib::topic::{Pattern, Topic};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control;
use crate::error::CollectorError;
use crate::runtime::{BusOptions, Follower, Message, Registration, Shared, State};
use crate::wal::Cursor;

/// Records of one run, at most; the agent makes one batch of it.
const RUN_RECORDS: usize = 256;
/// Bytes of one run, about: half a frame, so that the largest last record still fits.
const RUN_BYTES: usize = 256 * 1024;
/// Least time between two runs that are not full: what comes meanwhile goes together, which the agent takes at the price of one
/// (docs/adr/0008-one-wake-up-per-process.md). After a longer silence a run goes at once.
const RUN_PAUSE: Duration = Duration::from_millis(7);
/// Pause between two looks at the credit while too much is on its way.
const CREDIT_PAUSE: Duration = Duration::from_millis(5);
/// First and longest pause before the log is read again that could not be: it may be a segment that stays unreadable.
const READ_AGAIN: Duration = Duration::from_millis(100);
const READ_AGAIN_LAST: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Lifecycle messages on their way at a time.
const LIFECYCLE_CREDIT: u32 = 8;
/// How often a refusal that lasts is said again.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// Connects, and keeps what the connection needs running until `shutdown`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    bus: &BusOptions,
    mailbox: mpsc::Sender<Message>,
    tasks: &mut JoinSet<()>,
    shutdown: CancellationToken,
) -> Result<Client, CollectorError> {
    let mut options = ClientOptions::new(bus.socket.clone(), shared.id.clone(), Role::Collector, bus.token.clone());
    let registering = Arc::clone(shared);
    options.register = Some(Arc::new(move || registering.registration()));
    let (client, events) = Client::start(options)?;
    // Before the first connection stands, so that no BeginMonitoring can fall between announcement and subscription.
    let pattern: Pattern = Topic::Lifecycle
        .to_string()
        .parse()
        .map_err(|e| CollectorError::MisuseOptions(format!("the lifecycle topic is not a pattern: {e}")))?;
    let lifecycle = client.subscribe(&pattern, qos(DeliveryGuarantee::AtLeastOnce), LIFECYCLE_CREDIT);
    let connection = Connection {
        shared: Arc::clone(shared),
        client: client.clone(),
        mailbox,
        lifecycle,
        stream: None,
        refusal: None,
    };
    tasks.spawn(connection.run(events, shutdown.clone()));
    tasks.spawn(heartbeat(Arc::clone(shared), client.clone(), shutdown));
    Ok(client)
}

fn qos(guarantee: DeliveryGuarantee) -> QoS {
    QoS { guarantee: guarantee.into(), ..QoS::default() }
}

/// Tells the agent that this end is meant, then closes.
pub(crate) async fn say_goodbye(client: Client, forced: bool) {
    if !forced && client.is_connected() {
        let request = CollectorRequest { verb: Some(Verb::Deregister(Empty {})) };
        if let Ok(Err(error)) = tokio::time::timeout(GOODBYE_TIMEOUT, client.call(request, GOODBYE_TIMEOUT)).await {
            tracing::debug!(%error, "the agent did not answer the goodbye");
        }
    }
    if tokio::time::timeout(GOODBYE_TIMEOUT, client.shutdown()).await.is_err() {
        tracing::debug!("the connection did not close in time");
    }
}

struct Connection {
    shared: Arc<Shared>,
    client: Client,
    mailbox: mpsc::Sender<Message>,
    /// Number of the subscription to the lifecycle topic.
    lifecycle: u64,
    stream: Option<CancellationToken>,
    /// Why the agent refused last, and when that was said.
    refusal: Option<(String, Instant)>,
}

impl Connection {
    async fn run(mut self, mut events: mpsc::Receiver<ClientEvent>, shutdown: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.recv() => event,
            };
            match event {
                Some(ClientEvent::Connected(connected)) => self.connected(connected),
                Some(ClientEvent::Disconnected { reason }) => self.disconnected(&reason),
                Some(ClientEvent::Refused(fault)) => self.refused(fault.message),
                Some(ClientEvent::Committed(sequence)) => self.committed(Some(sequence)),
                Some(ClientEvent::Call(call)) => control::take(&self.shared, &self.client, &self.mailbox, *call).await,
                Some(ClientEvent::Deliver(delivered)) => self.deliver(&delivered),
                None => break,
            }
        }
        self.end_stream();
    }

    fn connected(&mut self, connected: Connected) {
        self.end_stream();
        let Connected { welcome, registered, stream } = connected;
        let committed = welcome.committed.max(registered.as_ref().and_then(|r| r.committed));
        self.has(committed);
        if let Some(interval) = registered.map(|r| r.heartbeat_interval_ms).filter(|ms| *ms > 0) {
            self.shared.heartbeat_interval.send_replace(Duration::from_millis(interval.into()));
        }
        tracing::info!(committed = committed.map(|c| c.to_string()), "connected to the agent");
        let cursor = self.shared.wal.reader().cursor(committed);
        // Until the log, which may have to wait for the disk, tells how much waits.
        self.shared.sent_place.store(self.shared.wal.reader().end(), Ordering::Relaxed);
        self.shared.sent.send_replace(committed);
        self.shared.connected.store(true, Ordering::Relaxed);
        let stop = CancellationToken::new();
        self.stream = Some(stop.clone());
        tokio::spawn(publish(Arc::clone(&self.shared), cursor, Credit { stream, initial: welcome.credit }, stop));
        self.shared.registrations.add(Registration::new(welcome.build, committed));
    }

    fn disconnected(&mut self, reason: &str) {
        // An agent that asked for the end closes first; nobody has to be warned of that.
        let leaving = matches!(*self.shared.state.borrow(), State::ShuttingDown | State::Stopped);
        if self.stream.is_some() && !leaving {
            tracing::warn!(reason, "the agent is gone; collection goes on");
        }
        self.end_stream();
    }

    /// Says why, once a minute and whenever the reason is another; tries are far more often.
    fn refused(&mut self, message: String) {
        let said = self.refusal.as_ref();
        if said.is_none_or(|(last, when)| *last != message || when.elapsed() >= REFUSAL_PAUSE) {
            tracing::error!(message, "the agent refused this collector; it will be tried again");
            self.refusal = Some((message, Instant::now()));
        }
    }

    fn end_stream(&mut self) {
        self.shared.connected.store(false, Ordering::Relaxed);
        if let Some(stop) = self.stream.take() {
            stop.cancel();
        }
    }

    /// What the agent has when a connection begins, even if that is less than it had: a backup of its store was put back, and what
    /// the log still has of the rest must stay until the agent has it again.
    fn has(&self, sequence: Option<Sequence>) {
        self.shared.wal.agent_has(sequence);
        self.shared.committed.send_replace(sequence);
    }

    fn committed(&self, sequence: Option<Sequence>) {
        if let Some(upto) = sequence {
            self.shared.wal.committed(upto);
        }
        self.shared.committed.send_if_modified(|now| {
            let grows = sequence > *now;
            if grows {
                *now = sequence;
            }
            grows
        });
    }

    fn deliver(&self, delivered: &Delivered) {
        let records = delivered.records.iter().filter(|_| delivered.subscription == self.lifecycle);
        for record in records {
            let phase = Lifecycle::decode(record.payload.clone()).map(|lifecycle| lifecycle.phase());
            match phase {
                // A full mailbox: the begin timeout takes its place.
                Ok(Phase::BeginMonitoring) => drop(self.mailbox.try_send(Message::Begin)),
                Ok(Phase::ShuttingDown) => tracing::info!("the agent is shutting down; collection goes on"),
                Ok(Phase::Unspecified) | Err(_) => {
                    tracing::warn!(
                        publisher = delivered.publisher,
                        "a lifecycle message that has no meaning was ignored"
                    );
                }
            }
        }
        self.client.done(delivered);
    }
}

struct Credit {
    stream: RunStream,
    initial: u32,
}

impl Credit {
    /// Waits until `run` more records do not exceed the bound of records on their way.
    async fn fits(&self, shared: &Shared, run: usize) {
        let initial = usize::try_from(self.initial).unwrap_or(usize::MAX);
        loop {
            let bound = usize::try_from(shared.settings.borrow().max_events_in_flight).unwrap_or(usize::MAX);
            if initial.saturating_sub(self.stream.credit()) + run <= bound.max(run) {
                return;
            }
            tokio::time::sleep(CREDIT_PAUSE).await;
        }
    }
}

/// Sends the stream behind the cursor over one connection, until it ends.
async fn publish(shared: Arc<Shared>, cursor: Cursor, credit: Credit, stop: CancellationToken) {
    let found = tokio::task::spawn_blocking(move || (cursor.place(), cursor)).await;
    let Ok((place, mut cursor)) = found else { return };
    shared.sent_place.store(place, Ordering::Relaxed);
    let mut progress = shared.wal.progress();
    let mut earliest = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(earliest) => {}
        }
        progress.borrow_and_update();
        let bound = usize::try_from(shared.settings.borrow().max_events_in_flight).unwrap_or(RUN_RECORDS);
        let records = RUN_RECORDS.min(bound).min(credit.initial.max(1) as usize);
        let Some((next, run)) = read(&shared, cursor, records, &stop).await else { return };
        cursor = next;
        if run.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = progress.changed() => if changed.is_err() { return },
            }
            continue;
        }
        if run.len() < records {
            earliest = tokio::time::Instant::now() + RUN_PAUSE;
        }
        let sent = tokio::select! {
            () = stop.cancelled() => return,
            sent = send(&shared, &credit, run) => sent,
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "the stream ends; the next connection replays it");
            return;
        }
        shared.sent_place.store(cursor.place(), Ordering::Relaxed);
        shared.sent.send_replace(cursor.position());
    }
}

async fn send(shared: &Shared, credit: &Credit, run: Vec<Record>) -> Result<(), SendError> {
    credit.fits(shared, run.len()).await;
    loop {
        match credit.stream.send_run(run.clone()).await {
            Err(SendError::Timeout(_)) => {}
            other => return other,
        }
    }
}

/// The next run, however often it takes: what cannot be read now, for want of a descriptor perhaps, is read again from where
/// it began. `None` when this ends.
async fn read(
    shared: &Shared,
    mut cursor: Cursor,
    records: usize,
    stop: &CancellationToken,
) -> Option<(Cursor, Vec<Record>)> {
    if let Some(run) = cursor.run_at_hand(records, RUN_BYTES) {
        return Some((cursor, run));
    }
    let after = cursor.position();
    let mut pause = READ_AGAIN;
    loop {
        let wal = Arc::clone(&shared.wal);
        let read = tokio::task::spawn_blocking(move || {
            let run = cursor.run(records, RUN_BYTES).and_then(|run| wal.tell().map(|()| run));
            (cursor, run)
        });
        match read.await.ok()? {
            (cursor, Ok(run)) => return Some((cursor, run)),
            (_, Err(error)) => shared.failed(error, "replay"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(READ_AGAIN_LAST);
        cursor = shared.wal.reader().cursor(after);
    }
}

/// Standalone: gives every record of this run to the follower.
pub(crate) async fn follow(
    shared: Arc<Shared>,
    follower: Follower,
    after: Option<Sequence>,
    shutdown: CancellationToken,
) {
    let mut progress = shared.wal.progress();
    let mut cursor = shared.wal.reader().cursor(after);
    loop {
        progress.borrow_and_update();
        let Some((next, run)) = read(&shared, cursor, RUN_RECORDS, &shutdown).await else { return };
        cursor = next;
        if run.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = progress.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let follower = Arc::clone(&follower);
        if tokio::task::spawn_blocking(move || run.iter().for_each(|record| follower(record))).await.is_err() {
            return;
        }
        shared.sent.send_replace(cursor.position());
    }
}

async fn heartbeat(shared: Arc<Shared>, client: Client, shutdown: CancellationToken) {
    let mut sequence = 0;
    let mut interval = shared.heartbeat_interval.subscribe();
    let mut state = shared.state.subscribe();
    loop {
        let pause = *interval.borrow_and_update();
        if client.is_connected() {
            sequence += 1;
            let health = shared.health().await;
            let beat = Heartbeat {
                collector_id: shared.id.clone(),
                sequence,
                state: health.state.clone(),
                health: Some(health),
            };
            let topic = Topic::Heartbeat(shared.id.clone());
            let payload = Bytes::from(beat.encode_to_vec());
            if let Err(error) = client.publish(&topic, payload, qos(DeliveryGuarantee::AtMostOnce)).await {
                tracing::debug!(%error, "a heartbeat was not sent");
            }
        }
        // A new state or interval is told at once.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            _ = interval.changed() => {}
            _ = state.changed() => {}
        }
    }
}
