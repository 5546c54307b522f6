//! The enumeration of processes: what every portable or native reader of the process table answers.
//!
//! A collector reports what it sees as [`Sighting`]s, one at a time, so that ten thousand processes never stand in memory
//! as records at once. It decides nothing about lifecycles: that is the tracker's job.

use daemoneye_lib::entity::EntityId;
use daemoneye_lib::proto::ProcessRecord;

/// What one process looked like during a scan.
#[derive(Debug, Clone, PartialEq)]
pub enum Sighting {
    /// Everything that the source can read, of a process that is new to it or due for a re-read.
    Read(Box<ProcessRecord>, Image),
    /// A process seen in full before, with nothing to suggest that more than its vitals changed.
    Same(Vitals),
    /// The process has ended and only waits to be reaped. Follows its `Read` when it was new.
    Ended {
        /// Which one.
        entity: EntityId,
        /// Its pid.
        pid: u32,
        /// Exit status, or the negative signal; `None` where the kernel does not tell.
        exit_code: Option<i32>,
    },
    /// The process with this pid is listed and could not be read: nothing says that the one known under it has ended.
    Unread(u32),
}

/// Tells one program image of a process from the next: a digest of addresses that the kernel draws anew at each exec and
/// that a process does not move when it renames itself. Kept by the tracker and never part of an event, where addresses
/// would help an attacker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Image(u64);

impl Image {
    /// The source does not see it, or the process has none.
    pub const UNSEEN: Self = Self(0);

    /// The image at these addresses. The entity is part of the digest, so that equal images of two processes cannot be told.
    #[must_use]
    pub fn at(entity: &EntityId, addresses: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(entity.as_bytes());
        for address in addresses {
            hasher.update(&address.to_le_bytes());
        }
        let bits = hasher.finalize().as_bytes().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        Self(bits.max(1))
    }

    /// For the checkpoint; 0 is [`Self::UNSEEN`].
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From the checkpoint.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Both were seen, and they differ.
    #[must_use]
    pub const fn replaced_by(self, later: Self) -> bool {
        self.0 != 0 && later.0 != 0 && self.0 != later.0
    }

    /// Both were seen, and they are the same.
    #[must_use]
    pub const fn stays(self, later: Self) -> bool {
        self.0 != 0 && self.0 == later.0
    }
}

/// How the start ticks in identities become wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    /// Time of tick 0, µs since the Unix epoch.
    pub zero_us: i64,
    /// Ticks per second.
    pub per_second: u64,
}

impl Ticks {
    /// Identities made from the time itself, in µs.
    pub const MICROSECONDS: Self = Self { zero_us: 0, per_second: 1_000_000 };

    /// When a tick was, in µs since the Unix epoch.
    #[must_use]
    pub fn time_us(self, ticks: u64) -> Option<i64> {
        let since = i128::from(ticks).checked_mul(1_000_000)?.checked_div(i128::from(self.per_second))?;
        i64::try_from(since).ok().and_then(|since| self.zero_us.checked_add(since))
    }

    /// The tick of a time.
    #[must_use]
    pub fn at(self, time_us: i64) -> u64 {
        let since = i128::from(time_us.saturating_sub(self.zero_us));
        u64::try_from(since.saturating_mul(i128::from(self.per_second)) / 1_000_000).unwrap_or(0)
    }
}

/// What changes all the time and is never an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vitals {
    /// Which process.
    pub entity: EntityId,
    /// Its pid.
    pub pid: u32,
    /// The column's word.
    pub status: &'static str,
    /// Percent of one CPU since the previous scan.
    pub cpu_usage: Option<f64>,
    /// Resident bytes.
    pub memory_usage: Option<u64>,
}

/// What one scan came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionStats {
    /// Processes seen.
    pub processes: u64,
    /// Of these, read in full.
    pub read_in_full: u64,
    /// Listed, but gone before even their identity could be read.
    pub vanished: u64,
    /// Listed, but not readable or not understood.
    pub inaccessible: u64,
    /// The table does not list every process to us, so that absence says nothing.
    pub hiding: bool,
}

/// What a collector can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessCollectorCapabilities {
    /// Start times are exact enough to tell a reused pid from the process before it.
    pub exact_identity: bool,
    /// One line each for `health`: what is present and what is missing.
    pub notes: Vec<String>,
    /// Columns that it never fills.
    pub missing_columns: &'static [&'static str],
}

/// Why processes could not be enumerated.
#[derive(Debug, thiserror::Error)]
pub enum ProcessCollectionError {
    /// The scan took longer than its bound.
    #[error("the process scan was given up after {after_ms} ms; the next one starts afresh")]
    CollectionTimeout {
        /// The bound.
        after_ms: u64,
    },
    /// The source answered something that is not in its own format.
    #[error("{what} cannot be understood; check that the process root is a proc file system")]
    InvalidProcessData {
        /// File or field.
        what: String,
    },
    /// The source itself does not work here.
    #[error("the {source_name} source does not work here: {reason}")]
    PlatformError {
        /// Which source.
        source_name: &'static str,
        /// Why.
        reason: String,
    },
    /// The kernel refused.
    #[error("process {pid} may not be read; run with the capability SYS_PTRACE to see every process")]
    ProcessAccessDenied {
        /// Which one.
        pid: u32,
    },
    /// It is there, and reading it failed.
    #[error("process {pid} cannot be read now; check the limit of open files and the free memory")]
    ProcessUnreadable {
        /// Which one.
        pid: u32,
    },
    /// Nothing lives under this pid.
    #[error("there is no process {pid}")]
    ProcessNotFound {
        /// Which one.
        pid: u32,
    },
    /// The process table could not be opened or listed.
    #[error("the process table at {what} cannot be listed")]
    SystemEnumerationFailed {
        /// Which table.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A reader of the process table. Calls block; the source that owns it runs them off the event threads.
pub trait ProcessCollector: Send {
    /// `procfs`, `sysinfo`: the `source` column.
    fn name(&self) -> &'static str;

    /// Tells one boot from the next; part of every identity.
    fn boot_id(&self) -> &str;

    /// What the start ticks in its identities mean.
    fn ticks(&self) -> Ticks {
        Ticks::MICROSECONDS
    }

    /// What it can see.
    fn capabilities(&self) -> ProcessCollectorCapabilities;

    /// Reports every process once.
    ///
    /// # Errors
    /// [`ProcessCollectionError`] when the table could not be walked to its end; what was reported until then is true.
    fn collect_processes(&mut self, each: &mut dyn FnMut(Sighting))
    -> Result<CollectionStats, ProcessCollectionError>;

    /// Everything about one process.
    ///
    /// # Errors
    /// [`ProcessCollectionError`] when it does not exist or may not be read.
    fn collect_process(&mut self, pid: u32) -> Result<ProcessRecord, ProcessCollectionError>;

    /// Makes the next scan read these processes in full, because whoever listened does not know them.
    fn forget(&mut self, pids: &[u32]);

    /// Whether the source works at all: it must see the process that asks.
    ///
    /// # Errors
    /// [`ProcessCollectionError`] says why not.
    fn health_check(&mut self) -> Result<(), ProcessCollectionError>;
}
