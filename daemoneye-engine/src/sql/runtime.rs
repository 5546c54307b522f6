//! The threads that queries run on: their own runtime, a low priority, large stacks.
//!
//! Plans are planned, optimized, run and dropped here, because each of these recurses over them.

use super::check::STACK_BYTES;
use super::niceness;
use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that read footers and Bloom filters for the query threads, which read pages by themselves; two keep a disk busy while one
/// waits.
const READERS: usize = 2;

/// Running query threads; they end when this is dropped, at the next point where a query yields.
pub(crate) struct QueryThreads {
    runtime: Option<Runtime>,
}

impl QueryThreads {
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .enable_time()
            .max_blocking_threads(READERS)
            .thread_name("sql-query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(niceness::lower)
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// `None` while they end.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.runtime.as_ref().map(Runtime::handle)
    }
}

impl Drop for QueryThreads {
    /// Whoever drops it may be a task of another runtime, which must not wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
