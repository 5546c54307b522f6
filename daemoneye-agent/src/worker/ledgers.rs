//! Whether a collector that has connected keeps the ledger that it kept before.
//!
//! What a ledger is known by lies beside it and is put back with it. The agent has another place: it keeps how far each had come, and
//! holds what it meets against that, before it takes note of anything newer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemoneye_engine::store::{LedgerFall, LedgerMark, StoreError};
use daemoneye_lib::ledger::LedgerFiles;
use daemoneye_lib::proto::{
    CollectorHealth, CollectorRequest, CollectorResponse, Empty, collector_request::Verb, collector_response::Answer,
};

use super::{Worker, integrity};
use crate::clock::now_us;

/// How long a collector may take to say how far its ledger is; it is asked again a second later.
const DEADLINE: Duration = Duration::from_secs(2);

/// Collectors that have connected and whose ledger was not looked at since.
#[derive(Debug, Default)]
pub(super) struct Unmet {
    collectors: Mutex<BTreeSet<String>>,
    /// Of two that look at the same time, one would hold an older answer against the newer one's mark.
    turn: tokio::sync::Mutex<()>,
}

impl Unmet {
    /// Before anything that it says of its ledger is taken note of.
    pub(super) fn add(&self, collector: &str) {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).insert(collector.to_owned());
    }

    pub(super) fn has(&self, collector: &str) -> bool {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).contains(collector)
    }

    fn all(&self) -> Vec<String> {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn met(&self, collector: &str) {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).remove(collector);
    }
}

/// How far a ledger is, by its collector's health; `None`: it keeps none.
pub(super) fn mark(health: &CollectorHealth) -> Option<LedgerMark> {
    LedgerMark::told(health.ledger_entries, &health.ledger_head)
}

/// Looks at the ledgers of those that have connected, and raises an alert of each that is not the one that it was. What fails is tried
/// again the next time.
pub(super) async fn watch(worker: &Arc<Worker>) {
    let _turn = worker.unmet.turn.lock().await;
    for keeper in worker.unmet.all() {
        meet(worker, &keeper).await;
    }
    match worker.blocking(|worker| worker.store.ledger_falls()).await {
        Some(Ok(falls)) => {
            for fall in falls.into_iter().filter(|fall| !fall.is_raised) {
                if let Some(Err(error)) = worker.blocking(move |worker| tell(worker, &fall)).await {
                    tracing::debug!(%error, "a ledger that fell waits for the store");
                }
            }
        }
        Some(Err(error)) => tracing::debug!(%error, "it is not known which ledgers fell"),
        None => {}
    }
}

async fn meet(worker: &Arc<Worker>, keeper: &str) {
    // The mark first: what the collector says then is at least that, if it goes on with the same ledger.
    let name = keeper.to_owned();
    let Some(Ok(had)) = worker.blocking(move |worker| worker.store.ledger_mark(&name)).await else { return };
    let request = CollectorRequest { verb: Some(Verb::HealthCheck(Empty {})) };
    let health = match worker.broker.call(keeper, request, DEADLINE).await {
        Ok(CollectorResponse { answer: Some(Answer::Health(health)) }) => health,
        Ok(_) => return tracing::debug!(keeper, "answered a health check with something else"),
        Err(error) => return tracing::debug!(keeper, %error, "its ledger was not looked at yet"),
    };
    let name = keeper.to_owned();
    let met = worker.blocking(move |worker| {
        let Some(has) = mark(&health) else { return Ok(()) };
        let told = Path::new(&health.ledger_dir);
        let dir = worker.settings.procmond.audit_dir.as_deref().unwrap_or(told);
        let at_mark = had.and_then(|had| last_of(dir, had));
        worker.store.ledger_met(&name, has, at_mark, now_us()).map(drop)
    });
    match met.await {
        Some(Ok(())) => worker.unmet.met(keeper),
        Some(Err(error)) => tracing::debug!(keeper, %error, "how far its ledger is was not kept"),
        None => {}
    }
}

/// The entry that was the last one, as the files have it now.
fn last_of(dir: &Path, had: LedgerMark) -> Option<LedgerMark> {
    let last = had.entries.checked_sub(1)?;
    let found = LedgerFiles::open(dir).and_then(|files| files.entry(last));
    // A directory that is closed to the agent is told by `health`; what the collector says counts then.
    found.ok().flatten().map(|record| LedgerMark { entries: had.entries, hash: record.entry.entry_hash })
}

/// Raises the alert, once. Blocking.
fn tell(worker: &Worker, fall: &LedgerFall) -> Result<(), StoreError> {
    let Some(found) = integrity::fell(fall) else { return Ok(()) };
    worker.raise(vec![found])?;
    tracing::error!("{fall}; {}", integrity::FALL_REMEDY);
    worker.store.ledger_fall_raised(fall)
}

#[cfg(test)]
mod tests {
    use daemoneye_engine::store::{Store, StoreOptions};
    use daemoneye_lib::ledger::{AuditEntry, GENESIS, LedgerHeader};
    use daemoneye_lib::segment::{Kind, SegmentHeader, SegmentName, encode};

    use super::*;

    /// A ledger of so many entries of an actor.
    fn written(dir: &Path, actor: &str, entries: u64) -> LedgerMark {
        let header = SegmentHeader { kind: Kind::Ledger, previous_crc: 0, epoch: 1, segment: 1, first: 1 };
        let (mut bytes, mut crc, mut hash) = (header.encode().to_vec(), 0, GENESIS);
        for sequence in 0..entries {
            let entry = AuditEntry::link(sequence, hash, 1_000, actor, "heartbeat", b"{}");
            hash = entry.entry_hash;
            let header = LedgerHeader { entry, outbox_id: 0, covered_epoch: 0, covered_number: 0 };
            crc = encode(&mut bytes, crc, 0, &header, b"{}").unwrap();
        }
        std::fs::write(dir.join(SegmentName::ledger().file(1)), bytes).unwrap();
        LedgerMark { entries, hash }
    }

    #[test]
    fn a_ledger_that_was_put_back_is_found_also_when_it_has_grown_beyond_where_it_was() {
        let (dir, audit) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let meet = |has: LedgerMark| {
            let at_mark = store.ledger_mark("procmond").unwrap().and_then(|had| last_of(audit.path(), had));
            store.ledger_met("procmond", has, at_mark, 7).unwrap()
        };
        assert!(!meet(written(audit.path(), "procmond", 5)), "it was never heard of");
        assert!(!meet(written(audit.path(), "procmond", 9)), "it goes on");
        assert!(meet(written(audit.path(), "another", 40)), "it goes on with other entries");
        assert!(!meet(written(audit.path(), "another", 41)), "once");
        let fall = store.ledger_falls().unwrap().remove(0);
        assert_eq!((fall.had.entries, fall.has.entries, fall.at_us, fall.is_raised), (9, 40, 7, false));
        let alerts = store.commit_matches(vec![integrity::fell(&fall).unwrap()]).unwrap();
        let [alert] = alerts.as_slice() else { panic!("{alerts:?}") };
        let cause = alert.row["cause"].as_str().unwrap();
        assert!(cause.contains("had 9 entries") && cause.contains("had 40 entries"), "{cause}");
        assert!(alert.row["remedy"].as_str().unwrap().contains("docs/audit.md"), "{alert:?}");
        assert!(store.commit_matches(vec![integrity::fell(&fall).unwrap()]).unwrap().is_empty(), "the same alert");
    }
}
