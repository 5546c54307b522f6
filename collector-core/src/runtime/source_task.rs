//! Runs the source: starts it, stops it in bounded time, and tries again after it failed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::source::{EventSource, SourceContext, SourceError};

/// How long a source has to end before it is cut off.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a source that failed is tried again; long enough not to spin on what needs a person.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const RUNNING: &str = "source running";
/// Orders that wait: more than one at a time is an agent that does not listen to answers.
const ORDERS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Start,
    Stop,
    Restart,
}

/// Gives orders to the source.
#[derive(Clone)]
pub(crate) struct SourceHandle {
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    status: watch::Receiver<String>,
}

impl SourceHandle {
    /// Returns when the order has been carried out.
    pub(crate) async fn order(&self, order: Order) {
        let (done, carried_out) = oneshot::channel();
        if self.orders.send((order, done)).await.is_ok() {
            carried_out.await.ok();
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.status.borrow() == RUNNING
    }

    /// `source running`, `source stopped`, `source failed: …`
    pub(crate) fn status(&self) -> String {
        self.status.borrow().clone()
    }
}

pub(super) struct SourceTask {
    source: Arc<dyn EventSource>,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    status: watch::Sender<String>,
    running: Option<(CancellationToken, JoinHandle<Result<(), SourceError>>)>,
    retry: Option<Instant>,
}

impl SourceTask {
    pub(super) fn new(source: Arc<dyn EventSource>) -> (Self, SourceHandle) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (status, watched) = watch::channel("source stopped".to_owned());
        let task = Self { source, orders: receiver, status, running: None, retry: None };
        (task, SourceHandle { orders, status: watched })
    }

    /// Runs until every handle is gone. `context` makes a fresh one for each run.
    pub(super) async fn run(mut self, context: impl Fn(CancellationToken) -> SourceContext + Send) {
        loop {
            let retry = self.retry;
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some((order, done)) => {
                        self.carry_out(order, &context).await;
                        // Whoever asked may have stopped waiting.
                        done.send(()).ok();
                    }
                    None => return self.stop().await,
                },
                ended = ended(&mut self.running) => self.on_end(ended),
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => self.start(&context),
            }
        }
    }

    async fn carry_out(&mut self, order: Order, context: &(impl Fn(CancellationToken) -> SourceContext + Send)) {
        if matches!(order, Order::Stop | Order::Restart) {
            self.stop().await;
        }
        if matches!(order, Order::Start | Order::Restart) {
            self.start(context);
        }
    }

    fn start(&mut self, context: &impl Fn(CancellationToken) -> SourceContext) {
        self.retry = None;
        if self.running.is_some() {
            return;
        }
        let shutdown = CancellationToken::new();
        let (source, context) = (Arc::clone(&self.source), context(shutdown.clone()));
        let task = tokio::spawn(async move { source.start(context).await });
        self.running = Some((shutdown, task));
        self.status.send_replace(RUNNING.to_owned());
    }

    async fn stop(&mut self) {
        self.retry = None;
        if let Some((shutdown, mut task)) = self.running.take() {
            shutdown.cancel();
            if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
                task.abort();
                tracing::warn!(source = self.source.name(), "the source did not end in time and was cut off");
            }
            match tokio::time::timeout(STOP_TIMEOUT, self.source.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(source = self.source.name(), %error, "the source could not let go"),
                Err(_) => tracing::warn!(source = self.source.name(), "the source did not let go in time"),
            }
        }
        self.status.send_replace("source stopped".to_owned());
    }

    fn on_end(&mut self, ended: Result<(), SourceError>) {
        self.running = None;
        let status = match ended {
            Ok(()) => "source ended by itself".to_owned(),
            Err(error) => {
                tracing::error!(source = self.source.name(), %error, "the source failed; it is tried again");
                self.retry = Some(Instant::now() + RETRY_PAUSE);
                format!("source failed: {error}")
            }
        };
        self.status.send_replace(status);
    }
}

async fn ended(
    running: &mut Option<(CancellationToken, JoinHandle<Result<(), SourceError>>)>,
) -> Result<(), SourceError> {
    match running {
        Some((_, task)) => task.await.unwrap_or_else(|panic| Err(SourceError::Failed(panic.to_string()))),
        None => std::future::pending().await,
    }
}
