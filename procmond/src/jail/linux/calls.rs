//! What procmond calls beyond what every program does.

use daemoneye_lib::jail::{Check, Line};
use nix::libc;

/// PRIO_PROCESS of the calling thread; whole users and other processes keep theirs.
const OWN_PRIORITY: &[&[Check]] = &[&[Check::Is(0, 0), Check::Is(1, 0)]];

/// procmond's own lines.
pub(in crate::jail) static PROCMOND: &[Line] = &[
    Line::any("sched_setscheduler", libc::SYS_sched_setscheduler, "the reader thread runs before ordinary ones"),
    Line::any("sched_setparam", libc::SYS_sched_setparam, "priority of the reader thread"),
    Line::any("sched_getscheduler", libc::SYS_sched_getscheduler, "priority of the reader thread"),
    Line::any("sched_getparam", libc::SYS_sched_getparam, "priority of the reader thread"),
    Line::any("sched_get_priority_max", libc::SYS_sched_get_priority_max, "priority of the reader thread"),
    Line::any("sched_get_priority_min", libc::SYS_sched_get_priority_min, "priority of the reader thread"),
    Line::when("getpriority", libc::SYS_getpriority, OWN_PRIORITY, "hashing runs behind everything else"),
    Line::when("setpriority", libc::SYS_setpriority, OWN_PRIORITY, "hashing runs behind everything else"),
];
