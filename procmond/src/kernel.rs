//! What the kernel announces, whichever source carries it.
//!
//! A source reports what it saw and counts what it lost; it decides nothing about lifecycles. Everything about identity,
//! parents and what is an event belongs to the tracker.

use std::time::Duration;

use daemoneye_lib::proto::ProcessRecord;

use crate::collector::Image;
use crate::hashing::FileKey;

/// One announcement about one process (never about a thread).
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// When it happened, µs since the Unix epoch.
    pub time_us: i64,
    /// Process id (the kernel's tgid) in the collector's namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot, as in field 22 of `/proc/<pid>/stat`; `None` where the source could not tell it.
    pub start_ticks: Option<u64>,
    /// What happened.
    pub what: What,
}

/// What happened to the process.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// It has replaced its program. The record holds what the source saw; `entity_id`, `identity`, the parent's columns and
    /// `ancestry` are left to the tracker. `capture` is partial when the process was gone before all of it was read. The
    /// executable's identity, where the source saw it, lets it be hashed when the process is gone.
    Exec(Box<ProcessRecord>, Image, Option<FileKey>),
    /// It has ended with this exit status, or by the signal of that negative number.
    Exit(Option<i32>),
    /// It was born as a copy of its parent.
    Fork {
        /// Process id of the parent.
        parent: u32,
        /// The parent's start, as in [`Notice::start_ticks`].
        parent_ticks: Option<u64>,
        /// Its own, which may be newer than those that are known of its parent.
        credentials: Option<Box<Credentials>>,
    },
    /// It has renamed itself.
    Rename(String),
    /// Another process has attached to it as its debugger.
    Traced {
        /// Process id of the debugger; `None` on detaching.
        by: Option<u32>,
    },
}

/// What a process may change without a new program, as it was at birth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// The name of `uid`.
    pub user: Option<String>,
    /// Session id.
    pub session: u32,
    /// The controlling terminal as the column shows it.
    pub tty: Option<String>,
}

/// Why a kernel source does not work, or works no more.
#[derive(Debug, thiserror::Error)]
pub enum KernelSourceError {
    /// The kernel or this build lacks something: what, and what would help.
    #[error("the {source_name} source does not work here: {reason}")]
    Unavailable {
        /// Which source.
        source_name: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// It worked and has stopped; another source has to take over.
    #[error("the {source_name} source has failed: {reason}")]
    Died {
        /// Which source.
        source_name: &'static str,
        /// Why.
        reason: String,
    },
}

/// A stream of the kernel's announcements, read by one dedicated thread.
pub trait KernelSource: Send {
    /// `ebpf`, `proc-connector`: the `source` column.
    fn name(&self) -> &'static str;

    /// One line each for `health`: what is present and what is missing.
    fn notes(&self) -> Vec<String>;

    /// Whether what it sees is lost unless its thread runs at once; the thread then asks for real-time scheduling.
    fn is_raced(&self) -> bool;

    /// Whether its announcements of an exec have the name that was given to it; nothing else tells that.
    fn tells_exec_filename(&self) -> bool {
        false
    }

    /// Waits at most `wait` for announcements and hands out all that have arrived, in the order in which they happened.
    ///
    /// # Errors
    /// [`KernelSourceError::Died`]: it will not announce anything more.
    fn receive(&mut self, wait: Duration, each: &mut dyn FnMut(Notice)) -> Result<(), KernelSourceError>;

    /// Whether the last call of [`Self::receive`] has handed out everything that had happened before that call.
    fn has_caught_up(&self) -> bool {
        true
    }

    /// How many announcements the kernel could not hand over since this source was opened: exact, never an estimate.
    fn lost(&self) -> u64;
}
