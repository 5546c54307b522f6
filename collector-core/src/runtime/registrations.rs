//! The agents that this collector has met, as the ledger is told of them.
//!
//! That entry may have to wait: for its turn, as an agent that hangs up and comes back again and again is heard no oftener than its
//! orders, and for a ledger that is being written. What the agent says next does not wait behind it. The first that waits stays as it is,
//! because it says how far the agent was when the two met; those that come meanwhile are told of together, with their number.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use daemoneye_lib::proto::Sequence;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// The first one, and all others together.
const WAITING: usize = 2;

/// One connection, or several that came together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The agent's build, of the newest.
    pub(crate) agent: String,
    /// The farthest that it said to have stored.
    pub(crate) committed: Option<Sequence>,
    connections: u64,
}

impl Registration {
    pub(crate) const fn new(agent: String, committed: Option<Sequence>) -> Self {
        Self { agent, committed, connections: 1 }
    }

    fn join(&mut self, later: Self) {
        self.connections = self.connections.saturating_add(later.connections);
        (self.agent, self.committed) = (later.agent, self.committed.max(later.committed));
    }

    fn payload(&self, collector: &str) -> Value {
        let mut payload = json!({
            "collector": collector, "agent": self.agent, "committed": self.committed.map(|at| at.to_string()),
        });
        if let Some(fields) = payload.as_object_mut().filter(|_| self.connections > 1) {
            fields.insert("connections".to_owned(), json!(self.connections));
        }
        payload
    }
}

/// Those of which the ledger has not heard.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    waiting: std::sync::Mutex<VecDeque<Registration>>,
    /// Held until the entry stands: they follow each other in the ledger, and none comes behind the collector's end.
    writing: Mutex<()>,
    news: Notify,
}

impl Registrations {
    /// Never waits.
    pub(crate) fn add(&self, registration: Registration) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push_back(registration);
        } else if let Some(last) = waiting.back_mut() {
            last.join(registration);
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn next(&self) -> Option<Registration> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Shared {
    /// Tells the ledger of all that wait, whoever's turn it is.
    pub(super) async fn tell_registrations(&self) {
        while self.tell_registration().await {}
    }

    /// Whether there was one.
    async fn tell_registration(&self) -> bool {
        let _writing = self.registrations.writing.lock().await;
        let Some(next) = self.registrations.next() else { return false };
        self.note("registration", next.payload(&self.id)).await;
        true
    }
}

/// Until `shutdown`: each in its turn.
pub(super) async fn keep_told(shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.registrations.news.notified() => {}
        }
        while !shared.registrations.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = shared.orders.wait() => {}
            }
            shared.tell_registration().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connection_that_waits_stays_as_it_is_and_the_others_are_told_of_together() {
        let registrations = Registrations::default();
        for number in [7, 8, 90, 9] {
            registrations.add(Registration::new(format!("build {number}"), Some(Sequence::new(1, number))));
        }
        registrations.add(Registration::new("build of a new store".to_owned(), None));
        let told: Vec<Value> =
            std::iter::from_fn(|| registrations.next()).map(|next| next.payload("second")).collect();
        let first = json!({ "collector": "second", "agent": "build 7", "committed": "1:7" });
        let others = json!({
            "collector": "second", "agent": "build of a new store", "committed": "1:90", "connections": 4,
        });
        assert_eq!(told, [first, others]);
        assert!(registrations.is_empty());
    }
}
