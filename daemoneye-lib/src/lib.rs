//! The vocabulary that every program of DaemonEye shares: what a process event is, how it is framed on a socket, what a
//! column is called, how a setting is read, and how an audit entry is chained.
//!
//! Nothing here opens a socket, a database or a network connection: `procmond` links this crate, and what it links is the
//! trusted computing base.

pub mod allocator;
pub mod columns;
pub mod config;
pub mod entity;
pub mod event_json;
pub mod exit;
pub mod frame;
pub mod functions;
pub mod hex;
pub mod jail;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod path_test;
pub mod proto;
pub mod redaction;
pub mod segment;
pub mod tables;
pub mod telemetry;
pub mod topic;

/// Version of the protocol on the local sockets. A peer that speaks another one is refused by name, never misread.
pub const PROTOCOL_VERSION: u32 = 1;

/// What this build calls itself in `Hello`, `Welcome` and `--version`.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
