//! Queries: what is answered, what the guard refuses, what one may cost, and the tables that are asked.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed expectation is the test's failure"
)]

use std::time::{Duration, Instant};

use daemoneye_engine::sql::QueryError;

mod answers;
mod guard;
mod limits;
mod memory;
mod system;
mod tables;

/// Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(180);

/// Asks until there is a place: the thread of a query that is not wanted any more is niced, and on a busy machine it takes longer
/// than anybody waits for a place.
async fn when_free<T>(mut ask: impl AsyncFnMut() -> Result<T, QueryError>) -> Result<T, QueryError> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(QueryError::Busy { .. }) if began.elapsed() < PATIENCE => {}
            answer => return answer,
        }
    }
}
