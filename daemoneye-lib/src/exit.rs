//! Exit codes of all three programs; the table in SPECIFICATION.md is tested against this one.

/// Why a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped in order.
    Ok = 0,
    /// Something failed that has no code of its own, or what was asked turned out not to be so.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// An answer was produced, over a gap.
    Degraded = 3,
    /// What was asked for does not exist.
    NotFound = 4,
    /// The statement, rule or operation was refused.
    Refused = 5,
    /// The agent does not answer.
    Unreachable = 6,
    /// Another process holds the data directory.
    InUse = 70,
    /// The store or a file was written by a newer version.
    NewerFormat = 71,
    /// A directory or file cannot be read or written.
    Unreadable = 72,
    /// Start-up did not reach its next phase in time.
    StartupFailed = 73,
    /// A sync to disk failed; what is on disk is unknown until the next start reads it back.
    SyncFailed = 74,
    /// procmond could not be kept running.
    CollectorFailed = 75,
    /// The ledger or a proof does not verify.
    Tampered = 76,
    /// A layer of the jail that must be there is missing or did not take.
    SandboxIncomplete = 77,
    /// The configuration is wrong; do not restart.
    Config = 78,
    /// Privileges could not be dropped.
    DropFailed = 79,
}

impl Exit {
    /// Every code, for the table in the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::Degraded,
        Self::NotFound,
        Self::Refused,
        Self::Unreachable,
        Self::InUse,
        Self::NewerFormat,
        Self::Unreadable,
        Self::StartupFailed,
        Self::SyncFailed,
        Self::CollectorFailed,
        Self::Tampered,
        Self::SandboxIncomplete,
        Self::Config,
        Self::DropFailed,
    ];

    /// What it tells the caller, in one line; the documentation's table is made of these.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done, or stopped in order",
            Self::Failure => {
                "no: a check, a test or a proof of silence came out otherwise; or something failed that has no code of its own"
            }
            Self::Usage => "the command line is wrong",
            Self::Degraded => "an answer was produced, over a gap",
            Self::NotFound => "what was asked for does not exist",
            Self::Refused => "the statement, rule or operation was refused",
            Self::Unreachable => "the agent does not answer",
            Self::InUse => "another process holds the data directory",
            Self::NewerFormat => "the store or a file was written by a newer version",
            Self::Unreadable => "a directory or file cannot be read or written",
            Self::StartupFailed => "start-up did not reach its next phase in time",
            Self::SyncFailed => "a sync to disk failed",
            Self::CollectorFailed => "procmond could not be kept running",
            Self::Tampered => "the ledger or a proof does not verify",
            Self::SandboxIncomplete => "a layer of the jail that must be there is missing or did not take",
            Self::Config => "the configuration is wrong; do not restart",
            Self::DropFailed => "privileges could not be dropped",
        }
    }

    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
