//! What the console calls beyond what every program calls, one line each with its reason.

use daemoneye_lib::jail::{Check, Line};
use nix::libc;

// The newer forms are those of C libraries that know more speeds; the numbers are the same on every architecture with a filter.
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;

/// How a terminal echoes and gathers keys. What types into one is not among them.
const IOCTLS: &[&[Check]] = &[
    &[Check::Is(1, TCSETS)],
    &[Check::Is(1, TCSETSW)],
    &[Check::Is(1, TCSETSF)],
    &[Check::Is(1, TCGETS2)],
    &[Check::Is(1, TCSETS2)],
    &[Check::Is(1, TCSETSW2)],
    &[Check::Is(1, TCSETSF2)],
];

pub(super) static OWN: &[Line] = &[
    Line::when("ioctl", libc::SYS_ioctl, IOCTLS, "the shell takes keys as they are typed"),
    Line::any("kill", libc::SYS_kill, "an agent that it started for a copied store is ended"),
    Line::any("membarrier", libc::SYS_membarrier, "cheap fences of concurrent maps"),
    Line::any("pidfd_send_signal", libc::SYS_pidfd_send_signal, "the same, where the system has it"),
    Line::any("wait4", libc::SYS_wait4, "how that agent ended"),
    Line::any("waitid", libc::SYS_waitid, "how that agent ended"),
];
