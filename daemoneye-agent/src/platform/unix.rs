//! Unix: `SO_PEERCRED` uids, process groups, SIGHUP/SIGINT/SIGTERM.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Group, Pid, Uid, User};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::{GroupMay, Kernel, Wish};

/// The signals that the parent listens to.
pub(crate) struct Wishes {
    hangup: Stream,
    interrupt: Stream,
    terminate: Stream,
}

impl Wishes {
    /// Takes the signals over from the default action.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next wish; safe to cancel.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
        }
    }
}

/// One end of the pair between parent and worker.
pub(crate) type Pair = UnixStream;
pub(crate) type ReadHalf = tokio::net::unix::OwnedReadHalf;
pub(crate) type WriteHalf = tokio::net::unix::OwnedWriteHalf;

/// One end for the parent, the other as the standard input of the worker.
pub(crate) fn socket_pair() -> std::io::Result<(Pair, Stdio)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, Stdio::from(OwnedFd::from(theirs))))
}

/// The worker's end of the pair: its standard input.
pub(crate) fn inherited_end() -> std::io::Result<Pair> {
    Ok(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}

/// Both directions of an end, for the runtime of the caller.
pub(crate) fn split(end: Pair) -> std::io::Result<(ReadHalf, WriteHalf)> {
    end.set_nonblocking(true)?;
    Ok(tokio::net::UnixStream::from_std(end)?.into_split())
}

/// Starts the program in a process group of its own: a Ctrl-C in the terminal then reaches only the parent, which stops the
/// others in order.
pub(crate) fn own_group(command: &mut tokio::process::Command) {
    command.process_group(0);
}

/// Starts this program again, whatever stands under its path by now: an upgrade puts another file there, and a worker of another
/// version need not understand its parent.
pub(crate) fn own_program(path: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(running(path));
    command.arg0(path);
    command
}

/// The kernel's link leads to the program that runs, where there is such a link.
fn running(path: &Path) -> &Path {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()));
    let link = Path::new("/proc/self/exe");
    let running = id(link);
    if running.is_some() && id(path) != running { link } else { path }
}

/// Puts this program in its own place, with these beside its environment: the allocator reads them before `main`. Comes back where that
/// cannot be, and the program goes on as it is.
pub(crate) fn begin_again_with(environment: &[(&str, &str)]) {
    let mut given = std::env::args_os();
    let (Ok(path), Some(name)) = (std::env::current_exe(), given.next()) else { return };
    let mut command = std::process::Command::new(running(&path));
    drop(command.arg0(name).args(given).envs(environment.iter().copied()).exec());
}

/// The name in lists of processes; one that was started over the kernel's link would be called `exe` there.
pub(crate) fn take_name(name: &str) {
    if let Err(error) = std::fs::write("/proc/self/comm", name) {
        tracing::debug!(%error, "the name in lists of processes stays");
    }
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) {
    send(pid, Signal::SIGTERM);
}

/// Ends a process.
pub(crate) fn kill_now(pid: u32) {
    send(pid, Signal::SIGKILL);
}

fn send(pid: u32, signal: Signal) {
    let Ok(raw) = i32::try_from(pid) else { return };
    // 0 and 1 would reach our own group or init.
    if raw > 1
        && let Err(error) = kill(Pid::from_raw(raw), signal)
    {
        tracing::debug!(pid, %signal, %error, "signal was not delivered");
    }
}

/// How a program ended, in words.
pub(crate) fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            let name = Signal::try_from(signal).map_or("unknown signal", Signal::as_str);
            format!("killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

/// Creates a file that does not exist yet, with its mode from the first moment.
pub(crate) fn create_private(path: &Path, mode: u32) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Opens a file for appending, created 0600.
pub(crate) fn open_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether the path still names the open file; false after a rotation moved it away.
pub(crate) fn is_same_file(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => there.ino() == here.ino() && there.dev() == here.dev(),
        _ => false,
    }
}

/// The permission bits of a file that users outside its group may use. The group's bits are no sign: where an access list
/// names one more user, they are the list's mask.
pub(crate) fn open_to_others(about: &std::fs::Metadata) -> Option<u32> {
    (about.mode() & 0o007 != 0).then_some(about.mode() & 0o777)
}

/// Whether a file has these permission bits.
#[cfg(test)]
pub(crate) fn mode_is(path: &Path, mode: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.mode() & 0o777 == mode)
}

/// Makes a directory with its mode; one that stands is left as it is.
pub(crate) fn create_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => std::io::Error::new(error.kind(), "there is something else of that name"),
        _ => error,
    })
}

/// Whether somebody serves on a socket.
pub(crate) fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Gives a file to a group; false where there is no such group.
pub(crate) fn give_to_group(path: &Path, group: &str) -> std::io::Result<bool> {
    let Ok(Some(group)) = Group::from_name(group) else { return Ok(false) };
    std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()))?;
    Ok(true)
}

/// The user that this process runs as.
pub(crate) fn own_uid() -> u32 {
    Uid::effective().as_raw()
}

/// Whether a user belongs to a group; false for groups and users that do not exist.
pub(crate) fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else { return false };
    if group.gid == Gid::from_raw(gid) {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    user.gid == group.gid || group.mem.contains(&user.name)
}

/// What can be done only before the jail is closed and is kept then: names that do not exist make the C library load every
/// service that it looks names up in, and the size of a page is read from memory that is closed to reading later.
pub(crate) fn warm_up() {
    drop(Group::from_name("no-such-group.daemoneye"));
    drop(User::from_name("no-such-user.daemoneye"));
    page_bytes();
}

/// The name of a user, or its number.
pub(crate) fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Sets the mask for everything that this process creates from here on.
pub(crate) fn mask_new_files(group: GroupMay) {
    let mask = match group {
        GroupMay::Read => 0o027,
        GroupMay::Write => 0o007,
    };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// What the kernel says about itself and this host.
pub(crate) fn kernel() -> Kernel {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Kernel {
        hostname: text(uname.nodename()),
        name: text(uname.sysname()),
        release: text(uname.release()),
        machine: text(uname.machine()),
    }
}

/// Bytes of a memory page.
pub(crate) fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}
