//! Entries of the ledger that callers cause: so many of a kind in a minute, and one that counts the others when the minute is over or the
//! worker ends. The ledger is kept for years, and whoever may ask could fill it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::worker::Worker;

/// Entries of a kind in a minute: more than a person types.
const A_MINUTE: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Entries of one kind.
#[derive(Debug)]
pub(super) struct Entries {
    action: &'static str,
    /// The member that says how many before an entry have none.
    others: &'static str,
    minute: Mutex<Minute>,
}

#[derive(Debug, Default)]
struct Minute {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

/// What becomes of one.
#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    /// It is written, with the number of those before it that were not.
    Entry(u64),
    /// It is the first that is not; the minute is over in so long.
    First(Duration),
    /// It is counted.
    Other,
}

impl Entries {
    pub(super) fn new(action: &'static str, others: &'static str) -> Arc<Self> {
        Arc::new(Self { action, others, minute: Mutex::default() })
    }

    /// Writes an entry of what `actor` did, an object, or counts it.
    pub(super) async fn write(self: &Arc<Self>, worker: &Arc<Worker>, actor: String, mut what: Value) {
        match self.admit() {
            Admitted::Entry(left_out) => {
                if let Some(members) = what.as_object_mut() {
                    members.insert(self.others.to_owned(), left_out.into());
                }
                worker.audit(actor, self.action, what).await;
            }
            Admitted::First(left) => {
                let (entries, worker) = (Arc::clone(self), Arc::clone(worker));
                tokio::spawn(async move {
                    if let Some(count) = entries.rest(left, worker.shutdown_token()).await {
                        let what = json!({ entries.others: count });
                        worker.audit("agent".to_owned(), entries.action, what).await;
                    }
                });
            }
            Admitted::Other => {}
        }
    }

    fn admit(&self) -> Admitted {
        let (now, mut minute) = (Instant::now(), self.lock());
        let since = minute.began.map(|began| now.duration_since(began)).filter(|since| *since < MINUTE);
        if since.is_none() {
            minute.began = Some(now);
            minute.written = 0;
        }
        if minute.written < A_MINUTE {
            minute.written = minute.written.saturating_add(1);
            return Admitted::Entry(std::mem::take(&mut minute.left_out));
        }
        minute.left_out = minute.left_out.saturating_add(1);
        if minute.left_out > 1 {
            return Admitted::Other;
        }
        Admitted::First(MINUTE.saturating_sub(since.unwrap_or_default()))
    }

    /// How many are to be told when the minute is over; `None`: an entry of the next one has told them.
    async fn rest(&self, left: Duration, stop: CancellationToken) -> Option<u64> {
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = stop.cancelled() => {}
        }
        Some(std::mem::take(&mut self.lock().left_out)).filter(|count| *count > 0)
    }

    fn lock(&self) -> MutexGuard<'_, Minute> {
        self.minute.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Arc<Entries> {
        let entries = Entries::new("query-refused", "others");
        for _ in 0..A_MINUTE {
            assert_eq!(entries.admit(), Admitted::Entry(0));
        }
        entries
    }

    #[tokio::test(start_paused = true)]
    async fn those_beyond_the_bound_of_a_minute_are_counted_when_it_is_over() {
        let (entries, stop) = (full(), CancellationToken::new());
        tokio::time::advance(MINUTE / 3).await;
        let left = MINUTE - MINUTE / 3;
        assert_eq!(entries.admit(), Admitted::First(left));
        assert_eq!((entries.admit(), entries.admit()), (Admitted::Other, Admitted::Other));
        let began = Instant::now();
        assert_eq!(entries.rest(left, stop.clone()).await, Some(3));
        assert_eq!(began.elapsed().as_secs(), left.as_secs());
        assert_eq!(entries.admit(), Admitted::Entry(0), "each is counted once");
        assert_eq!(entries.rest(MINUTE, stop).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_of_the_next_minute_counts_what_nobody_told_before_it() {
        let entries = full();
        assert_eq!((entries.admit(), entries.admit()), (Admitted::First(MINUTE), Admitted::Other));
        tokio::time::advance(MINUTE).await;
        assert_eq!(entries.admit(), Admitted::Entry(2));
        assert_eq!(entries.rest(Duration::ZERO, CancellationToken::new()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_of_the_worker_waits_for_no_minute() {
        let (entries, stop) = (full(), CancellationToken::new());
        entries.admit();
        stop.cancel();
        let began = Instant::now();
        assert_eq!((entries.rest(MINUTE, stop).await, began.elapsed()), (Some(1), Duration::ZERO));
    }
}
