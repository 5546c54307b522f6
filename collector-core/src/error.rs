//! Why a collector cannot start or go on.

use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::segment::SegmentError;

/// What ends a collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The bus cannot be used at all.
    #[error(transparent)]
    Bus(#[from] daemoneye_eventbus::BusError),
    /// The ledger's tail cannot be read, so no entry can be chained to it.
    #[error(transparent)]
    CorruptLedger(#[from] daemoneye_lib::ledger::LedgerError),
    /// The operating system refused.
    #[error("cannot {operation} {path}: {source}; check who owns it and whether the disk has room", path = .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The end was not in order: most likely the disk hangs.
    #[error("the end took too long, perhaps the disk does not answer; what is not on it is told by the next start")]
    LimitEnd,
    /// The record is longer than a segment or a frame can carry.
    #[error("a record of {bytes} bytes is above the limit of {limit}; the source has to cap it")]
    LimitRecord {
        /// Its length.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
    /// Another collector works in the directory.
    #[error("another process holds {path}; stop it or choose another data directory", path = .0.display())]
    MisuseInUse(PathBuf),
    /// The settings cannot work.
    #[error("{0}")]
    MisuseOptions(String),
    /// A log cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A sync to disk failed. What is on disk is unknown until the log is opened again: a second sync would lie.
    #[error("cannot sync {path}: {message}; what is on disk is unknown until the next start reads it back", path = .path.display())]
    SyncFailed {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        message: String,
    },
}

impl CollectorError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// The code that the collector ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Bus(_) | Self::LimitEnd | Self::LimitRecord { .. } => Exit::Failure,
            Self::CorruptLedger(e) => e.exit(),
            Self::Io { .. } => Exit::Unreadable,
            Self::MisuseInUse(_) => Exit::InUse,
            Self::MisuseOptions(_) => Exit::Config,
            Self::Segment(e) => e.exit(),
            Self::SyncFailed { .. } => Exit::SyncFailed,
        }
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    }
}
