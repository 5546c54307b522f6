//! Reading back what holds, from the kernel's own account of every thread.

use std::fs;

use super::super::{JailError, Layer, Report};
use super::privileges::Held;

/// Fields of `/proc/<pid>/status`.
struct Status(String);

impl Status {
    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn set(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }

    /// Real, effective, saved and file-system ids are all `id`.
    fn is_only(&self, name: &str, id: u32) -> bool {
        let id = id.to_string();
        self.field(name).is_some_and(|ids| ids.split_whitespace().all(|each| each == id))
    }
}

pub(super) fn offers_seccomp() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|text| Status(text).field("Seccomp").is_some())
}

/// Compares every thread with what the report claims.
pub(super) fn verify(report: &Report, held: &Held) -> Result<(), JailError> {
    let unreadable =
        |error: std::io::Error| JailError::broken(Layer::Capabilities, format!("cannot read back: {error}"));
    for entry in fs::read_dir("/proc/self/task").map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let network = || held.network.as_ref().map(|_wanted| fs::read_link(path.join("ns/net"))).transpose();
        match fs::read_to_string(path.join("status")).and_then(|text| Ok((Status(text), network()?))) {
            Ok((status, network)) => {
                thread(&status, report, held)?;
                if network != held.network {
                    let who = status.field("Pid").unwrap_or_default();
                    return Err(JailError::broken(Layer::NetworkNamespace, format!("thread {who} is in another one")));
                }
            }
            // A thread that has ended in between restricts nobody.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(())
}

fn thread(status: &Status, report: &Report, held: &Held) -> Result<(), JailError> {
    let who = status.field("Pid").unwrap_or_default();
    let mut checks = Vec::new();
    if report.is_on(Layer::Capabilities) {
        let bounding = if held.is_bounded { Some(0) } else { status.set("CapBnd") };
        let sets = [
            ("CapEff", Some(held.capabilities)),
            ("CapPrm", Some(held.capabilities)),
            ("CapInh", Some(0)),
            ("CapAmb", Some(0)),
            ("CapBnd", bounding),
        ];
        checks.extend(sets.map(|(name, wanted)| (Layer::Capabilities, name, status.set(name) == wanted)));
    }
    if let Some((uid, gid)) = held.ids {
        checks.push((Layer::User, "Uid", status.is_only("Uid", uid)));
        checks.push((Layer::User, "Gid", status.is_only("Gid", gid)));
        checks.push((Layer::User, "Groups", status.field("Groups") == Some("")));
    }
    if report.is_on(Layer::NoNewPrivs) {
        checks.push((Layer::NoNewPrivs, "NoNewPrivs", status.field("NoNewPrivs") == Some("1")));
    }
    if report.is_on(Layer::Seccomp) {
        checks.push((Layer::Seccomp, "Seccomp", status.field("Seccomp") == Some("2")));
    }
    match checks.into_iter().find(|(_, _, holds)| !holds) {
        None => Ok(()),
        Some((layer, name, _)) => {
            let found = status.field(name).unwrap_or("nothing");
            Err(JailError::broken(layer, format!("thread {who} reads back {name} {found}")))
        }
    }
}
