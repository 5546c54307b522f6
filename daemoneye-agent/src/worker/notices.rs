//! What the bus tells about its peers: who came, who is alive, who was turned away, what was shed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use daemoneye_eventbus::Notice;
use daemoneye_lib::model::ScanMetadata;
use daemoneye_lib::proto::{CoverageGap, Heartbeat};
use tokio::sync::mpsc;

use super::{Worker, audit, greeting, ledgers, rule_life};
use crate::clock::now_us;
use crate::link::ToParent;

/// Works off notices until the broker ends.
pub(crate) async fn follow(worker: Arc<Worker>, mut notices: mpsc::Receiver<Notice>) {
    let mut pids = HashMap::new();
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Connected { id, peer, build, .. } => {
                tracing::debug!(%id, uid = peer.uid, build, "connected");
                pids.insert(id, peer.pid);
            }
            Notice::Registered(register) => {
                worker.unmet.add(&register.collector_id);
                if let Some(committed) = worker.store.committed(&register.collector_id) {
                    worker.roster.committed(&register.collector_id, committed);
                }
                if let Some(gap) = worker.roster.registered((*register).clone()) {
                    worker.outage.store(true, Ordering::Relaxed);
                    cover(&worker, gap).await;
                }
                // It may fill other columns than the one before it.
                worker.blocking(rule_life::look_again).await;
                // The parent sends signals to it: the kernel's word, which counts in our pid namespace, and not the collector's.
                if let Some(pid) = pids.get(&*register.collector_id).copied().flatten() {
                    worker.tell_parent(ToParent::Collector { pid });
                }
                tokio::spawn(greeting::greet(Arc::clone(&worker), *register));
            }
            Notice::Heartbeat(heartbeat) => note_heartbeat(&worker, *heartbeat).await,
            Notice::Disconnected { collector, reason } => {
                tracing::info!(%collector, reason, "disconnected");
                worker.roster.disconnected(&collector, &reason);
                pids.remove(&collector);
            }
            Notice::Refused { peer, fault } => worker.refused(&peer, &fault.message),
            Notice::Shed { topic, count } if topic.starts_with("events.") => {
                cover(&worker, shed(&topic, count)).await;
            }
            Notice::Shed { topic, count } => tracing::debug!(topic, count, "a slow subscriber missed messages"),
        }
    }
}

/// Keeps a gap and notes it in the ledger.
pub(super) async fn cover(worker: &Arc<Worker>, gap: CoverageGap) {
    let payload = audit::gap(&gap, 1);
    keep(worker, gap).await;
    worker.audit("agent".to_owned(), "coverage-gap", payload).await;
}

/// Keeps a gap, or makes the one longer that it continues.
pub(super) async fn keep(worker: &Arc<Worker>, gap: CoverageGap) {
    if let Some(Err(error)) = worker.blocking(move |worker| worker.store.add_coverage(gap)).await {
        tracing::warn!(%error, "a coverage gap was not kept");
    }
}

fn shed(topic: &str, count: u64) -> CoverageGap {
    let now = now_us();
    CoverageGap {
        collector: "bus".to_owned(),
        reason: "subscriber_slow".to_owned(),
        from_us: now,
        to_us: now,
        count: Some(count),
        detail: format!("a subscriber of {topic} had no room; the store has these events"),
        ..CoverageGap::default()
    }
}

async fn note_heartbeat(worker: &Arc<Worker>, heartbeat: Heartbeat) {
    let health = heartbeat.health.clone().unwrap_or_default();
    let scan = ScanMetadata {
        time_us: now_us(),
        collector: heartbeat.collector_id.clone(),
        cycles: health.cycles,
        processes: health.processes,
        events: health.events,
        errors: health.errors,
    };
    if heartbeat.state == "waiting_for_agent" {
        greeting::begin_monitoring(worker);
    }
    let id = heartbeat.collector_id.clone();
    let reached = ledgers::mark(&health).filter(|_| !worker.unmet.has(&id)).map(|mark| (id.clone(), mark));
    if worker.roster.heartbeat(heartbeat) {
        let worker = Arc::clone(worker);
        tokio::spawn(async move { greeting::look_at(&worker, &id).await });
    }
    let kept = worker.blocking(move |worker| {
        worker.store.put_scan(&scan)?;
        reached.map_or(Ok(()), |(keeper, mark)| worker.store.ledger_reached(&keeper, mark))
    });
    if let Some(Err(error)) = kept.await {
        tracing::warn!(%error, "a scan was not kept, or how far the ledger is");
    }
}
