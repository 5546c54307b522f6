//! The event bus: one broker inside the agent, clients in the collectors, and the operator socket, all over framed local
//! sockets.
//!
//! Everything that waits is bounded and what a bound sheds is counted. What a peer sends is checked against the one table
//! of [`rights`] where it enters. The broker keeps no copy of a collector's stream: the collector's write-ahead log is the
//! redelivery store, and two signals flow back, credit (rows taken) and the committed sequence (rows durable).

pub mod auth;
pub mod broker;
pub mod client;
mod door;
mod error;
mod link;
pub mod operator;
mod quiet;
pub mod rights;
mod rpc;
pub mod transport;

pub use broker::{Authority, Broker, BrokerOptions, BrokerStreams, BusStats, Delivery, Notice, Run, Subscription};
pub use client::{Client, ClientEvent, ClientOptions, Connected, Delivered, IncomingCall, Responder, RunStream};
pub use error::{BusError, RpcError, SendError};
pub use operator::{Caller, OperatorAnswers, OperatorClient, OperatorService, serve_operators};
pub use rpc::CallPages;
pub use transport::Peer;

/// Shortest deadline of a request: below it the scheduler decides, not the callee.
pub const MIN_DEADLINE: std::time::Duration = std::time::Duration::from_secs(1);
/// Deadline of a request that names none.
pub const DEFAULT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest deadline of a request: an answer that takes longer belongs into several requests.
pub const MAX_DEADLINE: std::time::Duration = std::time::Duration::from_secs(300);
/// Requests that run at the same time on one connection, in each direction.
pub const MAX_RUNNING_REQUESTS: usize = 10;
