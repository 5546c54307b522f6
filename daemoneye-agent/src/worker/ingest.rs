//! From the bus into the store, on a thread of its own: decode, judge, commit alerts, append, give credit; have it sealed when due.
//!
//! The order carries the promise: an alert is committed before the row that caused it can be acknowledged, and a collector's
//! log is trimmed only after the seal. When the disk is full or fails, nothing more is taken until it works again: without
//! credit the collectors keep their events. When the store refuses for another reason, the worker ends: nothing was
//! acknowledged, so the next one gets everything again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemoneye_engine::detect::Judged;
use daemoneye_engine::ingest::{EventBatch, IngestError, decode};
use daemoneye_engine::store::{RuleMatch, StoreError};
use daemoneye_eventbus::Run;
use daemoneye_lib::model::{Alert, Degraded};
use daemoneye_lib::proto::{
    AlertPayload, AlertSeverity, CoverageGap, DeliveryGuarantee, QoS, Record, Sequence, Word as _,
};
use daemoneye_lib::topic::Topic;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};

use super::joined::Joined;
use super::sealing::Sealing;
use super::{End, Worker, audit, integrity};
use crate::clock::now_us;
use crate::error::AgentError;

/// How often the age of the open segment is looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(250);
/// How long between two attempts while the disk is full or fails: soon after there is room, and no load on a disk in trouble.
const RETRY: Duration = Duration::from_secs(1);
/// Runs that are still taken when the worker stops: more than credit allows to be on their way.
const LAST_RUNS: usize = 4096;

/// What ingest has done since the worker started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) runs: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) alerts: AtomicU64,
    pub(crate) seals: AtomicU64,
    pub(crate) pauses: AtomicU64,
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// What the thread is asked besides its stream.
enum Command {
    Seal(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The running thread.
pub(crate) struct Ingest {
    commands: mpsc::Sender<Command>,
}

impl Ingest {
    /// Seals now; waits at most `patience`.
    pub(crate) async fn seal(&self, patience: Duration) {
        self.ask(Command::Seal, patience).await;
    }

    /// Takes what has arrived, seals and ends; waits at most `patience`.
    pub(crate) async fn stop(self, patience: Duration) {
        self.ask(Command::Stop, patience).await;
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command, patience: Duration) {
        let (done, wait) = oneshot::channel();
        let asked = async {
            // An error on either way means that the thread has ended, which leaves nothing to wait for.
            if self.commands.send(command(done)).await.is_ok() {
                let _ended = wait.await;
            }
        };
        if tokio::time::timeout(patience, asked).await.is_err() {
            tracing::warn!("ingest did not finish in time; collectors will replay what was not sealed");
        }
    }
}

/// Starts the thread.
pub(crate) fn start(worker: Arc<Worker>, runs: mpsc::Receiver<Run>) -> std::io::Result<Ingest> {
    let (commands, receiver) = mpsc::channel(4);
    let runtime = Handle::current();
    let sealing = Sealing::start(Arc::clone(&worker))?;
    let thread = Thread {
        worker,
        runs,
        next: None,
        commands: receiver,
        sealing,
        found: RefCell::default(),
        judged: RefCell::default(),
        after_outage: Cell::default(),
        has_taken: Cell::default(),
    };
    std::thread::Builder::new().name("ingest".to_owned()).spawn(move || thread.work(&runtime))?;
    Ok(Ingest { commands })
}

/// What the thread found to do.
enum Step {
    Command(Command),
    Nothing,
    Runs(Joined),
}

/// Whether the thread goes on.
enum Flow {
    Ended,
    On,
}

struct Thread {
    worker: Arc<Worker>,
    runs: mpsc::Receiver<Run>,
    /// Arrived, and not one that goes on from those that are taken.
    next: Option<Run>,
    commands: mpsc::Receiver<Command>,
    sealing: Sealing,
    /// What rules found and the store has not taken yet.
    found: RefCell<Judged>,
    /// The batch that was judged last: one that has to wait for the disk is not judged twice.
    judged: RefCell<Option<(Arc<str>, Sequence)>>,
    /// Nobody collected for a while, and what was captured since then is not all here.
    after_outage: Cell<bool>,
    /// Something was taken since the last tick.
    has_taken: Cell<bool>,
}

impl Thread {
    fn work(mut self, runtime: &Handle) {
        let _told = Watched(Arc::clone(&self.worker));
        let mut tick = {
            let _timers = runtime.enter();
            // One timer for all: a new one for each run would wake the runtime's timer thread each time.
            tokio::time::interval(TICK)
        };
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.worker.is_late() && matches!(self.insist(runtime, |thread| thread.begin_late(runtime)), Flow::Ended) {
            return;
        }
        loop {
            let flow = match runtime.block_on(self.next(&mut tick)) {
                Step::Runs(runs) => self.insist(runtime, |thread| thread.take(&runs)),
                Step::Nothing => self.insist(runtime, Self::let_time_pass),
                Step::Command(command) => self.obey(command),
            };
            let flow = match flow {
                Flow::On => self.insist(runtime, Self::seal_when_due),
                Flow::Ended => Flow::Ended,
            };
            if matches!(flow, Flow::Ended) {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command) -> Flow {
        match command {
            Command::Seal(done) => {
                if let Err(error) = self.seal() {
                    tracing::warn!(%error, "the open segment was not sealed");
                }
                let _waiting = done.send(());
                Flow::On
            }
            Command::Stop(done) => {
                self.finish();
                let _waiting = done.send(());
                Flow::Ended
            }
        }
    }

    /// Does `work`, again and again while the disk is full or fails, and takes nothing else meanwhile.
    fn insist(&mut self, runtime: &Handle, work: impl Fn(&Self) -> Result<(), StoreError>) -> Flow {
        let mut outcome = work(self);
        while let Err(error) = outcome {
            if !error.may_pass() {
                tracing::error!(%error, "the store refused; the worker ends and its successor gets the events again");
                self.worker.end(End::Failed(AgentError::Store(error)));
                return Flow::Ended;
            }
            self.pause(&error);
            if let Some(command) = runtime.block_on(self.command_within(RETRY))
                && matches!(self.obey(command), Flow::Ended)
            {
                return Flow::Ended;
            }
            // Sealing first: it makes the room in memory that `work` may need.
            outcome = self.seal_when_due().and_then(|()| work(self));
        }
        self.resume();
        Flow::On
    }

    async fn command_within(&mut self, patience: Duration) -> Option<Command> {
        tokio::time::timeout(patience, self.commands.recv()).await.ok().flatten()
    }

    fn pause(&self, error: &StoreError) {
        let worker = &self.worker;
        if worker.store.paused().is_none() {
            tracing::warn!(%error, "no events are taken until the disk works again; the collectors keep them");
            add(&worker.counters.pauses, 1);
        }
        if let Err(error) = worker.store.pause(&error.to_string()) {
            tracing::warn!(%error, "the pause is not told");
        }
    }

    fn resume(&self) {
        let worker = &self.worker;
        if worker.store.paused().is_none() {
            return;
        }
        tracing::info!("events are taken again");
        if let Err(error) = worker.store.resume() {
            tracing::warn!(%error, "the pause was not written down");
        }
        // Alerts of a commit that was in doubt are in the outbox, and nobody was told.
        worker.alerts.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Opens `state.redb` again when it has failed, under whoever wrote to it.
    fn recover(&self) -> Result<(), StoreError> {
        for (collector, committed) in self.worker.store.recover()? {
            self.worker.broker.commit(&collector, committed);
        }
        Ok(())
    }

    /// What a start could not do on a disk without room; no event is taken before there are rules to judge it by.
    fn begin_late(&self, runtime: &Handle) -> Result<(), StoreError> {
        self.recover()?;
        runtime.block_on(self.worker.begin())
    }

    async fn next(&mut self, tick: &mut Interval) -> Step {
        if let Ok(command) = self.commands.try_recv() {
            return Step::Command(command);
        }
        if let Some(runs) = self.arrived() {
            return Step::Runs(runs);
        }
        tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Step::Command(command),
            Some(run) = self.runs.recv() => Step::Runs(Joined::of(run, &mut self.runs, &mut self.next)),
            _ = tick.tick() => Step::Nothing,
        }
    }

    /// What has arrived and can be taken together.
    fn arrived(&mut self) -> Option<Joined> {
        let run = self.next.take().or_else(|| self.runs.try_recv().ok())?;
        Some(Joined::of(run, &mut self.runs, &mut self.next))
    }

    fn finish(&mut self) {
        let mut outcome = Ok(());
        for _ in 0..LAST_RUNS {
            let Some(runs) = self.arrived() else { break };
            outcome = outcome.and_then(|()| self.take(&runs));
        }
        if let Err(error) = outcome.and_then(|()| self.seal()) {
            tracing::warn!(%error, "the last events were not sealed; the collector keeps and replays them");
        }
    }

    fn take(&self, runs: &Joined) -> Result<(), StoreError> {
        let (worker, collector) = (&self.worker, &runs.collector);
        self.has_taken.set(true);
        match decode(collector, &runs.records) {
            Ok(batch) => self.keep(batch)?,
            // One that cannot be read takes no other with it.
            Err(_) if runs.runs() > 1 => runs.parts().try_for_each(|records| self.take_run(collector, records))?,
            Err(error) => self.refuse(collector, &runs.records, &error)?,
        }
        add(&worker.counters.runs, runs.runs());
        if let Some(record) = runs.records.last()
            && let Some(last) = record.sequence
        {
            worker.roster.arrived(collector, last, record.time_us, now_us());
        }
        worker.broker.credit(collector, u32::try_from(runs.records.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    fn take_run(&self, collector: &str, records: &[Record]) -> Result<(), StoreError> {
        match decode(collector, records) {
            Ok(batch) => self.keep(batch),
            Err(error) => self.refuse(collector, records, &error),
        }
    }

    fn refuse(&self, collector: &str, records: &[Record], error: &IngestError) -> Result<(), StoreError> {
        self.worker.store.add_coverage(refused(collector, records, &error.to_string()))?;
        add(&self.worker.counters.refused, 1);
        tracing::warn!(collector, %error, "a run was refused");
        Ok(())
    }

    fn keep(&self, batch: EventBatch) -> Result<(), StoreError> {
        let worker = &self.worker;
        let offered = batch.batch.num_rows();
        let Some(batch) = worker.store.unseen(batch) else {
            add(&worker.counters.replayed, offered);
            return Ok(());
        };
        if !batch.gaps.is_empty() {
            self.raise(integrity::matches(&batch.gaps))?;
        }
        let _turn = worker.rules.turn();
        self.judge(&batch);
        self.raise_found()?;
        let (rows, gaps) = (batch.batch.clone(), batch.gaps.clone());
        let appended = worker.store.append(batch)?;
        // What cannot be taken back comes last: everything above may be done again after the disk has failed.
        worker.followers.offer(&rows);
        // One entry for all gaps of a run: a broken stream must not fill the ledger.
        if let Some(first) = gaps.first() {
            audit::push(&worker.store, "agent", "coverage-gap", &audit::gap(&first.gap, gaps.len()));
            worker.say_gaps(&gaps);
        }
        add(&worker.counters.rows, appended.rows);
        add(&worker.counters.replayed, offered.saturating_sub(appended.rows));
        Ok(())
    }

    fn judge(&self, batch: &EventBatch) {
        let key = Some((Arc::clone(&batch.collector), batch.last));
        if *self.judged.borrow() != key {
            let mut completeness = batch.completeness();
            self.note_outage();
            // What comes until all is here that was captured may be what began in the outage.
            if self.after_outage.get() {
                completeness.degrade(Degraded::CollectorUnavailable);
                self.after_outage.set(!self.worker.roster.is_caught_up(&batch.collector));
            }
            let found = self.worker.rules.judge(batch, &completeness, self.worker.store.believed_us());
            self.found.borrow_mut().extend(found);
            self.judged.replace(key);
        }
    }

    /// On a quiet host the clock stands in for events; not while some of what was captured is still to come.
    fn let_time_pass(&self) -> Result<(), StoreError> {
        let worker = &self.worker;
        // Nothing has come since the tick before, so nothing waits.
        if !self.has_taken.take() {
            worker.roster.nothing_waits();
        }
        if worker.roster.is_current() {
            let _turn = worker.rules.turn();
            self.note_outage();
            self.found.borrow_mut().extend(worker.rules.advance(worker.store.believed_us()));
        }
        self.raise_found()
    }

    /// Nobody collected until a moment ago.
    fn note_outage(&self) {
        if self.worker.outage.swap(false, Ordering::Relaxed) {
            self.worker.rules.set().lack(Degraded::CollectorUnavailable, self.worker.store.believed_us());
            self.after_outage.set(true);
        }
    }

    /// What the store does not take now is offered again.
    fn raise_found(&self) -> Result<(), StoreError> {
        let found = self.found.borrow().clone();
        self.worker.store.commit_hidden(&found.hidden)?;
        self.raise(found.shown)?;
        self.found.take();
        Ok(())
    }

    fn raise(&self, matches: Vec<RuleMatch>) -> Result<(), StoreError> {
        self.worker.raise(matches)
    }

    /// Beside what is taken next, unless the disk is in trouble: then nothing is taken before it is done.
    fn seal_when_due(&self) -> Result<(), StoreError> {
        self.sealing.outcome()?;
        self.recover()?;
        if !self.worker.store.seal_due() {
            return Ok(());
        }
        if self.worker.store.paused().is_some() { self.seal() } else { self.sealing.begin() }
    }

    /// All of it, before it returns; what failed beside ingest is tried again.
    fn seal(&self) -> Result<(), StoreError> {
        if let Err(error) = self.sealing.wait() {
            tracing::debug!(%error, "a segment was not sealed, and is now");
        }
        self.worker.seal()
    }
}

impl Worker {
    /// Seals the open segment; the collectors may then trim their logs. Blocking.
    pub(super) fn seal(&self) -> Result<(), StoreError> {
        for (collector, committed) in self.store.seal()? {
            add(&self.counters.seals, 1);
            self.broker.commit(&collector, committed);
        }
        Ok(())
    }

    /// Makes alerts of matches; the outbox holds them before anybody is told. Blocking.
    pub(super) fn raise(&self, matches: Vec<RuleMatch>) -> Result<(), StoreError> {
        if !matches.is_empty() {
            let alerts = self.store.commit_matches(matches)?;
            self.announce(&alerts);
        }
        Ok(())
    }

    /// Wakes the sinks and tells subscribers.
    fn announce(&self, alerts: &[Alert]) {
        add(&self.counters.alerts, alerts.len());
        for alert in alerts {
            let severity = AlertSeverity::from_word(alert.severity.as_str()).unwrap_or(AlertSeverity::Info);
            let Ok(json) = serde_json::to_string(alert) else { continue };
            let payload = AlertPayload { id: alert.id.to_string(), severity: severity.into(), json };
            self.broker.publish(&Topic::Alerts(severity), payload.encode_to_vec().into(), at_most_once());
        }
        if !alerts.is_empty() {
            self.alerts.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Ends the worker when the thread unwinds: without it nobody would take events, and everything else would go on.
struct Watched(Arc<Worker>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(End::Failed(AgentError::Store(StoreError::LockPoisoned)));
        }
    }
}

/// Subscribers of alerts get what they can take; the outbox is the way that promises.
fn at_most_once() -> QoS {
    QoS { guarantee: DeliveryGuarantee::AtMostOnce.into(), ..QoS::default() }
}

fn refused(collector: &str, records: &[Record], detail: &str) -> CoverageGap {
    let now = now_us();
    let times = || records.iter().map(|record| record.time_us);
    CoverageGap {
        collector: collector.to_owned(),
        reason: "undecodable".to_owned(),
        from_us: times().min().unwrap_or(now),
        to_us: times().max().unwrap_or(now),
        count: u64::try_from(records.len()).ok(),
        detail: detail.to_owned(),
        first: records.first().and_then(|record| record.sequence),
        last: records.last().and_then(|record| record.sequence),
    }
}
