//! The process collector's parts: readers of the process table, the lifecycle tracker and its checkpoint, and the source
//! that joins them. The program is `main.rs`; this library exists so that tests and benchmarks reach the parts.

pub mod checkpoint;
pub mod collector;
pub mod follow;
pub mod hashing;
pub mod jail;
pub mod kernel;
pub mod monitor;
pub mod secrets;
pub mod sources;
pub mod tasks;
pub mod text;
pub mod tracker;
