//! What can go wrong with the store, by who is to blame.

use std::io;
use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::errors::ParquetError;

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Segments came and went faster than they could be listed.
    #[error("the store changes too fast to be copied; try again")]
    Changing,
    /// Arrow would not combine batches; a defect of this program.
    #[error("the open segment's batches do not fit together: {0}")]
    Columns(#[from] ArrowError),
    /// A value in `state.redb` is not what its table holds.
    #[error("state.redb: a value of table {table} cannot be read: {what}; restore the data directory from a copy")]
    CorruptState {
        /// The table.
        table: String,
        /// What is wrong.
        what: String,
    },
    /// `state.redb` as a whole is not what was written: no database, cut short, or damaged inside.
    #[error(
        "{} is damaged: {what}; restore it from a backup, or copy it again from a running host within two seconds or with \
         `data backup`; the segments beside it can still be read by any Parquet reader",
        path.display()
    )]
    CorruptDatabase {
        /// The file.
        path: PathBuf,
        /// What is wrong, on one line.
        what: String,
    },
    /// There are segments that no `state.redb` knows: opening would begin anew beside them.
    #[error(
        "{} is missing or empty but {files} segment files lie in {}; restore state.redb from a backup or move the \
         segments away",
        path.display(), segments.display()
    )]
    CorruptNoState {
        /// The file that should be there.
        path: PathBuf,
        /// Where the segments lie.
        segments: PathBuf,
        /// How many there are.
        files: usize,
    },
    /// Another process holds the data directory.
    #[error("the data directory {} is in use by {holder}; stop that agent or choose another --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// `process 4242`, as far as the lock file tells.
        holder: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `write`, `sync`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `state.redb` failed. After an input or output error it stays failed until [`super::Store::recover`] opens it again.
    #[error("state.redb failed: {0}; free disk space or check the disk; it is opened again by itself")]
    IoState(#[from] Box<redb::Error>),
    /// Sealing has failed for so long that no more events are taken.
    #[error("the open segment holds {rows} events that could not be sealed; free disk space or check the log")]
    LimitOpenSegment {
        /// Rows in memory.
        rows: usize,
    },
    /// A merge would take the disk space that ingest needs.
    #[error(
        "merging needs {needed} bytes in {} and there are {free}; free disk space or lower store.retention_bytes",
        dir.display()
    )]
    LimitRoom {
        /// Where the segments lie.
        dir: PathBuf,
        /// Bytes that must be free.
        needed: u64,
        /// Bytes that are.
        free: u64,
    },
    /// The lock of the store was held by a thread that panicked.
    #[error("an earlier failure left the store's memory in doubt; restart the agent")]
    LockPoisoned,
    /// An offline store is read only.
    #[error("this store was opened offline and cannot be changed")]
    MisuseOffline,
    /// A newer version wrote it.
    #[error("{} has format version {found}, this build reads up to {known}; use the newer build", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// There is nothing under that id.
    #[error("no {what} with id {id}")]
    NotFound {
        /// `alert`, …
        what: &'static str,
        /// As asked for.
        id: String,
    },
    /// A ledger says that it has taken more entries than anybody can have handed over.
    #[error(
        "the ledger says that it has taken entries up to id {head}, which nobody gives: it is damaged or was forged; run: \
         daemoneye-cli audit verify, and move it away as docs/audit.md says, \"When nothing is signed\""
    )]
    PeerOutboxId {
        /// What it says.
        head: u64,
    },
    /// The Parquet writer failed other than by input or output.
    #[error("cannot encode segment {}: {source}", path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// What Parquet said.
        source: ParquetError,
    },
    /// A directory or file cannot be opened.
    #[error(
        "cannot open {}: {source}; make it readable and writable for the user that runs the agent, or choose another \
         --data-dir", path.display()
    )]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// The exit code of a program that ends because of this.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } => Exit::InUse,
            Self::NewerFormat { .. } => Exit::NewerFormat,
            Self::NotFound { .. } => Exit::NotFound,
            Self::MisuseOffline => Exit::Refused,
            Self::CorruptDatabase { .. } | Self::CorruptNoState { .. } | Self::Unreadable { .. } => Exit::Unreadable,
            Self::Io { .. } | Self::IoState(_) | Self::LimitOpenSegment { .. } | Self::LimitRoom { .. } => {
                Exit::SyncFailed
            }
            Self::Changing
            | Self::Columns(_)
            | Self::CorruptState { .. }
            | Self::LockPoisoned
            | Self::PeerOutboxId { .. }
            | Self::Segment { .. } => Exit::Failure,
        }
    }

    /// Whether the same may succeed later in this process: room on the disk, a device that is back. After
    /// [`StoreError::IoState`] only behind [`super::Store::recover`].
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::IoState(_) | Self::LimitOpenSegment { .. } | Self::Unreadable { .. })
    }

    /// Whether there was no room on the disk.
    pub(super) fn is_full(&self) -> bool {
        let source = match self {
            Self::Io { source, .. } | Self::Unreadable { source, .. } => source,
            Self::IoState(error) => match error.as_ref() {
                redb::Error::Io(source) => source,
                _ => return false,
            },
            _ => return false,
        };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Unreadable { path: path.to_owned(), source }
    }
}

macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::IoState(Box::new(error.into()))
            }
        })+
    };
}

from_redb!(redb::CommitError, redb::SetDurabilityError, redb::StorageError, redb::TableError, redb::TransactionError);
