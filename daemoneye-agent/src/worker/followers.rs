//! Those who watch events as they come. A follower has a bounded queue: what does not fit is counted for it, and ingest
//! never waits for anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use daemoneye_engine::RecordBatch;
use tokio::sync::mpsc;

/// Batches that wait for one follower: some seconds of a busy host.
const QUEUE_BATCHES: usize = 64;

/// One follower's place in the list.
struct Place {
    queue: mpsc::Sender<RecordBatch>,
    missed: Arc<AtomicU64>,
}

/// The list of all followers.
#[derive(Default)]
pub(crate) struct Followers {
    places: Mutex<Vec<Place>>,
}

/// What a follower holds; dropping it leaves the list.
pub(crate) struct Follower {
    queue: mpsc::Receiver<RecordBatch>,
    missed: Arc<AtomicU64>,
}

impl Followers {
    /// Joins the list.
    pub(crate) fn join(&self) -> Follower {
        let (sender, queue) = mpsc::channel(QUEUE_BATCHES);
        let missed = Arc::new(AtomicU64::new(0));
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.push(Place { queue: sender, missed: Arc::clone(&missed) });
        Follower { queue, missed }
    }

    /// Hands a batch to everybody who has room.
    pub(crate) fn offer(&self, batch: &RecordBatch) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| match place.queue.try_send(batch.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                place.missed.fetch_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX), Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }
}

impl Follower {
    /// The next batch; `None` when the agent stops.
    pub(crate) async fn next(&mut self) -> Option<RecordBatch> {
        self.queue.recv().await
    }

    /// Events that did not fit since this was asked last.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}
