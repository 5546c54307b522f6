//! Elsewhere the clock on the wall stands in: it counts too much on a busy host, never too little.

use std::sync::LazyLock;
use std::time::Instant;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time that has passed, in ns.
pub(crate) fn thread_ns() -> u64 {
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
