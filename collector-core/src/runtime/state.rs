//! The states of a collector as types: a transition that is not written here does not compile.

/// In which state a collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Connected or connecting; nothing is collected yet.
    WaitingForAgent,
    /// Collecting.
    Running,
    /// Told to hold.
    Paused,
    /// Writing what is left.
    ShuttingDown,
    /// Done.
    Stopped,
}

impl State {
    /// The word in heartbeats and health.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WaitingForAgent => "waiting_for_agent",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting_down",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Debug)]
pub(super) struct WaitingForAgent(());
#[derive(Debug)]
pub(super) struct Running(());
#[derive(Debug)]
pub(super) struct Paused(());
#[derive(Debug)]
pub(super) struct ShuttingDown(());

impl WaitingForAgent {
    pub(super) const fn new() -> Self {
        Self(())
    }
    pub(super) fn begin(self) -> Running {
        Running(())
    }
}

impl Running {
    pub(super) fn pause(self) -> Paused {
        Paused(())
    }
}

impl Paused {
    pub(super) fn resume(self) -> Running {
        Running(())
    }
}

impl ShuttingDown {
    pub(super) fn stopped(self) -> State {
        State::Stopped
    }
}

/// Every state in which messages are taken.
#[derive(Debug)]
pub(super) enum Phase {
    Waiting(WaitingForAgent),
    Running(Running),
    Paused(Paused),
}

impl Phase {
    pub(super) const fn state(&self) -> State {
        match self {
            Self::Waiting(_) => State::WaitingForAgent,
            Self::Running(_) => State::Running,
            Self::Paused(_) => State::Paused,
        }
    }

    pub(super) fn shut_down(self) -> ShuttingDown {
        ShuttingDown(())
    }
}
