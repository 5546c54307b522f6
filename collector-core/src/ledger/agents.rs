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
/// Characters of a refused entry's words that are kept: more than any real one has.
const WORD_CHARS: usize = 64;

/// The entry to chain.
pub(super) fn draft(append: &AuditAppend) -> Draft {
    let AuditAppend { actor, action, timestamp_ms, payload, .. } = append.clone();
    if (actor == AGENT || actor.starts_with(OPERATOR)) && !COLLECTORS.contains(&action.as_str()) {
        return Draft { actor, action, timestamp_ms, payload };
    }
    let word = |text: &str| text.chars().take(WORD_CHARS).collect::<String>();
    let (actor, action) = (word(&actor), word(&action));
    tracing::warn!(actor, action, "the agent may not write this entry; one that says so stands in its place");
    let payload = json!({ "actor": actor, "action": action }).to_string().into_bytes();
    Draft { actor: AGENT.to_owned(), action: REFUSED.to_owned(), timestamp_ms, payload }
}
