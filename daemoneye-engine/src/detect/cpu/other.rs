//! Where no clock counts a thread's own time, the time that passes: a rule may look slower than it is, never faster.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(in super::super) fn of_this_thread() -> Duration {
    BEGIN.elapsed()
}
