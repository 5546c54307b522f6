//! Full jitter: a wait anywhere between zero and its ceiling, so that many who failed together do not return together.

use std::time::Duration;

/// A wait in `0..=ceiling`.
pub(crate) fn full(ceiling: Duration) -> Duration {
    // Without randomness from the system the ceiling itself is a correct, only less kind, wait.
    let Ok(random) = getrandom::u32() else { return ceiling };
    ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
