//! SHA-256 of executables, off the event path.
//!
//! [`Hasher::ask`] never waits, and asks no file system: it knows the answer already, or takes the wish and delivers the answer later. Files are
//! identified by device, inode, size and both times, read before and after; what is written in between has no hash. Work that is
//! skipped is answered with the reason, never with an empty hash.
//!
//! Users take turns, and of one user the smallest file comes first, so that nobody keeps a new program from being hashed by
//! running large ones.
//!
//! A read can hang for ever on a dead mount. The thread that hangs is left behind and another one takes over; how many
//! may be left behind is bounded, and past that wishes are answered at once.

mod cache;
mod file;
mod pool;
mod seek;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;

#[cfg(not(target_os = "linux"))]
#[path = "absent.rs"]
mod system;

use std::sync::Arc;
use std::time::Duration;

use daemoneye_lib::entity::EntityId;
use sha2::{Digest as _, Sha256};

pub use self::file::FileKey;
use self::file::Source;
pub use self::pool::Counters;
use self::pool::Pool;

/// The column's word for the algorithm.
pub const ALGORITHM: &str = "sha256";

/// The column's value for an executable of these bytes.
#[must_use]
pub fn digest(executable: &[u8]) -> String {
    hex(&Sha256::digest(executable).into())
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Whether this system shows the executables of its processes.
pub const AVAILABLE: bool = system::AVAILABLE;

/// Bounds of the work.
#[derive(Debug, Clone, Copy)]
pub struct HashOptions {
    /// Larger files are not hashed; sparse files count as their apparent size.
    pub max_file_bytes: u64,
    /// What may be read in a second, over all files.
    pub bytes_per_second: u64,
    /// The longest time for one file.
    pub file_deadline: Duration,
    /// A read that has not come back for so long does not hold up the next file.
    pub stall: Duration,
    /// Files that may wait; those of one user take at most half of the room.
    pub queue: usize,
    /// Threads, those that hang included.
    pub threads: usize,
}

impl Default for HashOptions {
    fn default() -> Self {
        Self {
            max_file_bytes: 512 * 1024 * 1024,
            bytes_per_second: 64 * 1024 * 1024,
            file_deadline: Duration::from_secs(10),
            // A busy disk answers within it; a dead mount never does.
            stall: Duration::from_millis(250),
            // More than the distinct executables of a large host; about 300 bytes each.
            queue: 4096,
            // One works; three may hang at a time before files are skipped.
            threads: 4,
        }
    }
}

/// What is wished for.
#[derive(Debug, Clone)]
pub struct HashWish {
    /// Which process.
    pub entity: EntityId,
    /// Its pid.
    pub pid: u32,
    /// Its executable as the record has it; a process that runs another one by now is not hashed.
    pub executable_path: String,
    /// Who runs it: users take turns.
    pub uid: Option<u32>,
    /// The executable's identity, from whoever saw the process start or has looked at it. With it the file is hashed by
    /// its path when the process is gone, if it still is that file.
    pub file: Option<FileKey>,
}

/// Why there is a hash, or none; the words of the column `hash_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashStatus {
    /// It would take longer than one file may at the rate that is allowed.
    Budget,
    /// The file changed while it was read.
    Changed,
    /// It is a device, a pipe or a directory.
    NotRegular,
    /// Hashed.
    Ok,
    /// Too many files wait.
    QueueFull,
    /// All threads hang in reads that do not come back.
    Stalled,
    /// The read took longer than one file may.
    Timeout,
    /// The file is larger than the bound.
    TooLarge,
    /// The system refuses to open or read it.
    Unreadable,
    /// The process was gone, or ran something else, before the file could be opened.
    Vanished,
}

impl HashStatus {
    /// The column's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Changed => "changed",
            Self::NotRegular => "not_regular",
            Self::Ok => "ok",
            Self::QueueFull => "queue_full",
            Self::Stalled => "stalled",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Vanished => "vanished",
        }
    }
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 64 hex digits; only with [`HashStatus::Ok`].
    pub hash: Option<String>,
    /// Why there is one, or none.
    pub status: HashStatus,
}

impl Answer {
    const fn without(status: HashStatus) -> Self {
        Self { hash: None, status }
    }
}

/// An answer that took its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Which process.
    pub entity: EntityId,
    /// Its pid.
    pub pid: u32,
    /// The executable that was asked for.
    pub executable_path: String,
    /// What became of it.
    pub answer: Answer,
}

/// Who takes the answers; called from the hashing threads, and expected to return soon.
pub type Deliver = Box<dyn Fn(Hashed) + Send + Sync>;

/// The hashing threads. They end when it is dropped; one that hangs ends when its read comes back.
pub struct Hasher {
    pool: Arc<Pool>,
}

impl Hasher {
    /// Starts to take wishes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(options: HashOptions, deliver: Deliver) -> std::io::Result<Self> {
        Self::over(Box::new(system::Executables), options, deliver)
    }

    fn over(source: Box<dyn Source>, options: HashOptions, deliver: Deliver) -> std::io::Result<Self> {
        Ok(Self { pool: Pool::start(source, options, deliver)? })
    }

    /// The answer, when it is known already; otherwise it is delivered later, exactly once. Asks no file system: where nobody has looked
    /// at the file yet, a thread of this does.
    #[must_use]
    pub fn ask(&self, wish: HashWish) -> Option<Answer> {
        let skipped = match wish.file {
            // What was executed is a regular file.
            Some(key) => self.pool.skips(key, true),
            // Most of those that are gone are told so with their start.
            None => self.pool.source.runs(&wish).err(),
        };
        skipped.map_or_else(|| self.pool.take(wish), |status| Some(Answer::without(status)))
    }

    /// What a process runs, for the `file` of a wish, or why it will not be hashed. Asks the file system, which may hang: not for a thread
    /// that others wait for, nor under a lock.
    ///
    /// # Errors
    /// The status.
    pub fn look(&self, wish: &HashWish) -> Result<FileKey, HashStatus> {
        self.pool.look(wish)
    }

    /// What was done and what was not.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.pool.counters()
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) mod tests;
