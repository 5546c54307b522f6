//! Calls that every program of DaemonEye makes whatever its work is: the runtime's, the C library's and those of plain files.

use nix::libc;

use super::super::syscalls::{Check, Line};

/// No page becomes code after the start.
const NOT_EXECUTABLE: &[&[Check]] = &[&[Check::Masked { argument: 2, mask: libc::PROT_EXEC as u32, value: 0 }]];

/// Threads only: a child process and a namespace of any kind are both refused.
const THREAD: &[&[Check]] = &[&[
    Check::Masked { argument: 0, mask: libc::CLONE_THREAD as u32, value: libc::CLONE_THREAD as u32 },
    Check::Masked { argument: 0, mask: NAMESPACES, value: 0 },
]];

/// Every namespace that clone can make.
const NAMESPACES: u32 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as u32;

// The type of these differs between C libraries, the numbers are the same on every architecture that has a filter.
const FIONBIO: u32 = 0x5421;
const FIOCLEX: u32 = 0x5451;
const TCGETS: u32 = 0x5401;
const TIOCGWINSZ: u32 = 0x5413;

/// Terminal questions and non-blocking mode. TIOCSTI and TIOCLINUX, which type into a terminal, are not among them.
const IOCTLS: &[&[Check]] =
    &[&[Check::Is(1, FIONBIO)], &[Check::Is(1, FIOCLEX)], &[Check::Is(1, TCGETS)], &[Check::Is(1, TIOCGWINSZ)]];

const PRCTLS: &[&[Check]] = &[&[Check::Is(0, libc::PR_SET_NAME as u32)], &[Check::Is(0, libc::PR_GET_NAME as u32)]];

const OWN: &[&[Check]] = &[&[Check::OwnPid(0)]];
const SELF: &[&[Check]] = &[&[Check::Is(0, 0)]];
const UNIX: &[&[Check]] = &[&[Check::Is(0, libc::AF_UNIX as u32)]];

/// What every program needs.
pub static BASE: &[Line] = &[
    Line::any("brk", libc::SYS_brk, "heap"),
    Line::when("mmap", libc::SYS_mmap, NOT_EXECUTABLE, "heap and thread stacks"),
    Line::any("munmap", libc::SYS_munmap, "heap and thread stacks"),
    Line::any("mremap", libc::SYS_mremap, "growing buffers"),
    Line::any("madvise", libc::SYS_madvise, "giving memory back"),
    Line::when("mprotect", libc::SYS_mprotect, NOT_EXECUTABLE, "guard pages and heap"),
    Line::when("clone", libc::SYS_clone, THREAD, "threads"),
    Line::any("clone3", libc::SYS_clone3, "answered with ENOSYS by a filter of its own, so that clone is used"),
    Line::any("futex", libc::SYS_futex, "locks"),
    Line::any("set_robust_list", libc::SYS_set_robust_list, "start of a thread"),
    Line::any("rseq", libc::SYS_rseq, "start of a thread"),
    Line::any("exit", libc::SYS_exit, "end of a thread"),
    Line::any("exit_group", libc::SYS_exit_group, "end of the program"),
    Line::any("gettid", libc::SYS_gettid, "thread identity"),
    Line::any("getpid", libc::SYS_getpid, "own identity"),
    Line::any("getppid", libc::SYS_getppid, "is the parent still there"),
    Line::any("getuid", libc::SYS_getuid, "own identity"),
    Line::any("geteuid", libc::SYS_geteuid, "own identity"),
    Line::any("getgid", libc::SYS_getgid, "own identity"),
    Line::any("getegid", libc::SYS_getegid, "own identity"),
    Line::any("getgroups", libc::SYS_getgroups, "own identity"),
    Line::any("sched_yield", libc::SYS_sched_yield, "locks under contention"),
    Line::any("sched_getaffinity", libc::SYS_sched_getaffinity, "how many threads are worth starting"),
    Line::any("getcpu", libc::SYS_getcpu, "allocator arenas"),
    Line::when("prctl", libc::SYS_prctl, PRCTLS, "thread names"),
    Line::when("prlimit64", libc::SYS_prlimit64, SELF, "stack size of a thread"),
    Line::any("sysinfo", libc::SYS_sysinfo, "memory and uptime of the host"),
    Line::any("uname", libc::SYS_uname, "host name and kernel version"),
    Line::any("getrusage", libc::SYS_getrusage, "own CPU time"),
    Line::any("getrandom", libc::SYS_getrandom, "hash seeds and identifiers"),
    Line::any("rt_sigaction", libc::SYS_rt_sigaction, "signal handlers"),
    Line::any("rt_sigprocmask", libc::SYS_rt_sigprocmask, "start of a thread"),
    Line::any("rt_sigreturn", libc::SYS_rt_sigreturn, "end of a signal handler"),
    Line::any("sigaltstack", libc::SYS_sigaltstack, "stack overflow is told"),
    Line::any("restart_syscall", libc::SYS_restart_syscall, "waiting goes on after a stop"),
    Line::when("tgkill", libc::SYS_tgkill, OWN, "abort, of this process only"),
    Line::any("clock_gettime", libc::SYS_clock_gettime, "time"),
    Line::any("clock_getres", libc::SYS_clock_getres, "time"),
    Line::any("clock_nanosleep", libc::SYS_clock_nanosleep, "waiting"),
    Line::any("nanosleep", libc::SYS_nanosleep, "waiting"),
    Line::any("gettimeofday", libc::SYS_gettimeofday, "time"),
    Line::any("epoll_create1", libc::SYS_epoll_create1, "event loop"),
    Line::any("epoll_ctl", libc::SYS_epoll_ctl, "event loop"),
    Line::any("epoll_pwait", libc::SYS_epoll_pwait, "event loop"),
    Line::any("epoll_pwait2", libc::SYS_epoll_pwait2, "event loop"),
    Line::any("eventfd2", libc::SYS_eventfd2, "waking the event loop"),
    Line::any("pipe2", libc::SYS_pipe2, "waking threads"),
    Line::any("ppoll", libc::SYS_ppoll, "waiting with a deadline"),
    Line::any("read", libc::SYS_read, "files and sockets"),
    Line::any("readv", libc::SYS_readv, "files and sockets"),
    Line::any("pread64", libc::SYS_pread64, "files"),
    Line::any("write", libc::SYS_write, "files and sockets"),
    Line::any("writev", libc::SYS_writev, "files and sockets"),
    Line::any("pwrite64", libc::SYS_pwrite64, "files"),
    Line::any("lseek", libc::SYS_lseek, "files"),
    Line::any("close", libc::SYS_close, "files and sockets"),
    Line::any("dup", libc::SYS_dup, "handles kept by two owners"),
    Line::any("dup3", libc::SYS_dup3, "handles kept by two owners"),
    Line::any("fcntl", libc::SYS_fcntl, "close-on-exec, non-blocking mode, locks"),
    Line::when("ioctl", libc::SYS_ioctl, IOCTLS, "is it a terminal; non-blocking mode"),
    Line::any("openat", libc::SYS_openat, "files"),
    Line::any("newfstatat", libc::SYS_newfstatat, "files"),
    Line::any("fstat", libc::SYS_fstat, "files"),
    Line::any("statx", libc::SYS_statx, "files"),
    Line::any("statfs", libc::SYS_statfs, "room on a disk"),
    Line::any("fstatfs", libc::SYS_fstatfs, "kind of a file system"),
    Line::any("faccessat", libc::SYS_faccessat, "files"),
    Line::any("faccessat2", libc::SYS_faccessat2, "files"),
    Line::any("readlinkat", libc::SYS_readlinkat, "links"),
    Line::any("getcwd", libc::SYS_getcwd, "relative paths"),
    Line::any("getdents64", libc::SYS_getdents64, "directories"),
    Line::any("mkdirat", libc::SYS_mkdirat, "directories of the data directory"),
    Line::any("unlinkat", libc::SYS_unlinkat, "what has served its time"),
    Line::any("renameat", libc::SYS_renameat, "files appear whole or not at all"),
    Line::any("renameat2", libc::SYS_renameat2, "files appear whole or not at all"),
    Line::any("ftruncate", libc::SYS_ftruncate, "cutting a torn tail"),
    Line::any("fallocate", libc::SYS_fallocate, "room taken ahead"),
    Line::any("fsync", libc::SYS_fsync, "durability"),
    Line::any("fdatasync", libc::SYS_fdatasync, "durability"),
    Line::any("fadvise64", libc::SYS_fadvise64, "reading ahead"),
    Line::any("flock", libc::SYS_flock, "one program per directory"),
    #[cfg(target_arch = "x86_64")]
    Line::any("epoll_wait", libc::SYS_epoll_wait, "event loop, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("poll", libc::SYS_poll, "waiting with a deadline, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("access", libc::SYS_access, "files, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("readlink", libc::SYS_readlink, "links, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("mkdir", libc::SYS_mkdir, "directories, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("unlink", libc::SYS_unlink, "what has served its time, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("rmdir", libc::SYS_rmdir, "what has served its time, older form"),
    #[cfg(target_arch = "x86_64")]
    Line::any("rename", libc::SYS_rename, "files appear whole or not at all, older form"),
];

/// A client of Unix sockets. Every other family is refused; so are bind and listen.
pub static UNIX_SOCKETS: &[Line] = &[
    Line::when("socket", libc::SYS_socket, UNIX, "the bus is a Unix socket"),
    Line::when("socketpair", libc::SYS_socketpair, UNIX, "signals reach the event loop"),
    Line::any("connect", libc::SYS_connect, "the bus, again after it was lost"),
    Line::any("sendto", libc::SYS_sendto, "sockets"),
    Line::any("sendmsg", libc::SYS_sendmsg, "sockets"),
    Line::any("recvfrom", libc::SYS_recvfrom, "sockets"),
    Line::any("recvmsg", libc::SYS_recvmsg, "sockets"),
    Line::any("shutdown", libc::SYS_shutdown, "end of a connection"),
    Line::any("getsockname", libc::SYS_getsockname, "addresses"),
    Line::any("getpeername", libc::SYS_getpeername, "addresses"),
    Line::any("getsockopt", libc::SYS_getsockopt, "credentials of the peer, errors of a connection"),
    Line::any("setsockopt", libc::SYS_setsockopt, "buffers and deadlines"),
];
