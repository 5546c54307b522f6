//! One run of a plan: on a thread with a large stack, with a budget of processor time, and never beside another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::task::Poll;
use std::time::Duration;
use std::{fmt, io};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_plan::collect;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::plan::Planned;
use crate::cpu;
use crate::sql::window::limited;

/// Processor time of one run in ns while ingest waits for it, looked at wherever the plan yields.
pub(crate) const BUDGET_NS: u64 = 100_000_000;

/// What one run may take before it ends without an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Processor time.
    pub(super) cpu_ns: u64,
    /// Time on the wall, however little of a processor it was given.
    pub(super) wall: Duration,
}

impl Limits {
    /// Ingest waits for it.
    pub(super) const LIVE: Self = Self { cpu_ns: BUDGET_NS, wall: Duration::from_secs(1) };
    /// Nobody waits, and how busy the host is must not decide what is found: only a run that would take a hundred times as long as a
    /// live one may is ended.
    pub(super) const ALONE: Self = Self { cpu_ns: 100 * BUDGET_NS, wall: Duration::from_secs(300) };
}

/// Stack of the thread in bytes: plans and their expressions are walked recursively.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Why a run has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The plan failed on these rows.
    Failed(String),
    /// It took more memory than there is for it.
    OutOfMemory,
    /// Its time was over.
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what) => f.write_str(what),
            Self::OutOfMemory => f.write_str("it took more memory than there is for a run"),
            Self::TimedOut => f.write_str("its time was over"),
        }
    }
}

/// What a run gave and what it cost.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) answer: Result<Vec<RecordBatch>, Failure>,
    pub(super) cpu_ns: u64,
}

struct Job {
    plan: Arc<Planned>,
    limits: Limits,
    reply: SyncSender<Outcome>,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Runner {
    jobs: SyncSender<Job>,
    pub(super) limits: Limits,
}

impl Runner {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (jobs, waiting) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("window-rules".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&runtime, &waiting))?;
        Ok(Self { jobs, limits: Limits::ALONE })
    }

    /// Runs a plan over the rows that were fed to it.
    pub(super) fn run(&self, plan: &Arc<Planned>) -> Outcome {
        let (reply, answer) = mpsc::sync_channel(1);
        let sent = self.jobs.send(Job { plan: Arc::clone(plan), limits: self.limits, reply }).is_ok();
        let outcome = sent.then(|| answer.recv().ok()).flatten();
        let gone = || Failure::Failed("the thread of the window rules has ended".to_owned());
        outcome.unwrap_or_else(|| Outcome { answer: Err(gone()), cpu_ns: 0 })
    }
}

fn work(runtime: &Runtime, jobs: &Receiver<Job>) {
    while let Ok(Job { plan, limits, reply }) = jobs.recv() {
        let began = cpu::thread_ns();
        // A plan that panics costs its rule this answer and not every rule the thread.
        let guarded = catch_unwind(AssertUnwindSafe(|| runtime.block_on(answer(&plan, limits, began))));
        let answer = guarded.unwrap_or_else(|_| Err(Failure::Failed("its plan panicked".to_owned())));
        plan.feed(Vec::new(), 0);
        let cpu_ns = cpu::thread_ns().saturating_sub(began);
        // Whoever asked may have ended.
        drop(reply.send(Outcome { answer, cpu_ns }));
    }
}

async fn answer(plan: &Planned, limits: Limits, began_ns: u64) -> Result<Vec<RecordBatch>, Failure> {
    let deadline = Instant::now() + limits.wall;
    plan.allowance.renew(deadline);
    let physical =
        reset_plan_states(Arc::clone(&plan.physical)).and_then(|fresh| limited(fresh, &plan.allowance, false));
    let physical = physical.map_err(|error| Failure::Failed(error.to_string()))?;
    let mut running = pin!(collect(physical, Arc::clone(&plan.context)));
    let within = std::future::poll_fn(|waker| {
        if cpu::thread_ns().saturating_sub(began_ns) > limits.cpu_ns {
            return Poll::Ready(Err(Failure::TimedOut));
        }
        running.as_mut().poll(waker).map_err(|error| failure(&error, plan))
    });
    tokio::time::timeout_at(deadline, within).await.unwrap_or(Err(Failure::TimedOut))
}

fn failure(error: &DataFusionError, plan: &Planned) -> Failure {
    match (plan.allowance.over(), error.find_root()) {
        (Some(_), _) => Failure::TimedOut,
        (None, DataFusionError::ResourcesExhausted(_)) => Failure::OutOfMemory,
        (None, root) => Failure::Failed(root.to_string()),
    }
}
