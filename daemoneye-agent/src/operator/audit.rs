//! What operators ask of the store for the ledger's sake: whether it is what the ledger says, and the leaves that proofs are made of.

use std::path::PathBuf;

use daemoneye_engine::sql::SystemTables as _;
use daemoneye_lib::ledger::EventRange;
use daemoneye_lib::proto::{AuditLeaves, AuditLeavesShown, Fault, Progress, operator_response::Answer};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::data::reader::show;
use super::data::{alone, shown};
use super::{Answers, Operators, say};

/// Leaves of one answer: some 330 KiB, a third of the largest frame.
const LEAVES_AT_ONCE: usize = 8_192;

impl Operators {
    /// Where the collector writes the ledger, as far as that is known.
    fn ledger_dir(&self) -> PathBuf {
        let told = self.worker.as_ref().and_then(|worker| worker.ledger_dir());
        told.unwrap_or_else(|| self.store.dir().join("audit"))
    }

    pub(super) async fn audit_compare(&self, answers: &Answers, cancel: CancellationToken) -> Result<(), Fault> {
        let alone = alone(&self.whole_store)?;
        let (told, dir) = (answers.clone(), self.ledger_dir());
        let found = self.blocking(move |store| {
            store.compare_with_ledger(&dir, &mut |done, total| {
                !cancel.is_cancelled() && show(&told, Progress { done, total })
            })
        });
        let found = found.await?;
        drop(alone);
        say(answers, Answer::Data(shown(&json!(found), found.is_sound())?)).await;
        Ok(())
    }

    pub(super) async fn audit_leaves(&self, asked: AuditLeaves, answers: &Answers) -> Result<(), Fault> {
        let AuditLeaves { collector, epoch, first, last, schema } = asked;
        let count = last.saturating_sub(first).saturating_add(1);
        let range =
            EventRange { collector, epoch, first, last, count, root: [0; 32], schema, events: count, others: None };
        let leaves: Vec<_> = self.blocking(move |store| store.range_leaves(&range)).await?.into_iter().collect();
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
