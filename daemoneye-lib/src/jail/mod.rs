//! What a program can no longer do once it has what it needs.
//!
//! A program says in a [`Plan`] what it keeps; [`Plan::drop_privileges`] gives the rest away and returns the proof that
//! [`Dropped::seal`] needs. Each layer that is on was read back from the kernel, for every thread (what makes a
//! process not dumpable belongs to all of them at once). A layer that this host or this
//! user cannot have is reported with the command that would grant it, and is an error only when it was required by name.

mod report;
mod syscalls;

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod system;

#[cfg(not(target_os = "linux"))]
#[path = "absent.rs"]
mod system;

pub use report::{Layer, LayerReport, Probe, Report, Required, State, WRONG};
pub use syscalls::{Check, Line};
pub use system::{Account, BASE, Dropped, Jailed, UNIX_SOCKETS, allow_realtime, give};

use crate::exit::Exit;

/// A capability of Linux by its name and number in `capabilities(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// As `setcap` writes it.
    pub name: &'static str,
    /// Bit in the sets.
    pub number: u32,
}

impl Capability {
    /// Loads programs into the kernel.
    pub const BPF: Self = Self { name: "cap_bpf", number: 39 };
    /// Reads files and directories whatever their mode.
    pub const DAC_READ_SEARCH: Self = Self { name: "cap_dac_read_search", number: 2 };
    /// Subscribes to what the kernel announces, on older kernels.
    pub const NET_ADMIN: Self = Self { name: "cap_net_admin", number: 12 };
    /// Attaches programs to what happens in the kernel.
    pub const PERFMON: Self = Self { name: "cap_perfmon", number: 38 };
    /// Asks for real-time scheduling above the limit.
    pub const SYS_NICE: Self = Self { name: "cap_sys_nice", number: 23 };
    /// Reads other users' `/proc/<pid>`.
    pub const SYS_PTRACE: Self = Self { name: "cap_sys_ptrace", number: 19 };

    /// Its bit.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self.number
    }
}

/// The command that lets this program, started by an ordinary user, do all that it can. It always names every capability that
/// some part of the program wants, because a second `setcap` takes back what the first one gave.
#[must_use]
pub fn granting(wanted: &[Capability]) -> String {
    let names: Vec<_> = wanted.iter().map(|capability| capability.name).collect();
    let program = std::env::current_exe().unwrap_or_else(|_gone| "PROGRAM".into());
    format!("setcap {}+ep {} grants what it can use", names.join(","), program.display())
}

/// What a program gives up and what it keeps.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Every capability that some part of the program can use, those included that are given away at once: the report's
    /// command grants all of them.
    pub usable: &'static [Capability],
    /// Layers to put up; a test leaves one out to see that the others hold.
    pub layers: Vec<Layer>,
    /// Layers without which it must not run.
    pub required: Required,
    /// User and group to become when started as root.
    pub account: Option<(&'static str, &'static str)>,
    /// Capabilities that it works with afterwards; none other stays in any set.
    pub keep: &'static [Capability],
    /// System calls that it may make, in tables that are joined; everything else answers EPERM.
    pub calls: Vec<&'static [Line]>,
}

/// Why a program does not run in its jail.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A layer that this system has did not go up, or its state reads back otherwise.
    #[error(
        "the {layer} layer of the jail did not take: {reason}; start it as root or with the capabilities its unit grants"
    )]
    Broken {
        /// Which.
        layer: Layer,
        /// What the system said.
        reason: String,
    },
    /// A layer was required by name and this system or this user does not have it.
    #[error("sandbox.required names {layer}, which is missing: {reason}; {remedy}")]
    Missing {
        /// Which.
        layer: Layer,
        /// Why.
        reason: String,
        /// What would grant it.
        remedy: String,
    },
}

impl JailError {
    /// The exit code of a program that ends because of it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Broken { layer: Layer::User | Layer::Capabilities, .. } => Exit::DropFailed,
            Self::Broken { .. } | Self::Missing { .. } => Exit::SandboxIncomplete,
        }
    }

    pub(crate) fn broken(layer: Layer, reason: impl ToString) -> Self {
        Self::Broken { layer, reason: reason.to_string() }
    }
}
