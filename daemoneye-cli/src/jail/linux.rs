//! What the console calls beyond what every program calls, one line each with its reason.

use daemoneye_lib::jail::Line;
use nix::libc;

pub(super) static OWN: &[Line] = &[
    Line::any("kill", libc::SYS_kill, "an agent that it started for a copied store is ended"),
    Line::any("membarrier", libc::SYS_membarrier, "cheap fences of concurrent maps"),
    Line::any("pidfd_send_signal", libc::SYS_pidfd_send_signal, "the same, where the system has it"),
    Line::any("wait4", libc::SYS_wait4, "how that agent ended"),
    Line::any("waitid", libc::SYS_waitid, "how that agent ended"),
];
