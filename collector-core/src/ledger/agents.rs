//! What the agent may have written into the ledger.
//!
//! Its entries are its own and its operators'. What the collector says itself (keys, ranges of events, heartbeats) is what proofs are
//! made from, so an agent that was taken over must not be able to say it in the collector's place. An entry that is refused leaves
//! one behind that says so: skipped without a trace, the agent would send it again for ever.

use daemoneye_lib::ledger::keys::{CREATED, ROTATED};
use daemoneye_lib::ledger::{AGENT, OPERATOR};
use daemoneye_lib::proto::AuditAppend;
use serde_json::json;

use super::Draft;

/// What only the collector says.
const COLLECTORS: [&str; 9] = [
    CREATED,
    ROTATED,
    "begin-monitoring",
    "control",
    "event-range",
    "heartbeat",
    "ledger-damage",
    "ledger-tail-cut",
    "registration",
];
/// The action of the entry in place of a refused one.
const REFUSED: &str = "audit-refused";
/// An outbox id may be so far above the last one taken: a ledger that is new, or that was restored, knows nothing of those before.
const LEAP: u64 = 1 << 32;
/// Any id up to here may come first: two to the power of 62, from where there are two to the power of 31 leaps.
const FREE: u64 = 1 << 62;
/// Characters of a refused entry's words that are kept: more than any real one has.
const WORD_CHARS: usize = 64;

/// The entry to chain.
pub(super) fn draft(append: &AuditAppend) -> Draft {
    let AuditAppend { actor, action, timestamp_ms, payload, .. } = append.clone();
    if (actor == AGENT || actor.starts_with(OPERATOR)) && !COLLECTORS.contains(&action.as_str()) {
        return Draft { actor, action, timestamp_ms, payload };
    }
    tracing::warn!(actor, action, "the agent may not write this entry; one that says so stands in its place");
    refused(&append.actor, &append.action, timestamp_ms, None)
}

/// The highest outbox id that may follow `taken`.
pub(super) fn last_id(taken: u64) -> u64 {
    taken.max(FREE).saturating_add(LEAP)
}

/// In place of an entry whose outbox id is above that.
pub(super) fn leap(append: &AuditAppend) -> Draft {
    let AuditAppend { outbox_id, actor, action, timestamp_ms, .. } = append;
    tracing::warn!(
        outbox_id,
        action,
        "the agent's outbox id is too far ahead; an entry that says so stands in its place"
    );
    refused(actor, action, *timestamp_ms, Some(*outbox_id))
}

fn refused(actor: &str, action: &str, timestamp_ms: i64, outbox_id: Option<u64>) -> Draft {
    let word = |text: &str| text.chars().take(WORD_CHARS).collect::<String>();
    let mut payload = json!({ "actor": word(actor), "action": word(action) });
    if let (Some(id), Some(fields)) = (outbox_id, payload.as_object_mut()) {
        fields.insert("outbox_id".to_owned(), id.into());
    }
    let payload = payload.to_string().into_bytes();
    Draft { actor: AGENT.to_owned(), action: REFUSED.to_owned(), timestamp_ms, payload }
}
