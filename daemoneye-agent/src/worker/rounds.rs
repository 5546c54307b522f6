//! What comes back at intervals: heartbeats that are missing, rule files that changed, audit entries that wait, history that
//! is too old or too large or lies in too many files or is damaged, a clock that was set. Each round is a task of its own, so a slow one holds up no other.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use daemoneye_engine::store::{DamagedSegment, StoreError, Verification};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::{Phase, Worker, audit, integrity, ledgers, notices, rule_marks};
use crate::clock::now_us;
use crate::link::ToParent;
use crate::parent::collector;

/// How often heartbeats are counted.
const HEARTBEATS: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody collects, and what the collectors say of their ledgers.
const OUTAGES: Duration = Duration::from_secs(1);
/// How often rule files are looked at: an edit is in force before the editor is closed.
const RULE_FILES: Duration = Duration::from_secs(2);
/// How often what rules are found by is chosen anew, where this host's events are not like the table's: it takes as long as a load.
const RULE_WEIGHTS: Duration = Duration::from_secs(600);
/// How often waiting audit entries are handed over.
const AUDIT: Duration = Duration::from_millis(500);
/// How often the ledger hears of alerts that have grown: one entry for each, however often it was seen.
const GROWTH: Duration = Duration::from_secs(60);
/// How often old history is removed; segments are hours long.
const RETENTION: Duration = Duration::from_secs(3600);
/// How often history is looked at for segments to merge, and for its size: as often as segments are made on a quiet host.
const COMPACTION: Duration = Duration::from_secs(60);

/// How often the host's clock is compared with the time that has passed: before an alert is taken for too old to deliver.
const CLOCK: Duration = Duration::from_secs(60);
/// How often some of the history is read again, and how much of it: 1 MiB/s, which is 35 minutes for the default bound and
/// leaves any disk to others.
const VERIFICATION: Duration = Duration::from_secs(1);
const VERIFIED_BYTES: u64 = 1024 * 1024;
/// Pause behind a pass over all of it.
const BETWEEN_PASSES: Duration = Duration::from_secs(6 * 3600);

/// Starts every round; they end with the worker.
pub(crate) fn start(worker: &Arc<Worker>) {
    round(worker, HEARTBEATS, |worker| async move { heartbeats(&worker) });
    round(worker, OUTAGES, |worker| async move { outages(&worker).await });
    round(worker, OUTAGES, |worker| async move { integrity::ledgers(&worker).await });
    round(worker, OUTAGES, |worker| async move { ledgers::watch(&worker).await });
    round(worker, RULE_FILES, |worker| async move { rule_files(&worker).await });
    round(worker, RULE_FILES, |worker| async move { rule_marks::tell(&worker).await });
    round(worker, RULE_WEIGHTS, |worker| async move { rule_weights(&worker).await });
    round(worker, AUDIT, |worker| async move { audit::drain(&worker).await });
    round(worker, GROWTH, |worker| async move { audit::grown(&worker).await });
    round(worker, RETENTION, |worker| async move { retention(&worker).await });
    round(worker, CLOCK, |worker| async move { clock(&worker).await });
    verification(worker);
    round(worker, COMPACTION, |worker| async move { compaction(&worker).await });
}

fn round<F: Future<Output = ()> + Send>(
    worker: &Arc<Worker>,
    every: Duration,
    work: impl Fn(Arc<Worker>) -> F + Send + 'static,
) {
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = worker.shutdown.cancelled() => return,
                _ = ticks.tick() => work(Arc::clone(&worker)).await,
            }
        }
    });
}

fn heartbeats(worker: &Worker) {
    find_ledger(worker);
    let committed = |id: &str| worker.store.committed(id);
    worker.roster.notice_commits(committed, worker.settings.store.seal_after, Instant::now());
    let interval = Duration::from_millis(worker.settings.procmond.heartbeat_interval_ms);
    for collector in worker.roster.overdue(interval, Instant::now()) {
        tracing::warn!(collector, "three heartbeats are missing");
        let reason = format!("{collector} sent no heartbeat for three intervals");
        worker.tell_parent(ToParent::RestartCollector { reason });
    }
}

/// Where no setting says where the ledger lies, its writer does.
fn find_ledger(worker: &Worker) {
    let told = worker.roster.ledger_dir().filter(|_| worker.settings.procmond.audit_dir.is_none());
    let Some(dir) = told.filter(|dir| *dir != worker.store.ledger_dir()) else { return };
    if let Err(error) = std::fs::read_dir(&dir) {
        tracing::warn!(
            dir = %dir.display(), %error,
            "the ledger cannot be read: name its directory in procmond.audit_dir and start the agent again"
        );
    }
    worker.store.ledger_lies_in(dir);
}

/// Writes down that nobody collects, from the moment on and not only when somebody does again.
async fn outages(worker: &Arc<Worker>) {
    if *worker.phase.borrow() == Phase::ShuttingDown {
        return;
    }
    let collects = || collector::is_collecting(&worker.settings.data_dir);
    for outage in worker.roster.outages(now_us(), collects) {
        if outage.begins {
            tracing::warn!(collector = outage.gap.collector, "{}", outage.gap.detail);
            notices::cover(worker, outage.gap).await;
        } else {
            notices::keep(worker, outage.gap).await;
        }
    }
}

async fn rule_files(worker: &Arc<Worker>) {
    if worker.blocking(|worker| worker.rules.changed_on_disk()).await == Some(true)
        && let Err(error) = worker.reload_rules("agent".to_owned()).await
    {
        tracing::warn!(%error, "rules were not read again");
    }
}

async fn rule_weights(worker: &Arc<Worker>) {
    if worker.blocking(|worker| worker.rules.set().reweigh()).await == Some(true) {
        tracing::info!("what rules are found by was chosen anew: this host's events are unlike what was expected");
    }
}

/// Says so when the host's clock has been set ahead; what grows old goes by the believed one then.
async fn clock(worker: &Arc<Worker>) {
    let judged = worker.blocking(|worker| {
        let mut read = worker.clock_read.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (Instant::now(), worker.store.clock_ahead_us());
        let ahead_us = worker.store.watch_clock(now_us(), now.saturating_duration_since(*read))?;
        *read = now;
        Ok::<_, StoreError>((before, ahead_us))
    });
    match judged.await {
        Some(Ok((0, ahead_us))) if ahead_us > 0 => {
            tracing::warn!(
                ahead_s = ahead_us / 1_000_000,
                "the clock was set ahead; nothing grows old by it for a day"
            );
        }
        Some(Err(error)) => tracing::warn!(%error, "the clock was not judged"),
        Some(Ok(_)) | None => {}
    }
}

/// Reads the history again and again, a little at a time.
fn verification(worker: &Arc<Worker>) {
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        let mut pass = Verification::default();
        let mut wait = VERIFICATION;
        loop {
            tokio::select! {
                () = worker.shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let mut going = std::mem::take(&mut pass);
            let step = worker.blocking(move |worker| {
                let found = worker.store.verify(&mut going, VERIFIED_BYTES);
                (going, found)
            });
            let Some((gone, found)) = step.await else { return };
            pass = gone;
            wait = match found {
                Ok(None) => BETWEEN_PASSES,
                Ok(Some(damaged)) => {
                    tell(&worker, damaged).await;
                    VERIFICATION
                }
                Err(error) => {
                    tracing::warn!(%error, "the history was not checked");
                    VERIFICATION
                }
            };
        }
    });
}

/// The ledger says which history was changed, whatever becomes of the store.
async fn tell(worker: &Arc<Worker>, damaged: Vec<DamagedSegment>) {
    for segment in damaged {
        let name = segment.path.file_name().unwrap_or_default().display().to_string();
        let payload = json!({ "segment": name, "rows": segment.rows, "from_us": segment.first_us,
            "to_us": segment.last_us, "problem": segment.what });
        worker.audit("agent".to_owned(), "segment-damaged", payload).await;
    }
}

async fn retention(worker: &Arc<Worker>) {
    clock(worker).await;
    match worker.blocking(|worker| worker.store.expire(worker.store.believed_us())).await {
        Some(Ok(expired)) => tracing::debug!(?expired, "retention"),
        Some(Err(error)) => tracing::warn!(%error, "old history was not removed"),
        None => {}
    }
}

/// One merge after the other until none is due. What fails is tried again in a later round; a file that was away is used again.
async fn compaction(worker: &Arc<Worker>) {
    match worker.blocking(|worker| worker.store.expire_by_size()).await {
        Some(Ok(expired)) if expired.alerts > 0 => tracing::warn!(
            alerts = expired.alerts,
            "alerts were removed because all together are larger than alerts.retention_bytes; a rule matches too much, or it is too small"
        ),
        Some(Ok(expired)) => tracing::debug!(?expired, "retention by size"),
        Some(Err(error)) => tracing::warn!(%error, "history is too large and its oldest part was not removed"),
        None => {}
    }
    if let Some(Err(error)) = worker.blocking(|worker| worker.store.take_back()).await {
        tracing::warn!(%error, "segments that were set aside were not looked at");
    }
    loop {
        let stop = worker.shutdown_token();
        match worker.blocking(move |worker| worker.store.compact(worker.store.believed_us(), &stop)).await {
            Some(Ok(Some(merged))) => tracing::debug!(?merged, "segments merged"),
            Some(Ok(None)) | None => return,
            Some(Err(error)) => return tracing::warn!(%error, "segments were not merged"),
        }
    }
}
