//! What groups and sorts on several threads may take: half of the memory, and no disk.
//!
//! No row of such a plan leaves before all have come together, so what does not fit there begins once more on one thread, which
//! spills. Threads that spill beside each other take more than they ask for, each as much as one; rows that one of them has spilled
//! for the other may never be read; and what the first plan leaves to the allocator is there beside what the second one takes
//! (docs/benchmarks-log.md, "What needs more than its memory, whole").

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The same files, half of the same memory, and no disk.
pub(crate) fn of(environment: &RuntimeEnv) -> Result<Arc<RuntimeEnv>> {
    let whole = Arc::clone(&environment.memory_pool);
    let bytes = match whole.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes / 2,
        MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
    };
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::from_runtime_env(environment)
        .with_memory_pool(Arc::new(Half { whole, bytes, held: AtomicUsize::new(0) }))
        .with_disk_manager_builder(disk)
        .build_arc()
}

/// So many bytes of a pool.
#[derive(Debug)]
struct Half {
    whole: Arc<dyn MemoryPool>,
    bytes: usize,
    held: AtomicUsize,
}

impl Half {
    /// Takes bytes of the half, where it has them.
    fn take(&self, additional: usize) -> Result<(), usize> {
        let more = |held: usize| held.checked_add(additional).filter(|held| *held <= self.bytes);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map(drop)
    }

    fn give(&self, bytes: usize) {
        let less = |held: usize| Some(held.saturating_sub(bytes));
        // It always has a next value.
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
    }
}

impl MemoryPool for Half {
    fn name(&self) -> &'static str {
        "half"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.whole.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.whole.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.held.fetch_add(additional, Ordering::Relaxed);
        self.whole.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.give(shrink);
        self.whole.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let name = reservation.consumer().name();
        self.take(additional).map_err(|held| {
            let bytes = self.bytes;
            DataFusionError::ResourcesExhausted(format!(
                "{name} asks for {additional} bytes, and {held} of {bytes} are held"
            ))
        })?;
        self.whole.try_grow(reservation, additional).inspect_err(|_| self.give(additional))
    }

    fn reserved(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}", self.bytes, self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    #[test]
    fn half_is_granted_and_all_of_it_comes_back() {
        let whole: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&whole)).build_arc().unwrap();
        let half = of(&environment).unwrap();
        assert!(!half.disk_manager.tmp_files_enabled());
        let (one, other) = (MemoryConsumer::new("one"), MemoryConsumer::new("other"));
        let (one, other) = (one.register(&half.memory_pool), other.register(&half.memory_pool));
        one.try_grow(30).unwrap();
        other.try_grow(21).unwrap_err();
        other.try_grow(20).unwrap();
        assert_eq!((half.memory_pool.reserved(), whole.reserved()), (50, 50));
        drop(one);
        assert_eq!((half.memory_pool.reserved(), whole.reserved()), (20, 20));
        let taken = MemoryConsumer::new("all others").register(&whole);
        taken.try_grow(80).unwrap();
        other.try_grow(1).unwrap_err();
        drop(other);
        assert_eq!((half.memory_pool.reserved(), whole.reserved()), (0, 80));
    }
}
