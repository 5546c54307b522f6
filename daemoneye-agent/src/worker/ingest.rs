//! From the bus into the store, on a thread of its own: decode, judge, commit alerts, append, give credit; seal when due.
//!
//! The order carries the promise: an alert is committed before the row that caused it can be acknowledged, and a collector's
//! log is trimmed only after the seal. When the store refuses, the worker ends: nothing was acknowledged, so the next one
//! gets everything again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemoneye_engine::ingest::{EventBatch, decode};
use daemoneye_engine::store::{RuleMatch, StoreError};
use daemoneye_eventbus::Run;
use daemoneye_lib::model::{Alert, Completeness, Degraded};
use daemoneye_lib::proto::{AlertPayload, AlertSeverity, CoverageGap, DeliveryGuarantee, QoS, Word as _};
use daemoneye_lib::topic::Topic;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};

use super::{End, Worker, audit, integrity};
use crate::clock::now_us;
use crate::error::AgentError;

/// How often the age of the open segment is looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(250);
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
    let thread = Thread { worker, runs, commands: receiver };
    std::thread::Builder::new().name("ingest".to_owned()).spawn(move || thread.work(&runtime))?;
    Ok(Ingest { commands })
}

/// What the thread found to do.
enum Step {
    Command(Command),
    Nothing,
    Run(Run),
}

struct Thread {
    worker: Arc<Worker>,
    runs: mpsc::Receiver<Run>,
    commands: mpsc::Receiver<Command>,
}

impl Thread {
    fn work(mut self, runtime: &Handle) {
        let mut tick = {
            let _timers = runtime.enter();
            // One timer for all: a new one for each run would wake the runtime's timer thread each time.
            tokio::time::interval(TICK)
        };
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = runtime.block_on(self.next(&mut tick));
            let outcome = match step {
                Step::Run(run) => self.take(&run),
                Step::Nothing => Ok(()),
                Step::Command(Command::Seal(done)) => {
                    let sealed = self.seal();
                    let _waiting = done.send(());
                    sealed
                }
                Step::Command(Command::Stop(done)) => {
                    self.finish();
                    let _waiting = done.send(());
                    return;
                }
            };
            if let Err(error) = outcome.and_then(|()| self.seal_when_due()) {
                tracing::error!(%error, "the store refused; the worker ends and its successor gets the events again");
                return self.worker.end(End::Failed(AgentError::Store(error)));
            }
        }
    }

    async fn next(&mut self, tick: &mut Interval) -> Step {
        tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Step::Command(command),
            Some(run) = self.runs.recv() => Step::Run(run),
            _ = tick.tick() => Step::Nothing,
        }
    }

    fn finish(&mut self) {
        let mut outcome = Ok(());
        for _ in 0..LAST_RUNS {
            let Ok(run) = self.runs.try_recv() else { break };
            outcome = outcome.and_then(|()| self.take(&run));
        }
        if let Err(error) = outcome.and_then(|()| self.seal()) {
            tracing::warn!(%error, "the last events were not sealed; the collector keeps and replays them");
        }
    }

    fn take(&self, run: &Run) -> Result<(), StoreError> {
        let worker = &self.worker;
        add(&worker.counters.runs, 1);
        match decode(&run.collector, &run.records) {
            Ok(batch) => self.keep(batch)?,
            Err(error) => {
                add(&worker.counters.refused, 1);
                tracing::warn!(collector = %run.collector, %error, "a run was refused");
                worker.store.add_coverage(refused(run, &error.to_string()))?;
            }
        }
        if let Some(last) = run.records.last().and_then(|record| record.sequence) {
            worker.roster.arrived(&run.collector, last);
        }
        worker.broker.credit(&run.collector, u32::try_from(run.records.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    fn keep(&self, batch: EventBatch) -> Result<(), StoreError> {
        let worker = &self.worker;
        let offered = batch.batch.num_rows();
        let Some(batch) = worker.store.unseen(batch) else {
            add(&worker.counters.replayed, offered);
            return Ok(());
        };
        let mut completeness = Completeness::complete();
        // One entry for all gaps of a run: a broken stream must not fill the ledger.
        if let Some(first) = batch.gaps.first() {
            completeness.degrade(Degraded::EventsShed);
            audit::push(&worker.store, "agent", "coverage-gap", &audit::gap(&first.gap, batch.gaps.len()));
            worker.say_gaps(&batch.gaps);
            self.raise(integrity::matches(&batch.gaps))?;
        }
        self.raise(worker.rules.set().evaluate(&batch, &completeness))?;
        worker.followers.offer(&batch.batch);
        let appended = worker.store.append(batch)?;
        add(&worker.counters.rows, appended.rows);
        add(&worker.counters.replayed, offered.saturating_sub(appended.rows));
        Ok(())
    }

    fn raise(&self, matches: Vec<RuleMatch>) -> Result<(), StoreError> {
        if !matches.is_empty() {
            let alerts = self.worker.store.commit_matches(matches)?;
            self.announce(&alerts);
        }
        Ok(())
    }

    /// Wakes the sinks and tells subscribers; the outbox already holds the alerts.
    fn announce(&self, alerts: &[Alert]) {
        let worker = &self.worker;
        add(&worker.counters.alerts, alerts.len());
        for alert in alerts {
            let severity = AlertSeverity::from_word(alert.severity.as_str()).unwrap_or(AlertSeverity::Info);
            let Ok(json) = serde_json::to_string(alert) else { continue };
            let payload = AlertPayload { id: alert.id.to_string(), severity: severity.into(), json };
            worker.broker.publish(&Topic::Alerts(severity), payload.encode_to_vec().into(), at_most_once());
        }
        if !alerts.is_empty() {
            worker.alerts.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn seal_when_due(&self) -> Result<(), StoreError> {
        if self.worker.store.seal_due() { self.seal() } else { Ok(()) }
    }

    fn seal(&self) -> Result<(), StoreError> {
        for (collector, committed) in self.worker.store.seal()? {
            add(&self.worker.counters.seals, 1);
            self.worker.broker.commit(&collector, committed);
        }
        Ok(())
    }
}

/// Subscribers of alerts get what they can take; the outbox is the way that promises.
fn at_most_once() -> QoS {
    QoS { guarantee: DeliveryGuarantee::AtMostOnce.into(), ..QoS::default() }
}

fn refused(run: &Run, detail: &str) -> CoverageGap {
    let now = now_us();
    let times = || run.records.iter().map(|record| record.time_us);
    CoverageGap {
        collector: run.collector.to_string(),
        reason: "undecodable".to_owned(),
        from_us: times().min().unwrap_or(now),
        to_us: times().max().unwrap_or(now),
        count: u64::try_from(run.records.len()).ok(),
        detail: detail.to_owned(),
        first: run.records.first().and_then(|record| record.sequence),
        last: run.records.last().and_then(|record| record.sequence),
    }
}
