//! The CPU time of the calling thread: what a rule costs, whatever else the machine does.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use other::of_this_thread;
#[cfg(unix)]
pub(super) use unix::of_this_thread;
