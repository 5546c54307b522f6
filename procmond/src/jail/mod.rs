//! The way into procmond's jail: sources are open already, what has to be given away is, and what it may still call is a list.
//!
//! Acquire, drop, seal: each step takes what the step before returned, so none can be left out. It keeps two capabilities,
//! because it reads every process and every executable. What it may write is a matter of ownership: it never stays root where
//! it may change its user, so only its own directories, and what is open to everybody (`/tmp`, `/dev/shm`) or to its group.
//! Landlock is not part of it: measured, it turns `/proc/<pid>/exe` of everybody else into EACCES, even for root.

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod system;

#[cfg(not(target_os = "linux"))]
#[path = "absent.rs"]
mod system;

use std::io;
use std::path::{Path, PathBuf};

use daemoneye_lib::exit::Exit;
use daemoneye_lib::jail::{
    BASE, Capability, Dropped, JailError, Jailed, Layer, Plan, Required, UNIX_SOCKETS, allow_realtime,
};

/// The account that procmond becomes when it was started as root, and the group that joins it to agent and operators. Where
/// they do not exist, a user id that nobody has stands in.
pub const ACCOUNT: (&str, &str) = ("daemoneye-procmond", "daemoneye");

/// Below the data directory: the seed of the key that signs the ledger, procmond's alone.
pub const KEYS_DIR: &str = "keys";

/// Everything that some part of procmond works with: sources that are opened before the rest is given away, the reader's
/// priority, and what is kept.
pub const USABLE: &[Capability] = &[
    Capability::BPF,
    Capability::DAC_READ_SEARCH,
    Capability::NET_ADMIN,
    Capability::PERFMON,
    Capability::SYS_NICE,
    Capability::SYS_PTRACE,
];

/// Every process and every executable is read.
const KEPT: &[Capability] = &[Capability::DAC_READ_SEARCH, Capability::SYS_PTRACE];

/// Where the limit of real-time scheduling cannot be raised beforehand, the reader thread needs the capability itself.
const KEPT_FOR_REALTIME: &[Capability] = &[Capability::DAC_READ_SEARCH, Capability::SYS_NICE, Capability::SYS_PTRACE];

/// The reader of a kernel source runs at the lowest real-time priority, which is enough to run before every ordinary thread.
const REALTIME_PRIORITY: u64 = 1;

/// Why procmond does not run in its jail.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// A layer.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// What the account must own could not be given to it.
    #[error("cannot give {path} to {}: {source}; remove what stands there", ACCOUNT.0)]
    Unowned {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl EnterError {
    /// The exit code of a procmond that ends because of it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Jail(error) => error.exit(),
            Self::Unowned { .. } => Exit::Unreadable,
        }
    }
}

/// What needs privileges is done; the proof that [`Acquired::drop_privileges`] needs.
#[derive(Debug)]
pub struct Acquired {
    plan: Plan,
}

/// procmond's plan: every layer but Landlock.
#[must_use]
pub fn plan(required: Required) -> Plan {
    Plan {
        usable: USABLE,
        layers: Layer::ALL.iter().copied().filter(|layer| *layer != Layer::Landlock).collect(),
        required,
        account: Some(ACCOUNT),
        keep: KEPT,
        calls: vec![BASE, UNIX_SOCKETS, system::PROCMOND],
    }
}

/// Takes what needs privileges: the right to real-time scheduling, and directories that belong to the account. The sources of
/// the kernel have been opened before.
///
/// # Errors
/// [`EnterError::Unowned`].
pub fn acquire(data_dir: &Path, mut plan: Plan) -> Result<Acquired, EnterError> {
    if let Err(error) = allow_realtime(REALTIME_PRIORITY) {
        tracing::debug!(%error, "the limit of real-time scheduling stays; cap_sys_nice is kept instead");
        plan.keep = KEPT_FOR_REALTIME;
    }
    if let Some(account) = plan.account.filter(|_| plan.layers.contains(&Layer::User)) {
        system::give_directories(data_dir, account).map_err(|(path, source)| EnterError::Unowned { path, source })?;
    }
    Ok(Acquired { plan })
}

impl Acquired {
    /// Gives everything else away.
    ///
    /// # Errors
    /// [`EnterError::Jail`].
    pub fn drop_privileges(self) -> Result<Dropped, EnterError> {
        Ok(self.plan.drop_privileges()?)
    }
}

/// The whole way in, for the program; call it before there are threads and after the sources of the kernel are open.
///
/// # Errors
/// [`EnterError`]; its `exit()` is the exit code.
pub fn enter(data_dir: &Path, required: Required) -> Result<Jailed, EnterError> {
    let dropped = acquire(data_dir, plan(required))?.drop_privileges()?;
    let jailed = dropped.seal()?;
    Ok(jailed.probed(system::probes()))
}
