//! The bus over real sockets: what the peers may rely on, and what hostile ones get.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers fail by panicking")]

mod delivery;
mod hostile;
mod operators;
mod requests;
mod sockets;
mod streams;
mod support;
