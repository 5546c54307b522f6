//! Queries: what is answered, what the guard refuses, what one may cost, and the tables that are asked.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed expectation is the test's failure"
)]

mod answers;
mod guard;
mod limits;
mod memory;
mod tables;
