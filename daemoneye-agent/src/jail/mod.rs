//! The jail of the agent's programs: what they can still do once they serve, enforced by the kernel.
//!
//! [`enter`] comes before any thread exists, because Landlock holds for the calling thread and those that it starts later; its
//! result is the proof that [`close`] needs, which comes when everything that listens does, and holds for all threads. A layer
//! that this host does not have is in the report. The only place of the agent's jail that asks which system it runs on.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::path::{Path, PathBuf};

use daemoneye_lib::jail::{Dropped, JailError, Layer, Plan, Report, Required};

#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(not(target_os = "linux"))]
use self::portable as system;
use crate::platform;
use crate::settings::Settings;

/// What may be done below a path. Execution is granted nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Make, write and remove files and directories.
    Keep,
    /// Read files and lists.
    Read,
    /// Remove what is empty or a file.
    Remove,
    /// Make, replace and remove sockets, read what lies beside them.
    Sockets,
    /// Write and make files, remove nothing.
    Write,
}

/// A path and what may be done below it, with the reason.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) path: PathBuf,
    pub(crate) right: Right,
    pub(crate) why: &'static str,
    /// Somebody asked for it, so its absence is told; parts of the system are there or not.
    is_configured: bool,
}

/// What every worker reads of the system.
const SYSTEM: &[(&str, &str)] = &[
    ("/proc", "memory of our programs, boot id, uptime, processors"),
    ("/sys/fs/cgroup", "how many processors this service may use"),
    ("/sys/devices/system/cpu", "how many processors there are"),
    ("/usr", "time zones, and the libraries by which names of users are looked up"),
    ("/lib", "the same libraries where it is no link into /usr"),
    ("/lib64", "the same"),
    ("/dev/urandom", "random numbers where the system call is missing"),
    ("/run/systemd/userdb", "users that systemd makes up at run time"),
];

/// What an ordinary user reads of `/etc`: whatever its permissions let it. The files of users and groups are replaced when an
/// account is added, and a grant for a file does not reach the one that takes its place.
const ETC: &[(&str, &str)] = &[("/etc", "names of users and groups, time zone, installed rules")];

/// What root reads of it: file permissions would not keep it from passwords and keys. Accounts that are added later are known
/// after a restart.
const ETC_OF_ROOT: &[(&str, &str)] = &[
    ("/etc/daemoneye", "installed rules"),
    ("/etc/group", "names of groups"),
    ("/etc/ld.so.cache", "where the libraries are by which names are looked up"),
    ("/etc/localtime", "time zone"),
    ("/etc/nsswitch.conf", "where names are looked up"),
    ("/etc/passwd", "names of users"),
    ("/etc/userdb", "users and groups that stand in files of their own"),
];

const LAYERS: &[Layer] = &[Layer::Landlock, Layer::NoNewPrivs, Layer::NotDumpable, Layer::Seccomp];

fn grant(path: impl Into<PathBuf>, right: Right, why: &'static str) -> Grant {
    Grant { path: path.into(), right, why, is_configured: false }
}

fn configured(path: impl Into<PathBuf>, right: Right, why: &'static str) -> Grant {
    Grant { is_configured: true, ..grant(path, right, why) }
}

fn system(is_root: bool) -> impl Iterator<Item = Grant> {
    let etc = if is_root { ETC_OF_ROOT } else { ETC };
    SYSTEM.iter().chain(etc).map(|(path, why)| grant(*path, Right::Read, why))
}

/// What was asked for and is not there, so that it cannot be granted: made later, it stays closed until the next start.
fn absent(grants: &[Grant]) -> Vec<&Path> {
    grants
        .iter()
        .filter(|grant| grant.is_configured && !grant.path.exists())
        .map(|grant| grant.path.as_path())
        .collect()
}

/// What a worker needs: data, rules, sockets, sinks, the system.
pub(crate) fn worker(settings: &Settings) -> Vec<Grant> {
    let mut grants: Vec<Grant> = system(platform::own_uid() == 0).collect();
    grants.push(grant(&settings.data_dir, Right::Keep, "the store and its lock"));
    grants.push(grant(&settings.runtime_dir, Right::Sockets, "bus.sock, cli.sock and the token"));
    if let Some(token) = settings.token_file().parent() {
        grants.push(grant(token, Right::Read, "the collector's token, which is replaced and not changed"));
    }
    grants.extend(ledger(settings));
    grants.extend(settings.rules.iter().map(|dir| configured(dir, Right::Read, "rules, also those that come later")));
    if let Some(file) = &settings.file {
        grants.push(grant(&file.path, Right::Write, "the alert file where it is a link or stands already"));
        if let Some(dir) = file.path.parent() {
            grants.push(configured(dir, Right::Write, "the alert file, made anew after it was rotated away"));
        }
    }
    grants
}

/// A ledger outside the data directory.
fn ledger(settings: &Settings) -> Option<Grant> {
    settings.procmond.audit_dir.as_ref().map(|dir| configured(dir, Right::Read, "the collector's ledger"))
}

/// What serving a copied store needs.
pub(crate) fn offline(settings: &Settings, (dir, scratch): (&Path, &Path), transient: bool) -> Vec<Grant> {
    let mut grants: Vec<Grant> = system(platform::own_uid() == 0).collect();
    grants.push(grant(dir, Right::Read, "the copied store"));
    grants.push(grant(scratch, Right::Keep, "what queries spill"));
    grants.extend(ledger(settings));
    grants.push(grant(&settings.runtime_dir, Right::Sockets, "cli.sock"));
    if transient {
        grants.push(grant(&settings.runtime_dir, Right::Remove, "everything in the runtime directory at the end"));
        if let Some(parent) = settings.runtime_dir.parent() {
            grants.push(grant(parent, Right::Remove, "the runtime directory itself at the end"));
        }
    }
    grants
}

/// What a replay needs: it keeps nothing and nobody can reach it.
pub(crate) fn replay(settings: &Settings, path: &Path) -> Vec<Grant> {
    let mut grants: Vec<Grant> = system(platform::own_uid() == 0).collect();
    grants.push(grant(path, Right::Read, "the past events"));
    grants.extend(settings.rules.iter().map(|dir| configured(dir, Right::Read, "rules")));
    grants
}

/// What a tool needs that reads files which the caller names.
pub(crate) fn tool(paths: &[PathBuf]) -> Vec<Grant> {
    let named = paths.iter().map(|path| configured(path, Right::Read, "what the caller named"));
    system(platform::own_uid() == 0).chain(named).collect()
}

fn plan(layers: Vec<Layer>, required: &Required, calls: Vec<&'static [daemoneye_lib::jail::Line]>) -> Plan {
    Plan { usable: &[], layers, required: required.clone(), account: None, keep: &[], calls }
}

/// Files and ports only as granted, for this thread and those that it starts.
///
/// # Errors
/// [`JailError`]: a layer did not take.
pub(crate) fn enter(grants: &[Grant], required: &Required) -> Result<Dropped, JailError> {
    enter_with(grants, LAYERS.to_vec(), required)
}

fn enter_with(grants: &[Grant], layers: Vec<Layer>, required: &Required) -> Result<Dropped, JailError> {
    let with_files = layers.contains(&Layer::Landlock);
    let mut dropped = plan(layers, required, system::worker_calls()).drop_privileges()?;
    if with_files {
        let absent = absent(grants);
        let mut entry = system::restrict_files(grants)?;
        for path in absent {
            let path = path.display();
            tracing::warn!("{path} does not exist: make it and start the agent again, or it stays closed to it");
            entry.detail.push_str(&format!("; not there at the start, so closed until the next: {path}"));
        }
        dropped.record(entry);
    }
    Ok(dropped)
}

/// The rest, for all threads: nothing listens, binds, starts or opens a way out any more.
///
/// # Errors
/// [`JailError`]: a layer did not take, or one that was required by name is missing.
pub(crate) fn close(dropped: Dropped) -> Result<Report, JailError> {
    Ok(dropped.seal()?.probed(system::probes()).report().clone())
}

/// The parent of the process tree. What it gives up its children cannot have: a worker lives with less, a collector takes its
/// netlink socket, its eBPF programs, its network namespace and the capabilities of its file before it jails itself. So where
/// the parent starts the collector, it keeps system calls and privileges.
///
/// # Errors
/// [`JailError`]: a layer did not take.
pub(crate) fn close_parent(starts_collectors: bool, required: &Required) -> Result<Report, JailError> {
    let mut layers = vec![Layer::NotDumpable];
    if !starts_collectors {
        layers.extend([Layer::NoNewPrivs, Layer::Seccomp]);
    }
    // What is required is required of the worker; the parent cannot hold Landlock, or its worker could be given no paths.
    let required = if starts_collectors { &Required::Available } else { required };
    let required = match required {
        Required::Named(named) => {
            Required::Named(named.iter().copied().filter(|layer| layers.contains(layer)).collect())
        }
        Required::Available => Required::Available,
    };
    Ok(plan(layers, &required, system::parent_calls()).drop_privileges()?.seal()?.report().clone())
}
