//! Log lines that a peer can trigger. A hostile peer must not be able to fill a disk with them, so each place that logs
//! what a peer did asks here first; what was held back is told with the next line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines per window: enough to see each of a handful of misconfigured peers.
const LINES: u32 = 5;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(10);

/// A bound on log lines.
#[derive(Default)]
pub(crate) struct Quiet(Mutex<State>);

#[derive(Default)]
struct State {
    began: Option<Instant>,
    said: u32,
    held_back: u64,
}

impl Quiet {
    /// `Some(lines held back since the last one)` when a line may be written now.
    pub(crate) fn allow(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            state.began = Some(now);
            state.said = 0;
        }
        if state.said == LINES {
            state.held_back += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_five_lines_in_ten_seconds_and_tells_the_rest_later() {
        let quiet = Quiet::default();
        let said = (0..100).filter(|_| quiet.allow().is_some()).count();
        assert_eq!(said, 5);
        tokio::time::advance(WINDOW).await;
        assert_eq!(quiet.allow(), Some(95));
        assert_eq!(quiet.allow(), Some(0));
    }
}
