//! What a file is to prove, and that what is in it is just that.
//!
//! The file itself is signed by nobody: whoever makes one chooses what it is about. So what it holds is true, and what it leaves out it
//! cannot show: an event of a process that was left out of its file is missed by nobody, an entry of a period is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::checkpoint::Checkpoint;
use super::{EntryProof, Period, Proof, Told};
use crate::model::{Alert, EventPointer};

/// What a file is to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An alert, by its id, and the entry that tells of it.
    Alert(String),
    /// Events of one process, by its `entity_id`.
    Entity(String),
    /// An entry, by its sequence.
    Entry(u64),
    /// One event.
    Event(EventPointer),
    /// An alert, by its id, and what belongs to it.
    Evidence(String),
    /// All that the ledger says of a time.
    Period(Period),
}

impl Proof {
    /// Of verified parts; what is said of a period, where that is the target.
    pub(super) fn fits_target(
        &self,
        checkpoint: &Checkpoint,
        alert: Option<&Alert>,
        events: &[EventPointer],
    ) -> Result<Option<Told>, &'static str> {
        let demand = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
        let is_alert = |id: &str| alert.is_some_and(|alert| alert.id.to_string() == *id);
        let is_used = |entry: &EntryProof| self.events.iter().any(|event| event.entry == entry.sequence);
        let alone = self.entries.len() == 1;
        let is_evidence = matches!(self.target, Target::Evidence(_));
        let is_withheld = self.entries.iter().any(|entry| entry.payload_hash.is_some());
        demand(is_evidence || !is_withheld, "the payload of an entry is withheld")?;
        match &self.target {
            Target::Alert(id) => {
                demand(is_alert(id) && alone && events.is_empty(), "it is not the alert that is named and its entry")?;
            }
            Target::Entity(id) => {
                let is_of = |value: Option<&Value>| value.and_then(Value::as_str) == Some(id);
                let all = self.events.iter().all(|event| is_of(event.row.get("entity_id")));
                let used = self.entries.iter().all(is_used);
                let holds = !events.is_empty() && all && used && alert.is_none();
                demand(holds, "its events are not those of the process that is named, or one was taken out")?;
                let place = |at: &EventPointer| (at.collector.clone(), at.epoch, at.number);
                let once = events.is_sorted_by(|one, next| place(one) < place(next));
                demand(once, "its events are not in the order of their positions, each once")?;
            }
            Target::Entry(sequence) => {
                let same = self.entries.iter().all(|entry| entry.sequence == *sequence);
                demand(same && alone && events.is_empty() && alert.is_none(), "it is not the entry that is named")?;
            }
            Target::Event(pointer) => {
                let same = events == std::slice::from_ref(pointer);
                demand(same && alone && alert.is_none(), "it is not the event that is named")?;
            }
            Target::Evidence(id) => demand(is_alert(id), "it is not the alert that is named")?,
            Target::Period(period) => {
                demand(events.is_empty() && alert.is_none(), "a period has entries and nothing else")?;
                return Told::of(*period, &self.entries, checkpoint.size).map(Some);
            }
        }
        Ok(None)
    }
}
