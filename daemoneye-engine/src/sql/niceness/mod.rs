//! Query threads give way to those that ingest and detect. One file per platform.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "other.rs")]
mod platform;

pub(crate) use platform::lower;
use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// A thread that has worked for less is asked for nothing.
const SHORT: Duration = Duration::from_micros(250);
/// And one that has worked for so long steps aside, whatever became of it the last time.
const LONG: Duration = Duration::from_millis(4);

thread_local! {
    static STINT: Cell<Stint> = const { Cell::new(Stint { began: None, length: SHORT }) };
}

#[derive(Clone, Copy)]
struct Stint {
    began: Option<Instant>,
    length: Duration,
}

/// Lets another thread have the CPU if one waits for it and this one has worked for a while.
///
/// A lower priority is a smaller share, not a later turn: a kernel that does not preempt lets whoever works go on until its next
/// tick, 4 ms at 250 Hz, before a thread that has woken up runs. Who steps aside gives away the rest of its slice, and on a host
/// that is busy all the time a query would get a tenth of its share: the next stint is as long as others took.
pub(crate) fn step_aside() {
    let Stint { began, length } = STINT.get();
    let now = Instant::now();
    if began.is_some_and(|began| now.saturating_duration_since(began) < length) {
        return;
    }
    thread::yield_now();
    let back = Instant::now();
    STINT.set(Stint { began: Some(back), length: back.saturating_duration_since(now).clamp(SHORT, LONG) });
}
