//! What the agent may have written into the ledger.
//!
//! Its entries are its own and its operators'. What the collector says itself (keys, ranges of events, heartbeats) is what proofs are
//! made from, so an agent that was taken over must not be able to say it in the collector's place; nor may it put an entry between those
//! that no proof can hold. An entry that is refused leaves one behind that says so: skipped without a trace, the agent would send it
//! again for ever.

use daemoneye_lib::ledger::keys::{CREATED, ROTATED};
use daemoneye_lib::ledger::proof::{AGENT_ENTRY_BYTES, AGENT_PAYLOAD_BYTES};
use daemoneye_lib::ledger::{AGENT, OPERATOR};
use daemoneye_lib::proto::AuditAppend;
use serde_json::{Map, Value, json};

use super::Draft;

/// What only the collector says.
const COLLECTORS: [&str; 10] = [
    CREATED,
    ROTATED,
    "audit-delayed",
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
/// Bytes of actor and action: an operator has the name of a user.
const ACTOR_BYTES: usize = 512;

/// The entry to chain.
pub(super) fn draft(append: &AuditAppend) -> Draft {
    let AuditAppend { actor, action, timestamp_ms, payload, .. } = append.clone();
    match barred(append) {
        None => Draft { actor, action, timestamp_ms, payload },
        Some(why) => refused(append, why),
    }
}

/// The highest outbox id that may follow `taken`.
pub(super) fn last_id(taken: u64) -> u64 {
    taken.max(FREE).saturating_add(LEAP)
}

/// In place of an entry whose outbox id is above that.
pub(super) fn leap(append: &AuditAppend) -> Draft {
    refused(append, "its outbox id leaves none for those after it")
}

fn refused(append: &AuditAppend, why: &'static str) -> Draft {
    let AuditAppend { outbox_id, actor, action, timestamp_ms, payload } = append;
    let word = |text: &str| text.chars().take(WORD_CHARS).collect::<String>();
    let (actor, action) = (word(actor), word(action));
    tracing::warn!(actor, action, why, "the agent may not write this entry; one that says so stands in its place");
    let said = json!({
        "actor": actor, "action": action, "outbox_id": outbox_id, "why": why, "payload_bytes": payload.len(),
        "payload_hash": blake3::hash(payload).to_hex().as_str(),
    });
    let payload = said.to_string().into_bytes();
    Draft { actor: AGENT.to_owned(), action: REFUSED.to_owned(), timestamp_ms: *timestamp_ms, payload }
}

/// Why it may not be written.
fn barred(append: &AuditAppend) -> Option<&'static str> {
    let AuditAppend { actor, action, payload, .. } = append;
    if !(actor == AGENT || actor.starts_with(OPERATOR)) {
        return Some("the actor is neither the agent nor an operator");
    }
    if COLLECTORS.contains(&action.as_str()) {
        return Some("only the collector says this");
    }
    if actor.len().saturating_add(action.len()) > ACTOR_BYTES {
        return Some("actor and action have more than 512 bytes");
    }
    let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    let object = || serde_json::from_slice::<Map<String, Value>>(payload).is_ok();
    (bytes > AGENT_PAYLOAD_BYTES || !object()).then_some("the payload is no JSON object of at most 48 KiB")
}

/// How much of what the agent may write in a time an entry takes.
pub(crate) fn cost(append: &AuditAppend) -> u64 {
    let bytes = u64::try_from(append.payload.len()).unwrap_or(u64::MAX);
    bytes.min(AGENT_PAYLOAD_BYTES).div_ceil(AGENT_ENTRY_BYTES).max(1)
}
