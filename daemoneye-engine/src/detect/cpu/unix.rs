//! The clock that POSIX has for it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(in super::super) fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}
