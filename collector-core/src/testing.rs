//! A source for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use daemoneye_lib::proto::{CollectionCapabilities, DetectionResult, DetectionTask, Sequence, TaskType};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::source::{EventSource, SourceCaps, SourceContext, SourceError, SourceEvent, SourceHealth, Tasks};

/// A source that emits what it is given.
pub struct FakeSource {
    feed: mpsc::Sender<Vec<SourceEvent>>,
    events: Mutex<mpsc::Receiver<Vec<SourceEvent>>>,
    cycles: AtomicU64,
    starts: AtomicU64,
    stops: AtomicU64,
    silent: AtomicBool,
    forgetful: AtomicBool,
}

impl FakeSource {
    /// A source without events yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let (feed, events) = mpsc::channel(64);
        Arc::new(Self {
            feed,
            events: Mutex::new(events),
            cycles: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            stops: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            forgetful: AtomicBool::new(false),
        })
    }

    /// Hands over events; they are emitted in order while the source runs.
    pub async fn feed(&self, events: Vec<SourceEvent>) {
        // The receiver lives as long as `self`.
        self.feed.send(events).await.ok();
    }

    /// From now on it does not say how it is, or does again.
    pub fn fall_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// From now on it has no checkpoint, so that the log is not trimmed, or has one again.
    pub fn keep_no_checkpoint(&self, forgetful: bool) {
        self.forgetful.store(forgetful, Ordering::SeqCst);
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }

    /// How often it was stopped.
    #[must_use]
    pub fn stops(&self) -> u64 {
        self.stops.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl EventSource for FakeSource {
    fn name(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let caps = SourceCaps::PERFORMANCE | SourceCaps::REALTIME;
        let mut capabilities = caps.describe("fake", "a test asked for it");
        capabilities.tasks = vec![TaskType::MonitorPerformance.into()];
        capabilities
    }

    async fn start(&self, context: SourceContext) -> Result<(), SourceError> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        let mut events = self.events.lock().await;
        loop {
            let batch = tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                batch = events.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            context.events.emit(batch).await?;
            self.cycles.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn checkpoint(&self, last: Option<Sequence>) -> Result<Option<Sequence>, SourceError> {
        Ok(last.filter(|_| !self.forgetful.load(Ordering::SeqCst)))
    }

    async fn stop(&self) -> Result<(), SourceError> {
        self.stops.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn health(&self) -> SourceHealth {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        SourceHealth {
            cycles: self.cycles.load(Ordering::SeqCst),
            announced: true,
            lost: 1,
            kernel_lost: 1,
            missed: 2,
            recall_percent: Some(99.5),
            ..SourceHealth::default()
        }
    }
}

#[async_trait]
impl Tasks for FakeSource {
    /// Answers in two pages.
    async fn execute(
        &self,
        task: DetectionTask,
        pages: mpsc::Sender<DetectionResult>,
        _cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        for more in [true, false] {
            let page = DetectionResult { task_id: task.task_id.clone(), success: true, more, ..Default::default() };
            if pages.send(page).await.is_err() {
                return Err(SourceError::Stopped);
            }
        }
        Ok(())
    }
}
