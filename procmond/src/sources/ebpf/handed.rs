//! Programs that are loaded by one run of this executable and read by the next, in the same process. Loading takes the
//! kernel's type information, 40 MiB for a moment, and no heap gives all of that back; descriptors outlive an exec, and the
//! heap does not.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use aya::maps::{Map, MapData};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::{Attached, attached};
use crate::sources::HandedOver;

/// Set for the next run: there are programs, and this is what `health` tells of them, one note a line.
const VARIABLE: &str = "DAEMONEYE_EBPF";

/// What the kernel calls descriptors of maps and of attached programs.
const MAP: &str = "anon_inode:bpf-map";
const LINK: &str = "anon_inode:bpf_link";

/// Loads and attaches the programs for the next run; `None` where that fails, and the next run finds out why.
pub(in crate::sources) fn hand_over(ring_bytes: u32) -> Option<HandedOver> {
    let attached = attached(ring_bytes).ok()?;
    let held: io::Result<Vec<OwnedFd>> = own(MAP)
        .and_then(|maps| Ok([maps, own(LINK)?].concat()))
        .and_then(|numbers| numbers.into_iter().map(kept_across_exec).collect());
    Some(HandedOver { variable: (VARIABLE, attached.notes.join("\n")), held: Box::new(held.ok()?) })
}

/// Takes what an earlier run of this process has left.
pub(super) fn take() -> Option<Attached> {
    let notes = std::env::var(VARIABLE).ok()?.lines().map(str::to_owned).collect();
    let taken = |kind| own(kind)?.into_iter().map(take_one).collect::<io::Result<Vec<OwnedFd>>>();
    let (maps, links) = (taken(MAP).ok()?, taken(LINK).ok()?);
    let ring = MapData::from_fd(maps.into_iter().next()?).and_then(Map::from_map_data).ok()?;
    let links: Vec<Box<dyn Send + Sync>> = links.into_iter().map(|link| Box::new(link) as _).collect();
    (!links.is_empty()).then_some(Attached { ring, links, notes })
}

/// Numbers of this process's own descriptors of one kind.
fn own(kind: &str) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_one = fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == kind);
        numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).filter(|_| is_one));
    }
    Ok(numbers)
}

fn kept_across_exec(number: i32) -> io::Result<OwnedFd> {
    let kept = duplicate(number)?;
    fcntl_setfd(&kept, FdFlags::empty())?;
    Ok(kept)
}

/// Nobody owns it yet after an exec; the copy is closed at the next one, and with its owner.
fn take_one(number: i32) -> io::Result<OwnedFd> {
    let taken = duplicate(number)?;
    nix::unistd::close(number)?;
    Ok(taken)
}

fn duplicate(number: i32) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}
