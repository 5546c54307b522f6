//! What is tried in the jail of every program. Each call is harmless or undone where it succeeds; those that change the process
//! for the ones after them come last.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use daemoneye_lib::jail::Layer::{Capabilities, Landlock, NetworkNamespace, NoNewPrivs, NotDumpable, Seccomp, User};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{AtFlags, CWD, FileType, MemfdFlags, Mode, Timestamps};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket, socketpair};
use rustix::process::{DumpableBehavior, PidfdFlags, PidfdGetfdFlags, Resource};

use super::{By, Outcome, Try, told};

/// The TCP port of a listener outside.
pub(crate) const PORT: &str = "DAEMONEYE_TEST_PORT";

pub(crate) const CALLS: By = &[&[Seccomp]];
/// The kernel asks for a capability.
const PRIVILEGED: By = &[&[Seccomp], &[Capabilities]];
/// The kernel asks whose it is.
const FOREIGN: By = &[&[Seccomp], &[User, Capabilities]];
/// Started programs: they are not started, or have nothing that their starter has not.
const POWERLESS: By = &[&[Seccomp], &[Landlock], &[Capabilities], &[User]];

fn open(family: AddressFamily, kind: SocketType, protocol: Option<Protocol>) -> Outcome {
    told(socket(family, kind, protocol))
}

/// Where there is no network, nothing is there to refuse: no address and no way are the refusal.
fn cut_off<T>(outcome: io::Result<T>) -> Outcome {
    let errors =
        [io::ErrorKind::NetworkUnreachable, io::ErrorKind::AddrNotAvailable, io::ErrorKind::ConnectionRefused];
    match outcome {
        Err(error) if errors.contains(&error.kind()) => Err("13".to_owned()),
        outcome => told(outcome),
    }
}

fn outside() -> (&'static str, u16) {
    ("127.0.0.1", std::env::var(PORT).unwrap().parse().unwrap())
}

fn started(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(io::Error::from_raw_os_error(1)) }
}

fn own_uid() -> nix::unistd::Uid {
    nix::unistd::geteuid()
}

pub(crate) const EVERYBODYS: &[Try] = &[
    ("tcp socket", CALLS, |_| open(AddressFamily::INET, SocketType::STREAM, None)),
    ("udp socket", CALLS, |_| open(AddressFamily::INET, SocketType::DGRAM, None)),
    ("tcp socket over IPv6", CALLS, |_| open(AddressFamily::INET6, SocketType::STREAM, None)),
    ("udp socket over IPv6", CALLS, |_| open(AddressFamily::INET6, SocketType::DGRAM, None)),
    ("raw socket", PRIVILEGED, |_| open(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))),
    ("multipath tcp socket", CALLS, |_| open(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP))),
    ("netlink socket", CALLS, |_| open(AddressFamily::NETLINK, SocketType::RAW, None)),
    ("packet socket", PRIVILEGED, |_| open(AddressFamily::PACKET, SocketType::RAW, None)),
    ("vsock socket", CALLS, |_| open(AddressFamily::VSOCK, SocketType::STREAM, None)),
    ("bluetooth socket", CALLS, |_| open(AddressFamily::BLUETOOTH, SocketType::RAW, None)),
    ("alg socket", CALLS, |_| open(AddressFamily::from_raw(38), SocketType::SEQPACKET, None)),
    ("tcp connection", &[&[Seccomp], &[Landlock], &[NetworkNamespace]], |_| cut_off(TcpStream::connect(outside()))),
    ("tcp port", &[&[Seccomp], &[Landlock]], |_| told(TcpListener::bind(("127.0.0.1", 0)))),
    ("tcp port below 1024", &[&[Seccomp], &[Landlock], &[Capabilities]], |_| told(TcpListener::bind(("0.0.0.0", 1)))),
    ("datagram", &[&[Seccomp], &[NetworkNamespace]], |_| {
        cut_off(UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| socket.send_to(b"x", outside())))
    }),
    ("abstract socket of others", &[&[Landlock], &[NetworkNamespace]], |home| {
        cut_off(
            SocketAddr::from_abstract_name(home.as_os_str().as_encoded_bytes())
                .and_then(|name| UnixStream::connect_addr(&name)),
        )
    }),
    ("listen on a new socket", CALLS, |home| told(UnixListener::bind(home.join("new.sock")))),
    ("listen on an open socket", CALLS, |_| {
        told(socket(AddressFamily::UNIX, SocketType::STREAM, None).and_then(|open| rustix::net::listen(open, 1)))
    }),
    ("start a program", &[&[Seccomp], &[Landlock]], |_| told(started(&mut Command::new("/bin/true")))),
    ("a program gains its owner's rights", &[&[Seccomp], &[Landlock], &[NoNewPrivs]], |home| {
        let shown = started(Command::new(home.join("id")).arg("-u")).map_err(|_refused| "1".to_owned())?;
        if shown == own_uid().to_string() { Err("1".to_owned()) } else { Ok(()) }
    }),
    ("mount a file system", POWERLESS, |home| {
        told(started(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(home.join("mount"))))
    }),
    ("trace another program", &[&[Seccomp], &[Landlock]], |_| {
        let parent = rustix::process::getppid().ok_or("no parent")?;
        let taken = rustix::process::pidfd_open(parent, PidfdFlags::empty())
            .and_then(|parent| rustix::process::pidfd_getfd(parent, 0, PidfdGetfdFlags::empty()));
        told(taken)
    }),
    ("memory of another program", &[&[Landlock]], |_| {
        told(File::open(format!("/proc/{}/mem", std::os::unix::process::parent_id())))
    }),
    ("write /etc/passwd", &[&[Landlock], &[User, Capabilities]], |_| {
        told(OpenOptions::new().append(true).open("/etc/passwd"))
    }),
    ("write another user's file", &[&[Capabilities]], |home| {
        told(OpenOptions::new().append(true).open(home.join("foreign")))
    }),
    ("write a setting of the kernel", &[&[Landlock], &[User]], |_| {
        told(OpenOptions::new().write(true).open("/proc/sys/kernel/domainname"))
    }),
    ("another root", PRIVILEGED, |_| told(rustix::process::chroot("/"))),
    ("a file in memory", CALLS, |_| told(rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC))),
    ("another user", CALLS, |_| told(nix::unistd::setresuid(own_uid(), own_uid(), own_uid()))),
    ("another group", CALLS, |_| {
        let gid = nix::unistd::getgid();
        told(nix::unistd::setresgid(gid, gid, gid))
    }),
    ("other groups", PRIVILEGED, |_| told(nix::unistd::setgroups(&[]))),
    ("a pipe file", &[&[Seccomp], &[Landlock]], |home| {
        told(rustix::fs::mknodat(CWD, home.join("pipe"), FileType::Fifo, Mode::RUSR, 0))
    }),
    ("a device file", &[&[Seccomp], &[Landlock], &[Capabilities]], |home| {
        told(rustix::fs::mknodat(
            CWD,
            home.join("null"),
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 3),
        ))
    }),
    ("a symbolic link", &[&[Seccomp], &[Landlock]], |home| {
        told(std::os::unix::fs::symlink("kept", home.join("link")))
    }),
    ("a file given away", PRIVILEGED, |home| told(std::os::unix::fs::chown(home.join("mount"), Some(1), None))),
    ("another mode", FOREIGN, |home| {
        told(rustix::fs::chmodat(CWD, home.join("kept"), Mode::RUSR | Mode::WUSR, AtFlags::empty()))
    }),
    ("another time of a file", FOREIGN, |home| {
        let epoch = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: epoch, last_modification: epoch };
        told(rustix::fs::utimensat(CWD, home.join("kept"), &times, AtFlags::empty()))
    }),
    ("an attribute of a file", FOREIGN, |home| {
        told(rustix::fs::setxattr(home.join("kept"), "user.x", b"", rustix::fs::XattrFlags::empty()))
    }),
    ("another host name", PRIVILEGED, |_| {
        let name = rustix::system::uname().nodename().to_bytes().to_vec();
        told(rustix::system::sethostname(&name))
    }),
    ("a kernel module", PRIVILEGED, |_| told(rustix::system::init_module(b"", c""))),
    ("no kernel module", PRIVILEGED, |_| told(rustix::system::delete_module(c"no-such-module", 0))),
    ("other processors", CALLS, |_| {
        told(rustix::thread::sched_getaffinity(None).and_then(|set| rustix::thread::sched_setaffinity(None, &set)))
    }),
    ("a core file", &[&[NotDumpable]], |_| {
        if rustix::process::getrlimit(Resource::Core).maximum == Some(0) { Err("1".to_owned()) } else { Ok(()) }
    }),
    ("dumpable again", CALLS, |_| told(rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable))),
    ("a watch on files", CALLS, |_| told(rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC))),
    ("a thread", &[], |_| told(std::thread::Builder::new().spawn(|| {}).map(|thread| drop(thread.join())))),
    ("a wait", &[], |_| {
        std::thread::park_timeout(std::time::Duration::from_millis(1));
        Ok(())
    }),
    ("memory", &[], |_| {
        drop(vec![1_u8; 64 * 1024 * 1024]);
        Ok(())
    }),
    ("a pair of sockets", &[], |_| {
        told(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None))
    }),
    ("a connection to a socket that stood before", &[], |home| told(UnixStream::connect(home.join("old.sock")))),
    ("random numbers", &[], |_| {
        drop(std::collections::hash_map::RandomState::new());
        Ok(())
    }),
    ("reading /proc", &[], |_| told(fs::read("/proc/self/stat"))),
    ("names of users", &[], |_| told(nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(0)))),
    ("a new file", &[], |home| {
        told(fs::write(home.join("new"), b"x").and_then(|()| File::open(home.join("new"))?.sync_all()))
    }),
    ("a file in place of another", &[], |home| {
        told(fs::write(home.join("tmp"), b"").and_then(|()| fs::rename(home.join("tmp"), home.join("new"))))
    }),
    ("a hard link", CALLS, |home| told(fs::hard_link(home.join("new"), home.join("second")))),
    ("the lock of a file", &[], |home| told(File::open(home.join("new")).map(|file| file.try_lock().is_ok()))),
    ("removing a file", &[], |home| told(fs::remove_file(home.join("new")))),
    ("a session of its own", CALLS, |_| told(nix::unistd::setsid())),
    ("other capabilities", CALLS, |_| {
        told(rustix::thread::capabilities(None).and_then(|sets| rustix::thread::set_capabilities(None, sets)))
    }),
    ("another namespace", PRIVILEGED, |_| {
        told(File::open("/proc/self/ns/uts").and_then(|own| Ok(setns(own, CloneFlags::CLONE_NEWUTS)?)))
    }),
    ("new uts namespace", PRIVILEGED, |_| told(unshare(CloneFlags::CLONE_NEWUTS))),
    ("new ipc namespace", PRIVILEGED, |_| told(unshare(CloneFlags::CLONE_NEWIPC))),
    ("new cgroup namespace", PRIVILEGED, |_| told(unshare(CloneFlags::CLONE_NEWCGROUP))),
    ("new mount namespace", PRIVILEGED, |_| told(unshare(CloneFlags::CLONE_NEWNS))),
    ("new network namespace", PRIVILEGED, |_| told(unshare(CloneFlags::CLONE_NEWNET))),
];
