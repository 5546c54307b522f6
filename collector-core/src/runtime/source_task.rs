//! Runs the source: starts it, stops it in bounded time, and tries again after it has failed or ended unasked. The time without it is told
//! when it starts again, and when the collector ends before that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::silence::{self, Down};
use crate::source::{EventSource, SourceContext, SourceError, SourceEvent};
use crate::wal::now_us;

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
    /// Of the collector.
    id: String,
    source: Arc<dyn EventSource>,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    status: watch::Sender<String>,
    running: Option<(CancellationToken, JoinHandle<Result<(), SourceError>>)>,
    retry: Option<Instant>,
    /// `None` before the first start and while it runs.
    down: Option<Down>,
}

impl SourceTask {
    pub(super) fn new(id: &str, source: Arc<dyn EventSource>) -> (Self, SourceHandle) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (status, watched) = watch::channel("source stopped".to_owned());
        let task =
            Self { id: id.to_owned(), source, orders: receiver, status, running: None, retry: None, down: None };
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
                    None => return self.stop("the collector ends").await,
                },
                ended = ended(&mut self.running) => self.on_end(ended),
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => self.start(&context),
            }
        }
    }

    async fn carry_out(&mut self, order: Order, context: &(impl Fn(CancellationToken) -> SourceContext + Send)) {
        match order {
            Order::Start => self.start(context),
            Order::Stop => {
                // Nobody may come to start it again.
                if let Some(gap) = self.down_until_now() {
                    let (_, context) = self.context(context);
                    // It is told again when it starts.
                    tokio::time::timeout(STOP_TIMEOUT, context.events.write(vec![gap])).await.ok();
                }
                self.stop("the source was told to stop").await;
            }
            Order::Restart => {
                self.stop("the source was told to start again").await;
                self.start(context);
            }
        }
    }

    fn down_until_now(&self) -> Option<SourceEvent> {
        self.down.as_ref().map(|down| silence::within(&self.id, down, now_us()))
    }

    fn context(&self, make: &impl Fn(CancellationToken) -> SourceContext) -> (CancellationToken, SourceContext) {
        let shutdown = CancellationToken::new();
        (shutdown.clone(), make(shutdown))
    }

    fn start(&mut self, context: &impl Fn(CancellationToken) -> SourceContext) {
        self.retry = None;
        if self.running.is_some() {
            return;
        }
        let (shutdown, context) = self.context(context);
        let (source, gap) = (Arc::clone(&self.source), self.down_until_now());
        self.down = None;
        let task = tokio::spawn(async move {
            if let Some(gap) = gap {
                context.events.write(vec![gap]).await?;
            }
            source.start(context).await
        });
        self.running = Some((shutdown, task));
        self.status.send_replace(RUNNING.to_owned());
    }

    async fn stop(&mut self, why: &str) {
        self.retry = None;
        if let Some((shutdown, mut task)) = self.running.take() {
            self.down = Some(Down { at_us: now_us(), why: why.to_owned() });
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
            Err(error) => format!("source failed: {error}"),
        };
        tracing::error!(source = self.source.name(), "{status}; it is tried again");
        self.retry = Some(Instant::now() + RETRY_PAUSE);
        self.down = Some(Down { at_us: now_us(), why: status.clone() });
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    use daemoneye_lib::proto::{CollectionCapabilities, CoverageGap};
    use prost::Message as _;

    use crate::runtime::EventSink;
    use crate::source::{Settings, SourceHealth};
    use crate::wal::{Wal, WalOptions};

    /// Ends unasked, fails, and then runs.
    #[derive(Default)]
    struct Unsteady(AtomicU64);

    #[async_trait::async_trait]
    impl EventSource for Unsteady {
        fn name(&self) -> &str {
            "unsteady"
        }
        fn capabilities(&self) -> CollectionCapabilities {
            CollectionCapabilities::default()
        }
        async fn start(&self, context: SourceContext) -> Result<(), SourceError> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => return Ok(()),
                1 => return Err(SourceError::Failed("no descriptor".to_owned())),
                _ => context.shutdown.cancelled().await,
            }
            Ok(())
        }
        async fn health(&self) -> SourceHealth {
            SourceHealth::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_without_the_source_is_told_whatever_ended_it() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Arc::new(Wal::open(WalOptions::new(dir.path(), "test")).unwrap().0);
        let interval = Duration::from_secs(1);
        let settings = Settings { interval, original_interval: interval, max_events_in_flight: 1, paused: false };
        let settings = watch::Sender::new(settings);
        let source = Arc::new(Unsteady::default());
        let (task, handle) = SourceTask::new("test", Arc::clone(&source) as Arc<dyn EventSource>);
        let (log, given) = (Arc::clone(&wal), settings.subscribe());
        tokio::spawn(task.run(move |shutdown| SourceContext {
            events: EventSink::new(Arc::clone(&log), given.clone(), shutdown.clone()),
            settings: given.clone(),
            shutdown,
            wal: log.reader(),
        }));
        handle.order(Order::Start).await;
        let mut status = handle.status.clone();
        while source.0.load(Ordering::SeqCst) < 3 {
            status.changed().await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        settings.send_modify(|settings| settings.paused = true);
        for order in [Order::Stop, Order::Start, Order::Restart, Order::Stop, Order::Stop] {
            handle.order(order).await;
            tokio::time::sleep(interval).await;
        }
        let records = wal.replay_from(None).unwrap().map(Result::unwrap);
        let gaps: Vec<CoverageGap> = records.map(|r| CoverageGap::decode(r.payload).unwrap()).collect();
        assert!(gaps.iter().all(|gap| gap.reason == "source_down" && gap.from_us <= gap.to_us), "{gaps:?}");
        let why: Vec<&str> = gaps.iter().map(|gap| gap.detail.as_str()).collect();
        let (stopped, again) = ("the source was told to stop", "the source was told to start again");
        assert_eq!(why, ["source ended by itself", "source failed: no descriptor", stopped, again, stopped]);
    }
}
