//! What comes back at intervals: heartbeats that are missing, rule files that changed, audit entries that wait, history that
//! is too old or too large or lies in too many files. Each round is a task of its own, so a slow one holds up no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::{Phase, Worker, audit, notices};
use crate::clock::now_us;
use crate::link::ToParent;
use crate::parent::collector;

/// How often heartbeats are counted.
const HEARTBEATS: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody collects.
const OUTAGES: Duration = Duration::from_secs(1);
/// How often rule files are looked at: an edit is in force before the editor is closed.
const RULE_FILES: Duration = Duration::from_secs(2);
/// How often waiting audit entries are handed over.
const AUDIT: Duration = Duration::from_millis(500);
/// How often old history is removed; segments are hours long.
const RETENTION: Duration = Duration::from_secs(3600);
/// How often history is looked at for segments to merge, and for its size: as often as segments are made on a quiet host.
const COMPACTION: Duration = Duration::from_secs(60);

/// Starts every round; they end with the worker.
pub(crate) fn start(worker: &Arc<Worker>) {
    round(worker, HEARTBEATS, |worker| async move { heartbeats(&worker) });
    round(worker, OUTAGES, |worker| async move { outages(&worker).await });
    round(worker, RULE_FILES, |worker| async move { rule_files(&worker).await });
    round(worker, AUDIT, |worker| async move { audit::drain(&worker).await });
    round(worker, RETENTION, |worker| async move { retention(&worker).await });
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
    let committed = |id: &str| worker.store.committed(id);
    worker.roster.notice_commits(committed, worker.settings.store.seal_after, Instant::now());
    let interval = Duration::from_millis(worker.settings.procmond.heartbeat_interval_ms);
    for collector in worker.roster.overdue(interval, Instant::now()) {
        tracing::warn!(collector, "three heartbeats are missing");
        let reason = format!("{collector} sent no heartbeat for three intervals");
        worker.tell_parent(ToParent::RestartCollector { reason });
    }
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

async fn retention(worker: &Arc<Worker>) {
    match worker.blocking(|worker| worker.store.expire(now_us())).await {
        Some(Ok(expired)) => tracing::debug!(?expired, "retention"),
        Some(Err(error)) => tracing::warn!(%error, "old history was not removed"),
        None => {}
    }
}

/// One merge after the other until none is due. What fails is tried again in the next round.
async fn compaction(worker: &Arc<Worker>) {
    match worker.blocking(|worker| worker.store.expire_by_size()).await {
        Some(Ok(expired)) => tracing::debug!(?expired, "retention by size"),
        Some(Err(error)) => tracing::warn!(%error, "history is too large and its oldest part was not removed"),
        None => {}
    }
    loop {
        let stop = worker.shutdown_token();
        match worker.blocking(move |worker| worker.store.compact(now_us(), &stop)).await {
            Some(Ok(Some(merged))) => tracing::debug!(?merged, "segments merged"),
            Some(Ok(None)) | None => return,
            Some(Err(error)) => return tracing::warn!(%error, "segments were not merged"),
        }
    }
}
