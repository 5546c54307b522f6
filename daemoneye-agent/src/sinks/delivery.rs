//! Feeds one sink from its outbox, in a task of its own.
//!
//! The outbox is the truth: a delivery is struck off only after the sink has confirmed it, so a crash in between delivers it
//! again, never not at all. Failures wait longer each time, with jitter; what still fails after a day is a dead letter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemoneye_engine::store::{Due, Store, StoreError};

use super::breaker::Breaker;
use super::checkpoints::Checkpoints;
use super::{AlertSink, SinkError};
use crate::clock::now_us;
use crate::jitter;
use crate::worker::Worker;

/// Alerts that are delivered before they are noted, which is also how many a crash can deliver twice.
const BATCH: usize = 32;
/// First and highest ceiling of the wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long one delivery may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the outbox is looked at for retries that have come due.
const POLL: Duration = Duration::from_secs(1);

/// One sink as health shows it.
#[derive(Debug)]
pub(crate) struct SinkState {
    pub(crate) name: &'static str,
    about: Mutex<About>,
}

/// What has become of its deliveries since the worker started.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) open: bool,
    pub(crate) last_error: Option<String>,
}

impl SinkState {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, about: Mutex::default() })
    }

    pub(crate) fn about(&self) -> About {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut About)) {
        change(&mut self.about.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Delivers until the worker stops, then once more what is due.
pub(crate) async fn run(worker: Arc<Worker>, sink: Box<dyn AlertSink>, state: Arc<SinkState>) {
    let mut news = worker.alert_news();
    let mut checkpoints = Checkpoints::new(Arc::clone(&worker.store));
    let mut feeder = Feeder { store: Arc::clone(&worker.store), sink, state, breaker: Breaker::default() };
    feeder.check().await;
    let shutdown = worker.shutdown_token();
    loop {
        feeder.round().await;
        checkpoints.feed(feeder.sink.as_mut(), worker.roster.checkpoint(), TIMEOUT, wait).await;
        if shutdown.is_cancelled() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(POLL) => {}
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

/// One sink and what feeds it.
struct Feeder {
    store: Arc<Store>,
    sink: Box<dyn AlertSink>,
    state: Arc<SinkState>,
    breaker: Breaker,
}

impl Feeder {
    /// Says at the start that a sink will not work, not at the first alert.
    async fn check(&mut self) {
        if let Err(error) = self.sink.health_check().await {
            tracing::warn!(sink = self.sink.name(), %error, "alerts wait for this sink");
            self.state.note(|about| about.last_error = Some(error.to_string()));
        }
    }

    /// Delivers everything that is due, unless the breaker is open.
    async fn round(&mut self) {
        while self.breaker.wait(Instant::now()).is_none() {
            let name = self.sink.name();
            let due = self.blocking(move |store| store.outbox_due(name, now_us(), BATCH)).await;
            let due = match due {
                Ok(due) if due.is_empty() => return,
                Ok(due) => due,
                Err(error) => return tracing::warn!(sink = name, %error, "the outbox cannot be read"),
            };
            if let Err(error) = self.deliver_all(due).await {
                return tracing::warn!(sink = name, %error, "deliveries were not noted and will be repeated");
            }
        }
    }

    /// Delivers in order until one fails and opens the breaker. What was delivered is noted in one transaction: one per
    /// alert would make the outbox slower than the sinks.
    async fn deliver_all(&mut self, due: Vec<Due>) -> Result<(), StoreError> {
        let name = self.sink.name();
        let mut done = Vec::with_capacity(due.len());
        let mut noted = Ok(());
        for delivery in due {
            match self.send(&delivery).await {
                Ok(()) => done.push(delivery.alert.id),
                Err(error) => noted = noted.and(self.failed(&delivery, &error).await),
            }
            if self.breaker.wait(Instant::now()).is_some() {
                break;
            }
        }
        if !done.is_empty() {
            self.blocking(move |store| store.outbox_done_all(name, &done)).await?;
        }
        noted
    }

    async fn send(&mut self, due: &Due) -> Result<(), SinkError> {
        match tokio::time::timeout(TIMEOUT, self.sink.send(&due.alert)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(SinkError::Timeout { seconds: TIMEOUT.as_secs() }),
        }
        self.breaker.success();
        self.state.note(|about| {
            about.delivered += 1;
            about.open = false;
            about.last_error = None;
        });
        Ok(())
    }

    async fn failed(&mut self, due: &Due, error: &SinkError) -> Result<(), StoreError> {
        let (name, id, words) = (self.sink.name(), due.alert.id, error.to_string());
        self.breaker.failure(Instant::now());
        let open = self.breaker.wait(Instant::now()).is_some();
        self.state.note(|about| {
            about.failed += 1;
            about.open = open;
            about.last_error = Some(words.clone());
        });
        let next_try = now_us().saturating_add(i64::try_from(wait(due.attempts).as_micros()).unwrap_or(i64::MAX));
        tracing::warn!(sink = name, alert = %id, error = words, "not delivered, will be tried again");
        self.blocking(move |store| store.outbox_failed(name, id, &words, next_try)).await.map(drop)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        // A panic in the store is a poisoned lock for everybody; it is told as such.
        tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or(Err(StoreError::LockPoisoned))
    }
}

/// The wait after the given number of failed attempts: never zero, so that a failing sink cannot spin.
fn wait(attempts: u32) -> Duration {
    let ceiling = RETRY.0.saturating_mul(1_u32 << attempts.min(10)).min(RETRY.1);
    jitter::full(ceiling).max(Duration::from_millis(50))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use daemoneye_engine::ingest::batch_from_json;
    use daemoneye_engine::store::{Answer, DeliveryState, RuleMatch, StoreOptions};
    use daemoneye_lib::model::{Alert, Completeness, DetectionRule, RuleKind, RuleState, Severity};
    use serde_json::json;
    use uuid::Uuid;

    type Shared<T> = Arc<Mutex<T>>;

    /// Fails as long as it is told to, and remembers what it took.
    struct Double {
        name: &'static str,
        broken: Arc<Mutex<bool>>,
        taken: Arc<Mutex<Vec<Uuid>>>,
    }

    #[async_trait]
    impl AlertSink for Double {
        fn name(&self) -> &'static str {
            self.name
        }

        async fn send(&mut self, alert: &Alert) -> Result<(), SinkError> {
            self.health_check().await?;
            self.taken.lock().unwrap().push(alert.id);
            Ok(())
        }

        async fn health_check(&mut self) -> Result<(), SinkError> {
            if *self.broken.lock().unwrap() {
                return Err(SinkError::Timeout { seconds: 1 });
            }
            Ok(())
        }
    }

    fn rule() -> Arc<DetectionRule> {
        Arc::new(DetectionRule {
            id: Uuid::from_u128(1),
            version: 1,
            hash: "h".into(),
            name: "n".into(),
            description: String::new(),
            author: String::new(),
            references: Vec::new(),
            severity: Severity::High,
            category: String::new(),
            tags: Vec::new(),
            status: String::new(),
            false_positives: Vec::new(),
            sql: String::new(),
            dedup: Vec::new(),
            dedup_window_s: 0,
            state: RuleState::Active,
            kind: RuleKind::Stream,
            pack: String::new(),
            file: String::new(),
        })
    }

    fn raise(store: &Store, count: u64) -> Vec<Uuid> {
        let rows: Vec<_> = (1..=count)
            .map(|n| {
                let row = json!({"time": "2026-01-31T12:00:00Z", "entity_id": format!("{n:032x}"), "collector": "procmond",
                    "epoch": 1, "seq": n});
                row.as_object().unwrap().clone()
            })
            .collect();
        let batch = batch_from_json(&rows).unwrap();
        let matches = (0..rows.len()).map(|row| RuleMatch {
            rule: rule(),
            batch: batch.clone().into(),
            row,
            answer: Answer::Row(serde_json::Map::new()),
            completeness: Completeness::complete(),
        });
        store.commit_matches(matches.collect()).unwrap().iter().map(|alert| alert.id).collect()
    }

    fn feeder(store: &Arc<Store>, name: &'static str, broken: bool) -> (Feeder, Shared<bool>, Shared<Vec<Uuid>>) {
        let (broken, taken) = (Arc::new(Mutex::new(broken)), Arc::new(Mutex::new(Vec::new())));
        let sink = Box::new(Double { name, broken: Arc::clone(&broken), taken: Arc::clone(&taken) });
        let state = SinkState::new(name);
        (Feeder { store: Arc::clone(store), sink, state, breaker: Breaker::default() }, broken, taken)
    }

    fn store(dir: &std::path::Path) -> Arc<Store> {
        let sinks = vec!["good".to_owned(), "bad".to_owned()];
        Arc::new(Store::open(StoreOptions { sinks, ..StoreOptions::new(dir) }).unwrap())
    }

    #[tokio::test]
    async fn a_sink_that_fails_keeps_its_alerts_and_the_other_one_gets_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let ids = raise(&store, 100);
        let (mut bad, broken, taken_late) = feeder(&store, "bad", true);
        let (mut good, _, taken) = feeder(&store, "good", false);
        bad.round().await;
        good.round().await;
        assert_eq!(*taken.lock().unwrap(), ids, "in order, each once");
        assert!(bad.state.about().open, "the breaker leaves it alone after five failures");
        let pending = |name: &str| store.outbox_stats().unwrap().iter().find(|s| s.sink == name).map(|s| s.pending);
        assert_eq!((pending("good"), pending("bad")), (Some(0), Some(100)));

        *broken.lock().unwrap() = false;
        bad.breaker = Breaker::default();
        bad.round().await;
        // Those that failed wait for their next try, which may be due by now; all the others are delivered.
        let failed: Vec<Uuid> =
            store.deliveries().unwrap().iter().filter(|d| d.last_error.is_some()).map(|d| d.alert_id).collect();
        let late = taken_late.lock().unwrap().clone();
        assert!(ids.iter().filter(|id| !failed.contains(id)).all(|id| late.contains(id)), "{failed:?} {late:?}");
        assert!(!failed.is_empty() && late.iter().all(|id| late.iter().filter(|other| *other == id).count() == 1));
        assert!(store.deliveries().unwrap().iter().all(|d| d.state != DeliveryState::Dead));
    }

    #[test]
    fn waits_grow_and_are_never_nothing() {
        for attempts in 0..40 {
            let wait = wait(attempts);
            assert!(wait >= Duration::from_millis(50) && wait <= RETRY.1, "{attempts}: {wait:?}");
        }
    }
}
