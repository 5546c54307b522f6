//! Linux: the magic link `/proc/<pid>/exe`, which leads to the file that runs, whatever its path leads to by now.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use super::HashStatus;
use super::HashWish;
use super::file::{FileKey, Found, Opened, Source, Waiting};
use crate::text::{Executable, escaped};

/// The lowest priority short of idle: hashing gives way to whatever the host is there for.
const NICENESS: i32 = 10;

pub(super) const AVAILABLE: bool = true;

/// Executables of living processes.
pub(super) struct Executables;

impl Source for Executables {
    /// The link itself is read, which asks nobody where it leads to.
    fn runs(&self, wish: &HashWish) -> Result<(), HashStatus> {
        let target = readlinkat(CWD, magic_link(wish.pid), Vec::new()).map_err(missing)?;
        let marked = |_path: &[u8]| wish.executable_path.ends_with(" (deleted)");
        let same = escaped(Executable::of(target.as_bytes(), marked).path).0 == wish.executable_path;
        if same { Ok(()) } else { Err(HashStatus::Vanished) }
    }

    fn find(&self, wish: &HashWish) -> Result<Found, HashStatus> {
        // From what the kernel has at hand, as far as the file system lets it.
        let seen =
            statx(CWD, magic_link(wish.pid), AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS).map_err(missing)?;
        self.runs(wish)?;
        Ok(Found { key: key(&seen), regular: is_regular(&seen) })
    }

    fn hold(&self, key: FileKey, wish: &HashWish, pinned: bool) -> Result<(FileKey, Box<dyn Waiting>), HashStatus> {
        let held = pinned.then(|| handle_of(key, &magic_link(wish.pid), OFlags::empty(), true));
        let (shown, handle) = match held {
            Some(Ok((shown, handle))) => (shown, Some(handle)),
            // It is gone, and its path may hang: that is for whoever hashes.
            Some(Err(HashStatus::Vanished)) if wish.file.is_some() => (key, None),
            Some(Err(status)) => return Err(status),
            None => (key, None),
        };
        Ok((shown, Box::new(Held { handle, key: shown, pid: wish.pid, path: wish.executable_path.clone() })))
    }

    fn enter(&self) {
        // Refused in some jails; then hashing competes like everything else here.
        rustix::process::nice(NICENESS).ok();
    }
}

/// A file that is held, or how to find it again.
struct Held {
    handle: Option<OwnedFd>,
    key: FileKey,
    pid: u32,
    path: String,
}

impl Waiting for Held {
    fn open(&self) -> Result<Box<dyn Opened>, HashStatus> {
        if let Some(handle) = &self.handle {
            return reopened(handle);
        }
        // The path only leads to the same file when device and inode are those that ran.
        let (_, again) = handle_of(self.key, &magic_link(self.pid), OFlags::empty(), true)
            .or_else(|_gone| handle_of(self.key, &self.path, OFlags::NOFOLLOW, false))?;
        reopened(&again)
    }

    fn still_runs(&self) -> bool {
        let seen = statx(CWD, magic_link(self.pid), AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS);
        seen.is_ok_and(|seen| {
            let now = key(&seen);
            (now.device, now.inode) == (self.key.device, self.key.inode)
        })
    }
}

impl Opened for File {
    fn key(&self) -> Result<FileKey, HashStatus> {
        let seen = statx(self, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
        seen.map(|seen| key(&seen)).map_err(|_refused| HashStatus::Unreadable)
    }
}

/// What a path leads to, as the tests see it.
#[cfg(test)]
pub(super) fn look(path: &str) -> Result<Found, HashStatus> {
    let seen = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).map_err(missing)?;
    Ok(Found { key: key(&seen), regular: is_regular(&seen) })
}

/// A file whose process is gone: only its path is left.
#[cfg(test)]
pub(super) fn held(key: FileKey, path: &str) -> Result<Box<dyn Waiting>, HashStatus> {
    Ok(Box::new(Held { handle: None, key, pid: 0, path: path.to_owned() }))
}

/// A handle that reads nothing and wakes no device, if it is the regular file that was looked at. Some file systems (btrfs,
/// overlays) show another device than the kernel keeps; what `runs` may differ in that alone, for nobody can forge what the
/// magic link leads to.
fn handle_of(wanted: FileKey, path: &str, more: OFlags, runs: bool) -> Result<(FileKey, OwnedFd), HashStatus> {
    let handle = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | more, Mode::empty()).map_err(missing)?;
    let seen = statx(&handle, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS)
        .map_err(missing)?;
    let found = key(&seen);
    let same = (found.device, found.inode) == (wanted.device, wanted.inode) || (runs && found.is_like(&wanted));
    if !same || !is_regular(&seen) {
        return Err(HashStatus::Vanished);
    }
    Ok((found, handle))
}

fn reopened(handle: &OwnedFd) -> Result<Box<dyn Opened>, HashStatus> {
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|_refused| HashStatus::Unreadable)?;
    Ok(Box::new(File::from(file)))
}

fn magic_link(pid: u32) -> String {
    format!("/proc/{pid}/exe")
}

fn missing(errno: Errno) -> HashStatus {
    if matches!(errno, Errno::NOENT | Errno::SRCH) { HashStatus::Vanished } else { HashStatus::Unreadable }
}

fn is_regular(seen: &Statx) -> bool {
    FileType::from_raw_mode(seen.stx_mode.into()) == FileType::RegularFile
}

fn key(seen: &Statx) -> FileKey {
    FileKey {
        device: (seen.stx_dev_major, seen.stx_dev_minor),
        inode: seen.stx_ino,
        size: seen.stx_size,
        modified: (seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec),
        changed: (seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec),
    }
}
