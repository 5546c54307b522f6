//! Where a source's events go.

use std::sync::Arc;

use daemoneye_lib::proto::Sequence;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::source::{Settings, SourceError, SourceEvent};
use crate::wal::Wal;

/// Takes events into the WAL; everything behind it reads them there.
#[derive(Clone)]
pub struct EventSink {
    wal: Arc<Wal>,
    settings: watch::Receiver<Settings>,
    shutdown: CancellationToken,
}

impl EventSink {
    /// A way into `wal` that waits while `settings` say so; the runtime makes it for a source.
    #[must_use]
    pub const fn new(wal: Arc<Wal>, settings: watch::Receiver<Settings>, shutdown: CancellationToken) -> Self {
        Self { wal, settings, shutdown }
    }

    /// Writes events to the WAL in order and returns the sequence of the last one; `None` for no events, or when there was no room: the
    /// loss is counted and told then. Waits while the collector is paused, so nothing is written during a pause.
    ///
    /// # Errors
    /// [`SourceError::Stopped`] at shutdown during a pause, [`SourceError::Failed`] when the WAL takes nothing more.
    pub async fn emit(&self, events: Vec<SourceEvent>) -> Result<Option<Sequence>, SourceError> {
        if events.is_empty() {
            return Ok(None);
        }
        let mut settings = self.settings.clone();
        let ready = tokio::select! {
            ready = settings.wait_for(|s| !s.paused) => ready.is_ok(),
            // What was seen before the end is still written, unless the agent said to hold.
            () = self.shutdown.cancelled() => !self.settings.borrow().paused,
        };
        if !ready {
            return Err(SourceError::Stopped);
        }
        self.write(events).await
    }

    /// As [`Self::emit`], also during a pause.
    pub(super) async fn write(&self, events: Vec<SourceEvent>) -> Result<Option<Sequence>, SourceError> {
        if let Some(appended) = self.wal.append_quickly(&events) {
            return appended.map_err(|error| SourceError::Failed(error.to_string()));
        }
        let wal = Arc::clone(&self.wal);
        let appended = tokio::task::spawn_blocking(move || wal.append(&events)).await;
        match appended {
            Ok(Ok(last)) => Ok(last),
            Ok(Err(error)) => Err(SourceError::Failed(error.to_string())),
            Err(_) => Err(SourceError::Stopped),
        }
    }
}
