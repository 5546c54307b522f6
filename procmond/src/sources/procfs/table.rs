//! The files of a proc tree: one kept directory handle, everything opened relative to it, one buffer for all contents.
//!
//! A process directory that is held open pins the process it was opened for: once that process is gone every read through
//! it fails, even if the pid was given to another one meanwhile.

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, StatxFlags};
use rustix::io::Errno;

use super::parse;
use crate::text::FIELD_BYTES;

/// Bytes of one file's contents that are read: the field bound and one more, so that a longer one is noticed. Every file
/// used other than `cmdline` is far smaller.
const CONTENT_BYTES: usize = FIELD_BYTES + 1;

/// Bytes of `stat`: a name and fifty numbers of at most twenty digits.
const STAT_BYTES: usize = 2048;

/// Bytes of directory entries per call; 32 KiB hold about 1,300 processes.
const LISTING_BYTES: usize = 32 * 1024;

/// Why a file of a process could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Unread {
    /// The kernel refuses to show it to us.
    Denied,
    /// It may well be there, but we lack a descriptor, memory or a device that answers.
    Failed,
    /// The process is gone, or it has no such thing (a kernel thread has no executable).
    Gone,
}

impl From<Errno> for Unread {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Gone,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// An open proc tree.
pub(in crate::sources) struct Table {
    root: OwnedFd,
    content: Vec<u8>,
    /// Apart from `content`, so that it outlasts the reads that follow it.
    stat: Vec<u8>,
    stat_length: usize,
    link: Vec<u8>,
    listing: Vec<MaybeUninit<u8>>,
}

impl Table {
    pub(in crate::sources) fn open(root: &Path) -> std::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
            content: vec![0; CONTENT_BYTES],
            stat: vec![0; STAT_BYTES],
            stat_length: 0,
            link: vec![0; FIELD_BYTES],
            listing: vec![MaybeUninit::uninit(); LISTING_BYTES],
        })
    }

    /// All process ids, ascending; `pids` is reused from scan to scan.
    pub(super) fn pids(&mut self, pids: &mut Vec<u32>) -> std::io::Result<()> {
        pids.clear();
        rustix::fs::seek(&self.root, SeekFrom::Start(0))?;
        let mut entries = RawDir::new(&self.root, &mut self.listing);
        while let Some(entry) = entries.next() {
            if let Some(pid) = parse::number(entry?.file_name().to_bytes()) {
                pids.push(pid);
            }
        }
        // The kernel lists in this order already; a recorded tree need not.
        pids.sort_unstable();
        pids.dedup();
        Ok(())
    }

    /// A file directly under the root.
    pub(super) fn root_file(&mut self, name: &str) -> Result<&[u8], Unread> {
        read(self.root.as_fd(), name.as_bytes(), &mut self.content)
    }

    /// `<pid>/stat` in one open, for processes of which nothing else is needed; kept for [`Self::last_stat`].
    pub(super) fn stat(&mut self, pid: u32) -> Result<&[u8], Unread> {
        let mut path = [0u8; 24];
        let mut rest = path.as_mut_slice();
        // Ten digits and five characters always fit.
        write!(rest, "{pid}/stat").map_err(|_full| Unread::Failed)?;
        let unused = rest.len();
        let used = path.len().saturating_sub(unused);
        let path = path.get(..used).unwrap_or_default();
        self.stat_length = 0;
        self.stat_length = read(self.root.as_fd(), path, &mut self.stat)?.len();
        Ok(self.last_stat())
    }

    /// `stat` of a pinned process, kept for [`Self::last_stat`].
    pub(super) fn stat_in(&mut self, process: &OwnedFd) -> Result<(), Unread> {
        self.stat_length = 0;
        self.stat_length = read(process.as_fd(), b"stat", &mut self.stat)?.len();
        Ok(())
    }

    /// What [`Self::stat`] or [`Self::stat_in`] read last.
    pub(super) fn last_stat(&self) -> &[u8] {
        self.stat.get(..self.stat_length).unwrap_or_default()
    }

    /// The pid namespace that the whole tree shows, if we live in it ourselves and may say which it is.
    pub(super) fn own_namespace(&mut self) -> Option<u64> {
        let status = parse::status(self.root_file("self/status").ok()?);
        let length = rustix::fs::readlinkat_raw(&self.root, "self/ns/pid", self.link.as_mut_slice()).ok()?;
        parse::namespace_inode(self.link.get(..length)?).filter(|_| status.outermost)
    }

    /// The handle that pins a process.
    pub(in crate::sources) fn process(&self, pid: u32) -> Result<OwnedFd, Unread> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, rustix::path::DecInt::new(pid), flags, Mode::empty())?)
    }

    /// The effective user as the directory's owner shows it: cheaper than `status`, and it changes with a set-uid exec.
    pub(super) fn owner(&self, pid: u32) -> Result<u32, Unread> {
        Ok(rustix::fs::statat(&self.root, rustix::path::DecInt::new(pid), AtFlags::empty())?.st_uid)
    }

    pub(in crate::sources) fn file(&mut self, process: &OwnedFd, name: &str) -> Result<&[u8], Unread> {
        read(process.as_fd(), name.as_bytes(), &mut self.content)
    }

    /// The target of a link; an empty target counts as gone.
    pub(in crate::sources) fn link(&mut self, process: &OwnedFd, name: &str) -> Result<&[u8], Unread> {
        let length = rustix::fs::readlinkat_raw(process, name, self.link.as_mut_slice())?;
        self.link.get(..length).filter(|target| !target.is_empty()).ok_or(Unread::Gone)
    }

    /// Whether the file behind the `exe` link stands at `path` under exactly this name: the kernel marks an unlinked
    /// executable with a suffix that a file may also really have. The process chooses the path, so the walk may end in a file
    /// system that does not answer: never for the thread that listens to the kernel.
    pub(in crate::sources) fn executable_stands_at(process: &OwnedFd, path: &[u8]) -> bool {
        let (same, flags) = (StatxFlags::INO, AtFlags::STATX_DONT_SYNC);
        let Ok(running) = rustix::fs::statx(process, "exe", flags, same) else { return false };
        let Ok(named) = rustix::fs::statx(CWD, path, flags, same) else { return false };
        let id = |file: &rustix::fs::Statx| (file.stx_dev_major, file.stx_dev_minor, file.stx_ino);
        id(&running) == id(&named)
    }
}

fn read<'b>(directory: BorrowedFd<'_>, path: &[u8], buffer: &'b mut [u8]) -> Result<&'b [u8], Unread> {
    // Without NONBLOCK a fifo planted in a recorded tree would hold the scan for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, path, flags, Mode::empty())?;
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        let wanted = room.len();
        match rustix::io::read(&file, room) {
            Ok(count) => {
                filled = filled.saturating_add(count);
                // These files are produced whole, so less than asked for means the end; asking again costs a system call.
                if count < wanted {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(buffer.get(..filled).unwrap_or_default())
}
