//! The engine: what the agent's worker does with events once they have arrived.
//!
//! [`ingest`] turns the records of a collector into one Arrow batch, [`detect`] decides the rules over it, [`store`] keeps
//! events, alerts and what else must survive a crash, [`sql`] answers questions over all of it, and [`replay`] decides rules over
//! events that are past. [`sigma`] brings rules of others into our form, and [`hunt`] runs rules over events from anywhere. The
//! engine opens no socket and starts no process; it writes only inside the data directory it is given.

mod cpu;
pub mod detect;
pub mod generate;
pub mod hunt;
pub mod ingest;
pub mod replay;
pub mod schema;
pub mod sigma;
pub mod sql;
pub mod store;
mod text;

/// The one shape of events past the ingest door; named here so that callers need not link DataFusion themselves.
pub use datafusion::arrow::array::RecordBatch;

/// Of whatever links the engine, its benchmarks included. A fifth of ingest was the system's allocator (docs/adr/0010). What it is told:
/// `daemoneye_lib::allocator`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
