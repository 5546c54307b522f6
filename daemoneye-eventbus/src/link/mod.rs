//! One framed connection: a reader that no cancellation can make lose bytes, and an outbox that a task of its own writes
//! out, so that a frame is never cut.

mod outbox;
mod reader;

pub(crate) use outbox::{Feed, Outbox, Unsent};
pub(crate) use reader::FrameReader;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemoneye_lib::proto::{Fault, envelope::Body};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::transport::Stream;

/// How long a closing connection may go on writing what is queued. A peer that does not read must not hold up a shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The two halves of a connection and the task that writes.
pub(crate) struct Link {
    pub(crate) reader: FrameReader,
    pub(crate) outbox: Arc<Outbox>,
    writer: JoinHandle<()>,
}

/// What a connection holds its peer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest body that is read.
    pub(crate) read_bytes: usize,
    /// Largest body that is written.
    pub(crate) write_bytes: usize,
    /// How long a begun frame may take.
    pub(crate) half_frame: Duration,
    /// How often the peer is pinged.
    pub(crate) ping: Duration,
    /// How long a peer may send nothing, not even a ping, until it is taken for dead.
    pub(crate) silence: Option<Duration>,
}

impl Link {
    /// Starts the writer. `ended` is cancelled when nothing can be written any more.
    pub(crate) fn new(stream: Stream, limits: Limits, ended: CancellationToken) -> Self {
        let stream = Arc::new(stream);
        let outbox = Arc::new(Outbox::new(limits.write_bytes, ended.clone()));
        let writer = tokio::spawn(outbox::write(Arc::clone(&stream), Arc::clone(&outbox), limits.ping, ended));
        Self { reader: FrameReader::new(stream, limits), outbox, writer }
    }

    /// Tells the peer why, if there is something to tell, writes what is queued, and closes.
    pub(crate) async fn close(mut self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            // A full outbox has closed itself: the peer does not read.
            drop(self.outbox.send(Body::Fault(fault)));
        }
        self.outbox.close();
        if tokio::time::timeout(DRAIN, &mut self.writer).await.is_err() {
            self.writer.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// A panic elsewhere leaves counters and queues that are still whole: every critical section here is a few assignments.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
