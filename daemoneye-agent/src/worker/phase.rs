//! Where the worker is in its life. The work of each phase is in a type of its own in `super`; this is the word for health.

/// One phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Opens the store, loads the rules.
    Loading,
    /// Listens; no collector has registered yet.
    Ready,
    /// Collects, detects, answers.
    SteadyState,
    /// Seals and ends.
    ShuttingDown,
    /// No collector registered in time.
    StartupFailed,
}

impl Phase {
    /// The word in health.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::SteadyState => "steady_state",
            Self::ShuttingDown => "shutting_down",
            Self::StartupFailed => "startup_failed",
        }
    }
}
