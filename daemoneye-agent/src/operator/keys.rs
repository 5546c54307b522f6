//! `audit rotate-key`: procmond makes the new key and signs over to it; the agent says who asked for it.

use std::time::Duration;

use daemoneye_eventbus::Caller;
use daemoneye_lib::proto::{
    AuditKey, CollectorRequest, CollectorResponse, Empty, Fault, FaultKind, collector_request::Verb,
    collector_response::Answer,
};
use serde_json::json;

use super::Operators;
use super::data::actor;

/// How long procmond may take: two entries and a checkpoint, each synced.
const DEADLINE: Duration = Duration::from_secs(20);

impl Operators {
    pub(super) async fn audit_rotate_key(&self, caller: &Caller) -> Result<AuditKey, Fault> {
        let worker = self.live_only("audit rotate-key")?;
        let (keeper, _) = worker.roster.ledger_keeper().ok_or_else(|| {
            Fault::new(
                FaultKind::Unavailable,
                "no collector that keeps a ledger is connected; ask again when procmond is back",
            )
        })?;
        // Before it: the request is part of the history also where the answer is lost.
        worker.audit(actor(caller), "audit-rotate-key", json!({ "collector": keeper })).await;
        let request = CollectorRequest { verb: Some(Verb::RotateAuditKey(Empty {})) };
        match worker.broker.call(&keeper, request, DEADLINE).await {
            Ok(CollectorResponse { answer: Some(Answer::AuditKey(key)) }) => Ok(key),
            Ok(_) => Err(Fault::new(FaultKind::Internal, "the collector answered with something else")),
            Err(error) => Err(Fault::new(FaultKind::Unavailable, format!("{keeper} did not change its key: {error}"))),
        }
    }
}
