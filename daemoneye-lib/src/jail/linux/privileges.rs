//! Network, account and capabilities, in the order in which each still may.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities,
};

use super::super::{JailError, Layer, LayerReport, Plan, granting};
use super::accounts::Account;
use super::{missing, not_applicable, on};

/// What must read back for every thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Effective and permitted set.
    pub(super) capabilities: u64,
    /// The bounding set is empty.
    pub(super) is_bounded: bool,
    /// User and group after the switch.
    pub(super) ids: Option<(u32, u32)>,
    /// Name of the network namespace, where it has one of its own.
    pub(super) network: Option<PathBuf>,
}

pub(super) fn leave_network(plan: &Plan) -> Result<(LayerReport, Option<PathBuf>), JailError> {
    let layer = Layer::NetworkNamespace;
    if !plan.layers.contains(&layer) {
        return Ok((not_applicable(layer, "not part of this program's jail"), None));
    }
    let former = network()?;
    let detail = match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) if network()? == former => return Err(JailError::broken(layer, "it is the same as before")),
        Ok(()) => "empty; sockets opened before go on",
        Err(Errno::EPERM) if is_alone() => "whoever started it has given it one without interfaces",
        Err(Errno::EPERM) => {
            let remedy = "start it as root, or with PrivateNetwork=yes in its unit";
            return Ok((missing(layer, "this user may not have one", remedy), None));
        }
        Err(Errno::EINVAL) => {
            return Ok((missing(layer, "this kernel has none", "use a kernel with CONFIG_NET_NS"), None));
        }
        Err(error) => return Err(JailError::broken(layer, error)),
    };
    Ok((on(layer, detail), Some(network()?)))
}

/// The kernel's name for the network namespace of this thread.
fn network() -> Result<PathBuf, JailError> {
    std::fs::read_link("/proc/thread-self/ns/net")
        .map_err(|error| JailError::broken(Layer::NetworkNamespace, format!("cannot read back: {error}")))
}

/// Whether the network namespace that it was started in has no interface but the loopback: a service manager does that.
fn is_alone() -> bool {
    std::fs::read_to_string("/proc/self/net/dev").is_ok_and(|text| is_only_loopback(&text))
}

/// Two lines of headings, then `name: counters`; a table without the loopback is not one that can be trusted.
fn is_only_loopback(text: &str) -> bool {
    let mut names = text.lines().skip(2).map(|line| line.split(':').next().unwrap_or_default().trim()).peekable();
    names.peek().is_some() && names.all(|name| name == "lo")
}

/// Bounding set, account, then the sets themselves: each step needs what the next one takes.
pub(super) fn become_less(plan: &Plan, network: Option<PathBuf>) -> Result<(Vec<LayerReport>, Held), JailError> {
    let with_capabilities = plan.layers.contains(&Layer::Capabilities);
    let sets = read_sets()?;
    let keep = plan.keep.iter().fold(0, |bits, capability| bits | capability.bit());
    let is_bounded = with_capabilities && sets.effective.contains(CapabilitySet::SETPCAP);
    if is_bounded {
        empty_bounding_set()?;
    }
    set_keep_capabilities(true).map_err(|error| JailError::broken(Layer::User, error))?;
    let (user, ids) = change_user(plan, sets.effective)?;
    set_keep_capabilities(false).map_err(|error| JailError::broken(Layer::User, error))?;
    let kept = if with_capabilities { sets.permitted.bits() & keep } else { sets.permitted.bits() };
    let inheritable = if with_capabilities { CapabilitySet::empty() } else { sets.inheritable };
    let bits = CapabilitySet::from_bits_retain(kept);
    if with_capabilities {
        clear_ambient_capability_set().map_err(|error| JailError::broken(Layer::Capabilities, error))?;
    }
    set_capabilities(None, CapabilitySets { effective: bits, permitted: bits, inheritable })
        .map_err(|error| JailError::broken(Layer::Capabilities, error))?;
    let entry =
        if with_capabilities { told(plan, kept, is_bounded) } else { not_applicable(Layer::Capabilities, "left out") };
    Ok((vec![user, entry], Held { capabilities: kept, is_bounded, ids, network }))
}

fn read_sets() -> Result<CapabilitySets, JailError> {
    capabilities(None).map_err(|error| JailError::broken(Layer::Capabilities, error))
}

fn empty_bounding_set() -> Result<(), JailError> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The kernel knows no capability of this number and none above it.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(JailError::broken(Layer::Capabilities, error)),
        }
    }
    Ok(())
}

fn told(plan: &Plan, kept: u64, is_bounded: bool) -> LayerReport {
    let names = |wanted: bool| {
        let chosen = plan.keep.iter().filter(|capability| (kept & capability.bit() != 0) == wanted);
        chosen.map(|capability| capability.name).collect::<Vec<_>>().join(",")
    };
    let (held, lacking) = (names(true), names(false));
    let bounding = if is_bounded { "bounding set empty" } else { "bounding set left to no-new-privs" };
    let held = if held.is_empty() { "none" } else { held.as_str() };
    let mut entry = on(Layer::Capabilities, &format!("kept: {held}; {bounding}"));
    if !lacking.is_empty() {
        entry.detail = format!("{}; not held: {lacking}", entry.detail);
        entry.remedy = granting(plan.usable);
    }
    entry
}

type Ids = Option<(u32, u32)>;

fn change_user(plan: &Plan, effective: CapabilitySet) -> Result<(LayerReport, Ids), JailError> {
    let layer = Layer::User;
    let Some((user, group)) = plan.account.filter(|_| plan.layers.contains(&layer)) else {
        return Ok((not_applicable(layer, "not part of this program's jail"), None));
    };
    let uid = geteuid();
    if !uid.is_root() {
        return Ok((not_applicable(layer, &format!("runs as user id {uid}, not as root")), None));
    }
    let named = Account::find(user, group);
    let remedy = format!(
        "groupadd --system {group} && useradd --system --no-create-home --gid {group} {user} creates them, and the group may read the ledger"
    );
    let Some(account) = named.or_else(Account::stand_in) else {
        let detail = format!("there is no user {user} with a group {group}, and no other user id is free");
        return Ok((missing(layer, &detail, &remedy), None));
    };
    if !effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        return Ok((
            missing(layer, "root may not change its user here", "grant cap_setuid,cap_setgid at its start"),
            None,
        ));
    }
    let broken = |error| JailError::broken(layer, error);
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setgroups(&[]).map_err(broken)?;
    setresgid(gid, gid, gid).map_err(broken)?;
    setresuid(uid, uid, uid).map_err(broken)?;
    let ids = Some((account.uid, account.gid));
    if named.is_some() {
        return Ok((on(layer, &format!("{user}:{group}, no other groups")), ids));
    }
    let detail = format!(
        "there is no user {user} with a group {group}: runs as user id {}, which has no name, in group {}, no other groups",
        account.uid, account.gid
    );
    Ok((LayerReport { remedy, ..on(layer, &detail) }, ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_interfaces_is_told_from_one_that_has_them() {
        let heading = "Inter-|   Receive  |  Transmit\n face |bytes  packets|bytes\n";
        assert!(is_only_loopback(&format!("{heading}    lo: 0 0\n")));
        assert!(!is_only_loopback(&format!("{heading}    lo: 0 0\n  eth0: 1 1\n")));
        assert!(!is_only_loopback(heading), "an unreadable table proves nothing");
    }
}
