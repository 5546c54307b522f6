//! What one query may still take: time, and memory that the engine's pool does not see.
//!
//! A query gives its thread back where it yields, and there the deadline and the caller are looked at. Some work does not
//! yield for minutes (a join whose condition nothing passes, an expression over long texts, a window over all rows): that
//! work asks here as it goes, and fails when the query is over.

use super::QueryError;
use super::niceness::step_aside;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Memory of a statement that is checked without being run, in bytes: the default pool of queries.
const ALONE_BYTES: usize = 64 * 1024 * 1024;
/// Time of such a statement: the default deadline of queries.
const ALONE: Duration = Duration::from_secs(30);

/// Shared by everything that works on one query.
#[derive(Debug)]
pub(crate) struct Allowance {
    cancel: CancellationToken,
    deadline: Mutex<Instant>,
    held: MemoryReservation,
    pool: Arc<dyn MemoryPool>,
}

impl Allowance {
    /// Until `cancel` or `deadline`, with memory from `pool`.
    pub(crate) fn new(cancel: CancellationToken, deadline: Instant, pool: &Arc<dyn MemoryPool>) -> Arc<Self> {
        Arc::new(Self {
            cancel,
            deadline: Mutex::new(deadline),
            held: MemoryConsumer::new("texts").register(pool),
            pool: Arc::clone(pool),
        })
    }

    /// For a statement that belongs to no query.
    pub(crate) fn alone() -> Arc<Self> {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(ALONE_BYTES));
        Self::new(CancellationToken::new(), Instant::now() + ALONE, &pool)
    }

    /// Fails when the query is over.
    pub(crate) fn time(&self) -> Result<()> {
        match self.over() {
            None => Ok(()),
            Some(_) => Err(DataFusionError::Execution("the query is over".to_owned())),
        }
    }

    /// Takes memory until the query ends; fails when the pool has no more.
    pub(crate) fn memory(&self, bytes: usize) -> Result<()> {
        self.held.try_grow(bytes)
    }

    /// Fails when more is held than the pool has: some operators take what they need without asking.
    pub(crate) fn within_memory(&self) -> Result<()> {
        within(&self.pool)
    }

    /// Why the query is over, if it is; whoever asks has worked for a while, and steps aside for others.
    pub(crate) fn over(&self) -> Option<Over> {
        step_aside();
        if self.cancel.is_cancelled() {
            return Some(Over::Cancelled);
        }
        // One value, set as a whole.
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        (Instant::now() >= deadline).then_some(Over::TimedOut)
    }

    /// For a plan that runs again: until `deadline`, and what its last run held is free.
    pub(crate) fn renew(&self, deadline: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
        self.held.free();
    }
}

/// Fails when more is held than the pool has.
pub(crate) fn within(pool: &Arc<dyn MemoryPool>) -> Result<()> {
    match pool.memory_limit() {
        MemoryLimit::Finite(bytes) if pool.reserved() > bytes => {
            Err(DataFusionError::ResourcesExhausted("more is held than was granted".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Why a query is over before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Cancelled,
    TimedOut,
}

impl Over {
    /// For a query that has no rows yet because it was still being planned.
    pub(crate) fn while_planning(self) -> QueryError {
        match self {
            Self::Cancelled => QueryError::Cancelled,
            Self::TimedOut => QueryError::Execution(
                "it was not even planned before its deadline; simplify the statement or its patterns".to_owned(),
            ),
        }
    }
}
