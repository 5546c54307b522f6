//! What differs between operating systems for the agent: process groups and signals, the inherited socket pair, file modes,
//! who a user is. The only place of the agent that asks which system it runs on.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// What the terminal or the service manager asks of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Reload,
    Stop,
}

/// What the group may do with new files; others may never do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupMay {
    /// Files: the group reads them at most.
    Read,
    /// Sockets: connecting is writing, and operators are let in by their group.
    Write,
}

/// What the kernel says about itself and this host.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) hostname: String,
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) machine: String,
}
