//! What operators ask of the store for the ledger's sake: whether it is what the ledger says, and the leaves that proofs are made of.

use daemoneye_engine::store::{LedgerFall, StoreError};
use daemoneye_eventbus::Caller;
use daemoneye_lib::ledger::{EventRange, MAX_RANGE_RECORDS};
use daemoneye_lib::proto::{
    AuditLeaves, AuditLeavesShown, DataShown, Fault, FaultKind, Progress, operator_response::Answer,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::data::reader::show;
use super::data::{actor, alone, shown};
use super::query::fault;
use super::{Answers, Operators, say};

/// Leaves of one answer: some 330 KiB, a third of the largest frame.
const LEAVES_AT_ONCE: usize = 8_192;

impl Operators {
    pub(super) async fn audit_compare(&self, answers: &Answers, cancel: CancellationToken) -> Result<(), Fault> {
        let alone = alone(&self.whole_store)?;
        let (told, dir) = (answers.clone(), self.store.ledger_dir());
        let ledger = dir.display().to_string();
        let found = self.blocking(move |store| {
            let found = store.compare_with_ledger(&dir, &mut |done, total| {
                !cancel.is_cancelled() && show(&told, Progress { done, total })
            });
            // A directory that is closed to this program is the operator's to open, and known from `health`.
            match found {
                Err(StoreError::Unreadable { source, .. }) => Ok(Err(source)),
                other => other.map(Ok),
            }
        });
        let found = found.await?.map_err(|error| {
            let text = format!(
                "the agent cannot read the ledger in {ledger}: {error}; name its directory in procmond.audit_dir, or for a copied \
                 store with --audit-dir"
            );
            Fault::new(FaultKind::Unavailable, text)
        })?;
        drop(alone);
        let mut document = json!(found);
        if let Some(members) = document.as_object_mut() {
            members.insert("ledger".to_owned(), json!(ledger));
        }
        say(answers, Answer::Data(shown(&document, found.is_sound())?)).await;
        Ok(())
    }

    /// Both figures of each ledger that was accepted.
    pub(super) async fn audit_accept_ledger(&self, caller: &Caller) -> Result<DataShown, Fault> {
        self.live_only("audit accept-ledger")?;
        let actor = actor(caller);
        let accepted = self.blocking(move |store| store.accept_ledgers(&actor)).await?;
        shown(&json!({ "ledgers": accepted.iter().map(LedgerFall::told).collect::<Vec<_>>() }), true)
    }

    pub(super) async fn audit_leaves(
        &self,
        asked: AuditLeaves,
        answers: &Answers,
        cancel: CancellationToken,
    ) -> Result<(), Fault> {
        let range = bounded(asked)?;
        // It reads files as a query does, so it is one of those that run at a time.
        let slot = self.engine.turn(&cancel).await.map_err(|error| fault(&error))?;
        let leaves = self.blocking(move |store| store.range_leaves(&range, &cancel)).await?;
        drop(slot);
        let Some(leaves) = leaves else {
            return Err(Fault::new(FaultKind::Cancelled, "the caller has left"));
        };
        let leaves: Vec<_> = leaves.into_iter().collect();
        let mut parts = leaves.chunks(LEAVES_AT_ONCE).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let shown = AuditLeavesShown {
                numbers: part.iter().map(|(number, _)| *number).collect(),
                leaves: part.iter().flat_map(|(_, leaf)| *leaf).collect(),
                last: parts.peek().is_none(),
            };
            let last = shown.last;
            if !say(answers, Answer::AuditLeaves(shown)).await || last {
                return Ok(());
            }
        }
    }
}

/// A range of which a collector writes such: whoever may look must not make the agent read the whole store at once.
fn bounded(asked: AuditLeaves) -> Result<EventRange, Fault> {
    let AuditLeaves { collector, epoch, first, last, schema } = asked;
    let span = last.checked_sub(first).filter(|span| *span < MAX_RANGE_RECORDS).ok_or_else(|| {
        let text = format!("{first} to {last} is no range of events: it has at most {MAX_RANGE_RECORDS}");
        Fault::new(FaultKind::InvalidRequest, text)
    })?;
    let count = span.saturating_add(1);
    Ok(EventRange { collector, epoch, first, last, count, root: [0; 32], schema, events: count, others: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_given_of_one_range_at_a_time() {
        let asked = |first, last| AuditLeaves { first, last, ..AuditLeaves::default() };
        assert_eq!(bounded(asked(3, 3)).unwrap().count, 1);
        assert_eq!(bounded(asked(1, MAX_RANGE_RECORDS)).unwrap().count, MAX_RANGE_RECORDS);
        for (first, last) in [(0, MAX_RANGE_RECORDS), (0, u64::MAX), (2, 1)] {
            assert_eq!(bounded(asked(first, last)).unwrap_err().kind(), FaultKind::InvalidRequest);
        }
    }
}
