//! What can go wrong on the bus, by who is to blame.

use std::io;
use std::path::PathBuf;

use daemoneye_lib::frame::FrameError;
use daemoneye_lib::proto::{Fault, FaultKind};

/// Opening a socket, or an exchange that ended a connection.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A path that does not fit into a socket address.
    #[error("socket path {} has {length} bytes, at most {limit} fit: choose a shorter runtime directory", path.display())]
    LimitPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The platform's limit in bytes.
        limit: usize,
    },
    /// Somebody answers on the socket already.
    #[error("another process answers on {}: stop it, or choose another runtime directory", path.display())]
    MisuseInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies where the socket should be.
    #[error("{} is not a socket: move it away, or choose another runtime directory", path.display())]
    MisuseNotSocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory is open to everybody.
    #[error("directory {} is writable by everyone: choose a runtime directory of your own", path.display())]
    MisuseOpenDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The peer hung up.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The peer ended the exchange and said why.
    #[error("the peer refused: {}", .0.message)]
    PeerFault(Fault),
    /// The frame itself was wrong.
    #[error(transparent)]
    PeerFrame(#[from] FrameError),
    /// A frame was begun and not finished in time, or nothing came at all.
    #[error("the peer went silent: {0}")]
    PeerSilent(&'static str),
    /// A frame with a valid checksum that does not fit here.
    #[error("the peer sent {0}")]
    PeerUnexpected(&'static str),
}

impl BusError {
    /// What the peer is told before the connection is closed; `None` when there is nobody left to tell.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let kind = match self {
            Self::PeerFrame(error) => error.fault_kind(),
            Self::PeerSilent(_) => FaultKind::Timeout,
            Self::PeerUnexpected(_) => FaultKind::BadMessage,
            _ => return None,
        };
        Some(Fault::new(kind, self.to_string()))
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RpcError {
    /// Cancelled by the caller or the callee.
    #[error("the request was cancelled")]
    Cancelled,
    /// Too many at once.
    #[error("{} requests are running on this connection: wait for one to end", crate::MAX_RUNNING_REQUESTS)]
    LimitRunning,
    /// The request does not fit into a frame.
    #[error("the request has {length} bytes, at most {limit} fit into a frame")]
    LimitSize {
        /// Encoded length.
        length: usize,
        /// The endpoint's limit.
        limit: usize,
    },
    /// The callee answered with a fault.
    #[error("{}", .0.message)]
    PeerFault(Fault),
    /// No answer before the deadline.
    #[error("no answer within the deadline")]
    Timeout,
    /// The callee is not connected, or went away before it answered.
    #[error("{0} is not connected")]
    Unavailable(String),
}

/// Why a message or run was not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// There is no connection, or the one that this belonged to is gone: wait for `Connected`, then replay.
    #[error("not connected to the broker")]
    Disconnected,
    /// More than fits into a frame.
    #[error("a message of {length} bytes is above the limit of {limit}: send it in parts")]
    LimitSize {
        /// Encoded length.
        length: usize,
        /// The endpoint's limit.
        limit: usize,
    },
    /// Larger than the credit that a connection starts with, so it could never be sent.
    #[error("a run of {records} records is above the credit of {credit}: send shorter runs")]
    MisuseRun {
        /// Records in the run.
        records: usize,
        /// Credit at the start of the connection.
        credit: u32,
    },
    /// The broker did not take an at-least-once message.
    #[error("the broker refused the message: {}", .0.message)]
    PeerRefused(Fault),
    /// Neither credit nor acknowledgement came in time.
    #[error("the broker gave no {0} in time")]
    Timeout(&'static str),
}

impl SendError {
    /// Whether the same message may succeed later without a change.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Disconnected | Self::PeerRefused(_) | Self::Timeout(_))
    }
}
