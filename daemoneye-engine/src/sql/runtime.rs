//! The threads that queries run on: their own runtime, a low priority, large stacks. There while somebody asks, and a moment longer.
//!
//! Plans are planned, optimized, run and dropped here, because each of these recurses over them.
//!
//! What a thread has freed stays with it until it ends (docs/adr/0010), and a query frees much: an agent that nobody asks keeps none of it.

use super::check::STACK_BYTES;
use super::niceness;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that read footers and Bloom filters for the query threads, which read pages by themselves; two keep a disk busy while one
/// waits.
const READERS: usize = 2;
/// How long threads stay without a query: whoever reads an answer may ask the next question.
const IDLE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 3_000 });
/// How long they may take to end; what still runs then ends by itself.
const ENDING: Duration = Duration::from_secs(5);
/// The allocator gives back what was freed a moment ago (up to a second, as operators may set it), and looks for it when a thread ends.
const GIVEN_BACK: Duration = Duration::from_millis(1_500);

/// Query threads; those that run end when this is dropped, at the next point where a query yields.
pub(crate) struct QueryThreads {
    threads: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: Option<Runtime>,
    turns: usize,
    closed: bool,
}

/// Threads for one query, until it is dropped.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    handle: Handle,
}

impl QueryThreads {
    /// Starts them once, so that a host that cannot have them says so when the engine begins.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let threads = Self { threads, shared: Arc::default() };
        threads.turn().map(drop)?;
        Ok(threads)
    }

    /// Threads to run a query on.
    pub(crate) fn turn(&self) -> io::Result<Turn> {
        let mut state = self.shared.locked();
        let handle = match &state.running {
            Some(runtime) => runtime.handle().clone(),
            None => {
                let runtime = runtime(self.threads)?;
                let handle = runtime.handle().clone();
                let shared = Arc::clone(&self.shared);
                let keeper = thread::Builder::new().name("sql-idle".to_owned());
                if let Err(error) = keeper.spawn(move || shared.end_when_idle(IDLE)) {
                    runtime.shutdown_background();
                    return Err(error);
                }
                state.running = Some(runtime);
                handle
            }
        };
        state.turns = state.turns.saturating_add(1);
        Ok(Turn { shared: Arc::clone(&self.shared), handle })
    }
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_time()
        .max_blocking_threads(READERS)
        .thread_name("sql-query")
        .thread_stack_size(STACK_BYTES)
        .on_thread_start(niceness::lower)
        .build()
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody has asked for so long, and ends the threads.
    fn end_when_idle(&self, idle: Duration) {
        let mut state = self.locked();
        while !state.closed {
            let busy = |state: &mut State| state.turns > 0 && !state.closed;
            state = self.changed.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner);
            let quiet = |state: &mut State| state.turns == 0 && !state.closed;
            let waited = self.changed.wait_timeout_while(state, idle, quiet);
            let (held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = held;
            if timeout.timed_out() {
                break;
            }
        }
        let (runtime, closed) = (state.running.take(), state.closed);
        drop(state);
        let Some(runtime) = runtime else { return };
        if closed {
            return runtime.shutdown_background();
        }
        runtime.shutdown_timeout(ENDING);
        thread::park_timeout(GIVEN_BACK);
    }
}

impl Turn {
    pub(crate) fn spawn(self, query: impl Future<Output = ()> + Send + 'static) {
        let handle = self.handle.clone();
        handle.spawn(async move {
            query.await;
            drop(self);
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.locked();
        state.turns = state.turns.saturating_sub(1);
        self.shared.changed.notify_all();
    }
}

impl Drop for QueryThreads {
    /// Whoever drops it may be a task of another runtime, which must not wait.
    fn drop(&mut self) {
        self.shared.locked().closed = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn is_running(threads: &QueryThreads) -> bool {
        threads.shared.locked().running.is_some()
    }

    fn end(threads: &QueryThreads) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_running(threads) {
            assert!(Instant::now() < deadline, "idle threads end");
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    #[test]
    fn threads_are_there_while_somebody_asks_and_come_again() {
        let threads = QueryThreads::start(2).unwrap();
        for _ in 0..2 {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let name = async move { answer.send(thread::current().name().map(str::to_owned)).unwrap() };
            threads.turn().unwrap().spawn(name);
            assert_eq!(answered.blocking_recv().unwrap().as_deref(), Some("sql-query"));
            end(&threads);
        }
        let (held, other) = (threads.turn().unwrap(), threads.turn().unwrap());
        drop(other);
        // Others that nobody asks from later on have come to their end.
        end(&QueryThreads::start(1).unwrap());
        assert!(is_running(&threads), "one query is still at work");
        drop(held);
    }

    #[test]
    fn a_query_that_runs_ends_with_its_engine() {
        let threads = QueryThreads::start(1).unwrap();
        let (ended, sees_end) = tokio::sync::oneshot::channel::<()>();
        threads.turn().unwrap().spawn(async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        });
        drop(threads);
        assert!(sees_end.blocking_recv().is_err(), "its future is dropped");
    }
}
