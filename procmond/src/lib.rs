//! The process collector's parts: readers of the process table, the lifecycle tracker and its checkpoint, and the source
//! that joins them. The program is `main.rs`; this library exists so that tests and benchmarks reach the parts.
//!
//! Not here, and not pretended: kernel sources, hashing of executables, redaction and the jail.

pub mod checkpoint;
pub mod collector;
pub mod follow;
pub mod monitor;
pub mod sources;
pub mod tasks;
pub mod text;
pub mod tracker;
