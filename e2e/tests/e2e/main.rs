//! The promises of SPECIFICATION.md that need the real programs. One test binary: linking costs more than running.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed step of a test is the failure"
)]

mod bad_input;
mod clocks;
mod context;
mod damaged;
mod exploding;
mod exports;
mod first_light;
mod full_disk;
mod history;
mod hunting;
mod kept;
mod killed;
mod ledger;
mod lifetimes;
mod lives;
mod proofs;
mod rule_life;
mod rule_tools;
mod side_by_side;
mod terminal;
mod windows;
