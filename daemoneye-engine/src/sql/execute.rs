//! One query from text to the last page, on the query threads.

use super::allowance::{Allowance, Over};
use super::completeness::{Lack, NO_MEMORY, degradation, stopped_reader};
use super::engine::Tally;
use super::niceness::step_aside;
use super::pages::{Pages, page_columns, unique_names};
use super::refusal::spoken;
use super::suspects::{Doubt, Suspects, gave_way};
use super::tables::{self, QueryView};
use super::{QueryError, SystemTables, check, explain, half, operators, params, plan, session, thrift};
use crate::store::Store;
use daemoneye_lib::model::Degraded;
use daemoneye_lib::proto::{QueryRequest, ResultColumn, ResultPage};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt as _, StreamExt as _};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long the last page waits for its reader while it holds a slot.
const SLOW_READER: Duration = Duration::from_secs(10);

/// How long threads that were told to stop may take to come back from the batch that they are at.
const STOPPING: Duration = Duration::from_secs(1);

/// When a query works on several threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) threads: usize,
    /// From so many rows of history on.
    pub(crate) from_rows: u64,
}

impl Spread {
    const ALONE: Self = Self { threads: 1, from_rows: u64::MAX };
}

/// How a statement is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    First,
    /// A damaged file was set aside: on one thread.
    Again,
    /// Several threads found no memory: on one, which has all of it.
    Alone,
    /// One thread found no memory: with what spills, however long it takes.
    Thrifty,
}

/// Everything that one query needs.
pub(crate) struct Job {
    pub(crate) store: Arc<Store>,
    pub(crate) extra: Arc<dyn SystemTables>,
    pub(crate) environment: Arc<RuntimeEnv>,
    pub(crate) request: QueryRequest,
    pub(crate) began: std::time::Instant,
    pub(crate) deadline: Instant,
    pub(crate) row_cap: u64,
    pub(crate) page_rows: usize,
    pub(crate) cancel: CancellationToken,
    pub(crate) spread: Spread,
    pub(crate) tally: Arc<Tally>,
    pub(crate) suspects: Arc<Suspects>,
    /// How long one page may wait for the reader.
    pub(crate) reader_wait: Duration,
    pub(crate) _slot: OwnedSemaphorePermit,
}

/// The statement was accepted and planned.
pub(crate) struct Started {
    pub(crate) columns: Vec<ResultColumn>,
}

/// A plan under way.
struct Prepared {
    stream: SendableRecordBatchStream,
    run: Run,
    columns: Vec<ResultColumn>,
}

/// What belongs to a plan while it runs.
struct Run {
    plan: Arc<dyn ExecutionPlan>,
    /// Keeps the snapshot's files from being removed while they are read.
    view: Arc<QueryView>,
    allowance: Arc<Allowance>,
    /// What may do with less memory, where it finds none.
    next: Option<Manner>,
    /// Bytes of the pool that others held when it began.
    reserved_before: usize,
}

type Begin = oneshot::Sender<Result<Started, QueryError>>;
type Out = mpsc::Sender<Result<ResultPage, QueryError>>;

/// Why no more rows come.
enum End {
    Cancelled,
    /// It needed more than there is; another plan may do with it.
    Crowded(Lack),
    Failed(QueryError),
    /// A limit, already told.
    Cut,
    /// A file could not be read, or the reader gave way under what it read.
    Unreadable(Doubt),
    /// All rows were sent, or nobody reads them.
    Over,
}

impl Job {
    pub(crate) async fn run(self, begin: Begin, out: Out) {
        let prepared = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(QueryError::Cancelled),
            prepared = self.planned(Manner::First) => prepared,
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nobody waits any more when the receiver is gone.
                drop(begin.send(Err(error)));
                return;
            }
        };
        let columns = prepared.columns.clone();
        if begin.send(Ok(Started { columns: columns.clone() })).is_err() {
            return;
        }
        let mut pages = Pages::new(columns, self.page_rows);
        let end = tokio::select! {
            biased;
            () = self.cancel.cancelled() => End::Cancelled,
            end = self.answer(prepared, &mut pages, &out) => end,
        };
        self.close(end, pages, &out).await;
    }

    /// [`Job::prepare`], where a decoder that panics on a damaged file costs that file and not the query.
    async fn planned(&self, manner: Manner) -> Result<Prepared, QueryError> {
        let view = self.view();
        if let Ok(prepared) = self.attempt(&view, manner).await {
            return prepared;
        }
        if !self.set_aside(&view, &Doubt::Panic).await {
            return Err(gave_way());
        }
        drop(view);
        self.attempt(&self.view(), manner).await.unwrap_or_else(|_| Err(gave_way()))
    }

    /// `Err` when planning panics.
    async fn attempt(
        &self,
        view: &Arc<QueryView>,
        manner: Manner,
    ) -> std::thread::Result<Result<Prepared, QueryError>> {
        AssertUnwindSafe(self.prepare(Arc::clone(view), manner)).catch_unwind().await
    }

    fn view(&self) -> Arc<QueryView> {
        QueryView::new(Arc::clone(&self.store), Arc::clone(&self.extra), self.tally.missing.clone())
    }

    async fn prepare(&self, view: Arc<QueryView>, manner: Manner) -> Result<Prepared, QueryError> {
        let checked = check::check_query(&self.request.sql, &self.extra.lists()).map_err(QueryError::Refused)?;
        let values = params::bind(&checked, &self.request.params).map_err(QueryError::Refused)?;
        let tables = view.tables(checked.tables());
        let allowance = Allowance::new(self.cancel.clone(), self.deadline, &self.environment.memory_pool);
        view.works_within(&allowance);
        let planning = |error: DataFusionError| match allowance.over() {
            Some(over) => over.while_planning(),
            None => plan::failure(&error, checked.query()),
        };
        let state = session::with_tables(tables, Arc::clone(&self.environment), Arc::clone(&allowance));
        let mut state = state.map_err(planning)?;
        let reserved_before = self.environment.memory_pool.reserved();
        let plan = session::plan(&state, &checked).await.map_err(planning)?;
        let (first, thrifty) = (manner == Manner::First, manner == Manner::Thrifty);
        let spread = if first { self.spread } else { Spread::ALONE };
        let many = view.history_rows(checked.tables()).map_err(planning)? >= spread.from_rows;
        let spread = many && session::spread(&mut state, &plan, spread.threads);
        if spread {
            view.works_on_several();
        }
        session::hasten(&mut state, &plan);
        plan::gate(&plan, checked.query()).map_err(QueryError::Refused)?;
        let bare = (checked.parameters() > 0).then(|| plan.clone());
        let misfit = || bare.as_ref().and_then(|plan| params::misfit(plan, &state, &values));
        let planning = |error: DataFusionError| planning(error).of_parameter(misfit());
        let plan =
            if checked.parameters() == 0 { plan } else { plan.with_param_values(values.clone()).map_err(planning)? };
        let plan = if thrifty { thrift::parted(plan).map_err(planning)? } else { plan };
        let columns = unique_names(page_columns(plan.schema().as_arrow()), plan.schema());
        let physical = state.create_physical_plan(&plan).await.map_err(planning)?;
        view.planned();
        let physical = tables::ordered(physical).map_err(planning)?;
        let spills = self.environment.disk_manager.tmp_files_enabled();
        let next = match manner {
            Manner::First if spread => Some(Manner::Alone),
            Manner::First | Manner::Again | Manner::Alone if spills => Some(Manner::Thrifty),
            _ => None,
        };
        let half = spread && spills && thrift::gathers_first(&physical);
        let physical = if thrifty && spills { thrift::spilling(physical).map_err(planning)? } else { physical };
        let physical = operators::limited(physical, &allowance, !spread).map_err(planning)?;
        let sorted = if thrifty { &thrift::SORTED } else { &session::SORTED };
        let failed = |error: DataFusionError| QueryError::Execution(spoken(&error));
        let physical = session::narrow(&mut state, physical, sorted).map_err(failed)?;
        let mut context = TaskContext::from(&state);
        if half {
            context = context.with_runtime(half::of(&self.environment).map_err(failed)?);
        }
        let stream = execute_stream(Arc::clone(&physical), Arc::new(context));
        let stream = stream.map_err(failed)?;
        drop(plan);
        Ok(Prepared { stream, run: Run { plan: physical, view, allowance, next, reserved_before }, columns })
    }

    /// Streams the rows. A query begins once more, if no page has left, without the first file that turns out to be damaged, and with
    /// another plan where it finds no memory; after that the rows that were sent stand, and the next query does without the file.
    async fn answer(&self, mut prepared: Prepared, pages: &mut Pages, out: &Out) -> End {
        let mut aside = false;
        loop {
            let Prepared { stream, run, .. } = prepared;
            let (manner, lack) = match self.guarded(stream, &run, pages, out).await {
                End::Unreadable(doubt) => {
                    let damaged = !aside && self.set_aside(&run.view, &doubt).await;
                    match doubt.failure() {
                        Some(error) if !damaged => return End::Failed(error),
                        _ if !damaged || !pages.restart() => return self.unreadable(),
                        _ => aside = true,
                    }
                    drop(run);
                    (Manner::Again, None)
                }
                End::Crowded(lack) => match self.otherwise(run, lack, pages).await {
                    Ok((manner, lack)) => (manner, Some(lack)),
                    Err(end) => return end,
                },
                end => return end,
            };
            self.tally.rows.store(0, Ordering::Relaxed);
            prepared = match self.planned(manner).await {
                Ok(prepared) => prepared,
                Err(error) => return lack.map_or_else(|| End::Failed(error), |lack| self.cut(lack)),
            };
        }
    }

    /// How a query that found no memory begins once more, if it may and no page has left.
    async fn otherwise(&self, run: Run, lack: Lack, pages: &mut Pages) -> Result<(Manner, Lack), End> {
        let Some(manner) = run.next.filter(|_| pages.restart()) else {
            let end = self.cut(lack);
            self.tell(&run);
            return Err(end);
        };
        let before = run.reserved_before;
        drop(run);
        self.memory_is_back(before).await;
        Ok((manner, lack))
    }

    /// Until the threads that were told to stop have given back what they held, unless another query has taken it.
    async fn memory_is_back(&self, before: usize) {
        let patience = self.deadline.min(Instant::now() + STOPPING);
        while self.environment.memory_pool.reserved() > before && Instant::now() < patience {
            tokio::time::sleep(STOPPING / 100).await;
        }
    }

    /// [`Job::stream`], where a decoder that panics on foreign bytes ends this query and not the thread.
    async fn guarded(&self, stream: SendableRecordBatchStream, run: &Run, pages: &mut Pages, out: &Out) -> End {
        let streamed = AssertUnwindSafe(self.stream(stream, run, pages, out)).catch_unwind().await;
        let end = streamed.unwrap_or(End::Unreadable(Doubt::Panic));
        if !matches!(end, End::Unreadable(_) | End::Crowded(_)) {
            self.tell(run);
        }
        end
    }

    /// Checks the files that the query reads; true when one of them is damaged and was set aside.
    async fn set_aside(&self, view: &QueryView, doubt: &Doubt) -> bool {
        let check = self.suspects.check(&self.store, view.opened(), doubt);
        matches!(timeout_at(self.deadline, check).await, Ok(true))
    }

    async fn stream(&self, mut stream: SendableRecordBatchStream, run: &Run, pages: &mut Pages, out: &Out) -> End {
        loop {
            let batch = match timeout_at(self.deadline, stream.next()).await {
                Err(_) => return self.timed_out(),
                Ok(None) => return End::Over,
                Ok(Some(Ok(batch))) => batch,
                Ok(Some(Err(error))) => return self.ended_by(&error, run),
            };
            step_aside();
            let (batch, capped) = self.within_cap(&batch);
            self.tally.rows.fetch_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX), Ordering::Relaxed);
            let full = if self.request.explain { Vec::new() } else { pages.take(&batch) };
            if let Some(end) = self.hand_out(full, pages, out).await {
                return end;
            }
            if capped {
                return self.cut(Lack::new(Degraded::Capped, format!("rows: only the first {}", self.row_cap)));
            }
        }
    }

    /// A reader that has stopped must not keep a slot until the deadline, which for an export is far.
    async fn hand_out(&self, full: Vec<ResultPage>, pages: &mut Pages, out: &Out) -> Option<End> {
        let mut full = full.into_iter();
        while let Some(page) = full.next() {
            let rows = page.rows.len();
            let patience = Instant::now() + self.reader_wait;
            match timeout_at(patience.min(self.deadline), out.send(Ok(page))).await {
                Ok(Ok(())) => continue,
                Ok(Err(_)) => return Some(End::Over),
                Err(_) => {}
            }
            let left =
                full.fold(rows.saturating_add(pages.end_here()), |sum, page| sum.saturating_add(page.rows.len()));
            self.tally.rows.fetch_sub(u64::try_from(left).unwrap_or_default(), Ordering::Relaxed);
            let stopped = patience < self.deadline;
            return Some(if stopped { self.cut(stopped_reader(self.reader_wait)) } else { self.timed_out() });
        }
        None
    }

    /// An operator that noticed the deadline fails with whatever the operators around it make of that.
    fn ended_by(&self, error: &DataFusionError, run: &Run) -> End {
        tracing::debug!(%error, "query ended early");

        match (run.allowance.over(), degradation(error)) {
            (Some(Over::Cancelled), _) => End::Cancelled,
            (Some(Over::TimedOut), _) => self.timed_out(),
            (None, Some(lack)) if lack.reason == Degraded::DataUnreadable => End::Unreadable(Doubt::of(error)),
            (None, Some(lack)) if lack.what == NO_MEMORY => End::Crowded(lack),
            (None, Some(lack)) => self.cut(lack),
            (None, None) => End::Failed(QueryError::Execution(spoken(error))),
        }
    }

    /// The rows that the cap leaves, and whether it cut any.
    fn within_cap(&self, batch: &RecordBatch) -> (RecordBatch, bool) {
        let left = self.row_cap.saturating_sub(self.tally.rows.load(Ordering::Relaxed));
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if batch.num_rows() <= left { (batch.clone(), false) } else { (batch.slice(0, left), true) }
    }

    fn cut(&self, lack: Lack) -> End {
        self.tally.missing.add(lack);
        End::Cut
    }

    fn timed_out(&self) -> End {
        self.cut(Lack::new(Degraded::TimedOut, "deadline: more rows may follow"))
    }

    fn unreadable(&self) -> End {
        self.cut(Lack::new(Degraded::DataUnreadable, "a segment could not be read to its end"))
    }

    /// Before the last page goes out, because then the reader asks.
    fn tell(&self, run: &Run) {
        // Set once: a query that started again tells of its second run only.
        self.tally.segments.get_or_init(|| run.view.segments());
        if self.request.explain {
            let done = self.tally.done(self.began);
            self.tally.explained.get_or_init(|| explain::document(&run.plan, &run.view, &done));
        }
    }

    async fn close(&self, end: End, mut pages: Pages, out: &Out) {
        if pages.cut {
            let what = "cells: the long ones of a row that is larger than a page";
            self.tally.missing.add(Lack::new(Degraded::Capped, what));
        }
        let last = match end {
            End::Cancelled => Some(Err(QueryError::Cancelled)),
            End::Failed(error) => Some(Err(error)),
            End::Crowded(_) | End::Cut | End::Over | End::Unreadable(_) => pages.flush().map(Ok),
        };
        let Some(last) = last else { return };
        send_last(last, out, &self.tally).await;
    }
}

/// The slot is needed: what a reader does not take is dropped, and told to it as missing when it reads on.
async fn send_last(last: Result<ResultPage, QueryError>, out: &Out, tally: &Tally) {
    let rows = last.as_ref().map_or(0, |page| page.rows.len());
    if timeout(SLOW_READER, out.send(last)).await.is_err() {
        tally.rows.fetch_sub(u64::try_from(rows).unwrap_or_default(), Ordering::Relaxed);
        let what = format!("reader: it took nothing for {} s, so the last rows were not sent", SLOW_READER.as_secs());
        tally.missing.add(Lack::new(Degraded::TimedOut, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: usize) -> ResultPage {
        ResultPage { columns: Vec::new(), rows: vec![daemoneye_lib::proto::Row::default(); rows] }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_a_reader_did_not_take_in_time_are_told_as_missing() {
        let (out, mut taken) = mpsc::channel(1);
        let tally = Tally::default();
        tally.rows.store(12, Ordering::Relaxed);
        send_last(Ok(page(5)), &out, &tally).await;
        assert!(tally.missing.lacks().is_empty(), "there was room for it");
        send_last(Ok(page(7)), &out, &tally).await;
        let done = tally.done(std::time::Instant::now());
        assert_eq!((done.rows, done.completeness.unwrap().degraded), (5, vec!["timed_out".to_owned()]));
        assert!(done.lacks[0].what.contains("the last rows were not sent"), "{:?}", done.lacks);
        assert_eq!(taken.recv().await.unwrap().unwrap().rows.len(), 5);
    }
}
