//! The agent's entries for the audit ledger: they wait in the store's outbox until procmond has written them, so none is
//! lost while procmond is away, and one that was written twice is recognised by its id.

use std::sync::Arc;
use std::time::Duration;

use daemoneye_engine::store::{LedgerMark, Store};
use daemoneye_lib::jail::Report;
use daemoneye_lib::proto::{
    AppendAudit, CollectorRequest, CollectorResponse, CoverageGap, collector_request::Verb, collector_response::Answer,
};
use serde_json::{Value, json};

use super::Worker;
use super::rules::Reloaded;
use crate::settings::Settings;

/// Entries of one request; a request stays far below the frame limit.
const BATCH: usize = 256;
/// How long procmond may take to write them.
const DEADLINE: Duration = Duration::from_secs(10);
/// Names that one entry lists; the rest is in the count.
const NAMES: usize = 50;

/// Puts an entry into the outbox. A store that refuses is reported by ingest, which pauses or ends the worker; here it
/// is only noted.
pub(crate) fn push(store: &Store, actor: &str, action: &str, payload: &Value) {
    if let Err(error) = store.audit_push(actor, action, payload) {
        tracing::warn!(%error, action, "an audit entry was not kept");
    }
}

/// Hands everything that waits to procmond; returns when nothing waits or nobody takes it.
pub(crate) async fn drain(worker: &Arc<Worker>) {
    let _alone = worker.handing.lock().await;
    while let Some((keeper, head)) = worker.roster.ledger_keeper() {
        if !heed(worker, head).await {
            return;
        }
        let pending = worker.blocking(|worker| worker.store.audit_pending(BATCH)).await;
        let entries = match pending {
            Some(Ok(entries)) if !entries.is_empty() => entries,
            Some(Err(error)) => return tracing::warn!(%error, "the audit outbox cannot be read"),
            Some(Ok(_)) | None => return,
        };
        let [first, last] = [entries.first(), entries.last()].map(|entry| entry.map_or(0, |entry| entry.outbox_id));
        let request = CollectorRequest { verb: Some(Verb::AppendAudit(AppendAudit { entries })) };
        let (up_to, mark) = match worker.broker.call(&keeper, request, DEADLINE).await {
            Ok(CollectorResponse { answer: Some(Answer::Audit(taken)) }) => {
                let entries = taken.last_sequence.saturating_add(1);
                (taken.last_outbox_id, LedgerMark::told(entries, &taken.last_hash))
            }
            Ok(_) => return tracing::warn!(keeper, "answered an audit append with something else"),
            Err(error) => return tracing::debug!(keeper, %error, "audit entries wait"),
        };
        if up_to > last {
            // Of an id that was not sent: whether these were written or taken for others nobody knows.
            if !heed(worker, up_to).await {
                return;
            }
            continue;
        }
        if up_to < first {
            let renumbered = worker.blocking(move |worker| worker.store.audit_refused(up_to)).await;
            if let Some(Ok(entries)) = renumbered {
                tracing::warn!(
                    up_to,
                    entries,
                    "the outbox counted too far ahead for the ledger: what waits has new ids"
                );
            }
            // The next round goes on, so that this has an end where it does not help.
            return;
        }
        // What it was before counts until it was looked at.
        let mark = mark.filter(|_| !worker.unmet.has(&keeper));
        let taken = move |worker: &Worker| worker.store.audit_taken(up_to, mark.map(|mark| (keeper.as_str(), mark)));
        let done = worker.blocking(taken).await;
        if !matches!(done, Some(Ok(_))) {
            return;
        }
    }
}

/// Gives what waits new ids where the ledger has taken ids up to `head` that this store has not given out; `false`: the store refused.
async fn heed(worker: &Arc<Worker>, head: u64) -> bool {
    match worker.blocking(move |worker| worker.store.audit_heed(head)).await {
        Some(Ok(Some(entries))) => {
            tracing::warn!(
                head,
                entries,
                "the ledger has taken entries that this store does not know of: was the data directory restored or replaced? \
                 What waits goes to the ledger under new ids"
            );
            true
        }
        Some(Ok(None)) => true,
        Some(Err(error)) => {
            tracing::warn!(%error, "the audit outbox cannot be renumbered; its entries wait");
            false
        }
        None => false,
    }
}

/// Puts an entry into the outbox for each alert that has grown since the ledger was told of it.
pub(crate) async fn grown(worker: &Arc<Worker>) {
    if let Some(Err(error)) = worker.blocking(|worker| worker.store.tell_growth()).await {
        tracing::warn!(%error, "the ledger was not told of alerts that have grown");
    }
}

/// Characters of a setting's value that an entry has: a list of directories may be long, and an entry has its bound.
const VALUE_CHARS: usize = 512;

/// What a start is remembered by: the build and the settings, so that two starts show what was set otherwise in between. No setting is
/// a secret: keys and tokens lie in files that settings name.
pub(crate) fn start(settings: &Settings) -> Value {
    let (mut hasher, mut values) = (blake3::Hasher::new(), serde_json::Map::new());
    for entry in settings.config.entries() {
        let value: String = entry.value.chars().take(VALUE_CHARS).collect();
        values.insert(entry.key.to_owned(), value.into());
        hasher.update(entry.key.as_bytes()).update(b"=").update(entry.value.as_bytes()).update(b"\n");
    }
    json!({
        "build": daemoneye_lib::BUILD,
        "config": hasher.finalize().to_hex().as_str(),
        "settings": values,
        "procmond_mode": if settings.procmond.spawn { "spawn" } else { "external" },
    })
}

/// What the kernel holds the worker to.
pub(crate) fn sandbox(report: &Report) -> Value {
    json!({ "layers": &report.layers, "probes": &report.probes })
}

/// What a change of the rules was.
pub(crate) fn rules(reloaded: &Reloaded) -> Value {
    let names = |all: &[String]| json!({ "count": all.len(), "names": all.iter().take(NAMES).collect::<Vec<_>>() });
    json!({
        "loaded": reloaded.loaded,
        "added": names(&reloaded.added),
        "changed": names(&reloaded.changed),
        "removed": names(&reloaded.removed),
        "problems": reloaded.problems.len(),
    })
}

/// What rules do not mean any more, or again.
pub(crate) fn exceptions(reloaded: &Reloaded) -> Value {
    let set: Vec<Value> = reloaded
        .exceptions
        .iter()
        .take(NAMES)
        .map(|exception| {
            json!({ "id": exception.id, "rule": exception.rule, "condition": exception.condition, "owner": exception.owner,
                "reason": exception.reason, "expires_us": exception.expires_us })
        })
        .collect();
    let removed: Vec<_> = reloaded.exceptions_gone.iter().take(NAMES).collect();
    json!({
        "set": { "count": reloaded.exceptions.len(), "exceptions": set },
        "removed": { "count": reloaded.exceptions_gone.len(), "ids": removed },
    })
}

/// What was not seen; `gaps` is how many came together, of which this is the first.
pub(crate) fn gap(gap: &CoverageGap, gaps: usize) -> Value {
    json!({
        "gaps": gaps,
        "collector": gap.collector,
        "reason": gap.reason,
        "from_us": gap.from_us,
        "to_us": gap.to_us,
        "count": gap.count,
        "detail": gap.detail,
    })
}
