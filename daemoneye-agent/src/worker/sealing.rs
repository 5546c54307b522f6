//! Sealing beside ingest: a segment is encoded, written and synced on a thread of its own while the next one fills.
//!
//! One at a time. When the next is due before the last is done, ingest waits: what is in memory stays below two segments.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use daemoneye_engine::store::StoreError;

use super::Worker;

/// What ingest knows of the thread; it ends when this is dropped.
pub(super) struct Sealing {
    orders: SyncSender<()>,
    outcomes: Receiver<Result<(), StoreError>>,
    /// A seal was begun whose outcome has not been taken.
    begun: Cell<bool>,
}

impl Sealing {
    pub(super) fn start(worker: Arc<Worker>) -> io::Result<Self> {
        let (orders, ordered) = sync_channel(1);
        let (out, outcomes) = sync_channel(1);
        std::thread::Builder::new()
            .name("sealing".to_owned())
            .spawn(move || while ordered.recv().is_ok() && out.send(worker.seal()).is_ok() {})?;
        Ok(Self { orders, outcomes, begun: Cell::new(false) })
    }

    /// Begins a seal, after the last one is done.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        self.wait()?;
        self.orders.send(()).map_err(|_| StoreError::LockPoisoned)?;
        self.begun.set(true);
        Ok(())
    }

    /// How the last one ended; nothing to say while it goes on.
    pub(super) fn outcome(&self) -> Result<(), StoreError> {
        match self.begun.get().then(|| self.outcomes.try_recv()) {
            None | Some(Err(TryRecvError::Empty)) => Ok(()),
            Some(Ok(outcome)) => self.ended(outcome),
            Some(Err(TryRecvError::Disconnected)) => Err(StoreError::LockPoisoned),
        }
    }

    /// How the last one ended, once it has.
    pub(super) fn wait(&self) -> Result<(), StoreError> {
        if !self.begun.get() {
            return Ok(());
        }
        let outcome = self.outcomes.recv().map_err(|_| StoreError::LockPoisoned)?;
        self.ended(outcome)
    }

    fn ended(&self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        self.begun.set(false);
        outcome
    }
}
