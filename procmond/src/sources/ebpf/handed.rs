//! Programs that are loaded by one run of this executable and read by the next, in the same process. Loading takes the
//! kernel's type information, 40 MiB for a moment, and no heap gives all of that back; descriptors outlive an exec, and the
//! heap does not.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use aya::maps::{Map, MapData};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::{Attached, attached};
use crate::sources::HandedOver;

/// Set for the next run: the numbers of the descriptors, then what `health` tells of them, one note a line.
const VARIABLE: &str = "DAEMONEYE_EBPF";

/// Fork, exec and exit; without one of them there is no source.
const FEWEST_LINKS: usize = 3;

/// What the kernel calls descriptors of maps and of attached programs.
const MAP: &str = "anon_inode:bpf-map";
const LINK: &str = "anon_inode:bpf_link";

/// Loads and attaches the programs for the next run; `None` where that fails, and the next run finds out why.
pub(in crate::sources) fn hand_over(ring_bytes: u32) -> Option<HandedOver> {
    // Whoever started this process may have left some of its own.
    let inherited = [own(MAP).ok()?, own(LINK).ok()?].concat();
    let attached = attached(ring_bytes).ok()?;
    let of_this_run =
        [own(MAP).ok()?, own(LINK).ok()?].concat().into_iter().filter(|number| !inherited.contains(number));
    let held: Vec<OwnedFd> = of_this_run.map(kept_across_exec).collect::<io::Result<_>>().ok()?;
    let numbers: Vec<String> = held.iter().map(|kept| kept.as_raw_fd().to_string()).collect();
    let value = [numbers.join(" "), attached.notes.join("\n")].join("\n");
    Some(HandedOver { variable: (VARIABLE, value), held: Box::new(held) })
}

/// Takes what an earlier run of this process has left: the ring first, then what is attached.
pub(super) fn take(ring_bytes: u32) -> Option<Attached> {
    let told = std::env::var(VARIABLE).ok()?;
    let (numbers, notes) = told.split_once('\n')?;
    let numbers: Vec<i32> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let (ring, links) = numbers.split_first()?;
    let (maps, attached) = (own(MAP).ok()?, own(LINK).ok()?);
    if !maps.contains(ring) || links.len() < FEWEST_LINKS || !links.iter().all(|link| attached.contains(link)) {
        return None;
    }
    let ring = MapData::from_fd(take_one(*ring).ok()?).ok()?;
    if ring.info().ok()?.max_entries() != ring_bytes {
        return None;
    }
    let links = links.iter().map(|link| Ok(Box::new(take_one(*link)?) as _)).collect::<io::Result<_>>().ok()?;
    let notes = notes.lines().map(str::to_owned).collect();
    Some(Attached { ring: Map::from_map_data(ring).ok()?, links, notes })
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
