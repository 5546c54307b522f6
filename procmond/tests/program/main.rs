//! The real program, tried from outside against real processes.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod actor;
mod context;
mod hanging;
mod kernel;
mod restarts;
mod starts;
mod support;
