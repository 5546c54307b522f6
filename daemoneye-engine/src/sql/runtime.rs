//! The thread that queries run on: its own runtime, a low priority, a large stack.
//!
//! Plans are planned, optimized, run and dropped here, because each of these recurses over them.

use super::check::STACK_BYTES;
use super::niceness;
use std::io;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads that read files for the query thread; two keep a disk busy while one waits.
const READERS: usize = 2;

/// A running query thread; it ends when this is dropped, at the next point where a query yields.
pub(crate) struct QueryThread {
    handle: Handle,
    _stop: DropGuard,
}

impl QueryThread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(READERS)
            .thread_name("sql-read")
            .on_thread_start(niceness::lower)
            .build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new().name("sql-query".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            niceness::lower();
            runtime.block_on(stopped.cancelled());
        })?;
        Ok(Self { handle, _stop: stop.drop_guard() })
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }
}
