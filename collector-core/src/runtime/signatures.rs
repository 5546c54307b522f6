//! Signs the ledger while it grows, and says each minute what the interval held, so that silence can be shown as well.
//!
//! A checkpoint is on the disk before anybody is told of it, and each one goes to the log, which the system keeps and forwards: one
//! that has left the host is what a local root cannot take back.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use daemoneye_lib::ledger::clock::LedgerClock;
use daemoneye_lib::ledger::heartbeat::{HEARTBEAT, HeartbeatEntry};
use daemoneye_lib::telemetry::PUBLISHED;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::shared::{Shared, millis};
use super::state::State;
use crate::ledger::{SigningError, read_clock};
use crate::wal::now_us;

/// Tries to sign, one after the other, after which it is told that they fail: three minutes, while a disk is full for a moment.
const UNSIGNED_TRIES: u32 = 3;

/// How often signing has failed since it last worked, and why.
#[derive(Default)]
pub(crate) struct Unsigned {
    tries: u32,
    why: String,
}

impl Unsigned {
    fn failed(&mut self, why: String) {
        self.tries = self.tries.saturating_add(1);
        self.why = why;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        (self.tries >= UNSIGNED_TRIES).then(|| format!("it cannot be signed: {}", self.why))
    }
}

/// The counters at the begin of an interval, and the state in it.
pub(super) struct Interval {
    at_ms: i64,
    /// By a clock that nobody sets.
    at: Instant,
    /// Of the ledger's clock at the begin; of this run alone while that of earlier ones could not be read.
    clock: LedgerClock,
    is_clock_known: bool,
    events: u64,
    lost: u64,
    errors: u64,
    cycles: u64,
    state: State,
    trouble: String,
    announced: bool,
}

impl Interval {
    /// The first one of a run; `clock` is what earlier ones have left in the ledger, `None` where that cannot be read now.
    pub(super) fn first(clock: Option<LedgerClock>) -> Self {
        let (at_ms, at, is_clock_known) = (now_us() / 1000, Instant::now(), clock.is_some());
        let mut clock = clock.unwrap_or_default();
        clock.shows(at_ms);
        Self {
            at_ms,
            at,
            clock,
            is_clock_known,
            events: 0,
            lost: 0,
            errors: 0,
            cycles: 0,
            state: State::WaitingForAgent,
            trouble: String::new(),
            announced: true,
        }
    }
}

impl Shared {
    /// Ends an interval with an entry: after a minute, and whenever the state has changed, so that each is of one state.
    pub(super) async fn note_interval(&self) {
        // Held until the entry stands: intervals follow each other in the ledger.
        let mut interval = self.interval.lock().await;
        // At one moment, before the source is asked, which may take a second.
        let (at_ms, at, wal, state) = (now_us() / 1000, Instant::now(), self.wal.stats(), *self.state.borrow());
        let mut clock = interval.clock.clone();
        let took_ms = at.saturating_duration_since(interval.at).as_millis();
        clock.ran(interval.at_ms, at_ms, i64::try_from(took_ms).unwrap_or(i64::MAX));
        let is_clock_known = interval.is_clock_known || self.read_past(&mut clock).await;
        let source = self.source_health().await;
        let trouble = self.trouble(source.unhealthy, &self.sub_status(&source.sub_status, source.unhealthy));
        let lost = wal.lost.saturating_add(source.lost);
        let (events, errors, cycles) = (wal.appended, source.errors, source.cycles);
        let (announced, look) = (source.announced, source.look.unwrap_or_else(|| self.settings.borrow().interval));
        let next = Interval {
            at_ms,
            at,
            clock: clock.clone(),
            is_clock_known,
            events,
            lost,
            errors,
            cycles,
            state,
            trouble: trouble.clone(),
            announced,
        };
        let before = std::mem::replace(&mut *interval, next);
        let entry = HeartbeatEntry {
            collector: self.id.clone(),
            from_ms: before.at_ms,
            to_ms: at_ms,
            state: before.state.word().to_owned(),
            trouble: if before.trouble.is_empty() { trouble } else { before.trouble },
            events: events.saturating_sub(before.events),
            lost: lost.saturating_sub(before.lost),
            errors: errors.saturating_sub(before.errors),
            cycles: cycles.saturating_sub(before.cycles),
            entities: source.entities,
            last: wal.written.map(|last| last.to_string()),
            announced: Some(before.announced && announced),
            look_ms: Some(millis(look)),
            every_ms: Some(millis(self.ledger_heartbeat)),
            clock: is_clock_known.then_some(clock),
        };
        self.note(HEARTBEAT, serde_json::to_value(entry).unwrap_or_default()).await;
        self.tell_delays().await;
    }

    /// What earlier runs left in the ledger, which could not be read before: an error that passes must not make all of the past a time
    /// of which nothing is shown. Whether it could be read now.
    async fn read_past(&self, clock: &mut LedgerClock) -> bool {
        let dir = self.ledger.dir().to_owned();
        let past = tokio::task::spawn_blocking(move || read_clock(&dir)).await.ok().flatten();
        past.is_some_and(|past| {
            clock.join(&past);
            true
        })
    }

    /// That the agent had to wait, where it had to since the last time.
    async fn tell_delays(&self) {
        let (appends, orders) = (self.agent_entries.news(), self.orders.news());
        if appends > 0 || orders > 0 {
            tracing::warn!(
                appends,
                orders,
                "the agent wants more written into the ledger than there is room for in a time"
            );
            self.note("audit-delayed", json!({ "collector": self.id, "appends": appends, "orders": orders })).await;
        }
    }

    /// Signs what is new and tells it.
    pub(super) async fn sign_now(&self) {
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || ledger.checkpoint()).await {
            Ok(Ok(Some(note))) => {
                *self.unsigned() = Unsigned::default();
                self.publish(&note);
            }
            // The entry at the start says why, and health repeats it.
            Ok(Ok(None) | Err(SigningError::Refused(_))) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the ledger was not signed; the next checkpoint makes up for it");
                self.unsigned().failed(error.to_string());
            }
        }
    }

    fn unsigned(&self) -> std::sync::MutexGuard<'_, Unsigned> {
        self.unsigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line of the log, so that nothing can come between its parts.
    pub(crate) fn publish(&self, note: &str) {
        tracing::info!(target: PUBLISHED, checkpoint = note, "ledger signed");
        self.checkpoint.send_replace(note.to_owned());
    }
}

/// Until `shutdown`: heartbeats, and a checkpoint for each as well as for every thousand entries.
pub(super) async fn keep_signed(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut next = tokio::time::Instant::now() + shared.ledger_heartbeat;
    shared.sign_now().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(next) => {
                next = tokio::time::Instant::now() + shared.ledger_heartbeat;
                shared.note_interval().await;
            }
            () = shared.ledger.due() => {}
        }
        shared.sign_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_that_fails_again_and_again_is_told_with_why() {
        let mut unsigned = Unsigned::default();
        for told in [false, false, true, true] {
            unsigned.failed("the disk is full".to_owned());
            assert_eq!(unsigned.trouble().is_some_and(|why| why.contains("the disk is full")), told);
        }
    }
}
