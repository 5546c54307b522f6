//! Lines of an allow-list. A line says which call, with which arguments, and why the program needs it.

/// A test of one argument (0 to 5). Only the lower 32 bits are compared: every argument tested here is an `int`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The argument, with these bits masked out of it, is the value.
    Masked {
        /// Position.
        argument: u8,
        /// Bits that count.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// The argument is this process's own id.
    OwnPid(u8),
    /// The argument is the value.
    Is(u8, u32),
}

/// One call that is allowed when all checks of any alternative hold; without alternatives, always.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// For reports and the reader.
    pub name: &'static str,
    /// Number of the call on this architecture.
    pub number: i64,
    /// Alternatives of checks.
    pub when: &'static [&'static [Check]],
    /// Why the program needs it.
    pub reason: &'static str,
}

impl Line {
    /// A call that is allowed with any arguments.
    #[must_use]
    pub const fn any(name: &'static str, number: i64, reason: &'static str) -> Self {
        Self { name, number, when: &[], reason }
    }

    /// A call that is allowed when all checks of one alternative hold.
    #[must_use]
    pub const fn when(
        name: &'static str,
        number: i64,
        when: &'static [&'static [Check]],
        reason: &'static str,
    ) -> Self {
        Self { name, number, when, reason }
    }
}
