//! What the agent's programs call beyond what every program calls, one line each with its reason.
//!
//! Found by watching the agent with strace under its tests. No network family is among them, because nothing of the agent
//! speaks to the network yet; nor are bind, listen and exec, because everything that listens does so before.

use daemoneye_lib::jail::{Check, Line};
use nix::libc;

/// PRIO_PROCESS of the calling thread; whole users and other processes keep theirs.
const OWN_PRIORITY: &[&[Check]] = &[&[Check::Is(0, 0), Check::Is(1, 0)]];

/// The worker, and an agent over a copied store.
pub(super) static WORKER: &[Line] = &[
    Line::any("accept4", libc::SYS_accept4, "collectors and operators come in"),
    Line::any("copy_file_range", libc::SYS_copy_file_range, "copies of files"),
    Line::any("fchmod", libc::SYS_fchmod, "modes of new files"),
    Line::when("getpriority", libc::SYS_getpriority, OWN_PRIORITY, "queries give way to ingest"),
    Line::any("membarrier", libc::SYS_membarrier, "cheap fences of concurrent maps"),
    Line::any("preadv", libc::SYS_preadv, "files"),
    Line::any("pwritev", libc::SYS_pwritev, "files"),
    Line::when("setpriority", libc::SYS_setpriority, OWN_PRIORITY, "queries give way to ingest"),
    Line::any("sync_file_range", libc::SYS_sync_file_range, "early writing of large files"),
    Line::any("umask", libc::SYS_umask, "modes of new files"),
];

/// The parent, and what its worker needs until it has jailed itself.
pub(super) static PARENT: &[Line] = &[
    Line::any("bind", libc::SYS_bind, "the worker's sockets; Unix is the only family"),
    Line::any("capget", libc::SYS_capget, "the worker's jail"),
    Line::any("capset", libc::SYS_capset, "the worker's jail; less only"),
    Line::any("clone", libc::SYS_clone, "the worker is a process"),
    Line::any("close_range", libc::SYS_close_range, "a new program inherits no descriptors"),
    Line::any("execve", libc::SYS_execve, "the worker is a program"),
    Line::any("fchownat", libc::SYS_fchownat, "sockets are given to the group"),
    Line::any("kill", libc::SYS_kill, "the worker is asked to end"),
    Line::any("landlock_add_rule", libc::SYS_landlock_add_rule, "the worker's jail"),
    Line::any("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, "the worker's jail"),
    Line::any("landlock_restrict_self", libc::SYS_landlock_restrict_self, "the worker's jail"),
    Line::any("listen", libc::SYS_listen, "the worker's sockets"),
    Line::any("mmap", libc::SYS_mmap, "code of the worker's program"),
    Line::any("mprotect", libc::SYS_mprotect, "code of the worker's program"),
    Line::any("pidfd_open", libc::SYS_pidfd_open, "the end of the worker is seen"),
    Line::any("pidfd_send_signal", libc::SYS_pidfd_send_signal, "the worker is ended"),
    Line::any("prctl", libc::SYS_prctl, "the worker's jail"),
    Line::any("seccomp", libc::SYS_seccomp, "the worker's jail"),
    Line::any("set_tid_address", libc::SYS_set_tid_address, "start of a program"),
    Line::any("setpgid", libc::SYS_setpgid, "a Ctrl-C reaches the parent only"),
    Line::any("wait4", libc::SYS_wait4, "how the worker ended"),
    Line::any("waitid", libc::SYS_waitid, "how the worker ended"),
    #[cfg(target_arch = "x86_64")]
    Line::any("arch_prctl", libc::SYS_arch_prctl, "start of a program"),
    #[cfg(target_arch = "x86_64")]
    Line::any("chown", libc::SYS_chown, "sockets are given to the group, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("dup2", libc::SYS_dup2, "standard input of the worker, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("vfork", libc::SYS_vfork, "the worker is a process, older form"),
];
