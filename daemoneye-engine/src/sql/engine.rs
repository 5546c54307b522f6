//! Queries under limits: slots, deadline, memory, rows; pages out, and what was cut said so.

use super::completeness::{Lack, Missing, stopped_reader};
use super::execute::{Job, Spread, Started};
use super::runtime::QueryThreads;
use super::scratch::{Scratch, disk};
use super::suspects::Suspects;
use super::tables::segment_files;
use super::{QueryError, SystemTables};
use crate::store::Store;
use daemoneye_lib::model::Degraded;
use daemoneye_lib::proto::{Completeness, QueryDone, QueryRequest, ResultColumn, ResultPage};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a query waits for a slot: longer than a normal query takes, shorter than a person's patience.
const SLOT_WAIT: Duration = Duration::from_secs(5);
/// Months of events over a slow disk; whoever leaves ends it at once.
const EXPORT_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Threads of queries where the machine has more: a question is to be answered soon, and the machine is not there for it.
const MAX_THREADS: usize = 2;
/// Pages that may wait for a slow reader; each is at most 512 KiB.
const PAGES_AHEAD: usize = 2;
/// How long after the deadline the reader gives up on a query thread that is stuck inside one batch.
const GRACE: Duration = Duration::from_secs(2);
/// Parquet footers and page indexes kept between queries, in bytes: in memory a row group has some 100 KiB of them, so that a day
/// of ten million events stays. Without them every query decodes them again.
const FOOTER_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// What one query, and all of them together, may cost.
#[derive(Debug, Clone)]
pub struct QueryLimits {
    /// Working memory of all running queries together.
    pub memory_bytes: usize,
    /// Where they put what does not fit there; `None`: the answer is cut.
    pub scratch: Option<Scratch>,
    /// Wall-clock time of one query; a request may lower it.
    pub deadline: Duration,
    /// Rows of one answer; a request may lower it.
    pub row_cap: u64,
    /// Queries at a time.
    pub concurrent: usize,
    /// Threads that queries run on, all of them together.
    pub threads: usize,
    /// Rows of history from which on a query that gathers them spreads over the threads. Below it the rest of the work takes longer,
    /// and rows that are not ordered come in the same order each time.
    pub spread_rows: u64,
    /// Rows of a page when the request names none, and the most that it may name.
    pub page_rows: usize,
    /// How long a page waits for its reader; then the query ends with what has left.
    pub reader_wait: Duration,
}

/// Longer than a network or a pager holds up a program, and bounded: a stopped reader keeps a slot and the files that it reads.
pub const READER_WAIT: Duration = Duration::from_secs(60);

/// The share of a query's memory that operators are granted. They ask for their rows; vectors while they double, pages being unpacked
/// and what the allocator has not given back yet is three fifths as much again (docs/benchmarks-log.md, "Memory of queries").
const OPERATORS_EIGHTHS: usize = 5;

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 * 1024 * 1024,
            scratch: None,
            deadline: Duration::from_secs(30),
            row_cap: 1_000_000,
            concurrent: 2,
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS),
            spread_rows: 500_000,
            page_rows: 1_000,
            reader_wait: READER_WAIT,
        }
    }
}

/// Runs statements over one store. Its work happens on threads of its own, which end when the engine is dropped.
pub struct QueryEngine {
    threads: QueryThreads,
    store: Arc<Store>,
    extra: Arc<dyn SystemTables>,
    limits: QueryLimits,
    environment: Arc<RuntimeEnv>,
    slots: Arc<Semaphore>,
    suspects: Arc<Suspects>,
}

impl std::fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryEngine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl QueryEngine {
    /// An engine over `store`; `extra` supplies the tables that only the agent knows ([`super::NoCollectors`] offline).
    ///
    /// # Errors
    /// When the query threads cannot be started, the store's directory is gone, or the scratch directory cannot be emptied.
    pub fn new(store: Arc<Store>, limits: QueryLimits, extra: Arc<dyn SystemTables>) -> io::Result<Self> {
        let files = segment_files(store.dir()).map_err(io::Error::other)?;
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes / 8 * OPERATORS_EIGHTHS)))
            .with_disk_manager_builder(disk(limits.scratch.as_ref())?)
            .with_object_store_registry(files)
            .with_metadata_cache_limit(FOOTER_CACHE_BYTES)
            .build_arc()
            .map_err(io::Error::other)?;
        let slots = Arc::new(Semaphore::new(limits.concurrent.max(1)));
        let suspects = Arc::default();
        let threads = QueryThreads::start(limits.threads)?;
        Ok(Self { threads, store, extra, limits, environment, slots, suspects })
    }

    /// Checks, plans and starts a query. Rows then come page by page; `cancel`, or dropping the run, ends it between batches.
    ///
    /// # Errors
    /// A refusal with its place, or [`QueryError::Busy`] when no slot became free in time.
    pub async fn query(&self, request: QueryRequest, cancel: CancellationToken) -> Result<QueryRun, QueryError> {
        self.begin(request, cancel, (self.limits.deadline, self.limits.row_cap)).await
    }

    /// The same for all rows there are, however long they take to leave. It is one of the queries that run at a time and takes
    /// its memory and scratch from what they share.
    ///
    /// # Errors
    /// As [`QueryEngine::query`].
    pub async fn export(&self, request: QueryRequest, cancel: CancellationToken) -> Result<QueryRun, QueryError> {
        self.begin(request, cancel, (EXPORT_DEADLINE, u64::MAX)).await
    }

    async fn begin(
        &self,
        request: QueryRequest,
        cancel: CancellationToken,
        (longest, most_rows): (Duration, u64),
    ) -> Result<QueryRun, QueryError> {
        let began = Instant::now();
        let asked = request.deadline_ms.filter(|ms| *ms > 0).map_or(longest, |ms| Duration::from_millis(ms.into()));
        let deadline = asked.min(longest);
        let slot = self.slot(began, deadline, &cancel).await?;
        let cancel = cancel.child_token();
        let (started, starting) = oneshot::channel();
        let (pages, receiver) = mpsc::channel(PAGES_AHEAD);
        let tally = Arc::new(Tally::default());
        let page_rows = usize::try_from(request.page_rows).ok().filter(|rows| *rows > 0);
        let job = Job {
            store: Arc::clone(&self.store),
            extra: Arc::clone(&self.extra),
            environment: Arc::clone(&self.environment),
            row_cap: request.row_cap.unwrap_or(most_rows).min(most_rows),
            page_rows: page_rows.unwrap_or(self.limits.page_rows).min(self.limits.page_rows),
            deadline: tokio::time::Instant::now() + deadline,
            request,
            cancel: cancel.clone(),
            spread: Spread { threads: self.limits.threads, from_rows: self.limits.spread_rows },
            began,
            tally: Arc::clone(&tally),
            suspects: Arc::clone(&self.suspects),
            reader_wait: self.limits.reader_wait,
            _slot: slot,
        };
        let guard = cancel.drop_guard();
        let turn = self.threads.turn();
        let turn = turn.map_err(|error| QueryError::Execution(format!("no thread can be started for it: {error}")))?;
        turn.spawn(job.run(started, pages));
        let give_up = tokio::time::Instant::now() + deadline + GRACE;
        let Ok(started) = tokio::time::timeout_at(give_up, starting).await else {
            return Err(self.busy(began));
        };
        let Started { columns } = started.map_err(|_| QueryError::Stopped)??;
        Ok(QueryRun { columns, pages: receiver, tally, began, give_up, guard: Some(guard) })
    }

    /// A turn among the queries that run at a time, for whoever reads events in another way. Over when it is dropped.
    ///
    /// # Errors
    /// [`QueryError::Busy`] when none became free in time.
    pub async fn turn(&self, cancel: &CancellationToken) -> Result<OwnedSemaphorePermit, QueryError> {
        self.slot(Instant::now(), self.limits.deadline, cancel).await
    }

    /// A slot, after a bounded wait.
    async fn slot(
        &self,
        began: Instant,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<OwnedSemaphorePermit, QueryError> {
        tokio::select! {
            () = cancel.cancelled() => Err(QueryError::Cancelled),
            slot = timeout(SLOT_WAIT.min(deadline), Arc::clone(&self.slots).acquire_owned()) => match slot {
                Ok(Ok(slot)) => Ok(slot),
                Ok(Err(_)) => Err(QueryError::Stopped),
                Err(_) => Err(self.busy(began)),
            },
        }
    }

    fn busy(&self, since: Instant) -> QueryError {
        let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        QueryError::Busy { running: self.limits.concurrent, waited_ms }
    }
}

/// What the query threads count and the reader asks for.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: AtomicU64,
    pub(crate) missing: Missing,
    /// Sealed segments known and opened, once the rows have come to their end.
    pub(crate) segments: OnceLock<(usize, usize)>,
    /// What was read, where that was asked for.
    pub(crate) explained: OnceLock<String>,
}

impl Tally {
    /// How the query stands.
    pub(crate) fn done(&self, began: Instant) -> QueryDone {
        let missing = self.missing.so_far();
        let degraded = missing.degraded.iter().map(|reason| reason.as_str().to_owned()).collect();
        let (segments, read) = self.segments.get().copied().unwrap_or_default();
        QueryDone {
            rows: self.rows.load(Ordering::Relaxed),
            elapsed_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            completeness: Some(Completeness { degraded }),
            lacks: self.missing.lacks(),
            segments: u32::try_from(segments).unwrap_or(u32::MAX),
            segments_read: u32::try_from(read).unwrap_or(u32::MAX),
            explained_json: self.explained.get().cloned().unwrap_or_default(),
        }
    }
}

/// A query under way.
#[derive(Debug)]
pub struct QueryRun {
    columns: Vec<ResultColumn>,
    pages: mpsc::Receiver<Result<ResultPage, QueryError>>,
    tally: Arc<Tally>,
    began: Instant,
    give_up: tokio::time::Instant,
    guard: Option<DropGuard>,
}

impl QueryRun {
    /// The answer's columns.
    #[must_use]
    pub fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    /// The next page; the first one carries the columns and comes even when there are no rows. `None` after the last.
    ///
    /// # Errors
    /// What ended the query, unless it was a limit: limits are told by [`QueryRun::done`].
    pub async fn next_page(&mut self) -> Result<Option<ResultPage>, QueryError> {
        let Ok(page) = tokio::time::timeout_at(self.give_up, self.pages.recv()).await else {
            // The thread did not come back from one batch; drop the guard so that it stops when it does.
            self.guard = None;
            self.pages.close();
            self.tally
                .missing
                .add(Lack::new(Degraded::TimedOut, "deadline: it was over inside one step of the query"));
            return Ok(None);
        };
        page.transpose()
    }

    /// Ends it for a reader that has taken nothing for this long, and says so.
    #[must_use]
    pub fn give_up(self, waited: Duration) -> QueryDone {
        self.tally.missing.add(stopped_reader(waited));
        self.done()
    }

    /// How it ended: rows, time, and what is missing from the answer. Final only after the last page.
    #[must_use]
    pub fn done(&self) -> QueryDone {
        self.tally.done(self.began)
    }
}
