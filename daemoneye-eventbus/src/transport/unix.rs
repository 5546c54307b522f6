//! Unix domain sockets.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, Name, ToFsName as _, tokio as local};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;

use super::{DIRECTORY_MODE, Peer, SOCKET_MODE, failed};
use crate::BusError;

/// Tries to become the only one that replaces socket files in a directory, 50 ms apart: binding takes far less than 1 s.
const LOCK_TRIES: u32 = 20;

pub(super) fn name(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>()
}

/// Opens the socket. The directory is locked from the look at an old socket file until ours stands: two agents that start
/// at once could otherwise each remove the other's.
pub(super) async fn bind(path: &Path) -> Result<local::Listener, BusError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    prepare(directory)?;
    let lock = File::open(directory).map_err(failed("open", directory))?;
    hold(&lock, directory).await?;
    remove_stale(path).await?;
    create(path, directory)
}

fn prepare(directory: &Path) -> Result<(), BusError> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed("create", directory))?;
    let mode = fs::metadata(directory).map_err(failed("look at", directory))?.mode();
    if mode & 0o002 != 0 {
        return Err(BusError::MisuseOpenDirectory { path: directory.to_path_buf() });
    }
    Ok(())
}

async fn hold(lock: &File, directory: &Path) -> Result<(), BusError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(TryLockError::Error(source)) => return Err(failed("lock", directory)(source)),
        }
    }
    Err(BusError::MisuseInUse { path: directory.to_path_buf() })
}

async fn remove_stale(path: &Path) -> Result<(), BusError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BusError::MisuseNotSocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    let name = name(path).map_err(failed("name", path))?;
    match local::Stream::connect(name).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove stale socket", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog means that somebody listens.
        Ok(_) => Err(BusError::MisuseInUse { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BusError::MisuseInUse { path: path.to_path_buf() })
        }
        Err(error) => Err(failed("connect to the old socket", path)(error)),
    }
}

fn create(path: &Path, directory: &Path) -> Result<local::Listener, BusError> {
    let options = || Ok(ListenerOptions::new().name(name(path)?).reclaim_name(false));
    let opened = options().and_then(|options: ListenerOptions<'_>| options.mode(SOCKET_MODE.into()).create_tokio());
    match opened {
        // Some systems cannot set a socket's mode before it is bound; a directory closed to others does as well.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let mode = fs::metadata(directory).map_err(failed("look at", directory))?.mode();
            if mode & 0o007 != 0 {
                return Err(BusError::MisuseOpenDirectory { path: directory.to_path_buf() });
            }
            options().and_then(ListenerOptions::create_tokio).map_err(failed("open", path))
        }
        other => other.map_err(failed("open", path)),
    }
}

/// The user decides. A pid of 0 is that of a peer outside our pid namespace and means "unknown"; a user that the kernel does
/// not tell is its -1.
pub(super) fn peer(stream: &local::Stream) -> io::Result<Peer> {
    let local::Stream::UdSocket(stream) = stream;
    let told = stream.inner().peer_cred()?;
    if told.uid() == u32::MAX {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this system does not tell who connects"));
    }
    let pid = told.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(Peer { uid: told.uid(), gid: told.gid(), pid })
}

/// Device, inode, and change time: an inode number alone is reused at once.
pub(crate) type Instance = (u64, u64, i64, i64);

pub(super) fn instance(path: &Path) -> Option<Instance> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Removes the socket file on drop, unless somebody has put another one there.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf(), inode: inode(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // A file that stays behind is replaced at the next start: nobody answers on it.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    instance(path).map(|(device, inode, ..)| (device, inode))
}
