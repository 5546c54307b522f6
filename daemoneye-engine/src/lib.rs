//! The engine: what the agent's worker does with events once they have arrived.
//!
//! [`ingest`] turns the records of a collector into one Arrow batch, [`detect`] decides the rules over it, [`store`] keeps
//! events, alerts and what else must survive a crash, [`sql`] answers questions over all of it, and [`replay`]
//! decides rules over events that are past. The engine opens no
//! socket and starts no process; it reads and writes only inside the data directory it is given.

mod cpu;
pub mod detect;
pub mod generate;
pub mod ingest;
pub mod replay;
pub mod schema;
pub mod sql;
pub mod store;
mod text;

/// The one shape of events past the ingest door; named here so that callers need not link DataFusion themselves.
pub use datafusion::arrow::array::RecordBatch;
