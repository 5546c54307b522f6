//! Hands the ledger's checkpoints to a sink that asks for them: each one in order, also those that were signed while nobody looked.
//!
//! They are read from the ledger itself, behind the one that the sink took last, which the store keeps: so the checkpoint of a stop
//! follows at the next start, and one that the sink refused is tried again. Where the ledger cannot be read there is the newest that
//! its keeper tells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemoneye_engine::store::Store;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::notes::{checkpoints_log, notes_behind};

use super::{AlertSink, SinkError};

/// Checkpoints that wait for a sink: more than the end of a ledger's log has, some 300 KiB.
const WAITING: usize = 1_024;

/// What waits for one sink and what it has.
pub(super) struct Checkpoints {
    store: Arc<Store>,
    /// What was told and how long the ledger's log was when it was read last.
    looked: (Option<String>, Option<u64>),
    /// Size and note, oldest first.
    waiting: VecDeque<(u64, String)>,
    /// Entries that the last one was over that the sink took.
    over: Option<u64>,
    begun: bool,
    failures: u32,
    again: Option<Instant>,
}

impl Checkpoints {
    pub(super) const fn new(store: Arc<Store>) -> Self {
        let waiting = VecDeque::new();
        Self { store, looked: (None, None), waiting, over: None, begun: false, failures: 0, again: None }
    }

    /// `newest`: what the ledger's keeper told last. `wait` says how long a sink is left alone that failed so many times.
    pub(super) async fn feed(
        &mut self,
        sink: &mut dyn AlertSink,
        newest: Option<String>,
        timeout: Duration,
        wait: impl Fn(u32) -> Duration,
    ) {
        if !sink.takes_checkpoints() {
            return;
        }
        self.look(sink.name(), newest).await;
        if self.waiting.is_empty() || self.again.is_some_and(|again| again > Instant::now()) {
            return;
        }
        while let Some((size, note)) = self.waiting.front() {
            let taken = tokio::time::timeout(timeout, sink.checkpoint(note)).await;
            if let Err(error) = taken.unwrap_or(Err(SinkError::Timeout { seconds: timeout.as_secs() })) {
                tracing::warn!(sink = sink.name(), %error, "a checkpoint was not delivered, will be tried again");
                self.again = Some(Instant::now() + wait(self.failures));
                self.failures = self.failures.saturating_add(1);
                break;
            }
            (self.over, self.failures, self.again) = (Some(*size), 0, None);
            self.waiting.pop_front();
        }
        self.keep(sink.name()).await;
    }

    /// Takes what has come since.
    async fn look(&mut self, sink: &'static str, newest: Option<String>) {
        let (store, known) = (Arc::clone(&self.store), self.begun.then_some(self.over));
        let last = self.waiting.back().map(|(size, _)| *size);
        let before = self
            .looked
            .1
            .filter(|_| self.begun && newest.as_ref().is_none_or(|note| self.looked.0.as_ref() == Some(note)));
        let read = tokio::task::spawn_blocking(move || {
            let dir = store.ledger_dir();
            let length = std::fs::metadata(checkpoints_log(&dir)).ok().map(|found| found.len());
            if before.is_some() && before == length {
                return None;
            }
            let over = known.unwrap_or_else(|| store.checkpoint_handed(sink).unwrap_or_default());
            Some((length, over, notes_behind(&dir, last.or(over))))
        });
        let Ok(Some((length, over, behind))) = read.await else { return };
        (self.over, self.begun, self.looked.1) = (over, true, length);
        let behind = behind.unwrap_or_else(|error| {
            tracing::debug!(sink, %error, "checkpoints are taken from their keeper");
            Vec::new()
        });
        self.waiting.extend(behind.into_iter().map(|stored| (stored.checkpoint.size, stored.note)));
        if let Some(note) = newest {
            let size = Checkpoint::dangerous_unverified(&note).map(|checkpoint| checkpoint.size);
            let known = self.waiting.back().map(|(size, _)| *size).or(self.over);
            if let Ok(size) = size
                && known.is_none_or(|known| size > known)
            {
                self.waiting.push_back((size, note.clone()));
            }
            self.looked.0 = Some(note);
        }
        // Each vouches for those before it, so the oldest are the first that can be spared.
        let beyond = self.waiting.len().saturating_sub(WAITING);
        if beyond > 0 {
            tracing::warn!(sink, beyond, "more checkpoints wait than are kept; the newest vouch for them");
            self.waiting.drain(..beyond);
        }
    }

    /// Notes how far the sink has come; one that is handed over twice after a crash does no harm.
    async fn keep(&mut self, sink: &'static str) {
        let Some(over) = self.over else { return };
        let store = Arc::clone(&self.store);
        let kept = tokio::task::spawn_blocking(move || {
            if store.checkpoint_handed(sink)? == Some(over) {
                Ok(())
            } else {
                store.note_checkpoint_handed(sink, over)
            }
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(sink, %error, "how many checkpoints were delivered was not noted; some may come twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use daemoneye_engine::store::StoreOptions;
    use daemoneye_lib::ledger::note::NoteSigner;
    use daemoneye_lib::model::Alert;

    use super::*;

    fn note(size: u64) -> String {
        let origin = "daemoneye/4f/audit";
        let signer = NoteSigner::new(origin, &[1; 32]).unwrap();
        Checkpoint { origin: origin.into(), size, root: [3; 32] }.sign(&signer).unwrap()
    }

    #[derive(Default)]
    struct Double {
        taken: Mutex<Vec<String>>,
        is_broken: bool,
    }

    #[async_trait]
    impl AlertSink for Double {
        fn name(&self) -> &'static str {
            "double"
        }

        async fn send(&mut self, _: &Alert) -> Result<(), SinkError> {
            Ok(())
        }

        fn takes_checkpoints(&self) -> bool {
            true
        }

        async fn checkpoint(&mut self, note: &str) -> Result<(), SinkError> {
            if self.is_broken {
                return Err(SinkError::Timeout { seconds: 1 });
            }
            self.taken.lock().unwrap().push(note.to_owned());
            Ok(())
        }

        async fn health_check(&mut self) -> Result<(), SinkError> {
            Ok(())
        }
    }

    fn signed(dir: &std::path::Path, to: u64) {
        let log: String = (1..=to).map(|size| format!("{}\n", note(size))).collect();
        std::fs::create_dir_all(dir.join("audit")).unwrap();
        std::fs::write(checkpoints_log(&dir.join("audit")), log).unwrap();
    }

    #[tokio::test]
    async fn every_checkpoint_is_handed_over_once_also_one_that_failed_and_those_between_two_runs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
        let mut sink = Double::default();
        let feed = async |checkpoints: &mut Checkpoints, sink: &mut Double, newest: Option<u64>| {
            checkpoints.feed(sink, newest.map(note), Duration::from_secs(1), |_| Duration::ZERO).await;
        };
        let taken = |sink: &Double| std::mem::take(&mut *sink.taken.lock().unwrap());
        let notes = |sizes: std::ops::RangeInclusive<u64>| sizes.map(note).collect::<Vec<_>>();
        let mut first = Checkpoints::new(Arc::clone(&store));
        signed(dir.path(), 3);
        feed(&mut first, &mut sink, Some(3)).await;
        assert_eq!(taken(&sink), notes(3..=3), "a sink that begins begins with the newest");
        // Three between two looks, at a sink that is away.
        sink.is_broken = true;
        signed(dir.path(), 6);
        feed(&mut first, &mut sink, Some(6)).await;
        assert!(taken(&sink).is_empty());
        sink.is_broken = false;
        feed(&mut first, &mut sink, Some(6)).await;
        assert_eq!(taken(&sink), notes(4..=6));
        feed(&mut first, &mut sink, Some(6)).await;
        assert!(taken(&sink).is_empty());
        // That of a stop, which nobody told.
        signed(dir.path(), 8);
        let mut next = Checkpoints::new(Arc::clone(&store));
        feed(&mut next, &mut sink, None).await;
        assert_eq!(taken(&sink), notes(7..=8));
        // Where the ledger cannot be read.
        std::fs::remove_dir_all(dir.path().join("audit")).unwrap();
        feed(&mut next, &mut sink, Some(12)).await;
        assert_eq!(taken(&sink), notes(12..=12));
    }
}
