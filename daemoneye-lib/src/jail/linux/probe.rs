//! Calls tried from inside, each harmless where the jail would let it through.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{execve, setresuid};
use rustix::net::{AddressFamily, SocketType, socket};

use super::super::{Layer, Probe, Report};

/// The kernel's cryptography, which rustix does not name.
const AF_ALG: u16 = 38;

const FAMILIES: &[(&str, AddressFamily)] = &[
    ("socket AF_INET", AddressFamily::INET),
    ("socket AF_INET6", AddressFamily::INET6),
    ("socket AF_PACKET", AddressFamily::PACKET),
    ("socket AF_NETLINK", AddressFamily::NETLINK),
    ("socket AF_VSOCK", AddressFamily::VSOCK),
    ("socket AF_BLUETOOTH", AddressFamily::BLUETOOTH),
    ("socket AF_ALG", AddressFamily::from_raw(AF_ALG)),
    ("socket AF_XDP", AddressFamily::XDP),
];

/// What every program's jail decides the same way. Only the seccomp layer answers all of these, so without it none is tried.
pub(super) fn common(report: &Report) -> Vec<Probe> {
    if !report.is_on(Layer::Seccomp) {
        return Vec::new();
    }
    let mut probes: Vec<Probe> =
        FAMILIES.iter().map(|(call, family)| refused(call, socket(*family, SocketType::DGRAM, None))).collect();
    // A directory is no program, so this would fail in another way outside a jail; a new uts namespace harms nobody.
    let nothing: [&std::ffi::CStr; 0] = [];
    probes.push(refused("execve", execve(c"/", &nothing, &nothing)));
    probes.push(refused("unshare", unshare(CloneFlags::empty())));
    let same = nix::unistd::getuid();
    probes.push(refused("setresuid", setresuid(same, same, same)));
    probes.push(wanted("socket AF_UNIX", socket(AddressFamily::UNIX, SocketType::STREAM, None)));
    probes.push(wanted("read /proc/self/stat", std::fs::read("/proc/self/stat")));
    probes
}

/// A call that must answer EPERM.
fn refused<T, E: std::fmt::Display + Into<std::io::Error>>(call: &str, outcome: Result<T, E>) -> Probe {
    let (allowed, answer) = match outcome {
        Ok(_) => (true, "done".to_owned()),
        Err(error) => {
            let error: std::io::Error = error.into();
            (error.raw_os_error() != Some(Errno::EPERM as i32), error.to_string())
        }
    };
    Probe { call: call.to_owned(), wanted: false, allowed, answer }
}

/// A call that must come through.
fn wanted<T, E: std::fmt::Display>(call: &str, outcome: Result<T, E>) -> Probe {
    let answer = outcome.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
    Probe { call: call.to_owned(), wanted: true, allowed: outcome.is_ok(), answer }
}
